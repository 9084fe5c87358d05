// Losing the relay and finding it again.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/client/running_client.hpp"

namespace bore::client::testing {
namespace {

std::size_t announced_count(RunningClient& client) {
    return client.out().all().size();
}

// Accepts the control connection, checks the port asked for, answers with `port`.
Peer serve_hello(Listener& relay, std::string_view hello, std::uint16_t port) {
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(), hello);
    control.send_frame(R"({"Hello":)" + std::to_string(port) + "}");
    return control;
}

TEST(Reconnect, AsksForTheSamePortAndAnnouncesOnlyAChange) {
    Listener relay;
    RunningClient client(config_for(relay.port(), dead_port()));
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    EXPECT_NE(client.out().wait_for("listening at 127.0.0.1:40001"), "");
    control.close();
    EXPECT_NE(client.log().wait_for("closed the tunnel; trying again in"), "");
    control = serve_hello(relay, R"({"Hello":40001})", 40001);
    control.close();
    control = serve_hello(relay, R"({"Hello":40001})", 40002);
    EXPECT_NE(client.out().wait_for("listening at 127.0.0.1:40002"), "");
    EXPECT_EQ(announced_count(client), 2U);
    EXPECT_EQ(client.engine().tunnels().size(), 1U) << "counters go on over reconnects";
}

TEST(Reconnect, PortThatIsStillTakenIsTriedAgain) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port());
    config.tunnels[0].public_port = 41000;
    RunningClient client(config);
    Peer control = serve_hello(relay, R"({"Hello":41000})", 41000);
    control.close();
    for (int count = 0; count < 3; ++count) {
        control = relay.accept();
        EXPECT_EQ(control.frame(), R"({"Hello":41000})");
        control.send_frame(R"({"Error":"port already in use"})");
        control.close();
    }
    control = serve_hello(relay, R"({"Hello":41000})", 41000);
    control.send_frame(R"("Heartbeat")");
    EXPECT_EQ(client.wait_for_end(100), std::nullopt);
    EXPECT_EQ(announced_count(client), 1U);
    EXPECT_NE(client.log().wait_for("does not give public port 41000 back yet: server error: port "
                                    "already in use; trying again"),
              "");
}

TEST(Reconnect, WithoutAPortOfItsOwnItTakesAnotherOneInTheEnd) {
    Listener relay;
    Timing timing = quick();
    timing.port_patience = std::chrono::milliseconds(150);
    RunningClient client(config_for(relay.port(), dead_port()), timing);
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    control.close();
    std::string hello;
    for (int count = 0; count < 50 && hello != R"({"Hello":0})"; ++count) {
        control = relay.accept();
        hello = control.frame();
        if (hello == R"({"Hello":40001})") {
            control.send_frame(R"({"Error":"port already in use"})");
        }
    }
    EXPECT_EQ(hello, R"({"Hello":0})");
    control.send_frame(R"({"Hello":40007})");
    EXPECT_NE(client.out().wait_for("40007"), "");
}

TEST(Reconnect, SurvivesEveryFailureOnceItWasUp) {
    Listener relay;
    RunningClient client(config_for(relay.port(), dead_port()));
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    control.close();
    for (const std::string& answer :
         {std::string(R"({"Error":"invalid secret"})") + '\0', std::string(400, 'x'),
          std::string("HTTP/1.1 502 Bad Gateway\r\n\r\n"), std::string()}) {
        control = relay.accept();
        ASSERT_TRUE(control.is_open()) << "no attempt after the previous answer";
        EXPECT_EQ(control.frame(), R"({"Hello":40001})");
        control.send(answer);
        control.close();
    }
    control = serve_hello(relay, R"({"Hello":40001})", 40001);
    EXPECT_EQ(client.wait_for_end(100), std::nullopt);
}

TEST(Reconnect, JunkOnALiveTunnelIsALoss) {
    for (const std::string& junk :
         {std::string(300, 'x'), std::string("{}") + '\0', std::string(1, '\0')}) {
        Listener relay;
        RunningClient client(config_for(relay.port(), dead_port()));
        Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
        control.send(junk);
        EXPECT_TRUE(relay.accept().is_open());
        EXPECT_NE(client.log().wait_for("trying again"), "");
    }
}

TEST(Reconnect, RegularRelayThatFallsSilentIsDead) {
    Listener relay;
    Timing timing = quick();
    timing.silence_limit = std::chrono::milliseconds(600);
    RunningClient client(config_for(relay.port(), dead_port()), timing);
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    for (int count = 0; count < 6; ++count) {
        control.send_frame(R"("Heartbeat")");
        std::this_thread::sleep_for(std::chrono::milliseconds(40));
    }
    const auto silent_since = std::chrono::steady_clock::now();
    Peer again = relay.accept();
    ASSERT_TRUE(again.is_open());
    EXPECT_GE(std::chrono::steady_clock::now() - silent_since, std::chrono::milliseconds(500));
    EXPECT_EQ(again.frame(), R"({"Hello":40001})");
    EXPECT_NE(client.log().wait_for("has been silent"), "");
}

TEST(Reconnect, RelayWithoutHeartbeatsMayBeSilent) {
    Listener relay;
    Timing timing = quick();
    timing.silence_limit = std::chrono::milliseconds(150);
    RunningClient client(config_for(relay.port(), dead_port()), timing);
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    control.send_frame(R"("Heartbeat")");
    EXPECT_FALSE(relay.accept(700).is_open());
}

TEST(Reconnect, NoReconnectEndsWithTheTunnel) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port());
    config.no_reconnect = true;
    RunningClient client(config);
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    EXPECT_NE(client.out().wait_for("listening"), "");
    control.close();
    EXPECT_EQ(client.wait_for_end(), 0);
}

TEST(Reconnect, NoReconnectEndsWithOneOnAProtocolError) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port());
    config.no_reconnect = true;
    RunningClient client(config);
    Peer control = serve_hello(relay, R"({"Hello":0})", 40001);
    control.send(std::string(300, 'x'));
    EXPECT_EQ(client.wait_for_end(), 1);
}

TEST(Reconnect, SlowUpstreamRelayIsMetWithItsOwnOpening) {
    // Its Challenge came after our Hello, and it calls that a missing secret.
    Listener relay;
    RunningClient client(config_for(relay.port(), dead_port(), "my_secret_string"));
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(), R"({"Hello":0})");
    control.send_frame(R"({"Error":"server requires secret, but no secret was provided"})");
    control.close();
    control = relay.accept();
    EXPECT_EQ(control.frame(800), "<nothing>");
    control.send_frame(R"({"Challenge":"f47ac10b-58cc-4372-a567-0e02b2c3d479"})");
    EXPECT_NE(control.frame().find("744750c9e24d8cf1"), std::string::npos);
    EXPECT_EQ(control.frame(), R"({"Hello":0})");
}

}  // namespace
}  // namespace bore::client::testing
