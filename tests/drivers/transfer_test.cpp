// Bytes through the stream engine on either driver: whole, in order, counted exactly, bounded in
// memory, as fast or as slow as they should be.
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "tests/drivers/harness.hpp"
#include "tests/stream/pattern.hpp"

namespace bore::drivers::testing {
namespace {

using abi::EndReason;
using abi::WorkerCounter;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t megabyte = 1'000'000;
constexpr std::uint64_t bulk_bytes = (sanitized ? 32 : 256) * megabyte;

class TransferTest : public EngineTest {};
INSTANTIATE_TEST_SUITE_P(Drivers, TransferTest, both_drivers, driver_name);

TEST_P(TransferTest, BothDirectionsAtOnce) {
    Ends ends = open();
    std::atomic<int> good{0};
    const auto send = [&good](const Socket& socket, std::uint64_t stream) {
        good += socket.send_pattern(stream, 0, bulk_bytes) ? 1 : 0;
        socket.finish();
    };
    const auto receive = [&good](const Socket& socket, std::uint64_t stream) {
        good += socket.receive_pattern(stream, 0, bulk_bytes) ? 1 : 0;
        good += socket.next_end() == Socket::End::fin ? 1 : 0;
    };
    std::vector<std::jthread> threads;
    threads.emplace_back(send, std::cref(ends.visitor), 1);
    threads.emplace_back(send, std::cref(ends.client), 2);
    threads.emplace_back(receive, std::cref(ends.client), 1);
    threads.emplace_back(receive, std::cref(ends.visitor), 2);
    threads.clear();
    EXPECT_EQ(good, 6) << "two sends, two receives, two FINs";
    wait_for_ends(1);
    EXPECT_EQ(ended_[0].reason, EndReason::fin);
    EXPECT_EQ(ended_[0].to_client_bytes, bulk_bytes);
    EXPECT_EQ(ended_[0].to_visitor_bytes, bulk_bytes);
    EXPECT_EQ(statistics_->tunnel_totals(0).to_client_bytes, bulk_bytes);
    EXPECT_EQ(statistics_->tunnel_totals(0).to_visitor_bytes, bulk_bytes);
    EXPECT_EQ(
        counter(WorkerCounter::copied_bytes_total) + counter(WorkerCounter::spliced_bytes_total),
        2 * bulk_bytes);
    EXPECT_EQ(counter(WorkerCounter::spliced_bytes_total), ended_[0].spliced_bytes);
}

TEST_P(TransferTest, OneWayBulkIsSplicedAndCountedLive) {
    Ends ends = open();
    std::jthread sender([&ends] { (void)ends.client.send_pattern(1, 0, bulk_bytes, 8'192); });
    ASSERT_TRUE(ends.visitor.receive_pattern(1, 0, bulk_bytes / 2));
    // Counted right behind the system call: the receiver may be one move ahead.
    EXPECT_GE(statistics_->tunnel_totals(0).to_visitor_bytes + abi::pipe_bytes, bulk_bytes / 2);
    ASSERT_TRUE(ends.visitor.receive_pattern(1, bulk_bytes / 2, bulk_bytes / 2));
    sender.join();
    ends.visitor.reset();
    wait_for_ends(1);
    EXPECT_EQ(statistics_->tunnel_totals(0).to_visitor_bytes, bulk_bytes);
    EXPECT_GT(counter(WorkerCounter::spliced_bytes_total), bulk_bytes / 2);
    EXPECT_GE(counter(WorkerCounter::path_to_splice_total), 1U);
}

TEST_P(TransferTest, LeftOversGoFirst) {
    std::vector<std::byte> left_over(abi::max_left_over_bytes);
    stream::testing::Pattern::fill(3, 0, left_over);
    OpenOptions options;
    options.left_over_to_visitor = left_over;
    Ends ends = open(std::move(options));
    ASSERT_TRUE(ends.client.send_pattern(3, left_over.size(), 100'000));
    EXPECT_TRUE(ends.visitor.receive_pattern(3, 0, left_over.size() + 100'000));
}

TEST_P(TransferTest, AnswerBehindAHalfCloseArrivesWhole) {
    Ends ends = open();
    ASSERT_TRUE(ends.visitor.send_pattern(1, 0, 500));
    ends.visitor.finish();
    ASSERT_TRUE(ends.client.receive_pattern(1, 0, 500));
    EXPECT_EQ(ends.client.next_end(), Socket::End::fin);
    std::jthread sender([&ends] {
        (void)ends.client.send_pattern(2, 0, bulk_bytes / 4);
        ends.client.finish();
    });
    EXPECT_TRUE(ends.visitor.receive_pattern(2, 0, bulk_bytes / 4));
    EXPECT_EQ(ends.visitor.next_end(), Socket::End::fin);
    wait_for_ends(1);
    EXPECT_EQ(ended_[0].reason, EndReason::fin);
}

// Large messages in turns: the tail of each is below any low-water mark, and its answer comes only
// when it has arrived.
TEST_P(TransferTest, LargeMessagesInTurnsNeverStand) {
    OpenOptions options;
    options.buffer_bytes = 200'000;
    Ends ends = open(std::move(options));
    std::uint64_t there = 0;
    std::uint64_t back = 0;
    for (std::uint64_t round = 0; round < (sanitized ? 20 : 100); ++round) {
        const std::uint64_t bytes = 700'000 + round * 12'345;
        std::jthread sender([&] { (void)ends.client.send_pattern(1, there, bytes, 8'192); });
        ASSERT_TRUE(ends.visitor.receive_pattern(1, there, bytes)) << "round " << round;
        there += bytes;
        sender.join();
        ASSERT_TRUE(ends.visitor.send_pattern(2, back, 100));
        ASSERT_TRUE(ends.client.receive_pattern(2, back, 100));
        back += 100;
    }
}

// The Rust client's way: 20 kB in writes of 8 KiB with Nagle's algorithm on. Waiting for delayed
// acknowledgements would take 40 ms per round trip, 8 s in all.
TEST_P(TransferTest, SendersWithNagleAreAcknowledgedAtOnce) {
    OpenOptions options;
    options.nagle = true;
    Ends ends = open(std::move(options));
    const auto start = Clock::now();
    for (std::uint64_t round = 0; round < 200; ++round) {
        ASSERT_TRUE(ends.visitor.send_pattern(1, round * 100, 100));
        ASSERT_TRUE(ends.client.receive_pattern(1, round * 100, 100));
        ASSERT_TRUE(ends.client.send_pattern(2, round * 20'000, 20'000, 8'192));
        ASSERT_TRUE(ends.visitor.receive_pattern(2, round * 20'000, 20'000));
    }
    if (!sanitized) {
        EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
    }
    EXPECT_GT(counter(WorkerCounter::quick_acks_total), 0U);
}

TEST_P(TransferTest, StalledReadersCostBoundedMemoryAndLoseNothing) {
    constexpr std::size_t pairs = 16;
    std::vector<Ends> all;
    for (std::size_t index = 0; index < pairs; ++index) {
        OpenOptions options;
        options.buffer_bytes = 256 * 1024;
        all.push_back(open(std::move(options)));
    }
    ASSERT_TRUE(all[0].client.send_pattern(0, 0, 1));
    ASSERT_TRUE(all[0].visitor.receive_pattern(0, 0, 1));
    const std::size_t before = resident_bytes();
    std::vector<std::uint64_t> taken(pairs);
    std::vector<std::jthread> threads;
    for (std::size_t index = 0; index < pairs; ++index) {
        threads.emplace_back([&, index] {
            taken[index] = all[index].visitor.push_until_full(std::chrono::milliseconds(700));
        });
    }
    threads.clear();
    for (std::size_t index = 0; index < pairs; ++index) {
        // Four socket buffers of twice 256 KiB, the pipe, what is held in user space.
        EXPECT_LE(taken[index],
                  4 * 512 * 1024 + abi::pipe_bytes + abi::max_buffered_bytes_per_direction);
    }
    if (!sanitized) {
        EXPECT_LE(resident_bytes() - std::min(before, resident_bytes()),
                  pairs * abi::max_buffered_bytes_per_direction + 4 * megabyte);
    }
    EXPECT_GE(counter(WorkerCounter::backpressure_total), pairs);
    for (std::size_t index = 0; index < pairs; ++index) {
        EXPECT_TRUE(all[index].client.receive_pattern(0, 0, taken[index])) << index;
    }
    std::uint64_t sum = 0;
    for (const std::uint64_t bytes : taken) {
        sum += bytes;
    }
    for (Ends& ends : all) {
        ends.visitor.reset();
    }
    wait_for_ends(pairs);
    EXPECT_EQ(statistics_->tunnel_totals(0).to_client_bytes, sum);
}

TEST_P(TransferTest, TheRateOfATunnelHolds) {
    constexpr std::uint64_t rate = 12'500'000;  // 100 Mbit/s
    engine_->set_tunnel_limits(0, {.to_visitor_bytes_per_second = rate});
    std::array<Ends, 3> ends{open(), open(), open()};
    std::vector<std::jthread> senders;
    for (Ends& pair : ends) {
        senders.emplace_back([&pair] {
            (void)pair.client.send_pattern(1, 0, rate / 2);
            pair.client.finish();
        });
    }
    const auto start = Clock::now();
    std::vector<std::jthread> receivers;
    std::atomic<int> whole{0};
    for (Ends& pair : ends) {
        receivers.emplace_back(
            [&pair, &whole] { whole += pair.visitor.receive_pattern(1, 0, rate / 2) ? 1 : 0; });
    }
    receivers.clear();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    EXPECT_EQ(whole, 3);
    EXPECT_GT(seconds, 1.4) << "1.5 s worth of the tunnel's rate, less the burst of 50 ms";
    EXPECT_LT(seconds, sanitized ? 20.0 : 4.0);
    EXPECT_GT(counter(WorkerCounter::rate_limited_total), 0U);
}

TEST_P(TransferTest, ALimitIsFollowedAndLiftedAtOnce) {
    engine_->set_tunnel_limits(0, {.to_visitor_bytes_per_second = 1'000});
    Ends ends = open();
    ASSERT_TRUE(ends.client.send_pattern(1, 0, 60'000));  // a minute worth
    ASSERT_TRUE(ends.visitor.receive_pattern(1, 0, 2'000));
    engine_->set_tunnel_limits(0, {});
    const auto start = Clock::now();
    ASSERT_TRUE(ends.visitor.receive_pattern(1, 2'000, 58'000));
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
}

}  // namespace
}  // namespace bore::drivers::testing
