// The hand-off step by step: the order of what is asked of the kernel, every reason to give up, and
// that nothing is lost then.
#include <gmock/gmock.h>

#include <functional>
#include <numeric>

#include "dataplane/packet/handoff.hpp"
#include "tests/packet/slow_path_fixture.hpp"

namespace bore::packet::test {
namespace {

using abi::StreamReason;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::ptrdiff_t last_place(const std::vector<std::string>& calls, const std::string& call) {
    const auto found = std::find(calls.rbegin(), calls.rend(), call);
    return found == calls.rend() ? -1 : calls.rend() - found - 1;
}

// ---- The splice

TEST_F(SlowPathTest, WhereAllThatWasReceivedWasReadTheKernelIsAskedForItsStateAlone) {
    make_legs();
    open();
    EXPECT_THAT(host.calls, ElementsAre("freezing", "snapshot 10", "snapshot 11", "close 10",
                                        "close 11", "spliced"));
    EXPECT_TRUE(host.to_stream_reasons.empty());
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    EXPECT_EQ(count(Counter::handoffs_under_way), 0U);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
    EXPECT_EQ(count(Counter::flows_live), 1U);
    EXPECT_EQ((*rows)[1].get(abi::TunnelCounter::tunnel_pairs_opened_total), 1U);
    EXPECT_EQ((*rows)[1].get(abi::TunnelCounter::tunnel_pairs_live), 1U);
}

TEST_F(SlowPathTest, WhereMoreWasReceivedItIsAskedWhatIsUnreadAfterTheStateWasRead) {
    make_legs();
    host.sockets[visitor_socket].moved = 1;  // somebody read it and did not say so
    host.sockets[client_socket].moved = 60;
    abi::PairRequest request;
    request.facts[1].read_bytes = 59;
    open(std::move(request));
    EXPECT_THAT(host.calls, ElementsAre("freezing", "snapshot 10", "snapshot 11", "unread 10",
                                        "unread 11", "close 10", "close 11", "spliced"));
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
}

TEST_F(SlowPathTest, BothPeersLearnTheOthersWindow) {
    make_legs();
    host.sockets[visitor_socket].snapshot.peer_window_scale = 2;
    host.wire.clear();
    open();
    ASSERT_EQ(host.wire.size(), 2U);
    const Segment to_visitor_now = host.wire[0].segment();
    EXPECT_EQ(to_visitor_now.sequence, to_visitor_next);
    EXPECT_EQ(to_visitor_now.acknowledgement, visitor_next);
    EXPECT_EQ(to_visitor_now.window, 1'000U);  // 1000 << 7 >> 7
    const Segment to_client_now = host.wire[1].segment();
    EXPECT_EQ(to_client_now.sequence, to_client_next);
    EXPECT_EQ(to_client_now.acknowledgement, client_next);
    EXPECT_EQ(to_client_now.window, 1'000U << 2U >> 7U);
}

TEST_F(SlowPathTest, WindowsAreRoundedDown) {
    host.sockets[client_socket].snapshot.own_window_scale = 10;
    Segment from_the_visitor = segment_from_peer(visitor_key);
    from_the_visitor.sequence = visitor_next;
    from_the_visitor.acknowledgement = to_visitor_next;
    from_the_visitor.window = 8'191;
    wire_in(build(from_the_visitor));
    wire_in(from_client(client_next - 50, ""), 1);
    host.sockets[visitor_socket].snapshot.peer_window_scale = 0;
    host.wire.clear();
    open();
    ASSERT_EQ(host.wire.size(), 2U);
    EXPECT_EQ(host.wire[1].segment().window, 7U);
}

// Half of a receiver's window must hold a unit of the sender's leg and a segment of 1,460 bytes.
TEST_F(SlowPathTest, AWindowThatIsSmallBesideTheOtherLegsScaleStaysOnTheStreamEngine) {
    struct Case {
        std::uint8_t sender_scale;
        std::uint32_t window_bytes;
        bool spliced;
    };
    constexpr std::uint32_t segment_bytes = 1'460;
    for (const auto& [scale, window_bytes, spliced] : {
             Case{0, 2 * (1 + segment_bytes), true},
             Case{0, 2 * (1 + segment_bytes) - 1, false},
             Case{7, 2 * (128 + segment_bytes), true},
             Case{7, 2 * (128 + segment_bytes) - 1, false},
             Case{10, 2 * (1'024 + segment_bytes) - 1, false},
             Case{14, 64'240, true},
             Case{14, 2 * (16'384 + segment_bytes) - 1, false},
             Case{7, 0, false},
         }) {
        for (const auto& [receiver, sender] :
             {std::pair{visitor_socket, client_socket}, std::pair{client_socket, visitor_socket}}) {
            host.sockets[visitor_socket] = {.key = visitor_key,
                                            .snapshot = snapshot(to_visitor_next, visitor_next)};
            host.sockets[client_socket] = {.key = client_key,
                                           .snapshot = snapshot(to_client_next, client_next)};
            host.sockets[sender].snapshot.own_window_scale = scale;
            start(64);
            for (const int socket : {visitor_socket, client_socket}) {
                const bool is_visitor = socket == visitor_socket;
                Segment segment = segment_from_peer(is_visitor ? visitor_key : client_key);
                segment.sequence = is_visitor ? visitor_next : client_next;
                segment.acknowledgement = is_visitor ? to_visitor_next : to_client_next;
                segment.window =
                    static_cast<std::uint16_t>(socket == receiver ? window_bytes : 64'240U);
                host.sockets[socket].snapshot.peer_window_scale = 0;
                wire_in(build(segment), is_visitor ? 0 : 1);
            }
            open();
            SCOPED_TRACE(::testing::Message() << "scale " << int{scale} << ", window "
                                              << window_bytes << ", socket " << receiver);
            EXPECT_EQ(count(Counter::handoffs_total), spliced ? 1U : 0U);
            EXPECT_EQ(count(Counter::stream_window_small_total), spliced ? 0U : 1U);
        }
    }
}

TEST_F(SlowPathTest, HeldFramesAreReplayedInOrderByTheWorkerThatGotThem) {
    slow->from_wire(0, 0, from_visitor(visitor_next, "one"), now);
    slow->from_wire(0, 0, from_visitor(visitor_next + 3, "two", tcp_ack | tcp_fin), now);
    wire_in(from_client(client_next, ""), 1);
    open();
    EXPECT_THAT(payloads(host.replayed), ElementsAre("one", "two"));
    EXPECT_EQ(count(Counter::held_frames), 0U);
    EXPECT_EQ(count(Counter::handoff_replayed_frames_total), 2U);
}

TEST_F(SlowPathTest, CopiesOfWhatTheKernelDidNotTakeAreReplayedAndNothingElse) {
    wire_in(from_visitor(visitor_next, ""));
    wire_in(from_client(client_next - 3, "old"), 1);
    wire_in(from_client(client_next, "new"), 1);  // never got through: rcv_nxt stands before it
    open();
    EXPECT_THAT(payloads(host.replayed), ElementsAre("new"));
}

TEST_F(SlowPathTest, FramesJustGivenToTheKernelAreReplayedWhenTheyDidNotArriveInTime) {
    wire_in(from_visitor(visitor_next, "one"));
    pass_time(options.hold_deadline_ns + millisecond_ns);
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "one"));
    wire_in(from_client(client_next, ""), 1);
    open();  // and the kernel's state says that it has not seen them
    EXPECT_THAT(payloads(host.replayed), ElementsAre("one"));
}

TEST_F(SlowPathTest, CopiesAreDroppedWhenTheKernelAcknowledges) {
    wire_in(from_visitor(visitor_next, ""));
    wire_in(from_client(client_next, "new"), 1);
    kernel_in(to_client(client_next + 3), 1);
    open();
    EXPECT_THAT(host.replayed, IsEmpty());
}

TEST_F(SlowPathTest, TheOldestReplayedTimestampBecomesTheRelaysLatest) {
    for (const int socket : {visitor_socket, client_socket}) {
        host.sockets[socket].snapshot.timestamps = true;
        host.sockets[socket].snapshot.own_timestamp = 700'000;
    }
    wire_in(from_visitor(visitor_next, "a", tcp_ack, usual_timestamps(500, 1)));
    wire_in(from_visitor(visitor_next + 1, "b", tcp_ack, usual_timestamps(520, 1)));
    wire_in(from_client(client_next, "", tcp_ack, usual_timestamps(90, 1)), 1);
    open();
    const auto direction = table->find(visitor_key);
    ASSERT_TRUE(direction);
    EXPECT_EQ(table->direction(*direction).timestamp_delta, 700'000U - 500U);
    // The updates carry timestamps as well, or they would be discarded.
    EXPECT_EQ(host.wire.back().segment().options, usual_timestamps(700'000, 90));
}

TEST_F(SlowPathTest, FramesThatWereOnTheirWayAreReplayedAndTheKernelsAreDropped) {
    splice();
    wire_in(from_visitor(visitor_next, "late"));
    EXPECT_THAT(payloads(host.replayed), ElementsAre("late"));
    EXPECT_THAT(host.kernel, IsEmpty());
    kernel_in(to_visitor(visitor_next, tcp_rst));
    kernel_in(to_client(client_next), 1);
    EXPECT_THAT(host.wire, IsEmpty());
    EXPECT_EQ(count(Counter::frames_from_kernel_dropped_total), 2U);
}

// Where a SYN-ACK was seen, the kernel need not be asked where the connection's numbers begin.
TEST_F(SlowPathTest, TheOriginIsKnownFromTheSynAckToTheFirstSegment) {
    Segment greeting = segment_to_peer(visitor_key);
    greeting.flags = tcp_syn | tcp_ack;
    greeting.sequence = to_visitor_next - 1;
    greeting.acknowledgement = visitor_next;
    greeting.options = usual_timestamps(600, 1);
    kernel_in(build(greeting));
    for (const int socket : {visitor_socket, client_socket}) {
        host.sockets[socket].snapshot.timestamps = true;
    }
    host.sockets[client_socket].snapshot.own_timestamp = 700'000;
    wire_in(from_visitor(visitor_next, "", tcp_ack, usual_timestamps(500, 650)));
    wire_in(from_client(client_next, "", tcp_ack, usual_timestamps(90, 1)), 1);
    open();
    const auto& origin = host.sockets[visitor_socket].origin;
    ASSERT_TRUE(origin);
    EXPECT_EQ(origin->first_sequence, to_visitor_next);
    EXPECT_EQ(origin->first_acknowledgement, visitor_next);
    EXPECT_FALSE(host.sockets[client_socket].origin) << "no SYN-ACK was seen there";
    // Nor is it asked for its clock: the visitor has seen 650.
    const auto direction = table->find(client_key);
    ASSERT_TRUE(direction);
    EXPECT_EQ(table->direction(*direction).timestamp_delta, 650U - 90U);
}

TEST_F(SlowPathTest, APeerThatTellsNoTimestampMakesTheKernelTellItsOwn) {
    Segment greeting = segment_to_peer(visitor_key);
    greeting.flags = tcp_syn | tcp_ack;
    greeting.sequence = to_visitor_next - 1;
    greeting.acknowledgement = visitor_next;
    greeting.options = usual_timestamps(600, 1);
    kernel_in(build(greeting));
    for (const int socket : {visitor_socket, client_socket}) {
        host.sockets[socket].snapshot.timestamps = true;
    }
    host.sockets[visitor_socket].snapshot.own_timestamp = 700'000;
    wire_in(from_visitor(visitor_next, ""));
    wire_in(from_client(client_next, "", tcp_ack, usual_timestamps(90, 1)), 1);
    open();
    EXPECT_FALSE(host.sockets[visitor_socket].origin);
    const auto direction = table->find(client_key);
    ASSERT_TRUE(direction);
    EXPECT_EQ(table->direction(*direction).timestamp_delta, 700'000U - 90U);
}

TEST_F(SlowPathTest, ALegThatBeganLaterHasNoOrigin) {
    Segment greeting = segment_to_peer(visitor_key);
    greeting.flags = tcp_syn | tcp_ack;
    greeting.sequence = to_visitor_next - 1;
    greeting.acknowledgement = visitor_next - 10;  // ten bytes passed while nobody looked
    kernel_in(build(greeting));
    make_legs();
    open();
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    EXPECT_FALSE(host.sockets[visitor_socket].origin);
}

TEST_F(SlowPathTest, SocketsAreClosedBeforeTheKernelHearsOfTheirTuplesAgain) {
    const FlowIndex flow = splice();
    auto& cold = table->cold(flow);
    cold.fin_acknowledged[0] = 1;
    cold.fin_acknowledged[1] = 1;
    slow->flow_event(flow, cold.generation.load(), now);
    host.calls.clear();
    wire_in(from_visitor(visitor_next + 1'000'000, "", tcp_syn));
    EXPECT_THAT(host.calls, ElementsAre("close now"));
    EXPECT_EQ(host.kernel.size(), 1U);
}

// ---- Draining

TEST_F(SlowPathTest, WhatTheKernelHadIsDeliveredFirstAndCounted) {
    make_legs();
    host.sockets[client_socket].unread = 700;
    host.sockets[visitor_socket].unacknowledged = 700;
    open();
    EXPECT_TRUE(host.to_stream_reasons.empty());
    EXPECT_EQ(count(Counter::handoffs_under_way), 1U);
    EXPECT_FALSE(slow->idle());
    // Looked at frozen, and not good enough.
    EXPECT_LT(last_place(host.calls, "snapshot 10"), last_place(host.calls, "move 11 10"));
    host.sockets[visitor_socket].unacknowledged = 0;
    wire_in(from_visitor(visitor_next, ""));  // its acknowledgement: looked at in the next turn
    EXPECT_EQ(slow->next_deadline(now), now);
    slow->tick(now);
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    EXPECT_EQ((*rows)[1].get(abi::TunnelCounter::to_visitor_bytes_total), 700U);
    slow->close_pair(pair_slot, pair_generation, now);
    ASSERT_EQ(host.ends.size(), 1U);
    EXPECT_EQ(host.ends[0].to_visitor_bytes, 700U);
    EXPECT_EQ(host.ends[0].spliced_bytes, 0U);
}

TEST_F(SlowPathTest, AQuietDrainIsLookedAtAgainByTimeAndNotBusily) {
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 1;
    open();
    const std::size_t before = host.calls.size();
    pass_time(50 * millisecond_ns);
    const std::size_t looks = (host.calls.size() - before) / 4;
    EXPECT_GE(looks, 5U);
    EXPECT_LE(looks, 30U);
    host.sockets[visitor_socket].unacknowledged = 0;
    pass_time(6 * millisecond_ns);
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
}

TEST_F(SlowPathTest, LeftOverBytesGoFirstPieceByPiece) {
    make_legs();
    host.most_moved = 3;
    host.sockets[client_socket].unread = 2;
    abi::PairRequest request;
    request.left_over_to_visitor = text("left over");
    open(std::move(request));
    pass_time(20 * millisecond_ns);
    EXPECT_EQ(host.sockets[visitor_socket].sent, text("left over"));
    EXPECT_LT(last_place(host.calls, "send 10"), last_place(host.calls, "move 11 10"));
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    EXPECT_EQ(count(Counter::handoff_drained_bytes_total), 11U);
    // The first byte was among them, and no other is one.
    const auto& first_byte =
        histograms
            ->histograms[static_cast<std::size_t>(abi::SlowPathHistogram::flow_first_byte_ns)];
    EXPECT_EQ(std::accumulate(first_byte.counts.begin(), first_byte.counts.end(), 0U), 1U);
    const auto flow = table->find(visitor_key);
    ASSERT_TRUE(flow.has_value());
    EXPECT_EQ(table->direction(*flow).state & state_first, 0);
}

TEST_F(SlowPathTest, BytesThatComeBetweenReadingAndAskingUndoTheFreeze) {
    make_legs();
    wire_in(from_visitor(visitor_next, "held"));
    host.sockets[client_socket].unread_after_snapshots = {2, 5};
    open();
    // Twice undone and moved, then done. The first time was but a look.
    EXPECT_EQ(count(Counter::handoff_retries_total), 1U);
    EXPECT_EQ(std::ranges::count(host.calls, "freezing"), 3);
    EXPECT_EQ(std::ranges::count(host.calls, "snapshot 11"), 3);
    EXPECT_EQ(std::ranges::count(host.calls, "move 11 10"), 2);
    EXPECT_LT(last_place(host.calls, "move 11 10"), last_place(host.calls, "freezing"));
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    EXPECT_THAT(payloads(host.replayed), ElementsAre("held"));
    EXPECT_EQ((*rows)[1].get(abi::TunnelCounter::to_visitor_bytes_total), 7U);
}

TEST_F(SlowPathTest, WhileItDrainsTheClientIsHeldToo) {
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 1;
    open();
    host.kernel.clear();
    wire_in(from_client(client_next, "early"), 1);
    EXPECT_THAT(payloads(host.kernel), ElementsAre(""));
    EXPECT_EQ(count(Counter::held_frames), 1U);
}

// ---- Giving up

struct GivingUp {
    StreamReason reason;
    std::function<void(FakeHost&, SlowPathOptions&, abi::TunnelLimits&)> prepare;
};

class GivingUpTest : public SlowPathTest, public ::testing::WithParamInterface<GivingUp> {};

TEST_P(GivingUpTest, LosesNothing) {
    GetParam().prepare(host, options, limits);
    start(64);
    wire_in(from_visitor(visitor_next, "one"));
    wire_in(from_client(client_next, ""), 1);
    wire_in(from_visitor(visitor_next + 3, "two"));
    const bool held = count(Counter::held_frames) != 0;
    abi::PairRequest request;
    request.left_over_to_client = text("kept");
    host.most_moved = host.most_moved == 0 ? 0 : ~std::size_t{0};
    open(std::move(request));
    pass_time(options.drain_deadline_ns + 10 * millisecond_ns);
    ASSERT_THAT(host.to_stream_reasons, ElementsAre(GetParam().reason));
    EXPECT_EQ(count(abi::counter_of(GetParam().reason)), 1U);
    // Both sockets as they were, the request whole, the bytes with the kernel.
    for (const auto& [number, socket] : host.sockets) {
        EXPECT_FALSE(socket.closed) << number;
    }
    const abi::PairRequest& back = host.to_stream_requests[0];
    EXPECT_EQ(back.visitor_socket, visitor_socket);
    EXPECT_EQ(back.client_socket, client_socket);
    EXPECT_EQ(back.tag, 77U);
    Bytes kept = host.sockets[client_socket].sent;
    kept.insert(kept.end(), back.left_over_to_client.begin(), back.left_over_to_client.end());
    EXPECT_EQ(kept, text("kept"));
    EXPECT_EQ(back.delivered_to_client_bytes, host.sockets[client_socket].sent.size());
    if (held) {
        EXPECT_THAT(payloads(host.kernel), ::testing::IsSupersetOf({"one", "two"}));
    }
    EXPECT_EQ(count(Counter::held_frames), 0U);
    EXPECT_EQ(count(Counter::handoffs_under_way), 0U);
    EXPECT_EQ(count(Counter::handoffs_total), 0U);
    EXPECT_EQ(table->size(), 0U);
    EXPECT_TRUE(slow->idle());
    // Known until the stream engine has done: nothing of it is held again.
    host.kernel.clear();
    wire_in(from_visitor(visitor_next + 6, "more"));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("more"));
    slow->stream_ended(pair_slot);
    pass_time(options.linger_ns + second_ns);
    const bool elsewhere = GetParam().reason == StreamReason::not_on_port;
    EXPECT_EQ(count(Counter::legs_tracked), elsewhere ? 1U : 0U);  // a connection of its own
    pass_time(Legs::idle_limit_ns);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

INSTANTIATE_TEST_SUITE_P(
    Reasons, GivingUpTest,
    ::testing::Values(GivingUp{StreamReason::policy,
                               [](FakeHost&, SlowPathOptions&, abi::TunnelLimits& limits) {
                                   limits.path_policy = abi::PathPolicy::stream;
                               }},
                      GivingUp{StreamReason::not_on_port,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[client_socket].key.peer_port = 999;
                               }},
                      GivingUp{StreamReason::sack_differs,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[client_socket].snapshot.sack = false;
                               }},
                      GivingUp{StreamReason::long_path,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[client_socket].snapshot.round_trip_us = 40'000;
                               }},
                      GivingUp{StreamReason::not_established,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[client_socket].snapshot.established = false;
                               }},
                      GivingUp{StreamReason::drain_timeout,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[visitor_socket].unacknowledged = 1;
                               }},
                      GivingUp{StreamReason::hold_overflow,
                               [](FakeHost&, SlowPathOptions& options, abi::TunnelLimits&) {
                                   options.max_held_bytes_per_leg = 200;
                               }},
                      GivingUp{StreamReason::options_unsupported,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[visitor_socket].snapshot.unsupported_options = true;
                               }},
                      GivingUp{StreamReason::window_small,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[client_socket].snapshot.own_window_scale = 14;
                                   host.sockets[visitor_socket].snapshot.peer_mss = 65'000;
                               }},
                      GivingUp{StreamReason::repair_failed,
                               [](FakeHost& host, SlowPathOptions&, abi::TunnelLimits&) {
                                   host.sockets[client_socket].fails_snapshot = true;
                               }},
                      GivingUp{StreamReason::busy,
                               [](FakeHost&, SlowPathOptions& options, abi::TunnelLimits&) {
                                   options.max_handoffs = 0;
                               }}),
    [](const ::testing::TestParamInfo<GivingUp>& one) {
        return std::string(to_string(one.param.reason)) + "_" + std::to_string(one.index);
    });

TEST_F(SlowPathTest, AReceiverThatTakesNothingMoreEndsTheDrainByItsDeadline) {
    wire_in(from_visitor(visitor_next, "held"));
    wire_in(from_client(client_next, ""), 1);
    host.sockets[client_socket].unread_after_snapshots = {1};
    host.most_moved = 0;
    open();
    pass_time(3 * second_ns);
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::drain_timeout));
    EXPECT_THAT(payloads(host.kernel), ::testing::Contains("held"));
}

TEST_F(SlowPathTest, FreezesAreCountedAndBounded) {
    options.max_freezes = 1;
    start(64);
    wire_in(from_visitor(visitor_next, "held"));
    wire_in(from_client(client_next, ""), 1);
    host.sockets[client_socket].unread_after_snapshots = {1, 1};
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::never_quiet));
    EXPECT_THAT(payloads(host.kernel), ::testing::Contains("held"));
}

TEST_F(SlowPathTest, LegsOfDifferentFamiliesAreNotSpliced) {
    client_key.peer_address = ipv6(7, 1);
    client_key.own_address = ipv6(7, 2);
    host.sockets[client_socket].key = client_key;
    make_legs();
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::families_differ));
}

