// The relay over real loopback sockets: handshakes, visitors, limits, ends, drain and reload. What
// the frames mean is tested with the pure codec; here it is what the relay does with sockets.
#include "controlplane/relay/server.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <vector>

#include "controlplane/relay/sockets.hpp"
#include "tests/relay/running_relay.hpp"

namespace bore::relay::testing {
namespace {

using abi::ControlCounter;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

int option_of(int socket, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    ::getsockopt(socket, level, name, &value, &length);
    return value;
}

std::uint16_t peer_port_of(int socket) {
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    ::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &length);
    return port_of(peer);
}

bool pairs_reach(RunningRelay& relay, std::size_t count) {
    return eventually([&] { return relay.engine.pair_count() >= count; });
}

// What a peer sees may precede what the control thread counts.
bool reaches(RunningRelay& relay, ControlCounter counter, std::uint64_t count) {
    return eventually([&] { return relay.count(counter) >= count; }) &&
           relay.count(counter) == count;
}

// ---- Pairing

TEST(Server, PairsAVisitorWithTheDataConnectionThatClaimsIt) {
    RunningRelay relay;
    TunnelPeer tunnel(relay.port());
    ASSERT_GE(tunnel.public_port(), 1024);
    Peer visitor(tunnel.public_port());
    ASSERT_TRUE(visitor.connected());
    Peer data(relay.port());
    const std::string sent = accept(tunnel.next_visitor()) + "bytes behind";
    data.send(sent);
    ASSERT_TRUE(pairs_reach(relay, 1));

    const abi::PairRequest pair = relay.engine.pair(0);
    const auto tunnels = relay.engine.opened_tunnels();
    ASSERT_EQ(tunnels.size(), 1U);
    EXPECT_EQ(tunnels[0].public_port, tunnel.public_port());
    EXPECT_EQ(tunnels[0].tunnel_index, pair.tunnel_index);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(pair.left_over_to_visitor.data()),
                          pair.left_over_to_visitor.size()),
              "bytes behind");
    const auto& [of_visitor, of_client] = pair.facts;
    EXPECT_EQ(of_visitor.read_bytes, 0U);
    EXPECT_EQ(of_client.read_bytes, sent.size());
    EXPECT_EQ(of_visitor.peer_port, peer_port_of(pair.visitor_socket));
    EXPECT_EQ(of_client.peer_port, peer_port_of(pair.client_socket));
    for (const abi::LegFacts& facts : pair.facts) {
        EXPECT_EQ(facts.peer_address, config::IpAddress::parse("127.0.0.1")->bytes);
        EXPECT_EQ(facts.own_address, facts.peer_address);
    }
    EXPECT_EQ(of_visitor.own_port, tunnel.public_port());
    EXPECT_EQ(of_client.own_port, relay.port());
    for (const int socket : {pair.visitor_socket, pair.client_socket}) {
        EXPECT_EQ(option_of(socket, IPPROTO_TCP, TCP_NODELAY), 1) << "inherited";
        EXPECT_EQ(option_of(socket, SOL_SOCKET, SO_KEEPALIVE), 1) << "inherited";
    }
    EXPECT_TRUE(eventually([&] { return relay.count(ControlCounter::visitors_pending) == 0; }));
    EXPECT_TRUE(
        eventually([&] { return relay.count(ControlCounter::unauthenticated_connections) == 0; }));
}

TEST(Server, AnAcceptMayComeInPiecesAndLate) {
    RunningRelay relay;
    TunnelPeer tunnel(relay.port());
    Peer visitor(tunnel.public_port());
    Peer data(relay.port());
    std::this_thread::sleep_for(milliseconds(30));
    const std::string frame = accept(tunnel.next_visitor());
    data.send(frame.substr(0, 20));
    std::this_thread::sleep_for(milliseconds(30));
    EXPECT_EQ(relay.engine.pair_count(), 0U);
    data.send(frame.substr(20) + "x");
    ASSERT_TRUE(pairs_reach(relay, 1));
    EXPECT_EQ(relay.engine.pair(0).left_over_to_visitor.size(), 1U);
    EXPECT_EQ(relay.engine.pair(0).facts[1].read_bytes, frame.size() + 1);
}

