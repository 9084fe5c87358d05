// Bandwidth limits: the rate over simulated time, for one reader and for many, how large a burst
// may be, who gets how much of it, and that a change reaches pairs that already run.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/stream/world.hpp"

namespace bore::stream::testing {
namespace {

using abi::RateLimiter;
using abi::WorkerCounter;
using base::millisecond_ns;
using base::Nanoseconds;
using base::second_ns;

constexpr std::uint64_t mbit = 125'000;  // bytes per second

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

// ---- The bucket alone

TEST(RateLimiterTest, UnlimitedIsAlwaysReady) {
    RateLimiter limiter;
    limiter.charge(second_ns, 1'000'000'000, 0);
    EXPECT_FALSE(limiter.limited());
    EXPECT_EQ(limiter.ready_at(), 0U);
    EXPECT_EQ(limiter.read_size_bytes(1'234'567), 1'234'567U);
}

TEST(RateLimiterTest, WhatWasReadIsPaidOffAtTheRate) {
    RateLimiter limiter;
    limiter.set_rate(1'000'000);
    const Nanoseconds now = 10 * second_ns;
    limiter.charge(now, 500'000, 0);
    EXPECT_EQ(limiter.ready_at(), now - RateLimiter::burst_ns + 500 * millisecond_ns);
}

TEST(RateLimiterTest, UnusedTimeCountsUpToTheBurst) {
    RateLimiter limiter;
    limiter.set_rate(1'000'000);
    limiter.charge(second_ns, 1'000, 0);
    std::uint64_t taken = 0;
    const Nanoseconds later = 100 * second_ns;
    while (limiter.ready_at() <= later) {
        const std::size_t bytes = limiter.read_size_bytes(1'000'000);
        limiter.charge(later, bytes, 0);
        taken += bytes;
    }
    // 50 ms and the read that overshoots.
    EXPECT_LE(taken, 50'000U + 20'000U);
    EXPECT_GE(taken, 50'000U);
}

TEST(RateLimiterTest, OneReadIsTwentyMillisecondsAtMost) {
    RateLimiter limiter;
    limiter.set_rate(100 * mbit);
    EXPECT_EQ(limiter.read_size_bytes(~std::size_t{0}), 250'000U);
    limiter.set_rate(mbit);
    EXPECT_EQ(limiter.read_size_bytes(~std::size_t{0}), 2'500U);
    limiter.set_rate(1'000);
    EXPECT_EQ(limiter.read_size_bytes(~std::size_t{0}), 2'048U) << "no dribbling";
}

TEST(RateLimiterTest, ANewRateForgivesTheOldDebt) {
    RateLimiter limiter;
    limiter.set_rate(1'000);
    limiter.charge(second_ns, 100'000, 0);
    ASSERT_GT(limiter.ready_at(), 90 * second_ns);
    limiter.set_rate(1'000);
    EXPECT_GT(limiter.ready_at(), 90 * second_ns) << "the same rate is no change";
    limiter.set_rate(1'000'000);
    EXPECT_LE(limiter.ready_at(), second_ns);
}

// ---- Pairs

class LimitsTest : public ::testing::Test {
  protected:
    // `count` visitors that always have something to send, and clients that take it at once.
    void open_senders(std::size_t count) {
        for (std::size_t index = 0; index < count; ++index) {
            OpenedPair& pair = pairs_.emplace_back(world_.open(0, next_tag_++));
            pair.visitor->receive_capacity_bytes = std::size_t{4} << 20U;
            pair.client->send_capacity_bytes = std::size_t{4} << 20U;
        }
    }
    void run(Nanoseconds duration) {
        const Nanoseconds end = world_.now + duration;
        while (world_.now < end) {
            for (OpenedPair& pair : pairs_) {
                pair.visitor->peer_sends(pair.visitor->receive_room_bytes());
                pair.client->peer_takes(~std::size_t{0});
            }
            world_.run(200 * base::microsecond_ns);
        }
    }
    [[nodiscard]] std::uint64_t delivered() {
        return world_.statistics.tunnel_totals(0).to_client_bytes;
    }
    void expect_rate(std::uint64_t rate, Nanoseconds duration) {
        const std::uint64_t before = delivered();
        run(duration);
        const double expected = static_cast<double>(rate) * static_cast<double>(duration) /
                                static_cast<double>(second_ns);
        EXPECT_NEAR(static_cast<double>(delivered() - before) / expected, 1.0, 0.05);
    }

    // A kernel reports what is ready in the order of the requests, not in random order.
    World world_{7, Behaviour{.in_order = true}};
    std::vector<OpenedPair> pairs_;
    std::uint64_t next_tag_{0};
};

TEST_F(LimitsTest, RateHoldsWithinFivePercentOverThreeSeconds) {
    for (const std::uint64_t rate : {mbit, 100 * mbit, 1'000 * mbit}) {
        for (const std::size_t readers : {std::size_t{1}, std::size_t{7}}) {
            if (sanitized && rate * readers > 1'000 * mbit) {
                continue;  // half a gigabyte of patterns takes a minute there
            }
            SCOPED_TRACE(std::to_string(rate / mbit) + " Mbit/s, " + std::to_string(readers));
            for (OpenedPair& pair : pairs_) {
                world_.close(pair.handle);
            }
            pairs_.clear();
            world_.run(100 * millisecond_ns);
            world_.poll();
            world_.tunnels.entry(0).set({.to_client_bytes_per_second = rate});
            open_senders(readers);
            expect_rate(rate, 3 * second_ns);
        }
    }
}

TEST_F(LimitsTest, TheOtherDirectionIsFree) {
    world_.tunnels.entry(0).set({.to_client_bytes_per_second = mbit});
    OpenedPair pair = world_.open(0, 1);
    pair.client->peer_sends(200'000);
    world_.run(10 * millisecond_ns);
    EXPECT_EQ(pair.visitor->sent_bytes, 200'000U);
}

TEST_F(LimitsTest, ALimitedBulkFlowIsStillSpliced) {
    world_.tunnels.entry(0).set({.to_client_bytes_per_second = 100 * mbit});
    open_senders(1);
    run(second_ns);
    EXPECT_GT(world_.counter(WorkerCounter::spliced_bytes_total), 90 * mbit);
}

// Whoever has just read goes behind those who wait, or one reader takes everything.
TEST_F(LimitsTest, ReadersShareTheRate) {
    for (const std::uint64_t rate : {mbit, 100 * mbit}) {
        SCOPED_TRACE(rate);
        world_.tunnels.entry(0).set({.to_client_bytes_per_second = rate});
        pairs_.clear();
        open_senders(5);
        run(second_ns);
        std::vector<std::uint64_t> before;
        for (const OpenedPair& pair : pairs_) {
            before.push_back(pair.client->sent_bytes);
        }
        run(4 * second_ns);
        const std::uint64_t share = rate * 4 / 5;
        for (std::size_t index = 0; index < pairs_.size(); ++index) {
            const std::uint64_t got = pairs_[index].client->sent_bytes - before[index];
            EXPECT_GT(got, share / 2) << "reader " << index;
            EXPECT_LT(got, share * 2) << "reader " << index;
        }
        for (OpenedPair& pair : pairs_) {
            world_.close(pair.handle);
        }
        world_.run(100 * millisecond_ns);
        world_.poll();
    }
}

TEST_F(LimitsTest, ChangesReachRunningPairs) {
    open_senders(1);
    run(100 * millisecond_ns);
    world_.tunnels.change(0, {.to_client_bytes_per_second = mbit});
    run(10 * second_ns);  // pays for what was under way without a limit
    expect_rate(mbit, 3 * second_ns);
    world_.tunnels.change(0, {.to_client_bytes_per_second = 100 * mbit});
    expect_rate(100 * mbit, 3 * second_ns);
    world_.tunnels.change(0, {});
    const std::uint64_t before = delivered();
    run(100 * millisecond_ns);
    EXPECT_GT(delivered() - before, 100 * mbit);
}

TEST_F(LimitsTest, ALiftedLimitFreesWhoWaitsForTokens) {
    world_.tunnels.change(0, {.to_client_bytes_per_second = 1'000});
    OpenedPair pair = world_.open(0, 1, 0, 4'000);  // 4 s worth
    pair.visitor->peer_sends(10'000);
    world_.run(100 * millisecond_ns);
    ASSERT_EQ(pair.client->sent_bytes, 4'000U);
    world_.tunnels.change(0, {});
    world_.run(10 * millisecond_ns);
    EXPECT_EQ(pair.client->sent_bytes, 14'000U);
}

TEST_F(LimitsTest, WhoWaitsForTokensIsNotIdle) {
    world_.tunnels.change(0, {.to_client_bytes_per_second = 1'000, .idle_timeout_ms = 1'000});
    OpenedPair pair = world_.open(0, 1, 0, 4'000);  // 4 s worth
    pair.visitor->peer_sends(1'000);
    world_.run(5 * second_ns, 10 * millisecond_ns);
    EXPECT_EQ(pair.client->sent_bytes, 5'000U);
    EXPECT_EQ(world_.io.attached_pairs(), 1U);
    world_.run(3 * second_ns, 10 * millisecond_ns);
    EXPECT_EQ(world_.io.attached_pairs(), 0U) << "then it is";
}

TEST_F(LimitsTest, AResetOfWhoWaitsForTokensIsNoticed) {
    world_.tunnels.change(0, {.to_client_bytes_per_second = 1'000});
    OpenedPair pair = world_.open(0, 1, 0, 20'000);  // 20 s worth
    world_.run(100 * millisecond_ns);
    pair.visitor->fails(ECONNRESET);
    world_.run(second_ns);
    EXPECT_EQ(world_.io.attached_pairs(), 0U);
}

TEST_F(LimitsTest, ANewLimitHoldsForConnectionsThatWereQuietBefore) {
    open_senders(20);
    world_.run(10 * millisecond_ns);
    world_.tunnels.change(0, {.to_client_bytes_per_second = mbit});
    world_.run(10 * millisecond_ns);
    for (OpenedPair& pair : pairs_) {
        pair.visitor->peer_sends(256 * 1024);
    }
    world_.run(100 * millisecond_ns);
    EXPECT_LT(delivered(), mbit / 5);
}

TEST_F(LimitsTest, NewTimeoutsReachRunningPairs) {
    world_.open(0, 1);
    OpenedPair half_closed = world_.open(1, 2);
    half_closed.visitor->peer_finishes();
    world_.run(2 * second_ns, 10 * millisecond_ns);
    world_.tunnels.change(0, {.idle_timeout_ms = 1'000});
    world_.tunnels.change(1, {.half_closed_timeout_ms = 1'000});
    world_.run(10 * millisecond_ns);
    world_.poll();
    ASSERT_EQ(world_.ended.size(), 2U);
    for (const abi::PairEnded& end : world_.ended) {
        EXPECT_EQ(end.reason,
                  end.tunnel_index == 0 ? abi::EndReason::idle : abi::EndReason::half_closed);
    }
}

}  // namespace
}  // namespace bore::stream::testing
