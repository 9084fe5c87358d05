// Conversations byte by byte: both dialects, visitors, the hand-over to the engine, the end.
#include <gtest/gtest.h>
#include <netinet/tcp.h>

#include <set>
#include <string>

#include "tests/client/running_client.hpp"

namespace bore::client::testing {
namespace {

// The vector of wire-protocol §4 for "my_secret_string".
constexpr std::string_view challenge = R"({"Challenge":"f47ac10b-58cc-4372-a567-0e02b2c3d479"})";
constexpr std::string_view tag =
    R"({"Authenticate":"744750c9e24d8cf15608b1159a8d9ca09d68ba144a81ccb2885a8f52587be207"})";
constexpr std::string_view connection = R"({"Connection":"00112233-4455-4677-8899-aabbccddeeff"})";
constexpr std::string_view accept_message = R"({"Accept":"00112233-4455-4677-8899-aabbccddeeff"})";

// A tunnel without a secret that is up.
struct OpenTunnel {
    explicit OpenTunnel(std::uint16_t local_port, Timing timing = quick(),
                        std::size_t max_pairs = 1'000)
        : client(config_for(relay.port(), local_port), timing, max_pairs), control(relay.accept()) {
        EXPECT_EQ(control.frame(), R"({"Hello":0})");
        control.send_frame(R"({"Hello":40001})");
        EXPECT_EQ(client.out().wait_for("listening"), "listening at 127.0.0.1:40001");
    }

    Listener relay;
    RunningClient client;
    Peer control;
};

std::string connection_frame(unsigned number) {
    std::string digits = std::to_string(number);
    digits.insert(0, 12 - digits.size(), '0');
    return R"({"Connection":"00000000-0000-4000-8000-)" + digits + R"("})";
}

TEST(Client, OpenRelayVisitorReachesTheLocalService) {
    Listener service;
    OpenTunnel tunnel(service.port());
    tunnel.control.send_frame(R"("Heartbeat")");
    tunnel.control.send_frame(connection);
    Peer data = tunnel.relay.accept();
    EXPECT_EQ(data.frame(), accept_message);
    data.send("from the visitor");

    auto pair = tunnel.client.engine().wait_for_pair();
    ASSERT_TRUE(pair.has_value());
    EXPECT_EQ(pair->request.tunnel_index, 0U);
    EXPECT_TRUE(pair->request.left_over_to_visitor.empty());
    // The legs are the right way round and unread.
    EXPECT_EQ(pair->relay_leg.receive(), "from the visitor");
    pair->relay_leg.send("to the visitor");
    EXPECT_EQ(data.receive(), "to the visitor");
    Peer served = service.accept();
    pair->local_leg.send("to the service");
    EXPECT_EQ(served.receive(), "to the service");
    EXPECT_EQ(tunnel.client.engine().tunnels(),
              (std::vector<std::pair<std::uint32_t, std::uint16_t>>{{0, 40001}}));
}

TEST(Client, LegsAreNonblockingWithoutNagle) {
    Listener service;
    OpenTunnel tunnel(service.port());
    tunnel.control.send_frame(connection);
    Peer data = tunnel.relay.accept();
    auto pair = tunnel.client.engine().wait_for_pair();
    ASSERT_TRUE(pair.has_value());
    for (const int descriptor : {pair->request.visitor_socket, pair->request.client_socket}) {
        int no_delay = 0;
        socklen_t size = sizeof no_delay;
        EXPECT_EQ(::getsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
        EXPECT_NE(no_delay, 0);
        EXPECT_NE(::fcntl(descriptor, F_GETFL) & O_NONBLOCK, 0);
    }
}

TEST(Client, UpstreamSecretAnswersTheChallengeOnEveryConnection) {
    Listener relay;
    Listener service;
    RunningClient client(config_for(relay.port(), service.port(), "my_secret_string"));
    Peer control = relay.accept();
    control.send_frame(challenge);
    EXPECT_EQ(control.frame(), tag);
    EXPECT_EQ(control.frame(), R"({"Hello":0})");
    control.send_frame(R"({"Hello":40002})");
    EXPECT_NE(client.out().wait_for("listening at 127.0.0.1:40002"), "");

    control.send_frame(connection);
    Peer data = relay.accept();
    EXPECT_EQ(data.receive(600), "<nothing>") << "the relay speaks first here";
    // Bytes behind the handshake belong to the local service.
    data.send(std::string(challenge) + '\0' + "early bytes");
    EXPECT_EQ(data.receive(), std::string(tag) + '\0' + std::string(accept_message) + '\0')
        << "both frames in one write";
    const auto pair = client.engine().wait_for_pair();
    ASSERT_TRUE(pair.has_value());
    const auto& early = pair->request.left_over_to_client;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(early.data()), early.size()),
              "early bytes");
}

TEST(Client, ForkSecretIsFoundOutAndItsDataConnectionsAcceptAtOnce) {
    Listener relay;
    Listener service;
    RunningClient client(config_for(relay.port(), service.port(), "my_secret_string"));
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(), R"({"Hello":0})");  // no Challenge came
    control.send_frame(challenge);
    EXPECT_EQ(control.frame(), tag);
    control.send_frame(R"({"Hello":40003})");
    EXPECT_NE(client.out().wait_for("listening"), "");
    control.send_frame(connection);
    Peer data = relay.accept();
    EXPECT_EQ(data.frame(200), accept_message);
    data.send("raw");
    auto pair = client.engine().wait_for_pair();
    ASSERT_TRUE(pair.has_value());
    EXPECT_EQ(pair->relay_leg.receive(), "raw");
}

TEST(Client, ForcedDialectsDoNotWait) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port(), "my_secret_string");
    config.auth_dialect = config::AuthDialect::fork;
    const RunningClient client(config);
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(250), R"({"Hello":0})");
}

