// The slow path before the splice: what is held, what passes, what is given back; bounds.
#include <gmock/gmock.h>

#include "dataplane/packet/leg_path.hpp"
#include "tests/packet/slow_path_fixture.hpp"

namespace bore::packet::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// ---- Holding

TEST_F(SlowPathTest, ASynMakesNoStateAndLosesWhatTheKernelMustNotNegotiate) {
    wire_in(from_visitor(visitor_next - 1, "", tcp_syn | tcp_ece | tcp_cwr));
    ASSERT_EQ(host.kernel.size(), 1U);
    EXPECT_EQ(host.kernel[0].segment().flags, tcp_syn);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

TEST_F(SlowPathTest, PayloadAndFinOfAVisitorAreHeldAndTheKernelGetsTheRest) {
    wire_in(from_visitor(visitor_next, "GET /", tcp_ack | tcp_psh | tcp_fin));
    ASSERT_EQ(host.kernel.size(), 1U);
    const Segment stripped = host.kernel[0].segment();
    EXPECT_EQ(stripped.flags, tcp_ack);
    EXPECT_THAT(stripped.payload, IsEmpty());
    EXPECT_EQ(stripped.sequence, visitor_next);
    EXPECT_EQ(count(Counter::held_frames), 1U);
    EXPECT_EQ(count(Counter::legs_tracked), 1U);
}

TEST_F(SlowPathTest, AcknowledgementsOfAHeldVisitorPassUntouched) {
    const Bytes bare = from_visitor(visitor_next, "");
    wire_in(bare);
    ASSERT_EQ(host.kernel.size(), 1U);
    EXPECT_EQ(host.kernel[0].bytes, bare);
    EXPECT_EQ(count(Counter::held_frames), 0U);
}

TEST_F(SlowPathTest, OtherPortsAndOtherProtocolsPassUntouched) {
    Segment other = segment_from_peer(visitor_key);
    other.destination_port = 22;
    other.payload = text("SSH");
    const Bytes ssh = build(other);
    other.protocol = 17;
    other.destination_port = tunnel_port;
    const Bytes not_tcp = build(other);
    wire_in(ssh);
    wire_in(not_tcp);
    ASSERT_EQ(host.kernel.size(), 2U);
    EXPECT_EQ(host.kernel[0].bytes, ssh);
    EXPECT_EQ(host.kernel[1].bytes, not_tcp);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

TEST_F(SlowPathTest, NothingIsHeldOnATunnelWhosePolicyIsStream) {
    limits.path_policy = abi::PathPolicy::stream;
    slow->set_tunnel_limits(1, limits);
    const Bytes data = from_visitor(visitor_next, "data");
    wire_in(data);
    ASSERT_EQ(host.kernel.size(), 1U);
    EXPECT_EQ(host.kernel[0].bytes, data);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

TEST_F(SlowPathTest, ARepeatedFrameIsHeldOnce) {
    wire_in(from_visitor(visitor_next, "abcd"));
    wire_in(from_visitor(visitor_next, "abcd"));
    wire_in(from_visitor(visitor_next + 1, "bc"));
    EXPECT_EQ(count(Counter::held_frames), 1U);
    wire_in(from_visitor(visitor_next, "abcd", tcp_ack | tcp_fin));  // says more: the FIN
    EXPECT_EQ(count(Counter::held_frames), 2U);
}

TEST_F(SlowPathTest, WhatExceedsTheBoundOfALegGoesToTheKernelWithAllBeforeIt) {
    options.max_held_bytes_per_leg = 400;
    start(64);
    for (int index = 0; index < 4; ++index) {
        wire_in(from_visitor(visitor_next + static_cast<std::uint32_t>(index),
                             std::string(1, static_cast<char>('a' + index))));
    }
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "", "a", "b", "c", "d"));
    EXPECT_EQ(count(Counter::held_frames), 0U);
    EXPECT_EQ(count(Counter::held_bytes), 0U);
    EXPECT_EQ(count(Counter::held_dropped_total), 1U);
}

TEST_F(SlowPathTest, TheBoundOverAllLegsHoldsAsWell) {
    options.max_held_bytes = 400;
    start(64);
    for (std::uint16_t visitor = 0; visitor < 6; ++visitor) {
        visitor_key.peer_port = static_cast<std::uint16_t>(30'000 + visitor);
        wire_in(from_visitor(visitor_next, "x"));
    }
    EXPECT_LE(count(Counter::held_frames), 2U);
    EXPECT_EQ(count(Counter::held_dropped_total), 4U);
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "", "x", "x", "x", "x"));
}

