// Requests as text: the documented forms, and what is said of everything else.
#include "controlplane/command/request.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bore::command {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Request, EveryDocumentedFormParses) {
    struct Form {
        std::string line;
        Request request;
    };
    const std::vector<Form> forms = {
        {R"({"command":"ping"})", Ping{}},
        {R"({"command":"kill","port":10001})", Kill{.port = 10001, .id = {}}},
        {R"({"command":"kill","id":"65535.18446744073709551615"})",
         Kill{.port = {}, .id = TunnelId{65535, 18446744073709551615U}}},
        {R"({"command":"drain"})", Drain{}},
        {R"({"command":"drain","deadline_s":0})", Drain{.deadline_s = 0}},
        {R"( {"deadline_s":86400, "command":"drain"} )", Drain{.deadline_s = 86400}},
        {R"({"command":"undrain"})", Undrain{}},
        {R"({"command":"reload"})", Reload{}},
        {R"({"command":"loglevel","level":"warning"})", SetLogLevel{config::LogLevel::warning}},
        {R"({"command":"flows"})", ListFlows{}},
        {R"({"command":"flows","from":4294967295})", ListFlows{.from = 4294967295U}},
    };
    for (const Form& form : forms) {
        const auto parsed = parse_request(form.line);
        ASSERT_TRUE(parsed) << form.line << ": " << parsed.error();
        EXPECT_EQ(*parsed, form.request) << form.line;
        const std::string encoded = encode_request(form.request);
        ASSERT_EQ(encoded.find('\n'), encoded.size() - 1);
        EXPECT_EQ(parse_request(encoded.substr(0, encoded.size() - 1)).value(), form.request);
    }
}

TEST(Request, EveryRefusalNamesValueRuleAndRemedy) {
    struct Case {
        std::string line;
        std::vector<std::string> parts;
    };
    const std::vector<Case> cases = {
        {"", {"JSON object", "ping"}},
        {"frobnicate", {"frobnicate", "JSON object", "ping"}},
        {"[1]", {"[1]", "JSON object"}},
        {"{}", {"command", "missing", "kill"}},
        {R"({"command":7})", {"7", "no text", "kill"}},
        {R"({"command":"frobnicate"})", {"frobnicate", "kill", "loglevel"}},
        {R"({"command":"ping","port":1})", {"port", "takes none", "leave it out"}},
        {R"({"command":"kill"})", {"either port or id"}},
        {R"({"command":"kill","port":1,"id":"1.1"})", {"either port or id"}},
        {R"({"command":"kill","id":1})", {"id", "1", "3.1"}},
        {R"({"command":"kill","id":"1.x"})", {"1.x", "3.1"}},
        {R"({"command":"kill","port":0})", {"port", "0", "1 to 65535"}},
        {R"({"command":"kill","port":65536})", {"65536", "1 to 65535"}},
        {R"({"command":"kill","port":-1})", {"-1", "1 to 65535"}},
        {R"({"command":"kill","port":80.0})", {"port", "whole number"}},
        {R"({"command":"kill","port":"80"})", {R"("80")", "whole number"}},
        {R"({"command":"kill","tunnel":80})", {"tunnel", "port, id"}},
        {R"({"command":"drain","deadline_s":86401})", {"86401", "0 to 86400"}},
        {R"({"command":"loglevel"})", {"level", "missing", "debug"}},
        {R"({"command":"loglevel","level":"loud"})", {"loud", "debug"}},
        {R"({"command":"flows","from":4294967296})", {"4294967296", "0 to 4294967295"}},
        {R"({"command":{"a":{"b":{"c":{"d":1}}}}})", {"JSON object"}},
    };
    for (const Case& example : cases) {
        const auto parsed = parse_request(example.line);
        ASSERT_FALSE(parsed) << example.line;
        for (const std::string& part : example.parts) {
            EXPECT_THAT(parsed.error(), HasSubstr(part)) << example.line;
        }
    }
}

TEST(Request, ARefusalShowsNoControlCharacters) {
    const auto parsed = parse_request("{\"command\":\"a\\u001b[31mred\"}");
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().find('\x1b'), std::string::npos) << parsed.error();
}

TEST(Request, TooLongIsRefusedBeforeItIsRead) {
    const auto parsed = parse_request(std::string(max_request_bytes + 1, ' '));
    ASSERT_FALSE(parsed);
    EXPECT_THAT(parsed.error(), AllOf(HasSubstr("4097"), HasSubstr("4096")));
}

TEST(Request, LevelsHaveNamesBothWays) {
    for (const auto level :
         {config::LogLevel::trace, config::LogLevel::debug, config::LogLevel::info,
          config::LogLevel::warning, config::LogLevel::error, config::LogLevel::off}) {
        EXPECT_EQ(log_level_of(name_of(level)), level);
    }
    EXPECT_FALSE(log_level_of("loud"));
}

}  // namespace
}  // namespace bore::command
