// Bursts through the whole packet path: where every frame goes, in which order, and what is
// counted.
#include "dataplane/packet/pipeline.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <vector>

#include "dataplane/packet/shaper.hpp"
#include "dataplane/packet/split.hpp"
#include "tests/packet/spliced_pair.hpp"

namespace bore::packet {
namespace {

using abi::Leg;
using Counter = abi::PacketWorkerCounter;
using abi::TunnelCounter;
using test::Bytes;
using test::Segment;
using test::SplicedPair;

// Keeps what it is given, and every buffer's fate.
class RecordingOutlet final : public Outlet {
  public:
    void send(std::span<Frame> frames) override {
        EXPECT_LE(frames.size(), max_burst);
        ++send_calls;
        take(frames, sent);
    }
    void divert(std::span<Frame> frames) override {
        ++divert_calls;
        take(frames, diverted);
    }
    void drop(std::span<Frame> frames) override {
        ++drop_calls;
        take(frames, dropped);
    }
    bool allocate(std::uint8_t port_index, Frame& frame) override {
        if (buffers_left == 0) {
            return false;
        }
        --buffers_left;
        test::BufferedFrame& buffer = buffers.emplace_back(Bytes{}, 128, buffer_bytes);
        frame = buffer.frame;
        frame.port_index = port_index;
        handed_out[frame.buffer] = 0;
        return true;
    }
    void flow_event(const FlowEvent& event) override { events.push_back(event); }

    // Every buffer that went in or was allocated came out exactly once.
    void expect_no_buffer_lost(std::size_t held = 0) {
        std::size_t missing = 0;
        for (const auto& [buffer, count] : handed_out) {
            EXPECT_LE(count, 1);
            missing += count == 0 ? 1U : 0U;
        }
        EXPECT_EQ(missing, held);
    }