TEST_F(SlowPathTest, AnEndedSocketHasNoKeyAndIsNotSpliced) {
    make_legs();
    host.sockets[visitor_socket].gone = true;
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::not_established));
}

// ---- A visitor whose connection is over connects again from the same port. Facts tell the tuple
// of both connections, and the first one's pair is opened when the second one has the leg.

class TupleInUseAgain : public SlowPathTest {
  protected:
    static constexpr int ended_socket = 12;  // the visitor's first connection
    static constexpr int spare_client_socket = 13;
    static constexpr std::uint32_t other_slot = pair_slot + 1;

    TupleInUseAgain() {
        host.sockets[ended_socket] = {.key = visitor_key, .gone = true};
        host.sockets[ended_socket].snapshot.established = false;
        FlowKey spare_key = client_key;
        ++spare_key.peer_port;
        host.sockets[spare_client_socket] = {.key = spare_key,
                                             .snapshot = snapshot(to_client_next, client_next)};
        make_legs();
        wire_in(frame(segment_from_peer(spare_key), client_next, to_client_next, "", tcp_ack, {}),
                1);
    }
    static abi::LegFacts facts_of(const FlowKey& key) {
        return {.peer_address = key.peer_address,
                .own_address = key.own_address,
                .peer_port = key.peer_port,
                .own_port = key.own_port};
    }
    void open_with_facts(std::uint32_t slot, int visitor, int client) {
        host.expected_slots = {pair_slot, other_slot};
        abi::PairRequest request{.visitor_socket = visitor,
                                 .client_socket = client,
                                 .left_over_to_visitor = {},
                                 .left_over_to_client = {},
                                 .tunnel_index = 1};
        request.facts = {facts_of(host.sockets[visitor].key), facts_of(host.sockets[client].key)};
        slow->open_pair(slot, pair_generation, std::move(request), now);
    }
    void open_ended() { open_with_facts(other_slot, ended_socket, spare_client_socket); }
    void open_live() { open_with_facts(pair_slot, visitor_socket, client_socket); }
};