TEST_F(SlowPathTest, TinyFramesAreBoundedByTheirNumber) {
    for (std::uint32_t index = 0; index < 3'000; ++index) {
        wire_in(from_visitor(visitor_next + 2 * index, "x"));
        ASSERT_LE(count(Counter::held_frames), Legs::max_held_frames_per_leg);
    }
    EXPECT_EQ(count(Counter::held_frames), 0U);  // given up, nothing lost
    std::size_t with_payload = 0;
    for (const SentFrame& sent : host.kernel) {
        with_payload += sent.segment().payload.empty() ? 0U : 1U;
    }
    EXPECT_EQ(with_payload, 3'000U);
}

TEST_F(SlowPathTest, AVisitorThatIsNotPairedInTimeGetsItsFramesThrough) {
    wire_in(from_visitor(visitor_next, "one"));
    wire_in(from_visitor(visitor_next + 3, "two"));
    pass_time(options.hold_deadline_ns - millisecond_ns);
    EXPECT_EQ(host.kernel.size(), 2U);
    pass_time(2 * millisecond_ns);
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "", "one", "two"));
    wire_in(from_visitor(visitor_next + 6, "three"));
    EXPECT_EQ(payloads(host.kernel).back(), "three");  // no longer held
}

TEST_F(SlowPathTest, AVisitorThatTheKernelClosedGetsItsFramesThrough) {
    wire_in(from_visitor(visitor_next, "late"));
    kernel_in(to_visitor(visitor_next, tcp_fin | tcp_ack));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "late"));
    EXPECT_EQ(host.wire.size(), 1U);
}

TEST_F(SlowPathTest, AVisitorThatTheKernelResetIsForgotten) {
    wire_in(from_visitor(visitor_next, "nobody"));
    kernel_in(to_visitor(visitor_next, tcp_rst | tcp_ack));
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
    EXPECT_EQ(count(Counter::held_frames), 0U);
    EXPECT_EQ(host.wire.size(), 1U);
}

