// What a flow is taken for, from its reads alone.
#include <gtest/gtest.h>

#include "dataplane/stream/flow_meter.hpp"

namespace bore::stream {
namespace {

using base::millisecond_ns;
using base::Nanoseconds;

class FlowMeterTest : public ::testing::Test {
  protected:
    void read(std::size_t bytes, Nanoseconds after = millisecond_ns) {
        now_ += after;
        meter_.on_read(bytes, now_);
    }
    void exchange(std::size_t bytes, Nanoseconds pause_inside) {
        read(bytes);
        read(bytes, pause_inside);
        meter_.on_opposite_read();
    }
    FlowMeter meter_;
    Nanoseconds now_{base::second_ns};
};

TEST_F(FlowMeterTest, MessagesAreNotBulkHoweverMany) {
    for (int message = 0; message < 1'000; ++message) {
        read(20'000);
        EXPECT_FALSE(meter_.is_bulk());
        meter_.on_opposite_read();
    }
}

TEST_F(FlowMeterTest, AStreakIsBulkWhateverTheSizeOfItsReads) {
    for (std::size_t sum = 0; sum < FlowMeter::bulk_streak_bytes; sum += 512) {
        EXPECT_FALSE(meter_.is_bulk());
        read(512);
    }
    EXPECT_TRUE(meter_.is_bulk());
    meter_.on_pause();
    EXPECT_FALSE(meter_.is_bulk());
}

TEST_F(FlowMeterTest, OnlyLongStreaksGather) {
    EXPECT_EQ(meter_.low_water_bytes(), 1U);
    read(FlowMeter::gather_streak_bytes - 1);
    EXPECT_EQ(meter_.low_water_bytes(), 1U);
    read(1);
    EXPECT_EQ(meter_.low_water_bytes(), FlowMeter::gather_low_water_bytes);
    meter_.on_opposite_read();
    EXPECT_EQ(meter_.low_water_bytes(), 1U) << "an answer ends the streak";
}

TEST_F(FlowMeterTest, SmallReadsInARowEndTheSplicing) {
    for (int count = 0; count < FlowMeter::small_reads_to_copy - 1; ++count) {
        read(100);
    }
    EXPECT_FALSE(meter_.is_interactive());
    read(FlowMeter::small_read_bytes);
    for (int count = 0; count < FlowMeter::small_reads_to_copy; ++count) {
        EXPECT_FALSE(meter_.is_interactive());
        read(FlowMeter::small_read_bytes - 1);
    }
    EXPECT_TRUE(meter_.is_interactive());
    for (int count = 0; count < 1'000; ++count) {
        read(1);
    }
    EXPECT_TRUE(meter_.is_interactive()) << "counters do not wrap round";
}

TEST_F(FlowMeterTest, PiecesOfLongMessagesAreAcknowledgedAtOnce) {
    EXPECT_FALSE(meter_.wants_quick_ack(64));
    EXPECT_TRUE(meter_.wants_quick_ack(8'192));
}

TEST_F(FlowMeterTest, APauseOfTheDelayedAcknowledgementMakesItQuick) {
    exchange(100, 5 * millisecond_ns);
    exchange(100, 200 * millisecond_ns);
    EXPECT_FALSE(meter_.wants_quick_ack(100)) << "other pauses are the application's";
    exchange(100, 41 * millisecond_ns);
    EXPECT_TRUE(meter_.wants_quick_ack(100));
}

TEST_F(FlowMeterTest, APauseBetweenMessagesIsNoStall) {
    for (int message = 0; message < 10; ++message) {
        read(100, 41 * millisecond_ns);
        meter_.on_opposite_read();
    }
    EXPECT_FALSE(meter_.wants_quick_ack(100));
}

TEST_F(FlowMeterTest, TheStallIsForgottenAfterManySingleReads) {
    exchange(100, 41 * millisecond_ns);
    for (int message = 0; message < FlowMeter::single_reads_to_forget - 1; ++message) {
        read(100);
        meter_.on_opposite_read();
        EXPECT_TRUE(meter_.wants_quick_ack(100));
    }
    exchange(100, millisecond_ns);  // two reads: starts anew
    for (int message = 0; message < FlowMeter::single_reads_to_forget; ++message) {
        EXPECT_TRUE(meter_.wants_quick_ack(100));
        read(100);
        meter_.on_opposite_read();
    }
    EXPECT_FALSE(meter_.wants_quick_ack(100));
}

}  // namespace
}  // namespace bore::stream
