// What a hand-off is told: the tunnel's path policy, when the client hears of its Accept, commands
// meanwhile. The steps themselves are in handoff_test.cpp.
#include <gmock/gmock.h>

#include "dataplane/packet/handoff.hpp"
#include "tests/packet/slow_path_fixture.hpp"

namespace bore::packet::test {
namespace {

using abi::StreamReason;
using ::testing::ElementsAre;

// ---- Policy

TEST_F(SlowPathTest, PolicySpliceTakesLongPathsAndStripsSelectiveAcknowledgements) {
    limits.path_policy = abi::PathPolicy::splice;
    slow->set_tunnel_limits(1, limits);
    host.sockets[client_socket].snapshot.round_trip_us = 90'000;
    host.sockets[client_socket].snapshot.sack = false;
    const FlowIndex flow = splice();
    for (const abi::Leg leg : {abi::Leg::visitor, abi::Leg::client}) {
        EXPECT_EQ(table->direction(direction_of(flow, leg)).flags & flag_sack, 0);
    }
}

TEST_F(SlowPathTest, LongButAlikePathsAreSpliced) {
    host.sockets[visitor_socket].snapshot.round_trip_us = 30'000;
    host.sockets[client_socket].snapshot.round_trip_us = 20'000;
    splice();
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
}

TEST_F(SlowPathTest, RoundTripsAreThoseOfTheFreeze) {
    make_legs();
    host.sockets[client_socket].snapshot.round_trip_us = 50'000;
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::long_path));
}

// ---- The acknowledgement of Accept

TEST_F(SlowPathTest, AfterTheSpliceTheClientsAcknowledgementWaitsForTheVisitorsRoundTrip) {
    for (const int socket : {visitor_socket, client_socket}) {
        host.sockets[socket].snapshot.round_trip_us = 20'000;
    }
    wire_in(from_visitor(visitor_next, ""));
    wire_in(from_client(client_next - 50, "{\"Accept\":\"id\"}"), 1);
    kernel_in(to_client(client_next), 1);  // held back
    open();
    ASSERT_EQ(host.wire.size(), 2U);  // the visitor's update, and the probe
    EXPECT_EQ(host.wire[0].segment().sequence, to_visitor_next);
    EXPECT_EQ(host.wire[1].segment().sequence, to_visitor_next - 1);
    EXPECT_EQ(host.wire[1].segment().destination_port, visitor_key.peer_port);
    EXPECT_EQ(count(Counter::acks_delayed_total), 1U);
    const auto direction = table->find(visitor_key);
    ASSERT_TRUE(direction);
    EXPECT_EQ(table->cold(flow_of(*direction)).ack_hold_back, 50U);
    pass_time(19 * millisecond_ns);
    EXPECT_EQ(host.wire.size(), 2U);
    pass_time(2 * millisecond_ns);
    ASSERT_EQ(host.wire.size(), 3U);
    EXPECT_EQ(host.wire[2].segment().acknowledgement, client_next);
    EXPECT_EQ(host.wire[2].segment().destination_port, client_key.peer_port);
}

TEST_F(SlowPathTest, WithAShortVisitorLegTheClientIsAcknowledgedAtOnce) {
    wire_in(from_visitor(visitor_next, ""));
    wire_in(from_client(client_next - 50, "{\"Accept\":\"id\"}"), 1);
    kernel_in(to_client(client_next), 1);
    open();
    ASSERT_EQ(host.wire.size(), 2U);
    EXPECT_EQ(host.wire[1].segment().acknowledgement, client_next);
    EXPECT_EQ(count(Counter::acks_delayed_total), 0U);
}

TEST_F(SlowPathTest, OnTheStreamEngineTheHeldBackAcknowledgementIsSentAtOnce) {
    limits.path_policy = abi::PathPolicy::stream;
    slow->set_tunnel_limits(1, limits);
    wire_in(from_client(client_next - 50, "{\"Accept\":\"id\"}"), 1);
    const Bytes held_back = to_client(client_next);
    kernel_in(held_back, 1);
    EXPECT_TRUE(host.wire.empty());
    open();
    ASSERT_EQ(host.wire.size(), 1U);
    EXPECT_EQ(host.wire[0].bytes, held_back);
}

// ---- Commands during the hand-off

TEST_F(SlowPathTest, APairClosedWhileItDrainsIsResetOnBothSidesAndReported) {
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 4;
    host.sockets[client_socket].unread = 10;
    open();
    host.wire.clear();
    slow->close_pair(pair_slot, pair_generation + 1, now);  // another pair's handle
    EXPECT_TRUE(host.ends.empty());
    slow->close_pair(pair_slot, pair_generation, now);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, abi::EndReason::closed);
    EXPECT_EQ(host.ends[0].to_visitor_bytes, 6U);
    ASSERT_EQ(host.wire.size(), 2U);
    EXPECT_EQ(host.wire[0].segment().flags, tcp_rst | tcp_ack);
    EXPECT_EQ(host.wire[0].segment().sequence, to_visitor_next);
    EXPECT_EQ(host.wire[1].segment().sequence, to_client_next);
    EXPECT_TRUE(host.sockets[visitor_socket].closed);
    EXPECT_TRUE(host.sockets[client_socket].closed);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
    EXPECT_TRUE(slow->idle());
}

TEST_F(SlowPathTest, DrainingTakesNoNewPairsAndEndsHandOffsAtTheDeadline) {
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 1;
    open();
    slow->drain(now + 500 * millisecond_ns, now);
    pass_time(400 * millisecond_ns);
    EXPECT_TRUE(host.to_stream_reasons.empty());
    pass_time(200 * millisecond_ns);
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::busy));
    EXPECT_TRUE(slow->idle());
}

TEST_F(SlowPathTest, APairOpenedAfterDrainGoesToTheStreamEngine) {
    make_legs();
    slow->drain(now + second_ns, now);
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::busy));
}

}  // namespace
}  // namespace bore::packet::test