TEST_F(SlowPathTest, AResetReachesTheKernelBehindWhatCameBeforeIt) {
    wire_in(from_visitor(visitor_next, "data"));
    wire_in(from_visitor(visitor_next + 4, "", tcp_rst));
    EXPECT_THAT(payloads(host.kernel), ElementsAre("", "data", ""));
    EXPECT_EQ(host.kernel.back().segment().flags, tcp_rst);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

TEST_F(SlowPathTest, ANewConnectionOnTheTupleBeginsAnew) {
    wire_in(from_visitor(visitor_next, "old"));
    const Bytes repeated = frame(segment_to_peer(visitor_key), to_visitor_next - 1, visitor_next,
                                 "", tcp_syn | tcp_ack, {});
    kernel_in(repeated);  // the same connection's, sent again
    EXPECT_EQ(count(Counter::held_frames), 1U);
    const Bytes fresh =
        frame(segment_to_peer(visitor_key), 7'000'000, 9, "", tcp_syn | tcp_ack, {});
    kernel_in(fresh);
    EXPECT_EQ(count(Counter::held_frames), 0U);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

// ---- Bounds on state

TEST_F(SlowPathTest, AFloodOfMadeUpSegmentsCostsBoundedState) {
    options.max_legs = 100;
    start(64);
    for (std::uint32_t index = 0; index < 20'000; ++index) {
        visitor_key.peer_address =
            ipv4(172, 16, static_cast<std::uint8_t>(index >> 8U), static_cast<std::uint8_t>(index));
        wire_in(from_visitor(index, "junk"));
        ASSERT_LE(count(Counter::legs_tracked), 100U);
        ASSERT_LE(count(Counter::held_frames), 100U);
    }
    EXPECT_EQ(count(Counter::legs_evicted_total), 19'900U);
    pass_time(200 * second_ns);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
    EXPECT_EQ(count(Counter::held_bytes), 0U);
}

TEST_F(SlowPathTest, CopiesOfUnacknowledgedPayloadAreBounded) {
    options.max_held_bytes = 40'000;
    start(64);
    const std::string payload(1'000, 'x');
    for (std::uint16_t port = 1; port <= 100; ++port) {
        client_key.peer_port = port;
        wire_in(from_client(client_next, payload), 1);
    }
    wire_in(from_visitor(visitor_next, ""));
    host.sockets[client_socket].key = client_key;
    open();
    EXPECT_THAT(host.replayed, IsEmpty());  // the last one found no room
    EXPECT_EQ(count(Counter::handoffs_total), 1U);
    pass_time(200 * second_ns);
    client_key.peer_port = 200;  // all room was given back
    wire_in(from_client(client_next, payload), 1);
    visitor_key.peer_port = 200;
    wire_in(from_visitor(visitor_next, ""));
    host.sockets[client_socket].key = client_key;
    host.sockets[visitor_socket].key = visitor_key;
    slow->close_pair(pair_slot, pair_generation, now);
    open();
    EXPECT_EQ(payloads(host.replayed), std::vector<std::string>{payload});
}

TEST_F(SlowPathTest, CopiesOfOneConnectionAreBoundedAndTheLatestAreKept) {
    const std::string payload(1'000, 'x');
    wire_in(from_visitor(visitor_next, ""));
    for (std::uint32_t index = 0; index < 200; ++index) {
        wire_in(from_client(client_next + 1'000 * index, payload), 1);
    }
    open();
    EXPECT_GT(host.replayed.size(), 25U);
    EXPECT_LT(host.replayed.size(), 66U);
    EXPECT_EQ(host.replayed.back().segment().sequence, client_next + 199'000);
}

TEST_F(SlowPathTest, AnsweredConnectionsOutliveUnansweredOnes) {
    options.max_legs = 2;
    start(64);
    wire_in(from_client(client_next - 50, ""), 1);
    kernel_in(to_client(client_next - 50), 1);  // the kernel knows it
    for (std::uint16_t port = 1; port < 50; ++port) {
        visitor_key.peer_port = port;
        wire_in(from_visitor(visitor_next, "junk"));
    }
    wire_in(from_client(client_next - 50, "{\"Accept\":\"x\"}"), 1);
    kernel_in(to_client(client_next), 1);
    EXPECT_EQ(host.wire.size(), 1U);  // its acknowledgement is held back: the leg was never lost
}

TEST_F(SlowPathTest, IdleConnectionsAreForgotten) {
    wire_in(from_client(client_next - 50, ""), 1);
    pass_time(Legs::idle_limit_ns - second_ns);
    EXPECT_EQ(count(Counter::legs_tracked), 1U);
    pass_time(2 * second_ns);
    EXPECT_EQ(count(Counter::legs_tracked), 0U);
}

// ---- What the kernel sends

TEST_F(SlowPathTest, TheMssOfTunnelAndControlPortsIsClampedAndNoOther) {
    const Bytes mss_1460{std::byte{2}, std::byte{4}, std::byte{5}, std::byte{0xb4}};
    Segment answer = segment_to_peer(visitor_key);
    answer.flags = tcp_syn | tcp_ack;
    answer.options = mss_1460;
    kernel_in(build(answer));
    answer.source_port = 443;
    const Bytes untouched = build(answer);
    kernel_in(untouched);
    ASSERT_EQ(host.wire.size(), 2U);
    const Bytes clamped = host.wire[0].segment().options;
    ASSERT_GE(clamped.size(), 4U);
    EXPECT_EQ(load16(clamped.data() + 2), 1'440U);
    EXPECT_EQ(host.wire[1].bytes, untouched);
}

// ---- The acknowledgement of Accept

TEST_F(SlowPathTest, AcceptIsFoundWhereItCanBe) {
    using std::string_view_literals::operator""sv;
    const auto in = [](std::string_view payload) {
        return contains_accept(std::as_bytes(std::span(payload)));
    };
    EXPECT_TRUE(in("{\"Accept\":\"f47a\"}\0data"sv));
    EXPECT_TRUE(in("{\"Authenticate\":\"00\"}\0{\"Accept\":\"f47a\"}\0"sv));
    EXPECT_TRUE(in(" \t{ \"Accept\" : \"f47a\"}"sv));
    EXPECT_FALSE(in("{\"Hello\":0}\0"sv));
    EXPECT_FALSE(in("{\"Hello\":\"{\\\"Accept\\\":0\"}"sv));
    EXPECT_FALSE(in("{\"Accep"sv));
    EXPECT_FALSE(in(""sv));
}

TEST_F(SlowPathTest, TheAcknowledgementOfAcceptIsHeldBackButNotForLong) {
    wire_in(from_client(client_next - 50, ""), 1);
    kernel_in(to_client(client_next - 50), 1);
    ASSERT_EQ(host.wire.size(), 1U);
    wire_in(from_client(client_next - 50, std::string("{\"Accept\":\"id\"}").c_str()), 1);
    kernel_in(to_client(client_next - 20), 1);
    const Bytes latest = to_client(client_next);
    kernel_in(latest, 1);
    EXPECT_EQ(host.wire.size(), 1U);
    pass_time(Legs::max_acknowledgement_hold_ns - 2 * millisecond_ns);
    EXPECT_EQ(host.wire.size(), 1U);
    pass_time(3 * millisecond_ns);
    ASSERT_EQ(host.wire.size(), 2U);
    EXPECT_EQ(host.wire[1].bytes, latest);
    kernel_in(to_client(client_next + 1), 1);  // and only once
    EXPECT_EQ(host.wire.size(), 3U);
}

TEST_F(SlowPathTest, SegmentsWithDataAreNotHeldBackWithTheAcknowledgement) {
    wire_in(from_client(client_next - 50, "{\"Accept\":\"id\"}"), 1);
    kernel_in(to_client(client_next, tcp_ack, "answer"), 1);
    EXPECT_EQ(host.wire.size(), 1U);
}

}  // namespace
}  // namespace bore::packet::test
