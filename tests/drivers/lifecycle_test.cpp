// How pairs end on either driver: in order, by reset, by command, by timeout, all at once; and that
// every descriptor and slot comes back.
#include <sys/resource.h>

#include <algorithm>
#include <thread>

#include "dataplane/base/clock.hpp"
#include "tests/drivers/harness.hpp"

namespace bore::drivers::testing {
namespace {

using abi::EndReason;
using abi::WorkerCounter;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

class LifecycleTest : public EngineTest {
  protected:
    void expect_end(EndReason reason) {
        wait_for_ends(1);
        ASSERT_EQ(ended_.size(), 1U);
        EXPECT_EQ(ended_[0].reason, reason) << abi::to_string(ended_[0].reason);
    }
    // Request and answer through every pair, each with bytes of its own.
    static void exchange_all(std::vector<Ends>& all) {
        for (std::size_t index = 0; index < all.size(); ++index) {
            ASSERT_TRUE(all[index].visitor.send_pattern(index, 0, 300));
        }
        for (std::size_t index = 0; index < all.size(); ++index) {
            ASSERT_TRUE(all[index].client.receive_pattern(index, 0, 300)) << index;
            ASSERT_TRUE(all[index].client.send_pattern(index, 300, 700));
        }
        for (std::size_t index = 0; index < all.size(); ++index) {
            ASSERT_TRUE(all[index].visitor.receive_pattern(index, 300, 700)) << index;
        }
    }
};
INSTANTIATE_TEST_SUITE_P(Drivers, LifecycleTest, both_drivers, driver_name);

TEST_P(LifecycleTest, AnOrderlyCloseIsAFin) {
    Ends ends = open();
    ends.client.close();
    EXPECT_EQ(ends.visitor.next_end(), Socket::End::fin);
    ends.visitor.close();
    expect_end(EndReason::fin);
}

TEST_P(LifecycleTest, AResetIsAResetEitherWay) {
    for (const bool by_visitor : {true, false}) {
        Ends ends = open();
        ASSERT_TRUE(ends.visitor.send_pattern(1, 0, 100));
        ASSERT_TRUE(ends.client.receive_pattern(1, 0, 100));
        (by_visitor ? ends.visitor : ends.client).reset();
        EXPECT_EQ((by_visitor ? ends.client : ends.visitor).next_end(), Socket::End::reset);
        expect_end(EndReason::reset);
        ended_.clear();
    }
}

TEST_P(LifecycleTest, AResetInTheMiddleOfABulkTransferIsAReset) {
    Ends ends = open();
    std::jthread sender([&ends] { (void)ends.client.send_pattern(1, 0, 1'000'000'000); });
    ASSERT_TRUE(ends.visitor.receive_pattern(1, 0, 20'000'000));
    ends.visitor.reset();
    sender.join();  // its send fails
    expect_end(EndReason::reset);
}

TEST_P(LifecycleTest, AResetOfAStalledSenderIsNoticed) {
    OpenOptions options;
    options.buffer_bytes = 65'536;
    Ends ends = open(std::move(options));
    EXPECT_GT(ends.visitor.push_until_full(milliseconds(700)), 0U);
    ends.visitor.reset();
    expect_end(EndReason::reset);
}

TEST_P(LifecycleTest, AResetBehindAFinIsNoticed) {
    Ends ends = open();
    ends.visitor.finish();
    EXPECT_EQ(ends.client.next_end(), Socket::End::fin);
    ends.visitor.reset();
    expect_end(EndReason::reset);
    // recv(2) goes on to report the FIN; what is sent is refused.
    EXPECT_FALSE(ends.client.send_pattern(1, 0, 1));
}

TEST_P(LifecycleTest, ClosePairResetsBothLegs) {
    Ends ends = open();
    engine_->close_pair(ends.handle);
    EXPECT_EQ(ends.visitor.next_end(), Socket::End::reset);
    EXPECT_EQ(ends.client.next_end(), Socket::End::reset);
    expect_end(EndReason::closed);
}

TEST_P(LifecycleTest, AnOldHandleDoesNotTouchTheNextPairOfItsSlot) {
    abi::PairHandle old;
    for (std::uint64_t round = 0; round < 50; ++round) {
        Ends ends = open();
        if (round > 0) {
            ASSERT_EQ(ends.handle.slot_index, old.slot_index);
            ASSERT_NE(ends.handle.generation, old.generation);
            engine_->close_pair(old);
        }
        ASSERT_TRUE(ends.visitor.send_pattern(round, 0, 1'000));
        ASSERT_TRUE(ends.client.receive_pattern(round, 0, 1'000));
        ends.visitor.close();
        ends.client.close();
        wait_for_ends(round + 1);
        EXPECT_EQ(ended_.back().handle, ends.handle);
        old = ends.handle;
    }
    engine_->close_pair({.slot_index = 0xffffffffU, .generation = 7});  // no such worker
}

TEST_P(LifecycleTest, IdleTimeoutEndsThePair) {
    engine_->set_tunnel_limits(0, {.idle_timeout_ms = 400});
    const auto start = Clock::now();
    Ends ends = open();
    expect_end(EndReason::idle);
    EXPECT_GE(Clock::now() - start, milliseconds(390));
}

TEST_P(LifecycleTest, ANewTimeoutReachesASleepingWorker) {
    Ends ends = open();
    ASSERT_TRUE(ends.visitor.send_pattern(1, 0, 10));
    ASSERT_TRUE(ends.client.receive_pattern(1, 0, 10));
    std::this_thread::sleep_for(milliseconds(100));
    engine_->set_tunnel_limits(0, {.idle_timeout_ms = 50});
    expect_end(EndReason::idle);
}

TEST_P(LifecycleTest, HalfClosedTimeoutEndsThePair) {
    engine_->set_tunnel_limits(0, {.half_closed_timeout_ms = 300});
    Ends ends = open();
    ends.client.finish();
    expect_end(EndReason::half_closed);
}

TEST_P(LifecycleTest, DrainLetsPairsFinishAndCutsTheRest) {
    Ends finishes = open();
    Ends stays = open();
    engine_->drain(base::monotonic_now() + 700 * base::millisecond_ns);
    EXPECT_FALSE(engine_->drained());
    abi::PairRequest late;
    const auto refused = engine_->open_pair(std::move(late));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error(), abi::OpenError::draining);
    ASSERT_TRUE(finishes.visitor.send_pattern(1, 0, 1'000));
    ASSERT_TRUE(finishes.client.receive_pattern(1, 0, 1'000));
    finishes.visitor.finish();
    finishes.client.finish();
    wait_for_ends(2);
    EXPECT_EQ(ended_[0].reason, EndReason::fin);
    EXPECT_EQ(ended_[1].reason, EndReason::drained);
    EXPECT_TRUE(engine_->drained());
    EXPECT_EQ(stays.visitor.next_end(), Socket::End::reset);
    engine_->close_pair(stays.handle);  // nobody is there any more; must not hang
    engine_->drain(0);
}

TEST_P(LifecycleTest, AThousandPairsOpenAndCloseOverTwoWorkers) {
    start(2);
    if (engine_ == nullptr) {
        return;
    }
    constexpr std::size_t pairs = 1'000;
    for (std::size_t round = 0; round < 3; ++round) {
        std::vector<Ends> all;
        for (std::size_t index = 0; index < pairs; ++index) {
            OpenOptions options;
            options.tunnel_index = static_cast<std::uint32_t>(index % tunnel_capacity);
            options.tag = index;
            all.push_back(open(std::move(options)));
        }
        exchange_all(all);
        for (std::size_t index = 0; index < pairs; ++index) {
            (index % 2 == 0 ? all[index].visitor : all[index].client).close();
        }
        for (Ends& ends : all) {
            ends.visitor.close();
            ends.client.close();
        }
        wait_for_ends((round + 1) * pairs);
    }
    std::vector<int> seen(pairs);
    for (const abi::PairEnded& end : ended_) {
        EXPECT_EQ(end.reason, EndReason::fin);
        EXPECT_EQ(end.to_client_bytes, 300U);
        EXPECT_EQ(end.to_visitor_bytes, 700U);
        ++seen[end.tag];
    }
    EXPECT_TRUE(std::ranges::all_of(seen, [](int count) { return count == 3; }));
    for (std::uint32_t tunnel = 0; tunnel < tunnel_capacity; ++tunnel) {
        const abi::TunnelTotals totals = statistics_->tunnel_totals(tunnel);
        EXPECT_EQ(totals.pairs_opened, 3 * pairs / tunnel_capacity);
        EXPECT_EQ(totals.to_client_bytes, 300 * totals.pairs_opened);
        EXPECT_EQ(totals.to_visitor_bytes, 700 * totals.pairs_opened);
    }
    EXPECT_GT(statistics_->worker(0).get(WorkerCounter::pairs_opened_total), 0U);
    EXPECT_GT(statistics_->worker(1).get(WorkerCounter::pairs_opened_total), 0U);
}

// More completions at once than the completion queue of a ring holds (8,192): two cancelled
// receives for each pair.
TEST_P(LifecycleTest, ThousandsOfPairsEndAtOnce) {
    constexpr std::size_t pairs = 4'500;
    constexpr std::size_t needed = 4 * pairs + 200;
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < needed) {
        GTEST_SKIP() << "needs " << needed << " descriptors, the limit here is " << limit.rlim_cur;
    }
    std::vector<Ends> all;
    for (std::size_t index = 0; index < pairs; ++index) {
        all.push_back(open());
    }
    exchange_all(all);
    engine_->drain(0);
    wait_for_ends(pairs);
    for (const Ends& ends : all) {
        EXPECT_EQ(ends.visitor.next_end(), Socket::End::reset);
    }
    EXPECT_EQ(counter(WorkerCounter::pairs_ended_drained_total), pairs);
}

TEST_P(LifecycleTest, TheEngineMayGoWithLivePairs) {
    std::vector<Ends> all;
    for (int index = 0; index < 50; ++index) {
        all.push_back(open());
    }
    std::jthread sender([&all] { (void)all[0].client.send_pattern(1, 0, 1'000'000'000); });
    std::jthread receiver([&all] { (void)all[0].visitor.receive_pattern(1, 0, 1'000'000'000); });
    std::this_thread::sleep_for(milliseconds(100));
    stop();
    sender.join();
    receiver.join();
    for (std::size_t index = 1; index < all.size(); ++index) {
        EXPECT_EQ(all[index].visitor.next_end(), Socket::End::reset);
    }
}

}  // namespace
}  // namespace bore::drivers::testing
