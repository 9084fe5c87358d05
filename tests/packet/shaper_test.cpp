// The bandwidth limit of the packet path. First its rules one by one; then the rate over three
// simulated seconds, for senders that never slow down and for senders that behave like TCP: windows
// that grow until something is lost, over one worker and over several, alone and beside a reader of
// the stream engine.
#include "dataplane/packet/shaper.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "tests/packet/simulated_tcp.hpp"

namespace bore::packet::test {
namespace {

using abi::Leg;
using base::microsecond_ns;
using base::millisecond_ns;
using base::Nanoseconds;
using base::second_ns;
using Admit = Shaper::Admit;

constexpr std::uint64_t mbit = 125'000;  // bytes per second
constexpr std::uint32_t segment_bytes = 1'460;
constexpr Nanoseconds begin = 100 * second_ns;
constexpr Nanoseconds burst = 10 * millisecond_ns;
constexpr std::uint32_t tunnel = 3;

// Frames are told apart by their handle.
Frame numbered(std::uint64_t number) {
    Frame frame;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a handle that nobody follows
    frame.buffer = reinterpret_cast<void*>(static_cast<std::uintptr_t>(number));
    return frame;
}
std::uint64_t number_of(const Frame& frame) {
    return reinterpret_cast<std::uintptr_t>(frame.buffer);
}

class ShaperTest : public ::testing::Test {
  protected:
    void limit(std::uint64_t bytes_per_second) {
        tunnels_.change(tunnel, {.to_client_bytes_per_second = bytes_per_second});
    }
    Admit admit(std::uint64_t number, Nanoseconds now, std::uint32_t bytes = segment_bytes) {
        return shaper_.admit(numbered(number), tunnel, Leg::visitor, bytes, now);
    }
    std::vector<std::uint64_t> release(Nanoseconds now, std::size_t room = 10'000) {
        std::vector<Frame> frames(room);
        frames.resize(shaper_.release_due(now, frames));
        std::vector<std::uint64_t> numbers;
        for (const Frame& frame : frames) {
            numbers.push_back(number_of(frame));
        }
        return numbers;
    }
    abi::RateLimiter& bucket() { return tunnels_.entry(tunnel).limiters[0]; }
    // Paid off just now, with nothing saved up.
    void spend_burst(Nanoseconds now) {
        bucket().reset();
        bucket().charge(now, bucket().bytes_in(abi::RateLimiter::burst_ns), 0);
        ASSERT_EQ(bucket().ready_at(), now);
    }
    void empty() {
        std::array<Frame, 64> out;
        while (shaper_.abandon(out) > 0) {
        }
    }