TEST(Client, ForcedUpstreamWaitsForTheChallenge) {
    Listener relay;
    auto config = config_for(relay.port(), dead_port(), "my_secret_string");
    config.auth_dialect = config::AuthDialect::upstream;
    const RunningClient client(config);
    Peer control = relay.accept();
    EXPECT_EQ(control.frame(800), "<nothing>");
    control.send_frame(challenge);
    EXPECT_EQ(control.frame(), tag);
}

TEST(Client, TokenGoesFirstAndDataConnectionsStayPlain) {
    Listener relay;
    Listener service;
    RunningClient client(config_for(relay.port(), service.port(), "tk_abc"));
    Peer control = relay.accept();
    EXPECT_EQ(control.receive(),
              std::string(R"({"Authenticate":"tk_abc"})") + '\0' + R"({"Hello":0})" + '\0');
    control.send_frame(R"({"Hello":40004})");
    EXPECT_NE(client.out().wait_for("listening"), "");
    control.send_frame(connection);
    Peer data = relay.accept();
    EXPECT_EQ(data.frame(), accept_message);
}

TEST(Client, LocalServiceDownGivesTheVisitorAnEndAndNotAReset) {
    OpenTunnel tunnel(dead_port());
    tunnel.control.send_frame(connection);
    Peer data = tunnel.relay.accept();
    data.send("GET / HTTP/1.1\r\n\r\n");  // unread bytes would turn a close into a reset
    EXPECT_EQ(data.frame(), accept_message);
    EXPECT_EQ(data.frame(), "<end>");
    data.send("more");
    data.close();
    const std::string line = tunnel.client.log().wait_for("local service");
    EXPECT_NE(line.find("Connection refused; nothing listens there"), std::string::npos) << line;
    // A hundred of them are one line.
    for (int count = 0; count < 100; ++count) {
        tunnel.control.send_frame(connection);
        Peer next = tunnel.relay.accept();
        EXPECT_EQ(next.frame(), accept_message);
        EXPECT_EQ(next.frame(), "<end>");
    }
    std::size_t lines = 0;
    for (const std::string& logged : tunnel.client.log().all()) {
        lines += logged.find("local service") != std::string::npos ? 1U : 0U;
    }
    EXPECT_LE(lines, 3U);
}

TEST(Client, FramesMaySplitAnywhereAndComeInBursts) {
    Listener service;
    OpenTunnel tunnel(service.port());
    for (const char byte : std::string(connection) + '\0') {
        tunnel.control.send({&byte, 1});
    }
    Peer first = tunnel.relay.accept();
    EXPECT_EQ(first.frame(), accept_message);

    constexpr unsigned visitor_count = 600;  // more than may be opening at once
    std::string burst;
    for (unsigned number = 0; number < visitor_count; ++number) {
        burst += connection_frame(number) + '\0';
    }
    tunnel.control.send(burst);
    std::set<std::string> accepted;
    std::vector<Peer> kept;
    for (unsigned number = 0; number < visitor_count; ++number) {
        kept.push_back(tunnel.relay.accept());
        ASSERT_TRUE(kept.back().is_open());
        accepted.insert(kept.back().frame());
        ASSERT_TRUE(tunnel.client.engine().wait_for_pair().has_value());
        ASSERT_TRUE(service.accept().is_open());
    }
    EXPECT_EQ(accepted.size(), visitor_count);
}

