// The fixture of the translation's tests: a flow of each variant, seen from each leg.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "tests/packet/spliced_pair.hpp"

namespace bore::packet::test {

class TranslateTest : public ::testing::TestWithParam<std::tuple<Variant, abi::Leg>> {
  protected:
    TranslateTest() : state_(test::usual_state(variant())) {}

    static const Variant& variant() { return std::get<0>(GetParam()); }
    static abi::Leg in() { return std::get<1>(GetParam()); }
    static abi::Leg out() { return opposite(in()); }

    LegState& in_leg() { return state_.legs[static_cast<std::size_t>(in())]; }
    LegState& out_leg() { return state_.legs[static_cast<std::size_t>(out())]; }
    SplicedPair& pair() {
        if (!pair_.has_value()) {
            pair_.emplace(variant(), state_);
        }
        return *pair_;
    }
    Segment segment(std::size_t payload_bytes = 0) {
        Segment segment = pair().from(in());
        segment.payload = test::stream_bytes(0, payload_bytes);
        return segment;
    }
    // An acknowledgement of the peer opens its window.
    void open_window(abi::Leg peer, std::uint16_t window) {
        Segment acknowledgement = pair().from(peer);
        acknowledgement.window = window;
        ASSERT_EQ(pair().pass(peer, acknowledgement), PacketReason::spliced);
    }
    void expect_spliced(const Segment& given, const Segment& expected) {
        ASSERT_EQ(pair().pass(in(), given), PacketReason::spliced);
        std::string why;
        const auto got = test::read(pair().out, &why);
        ASSERT_TRUE(got.has_value()) << why;
        EXPECT_EQ(got->sequence, expected.sequence);
        EXPECT_EQ(got->acknowledgement, expected.acknowledgement);
        EXPECT_EQ(got->window, expected.window);
        EXPECT_EQ(got->flags, expected.flags);
        EXPECT_EQ(got->options, expected.options);
        EXPECT_EQ(got->payload, expected.payload);
        EXPECT_EQ(pair().out, test::build(expected));
        EXPECT_EQ(pair().out_port,
                  in() == abi::Leg::visitor ? test::client_port : test::visitor_port);
    }
    void expect_mirrored(const Segment& given) {
        expect_spliced(given, pair().mirrored(in(), given));
    }
    // Dropped, and the flow has not moved.
    void expect_dropped(const Segment& given, PacketReason reason) {
        const DirectionEntry& entry = pair().entry(in());
        const std::uint32_t next = entry.next_sequence;
        const std::uint32_t acknowledged = entry.acknowledged;
        const std::uint32_t edge = entry.window_edge;
        EXPECT_EQ(pair().pass(in(), given), reason);
        EXPECT_EQ(entry.next_sequence, next);
        EXPECT_EQ(entry.acknowledged, acknowledged);
        EXPECT_EQ(entry.window_edge, edge);
    }

    FlowState state_;

  private:
    std::optional<SplicedPair> pair_;
};

inline std::vector<Variant> variants() {
    return {
        {.name = "v4"},
        {.name = "v6", .v6 = true},
        {.name = "v4_tag_removed", .tagged_in = true},
        {.name = "v4_tag_added", .tagged_out = true},
        {.name = "v6_tags_changed", .v6 = true, .tagged_in = true, .tagged_out = true},
        {.name = "v4_numbers_wrap",
         .visitor_snd_nxt = 0xffff'ff00,
         .visitor_rcv_nxt = 0xffff'fff8,
         .client_snd_nxt = 0x7fff'fffc,
         .client_rcv_nxt = 0},
        {.name = "v6_numbers_wrap",
         .v6 = true,
         .visitor_snd_nxt = 0,
         .visitor_rcv_nxt = 0x7fff'ffff,
         .client_snd_nxt = 0xffff'ffff,
         .client_rcv_nxt = 0xffff'fffe},
    };
}

inline std::string name_of(const std::tuple<Variant, abi::Leg>& parameter) {
    return std::get<0>(parameter).name +
           (std::get<1>(parameter) == abi::Leg::visitor ? "_from_visitor" : "_from_client");
}

}  // namespace bore::packet::test
