// Spliced flows and their ends: FINs, resets that stand and that do not, timeouts, commands,
// linger. The packet path's part, moving the numbers of a flow, is done by hand here.
#include <gmock/gmock.h>

#include <numeric>

#include "dataplane/packet/flow_end.hpp"
#include "tests/packet/slow_path_fixture.hpp"

namespace bore::packet::test {
namespace {

using abi::EndReason;
using abi::Leg;
using ::testing::ElementsAre;

class FlowEndTest : public SlowPathTest {
  protected:
    void with_limits(std::uint64_t idle_ms, std::uint64_t half_closed_ms) {
        limits.idle_timeout_ms = idle_ms;
        limits.half_closed_timeout_ms = half_closed_ms;
        slow->set_tunnel_limits(1, limits);
    }
    void begin() { flow = splice(); }

    DirectionEntry& direction(Leg leg) { return table->direction(direction_of(flow, leg)); }
    // A segment with so many new bytes came from this leg's peer.
    void sends(Leg leg, std::uint32_t bytes) {
        direction(leg).next_sequence.fetch_add(bytes);
        direction(leg).last_seen.store(activity_tick(now));
    }
    void acknowledges(Leg leg, std::uint32_t bytes) {
        direction(leg).acknowledged.fetch_add(bytes);
        direction(leg).last_seen.store(activity_tick(now));
    }
    void fins(Leg leg) {
        FlowCold& cold = table->cold(flow);
        sends(leg, 1);
        cold.fin_end[static_cast<std::size_t>(leg)].store(direction(leg).next_sequence.load());
        cold.fin_seen[static_cast<std::size_t>(leg)].store(1);
    }
    void event() { slow->flow_event(flow, table->cold(flow).generation.load(), now); }
    void end_in_order() {
        for (const Leg leg : {Leg::visitor, Leg::client}) {
            fins(leg);
            table->cold(flow).fin_acknowledged[static_cast<std::size_t>(leg)].store(1);
        }
        acknowledges(Leg::visitor, 1);
        acknowledges(Leg::client, 1);
        event();
    }

    const abi::Histogram& first_byte_times() const {
        return histograms
            ->histograms[static_cast<std::size_t>(abi::SlowPathHistogram::flow_first_byte_ns)];
    }
    std::uint64_t first_bytes() const {
        const auto& counts = first_byte_times().counts;
        return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
    }