TEST(Server, AnIdIsClaimedOnceAndUnknownOnesAreClosedSilently) {
    RunningRelay relay;
    TunnelPeer tunnel(relay.port());
    Peer visitor(tunnel.public_port());
    const std::string id = tunnel.next_visitor();
    Peer first(relay.port());
    first.send(accept(id));
    ASSERT_TRUE(pairs_reach(relay, 1));
    Peer second(relay.port());
    second.send(accept(id));
    EXPECT_EQ(second.frame(), "FIN");
    Peer unknown(relay.port());
    unknown.send(accept("00000000-0000-4000-8000-000000000000"));
    EXPECT_EQ(unknown.frame(), "FIN");
    EXPECT_TRUE(reaches(relay, ControlCounter::accepts_unknown_total, 2));
    EXPECT_EQ(relay.engine.pair_count(), 1U);
}

TEST(Server, ThousandVisitorsAtOnceAreServedThroughASmallPendingCap) {
    RunningRelay relay([](auto& config) { config.max_pending_visitors = 64; });
    TunnelPeer tunnel(relay.port());
    std::vector<Peer> visitors;
    std::vector<Peer> data;
    for (int i = 0; i < 1000; ++i) {
        visitors.emplace_back(tunnel.public_port());
        ASSERT_TRUE(visitors.back().connected());
    }
    std::set<std::string> ids;
    for (int i = 0; i < 1000; ++i) {
        const std::string id = tunnel.next_visitor();
        ASSERT_EQ(id.size(), 36U) << id;
        ASSERT_TRUE(ids.insert(id).second);
        ASSERT_LE(relay.count(ControlCounter::visitors_pending), 64U);
        data.emplace_back(relay.port());
        data.back().send(accept(id));
    }
    EXPECT_TRUE(pairs_reach(relay, 1000));
    EXPECT_TRUE(
        eventually([&] { return relay.count(ControlCounter::visitors_paused_total) >= 1; }));
    EXPECT_EQ(relay.count(ControlCounter::connections_refused_rate_total), 0U);
    EXPECT_EQ(relay.count(ControlCounter::connections_refused_unauthenticated_total), 0U);
}

TEST(Server, ClaimsFromManyConnectionsAtOnceAreNotTakenForAFlood) {
    // The client opens all its data connections before the first of them says Accept.
    RunningRelay relay([](auto& config) {
        config.handshake_rate_per_source = 20;
        config.max_unauthenticated_per_source = 10;
        config.max_unauthenticated = 30;
    });
    TunnelPeer tunnel(relay.port());
    std::vector<Peer> visitors;
    std::vector<std::string> ids;
    for (int i = 0; i < 200; ++i) {
        visitors.emplace_back(tunnel.public_port());
        ids.push_back(tunnel.next_visitor());
    }
    std::vector<Peer> data;
    for (int i = 0; i < 200; ++i) {
        data.emplace_back(relay.port());
    }
    ASSERT_TRUE(eventually(
        [&] { return relay.count(ControlCounter::unauthenticated_connections) == 200; }));
    for (std::size_t i = 0; i < 200; ++i) {
        data[i].send(accept(ids[i]));
    }
    EXPECT_TRUE(pairs_reach(relay, 200));
}

