// How every kind of segment is rewritten: segment in → verdict and bytes out. What is expected is
// built from fields with a full checksum, so the incremental ones are judged by another
// implementation.
#include <gtest/gtest.h>

#include "dataplane/packet/translate.hpp"
#include "tests/packet/translate_fixture.hpp"

namespace bore::packet {
namespace {

using abi::Leg;
using test::Bytes;
using test::Segment;
using Octets = std::initializer_list<std::uint8_t>;

using Translate = test::TranslateTest;

INSTANTIATE_TEST_SUITE_P(Flows, Translate,
                         ::testing::Combine(::testing::ValuesIn(test::variants()),
                                            ::testing::Values(Leg::visitor, Leg::client)),
                         [](const auto& param_info) { return test::name_of(param_info.param); });

// ---- The usual segment

TEST_P(Translate, ABareAcknowledgement) {
    Segment data = pair().from(out());
    data.payload = test::stream_bytes(0, 1);
    ASSERT_EQ(pair().pass(out(), data), PacketReason::spliced);
    Segment given = segment();
    given.acknowledgement += 1;
    given.padding_bytes = 6;
    expect_mirrored(given);
    EXPECT_EQ(pair().outcome.delivered_bytes, 1U);
    EXPECT_EQ(pair().entry(in()).last_seen, activity_tick(pair().now_ns));
}

TEST_P(Translate, DataOfAnySize) {
    for (const std::size_t size : {1U, 2U, 3U, 64U, 1'459U, 1'460U}) {
        Segment given = segment(size);
        given.flags = tcp_ack | tcp_psh;
        given.sequence = pair().entry(in()).next_sequence;
        expect_mirrored(given);
        EXPECT_EQ(pair().outcome.payload_bytes, size);
        EXPECT_EQ(pair().entry(in()).next_sequence,
                  given.sequence + static_cast<std::uint32_t>(size));
    }
    EXPECT_EQ(pair().tally.retransmitted_packets, 0U);
}

TEST_P(Translate, TrafficClassStaysAndCongestionBitsAreCleared) {
    for (const std::uint8_t ecn : Octets{0, 1, 2, 3}) {
        Segment given = segment(10);
        given.traffic_class = static_cast<std::uint8_t>(0xb8 | ecn);
        given.flow_label = variant().v6 ? 0xabcde : 0;
        expect_mirrored(given);
        given.flags = tcp_ack | tcp_ece;
        Segment expected = pair().mirrored(in(), given);
        expected.flags = tcp_ack;
        expect_spliced(given, expected);
    }
}

TEST_P(Translate, HopLimitRunsOut) {
    for (const std::uint8_t hops : Octets{2, 3, 255}) {
        Segment given = segment(10);
        given.hop_limit = hops;
        expect_mirrored(given);
    }
    for (const std::uint8_t hops : Octets{0, 1}) {
        Segment given = segment(10);
        given.hop_limit = hops;
        expect_dropped(given, PacketReason::hop_limit);
    }
}

TEST_P(Translate, WindowsAreScaledAndRoundedDown) {
    in_leg().peer_window_scale = 0;
    out_leg().own_window_scale = 9;
    const auto window_of = [this](std::uint16_t window) {
        Segment given = segment();
        given.window = window;
        expect_mirrored(given);
        return test::read(pair().out, nullptr)->window;
    };
    EXPECT_EQ(window_of(0), 0);
    EXPECT_EQ(window_of(1), 0) << "a unit would be more than the receiver takes";
    EXPECT_EQ(window_of(511), 0);
    EXPECT_EQ(window_of(512), 1);
    EXPECT_EQ(window_of(1'023), 1);
    EXPECT_EQ(window_of(1'024), 2);
    EXPECT_EQ(pair().tally.windows_clamped, 0U);
}

TEST_P(Translate, WindowsTooLargeForTheOtherLegAreClamped) {
    in_leg().peer_window_scale = 14;
    out_leg().own_window_scale = 0;
    Segment given = segment();
    given.window = 65'535;
    expect_mirrored(given);
    EXPECT_EQ(test::read(pair().out, nullptr)->window, 65'535);
    EXPECT_EQ(pair().tally.windows_clamped, 1U);
    EXPECT_EQ(pair().entry(in()).window_edge, given.acknowledgement + (65'535U << 14U));
    given.window = 3;
    expect_mirrored(given);
    EXPECT_EQ(test::read(pair().out, nullptr)->window, 49'152);
    EXPECT_EQ(pair().entry(in()).window_edge, given.acknowledgement + (65'535U << 14U))
        << "what was allowed stays allowed";
}

TEST_P(Translate, TheTagOfTheOtherLegNeedsRoom) {
    const Bytes given = test::build(segment(10));
    const bool grows = in() == Leg::visitor ? !variant().tagged_in && variant().tagged_out
                                            : variant().tagged_in && !variant().tagged_out;
    EXPECT_EQ(pair().pass(in(), given, 4), PacketReason::spliced);
    EXPECT_EQ(pair().pass(in(), given, 3), grows ? PacketReason::too_big : PacketReason::spliced);
}

TEST_P(Translate, ServiceTagsCountAsTags) {
    Segment given = segment(10);
    if (given.vlan.has_value()) {
        given.vlan_ethertype = 0x88a8;
    }
    expect_mirrored(given);
}

// ---- Options

TEST_P(Translate, TimestampsOnBothLegs) {
    for (LegState& leg : state_.legs) {
        leg.timestamps = true;
    }
    in_leg().peer_timestamp = 0xffff'fff0;
    out_leg().own_timestamp = 5'000;
    in_leg().own_timestamp = 77;
    out_leg().peer_timestamp = 0xf000'0000;
    const std::uint32_t value = 20;  // 36 ticks later, and wrapped round
    const std::uint32_t echo = 77 + 3;
    const Bytes translated = test::timestamps(5'036, 0xf000'0003);
    struct Layout {
        Bytes before;
        Bytes after;
    };
    for (const Layout& layout :
         {Layout{test::nops(2), {}}, Layout{{}, test::nops(2)},
          Layout{test::nops(1), test::nops(1)}, Layout{test::nops(2), Bytes(4, std::byte{0})}}) {
        for (const std::size_t size : {0U, 5U, 1'448U - 4U}) {
            Segment given = segment(size);
            given.options =
                test::join({layout.before, test::timestamps(value, echo), layout.after});
            Segment expected = pair().mirrored(in(), given);
            expected.options = test::join({layout.before, translated, layout.after});
            expect_spliced(given, expected);
        }
    }
    EXPECT_EQ(pair().tally.timestamps_inserted, 0U);
    EXPECT_EQ(pair().tally.timestamps_removed, 0U);
}

TEST_P(Translate, ASegmentWithoutItsNegotiatedTimestampsIsItsReceiversToJudge) {
    for (LegState& leg : state_.legs) {
        leg.timestamps = true;
    }
    expect_mirrored(segment(10));
}

TEST_P(Translate, TimestampsThatTheOtherLegLacksBecomeNops) {
    in_leg().timestamps = true;
    in_leg().peer_timestamp = 100;
    Segment given = segment(10);
    given.options = test::usual_timestamps(150, 7);
    Segment expected = pair().mirrored(in(), given);
    expected.options = test::nops(12);
    expect_spliced(given, expected);
    auto& latest = pair().cold().peer_timestamp[static_cast<std::size_t>(in())];
    EXPECT_EQ(latest, 150U);
    given.options = test::usual_timestamps(140, 7);
    expect_spliced(given, expected);
    EXPECT_EQ(latest, 150U) << "the latest, not the last";
    EXPECT_EQ(pair().tally.timestamps_removed, 2U);
}

TEST_P(Translate, TimestampsThatTheOtherLegExpectsAreInserted) {
    out_leg().timestamps = true;
    out_leg().own_timestamp = 0xffff'fff0;
    out_leg().peer_timestamp = 900;
    pair().now_ns += 30'500'000;  // 30 ms after the splice
    pair().cold().peer_timestamp[static_cast<std::size_t>(out())] = 950;
    for (const std::size_t size : {0U, 1U, 1'448U}) {
        Segment given = segment(size);
        Segment expected = pair().mirrored(in(), given);
        expected.options = test::usual_timestamps(0xffff'fff0 + 30, 950);
        expect_spliced(given, expected);
    }
    EXPECT_EQ(pair().tally.timestamps_inserted, 3U);
    // 12 bytes more, and the tag's difference, come out of the headroom.
    const Bytes given = test::build(segment(10));
    const auto grows = static_cast<std::size_t>(
        12 + (in() == Leg::visitor ? 4 * (variant().tagged_out - variant().tagged_in)
                                   : 4 * (variant().tagged_in - variant().tagged_out)));
    EXPECT_EQ(pair().pass(in(), given, grows), PacketReason::spliced);
    EXPECT_EQ(pair().headroom_left, 0U);
    EXPECT_EQ(pair().pass(in(), given, grows - 1), PacketReason::too_big);
}

TEST_P(Translate, InsertedTimestampsLeaveRoomForThreeSackBlocks) {
    out_leg().timestamps = true;
    in_leg().sack = out_leg().sack = true;
    for (std::uint32_t blocks = 1; blocks <= 4; ++blocks) {
        Segment given = segment();
        const std::uint32_t base = given.acknowledgement;
        const std::uint32_t delta = out_leg().rcv_nxt - in_leg().snd_nxt;
        Bytes in_blocks;
        Bytes out_blocks;
        for (std::uint32_t block = 0; block < blocks; ++block) {
            const std::uint32_t left = base + 1'000 * (block + 1);
            const Bytes one = test::sack({{left, left + 500}});
            const Bytes translated = test::sack({{left + delta, left + delta + 500}});
            in_blocks.insert(in_blocks.end(), one.begin() + 2, one.end());
            if (block < 3) {
                out_blocks.insert(out_blocks.end(), translated.begin() + 2, translated.end());
            }
        }
        const auto option = [](const Bytes& edges) {
            Bytes bytes{std::byte{1}, std::byte{1}, std::byte{5},
                        static_cast<std::byte>(2 + edges.size())};
            return test::join({bytes, edges});
        };
        given.options = option(in_blocks);
        Segment expected = pair().mirrored(in(), given);
        expected.options = test::join({test::usual_timestamps(pair().leg(out()).own_timestamp,
                                                              pair().leg(out()).peer_timestamp),
                                       option(out_blocks)});
        expect_spliced(given, expected);
    }
}

TEST_P(Translate, TimestampsOfALegThatDidNotNegotiateThemAreReplaced) {
    out_leg().timestamps = true;
    out_leg().own_timestamp = 10;
    out_leg().peer_timestamp = 20;
    Segment given = segment(3);
    given.options = test::usual_timestamps(1, 2);
    Segment expected = pair().mirrored(in(), given);
    expected.options = test::usual_timestamps(10, 20);
    expect_spliced(given, expected);
}

TEST_P(Translate, SackEdgesFollowTheAcknowledgement) {
    in_leg().sack = out_leg().sack = true;
    for (LegState& leg : state_.legs) {
        leg.timestamps = true;
    }
    Segment given = segment();
    const std::uint32_t left = given.acknowledgement + 3'000;
    const std::uint32_t delta = out_leg().rcv_nxt - in_leg().snd_nxt;
    given.options = test::join({test::usual_timestamps(1, 2), test::nops(2),
                                test::sack({{left, left + 10}, {left + 20, left + 30}})});
    Segment expected = pair().mirrored(in(), given);
    expected.options = test::join(
        {test::usual_timestamps(1 + out_leg().own_timestamp - in_leg().peer_timestamp,
                                2 + out_leg().peer_timestamp - in_leg().own_timestamp),
         test::nops(2),
         test::sack({{left + delta, left + delta + 10}, {left + delta + 20, left + delta + 30}})});
    expect_spliced(given, expected);
}

TEST_P(Translate, WhatWasNotNegotiatedOnBothLegsIsBlanked) {
    in_leg().sack = true;
    Segment given = segment(5);
    const Bytes unknown{std::byte{253}, std::byte{4}, std::byte{1}, std::byte{2}};
    given.options = test::join({unknown, test::nops(2), test::sack({{1, 2}})});
    Segment expected = pair().mirrored(in(), given);
    expected.options = test::nops(16);
    expect_spliced(given, expected);
}

TEST_P(Translate, MalformedOptionsAreDropped) {
    Segment given = segment(5);
    given.options = {std::byte{5}, std::byte{3}, std::byte{0}, std::byte{0}};
    expect_dropped(given, PacketReason::bad_options);
}

// ---- Flags

TEST_P(Translate, SynIsLeftToTheSlowPathUntouched) {
    for (const std::uint8_t flags : Octets{0x02, 0x12, 0xc2, 0x22}) {
        Segment given = segment();
        given.flags = flags;
        given.reserved_flags = 1;  // as accurate ECN has it
        expect_dropped(given, PacketReason::syn);
        EXPECT_EQ(pair().out, test::build(given));
    }
    pair().entry(in()).state.fetch_or(state_closed);
    Segment given = segment();
    given.flags = tcp_syn;
    expect_dropped(given, PacketReason::syn);
}

TEST_P(Translate, ImpossibleFlagsAreDropped) {
    for (const std::uint8_t flags :
         Octets{0x00, 0x01, 0x03, 0x06, 0x08, 0x09, 0x13, 0x15, 0x16, 0x20}) {
        Segment given = segment();
        given.flags = flags;
        expect_dropped(given, PacketReason::bad_flags);
    }
    for (const std::uint8_t reserved : Octets{1, 2, 4, 8}) {
        Segment given = segment();
        given.reserved_flags = reserved;
        expect_dropped(given, PacketReason::bad_flags);
    }
}

TEST_P(Translate, UrgentBytesAreBytesInTheirPlace) {
    Segment given = segment(4);
    given.flags = tcp_ack | tcp_urg;
    given.urgent_pointer = 2;
    Segment expected = pair().mirrored(in(), given);
    expected.flags = tcp_ack;
    expected.urgent_pointer = 0;
    expect_spliced(given, expected);
}

TEST_P(Translate, CongestionFlagsAreCleared) {
    Segment given = segment(4);
    given.flags = tcp_ack | tcp_psh | tcp_ece | tcp_cwr;
    given.urgent_pointer = 2;  // meaningless without URG
    Segment expected = pair().mirrored(in(), given);
    expected.flags = tcp_ack | tcp_psh;
    expected.urgent_pointer = 0;
    expect_spliced(given, expected);
}

TEST_P(Translate, AClosedFlowPassesNothing) {
    pair().entry(in()).state.fetch_or(state_closed);
    expect_dropped(segment(4), PacketReason::flow_closed);
    Segment reset = segment();
    reset.flags = tcp_rst;
    expect_dropped(reset, PacketReason::flow_closed);
}

// ---- Checksums

TEST_P(Translate, CorruptSegmentsStayCorrupt) {
    const auto stays_corrupt = [this](Segment given) {
        given.checksum_error = 0x0100;
        ASSERT_EQ(pair().pass(in(), given), PacketReason::spliced);
        EXPECT_NE(test::checksum_complaint(pair().out), "");
    };
    stays_corrupt(segment(10));
    Segment fin = segment(10);
    fin.flags = tcp_ack | tcp_fin;
    stays_corrupt(fin);
}

TEST_P(Translate, CorruptSegmentsStayCorruptWhenStamped) {
    out_leg().timestamps = true;
    Segment given = segment(10);
    given.checksum_error = 0x0001;
    ASSERT_EQ(pair().pass(in(), given), PacketReason::spliced);
    EXPECT_NE(test::checksum_complaint(pair().out), "");
}

TEST_P(Translate, CorruptSegmentsAreNotCutOrSplit) {
    out_leg().peer_mss = 1'000;
    Segment given = segment(100);
    given.sequence -= 1;
    given.checksum_error = 0x8000;
    expect_dropped(given, PacketReason::bad_checksum);
    Segment large = segment(1'001);
    large.checksum_error = 0x8000;
    expect_dropped(large, PacketReason::bad_checksum);
    given.sequence -= 200;
    expect_dropped(given, PacketReason::bad_checksum);
}

TEST_P(Translate, ZeroAndItsNegativeAreBothRight) {
    // The checksum of the frame that leaves when its payload is this word.
    const auto checksum_with = [this](std::uint16_t word) {
        Segment given = segment(2);
        store16(given.payload.data(), word);
        EXPECT_EQ(pair().pass(in(), given), PacketReason::spliced);
        EXPECT_EQ(test::checksum_complaint(pair().out), "") << word;
        return load16(pair().out.data() + pair().out.size() - 2 - 4);
    };
    // A payload of the checksum of nothing fills the sum up to 0xffff, whose complement is zero.
    const std::uint16_t fills_up = checksum_with(0);
    EXPECT_EQ(checksum_with(fills_up), 0);
    EXPECT_EQ(checksum_with(static_cast<std::uint16_t>(fills_up - 1)), 1);
    EXPECT_EQ(checksum_with(static_cast<std::uint16_t>(fills_up + 1)), 0xfffe);
    for (std::uint32_t word = 0; word <= 0xffff; word += 251) {
        EXPECT_NE(checksum_with(static_cast<std::uint16_t>(word)), 0xffff);
    }
}

// ---- Larger than the other leg takes

TEST_P(Translate, SegmentsAboveTheMssAreToBeSplit) {
    out_leg().peer_mss = 1'000;
    expect_mirrored(segment(1'000));
    EXPECT_EQ(pair().outcome.split_bytes, 0U);
    expect_mirrored(segment(1'001));
    EXPECT_EQ(pair().outcome.split_bytes, 1'000U);
    EXPECT_EQ(pair().outcome.payload_bytes, 1'001U);
}

TEST_P(Translate, OptionsCountTowardsTheMss) {
    out_leg().peer_mss = 1'000;
    out_leg().timestamps = true;
    Segment given = segment(989);
    Segment expected = pair().mirrored(in(), given);
    expected.options = test::usual_timestamps(out_leg().own_timestamp, out_leg().peer_timestamp);
    expect_spliced(given, expected);
    EXPECT_EQ(pair().outcome.split_bytes, 988U);
}

TEST_P(Translate, BareAcknowledgementsAreNeverTooLarge) {
    out_leg().peer_mss = 8;
    out_leg().timestamps = true;
    ASSERT_EQ(pair().pass(in(), segment()), PacketReason::spliced);
    EXPECT_EQ(pair().outcome.split_bytes, 0U);
    expect_dropped(segment(1), PacketReason::too_big);
}

}  // namespace
}  // namespace bore::packet