TEST_F(TupleInUseAgain, TheLegStaysFreeForTheLiveConnectionWithTheCopies) {
    wire_in(from_visitor(visitor_next, "held"));
    host.kernel.clear();
    open_ended();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::not_established));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("held"));
    open_live();  // and the kernel's state says that it has not got them yet
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    EXPECT_THAT(payloads(host.replayed), ElementsAre("held"));
    slow->stream_ended(other_slot);
    EXPECT_TRUE(table->find(visitor_key));
    pass_time(options.linger_ns + second_ns);
    EXPECT_EQ(count(Counter::legs_tracked), 0U) << "the pair's own client was pinned";
}

TEST_F(TupleInUseAgain, AHandOffUnderWayGoesOn) {
    host.sockets[visitor_socket].unacknowledged = 1;
    open_live();
    open_ended();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::not_established));
    EXPECT_EQ(count(Counter::handoffs_under_way), 1U);
    host.sockets[visitor_socket].unacknowledged = 0;
    pass_time(6 * millisecond_ns);
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
}

// Else the end of the dead pair would have the live one's frames held anew.
TEST_F(TupleInUseAgain, APairOfTheStreamEngineKeepsItsLeg) {
    host.sockets[client_socket].snapshot.sack = false;
    open_live();
    open_ended();
    EXPECT_THAT(host.to_stream_reasons,
                ElementsAre(StreamReason::sack_differs, StreamReason::not_established));
    slow->stream_ended(other_slot);
    pass_time(Legs::idle_limit_ns + second_ns);
    host.kernel.clear();
    wire_in(from_visitor(visitor_next, "more"));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("more"));
}

TEST_F(SlowPathTest, AResetDuringTheDrainGivesUpAndReachesTheKernelLast) {
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 1;
    open();
    wire_in(from_client(client_next, "data"), 1);
    host.kernel.clear();
    wire_in(from_client(client_next + 4, "", tcp_rst), 1);
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::not_established));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("data", ""));
}

TEST_F(SlowPathTest, TooMuchDuringTheDrainGivesUpWithoutLoss) {
    options.max_held_bytes_per_leg = 400;
    start(64);
    make_legs();
    host.sockets[visitor_socket].unacknowledged = 1;
    open();
    host.kernel.clear();
    for (std::uint32_t index = 0; index < 4; ++index) {
        wire_in(from_client(client_next + index, "x"), 1);
    }
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::hold_overflow));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "", "x", "x", "x", "x"));
}

}  // namespace
}  // namespace bore::packet::test
