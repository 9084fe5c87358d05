// Answers in words. They come from another process: whatever is in them, a person gets text.
#include "controlplane/ctl/answers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

namespace bore::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

boost::json::object json(const char* text) {
    return boost::json::parse(text).as_object();
}

TEST(Answers, Successes) {
    EXPECT_EQ(success_text(command::Kill{.port = 1, .id = {}},
                           json(R"({"ok":true,"port":1,"id":"0.1","client":"::1","pairs":3,
                                    "visitors_waiting":2})")),
              "ended: tunnel 0.1 of port 1, client ::1, with 3 pairs and 2 visitors waiting\n");
    EXPECT_THAT(success_text(command::Drain{}, json(R"({"tunnels":1,"pairs":2,"deadline_s":9,
                                                        "visitors_waiting":0})")),
                HasSubstr("cut in 9 s"));
    EXPECT_EQ(success_text(command::Undrain{}, json(R"({"tunnels":2,"ports_lost":[80]})")),
              "serving: 2 tunnels\nlost, its tunnel has ended: port 80\n");
    EXPECT_EQ(success_text(command::Reload{}, json(R"({"changed":["a","b"],
                                                       "needs_restart":["c"],"warnings":["d"]})")),
              "changed: a\nchanged: b\nneeds a restart: c\nwarning: d\n");
    EXPECT_EQ(success_text(command::Reload{}, json(R"({"changed":[]})")),
              "reloaded, nothing changed\n");
    EXPECT_EQ(success_text(command::SetLogLevel{}, json(R"({"level":"debug","previous":"info"})")),
              "log level debug, was info\n");
}

TEST(Answers, FailuresAndNonsense) {
    EXPECT_EQ(failure_text(json(R"({"error":"reload: 1 error","errors":["max-port: no"]})")),
              "borectl: reload: 1 error\n  max-port: no\n");
    EXPECT_FALSE(is_ok(json(R"({})")));
    EXPECT_FALSE(is_ok(json(R"({"ok":1})")));
    EXPECT_TRUE(is_ok(json(R"({"ok":true})")));
    EXPECT_THAT(failure_text(json("{\"error\":\"\\u001b[31mred\\n\"}")), Not(HasSubstr("\x1b")));
    EXPECT_EQ(success_text(command::Ping{}, json(R"({"state":[1]})")),
              "[1]: ? tunnels, ? pairs, ? visitors waiting\n");
}

}  // namespace
}  // namespace bore::ctl