    std::vector<Bytes> sent;
    std::vector<std::uint8_t> sent_ports;
    std::vector<Bytes> diverted;
    std::vector<Bytes> dropped;
    std::vector<FlowEvent> events;
    std::size_t send_calls{0};
    std::size_t divert_calls{0};
    std::size_t drop_calls{0};
    std::size_t buffers_left{1'000};
    std::size_t buffer_bytes{2'048};
    std::deque<test::BufferedFrame> buffers;
    std::map<void*, int> handed_out;

  private:
    void take(std::span<Frame> frames, std::vector<Bytes>& to) {
        for (const Frame& frame : frames) {
            to.emplace_back(frame.data, frame.data + frame.length_bytes);
            ASSERT_TRUE(handed_out.contains(frame.buffer));
            ++handed_out[frame.buffer];
            if (&to == &sent) {
                sent_ports.push_back(frame.port_index);
            }
        }
    }
};

class PipelineTest : public ::testing::Test {
  protected:
    PipelineTest() : v6_({.name = "v6", .v6 = true, .tagged_out = true}, v6_state()) {
        v6_.install_in(*v4_.table);
    }

    static FlowState v6_state() {
        FlowState state = test::usual_state({.name = "v6", .v6 = true});
        state.tunnel_index = 5;
        return state;
    }

    void give(const Bytes& bytes, ReceivedChecksum checksum = ReceivedChecksum::unknown) {
        test::BufferedFrame& buffer = outlet_.buffers.emplace_back(bytes);
        buffer.frame.checksum = checksum;
        outlet_.handed_out[buffer.frame.buffer] = 0;
        frames_.push_back(buffer.frame);
    }
    void give(const Segment& segment) { give(test::build(segment)); }
    void process() {
        pipeline_.process(frames_, test::start_ns);
        frames_.clear();
    }
    std::uint64_t count(Counter counter) const { return counters_.get(counter); }
    // The sum over all reasons is the count of frames.
    std::uint64_t verdicts() const {
        std::uint64_t sum = 0;
        for (std::uint8_t reason = 0; reason < static_cast<std::uint8_t>(PacketReason::count);
             ++reason) {
            sum += count(abi::counter_of(static_cast<PacketReason>(reason)));
        }
        return sum;
    }
    DirectionEntry& entry(Leg in) { return v4_.entry(in); }

    // The pairs say what to expect; the first one's table is the one that is worked on.
    SplicedPair v4_{{.name = "v4"}};
    SplicedPair v6_;
    abi::PacketWorkerCounters counters_;
    std::vector<abi::TunnelCounters> rows_{8};
    RecordingOutlet outlet_;
    Pipeline pipeline_{0, *v4_.table, counters_, rows_, outlet_};
    std::vector<Frame> frames_;
};

TEST_F(PipelineTest, EveryFrameGoesWhereItBelongs) {
    Segment data = v4_.from(Leg::visitor);
    data.payload = test::text("hello");
    Segment data6 = v6_.from(Leg::client);
    data6.payload = test::text("olleh");
    Segment stranger = v4_.from(Leg::visitor);
    stranger.source_port += 1;
    Segment stranger6 = v6_.from(Leg::visitor);
    stranger6.source_port += 1;
    Segment syn = v4_.from(Leg::client);
    syn.flags = tcp_syn;
    Segment odd = v6_.from(Leg::visitor);
    odd.flags = tcp_ack | tcp_fin | tcp_rst;
    Bytes arp(60);
    store16(arp.data() + 12, 0x0806);

    give(data);
    give(stranger);
    give(Bytes(10));
    give(syn);
    give(data6);
    give(stranger6);
    give(test::build(data), ReceivedChecksum::bad);
    give(odd);
    give(arp);
    give(test::build(v4_.from(Leg::client)), ReceivedChecksum::good);
    process();

    EXPECT_EQ(outlet_.sent,
              (std::vector<Bytes>{test::build(v4_.mirrored(Leg::visitor, data)),
                                  test::build(v6_.mirrored(Leg::client, data6)),
                                  test::build(v4_.mirrored(Leg::client, v4_.from(Leg::client)))}));
    EXPECT_EQ(outlet_.sent_ports, (std::vector<std::uint8_t>{test::client_port, test::visitor_port,
                                                             test::visitor_port}));
    EXPECT_EQ(outlet_.diverted, (std::vector<Bytes>{test::build(stranger), test::build(syn),
                                                    test::build(stranger6), arp}));
    EXPECT_EQ(outlet_.dropped.size(), 3U);
    EXPECT_EQ(outlet_.send_calls, 1U);
    EXPECT_EQ(outlet_.divert_calls, 1U);
    EXPECT_EQ(outlet_.drop_calls, 1U);
    EXPECT_EQ(count(Counter::packets_received_total), 10U);
    EXPECT_EQ(count(Counter::packet_spliced_total), 3U);
    EXPECT_EQ(count(Counter::packet_no_flow_total), 2U);
    EXPECT_EQ(count(Counter::packet_syn_total), 1U);
    EXPECT_EQ(count(Counter::packet_not_tcp_total), 1U);
    EXPECT_EQ(count(Counter::packet_truncated_total), 1U);
    EXPECT_EQ(count(Counter::packet_bad_checksum_total), 1U);
    EXPECT_EQ(count(Counter::packet_bad_flags_total), 1U);
    EXPECT_EQ(verdicts(), 10U);
    outlet_.expect_no_buffer_lost();
}

TEST_F(PipelineTest, MoreFramesThanABurstKeepTheirOrder) {
    std::vector<Bytes> expected;
    Segment data = v4_.from(Leg::visitor);
    for (int index = 0; index < 100; ++index) {
        data.payload = test::stream_bytes(data.sequence, 100);
        give(data);
        expected.push_back(test::build(v4_.mirrored(Leg::visitor, data)));
        data.sequence += 100;
        if (index % 7 == 0) {
            give(Bytes(20));
        }
    }
    process();
    EXPECT_EQ(outlet_.sent, expected);
    EXPECT_EQ(outlet_.send_calls, (115 + max_burst - 1) / max_burst);
    EXPECT_EQ(count(Counter::packet_spliced_total), 100U);
    EXPECT_EQ(count(Counter::packet_ethertype_total), 15U);
    EXPECT_EQ(entry(Leg::visitor).next_sequence, data.sequence);
    outlet_.expect_no_buffer_lost();
}

TEST_F(PipelineTest, RemovedFlowsAreNoFlows) {
    v4_.table->remove(v4_.flow);
    give(v4_.from(Leg::visitor));
    process();
    EXPECT_EQ(outlet_.diverted.size(), 1U);
    EXPECT_EQ(count(Counter::packet_no_flow_total), 1U);
}

TEST_F(PipelineTest, DeliveredBytesGoToTheirTunnelAndDirection) {
    Segment visitor = v4_.from(Leg::visitor);
    Segment client = v4_.from(Leg::client);
    Segment client6 = v6_.from(Leg::client);
    for (std::uint32_t round = 1; round <= 3; ++round) {
        visitor.acknowledgement += 10;
        client.acknowledgement += 100;
        client6.acknowledgement += 1'000;
        give(visitor);
        give(client);
        give(client6);
        give(client6);
    }
    process();
    EXPECT_EQ(rows_[3].get(TunnelCounter::to_visitor_bytes_total), 30U);
    EXPECT_EQ(rows_[3].get(TunnelCounter::to_client_bytes_total), 300U);
    EXPECT_EQ(rows_[5].get(TunnelCounter::to_client_bytes_total), 3'000U);
    EXPECT_EQ(rows_[5].get(TunnelCounter::to_visitor_bytes_total), 0U);
    EXPECT_EQ(v4_.table->delivered_bytes(v4_.flow), (std::array<std::uint64_t, 2>{300, 30}));
}

TEST_F(PipelineTest, RetransmissionsAndTrimmedSegmentsAreCounted) {
    Segment data = v4_.from(Leg::visitor);
    data.payload = test::stream_bytes(0, 500);
    give(data);
    give(data);
    data.sequence -= 100;
    give(data);
    process();
    EXPECT_EQ(count(Counter::packet_spliced_total), 3U);
    EXPECT_EQ(count(Counter::retransmitted_packets_total), 2U);
    EXPECT_EQ(count(Counter::retransmitted_bytes_total), 900U);
    EXPECT_EQ(count(Counter::packets_trimmed_total), 1U);
}

TEST_F(PipelineTest, TheEndOfAFlowIsReported) {
    Segment reset = v4_.from(Leg::visitor);
    reset.flags = tcp_rst;
    give(reset);
    give(reset);
    process();
    ASSERT_EQ(outlet_.events.size(), 1U);
    EXPECT_EQ(outlet_.events[0].flow, v4_.flow);
    EXPECT_EQ(outlet_.events[0].generation, v4_.cold().generation);
    EXPECT_EQ(outlet_.events[0].generation % 2, 1U);
    EXPECT_EQ(outlet_.sent.size(), 2U);
}

// ---- Splitting

class SplitTest : public PipelineTest, public ::testing::WithParamInterface<bool> {
  protected:
    SplicedPair& pair() { return GetParam() ? v6_ : v4_; }
    void limit_mss(std::uint16_t bytes) {
        // Both flows are the table's first two.
        for (FlowIndex flow = 0; flow < 2; ++flow) {
            v4_.table->direction(direction_of(flow, Leg::visitor)).out_mss = bytes;
        }
    }
};

INSTANTIATE_TEST_SUITE_P(Families, SplitTest, ::testing::Bool(),
                         [](const auto& param_info) { return param_info.param ? "v6" : "v4"; });

TEST_P(SplitTest, PiecesAreTheWholeInOrder) {
    limit_mss(500);
    Segment before = pair().from(Leg::visitor);
    before.payload = test::stream_bytes(0, 100);
    Segment large = before;
    large.sequence += 100;
    large.payload = test::stream_bytes(100, 1'401);
    large.flags = tcp_ack | tcp_psh | tcp_fin;
    large.identification = GetParam() ? 0 : 0xfffe;
    Segment after = before;
    after.sequence += 100 + 1'401 + 1;
    after.payload.clear();
    give(before);
    give(large);
    give(after);
    process();

    std::vector<Bytes> expected{test::build(pair().mirrored(Leg::visitor, before))};
    for (std::size_t offset = 0; offset < 1'401; offset += 500) {
        const std::size_t size = std::min<std::size_t>(500, 1'401 - offset);
        Segment piece = large;
        piece.sequence += static_cast<std::uint32_t>(offset);
        piece.payload = test::stream_bytes(100 + static_cast<std::uint32_t>(offset), size);
        piece.flags = static_cast<std::uint8_t>(size < 500 ? tcp_ack | tcp_psh | tcp_fin
                                                           : std::uint8_t{tcp_ack});
        if (!GetParam()) {
            piece.identification = static_cast<std::uint16_t>(large.identification + offset / 500);
        }
        expected.push_back(test::build(pair().mirrored(Leg::visitor, piece)));
    }
    expected.push_back(test::build(pair().mirrored(Leg::visitor, after)));
    EXPECT_EQ(outlet_.sent, expected);
    EXPECT_EQ(count(Counter::packets_split_total), 1U);
    EXPECT_EQ(count(Counter::packet_spliced_total), 3U);
    EXPECT_EQ(verdicts(), 3U);
    outlet_.expect_no_buffer_lost();
}

TEST_P(SplitTest, WithoutBuffersTheWholeIsDropped) {
    limit_mss(500);
    outlet_.buffers_left = 1;
    Segment large = pair().from(Leg::visitor);
    large.payload = test::stream_bytes(0, 1'401);
    give(large);
    process();
    EXPECT_TRUE(outlet_.sent.empty());
    EXPECT_EQ(outlet_.dropped.size(), 2U) << "the segment and the buffer that there was";
    EXPECT_EQ(count(Counter::packet_no_buffer_total), 1U);
    EXPECT_EQ(verdicts(), 1U);
    outlet_.expect_no_buffer_lost();
}

TEST_P(SplitTest, TooManyPiecesOrTooSmallBuffersAreDropped) {
    limit_mss(20);
    Segment large = pair().from(Leg::visitor);
    large.payload = test::stream_bytes(0, 20 * max_pieces + 1);
    give(large);
    process();
    EXPECT_EQ(count(Counter::packet_too_big_total), 1U);
    large.payload.pop_back();
    give(large);
    process();
    EXPECT_EQ(outlet_.sent.size(), max_pieces);
    EXPECT_EQ(count(Counter::packets_split_total), 1U);

    outlet_.buffer_bytes = 60;
    give(large);
    process();
    EXPECT_EQ(count(Counter::packet_too_big_total), 2U);
    outlet_.expect_no_buffer_lost();
}

TEST_P(SplitTest, ACorruptSegmentIsNotSplit) {
    limit_mss(500);
    Segment large = pair().from(Leg::visitor);
    large.payload = test::stream_bytes(0, 1'401);
    large.checksum_error = 1;
    give(large);
    process();
    EXPECT_EQ(count(Counter::packet_bad_checksum_total), 1U);
    EXPECT_TRUE(outlet_.sent.empty());
    outlet_.expect_no_buffer_lost();
}

// ---- The first byte

TEST_F(PipelineTest, TheFirstAcknowledgedByteIsToldOfOnce) {
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        entry(leg).state |= state_first;
        entry(leg).next_sequence += 100;  // so much is under way, each way
    }
    Segment sends = v4_.from(Leg::visitor);
    sends.payload = test::text("hello");
    sends.sequence += 100;
    give(sends);
    process();
    EXPECT_TRUE(outlet_.events.empty()) << "sent is not delivered";

    Segment acknowledges = v4_.from(Leg::client);
    acknowledges.acknowledgement += 5;
    give(acknowledges);
    process();
    ASSERT_EQ(outlet_.events.size(), 1U);
    const FlowEvent& event = outlet_.events[0];
    EXPECT_EQ(event.kind, FlowEvent::Kind::first_byte);
    EXPECT_EQ(event.flow, v4_.flow);
    EXPECT_EQ(event.generation, v4_.cold().generation);
    EXPECT_EQ(event.at, test::start_ns);
    EXPECT_EQ(entry(Leg::visitor).state, 0) << "free for the shortest way";
    EXPECT_EQ(entry(Leg::client).state, 0);

    acknowledges.acknowledgement += 5;
    give(acknowledges);
    Segment other_way = v4_.from(Leg::visitor);
    other_way.acknowledgement += 5;
    give(other_way);
    process();
    EXPECT_EQ(outlet_.events.size(), 1U);
    EXPECT_EQ(rows_[3].get(TunnelCounter::to_client_bytes_total), 10U);
    EXPECT_EQ(rows_[3].get(TunnelCounter::to_visitor_bytes_total), 5U);
}

TEST_F(PipelineTest, AFirstByteAcknowledgedWithTheFinIsToldOfAndAFinAloneIsNot) {
    entry(Leg::visitor).state |= state_first;
    entry(Leg::client).state |= state_first;
    Segment fin = v4_.from(Leg::visitor);
    fin.flags |= tcp_fin;
    give(fin);
    Segment acknowledges = v4_.from(Leg::client);
    acknowledges.acknowledgement += 1;
    give(acknowledges);
    process();
    EXPECT_TRUE(outlet_.events.empty());
    EXPECT_EQ(entry(Leg::client).state & state_first, state_first);

    Segment data = v4_.from(Leg::client);
    data.acknowledgement += 1;
    data.payload = test::text("x");
    data.flags |= tcp_fin;
    give(data);
    Segment last = v4_.from(Leg::visitor);
    last.sequence += 1;
    last.acknowledgement += 2;
    give(last);
    process();
    ASSERT_EQ(outlet_.events.size(), 2U) << "the first byte, and the end";
    EXPECT_EQ(outlet_.events[0].kind, FlowEvent::Kind::first_byte);
    EXPECT_EQ(outlet_.events[1].kind, FlowEvent::Kind::end);
}

// ---- Limits

class LimitedPipelineTest : public PipelineTest {
  protected:
    LimitedPipelineTest() {
        tunnels_.entry(3).set({.to_client_bytes_per_second = 1'000'000});
        entry(Leg::visitor).state |= state_limited;
        entry(Leg::client).window_edge += 1U << 20U;  // the rate alone shall be in the way
        pipeline_.set_shaper(&shaper_);
    }
    void give_data(std::size_t size) {
        Segment data = v4_.from(Leg::visitor);
        data.sequence = next_;
        data.payload = test::stream_bytes(next_, size);
        next_ += static_cast<std::uint32_t>(size);
        give(data);
        expected_.push_back(test::build(v4_.mirrored(Leg::visitor, data)));
    }

    abi::TunnelTable tunnels_{8};
    Shaper shaper_{tunnels_, {.tunnel_count = 8, .slot_count = 256}};
    std::uint32_t next_{v4_.from(Leg::visitor).sequence};
    std::vector<Bytes> expected_;
};

TEST_F(LimitedPipelineTest, WhatTheRateDoesNotAllowIsHeldThenDropped) {
    for (int round = 0; round < 120; ++round) {
        give_data(1'000);
    }
    process();
    const std::size_t sent = outlet_.sent.size();
    EXPECT_GT(sent, 0U);
    EXPECT_LT(sent, 60U);
    EXPECT_EQ(count(Counter::packet_spliced_total), sent);
    EXPECT_EQ(count(Counter::packet_held_total), shaper_.held_frames());
    EXPECT_GT(shaper_.held_frames(), 0U);
    EXPECT_EQ(count(Counter::packet_rate_limited_total), 120 - sent - shaper_.held_frames());
    EXPECT_GT(count(Counter::packet_rate_limited_total), 0U);
    EXPECT_EQ(verdicts(), 120U);
    outlet_.expect_no_buffer_lost(shaper_.held_frames());

    // A bare acknowledgement does not wait, a FIN does, a reset is never dropped.
    outlet_.sent.clear();
    Segment other = v4_.from(Leg::visitor);
    other.sequence = next_;
    give(other);
    process();
    EXPECT_EQ(outlet_.sent.size(), 1U);
    const std::uint32_t held = shaper_.held_frames();
    other.flags = tcp_ack | tcp_fin;
    give(other);
    process();
    EXPECT_EQ(outlet_.sent.size(), 1U);
    EXPECT_EQ(shaper_.held_frames() + count(Counter::packet_rate_limited_total), 120U - sent + 1U);
    EXPECT_GE(shaper_.held_frames(), held);

    std::array<Frame, 256> due;
    const std::size_t released = shaper_.release_due(test::start_ns + 10'000'000'000, due);
    EXPECT_GT(released, 0U);
    for (std::size_t index = 0; index + 1 < released; ++index) {
        const Bytes bytes(due[index].data, due[index].data + due[index].length_bytes);
        EXPECT_EQ(bytes, expected_[sent + index]) << "in order, translated";
    }
}

TEST_F(LimitedPipelineTest, TheOtherDirectionIsFree) {
    Segment data = v4_.from(Leg::client);
    data.payload = test::stream_bytes(0, 1'000);
    for (int round = 0; round < 120; ++round) {
        give(data);
        data.sequence += 1'000;
    }
    process();
    EXPECT_EQ(outlet_.sent.size(), 120U);
}

}  // namespace
}  // namespace bore::packet
