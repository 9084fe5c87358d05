// Frames in, view or reason out.
#include "dataplane/packet/parse.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <ostream>
#include <random>

#include "tests/packet/frames.hpp"

namespace bore::packet {
namespace {

using test::Bytes;
using test::Segment;

Segment segment4() {
    Segment segment;
    segment.source = test::ipv4(192, 0, 2, 1);
    segment.destination = test::ipv4(198, 51, 100, 2);
    segment.source_port = 40'000;
    segment.destination_port = 7'835;
    segment.sequence = 0x0102'0304;
    segment.acknowledgement = 0xf1f2'f3f4;
    segment.window = 0xabcd;
    segment.flags = tcp_ack | tcp_psh;
    segment.payload = test::text("payload");
    return segment;
}

Segment segment6() {
    Segment segment = segment4();
    segment.source = test::ipv6(1, 1);
    segment.destination = test::ipv6(2, 2);
    return segment;
}

// ---- Frames that are accepted

struct Accepted {
    std::string name;
    Segment segment;
    std::size_t ip_offset;
    std::size_t tcp_offset;
};
std::ostream& operator<<(std::ostream& to, const Accepted& accepted) {
    return to << accepted.name;
}

std::vector<Accepted> accepted_frames() {
    std::vector<Accepted> frames{{"v4", segment4(), 14, 34}, {"v6", segment6(), 14, 54}};
    for (const bool v6 : {false, true}) {
        Segment tagged = v6 ? segment6() : segment4();
        tagged.vlan = 0x2064;
        frames.push_back({v6 ? "v6_tag" : "v4_tag", tagged, 18, v6 ? 58U : 38U});
        tagged.vlan_ethertype = 0x88a8;
        frames.push_back({v6 ? "v6_service_tag" : "v4_service_tag", tagged, 18, v6 ? 58U : 38U});
        Segment padded = v6 ? segment6() : segment4();
        padded.payload.clear();
        padded.padding_bytes = 6;
        frames.push_back({v6 ? "v6_padded" : "v4_padded", padded, 14, v6 ? 54U : 34U});
        Segment options = v6 ? segment6() : segment4();
        options.options = test::usual_timestamps(1, 2);
        frames.push_back({v6 ? "v6_options" : "v4_options", options, 14, v6 ? 54U : 34U});
        Segment full = v6 ? segment6() : segment4();
        full.options = test::nops(40);
        full.payload = test::stream_bytes(0, 9'000);
        frames.push_back({v6 ? "v6_full" : "v4_full", full, 14, v6 ? 54U : 34U});
    }
    return frames;
}

class Accept : public ::testing::TestWithParam<Accepted> {};

TEST_P(Accept, EveryFieldIsReadAndPaddingIgnored) {
    const Accepted& accepted = GetParam();
    const Segment& segment = accepted.segment;
    const Bytes frame = test::build(segment);
    for (const auto parser : {&parse, &parse_usual}) {
        TcpView view;
        ASSERT_EQ(parser(frame, view), PacketReason::spliced);
        EXPECT_EQ(view.sequence, segment.sequence);
        EXPECT_EQ(view.acknowledgement, segment.acknowledgement);
        EXPECT_EQ(view.source_port, segment.source_port);
        EXPECT_EQ(view.destination_port, segment.destination_port);
        EXPECT_EQ(view.window, segment.window);
        EXPECT_EQ(view.flags, segment.flags);
        EXPECT_EQ(view.payload_bytes, segment.payload.size());
        EXPECT_EQ(view.ip_offset, accepted.ip_offset);
        EXPECT_EQ(view.tcp_offset, accepted.tcp_offset);
        EXPECT_EQ(view.payload_offset, accepted.tcp_offset + 20 + segment.options.size());
        EXPECT_EQ(view.end_offset() + segment.padding_bytes, frame.size());
        EXPECT_EQ(view.v6, !FlowKey{.peer_address = segment.source}.is_v4());

        const FlowKey key = key_of(view, frame);
        EXPECT_EQ(key.peer_address, segment.source);
        EXPECT_EQ(key.own_address, segment.destination);
        EXPECT_EQ(key.peer_port, segment.source_port);
        EXPECT_EQ(key.own_port, segment.destination_port);
        const FlowKey reversed = reversed_key_of(view, frame);
        EXPECT_EQ(reversed.peer_address, segment.destination);
        EXPECT_EQ(reversed.own_address, segment.source);
        EXPECT_EQ(reversed.peer_port, segment.destination_port);
        EXPECT_EQ(reversed.own_port, segment.source_port);
    }
}

TEST_P(Accept, EveryShorterFrameIsTruncated) {
    Segment segment = GetParam().segment;
    segment.padding_bytes = 0;
    const Bytes whole = test::build(segment);
    const std::size_t step = whole.size() > 2'000 ? 37 : 1;
    for (std::size_t size = 0; size < whole.size(); size += step) {
        const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        TcpView view;
        ASSERT_EQ(parse(cut, view), PacketReason::truncated) << size << " bytes";
        ASSERT_EQ(parse_usual(cut, view), PacketReason::truncated) << size << " bytes";
    }
}

INSTANTIATE_TEST_SUITE_P(Frames, Accept, ::testing::ValuesIn(accepted_frames()),
                         [](const auto& param_info) { return param_info.param.name; });

// ---- Frames that are not

struct Refused {
    std::string name;
    bool v6;
    std::function<void(Segment&)> change;
    std::function<void(Bytes&)> damage;
    PacketReason reason;
};
std::ostream& operator<<(std::ostream& to, const Refused& refused) {
    return to << refused.name;
}

std::function<void(Bytes&)> set8(std::size_t at, std::uint8_t value) {
    return [at, value](Bytes& frame) { store8(frame.data() + at, value); };
}
std::function<void(Bytes&)> set16(std::size_t at, std::uint16_t value) {
    return [at, value](Bytes& frame) { store16(frame.data() + at, value); };
}
// An IPv4 address in IPv6's form.
std::function<void(Bytes&)> map_address(std::size_t at) {
    return [at](Bytes& frame) {
        const auto mapped = test::ipv4(192, 0, 2, 1);
        std::memcpy(frame.data() + at, mapped.data(), mapped.size());
    };
}
std::function<void(Segment&)> protocol(std::uint8_t value) {
    return [value](Segment& segment) { segment.protocol = value; };
}

const std::vector<Refused>& refused_frames() {
    const auto same = [](Segment&) {};
    const auto whole = [](Bytes&) {};
    static const std::vector<Refused> frames{
        {"arp", false, same, set16(12, 0x0806), PacketReason::not_tcp},
        {"lldp", false, same, set16(12, 0x88cc), PacketReason::ethertype},
        {"length_instead_of_type", false, same, set16(12, 46), PacketReason::ethertype},
        {"two_tags", false, [](Segment& segment) { segment.vlan = 1; }, set16(16, 0x8100),
         PacketReason::ethertype},
        {"tagged_arp", false, [](Segment& segment) { segment.vlan = 1; }, set16(16, 0x0806),
         PacketReason::not_tcp},
        {"udp", false, protocol(17), whole, PacketReason::not_tcp},
        {"icmp", false, protocol(1), whole, PacketReason::not_tcp},
        {"v4_says_v6", false, same, set8(14, 0x65), PacketReason::bad_header},
        {"v4_short_header", false, same, set8(14, 0x44), PacketReason::bad_header},
        {"v4_options", false, [](Segment& segment) { segment.ip_options = test::nops(4); }, whole,
         PacketReason::ip_options},
        {"v4_total_below_header", false, same, set16(16, 19), PacketReason::bad_header},
        {"v4_total_beyond_frame", false, same, set16(16, 48), PacketReason::truncated},
        {"v4_total_cuts_tcp", false, same, set16(16, 39), PacketReason::truncated},
        {"first_fragment", false, [](Segment& segment) { segment.fragment = 0x2000; }, whole,
         PacketReason::fragment},
        {"later_fragment", false, [](Segment& segment) { segment.fragment = 0x0001; }, whole,
         PacketReason::fragment},
        {"data_offset_below_header", false, same, set8(46, 0x40), PacketReason::bad_header},
        {"data_offset_beyond_packet", false, same, set8(46, 0xf0), PacketReason::truncated},
        {"v6_says_v4", true, same, set8(14, 0x45), PacketReason::bad_header},
        {"v6_length_beyond_frame", true, same, set16(18, 28), PacketReason::truncated},
        {"v6_length_cuts_tcp", true, same, set16(18, 19), PacketReason::truncated},
        {"v6_data_offset_below_header", true, same, set8(66, 0x40), PacketReason::bad_header},
        {"v6_data_offset_beyond_packet", true, same, set8(66, 0xf0), PacketReason::truncated},
        {"v6_mapped_source", true, same, map_address(22), PacketReason::bad_header},
        {"v6_mapped_destination", true, same, map_address(38), PacketReason::bad_header},
        {"v6_mapped_in_a_tagged_frame", true, [](Segment& segment) { segment.vlan = 1; },
         map_address(26), PacketReason::bad_header},
        {"v6_mapped_udp", true, protocol(17), map_address(22), PacketReason::bad_header},
        {"v6_hop_by_hop", true, protocol(0), whole, PacketReason::ip_extension},
        {"v6_routing", true, protocol(43), whole, PacketReason::ip_extension},
        {"v6_fragment", true, protocol(44), whole, PacketReason::fragment},
        {"v6_authentication", true, protocol(51), whole, PacketReason::ip_extension},
        {"v6_destination_options", true, protocol(60), whole, PacketReason::ip_extension},
        {"v6_neighbour_discovery", true, protocol(58), whole, PacketReason::not_tcp},
        {"v6_udp", true, protocol(17), whole, PacketReason::not_tcp},
    };
    return frames;
}

class Refuse : public ::testing::TestWithParam<Refused> {};

TEST_P(Refuse, WithItsReason) {
    const Refused& refused = GetParam();
    Segment segment = refused.v6 ? segment6() : segment4();
    refused.change(segment);
    Bytes frame = test::build(segment);
    refused.damage(frame);
    TcpView view;
    EXPECT_EQ(parse(frame, view), refused.reason);
    EXPECT_EQ(parse_usual(frame, view), refused.reason);
}

INSTANTIATE_TEST_SUITE_P(Frames, Refuse, ::testing::ValuesIn(refused_frames()),
                         [](const auto& param_info) { return param_info.param.name; });

// ---- Options

struct OptionCase {
    std::string name;
    Bytes options;
    PacketReason reason{PacketReason::spliced};
    // Offsets in the options; 0 = not there.
    std::size_t timestamp_at{0};
    std::size_t sack_at{0};
    std::size_t sack_blocks{0};
};
std::ostream& operator<<(std::ostream& to, const OptionCase& option) {
    return to << option.name;
}

Bytes raw(std::initializer_list<int> values) {
    Bytes bytes;
    for (const int value : values) {
        bytes.push_back(static_cast<std::byte>(value));
    }
    return bytes;
}

std::vector<OptionCase> option_cases() {
    const Bytes one_block = test::sack({{1, 2}});
    const Bytes stamps = test::timestamps(3, 4);
    const auto bad = PacketReason::bad_options;
    return {
        {"none", {}},
        {"nops", test::nops(8)},
        {"usual", test::usual_timestamps(3, 4), PacketReason::spliced, 4, 0, 0},
        {"stamps_first", test::join({stamps, test::nops(2)}), PacketReason::spliced, 2, 0, 0},
        {"stamps_at_odd_place", test::join({test::nops(1), stamps, test::nops(1)}),
         PacketReason::spliced, 3, 0, 0},
        {"sack", test::join({test::nops(2), one_block}), PacketReason::spliced, 0, 4, 1},
        {"sack_four", test::join({test::nops(2), test::sack({{1, 2}, {3, 4}, {5, 6}, {7, 8}})}),
         PacketReason::spliced, 0, 4, 4},
        {"both", test::join({test::nops(2), stamps, test::nops(2), one_block}),
         PacketReason::spliced, 4, 16, 1},
        {"unknown_kind", test::join({raw({253, 6, 1, 2, 3, 4}), stamps}), PacketReason::spliced, 8,
         0, 0},
        {"nothing_behind_the_end", test::join({raw({0}), raw({8, 99, 255})})},
        {"length_zero", raw({8, 0, 1, 1}), bad},
        {"length_one", raw({253, 1, 1, 1}), bad},
        {"length_missing", raw({1, 1, 1, 8}), bad},
        {"length_leaves_header", raw({253, 5, 1, 1}), bad},
        {"stamps_too_short", raw({8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), bad},
        {"stamps_too_long", raw({8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), bad},
        {"stamps_twice", test::join({stamps, stamps}), bad},
        {"stamps_leave_header", raw({1, 1, 1, 1, 8, 10, 0, 0}), bad},
        {"sack_empty", raw({5, 2, 1, 1}), bad},
        {"sack_half_a_block", raw({5, 6, 0, 0, 0, 0, 1, 1}), bad},
        {"sack_twice", test::join({one_block, one_block}), bad},
    };
}

class Options : public ::testing::TestWithParam<OptionCase> {};

TEST_P(Options, AreFoundOrRefused) {
    const OptionCase& option = GetParam();
    for (const bool v6 : {false, true}) {
        Segment segment = v6 ? segment6() : segment4();
        segment.options = option.options;
        const Bytes frame = test::build(segment);
        TcpView view;
        ASSERT_EQ(parse(frame, view), PacketReason::spliced);
        ASSERT_EQ(find_options(frame, view), option.reason);
        if (option.reason != PacketReason::spliced) {
            continue;
        }
        const std::size_t start = view.tcp_offset + std::size_t{20};
        EXPECT_EQ(view.timestamp_offset,
                  option.timestamp_at == 0 ? 0 : start + option.timestamp_at);
        EXPECT_EQ(view.sack_offset, option.sack_at == 0 ? 0 : start + option.sack_at);
        EXPECT_EQ(view.sack_blocks, option.sack_blocks);
    }
}

INSTANTIATE_TEST_SUITE_P(Cases, Options, ::testing::ValuesIn(option_cases()),
                         [](const auto& param_info) { return param_info.param.name; });

// ---- Anything

TEST(Parse, RandomDamageNeverPointsOutsideTheFrame) {
    constexpr std::uint32_t seed = 20'261'121;
    std::mt19937 random(seed);
    std::size_t accepted = 0;
    for (int round = 0; round < 200'000; ++round) {
        Segment segment = random() % 2 == 0 ? segment4() : segment6();
        segment.options = test::stream_bytes(static_cast<std::uint32_t>(random()), random() % 41);
        segment.padding_bytes = random() % 8;
        Bytes frame = test::build(segment);
        for (auto count = random() % 4; count > 0; --count) {
            frame[random() % frame.size()] = static_cast<std::byte>(random());
        }
        frame.resize(frame.size() - random() % 3);
        TcpView view;
        TcpView usual;
        const PacketReason reason = parse(frame, view);
        ASSERT_EQ(parse_usual(frame, usual), reason) << "seed " << seed << " round " << round;
        if (reason != PacketReason::spliced) {
            continue;
        }
        ++accepted;
        ASSERT_LE(view.end_offset(), frame.size()) << "seed " << seed << " round " << round;
        ASSERT_EQ(usual.end_offset(), view.end_offset());
        ASSERT_GE(view.tcp_bytes(), 20U);
        if (find_options(frame, view) == PacketReason::spliced) {
            ASSERT_LE(view.timestamp_offset == 0 ? 0 : view.timestamp_offset + 8,
                      view.payload_offset);
            ASSERT_LE(view.sack_offset + view.sack_blocks * 8, view.payload_offset);
        }
    }
    EXPECT_GT(accepted, 50'000U);
}

}  // namespace
}  // namespace bore::packet
