// Single cases of the pair state machine, without chance: one situation, one consequence each.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/stream/world.hpp"

namespace bore::stream::testing {
namespace {

using abi::EndReason;
using abi::WorkerCounter;
using base::millisecond_ns;
using base::second_ns;

// Both kinds of driver.
class PairTest : public ::testing::TestWithParam<bool> {
  protected:
    World world_{1, Behaviour{.asynchronous = GetParam()}};

    void expect_end(EndReason reason) {
        world_.run(10 * millisecond_ns);
        world_.poll();
        ASSERT_EQ(world_.ended.size(), 1U);
        EXPECT_EQ(world_.ended[0].reason, reason) << abi::to_string(world_.ended[0].reason);
        EXPECT_EQ(world_.io.attached_pairs(), 0U);
        EXPECT_EQ(world_.io.lent_pipes(), 0U);
        EXPECT_EQ(world_.counter(WorkerCounter::pairs_live), 0U);
        world_.run(10 * millisecond_ns);
        EXPECT_FALSE(world_.shard.next_deadline().has_value()) << "a timer outlived its pair";
    }
    // The source sends, the target's peer reads, until the flow counts as bulk and is spliced.
    void make_bulk(OpenedPair& pair, Leg source, std::size_t bytes) {
        Connection& from = pair.leg(source);
        Connection& to = pair.leg(other(source));
        for (std::size_t sent = 0; sent < bytes; sent += 32 * 1024) {
            from.peer_sends(32 * 1024);
            world_.turn();
            to.peer_takes(~std::size_t{0});
        }
        world_.run(5 * millisecond_ns);
        to.peer_takes(~std::size_t{0});
    }
};

INSTANTIATE_TEST_SUITE_P(Drivers, PairTest, ::testing::Values(true, false), [](const auto& driver) {
    return driver.param ? "asynchronous" : "immediate";
});

TEST_P(PairTest, LeftOversGoFirstInBothDirections) {
    OpenedPair pair = world_.open(0, 1, 1'000, 500);
    pair.client->peer_sends(300);
    pair.visitor->peer_sends(200);
    world_.run(millisecond_ns);
    EXPECT_EQ(pair.visitor->sent_bytes, 1'300U);
    EXPECT_EQ(pair.client->sent_bytes, 700U);
    EXPECT_EQ(world_.statistics.tunnel_totals(0).to_visitor_bytes, 1'300U);
    EXPECT_EQ(world_.statistics.tunnel_totals(0).to_client_bytes, 700U);
}

TEST_P(PairTest, TheFirstByteIsMeasuredOnceUnlessAnotherEngineDeliveredIt) {
    const auto& counts =
        world_.statistics.worker_histograms(0)
            .histograms[static_cast<std::size_t>(abi::WorkerHistogram::first_byte_ns)]
            .counts;
    for (const std::uint64_t before : {0U, 7U}) {
        world_.delivered_before_bytes = before;
        OpenedPair pair = world_.open(0, 1);
        pair.client->peer_sends(300);
        world_.run(millisecond_ns);
        pair.visitor->peer_sends(200);
        world_.run(millisecond_ns);
        EXPECT_EQ(pair.client->sent_bytes, 200U);
        EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}), 1U);
    }
}

TEST_P(PairTest, LeftOversThatFitNoBufferAreHeldAndStillGoFirst) {
    OpenedPair pair = world_.open(0, 1, 4'096);
    pair.visitor->send_capacity_bytes = 1'000;
    pair.client->peer_sends(5'000);
    pair.client->peer_finishes();
    for (int turn = 0; turn < 100; ++turn) {
        world_.turn();
        pair.visitor->peer_takes(700);
    }
    EXPECT_EQ(pair.visitor->sent_bytes, 9'096U);
    EXPECT_TRUE(pair.visitor->fin_sent);
}

TEST_P(PairTest, EachDirectionEndsByItself) {
    OpenedPair pair = world_.open(0, 1);
    pair.visitor->peer_sends(10);
    pair.visitor->peer_finishes();
    world_.run(millisecond_ns);
    EXPECT_TRUE(pair.client->fin_sent);
    EXPECT_FALSE(pair.visitor->fin_sent);
    pair.client->peer_sends(200'000);
    world_.run(millisecond_ns);
    EXPECT_EQ(pair.visitor->sent_bytes, 200'000U);
    pair.client->peer_finishes();
    expect_end(EndReason::fin);
    EXPECT_FALSE(pair.visitor->closed_by_reset);
    EXPECT_EQ(world_.ended[0].to_visitor_bytes, 200'000U);
    EXPECT_EQ(world_.ended[0].to_client_bytes, 10U);
    EXPECT_EQ(world_.counter(WorkerCounter::pairs_ended_fin_total), 1U);
}

TEST_P(PairTest, ResetIsPassedOnFromEitherLeg) {
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        OpenedPair pair = world_.open(0, 1);
        world_.run(millisecond_ns);
        pair.leg(leg).fails(ECONNRESET);
        world_.ended.clear();
        expect_end(EndReason::reset);
        EXPECT_EQ(world_.ended[0].error_number, ECONNRESET);
        EXPECT_TRUE(pair.visitor->closed_by_reset && pair.client->closed_by_reset);
    }
}

TEST_P(PairTest, OtherErrorsAreReportedAsErrors) {
    OpenedPair pair = world_.open(0, 1);
    world_.run(millisecond_ns);
    pair.client->fails(ETIMEDOUT);
    expect_end(EndReason::error);
    EXPECT_EQ(world_.ended[0].error_number, ETIMEDOUT);
    EXPECT_TRUE(pair.visitor->closed_by_reset);
}

TEST_P(PairTest, ResetOfASourceThatIsNotReadIsNoticed) {
    OpenedPair pair = world_.open(0, 1);
    pair.client->peer_sends(300'000);  // more than the visitor's send buffer
    world_.run(10 * millisecond_ns);
    ASSERT_EQ(pair.visitor->send_room_bytes(), 0U);
    pair.client->fails(ECONNRESET);
    world_.run(600 * millisecond_ns);
    expect_end(EndReason::reset);
}

TEST_P(PairTest, ResetBehindAFinIsNoticed) {
    OpenedPair pair = world_.open(0, 1);
    pair.visitor->peer_finishes();
    world_.run(10 * millisecond_ns);
    pair.visitor->fails(EPIPE);
    world_.run(600 * millisecond_ns);
    expect_end(EndReason::reset);
}

TEST_P(PairTest, StalledReaderStopsTheSourceAndGoesOnLater) {
    OpenedPair pair = world_.open(0, 1);
    for (int turn = 0; turn < 100; ++turn) {
        pair.client->peer_sends(pair.client->receive_room_bytes());
        world_.turn(millisecond_ns);
    }
    EXPECT_EQ(pair.client->receive_room_bytes(), 0U) << "the source is read without end";
    EXPECT_LE(pair.client->read_bytes - pair.visitor->sent_bytes,
              abi::max_buffered_bytes_per_direction);
    const std::uint64_t all = pair.client->arrived_bytes;
    for (int turn = 0; turn < 200; ++turn) {
        pair.visitor->peer_takes(10'000);
        world_.turn(millisecond_ns);
    }
    EXPECT_EQ(pair.visitor->sent_bytes, all);
    EXPECT_GE(world_.counter(WorkerCounter::backpressure_total), 1U);
}

TEST_P(PairTest, BulkIsSplicedAndMessagesAreNot) {
    OpenedPair pair = world_.open(0, 1);
    for (int round = 0; round < 50; ++round) {
        pair.visitor->peer_sends(20'000);
        world_.run(millisecond_ns);
        pair.client->peer_sends(20'000);
        world_.run(millisecond_ns);
        pair.visitor->peer_takes(20'000);
        pair.client->peer_takes(20'000);
    }
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_splice_total), 0U);
    make_bulk(pair, Leg::client, 1'000'000);
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_splice_total), 1U);
    EXPECT_GT(world_.counter(WorkerCounter::spliced_bytes_total), 500'000U);
}

TEST_P(PairTest, AnIdleBulkFlowGivesItsPipeBack) {
    OpenedPair pair = world_.open(0, 1);
    make_bulk(pair, Leg::client, 1'000'000);
    ASSERT_EQ(world_.io.lent_pipes(), 1U);
    world_.run(300 * millisecond_ns);
    EXPECT_EQ(world_.io.lent_pipes(), 0U);
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_copy_total), 1U);
    pair.client->peer_sends(100);
    world_.run(millisecond_ns);
    EXPECT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
}

TEST_P(PairTest, SmallMessagesEndTheSplicing) {
    OpenedPair pair = world_.open(0, 1);
    make_bulk(pair, Leg::client, 200'000);
    ASSERT_EQ(world_.io.lent_pipes(), 1U);
    for (int message = 0; message < 20; ++message) {
        pair.client->peer_sends(100);
        world_.run(millisecond_ns);
        pair.visitor->peer_takes(~std::size_t{0});
    }
    EXPECT_EQ(world_.io.lent_pipes(), 0U);
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_copy_total), 1U);
    make_bulk(pair, Leg::client, 200'000);
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_splice_total), 2U) << "and back again";
    EXPECT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
}

TEST_P(PairTest, AnUrgentMarkThatStopsASpliceIsPassedByCopying) {
    for (const bool with_fin : {false, true}) {
        OpenedPair pair = world_.open(0, with_fin ? 2 : 1);
        make_bulk(pair, Leg::client, 1'500'000);
        ASSERT_EQ(world_.io.lent_pipes(), 1U);
        pair.client->peer_sends_urgent(2'000);
        pair.client->peer_sends(3'000);
        if (with_fin) {
            pair.client->peer_finishes();
        }
        world_.run(20 * millisecond_ns);
        EXPECT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
        EXPECT_EQ(pair.visitor->fin_sent, with_fin);
        make_bulk(pair, Leg::visitor, 200'000);
        pair.visitor->peer_finishes();
        pair.client->peer_finishes();
        world_.run(20 * millisecond_ns);
        EXPECT_EQ(world_.io.attached_pairs(), 0U);
    }
}

TEST_P(PairTest, AStreamOfSmallMessagesBorrowsNoPipe) {
    OpenedPair pair = world_.open(0, 1);
    for (int message = 0; message < 500; ++message) {
        pair.client->peer_sends(1'000);
        world_.run(millisecond_ns);
        pair.visitor->peer_takes(~std::size_t{0});
    }
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_splice_total), 0U);
    EXPECT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
}

TEST_P(PairTest, BytesBelowTheLowWaterMarkWaitOnlyForTheDeadline) {
    OpenedPair pair = world_.open(0, 1);
    make_bulk(pair, Leg::client, 1'500'000);
    for (int turn = 0; turn < 8; ++turn) {  // fast enough to be gathered
        pair.client->peer_sends(200'000);
        world_.turn();
        pair.visitor->peer_takes(~std::size_t{0});
    }
    pair.client->peer_sends(1'000);
    world_.run(3 * millisecond_ns);
    EXPECT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
}

// A deadline read that the target does not take whole; what comes later must move as well.
TEST_P(PairTest, BytesBehindABlockedDeadlineReadDoNotWaitForEver) {
    OpenedPair pair = world_.open(0, 1);
    make_bulk(pair, Leg::client, 1'000'000);
    pair.client->receive_capacity_bytes = std::size_t{1} << 20U;
    pair.visitor->send_capacity_bytes = 100'000;
    pair.client->peer_sends(900'000);
    while (pair.visitor->sent_bytes < pair.client->arrived_bytes) {
        world_.turn();
        pair.visitor->peer_takes(~std::size_t{0});
    }
    ASSERT_GT(pair.client->low_water_bytes, 1U);
    ASSERT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
    pair.client->peer_sends(150'000);  // below the mark: read at the deadline, not taken whole
    world_.run(3 * millisecond_ns);
    ASSERT_EQ(pair.visitor->send_room_bytes(), 0U);
    pair.client->peer_sends(10'000);
    pair.visitor->peer_takes(~std::size_t{0});
    world_.run(5 * millisecond_ns);
    pair.visitor->peer_takes(~std::size_t{0});
    world_.run(50 * millisecond_ns);
    EXPECT_EQ(pair.visitor->sent_bytes, pair.client->arrived_bytes);
}

TEST_P(PairTest, WithoutPipesBulkIsCopied) {
    world_.io.behaviour().pipe_count = 0;
    OpenedPair pair = world_.open(0, 1);
    make_bulk(pair, Leg::visitor, 1'000'000);
    EXPECT_EQ(pair.client->sent_bytes, pair.visitor->arrived_bytes);
    EXPECT_EQ(world_.counter(WorkerCounter::path_to_splice_total), 0U);
    EXPECT_GE(world_.counter(WorkerCounter::pipes_exhausted_total), 1U);
}

TEST_P(PairTest, CloseCommandResetsBothLegs) {
    OpenedPair pair = world_.open(0, 1);
    make_bulk(pair, Leg::visitor, 300'000);
    world_.close(pair.handle);
    expect_end(EndReason::closed);
    EXPECT_TRUE(pair.visitor->closed_by_reset && pair.client->closed_by_reset);
}

TEST_P(PairTest, CloseOfAnOldHandleLeavesTheNewPairAlone) {
    OpenedPair old = world_.open(0, 1);
    world_.run(millisecond_ns);
    world_.close(old.handle);
    world_.run(10 * millisecond_ns);
    world_.poll();
    OpenedPair young = world_.open(0, 2);
    ASSERT_EQ(young.handle.slot_index, old.handle.slot_index);
    world_.close(old.handle);
    world_.run(10 * millisecond_ns);
    EXPECT_FALSE(young.visitor->closed);
}

TEST_P(PairTest, DrainCutsWhatIsLiveAtTheDeadline) {
    OpenedPair pair = world_.open(0, 1);
    world_.run(millisecond_ns);
    world_.drain(world_.now + second_ns);
    world_.run(900 * millisecond_ns);
    EXPECT_FALSE(pair.visitor->closed);
    EXPECT_FALSE(world_.shard.finished());
    world_.run(200 * millisecond_ns);
    expect_end(EndReason::drained);
    EXPECT_TRUE(world_.shard.finished());
}

TEST_P(PairTest, IdleTimeoutCountsFromTheLastByte) {
    world_.tunnels.entry(0).set({.idle_timeout_ms = 1'000});
    OpenedPair pair = world_.open(0, 1);
    world_.run(900 * millisecond_ns);
    pair.visitor->peer_sends(1);
    world_.run(900 * millisecond_ns);
    EXPECT_FALSE(pair.visitor->closed);
    world_.run(150 * millisecond_ns);
    expect_end(EndReason::idle);
    EXPECT_TRUE(pair.visitor->closed_by_reset);
}

TEST_P(PairTest, HalfClosedTimeoutCountsFromTheFirstFin) {
    world_.tunnels.entry(0).set({.half_closed_timeout_ms = 1'000});
    OpenedPair pair = world_.open(0, 1);
    world_.run(3 * second_ns, 10 * millisecond_ns);
    EXPECT_FALSE(pair.visitor->closed);
    pair.visitor->peer_finishes();
    world_.run(900 * millisecond_ns);
    EXPECT_FALSE(pair.visitor->closed);
    world_.run(150 * millisecond_ns);
    expect_end(EndReason::half_closed);
}

TEST_P(PairTest, AnAnswerBehindAFinMayTakeLongerThanTheHalfClosedTimeout) {
    world_.tunnels.entry(0).set({.half_closed_timeout_ms = 1'000});
    OpenedPair pair = world_.open(0, 1);
    pair.visitor->peer_finishes();
    for (int second = 0; second < 10; ++second) {
        pair.client->peer_sends(1'000);
        world_.run(900 * millisecond_ns, 10 * millisecond_ns);
        ASSERT_FALSE(pair.visitor->closed);
    }
    world_.run(200 * millisecond_ns);
    expect_end(EndReason::half_closed);
}

TEST_P(PairTest, AFullEventRingLosesNoEnd) {
    World world(1, Behaviour{.asynchronous = GetParam()}, 2);
    for (std::uint64_t tag = 0; tag < 20; ++tag) {
        world.close(world.open(0, tag).handle);
        world.turn();
    }
    world.run(10 * millisecond_ns);
    EXPECT_GT(world.counter(WorkerCounter::events_deferred_total), 0U);
    for (int round = 0; round < 20; ++round) {
        world.poll();
        world.run(5 * millisecond_ns);
    }
    ASSERT_EQ(world.ended.size(), 20U);
    for (std::uint64_t tag = 0; tag < 20; ++tag) {
        EXPECT_EQ(world.ended[tag].tag, tag);
    }
}

}  // namespace
}  // namespace bore::stream::testing
