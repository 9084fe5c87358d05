// What the client says, and with which exit code it ends, when the first start fails.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/client/running_client.hpp"

namespace bore::client::testing {
namespace {

struct Case {
    const char* name;
    std::optional<std::string> secret;
    std::string answer;  // of the relay, sent at once
    std::vector<std::string> words;
};

void PrintTo(const Case& tested, std::ostream* out) {
    *out << tested.name;
}

class FinalFailure : public ::testing::TestWithParam<Case> {};

std::string frame(std::string_view json) {
    return std::string(json) + '\0';
}

constexpr std::string_view challenge = R"({"Challenge":"f47ac10b-58cc-4372-a567-0e02b2c3d479"})";

TEST_P(FinalFailure, IsSaidInWordsAndEndsWithOne) {
    const Case& tested = GetParam();
    Listener relay;
    auto config = config_for(relay.port(), dead_port(), tested.secret);
    config.tunnels[0].public_port = 41234;
    RunningClient client(config);
    Peer control = relay.accept();
    control.send(tested.answer);
    EXPECT_EQ(client.wait_for_end(), 1);
    std::string all;
    for (const std::string& line : client.log().all()) {
        all += line + "\n";
    }
    for (const std::string& word : tested.words) {
        EXPECT_NE(all.find(word), std::string::npos) << word << "\nnot in:\n" << all;
    }
    EXPECT_TRUE(client.out().all().empty());
}

INSTANTIATE_TEST_SUITE_P(
    All, FinalFailure,
    ::testing::Values(
        Case{"wrong_secret",
             "x",
             frame(challenge) + frame(R"({"Error":"invalid secret"})"),
             {"server error: invalid secret", "is not the relay's"}},
        Case{"secret_missing",
             std::nullopt,
             frame(challenge),
             {"server requires authentication, but no client secret was provided",
              "give it with --secret or BORE_SECRET"}},
        Case{"secret_missing_by_error",
             std::nullopt,
             frame(R"({"Error":"server requires secret, but no secret was provided"})"),
             {"server requires secret", "give it with --secret or BORE_SECRET"}},
        Case{"no_secret_wanted", "x", frame(R"({"Hello":41234})"), {"the relay wants no secret"}},
        Case{"port_taken",
             std::nullopt,
             frame(R"({"Error":"port already in use"})"),
             {"port already in use", "public port 41234 is taken", "--port"}},
        Case{"port_not_allowed",
             std::nullopt,
             frame(R"({"Error":"client port number not in allowed range"})"),
             {"not in allowed range", "public port 41234 is not in the relay's range"}},
        Case{"refused",
             std::nullopt,
             frame(R"({"Error":"Maximum concurrent tunnels (5) reached."})"),
             {"Maximum concurrent tunnels (5) reached."}},
        Case{"web_server",
             std::nullopt,
             "HTTP/1.1 400 Bad Request\r\n" + std::string(400, 'x'),
             {"is not a bore relay, it answers like a web server", "--control-port"}},
        Case{"ssh_server", std::nullopt, "SSH-2.0-OpenSSH_9\r\n" + std::string(300, 'x'), {"SSH"}},
        Case{"not_json", std::nullopt, frame("what?"), {"does not speak the bore protocol"}},
        Case{"wrong_order",
             std::nullopt,
             frame(R"("Heartbeat")"),
             {"does not speak the bore protocol"}}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(Failure, ShortWebAnswerThatEndsIsRecognized) {
    Listener relay;
    RunningClient client(config_for(relay.port(), dead_port()));
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(), R"({"Hello":0})");
    control.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    control.close();
    EXPECT_EQ(client.wait_for_end(), 1);
    EXPECT_NE(client.log().wait_for("answers like a web server"), "");
}

TEST(Failure, UnreachableRelayIsNamedAndTriedAgain) {
    const std::uint16_t port = dead_port();
    RunningClient client(config_for(port, dead_port()));
    const std::string line = client.log().wait_for("cannot reach the relay");
    EXPECT_NE(line.find("127.0.0.1:" + std::to_string(port)), std::string::npos) << line;
    EXPECT_NE(line.find("Connection refused; nothing listens there: is bore-server running"),
              std::string::npos)
        << line;
    EXPECT_NE(line.find("trying again in 0.0 s"), std::string::npos) << line;
    EXPECT_EQ(client.wait_for_end(100), std::nullopt);
}

TEST(Failure, UnreachableRelayEndsWithOneWithoutReconnect) {
    auto config = config_for(dead_port(), dead_port());
    config.no_reconnect = true;
    RunningClient client(config);
    EXPECT_EQ(client.wait_for_end(), 1);
    EXPECT_NE(client.log().wait_for("cannot reach the relay"), "");
}

TEST(Failure, SilentRelayIsGivenUpAfterTheReplyTimeout) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port());
    config.no_reconnect = true;
    Timing timing = quick();
    timing.reply_timeout = std::chrono::milliseconds(200);
    RunningClient client(config, timing);
    Peer control = relay.accept();
    EXPECT_EQ(client.wait_for_end(), 1);
    EXPECT_NE(client.log().wait_for("timed out waiting"), "");
}

TEST(Failure, RelayThatHangsUpEndsWithOneWithoutReconnect) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port());
    config.no_reconnect = true;
    RunningClient client(config);
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(), R"({"Hello":0})");
    control.close();
    EXPECT_EQ(client.wait_for_end(), 1);
    EXPECT_NE(client.log().wait_for("unexpected EOF"), "");
}

TEST(Failure, OneTunnelThatCannotBeHadEndsTheCommand) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port());
    config.tunnels = {{.local_port = 3001, .public_port = 41001},
                      {.local_port = 3002, .public_port = 41002}};
    RunningClient client(config);
    Peer first = relay.accept();
    Peer second = relay.accept();
    first.send_frame(first.frame());
    EXPECT_NE(client.out().wait_for("listening"), "");
    EXPECT_NE(second.frame(), "<nothing>");
    second.send_frame(R"({"Error":"port already in use"})");
    EXPECT_EQ(client.wait_for_end(), 1);
    EXPECT_EQ(first.frame(), "<end>");
}

}  // namespace
}  // namespace bore::client::testing