    FlowIndex flow{no_flow};
};

// ---- Told to an operator

TEST_F(FlowEndTest, ALiveFlowIsListedAndAnEndedOneIsNot) {
    EXPECT_TRUE(slow->list_flows(0, now).flows.empty());
    begin();
    sends(Leg::visitor, 300);
    acknowledges(Leg::client, 300);
    now += 3 * second_ns;
    const abi::FlowPage page = slow->list_flows(0, now);
    EXPECT_TRUE(page.splices);
    EXPECT_FALSE(page.next);
    ASSERT_EQ(page.flows.size(), 1U);
    const abi::SplicedFlow& told = page.flows[0];
    EXPECT_EQ(told.flow_index, flow);
    EXPECT_EQ(told.tunnel_index, 1U);
    EXPECT_EQ(told.visitor.address, visitor_key.peer_address);
    EXPECT_EQ(told.visitor.port, visitor_key.peer_port);
    EXPECT_EQ(told.public_end.port, visitor_key.own_port);
    EXPECT_EQ(told.client.port, client_key.peer_port);
    EXPECT_EQ(told.data_end.address, client_key.own_address);
    EXPECT_EQ(told.to_client_bytes, 300U);
    EXPECT_EQ(told.to_visitor_bytes, 0U);
    EXPECT_EQ(told.age_ns, 3 * second_ns);
    EXPECT_GE(told.idle_ns, 2 * second_ns);
    EXPECT_TRUE(slow->list_flows(flow + 1, now).flows.empty()) << "behind it there is none";
    end_in_order();
    EXPECT_TRUE(slow->list_flows(0, now).flows.empty());
}

// ---- In order

TEST_F(FlowEndTest, BothFinsAcknowledgedEndThePairAndTheFlowLingers) {
    begin();
    sends(Leg::visitor, 300);
    acknowledges(Leg::client, 300);
    sends(Leg::client, 50);
    acknowledges(Leg::visitor, 50);
    now += 3 * second_ns;
    end_in_order();
    ASSERT_EQ(host.ends.size(), 1U);
    const abi::PairEnded& end = host.ends[0];
    EXPECT_EQ(end.reason, EndReason::fin);
    EXPECT_EQ(end.handle, (abi::PairHandle{pair_slot, pair_generation}));
    EXPECT_EQ(end.tag, 77U);
    EXPECT_EQ(end.tunnel_index, 1U);
    EXPECT_EQ(end.to_client_bytes, 300U);
    EXPECT_EQ(end.to_visitor_bytes, 50U);
    EXPECT_EQ(end.spliced_bytes, 350U);
    EXPECT_EQ(end.duration_ns, 3 * second_ns);
    EXPECT_TRUE(slow->idle());
    EXPECT_EQ(count(Counter::flows_lingering), 1U);
    EXPECT_EQ((*rows)[1].get(abi::TunnelCounter::tunnel_pairs_live), 0U);
    event();  // a second one says nothing new
    EXPECT_EQ(host.ends.size(), 1U);
    kernel_in(to_visitor(1, tcp_rst));  // late segments: still not the kernel's
    EXPECT_TRUE(host.wire.empty());
    pass_time(options.linger_ns + second_ns);
    EXPECT_EQ(table->size(), 0U);
    EXPECT_EQ(count(Counter::flows_lingering), 0U);
}

TEST_F(FlowEndTest, OneFinIsNoEnd) {
    begin();
    fins(Leg::visitor);
    table->cold(flow).fin_acknowledged[0].store(1);
    event();
    EXPECT_TRUE(host.ends.empty());
}

TEST_F(FlowEndTest, EventsOfAnEarlierFlowInTheSlotAreIgnored) {
    begin();
    table->cold(flow).fin_acknowledged[0].store(1);
    table->cold(flow).fin_acknowledged[1].store(1);
    slow->flow_event(flow, table->cold(flow).generation.load() - 2, now);
    slow->flow_event(12'345, 1, now);
    EXPECT_TRUE(host.ends.empty());
}

// ---- The first byte

TEST_F(FlowEndTest, TheFirstByteIsMeasuredOnceFromWhenThePairWasHandedOver) {
    begin();
    const std::uint32_t generation = table->cold(flow).generation.load();
    const Nanoseconds opened_at = now;
    now += 50 * millisecond_ns;
    slow->first_byte(flow, generation - 2, opened_at, now);
    slow->first_byte(12'345, 1, opened_at, now);
    EXPECT_EQ(first_bytes(), 0U) << "of an earlier flow, of none";
    slow->first_byte(flow, generation, opened_at + 3'000, now);
    slow->first_byte(flow, generation, opened_at + 4'000, now);
    EXPECT_EQ(first_bytes(), 1U);
    EXPECT_EQ(first_byte_times().sum, 3'000U);
}

TEST_F(FlowEndTest, AFirstByteThatIsToldOfBehindTheEndCounts) {
    begin();
    const std::uint32_t generation = table->cold(flow).generation.load();
    sends(Leg::visitor, 3);
    acknowledges(Leg::client, 3);
    end_in_order();
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(first_bytes(), 0U);
    slow->first_byte(flow, generation, now - 1, now);  // a clock of some turns ago
    EXPECT_EQ(first_bytes(), 1U);
    EXPECT_EQ(first_byte_times().sum, 0U);
}

TEST_F(FlowEndTest, AFirstByteWhoseWordWasLostIsFoundByALookAtAll) {
    begin();
    slow->recheck_flows();
    pass_time(millisecond_ns);
    EXPECT_EQ(first_bytes(), 0U) << "no byte yet";
    sends(Leg::client, 3);
    acknowledges(Leg::visitor, 3);
    slow->recheck_flows();
    pass_time(millisecond_ns);
    EXPECT_EQ(first_bytes(), 1U);
    slow->first_byte(flow, table->cold(flow).generation.load(), now, now);
    EXPECT_EQ(first_bytes(), 1U);
}

// ---- SYN

TEST_F(FlowEndTest, ASynOnALiveFlowIsChallengedNotTooOftenAndNotPassed) {
    begin();
    sends(Leg::client, 40);
    acknowledges(Leg::client, 7);
    wire_in(from_visitor(123'456, "", tcp_syn));
    ASSERT_EQ(host.wire.size(), 1U);
    const Segment challenge = host.wire[0].segment();
    EXPECT_EQ(challenge.flags, tcp_ack);
    EXPECT_EQ(challenge.sequence, to_visitor_next);  // what the visitor has acknowledged
    EXPECT_EQ(challenge.acknowledgement, visitor_next + 7);
    EXPECT_TRUE(host.kernel.empty());
    wire_in(from_visitor(123'456, "", tcp_syn));
    EXPECT_EQ(host.wire.size(), 1U);
    now += 600 * millisecond_ns;
    wire_in(from_visitor(123'456, "", tcp_syn));
    EXPECT_EQ(host.wire.size(), 2U);
    EXPECT_EQ(count(Counter::challenges_total), 2U);
    EXPECT_TRUE(host.ends.empty());
}

TEST_F(FlowEndTest, ASynOnALingeringFlowEvictsItAndPasses) {
    begin();
    end_in_order();
    wire_in(from_visitor(123'456, "", tcp_syn));
    EXPECT_EQ(host.kernel.size(), 1U);
    EXPECT_EQ(table->size(), 0U);
    EXPECT_EQ(count(Counter::flows_evicted_total), 1U);
    wire_in(from_visitor(123'457, "held"));  // a leg of its own
    EXPECT_EQ(count(Counter::held_frames), 1U);
}

// ---- Resets

TEST_F(FlowEndTest, AResetEndsThePairWhenItStands) {
    begin();
    table->cold(flow).reset_seen[1].store(1);
    event();
    pass_time(Flows::reset_grace_ns - 5 * millisecond_ns);
    EXPECT_TRUE(host.ends.empty());
    pass_time(10 * millisecond_ns);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::reset);
    EXPECT_EQ(host.ends[0].error_number, ECONNRESET);
}

TEST_F(FlowEndTest, AResetAfterWhichTheFlowGoesOnEndsNothing) {
    begin();
    table->cold(flow).reset_seen[0].store(1);
    event();
    now += 100 * millisecond_ns;
    table->cold(flow).reset_seen[0].store(0);  // the packet path saw a segment behind it
    sends(Leg::visitor, 10);
    pass_time(second_ns);
    EXPECT_TRUE(host.ends.empty());
    EXPECT_EQ(count(Counter::resets_refuted_total), 1U);
    EXPECT_TRUE(host.wire.empty());
    EXPECT_FALSE(slow->idle());
}

TEST_F(FlowEndTest, ASegmentThatAResetOvertookRefutesNothing) {
    begin();
    table->cold(flow).reset_seen[0].store(1);
    event();
    table->cold(flow).reset_seen[0].store(0);  // an old segment came in late
    pass_time(Flows::reset_grace_ns + 5 * millisecond_ns);
    ASSERT_EQ(host.wire.size(), 2U);  // both peers are asked
    EXPECT_EQ(host.wire[0].segment().sequence, to_visitor_next - 1);
    EXPECT_EQ(host.wire[0].segment().acknowledgement, visitor_next);
    EXPECT_EQ(host.wire[1].segment().sequence, to_client_next - 1);
    table->cold(flow).reset_seen[1].store(1);  // and one is no longer there
    event();
    pass_time(Flows::reset_grace_ns + 5 * millisecond_ns);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::reset);
}

TEST_F(FlowEndTest, AnIdleFlowSurvivesAForgedReset) {
    begin();
    table->cold(flow).reset_seen[0].store(1);
    event();
    table->cold(flow).reset_seen[0].store(0);
    pass_time(10 * second_ns);
    EXPECT_EQ(host.wire.size(), 2U * Flows::reset_probes);
    EXPECT_TRUE(host.ends.empty());
    EXPECT_EQ(count(Counter::resets_refuted_total), 1U);
}

// ---- Timeouts

TEST_F(FlowEndTest, AnIdleFlowIsCutByResetsThatBothPeersAccept) {
    with_limits(60'000, 0);
    begin();
    sends(Leg::visitor, 10);
    acknowledges(Leg::client, 10);
    const Nanoseconds quiet_since = now;
    pass_time(59 * second_ns);
    EXPECT_TRUE(host.ends.empty());
    pass_time(2 * second_ns);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::idle);
    EXPECT_GE(host.ends[0].duration_ns, 60 * second_ns);
    EXPECT_LE(now - quiet_since, 61 * second_ns);
    ASSERT_GE(host.wire.size(), 2U);
    EXPECT_EQ(host.wire[0].segment().flags, tcp_rst | tcp_ack);
    EXPECT_EQ(host.wire[0].segment().sequence, to_visitor_next);
    EXPECT_EQ(host.wire[0].segment().destination_port, visitor_key.peer_port);
    EXPECT_EQ(host.wire[1].segment().sequence, to_client_next + 10);
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        EXPECT_NE(direction(leg).state.load() & state_closed, 0);
    }
    pass_time(2 * Flows::cut_linger_ns);
    EXPECT_EQ(table->size(), 0U);
    EXPECT_EQ(count(Counter::flows_ended_idle_total), 1U);
}

TEST_F(FlowEndTest, KeepalivesDoNotKeepAFlowAndBytesDo) {
    with_limits(60'000, 0);
    begin();
    for (int turn = 0; turn < 20; ++turn) {  // 100 s of bytes now and then
        sends(Leg::client, 1);
        acknowledges(Leg::visitor, 1);
        pass_time(5 * second_ns);
    }
    EXPECT_TRUE(host.ends.empty());
    const Nanoseconds last_byte = now - 5 * second_ns;
    while (host.ends.empty() && now < last_byte + 200 * second_ns) {
        sends(Leg::client, 0);  // frames, but no byte
        pass_time(second_ns);
    }
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_GE(now - last_byte, 60 * second_ns);
    EXPECT_LE(now - last_byte, 78 * second_ns);  // a quarter late at most
}

TEST_F(FlowEndTest, AHalfClosedFlowHasItsOwnTimeout) {
    with_limits(0, 20'000);
    begin();
    pass_time(100 * second_ns);
    EXPECT_TRUE(host.ends.empty());
    fins(Leg::visitor);
    const Nanoseconds closed_at = now;
    for (int turn = 0; turn < 5; ++turn) {  // the answer behind it goes on
        pass_time(10 * second_ns);
        sends(Leg::client, 100);
    }
    EXPECT_TRUE(host.ends.empty());
    pass_time(26 * second_ns);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::half_closed);
    EXPECT_GE(host.ends[0].duration_ns, closed_at - (closed_at - 70 * second_ns));
}

TEST_F(FlowEndTest, ChangedTimeoutsReachRunningFlows) {
    with_limits(0, 0);
    begin();
    pass_time(100 * second_ns);
    with_limits(30'000, 0);
    slow->tick(now);
    ASSERT_EQ(host.ends.size(), 1U);  // quiet for 100 s already
    EXPECT_EQ(host.ends[0].reason, EndReason::idle);
}

TEST_F(FlowEndTest, AFlowWithNothingUnderWayLivesWhileItsPeersAnswer) {
    begin();
    std::size_t asked = 0;
    for (int minute = 0; minute < 500; ++minute) {  // longer than the activity clock's turn
        pass_time(60 * second_ns);
        for (const SentFrame& probe : host.wire) {
            const bool visitor = probe.segment().destination_port == visitor_key.peer_port;
            direction(visitor ? Leg::visitor : Leg::client).last_seen = activity_tick(now);
            ++asked;
        }
        host.wire.clear();
    }
    EXPECT_TRUE(host.ends.empty());
    EXPECT_GE(asked, 4U);
    EXPECT_LE(asked, 12U);
}

TEST_F(FlowEndTest, APeerThatAnswersNoKeepaliveIsGone) {
    begin();
    pass_time(Flows::keepalive_idle_ns - second_ns);
    EXPECT_TRUE(host.wire.empty());
    for (int minute = 0; minute < 40 && host.ends.empty(); ++minute) {
        pass_time(60 * second_ns);
        direction(Leg::client).last_seen = activity_tick(now);  // that one lives
    }
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::error);
    EXPECT_EQ(host.ends[0].error_number, ETIMEDOUT);
}

TEST_F(FlowEndTest, APeerThatVanishedWithBytesUnderWayIsGivenUp) {
    begin();
    sends(Leg::visitor, 100);  // never acknowledged
    pass_time(Flows::stalled_limit_ns - second_ns);
    EXPECT_TRUE(host.ends.empty());
    pass_time(Flows::max_check_period_ns + 2 * second_ns);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::error);
    EXPECT_EQ(host.ends[0].error_number, ETIMEDOUT);
    EXPECT_EQ(host.ends[0].to_client_bytes, 0U);
}

// ---- Commands

TEST_F(FlowEndTest, AClosedPairIsResetWithBothNumbersThatMayBeRight) {
    begin();
    sends(Leg::client, 500);  // on its way to the visitor, or there already
    slow->close_pair(pair_slot, pair_generation + 1, now);
    EXPECT_TRUE(host.ends.empty());
    slow->close_pair(pair_slot, pair_generation, now);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::closed);
    std::vector<std::uint32_t> to_visitor_numbers;
    for (const SentFrame& sent : host.wire) {
        if (sent.segment().destination_port == visitor_key.peer_port) {
            to_visitor_numbers.push_back(sent.segment().sequence);
        }
    }
    EXPECT_THAT(to_visitor_numbers, ElementsAre(to_visitor_next, to_visitor_next + 500));
    const std::size_t first = host.wire.size();
    pass_time(300 * millisecond_ns);
    EXPECT_EQ(host.wire.size(), 3 * first);  // twice again
}

TEST_F(FlowEndTest, LiveFlowsAreCutAtTheDrainDeadline) {
    begin();
    slow->drain(now + second_ns, now);
    pass_time(900 * millisecond_ns);
    EXPECT_TRUE(host.ends.empty());
    pass_time(200 * millisecond_ns);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].reason, EndReason::drained);
    EXPECT_TRUE(slow->idle());
}

// ---- Room

TEST_F(FlowEndTest, LingeringFlowsMakeRoomForNewOnes) {
    start(1);
    begin();
    end_in_order();
    table->quiescent(0);
    visitor_key.peer_port = 5;
    host.sockets[visitor_socket] = {.key = visitor_key,
                                    .snapshot = snapshot(to_visitor_next, visitor_next)};
    client_key.peer_port = 6;
    host.sockets[client_socket] = {.key = client_key,
                                   .snapshot = snapshot(to_client_next, client_next)};
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 1;
    open();
    EXPECT_EQ(count(Counter::flows_evicted_total), 1U);
    table->quiescent(0);  // the grace period passes while it drains
    host.sockets[visitor_socket].unacknowledged = 0;
    pass_time(10 * millisecond_ns);
    EXPECT_EQ(count(Counter::handoffs_total), 2U);
    EXPECT_TRUE(host.to_stream_reasons.empty());
}

}  // namespace
}  // namespace bore::packet::test