    abi::TunnelTable tunnels_{16};
    Shaper shaper_{tunnels_, {.tunnel_count = 16, .slot_count = 4'096}};
};

TEST_F(ShaperTest, WithoutALimitEverythingGoesAtOnce) {
    for (std::uint64_t number = 0; number < 10'000; ++number) {
        ASSERT_EQ(admit(number, begin), Admit::send);
    }
    EXPECT_EQ(shaper_.next_due(), Shaper::never);
    EXPECT_EQ(bucket().queued_bytes(), 0U);
}

TEST_F(ShaperTest, WhatWaitsLeavesInOrderAndInTime) {
    limit(100 * mbit);
    spend_burst(begin);
    ASSERT_EQ(admit(1, begin), Admit::send);  // on credit: the bucket is just paid off
    for (std::uint64_t number = 2; number <= 5; ++number) {
        ASSERT_EQ(admit(number, begin), Admit::held);
    }
    EXPECT_EQ(bucket().queued_bytes(), 4 * segment_bytes);
    const Nanoseconds each = segment_bytes * second_ns / (100 * mbit);
    EXPECT_EQ(shaper_.next_due(), begin + each);
    EXPECT_TRUE(release(begin + each - 1).empty());
    EXPECT_EQ(release(begin + each), (std::vector<std::uint64_t>{2}));
    EXPECT_EQ(shaper_.next_due(), begin + 2 * each);
    // A segment with nothing but a FIN waits its turn as well.
    ASSERT_EQ(admit(6, begin + each, 0), Admit::held);
    EXPECT_EQ(release(begin + 3 * each), (std::vector<std::uint64_t>{3, 4}));
    EXPECT_EQ(release(begin + 4 * each), (std::vector<std::uint64_t>{5}));
    EXPECT_EQ(release(begin + 5 * each), (std::vector<std::uint64_t>{6}));
    EXPECT_EQ(shaper_.next_due(), Shaper::never);
    EXPECT_EQ(bucket().queued_bytes(), 0U);
}

TEST_F(ShaperTest, TheQueueIsTwentyMillisecondsOrThirtyTwoSegments) {
    for (const auto& [rate, expected] :
         {std::pair{mbit / 10, 4U}, std::pair{mbit / 2, 17U}, std::pair{1 * mbit, 32U},
          std::pair{19 * mbit, 32U}, std::pair{100 * mbit, 171U}, std::pair{400 * mbit, 684U}}) {
        limit(rate);
        spend_burst(begin);
        ASSERT_EQ(admit(1, begin), Admit::send);
        std::uint32_t held = 0;
        while (admit(2, begin) == Admit::held) {
            ++held;
        }
        EXPECT_EQ(held, expected) << rate;
        empty();
    }
}

TEST_F(ShaperTest, LargerFramesMayWaitInTheSameNumber) {
    limit(10 * mbit);
    spend_burst(begin);
    ASSERT_EQ(admit(1, begin, 8'948), Admit::send);
    std::uint32_t held = 0;
    while (admit(2, begin, 8'948) == Admit::held) {
        ++held;
    }
    EXPECT_EQ(held, 32U);
}

TEST_F(ShaperTest, ABurstAfterIdleTimeIsBounded) {
    for (const std::uint64_t rate : {1 * mbit, 100 * mbit, 1'000 * mbit}) {
        limit(rate);
        const Nanoseconds now = begin + 60 * second_ns;
        std::uint64_t sent = 0;
        while (admit(1, now) == Admit::send) {
            sent += segment_bytes;
        }
        EXPECT_LE(sent, bucket().bytes_in(burst) + segment_bytes);
        EXPECT_GE(sent, bucket().bytes_in(burst));
        // And what follows it is held to the rate.
        const std::size_t later = release(now + millisecond_ns).size();
        EXPECT_LE(later * segment_bytes, bucket().bytes_in(millisecond_ns) + segment_bytes);
        empty();
    }
}

TEST_F(ShaperTest, OneTunnelLeavesSlotsToTheOthers) {
    limit(1'000 * mbit);
    tunnels_.change(5, {.to_visitor_bytes_per_second = 1'000 * mbit});
    std::uint32_t held = 0;
    for (std::uint32_t round = 0; round < 10'000'000 / 64; ++round) {
        held += static_cast<std::uint32_t>(admit(1, begin, 64) == Admit::held);
    }
    EXPECT_EQ(held, 4'096 / Shaper::slot_share);
    held = 0;
    for (std::uint32_t round = 0; round < 10'000'000 / 64; ++round) {
        held += static_cast<std::uint32_t>(shaper_.admit(numbered(1), 5, Leg::client, 64, begin) ==
                                           Admit::held);
    }
    EXPECT_EQ(held, 4'096 / Shaper::slot_share);
}

TEST_F(ShaperTest, WhatFindsNoRoomInTheBurstStaysDue) {
    limit(100 * mbit);
    spend_burst(begin);
    ASSERT_EQ(admit(0, begin), Admit::send);
    for (std::uint64_t number = 1; number <= 50; ++number) {
        ASSERT_EQ(admit(number, begin), Admit::held);
    }
    const Nanoseconds late = begin + 8 * millisecond_ns;
    EXPECT_EQ(release(late, 32).size(), 32U);
    EXPECT_LE(shaper_.next_due(), late);
    EXPECT_EQ(release(late, 32).size(), 18U);
}

// ---- Changes

TEST_F(ShaperTest, ANewLimitHoldsForWhatWaitsAlready) {
    limit(1 * mbit);
    spend_burst(begin);
    ASSERT_EQ(admit(1, begin), Admit::send);
    for (std::uint64_t number = 2; number <= 11; ++number) {
        ASSERT_EQ(admit(number, begin), Admit::held);
    }
    limit(100 * mbit);
    EXPECT_EQ(release(begin + microsecond_ns).size(), 10U);  // the burst of the new rate
    EXPECT_EQ(shaper_.next_due(), Shaper::never);
}

TEST_F(ShaperTest, WithoutALimitNothingWaitsAnyLonger) {
    limit(1 * mbit);
    spend_burst(begin);
    (void)admit(1, begin);
    for (std::uint64_t number = 2; number <= 31; ++number) {
        ASSERT_EQ(admit(number, begin), Admit::held);
    }
    limit(0);
    EXPECT_EQ(release(begin).size(), 30U);
    EXPECT_EQ(admit(1, begin), Admit::send);
    EXPECT_EQ(bucket().queued_bytes(), 0U);
}

TEST_F(ShaperTest, AMuchLowerLimitDoesNotBlockTheTunnel) {
    limit(400 * mbit);
    spend_burst(begin);
    while (admit(1, begin) != Admit::drop) {
    }
    const std::uint32_t held = shaper_.held_frames();
    limit(1 * mbit);
    const std::size_t at_once = release(begin).size();
    EXPECT_GT(at_once, held - 3 * Shaper::min_queue_segments);
    // The rest leaves at the new rate: twice the new queue at most.
    EXPECT_TRUE(release(begin + 2 * microsecond_ns).empty());
    for (Nanoseconds now = begin; shaper_.held_frames() > 0; now += millisecond_ns) {
        (void)release(now);
        ASSERT_LT(now, begin + second_ns);
    }
}

TEST_F(ShaperTest, FramesOfATunnelThatEndsLeaveAndTheRowMayBeGivenOutAgain) {
    limit(1 * mbit);
    spend_burst(begin);
    while (admit(1, begin) != Admit::drop) {
    }
    const std::uint32_t held = shaper_.held_frames();
    // The next tunnel with this row: another limit, a fresh bucket.
    tunnels_.entry(tunnel).set({.to_client_bytes_per_second = 2 * mbit});
    bucket().reset();
    std::size_t left = 0;
    for (Nanoseconds now = begin; now < begin + second_ns; now += millisecond_ns) {
        left += release(now).size();
    }
    EXPECT_EQ(left, held);
    EXPECT_EQ(bucket().queued_bytes(), 0U);
}

TEST_F(ShaperTest, AWorkerThatStopsGetsAllItsFramesBack) {
    limit(1 * mbit);
    tunnels_.change(5, {.to_visitor_bytes_per_second = 1 * mbit});
    while (admit(1, begin) != Admit::drop) {
    }
    while (shaper_.admit(numbered(2), 5, Leg::client, 1'000, begin) != Admit::drop) {
    }
    std::array<Frame, 16> out;
    std::uint32_t left = shaper_.held_frames();
    ASSERT_GT(left, 64U);
    while (const std::size_t count = shaper_.abandon(out)) {
        left -= static_cast<std::uint32_t>(count);
    }
    EXPECT_EQ(left, 0U);
    EXPECT_EQ(shaper_.held_frames(), 0U);
    EXPECT_EQ(bucket().queued_bytes(), 0U);
    EXPECT_EQ(shaper_.next_due(), Shaper::never);
}

// ---- Against a model

// Random tunnels, sizes, limits and times against plain queues: every frame that was held comes out
// once, in its tunnel's order.
TEST(ShaperModelTest, EveryHeldFrameComesOutOnceAndInOrder) {
    constexpr std::uint32_t seed = 31'337;
    std::mt19937 random(seed);
    constexpr std::uint32_t tunnel_count = 8;
    abi::TunnelTable tunnels(tunnel_count);
    Shaper shaper(tunnels, {.tunnel_count = tunnel_count, .slot_count = 512});
    std::array<std::deque<std::uint64_t>, tunnel_count * 2> model;
    std::uint64_t number = 0;
    std::uint64_t dropped = 0;
    std::uint64_t released = 0;
    Nanoseconds now = begin;
    std::array<Frame, 32> out;
    for (int round = 0; round < 400'000; ++round) {
        now += random() % (20 * microsecond_ns);
        const std::uint32_t queue = random() % (tunnel_count * 2);
        if (random() % 1'000 == 0) {
            const std::uint64_t rate = random() % 5 == 0 ? 0 : (1 + random() % 200) * mbit;
            tunnels.change(queue / 2, {.to_client_bytes_per_second = rate,
                                       .to_visitor_bytes_per_second = rate / 2});
        }
        if (random() % 2 == 0) {
            // The queue in the upper bits of the handle.
            const std::uint64_t name = std::uint64_t{queue} << 48U | ++number;
            const Admit answer =
                shaper.admit(numbered(name), queue / 2, static_cast<Leg>(queue % 2),
                             static_cast<std::uint32_t>(random() % 1'460), now);
            if (answer == Admit::held) {
                model[queue].push_back(name);
            }
            ASSERT_TRUE(answer != Admit::send || model[queue].empty())
                << "overtaken, seed " << seed << " round " << round;
            dropped += static_cast<std::uint64_t>(answer == Admit::drop);
        } else {
            const std::size_t count = shaper.release_due(now, std::span(out).first(random() % 33));
            for (std::size_t index = 0; index < count; ++index) {
                const std::uint64_t name = number_of(out[index]);
                auto& waiting = model[name >> 48U];
                ASSERT_FALSE(waiting.empty()) << "seed " << seed << " round " << round;
                ASSERT_EQ(waiting.front(), name) << "seed " << seed << " round " << round;
                waiting.pop_front();
            }
            released += count;
        }
        std::size_t held = 0;
        for (const auto& waiting : model) {
            held += waiting.size();
        }
        ASSERT_EQ(shaper.held_frames(), held) << "seed " << seed << " round " << round;
    }
    EXPECT_GT(dropped, 1'000U);
    EXPECT_GT(released, 10'000U);
}

// ---- The rate over three seconds

constexpr std::array rates{1 * mbit, 100 * mbit, 1'000 * mbit};
constexpr double seconds = 3.0;

// Time of one turn of a worker's loop: what matters is that it is not a divisor of anything.
Nanoseconds turn_of(std::uint64_t rate) {
    return rate >= 1'000 * mbit ? 7'300 : rate >= 100 * mbit ? 23'100 : 91'700;
}

TEST(ShaperRateTest, ConstantBitRateAboveTheLimitLeavesAtTheLimit) {
    for (const std::uint64_t rate : rates) {
        for (const double load : {1.1, 2.0, 10.0}) {
            abi::TunnelTable tunnels(1);
            tunnels.change(0, {.to_visitor_bytes_per_second = rate});
            Shaper shaper(tunnels, {.tunnel_count = 1, .slot_count = 8'192});
            double offered = 0;
            std::uint64_t admitted = 0;
            std::uint64_t left = 0;
            std::array<Frame, 32> out;
            const Nanoseconds turn = turn_of(rate);
            for (Nanoseconds now = begin; now < begin + 3 * second_ns; now += turn) {
                offered += static_cast<double>(rate * turn) * load / second_ns;
                for (; offered >= segment_bytes; offered -= segment_bytes) {
                    left += static_cast<std::uint64_t>(shaper.admit(numbered(++admitted), 0,
                                                                    Leg::client, segment_bytes,
                                                                    now) == Admit::send);
                }
                left += shaper.release_due(now, out);
            }
            const double got = static_cast<double>(left * segment_bytes) / seconds;
            EXPECT_NEAR(got / static_cast<double>(rate), 1.0, 0.02) << rate << " load " << load;
        }
    }
}

TEST(ShaperRateTest, ConstantBitRateBelowTheLimitIsNotTouched) {
    for (const std::uint64_t rate : rates) {
        abi::TunnelTable tunnels(1);
        tunnels.change(0, {.to_visitor_bytes_per_second = rate});
        Shaper shaper(tunnels, {.tunnel_count = 1, .slot_count = 8'192});
        const Nanoseconds gap = segment_bytes * second_ns * 100 / 95 / rate;
        for (Nanoseconds now = begin; now < begin + 3 * second_ns; now += gap) {
            ASSERT_EQ(shaper.admit(numbered(1), 0, Leg::client, segment_bytes, now), Admit::send);
        }
    }
}

struct TcpCase {
    std::uint32_t flows, workers;
    Nanoseconds round_trip;
};

TEST(ShaperRateTest, TcpGetsTheLimit) {
    constexpr std::array cases{
        TcpCase{1, 1, 200 * microsecond_ns}, TcpCase{1, 1, 10 * millisecond_ns},
        TcpCase{8, 1, 2 * millisecond_ns},   TcpCase{8, 3, 200 * microsecond_ns},
        TcpCase{32, 2, 10 * millisecond_ns},
    };
    for (const std::uint64_t rate : rates) {
        for (const TcpCase& one : cases) {
            SimulatedTcp world({.bytes_per_second = rate,
                                .flow_count = one.flows,
                                .worker_count = one.workers,
                                .round_trip = one.round_trip,
                                .turn = turn_of(rate)});
            world.run(begin, 3 * second_ns);
            const double goodput = static_cast<double>(world.delivered_bytes()) / seconds;
            EXPECT_NEAR(goodput / static_cast<double>(rate), 1.0, 0.05)
                << rate / mbit << " Mbit/s, " << one.flows << " flows, " << one.workers
                << " workers, round trip " << one.round_trip / 1'000 << " us";
            for (std::uint32_t worker = 0; worker < one.workers; ++worker) {
                const auto bytes = static_cast<double>(world.delivered_bytes_of_worker(worker));
                EXPECT_GT(bytes / seconds / static_cast<double>(rate) * one.workers, 0.3)
                    << rate / mbit << " Mbit/s, " << one.flows << " flows, worker " << worker;
            }
            // TCP needs losses to know the rate, but not many. (At 1 Mbit/s
            // 32 flows have one segment each in the queue.)
            EXPECT_TRUE(rate == mbit || world.dropped_segments() * 10 < world.sent_segments())
                << rate / mbit << " Mbit/s, " << one.flows << " flows";
        }
    }
}

// A reader of the stream engine, as Pair does it: reads when the bucket is paid off, then waits
// for it, by a timer with ticks of one millisecond.
class StreamReader {
  public:
    StreamReader(abi::RateLimiter& bucket, std::uint32_t worker_index)
        : bucket_(bucket), worker_index_(worker_index) {}

    void turn(Nanoseconds now) {
        if (now < wakes_at_) {
            return;
        }
        if (bucket_.ready_at() <= now) {
            const std::size_t bytes = bucket_.read_size_bytes(1U << 20U);
            bucket_.charge(now, bytes, worker_index_);
            read_bytes_ += bytes;
        }
        Nanoseconds at = bucket_.ready_at();
        at += bucket_.last_reader() == worker_index_ ? millisecond_ns : 0;
        wakes_at_ = (at / millisecond_ns + 1) * millisecond_ns;
    }
    [[nodiscard]] std::uint64_t read_bytes() const { return read_bytes_; }

  private:
    abi::RateLimiter& bucket_;
    std::uint32_t worker_index_;
    Nanoseconds wakes_at_{0};
    std::uint64_t read_bytes_{0};
};

TEST(ShaperRateTest, SplicedAndStreamedPairsOfATunnelShareItsRate) {
    for (const std::uint64_t rate : rates) {
        for (const std::uint32_t workers : {1U, 2U}) {
            SimulatedTcp world({.bytes_per_second = rate,
                                .flow_count = 8,
                                .worker_count = workers,
                                .round_trip = 2 * millisecond_ns,
                                .turn = turn_of(rate)});
            StreamReader reader(world.bucket(), 0);
            world.run(begin, 3 * second_ns, [&reader](Nanoseconds now) { reader.turn(now); });
            const double limit = static_cast<double>(rate) * seconds;
            const double spliced = static_cast<double>(world.delivered_bytes()) / limit;
            const double streamed = static_cast<double>(reader.read_bytes()) / limit;
            EXPECT_NEAR(spliced + streamed, 1.0, 0.05) << rate / mbit << " Mbit/s";
            for (std::uint32_t worker = 0; worker < workers; ++worker) {
                const auto bytes = static_cast<double>(world.delivered_bytes_of_worker(worker));
                EXPECT_GT(bytes / limit * workers, 0.1) << rate / mbit << " Mbit/s";
            }
            EXPECT_GT(spliced, 0.25) << rate / mbit << " Mbit/s, streamed " << streamed;
            // At 1 Mbit/s the queue is 370 ms long, and a reader may be ahead by 60 ms alone.
            EXPECT_GT(streamed, rate == mbit ? 0.1 : 0.25)
                << rate / mbit << " Mbit/s, spliced " << spliced;
        }
    }
}

}  // namespace
}  // namespace bore::packet::test
