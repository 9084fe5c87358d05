// Segments that the slow path builds or rewrites, read again by the tests' own reader with its own
// checksum: tables of cases first, then random segments through every rewriter.
#include "dataplane/packet/segment.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>

#include "tests/packet/frames.hpp"

namespace bore::packet::test {
namespace {

constexpr std::uint8_t option_mss = 2;

FlowKey leg_v4() {
    return {.peer_address = ipv4(198, 51, 100, 7),
            .own_address = ipv4(192, 0, 2, 1),
            .peer_port = 40'001,
            .own_port = 20'000};
}
FlowKey leg_v6() {
    return {.peer_address = ipv6(7, 0x99),
            .own_address = ipv6(1, 1),
            .peer_port = 40'001,
            .own_port = 20'000};
}

Adjacency neighbour(bool v6, bool tagged) {
    Adjacency adjacency;
    Bytes header = text("\x02\x11\x22\x33\x44\x55\x02\x66\x77\x88\x99\x10");
    if (tagged) {
        header = join({header, text(std::string_view("\x81\x00\x00\x2a", 4))});
    }
    header = join({header, v6 ? text("\x86\xdd") : text(std::string_view("\x08\x00", 2))});
    std::ranges::copy(header, adjacency.header.begin());
    adjacency.header_bytes = static_cast<std::uint8_t>(header.size());
    return adjacency;
}

Segment read_whole(std::span<const std::byte> frame) {
    std::string why;
    const std::optional<Segment> segment = read(frame, &why);
    EXPECT_TRUE(segment.has_value()) << why;
    return segment.value_or(Segment{});
}

TcpView view_of(std::span<const std::byte> frame) {
    TcpView view;
    EXPECT_EQ(parse(frame, view), PacketReason::spliced);
    return view;
}

Bytes option(std::uint8_t kind, std::string_view content) {
    return join({text(std::string{static_cast<char>(kind), static_cast<char>(content.size() + 2)}),
                 text(content)});
}
Bytes mss(std::uint16_t bytes) {
    return option(option_mss,
                  std::string{static_cast<char>(bytes >> 8U), static_cast<char>(bytes)});
}

Segment syn(Bytes options) {
    Segment segment = segment_from_peer(leg_v4());
    segment.flags = tcp_syn;
    segment.sequence = 0xfffffff0;
    segment.acknowledgement = 0;
    segment.options = std::move(options);
    return segment;
}

// ---- Building

TEST(SegmentTest, BuildsAcknowledgementsOfBothFamiliesWithAndWithoutTagAndTimestamps) {
    for (const bool v6 : {false, true}) {
        for (const bool tagged : {false, true}) {
            for (const bool stamped : {false, true}) {
                SCOPED_TRACE(std::to_string(v6) + std::to_string(tagged) + std::to_string(stamped));
                const FlowKey leg = v6 ? leg_v6() : leg_v4();
                SegmentFields fields{.sequence = 0x80000001,
                                     .acknowledgement = 0xfffffffe,
                                     .window = 0x1234,
                                     .timestamps = std::nullopt};
                if (stamped) {
                    fields.timestamps = SegmentTimestamps{.value = 77, .echo = 0xdeadbeef};
                }
                std::array<std::byte, max_built_segment_bytes> room{};
                const std::size_t length =
                    build_acknowledgement(room, neighbour(v6, tagged), leg, fields);
                const Segment segment = read_whole(std::span(room).first(length));
                EXPECT_EQ(segment.source, leg.own_address);
                EXPECT_EQ(segment.destination, leg.peer_address);
                EXPECT_EQ(segment.source_port, leg.own_port);
                EXPECT_EQ(segment.destination_port, leg.peer_port);
                EXPECT_EQ(segment.vlan, tagged ? std::optional<std::uint16_t>(42) : std::nullopt);
                EXPECT_EQ(segment.destination_mac[5], 0x55);
                EXPECT_EQ(segment.source_mac[5], 0x10);
                EXPECT_EQ(segment.flags, tcp_ack);
                EXPECT_EQ(segment.sequence, fields.sequence);
                EXPECT_EQ(segment.acknowledgement, fields.acknowledgement);
                EXPECT_EQ(segment.window, fields.window);
                EXPECT_EQ(segment.options, stamped ? usual_timestamps(77, 0xdeadbeef) : Bytes{});
                EXPECT_TRUE(segment.payload.empty());
                EXPECT_EQ(segment.padding_bytes, 0U);
                EXPECT_EQ(segment.hop_limit, 64);
                if (!v6) {
                    EXPECT_EQ(segment.fragment, 0x4000);
                }
            }
        }
    }
}

TEST(SegmentTest, AResetCarriesAnAcknowledgement) {
    std::array<std::byte, max_built_segment_bytes> room{};
    const std::size_t length =
        build_reset(room, neighbour(false, false), leg_v4(),
                    {.sequence = 5, .acknowledgement = 6, .window = 0, .timestamps = std::nullopt});
    const Segment segment = read_whole(std::span(room).first(length));
    EXPECT_EQ(segment.flags, tcp_rst | tcp_ack);
    EXPECT_EQ(segment.sequence, 5U);
    EXPECT_EQ(segment.acknowledgement, 6U);
    EXPECT_EQ(length, 54U);
}

// ---- Stripping

TEST(SegmentTest, StrippingLeavesTheAcknowledgementAlone) {
    for (const std::size_t payload_bytes : {0U, 1U, 2U, 999U, 1'460U}) {
        for (const bool v6 : {false, true}) {
            SCOPED_TRACE(payload_bytes);
            Segment segment = segment_from_peer(v6 ? leg_v6() : leg_v4());
            segment.sequence = 1'000;
            segment.acknowledgement = 2'000;
            segment.flags = tcp_ack | tcp_psh | tcp_fin;
            segment.options = usual_timestamps(1, 2);
            segment.payload = stream_bytes(3, payload_bytes);
            segment.padding_bytes = 5;
            const Bytes frame = build(segment);
            std::array<std::byte, 128> room{};
            const std::size_t length = strip_payload(frame, view_of(frame), room);
            const Segment stripped = read_whole(std::span(room).first(length));
            EXPECT_EQ(stripped.flags, tcp_ack);
            EXPECT_TRUE(stripped.payload.empty());
            EXPECT_EQ(stripped.padding_bytes, 0U);
            EXPECT_EQ(stripped.options, segment.options);
            EXPECT_EQ(stripped.sequence, 1'000U);
            EXPECT_EQ(stripped.acknowledgement, 2'000U);
            EXPECT_EQ(stripped.window, segment.window);
            EXPECT_EQ(stripped.source, segment.source);
            EXPECT_EQ(stripped.source_mac, segment.source_mac);
        }
    }
}

TEST(SegmentTest, StrippingForgetsTheUrgentMark) {
    Segment segment = segment_from_peer(leg_v4());
    segment.flags = tcp_ack | tcp_urg;
    segment.urgent_pointer = 9;
    segment.payload = text("urgent bytes");
    const Bytes frame = build(segment);
    std::array<std::byte, 128> room{};
    const std::size_t length = strip_payload(frame, view_of(frame), room);
    const Segment stripped = read_whole(std::span(room).first(length));
    EXPECT_EQ(stripped.flags, tcp_ack);
    EXPECT_EQ(stripped.urgent_pointer, 0);
}

TEST(SegmentTest, AWrongChecksumStaysWrong) {
    Segment segment = segment_from_peer(leg_v4());
    segment.payload = text("bytes that were damaged on the way");
    segment.checksum_error = 0x0400;
    const Bytes frame = build(segment);
    std::array<std::byte, 128> room{};
    const std::size_t length = strip_payload(frame, view_of(frame), room);
    EXPECT_NE(checksum_complaint(std::span(room).first(length)).find("TCP checksum"),
              std::string::npos);
}

// ---- SYN

TEST(SegmentTest, AnOrdinarySynPassesUnchanged) {
    const Segment segment =
        syn(join({mss(1'460), option(4, ""), timestamps(5, 0), nops(1), option(3, "\x07")}));
    Bytes frame = build(segment);
    const Bytes before = frame;
    const SynReport report = sanitize_syn(frame, view_of(frame));
    EXPECT_EQ(frame, before);
    EXPECT_EQ(report.length_bytes, frame.size());
    EXPECT_FALSE(report.asked_for_ecn || report.asked_for_fast_open || report.asked_for_multipath ||
                 report.is_signed || report.has_malformed_options);
}

struct SynCase {
    std::string name;
    Bytes options;
    std::uint8_t flags;
    std::uint8_t reserved_flags;
    std::size_t payload_bytes;
    bool ecn, fast_open, multipath;
    Bytes options_after;
};

TEST(SegmentTest, ASynLosesWhatTwoLegsWouldHaveToAgreeOn) {
    const Bytes cookie = option(34, "cookie!!");
    const Bytes multipath = option(30, std::string_view("\x01\x81keykeyke", 10));
    const std::array cases{
        SynCase{"ECN", mss(1'460), tcp_syn | tcp_ece | tcp_cwr, 0, 0, true, false, false,
                mss(1'460)},
        SynCase{"accurate ECN", mss(1'460), tcp_syn | tcp_ece | tcp_cwr, 1, 0, true, false, false,
                mss(1'460)},
        SynCase{"fast open with data", join({mss(1'460), cookie, nops(2)}), tcp_syn, 0, 333, false,
                true, false, join({mss(1'460), nops(12)})},
        SynCase{"fast open, request", join({nops(2), option(34, "")}), tcp_syn, 0, 0, false, true,
                false, nops(4)},
        SynCase{"fast open, experimental", join({option(254, "\xf9\x89"), mss(1'000)}), tcp_syn, 0,
                1, false, true, false, join({nops(4), mss(1'000)})},
        SynCase{"another experiment", option(254, "\xe2\xd4\xc3\xd9"), tcp_syn, 0, 0, false, false,
                false, option(254, "\xe2\xd4\xc3\xd9")},
        SynCase{"multipath", join({mss(1'460), multipath}), tcp_syn, 0, 0, false, false, true,
                join({mss(1'460), nops(12)})},
        // An option at an odd place: its bytes stand in two words of the checksum.
        SynCase{"odd place", join({nops(1), multipath, nops(1), option(34, "")}), tcp_syn, 0, 7,
                false, true, true, nops(16)},
        SynCase{"payload alone", mss(1'460), tcp_syn, 0, 100, false, false, false, mss(1'460)},
    };
    for (const SynCase& one : cases) {
        SCOPED_TRACE(one.name);
        Segment segment = syn(one.options);
        segment.flags = one.flags;
        segment.reserved_flags = one.reserved_flags;
        segment.payload = stream_bytes(0, one.payload_bytes);
        Bytes frame = build(segment);
        const SynReport report = sanitize_syn(frame, view_of(frame));
        EXPECT_EQ(report.asked_for_ecn, one.ecn);
        EXPECT_EQ(report.asked_for_fast_open, one.fast_open);
        EXPECT_EQ(report.asked_for_multipath, one.multipath);
        EXPECT_FALSE(report.is_signed);
        const Segment after = read_whole(std::span(frame).first(report.length_bytes));
        EXPECT_EQ(after.flags, tcp_syn);
        EXPECT_EQ(after.reserved_flags, 0);
        EXPECT_TRUE(after.payload.empty());
        // build() pads with zero bytes.
        Bytes expected = one.options_after;
        expected.resize((expected.size() + 3) / 4 * 4);
        EXPECT_EQ(after.options, expected);
        EXPECT_EQ(after.sequence, segment.sequence);
    }
}

TEST(SegmentTest, ASignedSynIsLeftToTheKernel) {
    for (const std::uint8_t kind : {std::uint8_t{19}, std::uint8_t{29}}) {
        Segment segment = syn(join({option(kind, "0123456789abcdef"), option(34, "")}));
        segment.flags = tcp_syn | tcp_ece | tcp_cwr;
        segment.payload = text("data");
        Bytes frame = build(segment);
        const Bytes before = frame;
        const SynReport report = sanitize_syn(frame, view_of(frame));
        EXPECT_TRUE(report.is_signed);
        EXPECT_TRUE(report.asked_for_fast_open);
        EXPECT_EQ(frame, before);
        EXPECT_EQ(report.length_bytes, frame.size());
    }
}

TEST(SegmentTest, MalformedOptionsOfASynAreReportedAndTheRestIsDone) {
    Segment segment = syn(join({option(34, ""), text("\x02\x09")}));
    segment.flags = tcp_syn | tcp_ece;
    Bytes frame = build(segment);
    const SynReport report = sanitize_syn(frame, view_of(frame));
    EXPECT_TRUE(report.has_malformed_options);
    EXPECT_TRUE(report.asked_for_fast_open);
    const Segment after = read_whole(std::span(frame).first(report.length_bytes));
    EXPECT_EQ(after.flags, tcp_syn);
    EXPECT_EQ(after.options, join({nops(2), text("\x02\x09")}));
}

// ---- MSS

TEST(SegmentTest, TheMssIsLoweredNeverRaised) {
    struct Case {
        Bytes options;
        std::uint16_t most;
        bool lowered;
        Bytes after;
    };
    const std::array cases{
        Case{mss(1'460), 1'448, true, mss(1'448)},
        Case{mss(1'448), 1'448, false, mss(1'448)},
        Case{mss(536), 1'448, false, mss(536)},
        Case{join({nops(1), mss(1'460), nops(3)}), 1'400, true,
             join({nops(1), mss(1'400), nops(3)})},
        Case{option(4, ""), 1'400, false, option(4, "")},
        Case{option(2, "\x05"), 100, false, option(2, "\x05")},  // not an MSS option by its length
        Case{Bytes{}, 1'400, false, Bytes{}},
    };
    for (const Case& one : cases) {
        Segment segment = segment_to_peer(leg_v6());
        segment.flags = tcp_syn | tcp_ack;
        segment.options = one.options;
        Bytes frame = build(segment);
        EXPECT_EQ(clamp_mss(frame, view_of(frame), one.most), one.lowered);
        Bytes expected = one.after;
        expected.resize((expected.size() + 3) / 4 * 4);
        EXPECT_EQ(read_whole(frame).options, expected);
    }
}

// ---- Anything

Segment random_segment(std::mt19937& random) {
    const auto below = [&random](std::uint32_t bound) { return random() % bound; };
    Segment segment = segment_from_peer(below(2) == 0 ? leg_v4() : leg_v6());
    if (below(3) == 0) {
        segment.vlan = static_cast<std::uint16_t>(random());
    }
    segment.sequence = static_cast<std::uint32_t>(random());
    segment.acknowledgement = static_cast<std::uint32_t>(random());
    segment.flags = static_cast<std::uint8_t>(random());
    segment.reserved_flags = static_cast<std::uint8_t>(below(16));
    segment.window = static_cast<std::uint16_t>(random());
    constexpr std::array<std::uint8_t, 10> kinds{0, 1, 2, 4, 5, 8, 19, 30, 34, 254};
    segment.options.resize(below(41));
    for (std::byte& byte : segment.options) {
        byte = static_cast<std::byte>(below(2) == 0 ? kinds[below(kinds.size())] : below(13));
    }
    segment.payload = stream_bytes(segment.sequence, below(300));
    segment.padding_bytes = below(8);
    return segment;
}

TEST(SegmentTest, WhateverComesChecksumsStayRight) {
    constexpr std::uint32_t seed = 20'261'121;
    std::mt19937 random(seed);
    std::uint32_t sanitized = 0;
    std::uint32_t lowered = 0;
    for (int round = 0; round < 20'000; ++round) {
        const Segment segment = random_segment(random);
        Bytes frame = build(segment);
        const TcpView view = view_of(frame);
        Bytes room(view.payload_offset);
        ASSERT_EQ(strip_payload(frame, view, room), room.size());
        ASSERT_EQ(checksum_complaint(room), "") << "seed " << seed << " round " << round;
        lowered += static_cast<std::uint32_t>(clamp_mss(frame, view, 700));
        ASSERT_EQ(checksum_complaint(frame), "") << "seed " << seed << " round " << round;
        const SynReport report = sanitize_syn(frame, view);
        sanitized += static_cast<std::uint32_t>(report.asked_for_fast_open && !report.is_signed);
        frame.resize(report.length_bytes);
        ASSERT_EQ(checksum_complaint(frame), "") << "seed " << seed << " round " << round;
    }
    EXPECT_GT(sanitized, 100U);
    EXPECT_GT(lowered, 10U);
}

}  // namespace
}  // namespace bore::packet::test