TEST(Server, AnUnclaimedVisitorIsDroppedInTime) {
    RunningRelay relay([](auto& config) { config.visitor_claim_timeout_ms = 300; });
    TunnelPeer tunnel(relay.port());
    const auto start = steady_clock::now();
    Peer visitor(tunnel.public_port());
    const std::string id = tunnel.next_visitor();
    EXPECT_EQ(visitor.frame(), "FIN");
    const auto waited = steady_clock::now() - start;
    EXPECT_GE(waited, milliseconds(295));
    EXPECT_LE(waited, milliseconds(600));
    Peer late(relay.port());
    late.send(accept(id));
    EXPECT_EQ(late.frame(), "FIN");
    EXPECT_TRUE(reaches(relay, ControlCounter::visitors_unclaimed_total, 1));
}

TEST(Server, APairThatTheEngineRefusesIsClosedOnBothSides) {
    RunningRelay relay;
    relay.engine.refuse_pairs();
    TunnelPeer tunnel(relay.port());
    Peer visitor(tunnel.public_port());
    Peer data(relay.port());
    data.send(accept(tunnel.next_visitor()));
    EXPECT_TRUE(data.closed());
    EXPECT_TRUE(visitor.closed());
    EXPECT_TRUE(reaches(relay, ControlCounter::handoffs_refused_total, 1));
}

TEST(Server, AcceptFromTunnelAddressPolicy) {
    RunningRelay relay([](auto& config) { config.accept_from_tunnel_address = true; });
    TunnelPeer tunnel(relay.port());
    Peer visitor(tunnel.public_port());
    const std::string id = tunnel.next_visitor();
    Peer stranger(relay.port(), "127.0.0.2");
    stranger.send(accept(id));
    EXPECT_TRUE(stranger.closed());
    EXPECT_TRUE(reaches(relay, ControlCounter::accepts_unauthorized_total, 1));
    Peer owner(relay.port());
    owner.send(accept(id));
    EXPECT_TRUE(pairs_reach(relay, 1));
}

TEST(Server, VisitorsBeyondTheTunnelsCapAreRefusedUntilAPairEnds) {
    RunningRelay relay([](auto& config) { config.max_visitors_per_tunnel = 1; });
    TunnelPeer tunnel(relay.port());
    Peer visitor(tunnel.public_port());
    Peer data(relay.port());
    data.send(accept(tunnel.next_visitor()));
    ASSERT_TRUE(pairs_reach(relay, 1));
    Peer refused(tunnel.public_port());
    EXPECT_TRUE(refused.closed());
    EXPECT_TRUE(reaches(relay, ControlCounter::visitors_refused_limit_total, 1));
    relay.engine.end_pair(0);
    std::this_thread::sleep_for(milliseconds(50));
    Peer next(tunnel.public_port());
    EXPECT_EQ(tunnel.next_visitor().size(), 36U);
}

// ---- Handshakes and limits

