// What the translation makes of numbers, and what a flow remembers of its segments: bytes before
// the splice, segments far from the window, resets, the end in order, held acknowledgements.
#include <gtest/gtest.h>

#include "dataplane/packet/translate.hpp"
#include "tests/packet/translate_fixture.hpp"

namespace bore::packet {
namespace {

using abi::Leg;
using test::Segment;

using TranslateNumbers = test::TranslateTest;

INSTANTIATE_TEST_SUITE_P(Flows, TranslateNumbers,
                         ::testing::Combine(::testing::ValuesIn(test::variants()),
                                            ::testing::Values(Leg::visitor, Leg::client)),
                         [](const auto& param_info) { return test::name_of(param_info.param); });

// ---- Bytes and acknowledgements from before the splice

TEST_P(TranslateNumbers, BytesBeforeTheSpliceAreCutOff) {
    for (const std::uint32_t old : {1U, 2U, 7U, 50U, 99U}) {
        Segment given = segment(100);
        given.sequence -= old;
        given.flags = tcp_ack | tcp_psh | (old == 99 ? tcp_fin : 0);
        Segment rest = given;
        rest.sequence += old;
        rest.payload.erase(rest.payload.begin(), rest.payload.begin() + old);
        expect_spliced(given, pair().mirrored(in(), rest));
        EXPECT_EQ(pair().outcome.payload_bytes, 100 - old);
    }
    EXPECT_EQ(pair().tally.trimmed, 5U);
}

TEST_P(TranslateNumbers, OnlyTheFinIsNew) {
    Segment given = segment(100);
    given.sequence -= 100;
    given.flags = tcp_ack | tcp_fin;
    Segment rest = given;
    rest.sequence += 100;
    rest.payload.clear();
    expect_spliced(given, pair().mirrored(in(), rest));
    EXPECT_EQ(pair().entry(in()).next_sequence, in_leg().rcv_nxt + 1);
}

TEST_P(TranslateNumbers, AnOldSegmentBecomesAProbe) {
    const std::uint32_t first = in_leg().rcv_nxt;
    for (const std::uint32_t old : {100U, 101U, 70'000U, 0x7000'0000U}) {
        Segment given = segment(100);
        given.sequence -= old;
        given.flags = static_cast<std::uint8_t>(tcp_ack | tcp_psh | (old > 100 ? tcp_fin : 0));
        Segment probe = given;
        probe.sequence = first - 1;
        probe.flags = tcp_ack;
        probe.payload.clear();
        expect_spliced(given, pair().mirrored(in(), probe));
        EXPECT_EQ(pair().outcome.payload_bytes, 0U);
    }
    EXPECT_EQ(pair().entry(in()).next_sequence, first);
    EXPECT_EQ(pair().cold().fin_seen[static_cast<std::size_t>(in())], 0);
}

TEST_P(TranslateNumbers, AKeepaliveProbeStaysOne) {
    for (const std::size_t garbage : {0U, 1U}) {
        Segment given = segment(garbage);
        given.sequence -= 1;
        Segment probe = given;
        probe.payload.clear();
        expect_spliced(given, pair().mirrored(in(), probe));
    }
}

TEST_P(TranslateNumbers, OldAcknowledgementsAreRaisedToTheSplice) {
    for (const std::uint32_t old : {1U, 100'000U}) {
        Segment given = segment(10);
        given.acknowledgement -= old;
        Segment raised = given;
        raised.acknowledgement += old;
        expect_spliced(given, pair().mirrored(in(), raised));
        EXPECT_EQ(pair().outcome.delivered_bytes, 0U);
    }
    EXPECT_EQ(pair().entry(in()).acknowledged, in_leg().snd_nxt);
}

TEST_P(TranslateNumbers, CutAndStamped) {
    out_leg().timestamps = true;
    Segment given = segment(101);
    given.sequence -= 33;
    Segment rest = given;
    rest.sequence += 33;
    rest.payload.erase(rest.payload.begin(), rest.payload.begin() + 33);
    Segment expected = pair().mirrored(in(), rest);
    expected.options = test::usual_timestamps(out_leg().own_timestamp, out_leg().peer_timestamp);
    expect_spliced(given, expected);
}

// ---- Numbers far away

TEST_P(TranslateNumbers, FarSequencesMustLieInTheWindow) {
    open_window(out(), 20'000);  // scale 7 or 8: 2.5 or 5 MB
    const std::uint32_t window = 20'000U
                                 << state_.legs[static_cast<std::size_t>(out())].peer_window_scale;
    Segment given = segment(10);
    given.sequence += window + 1;
    expect_dropped(given, PacketReason::out_of_window);
    given.sequence += 0x5000'0000;
    expect_dropped(given, PacketReason::out_of_window);
    given.sequence = in_leg().rcv_nxt + window;  // as a window probe has it
    expect_mirrored(given);
    EXPECT_EQ(pair().entry(in()).next_sequence, given.sequence + 10);
}

TEST_P(TranslateNumbers, SequencesOfOneBlockPassWhateverTheWindow) {
    out_leg().peer_window_bytes = 0;
    const std::uint32_t last = in_leg().rcv_nxt | (near_bytes - 1);
    Segment given = segment(std::min(5U, last - in_leg().rcv_nxt));
    given.sequence = last - static_cast<std::uint32_t>(given.payload.size());
    expect_mirrored(given);
    EXPECT_EQ(pair().entry(in()).next_sequence, last);
    given = segment();
    given.sequence = last + 1;
    expect_dropped(given, PacketReason::out_of_window);
    open_window(out(), 1'000);
    expect_mirrored(given);
}

TEST_P(TranslateNumbers, WhatCrossesABlockMustBeginInTheWindow) {
    const std::uint32_t next = in_leg().rcv_nxt + 100;
    const std::uint32_t border = (next | (near_bytes - 1)) + 1;
    for (const std::uint32_t beyond : {1U, 0U}) {
        out_leg().peer_window_bytes = border - 2 - beyond - in_leg().rcv_nxt;
        test::SplicedPair one(variant(), state_);
        Segment crossing = one.from(in());
        crossing.payload = test::stream_bytes(0, 100);
        ASSERT_EQ(one.pass(in(), crossing), PacketReason::spliced);
        crossing.sequence = border - 2;
        crossing.payload = test::stream_bytes(0, 2);
        EXPECT_EQ(one.pass(in(), crossing),
                  beyond != 0 ? PacketReason::out_of_window : PacketReason::spliced);
        EXPECT_EQ(one.entry(in()).next_sequence, beyond != 0 ? next : border);
        // An end within the block needs no window.
        crossing.payload.pop_back();
        EXPECT_EQ(one.pass(in(), crossing), PacketReason::spliced);
    }
}

TEST_P(TranslateNumbers, WhatCrossesABlockMustHaveBeenSent) {
    const std::uint32_t last = in_leg().snd_nxt | (near_bytes - 1);
    Segment given = segment();
    given.acknowledgement = last;
    expect_mirrored(given);
    given.acknowledgement = last + 1;
    expect_dropped(given, PacketReason::out_of_window);
    Segment data = pair().from(out());
    data.sequence += last - in_leg().snd_nxt;
    data.payload = test::stream_bytes(0, 1);
    ASSERT_EQ(pair().pass(out(), data), PacketReason::spliced);
    expect_mirrored(given);
}

TEST_P(TranslateNumbers, OldAcknowledgementsDoNotOpenTheWindow) {
    Segment data = pair().from(out());
    data.payload = test::stream_bytes(0, 100);
    ASSERT_EQ(pair().pass(out(), data), PacketReason::spliced);
    Segment given = segment();
    given.acknowledgement += 100;
    given.window = 1'000;
    expect_mirrored(given);
    const std::uint32_t edge = pair().entry(in()).window_edge;
    given.acknowledgement -= 1;
    given.window = 65'535;
    expect_mirrored(given);
    EXPECT_EQ(pair().entry(in()).window_edge, edge);
    given.acknowledgement += 1;
    expect_mirrored(given);
    EXPECT_EQ(pair().entry(in()).window_edge,
              given.acknowledgement + (65'535U << in_leg().peer_window_scale));
}

TEST_P(TranslateNumbers, FarAcknowledgementsMustHaveBeenSent) {
    open_window(in(), 20'000);
    // The other peer sends a megabyte, in segments whose loss nobody sees.
    Segment data = pair().from(out());
    data.payload = test::stream_bytes(0, 1'000);
    data.sequence += 999'000;
    ASSERT_EQ(pair().pass(out(), data), PacketReason::spliced);
    Segment given = segment();
    given.acknowledgement += 1'000'001;
    expect_dropped(given, PacketReason::out_of_window);
    given.acknowledgement = in_leg().snd_nxt + 0x6000'0000;
    expect_dropped(given, PacketReason::out_of_window);
    given.acknowledgement = in_leg().snd_nxt + 1'000'000;
    expect_mirrored(given);
    EXPECT_EQ(pair().outcome.delivered_bytes, 1'000'000U);
}

TEST_P(TranslateNumbers, LateSegmentsPassAndAreCounted) {
    Segment given = segment(1'000);
    for (int count = 0; count < 5; ++count) {
        expect_mirrored(given);
        given.sequence += 1'000;
    }
    EXPECT_EQ(pair().tally.retransmitted_packets, 0U);
    given.sequence -= 1'500;  // half of it is new
    expect_mirrored(given);
    EXPECT_EQ(pair().tally.retransmitted_packets, 1U);
    EXPECT_EQ(pair().tally.retransmitted_bytes, 1'000U);
}

// Longer than sequence numbers are: nothing old is mistaken for bytes before the splice.
TEST_P(TranslateNumbers, LongStreamsAreNotCut) {
    out_leg().peer_window_scale = 14;
    constexpr std::uint32_t step = 900'000'000;
    std::uint64_t sent = 0;
    for (int round = 0; round < 12; ++round) {
        // The receiver acknowledges all and opens its window by a gigabyte.
        Segment acknowledgement = pair().from(out());
        acknowledgement.acknowledgement += static_cast<std::uint32_t>(sent);
        acknowledgement.window = 65'535;
        ASSERT_EQ(pair().pass(out(), acknowledgement), PacketReason::spliced);
        Segment given = segment(1'000);
        given.sequence += static_cast<std::uint32_t>(sent) + step - 1'000;
        expect_mirrored(given);
        sent += step;
        for (const std::uint32_t back : {1'000U, 50'000'000U, step}) {
            Segment again = segment(500);
            again.sequence += static_cast<std::uint32_t>(sent) - back;
            Segment acknowledges = again;
            expect_mirrored(acknowledges);
        }
    }
    EXPECT_EQ(pair().tally.trimmed, 0U);
    const auto delivered = pair().table->delivered_bytes(pair().flow);
    EXPECT_EQ(delivered[static_cast<std::size_t>(in())], sent - step);
}

// The same where the borders of the number space are passed by usual segments.
TEST_P(TranslateNumbers, SmallStepsPassEveryBorder) {
    in_leg().rcv_nxt = 0;
    in_leg().snd_nxt = (1U << 29U) - 500;  // wraps amid a quarter of the other
    in_leg().peer_window_scale = out_leg().peer_window_scale = 14;
    constexpr std::uint64_t quarter = std::uint64_t{1} << 30U;
    open_window(in(), 65'535);
    std::uint64_t acknowledged = 0;
    for (std::uint64_t border = quarter; border <= 9 * quarter; border += quarter) {
        const std::uint64_t middle = border - quarter / 2;
        for (const std::uint64_t end : {middle, middle + 1'000, border - 500, border + 500}) {
            Segment data = pair().from(out());
            data.payload = test::stream_bytes(0, 1'000);
            data.sequence += static_cast<std::uint32_t>(end - 1'000);
            data.acknowledgement += static_cast<std::uint32_t>(acknowledged);
            data.window = 65'535;
            ASSERT_EQ(pair().pass(out(), data), PacketReason::spliced);
            Segment given = segment(1'000);
            given.sequence += static_cast<std::uint32_t>(end - 1'000);
            given.acknowledgement += static_cast<std::uint32_t>(end);
            given.window = 65'535;
            expect_mirrored(given);
            acknowledged = end;
        }
        Segment late = segment(1'000);
        late.sequence += static_cast<std::uint32_t>(border - 500'000);
        late.acknowledgement += static_cast<std::uint32_t>(border - 500'000);
        expect_mirrored(late);
    }
    EXPECT_EQ(pair().tally.trimmed, 0U);
    const auto delivered = pair().table->delivered_bytes(pair().flow);
    EXPECT_EQ(delivered[static_cast<std::size_t>(out())], 9 * quarter + 500);
}

TEST_P(TranslateNumbers, LateAcknowledgementsInLongStreamsAreNotRaised) {
    in_leg().peer_window_scale = 14;
    constexpr std::uint32_t step = 900'000'000;
    std::uint32_t acknowledged = 0;
    for (int round = 0; round < 12; ++round) {
        Segment given = segment();
        given.acknowledgement += acknowledged;
        given.window = 65'535;
        expect_mirrored(given);
        Segment data = pair().from(out());
        data.payload = test::stream_bytes(0, 1'000);
        data.sequence += acknowledged + step - 1'000;
        ASSERT_EQ(pair().pass(out(), data), PacketReason::spliced);
        Segment late = segment();
        late.acknowledgement += acknowledged - (round == 0 ? 0 : 1'000'000);
        expect_mirrored(late);
        EXPECT_EQ(pair().outcome.delivered_bytes, 0U);
        acknowledged += step;
    }
}

// ---- Resets

TEST_P(TranslateNumbers, ResetsMustLieInTheReceiversWindow) {
    open_window(out(), 100);
    const std::uint32_t window =
        std::max(100U << out_leg().peer_window_scale, out_leg().peer_window_bytes);
    Segment reset = segment();
    reset.flags = tcp_rst | tcp_ack;
    reset.sequence -= 1;
    expect_dropped(reset, PacketReason::out_of_window);
    reset.sequence += window + 2;
    expect_dropped(reset, PacketReason::out_of_window);
    reset.sequence += 0x4000'0000;
    expect_dropped(reset, PacketReason::out_of_window);
    EXPECT_EQ(pair().cold().reset_seen[static_cast<std::size_t>(in())], 0);
    for (const std::uint32_t at : {0U, 1U, window}) {
        reset.sequence = in_leg().rcv_nxt + at;
        Segment expected = pair().mirrored(in(), reset);
        expected.window = 0;
        expect_spliced(reset, expected);
        EXPECT_EQ(pair().cold().reset_seen[static_cast<std::size_t>(in())], 1);
        EXPECT_EQ(pair().outcome.flow_event, at == 0) << "once";
    }
    EXPECT_EQ(pair().entry(in()).next_sequence, in_leg().rcv_nxt);
}

TEST_P(TranslateNumbers, AResetWithoutAcknowledgement) {
    Segment reset = segment();
    reset.flags = tcp_rst;
    reset.acknowledgement = 12'345;
    Segment expected = pair().mirrored(in(), reset);
    expected.acknowledgement = 0;
    expected.window = 0;
    expect_spliced(reset, expected);
    EXPECT_TRUE(pair().outcome.flow_event);
}

TEST_P(TranslateNumbers, ASegmentRefutesAReset) {
    Segment reset = segment();
    reset.flags = tcp_rst;
    ASSERT_EQ(pair().pass(in(), reset), PacketReason::spliced);
    auto& seen = pair().cold().reset_seen[static_cast<std::size_t>(in())];
    ASSERT_EQ(pair().pass(out(), pair().from(out())), PacketReason::spliced);
    EXPECT_EQ(seen, 1) << "the other peer's segments say nothing";
    expect_mirrored(segment(10));
    EXPECT_EQ(seen, 0);
    EXPECT_EQ(pair().entry(in()).state, 0);
    ASSERT_EQ(pair().pass(in(), reset), PacketReason::spliced);
    EXPECT_TRUE(pair().outcome.flow_event);
}

// ---- The end in order

TEST_P(TranslateNumbers, BothFinsAcknowledgedAreAnEvent) {
    const auto in_index = static_cast<std::size_t>(in());
    const auto out_index = static_cast<std::size_t>(out());
    Segment fin = segment(10);
    fin.flags = tcp_ack | tcp_fin;
    expect_mirrored(fin);
    EXPECT_EQ(pair().cold().fin_seen[in_index], 1);
    EXPECT_EQ(pair().cold().fin_end[in_index], fin.sequence + 11);
    EXPECT_EQ(pair().entry(out()).other_fin, 1);
    EXPECT_EQ(pair().entry(in()).other_fin, 0);

    // The other peer acknowledges half, then all, and sends on.
    Segment answer = pair().from(out());
    answer.acknowledgement += 5;
    ASSERT_EQ(pair().pass(out(), answer), PacketReason::spliced);
    EXPECT_EQ(pair().outcome.delivered_bytes, 5U);
    EXPECT_EQ(pair().cold().fin_acknowledged[in_index], 0);
    answer.acknowledgement += 6;
    answer.payload = test::stream_bytes(0, 100);
    ASSERT_EQ(pair().pass(out(), answer), PacketReason::spliced);
    EXPECT_EQ(pair().outcome.delivered_bytes, 5U) << "a FIN is not a byte";
    EXPECT_EQ(pair().cold().fin_acknowledged[in_index], 1);
    EXPECT_FALSE(pair().outcome.flow_event);

    answer.sequence += 100;
    answer.payload.clear();
    answer.flags = tcp_ack | tcp_fin;
    ASSERT_EQ(pair().pass(out(), answer), PacketReason::spliced);
    EXPECT_EQ(pair().cold().fin_seen[out_index], 1);
    Segment last = segment();
    last.sequence += 11;
    last.acknowledgement += 101;
    expect_mirrored(last);
    EXPECT_EQ(pair().outcome.delivered_bytes, 100U);
    EXPECT_TRUE(pair().outcome.flow_event);
    const auto delivered = pair().table->delivered_bytes(pair().flow);
    EXPECT_EQ(delivered[in_index], 10U);
    EXPECT_EQ(delivered[out_index], 100U);

    // Late ones still pass, silently.
    expect_mirrored(last);
    EXPECT_FALSE(pair().outcome.flow_event);
    EXPECT_EQ(pair().outcome.delivered_bytes, 0U);
    expect_mirrored(fin);
    EXPECT_FALSE(pair().outcome.flow_event);
}

// ---- Acknowledgements held back

TEST_P(TranslateNumbers, TheAcknowledgementOfTheHandshakeBytesIsHeldBack) {
    if (in() == Leg::client) {
        return;  // acknowledgements to the visitor are never held back
    }
    state_.ack_hold_back = 57;
    state_.ack_hold_until_ms = timestamp_ms(test::start_ns) + 20;
    Segment given = segment(10);
    Segment expected = pair().mirrored(in(), given);
    expected.acknowledgement -= 57;
    expect_spliced(given, expected);
    given.acknowledgement += 1;
    expect_mirrored(given);
    EXPECT_EQ(pair().entry(in()).state, 0) << "an acknowledgement beyond ends the hold";
}

TEST_P(TranslateNumbers, TheHoldEndsAtItsDeadline) {
    if (in() == Leg::client) {
        return;  // acknowledgements to the visitor are never held back
    }
    state_.ack_hold_back = 57;
    state_.ack_hold_until_ms = timestamp_ms(test::start_ns) + 20;
    Segment given = segment(10);
    pair().now_ns += 19'000'000;
    Segment expected = pair().mirrored(in(), given);
    expected.acknowledgement -= 57;
    expect_spliced(given, expected);
    pair().now_ns += 1'000'000;
    expect_mirrored(given);
    EXPECT_EQ(pair().entry(in()).state, 0);
    // Nothing of this touches the other direction.
    ASSERT_EQ(pair().pass(out(), pair().from(out())), PacketReason::spliced);
    EXPECT_EQ(pair().out, test::build(pair().mirrored(out(), pair().from(out()))));
}

}  // namespace
}  // namespace bore::packet