TEST(Client, PairsAreBoundedAndTheRestWaits) {
    Listener service;
    OpenTunnel tunnel(service.port(), quick(), 2);
    for (unsigned number = 0; number < 3; ++number) {
        tunnel.control.send_frame(connection_frame(number));
    }
    Peer first = tunnel.relay.accept();
    Peer second = tunnel.relay.accept();
    ASSERT_TRUE(first.is_open());
    ASSERT_TRUE(second.is_open());
    EXPECT_FALSE(tunnel.relay.accept(200).is_open());
    auto pair = tunnel.client.engine().wait_for_pair();
    ASSERT_TRUE(pair.has_value());
    tunnel.client.engine().end_one_pair();
    EXPECT_TRUE(tunnel.relay.accept().is_open());
}

TEST(Client, VisitorWhoseTurnComesTooLateIsNotClaimed) {
    Listener service;
    Timing timing = quick();
    timing.visitor_timeout = std::chrono::milliseconds(100);
    OpenTunnel tunnel(service.port(), timing, 1);
    tunnel.control.send_frame(connection_frame(1));
    Peer first = tunnel.relay.accept();
    ASSERT_TRUE(tunnel.client.engine().wait_for_pair().has_value());
    tunnel.control.send_frame(connection_frame(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    tunnel.client.engine().end_one_pair();
    EXPECT_FALSE(tunnel.relay.accept(200).is_open());
    EXPECT_NE(tunnel.client.log().wait_for("ulimit -n"), "");
}

TEST(Client, SilentDataConnectionIsGivenUp) {
    Listener relay;
    Listener service;
    Timing timing = quick();
    timing.visitor_timeout = std::chrono::milliseconds(300);
    RunningClient client(config_for(relay.port(), service.port(), "my_secret_string"), timing);
    Peer control = relay.accept();
    control.send_frame(challenge);
    EXPECT_EQ(control.frame(), tag);
    control.send_frame(R"({"Hello":40002})");
    control.send_frame(connection);
    Peer data = relay.accept();
    EXPECT_EQ(data.frame(2'000), "<end>");  // no Challenge ever came
    EXPECT_NE(client.log().wait_for("its handshake took too long"), "");
}

TEST(Client, SeveralLocalPortsAreSeveralTunnels) {
    Listener relay;
    auto config = config_for(relay.port(), 3001);
    config.tunnels = {{.local_port = 3001, .public_port = 41001},
                      {.local_port = 3002, .public_port = 41002}};
    RunningClient client(config);
    for (int count = 0; count < 2; ++count) {
        Peer control = relay.accept();
        const std::string hello = control.frame();
        EXPECT_TRUE(hello == R"({"Hello":41001})" || hello == R"({"Hello":41002})") << hello;
        control.send_frame(hello);
        const std::string port = hello.substr(9, 5);
        EXPECT_EQ(client.out().wait_for(port),
                  "listening at 127.0.0.1:" + port + " (127.0.0.1:300" + port.back() + ")");
    }
}

TEST(Client, RelaysRemarksAreLoggedAndSurvived) {
    Listener service;
    OpenTunnel tunnel(service.port());
    tunnel.control.send_frame(R"({"Error":"going down soon"})");
    EXPECT_NE(tunnel.client.log().wait_for("the relay says: going down soon"), "");
    tunnel.control.send_frame(R"({"Hello":5})");
    tunnel.control.send_frame(connection);
    EXPECT_EQ(tunnel.relay.accept().frame(), accept_message);
}

TEST(Client, FirstSignalLetsPairsFinish) {
    Listener service;
    OpenTunnel tunnel(service.port());
    tunnel.control.send_frame(connection);
    Peer data = tunnel.relay.accept();
    ASSERT_TRUE(tunnel.client.engine().wait_for_pair().has_value());
    const base::Nanoseconds before = base::monotonic_now();
    tunnel.client.interrupt();
    EXPECT_EQ(tunnel.control.frame(), "<end>");
    const auto deadline = tunnel.client.engine().wait_for_drain();
    ASSERT_TRUE(deadline.has_value());
    EXPECT_NEAR(static_cast<double>(*deadline - before) / 1e9, 5.0, 1.0);
    EXPECT_EQ(tunnel.client.wait_for_end(300), std::nullopt);
    tunnel.client.engine().end_one_pair();
    EXPECT_EQ(tunnel.client.wait_for_end(), 0);
}

TEST(Client, SecondSignalEndsAtOnce) {
    Listener service;
    OpenTunnel tunnel(service.port());
    tunnel.control.send_frame(connection);
    Peer data = tunnel.relay.accept();
    ASSERT_TRUE(tunnel.client.engine().wait_for_pair().has_value());
    tunnel.client.interrupt();
    tunnel.client.interrupt();
    EXPECT_EQ(tunnel.client.wait_for_end(1'000), 0);
}

}  // namespace
}  // namespace bore::client::testing