TEST(Server, AnErrorFrameSurvivesWhatTheClientSentBehindItsHello) {
    RunningRelay relay;
    Peer client(relay.port());
    client.send(hello(1) + std::string(30'000, 'x'));
    EXPECT_EQ(client.frame(), error("client port number not in allowed range"));
    EXPECT_EQ(client.frame(), "FIN");
}

TEST(Server, AFrameWithoutEndIsCutOffAtOnce) {
    RunningRelay relay;
    Peer client(relay.port());
    const auto start = steady_clock::now();
    client.send(std::string(1 << 20, 'x'));
    EXPECT_TRUE(client.closed());
    EXPECT_LT(steady_clock::now() - start, milliseconds(200));
    EXPECT_TRUE(reaches(relay, ControlCounter::frame_errors_total, 1));
}

TEST(Server, AnswersHttp) {
    RunningRelay relay;
    Peer browser(relay.port());
    browser.send("GET / HTTP/1.1\r\nHost: ");
    std::this_thread::sleep_for(milliseconds(20));
    browser.send("relay\r\n\r\n");
    EXPECT_EQ(browser.frame(), "FIN") << "the answer has no NUL; it ends with the connection";
    EXPECT_TRUE(reaches(relay, ControlCounter::http_probes_total, 1));
}

TEST(Server, SilentConnectionsTimeOut) {
    RunningRelay relay([](auto& config) { config.first_byte_timeout_ms = 100; });
    Peer client(relay.port());
    const auto start = steady_clock::now();
    EXPECT_EQ(client.frame(), "FIN");
    EXPECT_GE(steady_clock::now() - start, milliseconds(95));
    EXPECT_TRUE(
        eventually([&] { return relay.count(ControlCounter::handshake_timeouts_total) == 1; }));
}

TEST(Server, ASourceIsHeldToItsRateAndCapAndOthersAreNot) {
    RunningRelay relay([](auto& config) {
        config.handshake_rate_per_source = 1000;
        config.max_unauthenticated_per_source = 3;
    });
    std::vector<Peer> silent;
    for (int i = 0; i < 3; ++i) {
        silent.emplace_back(relay.port());
    }
    Peer fourth(relay.port());
    EXPECT_TRUE(fourth.closed());
    Peer elsewhere(relay.port(), "127.0.0.2");
    elsewhere.send(hello(0));
    EXPECT_TRUE(elsewhere.frame().starts_with("{\"Hello\":"));
    // The one with its tunnel is still counted when its client reads Hello.
    ASSERT_TRUE(
        eventually([&] { return relay.count(ControlCounter::unauthenticated_connections) == 3; }));
    silent.clear();
    ASSERT_TRUE(
        eventually([&] { return relay.count(ControlCounter::unauthenticated_connections) == 0; }));
    TunnelPeer again(relay.port());
    EXPECT_NE(again.public_port(), 0);
    EXPECT_TRUE(reaches(relay, ControlCounter::connections_refused_unauthenticated_total, 1));
}

TEST(Server, RefusesTunnelsBeyondTheCapsWithAWord) {
    RunningRelay relay([](auto& config) {
        config.max_tunnels = 3;
        config.max_tunnels_per_source = 2;
    });
    TunnelPeer first(relay.port());
    {
        TunnelPeer second(relay.port());
        Peer third(relay.port());
        third.send(hello(0));
        EXPECT_EQ(third.frame(),
                  error("your address has 2 tunnels, the most this relay allows; close one first"));
        Peer other(relay.port(), "127.0.0.2");
        other.send(hello(0));
        EXPECT_TRUE(other.frame().starts_with("{\"Hello\":"));
        Peer full(relay.port(), "127.0.0.3");
        full.send(hello(0));
        EXPECT_EQ(full.frame(), error("this relay is full (3 tunnels); try again later or use "
                                      "another relay"));
    }
    ASSERT_TRUE(eventually([&] { return relay.count(ControlCounter::tunnels_live) == 1; }));
    TunnelPeer again(relay.port());
    EXPECT_NE(again.public_port(), 0);
    EXPECT_TRUE(reaches(relay, ControlCounter::tunnels_refused_limit_total, 2));
}

TEST(Server, SourceNetworksAreChecked) {
    RunningRelay relay([](auto& config) {
        config.deny_clients = {config::Prefix::parse("127.0.0.2/32").value()};
        config.deny_visitors = {config::Prefix::parse("127.0.0.3/32").value()};
    });
    Peer denied(relay.port(), "127.0.0.2");
    EXPECT_TRUE(denied.closed());
    TunnelPeer tunnel(relay.port());
    Peer visitor(tunnel.public_port(), "127.0.0.3");
    EXPECT_TRUE(visitor.closed());
    EXPECT_TRUE(reaches(relay, ControlCounter::connections_refused_network_total, 1));
    EXPECT_TRUE(reaches(relay, ControlCounter::visitors_refused_network_total, 1));
    Peer welcome(tunnel.public_port());
    EXPECT_EQ(tunnel.next_visitor().size(), 36U);
}

// ---- With a secret

struct ClientOfSecret : Peer {
    // Upstream's order: Challenge, Authenticate, then `message` without waiting.
    ClientOfSecret(std::uint16_t port, const std::string& secret, const std::string& message)
        : Peer(port) {
        const std::string json = frame();
        const std::string_view prefix = "{\"Challenge\":\"";
        const auto challenge = protocol::parse_uuid(
            json.size() > prefix.size() ? json.substr(prefix.size(), 36) : json);
        send("{\"Authenticate\":\"" +
             protocol::SecretKey(secret).tag_for(challenge.value_or(protocol::Uuid{})) + "\"}" +
             std::string(1, '\0') + message);
    }
};

TEST(Server, AVisitorOfAnUpstreamTunnelNeedsTheSecret) {
    RunningRelay relay([](auto& config) {
        config.secret = "open sesame";
        config.challenge_grace_ms = 20;
    });
    ClientOfSecret client(relay.port(), "open sesame", hello(0));
    const std::string answer = client.frame();
    ASSERT_TRUE(answer.starts_with("{\"Hello\":")) << answer;
    Peer visitor(static_cast<std::uint16_t>(std::stoul(answer.substr(9))));
    const std::string id = client.frame_past_heartbeats().substr(15, 36);

    Peer thief(relay.port(), "127.0.0.2");
    thief.send(accept(id));
    EXPECT_TRUE(thief.closed());
    EXPECT_EQ(relay.engine.pair_count(), 0U);
    EXPECT_TRUE(
        eventually([&] { return relay.count(ControlCounter::accepts_unauthorized_total) >= 1; }));

    ClientOfSecret data(relay.port(), "open sesame", accept(id) + "early");
    ASSERT_TRUE(pairs_reach(relay, 1));
    EXPECT_EQ(relay.engine.pair(0).left_over_to_visitor.size(), 5U);

    ClientOfSecret wrong(relay.port(), "guess", hello(0));
    EXPECT_EQ(wrong.frame(), error("invalid secret"));
    EXPECT_TRUE(reaches(relay, ControlCounter::authentication_failures_total, 1));
}

TEST(Server, AClientThatAnswersKeepsItsPortAgainstTheSameUser) {
    RunningRelay relay([](auto& config) {
        config.secret = "s";
        config.auth_dialect = config::AuthDialect::upstream;
    });
    ClientOfSecret holder(relay.port(), "s", hello(0));
    const unsigned port = static_cast<unsigned>(std::stoul(holder.frame().substr(9)));
    ClientOfSecret second(relay.port(), "s", hello(port));
    EXPECT_EQ(second.frame(), error("port already in use"));
    holder.close();
    ClientOfSecret heir(relay.port(), "s", hello(port));
    EXPECT_EQ(heir.frame() + "\0"s, hello(port)) << "its FIN came first and is seen first";
}

// ---- Ends

TEST(Server, TheControlConnectionsEndFreesThePortAndSparesVisitors) {
    for (const bool orderly : {true, false}) {
        RunningRelay relay;
        TunnelPeer tunnel(relay.port());
        Peer visitor(tunnel.public_port());
        const std::string id = tunnel.next_visitor();
        const auto start = steady_clock::now();
        orderly ? tunnel.close() : tunnel.reset();
        ASSERT_TRUE(eventually([&] { return relay.count(ControlCounter::tunnels_live) == 0; }));
        TunnelPeer next(relay.port(), tunnel.public_port());
        EXPECT_EQ(next.public_port(), tunnel.public_port());
        EXPECT_LT(steady_clock::now() - start, milliseconds(200));
        Peer data(relay.port());
        data.send(accept(id));
        ASSERT_TRUE(pairs_reach(relay, 1));
        EXPECT_TRUE(relay.engine.closed_tunnels().empty()) << "its row serves the pair still";
        relay.engine.end_pair(0);
        EXPECT_TRUE(eventually([&] { return relay.engine.closed_tunnels().size() == 1; }));
    }
}

TEST(Server, WhatTheClientSaysAfterHelloIsIgnored) {
    RunningRelay relay([](auto& config) { config.heartbeat_interval_ms = 50; });
    TunnelPeer tunnel(relay.port());
    tunnel.send(hello(7) + std::string(100'000, 'x'));
    Peer visitor(tunnel.public_port());
    EXPECT_EQ(tunnel.next_visitor().size(), 36U);
    EXPECT_EQ(tunnel.frame(), "\"Heartbeat\"");
    tunnel.close();
    EXPECT_TRUE(eventually([&] { return relay.count(ControlCounter::tunnels_live) == 0; }))
        << "reading goes on with the next heartbeat";
}

TEST(Server, AHeartbeatIsSentOnlyWhenNothingElseWas) {
    RunningRelay relay([](auto& config) {
        config.heartbeat_interval_ms = 200;
        config.visitor_log_rate = 0;
    });
    TunnelPeer tunnel(relay.port());
    for (int i = 0; i < 40; ++i) {
        Peer visitor(tunnel.public_port());
        EXPECT_EQ(tunnel.frame().size(), 53U) << "a Connection and no Heartbeat";
        std::this_thread::sleep_for(milliseconds(10));
    }
    EXPECT_EQ(relay.count(ControlCounter::heartbeats_total), 0U);
    EXPECT_EQ(tunnel.frame(), "\"Heartbeat\"");
}

// ---- Drain and reload

TEST(Server, ADrainServesWhoWaitsAndThenEnds) {
    RunningRelay relay;
    TunnelPeer tunnel(relay.port());
    TunnelPeer idle(relay.port());
    Peer visitor(tunnel.public_port());
    const std::string id = tunnel.next_visitor();
    relay.drain();
    EXPECT_FALSE(Peer(tunnel.public_port()).connected()) << "no new visitors";
    EXPECT_TRUE(idle.closed()) << "a tunnel without work ends at once";
    Peer newcomer(relay.port());
    newcomer.send(hello(0));
    EXPECT_EQ(newcomer.frame(), error("this relay is shutting down; try again later or use another "
                                      "relay"));
    Peer data(relay.port());
    data.send(accept(id));
    ASSERT_TRUE(pairs_reach(relay, 1));
    EXPECT_FALSE(relay.ends_within(milliseconds(100))) << "the pair lives";
    EXPECT_TRUE(reaches(relay, ControlCounter::tunnels_live, 1)) << "and so does its client";
    relay.engine.end_pair(0);
    EXPECT_TRUE(tunnel.closed());
    EXPECT_TRUE(relay.ends_within(milliseconds(2000)));
}

TEST(Server, AnIdleRelayDrainsAtOnce) {
    RunningRelay relay;
    relay.drain();
    EXPECT_TRUE(relay.ends_within(milliseconds(2000)));
}

TEST(Server, AReloadTakesEffectForTheNextConnection) {
    RunningRelay relay;
    TunnelPeer tunnel(relay.port());
    relay.reload([](config::ServerConfig& config) {
        config.max_tunnels_per_source = 1;
        config.idle_timeout_s = 7;
    });
    Peer second(relay.port());
    second.send(hello(0));
    EXPECT_EQ(second.frame(),
              error("your address has 1 tunnels, the most this relay allows; close one first"));
    ASSERT_EQ(relay.engine.opened_tunnels().size(), 2U);
    EXPECT_EQ(relay.engine.opened_tunnels()[1].limits.idle_timeout_ms, 7000U);
    relay.reload([](config::ServerConfig& config) { config.secret = "new"; });
    ClientOfSecret stranger(relay.port(), "other", hello(0));
    EXPECT_EQ(stranger.frame(), error("invalid secret"));
    Peer visitor(tunnel.public_port());
    Peer data(relay.port());
    data.send(accept(tunnel.next_visitor()));
    EXPECT_TRUE(pairs_reach(relay, 1)) << "a tunnel from before the secret serves on";
}

}  // namespace
}  // namespace bore::relay::testing
