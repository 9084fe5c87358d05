// The command line.
#include "controlplane/ctl/options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

namespace bore::ctl {
namespace {

using ::testing::HasSubstr;
using Arguments = std::vector<const char*>;

std::expected<Options, EarlyEnd> read(Arguments words) {
    words.insert(words.begin(), "borectl");
    return read_options(words);
}

command::Request request_of(const Arguments& words) {
    const auto options = read(words);
    EXPECT_TRUE(options) << options.error().error;
    return options ? std::get<command::Request>(options->action) : command::Request{};
}

TEST(Options, EveryReadingCommand) {
    struct Case {
        const char* word;
        Show what;
    };
    for (const Case& example :
         {Case{"status", Show::status}, Case{"tunnels", Show::tunnels},
          Case{"workers", Show::workers}, Case{"ports", Show::ports}, Case{"flows", Show::flows},
          Case{"drops", Show::drops}, Case{"histograms", Show::histograms}}) {
        const auto options = read({"--json", "--relay", "eu-1", example.word});
        ASSERT_TRUE(options) << options.error().error;
        EXPECT_TRUE(options->json);
        EXPECT_EQ(options->relay, "eu-1");
        EXPECT_EQ(std::get<ShowOptions>(options->action).what, example.what);
    }
    const auto behind = read({"tunnels", "--all", "--json", "--relay=/dev/shm/bore-x"});
    ASSERT_TRUE(behind) << behind.error().error;
    EXPECT_TRUE(std::get<ShowOptions>(behind->action).all);
    EXPECT_EQ(behind->relay, "/dev/shm/bore-x");
}

TEST(Options, EveryCommandToTheRelay) {
    using command::Request;
    EXPECT_EQ(request_of({"kill", "10001"}), Request(command::Kill{.port = 10001, .id = {}}));
    EXPECT_EQ(request_of({"kill", "3.1"}),
              Request(command::Kill{.port = {}, .id = command::TunnelId{3, 1}}));
    EXPECT_EQ(request_of({"drain"}), Request(command::Drain{}));
    EXPECT_EQ(request_of({"drain", "--deadline", "30"}), Request(command::Drain{.deadline_s = 30}));
    EXPECT_EQ(request_of({"undrain"}), Request(command::Undrain{}));
    EXPECT_EQ(request_of({"reload"}), Request(command::Reload{}));
    EXPECT_EQ(request_of({"loglevel", "debug"}),
              Request(command::SetLogLevel{config::LogLevel::debug}));
}

TEST(Options, Top) {
    const auto options =
        read({"top", "--interval", "0.5", "--sort", "port", "--filter", "10.0.", "--once"});
    ASSERT_TRUE(options) << options.error().error;
    const auto& top = std::get<TopOptions>(options->action);
    EXPECT_EQ(top.interval_ns, base::second_ns / 2);
    EXPECT_EQ(top.sort, TopSort::port);
    EXPECT_EQ(top.filter, "10.0.");
    EXPECT_TRUE(top.once);
}

TEST(Options, RefusalsNameValueRuleAndRemedy) {
    struct Case {
        Arguments words;
        std::vector<const char*> parts;
    };
    const std::vector<Case> cases = {
        {{}, {"--help"}},
        {{"frobnicate"}, {"frobnicate", "--help"}},
        {{"kill"}, {"TUNNEL", "--help"}},
        {{"kill", "0"}, {"0", "1 to 65535", "borectl tunnels"}},
        {{"kill", "70000"}, {"70000", "1 to 65535"}},
        {{"kill", "a\x1b[31m"}, {"kill a?[31m"}},
        {{"drain", "--deadline", "soon"}, {"soon", "0 to 86400", "leave it out"}},
        {{"drain", "--deadline", "86401"}, {"86401", "0 to 86400"}},
        {{"loglevel", "loud"}, {"loud", "debug"}},
        {{"top", "--interval", "0.01"}, {"0.01", "0.1 to 3600"}},
        {{"top", "--interval", "nan"}, {"nan", "0.1 to 3600"}},
        {{"top", "--sort", "size"}, {"size", "visits"}},
        {{"top", "--json"}, {"--json", "tunnels --json"}},
        {{"status", "--frob"}, {"--frob", "--help"}},
    };
    for (const Case& example : cases) {
        const auto options = read(example.words);
        ASSERT_FALSE(options);
        EXPECT_EQ(options.error().status, exit_usage);
        EXPECT_EQ(options.error().output, "");
        for (const char* const part : example.parts) {
            EXPECT_THAT(options.error().error, HasSubstr(part));
        }
    }
}

TEST(Options, HelpAndVersionEndWell) {
    const auto help = read({"--help"});
    ASSERT_FALSE(help);
    EXPECT_EQ(help.error().status, exit_done);
    EXPECT_THAT(help.error().output, HasSubstr("histograms"));
    const auto of_command = read({"drain", "--help"});
    ASSERT_FALSE(of_command);
    EXPECT_THAT(of_command.error().output, HasSubstr("--deadline"));
    const auto version = read({"--version"});
    ASSERT_FALSE(version);
    EXPECT_THAT(version.error().output, HasSubstr("borectl "));
}

// The words of a help text that begin with two dashes.
std::set<std::string> options_in(const std::string& help) {
    std::set<std::string> found;
    for (std::size_t at = help.find("--"); at != std::string::npos; at = help.find("--", at + 2)) {
        const std::size_t end = help.find_first_not_of("abcdefghijklmnopqrstuvwxyz-", at);
        found.insert(help.substr(at, end - at));
    }
    return found;
}

// BORE_SOURCE_ROOT comes from the build.
std::string document(const std::string& name) {
    std::ifstream file(std::string(BORE_SOURCE_ROOT) + "/deploy/" + name);
    EXPECT_TRUE(file) << name;
    std::ostringstream text;
    text << file.rdbuf();
    return std::regex_replace(text.str(), std::regex(R"(\\-)"), "-");
}

TEST(Options, ManPageAndCompletionKnowEveryCommandAndOption) {
    const std::string page = document("man/borectl.1");
    const std::string completion = document("completions/borectl");
    const std::string help = read({"--help"}).error().output;
    std::istringstream lines(help.substr(help.find("Subcommands:")));
    std::string line;
    std::getline(lines, line);
    int count = 0;
    while (std::getline(lines, line) && line.starts_with("  ")) {
        const std::string name = line.substr(2, line.find(' ', 2) - 2);
        EXPECT_THAT(page, HasSubstr(name));
        EXPECT_THAT(completion, HasSubstr(name));
        for (const std::string& option :
             options_in(read({name.c_str(), "--help"}).error().output)) {
            EXPECT_THAT(page, HasSubstr(option)) << name;
            EXPECT_THAT(completion, HasSubstr(option)) << name;
        }
        ++count;
    }
    EXPECT_EQ(count, 13);
    for (const std::string& option : options_in(help)) {
        EXPECT_THAT(page, HasSubstr(option));
        EXPECT_THAT(completion, HasSubstr(option));
    }
}

}  // namespace
}  // namespace bore::ctl
