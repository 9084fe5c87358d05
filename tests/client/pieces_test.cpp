// The pure pieces: back-off, liveness, log limit, sentences.
#include <gtest/gtest.h>

#include <boost/asio/error.hpp>
#include <chrono>
#include <cmath>
#include <set>

#include "controlplane/client/backoff.hpp"
#include "controlplane/client/dial.hpp"
#include "controlplane/client/explain.hpp"
#include "controlplane/client/liveness.hpp"
#include "controlplane/client/log_limit.hpp"

namespace bore::client {
namespace {

using std::chrono::milliseconds;

TEST(Backoff, DoublesToItsGreatestAndDrawsFromTheUpperHalf) {
    Backoff backoff(milliseconds(500), milliseconds(15'000), 42);
    for (const int full : {500, 1'000, 2'000, 4'000, 8'000, 15'000, 15'000, 15'000}) {
        const auto delay = backoff.next();
        EXPECT_GE(delay, milliseconds(full / 2));
        EXPECT_LE(delay, milliseconds(full));
    }
    backoff.reset();
    EXPECT_LE(backoff.next(), milliseconds(500));
}

TEST(Backoff, ClientsDoNotComeBackInStep) {
    std::set<std::int64_t> delays;
    for (unsigned seed = 1; seed <= 50; ++seed) {
        Backoff backoff(milliseconds(15'000), milliseconds(15'000), seed);
        (void)backoff.next();
        delays.insert(backoff.next().count());
    }
    EXPECT_GT(delays.size(), 40U);
}

TEST(Liveness, SilenceMeansNothingBeforeARegularBeat) {
    Liveness liveness(10 * base::second_ns);
    base::Nanoseconds now = base::second_ns;
    EXPECT_EQ(liveness.deadline(), std::nullopt);
    for (int count = 0; count < 3; ++count, now += 500 * base::millisecond_ns) {
        liveness.on_heartbeat(now);
        EXPECT_EQ(liveness.deadline(), std::nullopt);
    }
    liveness.on_heartbeat(now);
    EXPECT_EQ(liveness.deadline(), now + 10 * base::second_ns);
    liveness.on_bytes(now + base::second_ns);
    EXPECT_EQ(liveness.deadline(), now + 11 * base::second_ns);
}

TEST(Liveness, SlowBeatIsNotARegularOne) {
    Liveness liveness(10 * base::second_ns);
    base::Nanoseconds now = base::second_ns;
    for (int count = 0; count < 20; ++count, now += 4 * base::second_ns) {
        liveness.on_heartbeat(now);
        EXPECT_EQ(liveness.deadline(), std::nullopt);
    }
}

TEST(LogLimit, CountsWhatItLeavesOut) {
    LogLimit limit(5 * base::second_ns);
    EXPECT_EQ(limit.admit(1 * base::second_ns), "");
    EXPECT_EQ(limit.admit(2 * base::second_ns), std::nullopt);
    EXPECT_EQ(limit.admit(5 * base::second_ns), std::nullopt);
    EXPECT_EQ(limit.admit(6 * base::second_ns), " (2 more since the last such line)");
    EXPECT_EQ(limit.admit(20 * base::second_ns), "");
}

TEST(Explain, AddressesOfIpv6GetBrackets) {
    EXPECT_EQ(host_and_port("relay.example", 7835), "relay.example:7835");
    EXPECT_EQ(host_and_port("::1", 7835), "[::1]:7835");
    EXPECT_EQ(host_and_port("[::1]", 7835), "[::1]:7835");
    EXPECT_EQ(host_and_port("10.0.0.1", 1), "10.0.0.1:1");
}

TEST(Explain, NamesValueReasonAndRemedy) {
    EXPECT_EQ(explain_unresolved("relay.exmaple", asio::error::host_not_found),
              "the relay's name \"relay.exmaple\" does not exist (Host not found (authoritative)); "
              "is --to spelled right?");
    EXPECT_EQ(
        explain_unresolved("relay", asio::error::host_not_found_try_again),
        "cannot look up the relay's name \"relay\": the name service does not answer; is this "
        "machine's network up?");
    EXPECT_EQ(explain_unreachable("r.example:7835", "192.0.2.1:7835", asio::error::timed_out),
              "cannot reach the relay r.example:7835 (192.0.2.1:7835): Connection timed out; is "
              "the address right, and does every firewall on the way let TCP to r.example:7835 "
              "through?");
    EXPECT_EQ(
        explain_unreachable("10.0.0.1:7835", "10.0.0.1:7835", asio::error::connection_refused),
        "cannot reach the relay 10.0.0.1:7835: Connection refused; nothing listens there: is "
        "bore-server running, and are --to and --control-port right?");
    EXPECT_EQ(explain_local_down("localhost:3000", asio::error::connection_refused),
              "a visitor came, but the local service localhost:3000 cannot be reached: Connection "
              "refused; nothing listens there: start it, or correct the port or --local-host");
}

TEST(Explain, RecognizesOtherServers) {
    EXPECT_NE(explain_foreign_peer("r:1", "HTTP/1.1 400").find("web server"), std::string::npos);
    EXPECT_NE(explain_foreign_peer("r:1", "SSH-2.0-x").find("SSH"), std::string::npos);
    EXPECT_NE(explain_foreign_peer("r:1", "\x15\x03\x01").find("TLS"), std::string::npos);
    EXPECT_EQ(explain_foreign_peer("r:1", "{\"Hello\":1}"), "");
    EXPECT_EQ(explain_foreign_peer("r:1", ""), "");
}

TEST(Dial, LiteralsNeedNoLookup) {
    EXPECT_EQ(address_literal("127.0.0.1")->to_string(), "127.0.0.1");
    EXPECT_EQ(address_literal("::1")->to_string(), "::1");
    EXPECT_EQ(address_literal("[::1]")->to_string(), "::1");
    EXPECT_EQ(address_literal("localhost"), std::nullopt);
    EXPECT_EQ(address_literal(""), std::nullopt);
}

}  // namespace
}  // namespace bore::client
