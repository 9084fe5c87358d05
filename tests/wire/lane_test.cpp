// The fates of frames: how many, which order, when, and the same again by the same seed.
#include "tests/wire/lane.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace bore::wire {
namespace {

constexpr BufferIndex frame_count = 100'000;
const Parsed segment{Kind::tcp, 1};

// What came out of a lane, a frame a microsecond going in.
std::vector<BufferIndex> through(Lane& lane, BufferIndex count = frame_count) {
    std::vector<BufferIndex> out;
    for (BufferIndex index = 0; index < count; ++index) {
        (void)lane.push(index, segment, index * 1'000);
        lane.take_due(index * 1'000, 64, out);
    }
    while (lane.next_due() >= 0) {
        lane.take_due(lane.next_due(), 64, out);
    }
    return out;
}

TEST(Lane, WithoutImpairmentsEverythingPassesInOrder) {
    Lane lane({}, 0);
    const std::vector<BufferIndex> out = through(lane);
    ASSERT_EQ(out.size(), frame_count);
    EXPECT_TRUE(std::is_sorted(out.begin(), out.end()));
}

TEST(Lane, LosesItsShare) {
    Lane lane({.loss_percent = 5}, 0);
    EXPECT_NEAR(static_cast<double>(through(lane).size()), 0.95 * frame_count, 400);
    EXPECT_NEAR(static_cast<double>(lane.counters().lost), 0.05 * frame_count, 400);
}

TEST(Lane, DoublesItsShareAndLosesNothing) {
    Lane lane({.duplicate_percent = 1}, 0);
    const std::vector<BufferIndex> out = through(lane);
    std::map<BufferIndex, int> times;
    for (const BufferIndex each : out) {
        ++times[each];
    }
    EXPECT_EQ(times.size(), frame_count);
    EXPECT_EQ(out.size(), frame_count + lane.counters().duplicated);
    EXPECT_NEAR(static_cast<double>(lane.counters().duplicated), 0.01 * frame_count, 200);
}

TEST(Lane, ReordersItsShareWithinBounds) {
    Lane lane({.reorder_percent = 1}, 0);
    std::vector<BufferIndex> out = through(lane);
    ASSERT_EQ(out.size(), frame_count);
    EXPECT_NEAR(static_cast<double>(lane.counters().reordered), 0.01 * frame_count, 200);
    std::uint64_t late = 0;
    for (std::size_t index = 1; index < out.size(); ++index) {
        late += out[index] < out[index - 1] ? 1U : 0U;
    }
    EXPECT_GT(late, lane.counters().reordered / 2);
    for (std::size_t index = 0; index < out.size(); ++index) {
        // Others that wait themselves do not count as overtakers: a little more than the bound.
        EXPECT_LT(std::abs(static_cast<long>(out[index]) - static_cast<long>(index)), 20);
    }
    std::sort(out.begin(), out.end());
    std::vector<BufferIndex> all(frame_count);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(out, all);
}

TEST(Lane, AnOvertakenFrameLeavesAtItsDeadlineWhenNobodyOvertakes) {
    Lane lane({.reorder_percent = 100}, 0);
    EXPECT_EQ(lane.push(7, segment, 1'000), Lane::Fate::sent);
    EXPECT_EQ(lane.next_due(), 1'000 + max_overtaken_ns);
    std::vector<BufferIndex> out;
    lane.take_due(max_overtaken_ns, 64, out);
    EXPECT_TRUE(out.empty());
    lane.take_due(1'000 + max_overtaken_ns, 64, out);
    EXPECT_EQ(out, std::vector<BufferIndex>{7});
}

TEST(Lane, Delays) {
    Lane lane({.delay_ns = 10'000'000}, 0);
    (void)lane.push(1, segment, 5);
    (void)lane.push(2, {}, 6);
    std::vector<BufferIndex> out;
    lane.take_due(10'000'004, 64, out);
    EXPECT_TRUE(out.empty());
    EXPECT_EQ(lane.next_due(), 10'000'005);
    lane.take_due(10'000'005, 64, out);
    EXPECT_EQ(out, std::vector<BufferIndex>{1});
    lane.take_due(10'000'006, 64, out);
    EXPECT_EQ(out, (std::vector<BufferIndex>{1, 2}));
    EXPECT_EQ(lane.next_due(), -1);
}

TEST(Lane, WhatCouldNotBeSentComesFirstAgain) {
    Lane lane({}, 0);
    for (BufferIndex index = 0; index < 4; ++index) {
        (void)lane.push(index, segment, 0);
    }
    std::vector<BufferIndex> out;
    lane.take_due(0, 3, out);
    lane.give_back(std::span(out).subspan(1), 0);
    out.clear();
    lane.take_due(0, 64, out);
    EXPECT_EQ(out, (std::vector<BufferIndex>{1, 2, 3}));
}

TEST(Lane, TheSameSeedGivesTheSameFatesAndAnotherGivesOthers) {
    const auto run = [](std::uint64_t seed, std::uint64_t number) {
        Lane lane({.loss_percent = 1, .duplicate_percent = 1, .reorder_percent = 1, .seed = seed},
                  number);
        return through(lane, 10'000);
    };
    EXPECT_EQ(run(5, 0), run(5, 0));
    EXPECT_NE(run(5, 0), run(6, 0));
    EXPECT_NE(run(5, 0), run(5, 1));
}

TEST(Lane, OnlyTcpIsExposed) {
    Lane lane({.loss_percent = 100}, 0);
    EXPECT_EQ(lane.push(0, {}, 0), Lane::Fate::sent);
    EXPECT_EQ(lane.push(1, segment, 0), Lane::Fate::dropped);
}

TEST(Lane, DropsTheThirdSegmentOfEachHandshakeOnce) {
    Lane lane({.drop_handshake_ack = true}, 0);
    EXPECT_EQ(lane.push(0, {Kind::tcp_syn, 9}, 0), Lane::Fate::sent);
    EXPECT_EQ(lane.push(0, {Kind::tcp_bare_ack, 8}, 0), Lane::Fate::sent);  // another connection
    EXPECT_EQ(lane.push(0, {Kind::tcp_bare_ack, 9}, 0), Lane::Fate::dropped);
    EXPECT_EQ(lane.push(0, {Kind::tcp_bare_ack, 9}, 0), Lane::Fate::sent);
    EXPECT_EQ(lane.push(0, {Kind::tcp_syn, 9}, 0), Lane::Fate::sent);  // the tuple again
    EXPECT_EQ(lane.push(0, {Kind::tcp, 9}, 0), Lane::Fate::sent);      // data carries the ACK
    EXPECT_EQ(lane.push(0, {Kind::tcp_bare_ack, 9}, 0), Lane::Fate::sent);
}

std::vector<std::uint8_t> ipv4(std::uint8_t flags, std::size_t payload_bytes, bool tagged) {
    std::vector<std::uint8_t> frame(12, 0);
    if (tagged) {
        frame.insert(frame.end(), {0x81, 0x00, 0x00, 0x05});
    }
    frame.insert(frame.end(),
                 {0x08, 0x00, 0x45, 0, 0,  static_cast<std::uint8_t>(40 + payload_bytes),
                  0,    0,    0,    0, 64, 6,
                  0,    0,    10,   0, 0,  1,
                  10,   0,    0,    2});
    frame.insert(frame.end(), {0, 80, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0});
    frame.resize(frame.size() + payload_bytes, 'x');
    return frame;
}

TEST(Parse, TellsWhatALaneNeeds) {
    for (const bool tagged : {false, true}) {
        EXPECT_EQ(parse(ipv4(0x02, 0, tagged)).kind, Kind::tcp_syn);
        EXPECT_EQ(parse(ipv4(0x12, 0, tagged)).kind, Kind::tcp);
        EXPECT_EQ(parse(ipv4(0x10, 0, tagged)).kind, Kind::tcp_bare_ack);
        EXPECT_EQ(parse(ipv4(0x18, 3, tagged)).kind, Kind::tcp);
        std::vector<std::uint8_t> padded = ipv4(0x10, 0, tagged);
        padded.resize(padded.size() + 6);
        EXPECT_EQ(parse(padded).kind, Kind::tcp_bare_ack);
        EXPECT_EQ(parse(padded).connection, parse(ipv4(0x18, 3, tagged)).connection);
    }
    std::vector<std::uint8_t> cut = ipv4(0x10, 0, false);
    while (!cut.empty()) {
        cut.pop_back();
        EXPECT_NE(parse(cut).kind, Kind::tcp_bare_ack);
    }
}

}  // namespace
}  // namespace bore::wire
