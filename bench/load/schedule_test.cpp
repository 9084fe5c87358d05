// The open loop's schedule on a clock of the test's own, and what a stalled target does to latency.
#include "bench/load/schedule.hpp"

#include <gtest/gtest.h>

#include "bench/load/histogram.hpp"

namespace bore::bench {
namespace {

constexpr base::Nanoseconds start = 5 * base::second_ns;

TEST(OpenLoopSchedule, evenly_spaced_without_drift) {
    // 3 a second: a step that no binary fraction hits.
    OpenLoopSchedule schedule(start, start + 1'000 * base::second_ns, 3);
    for (std::uint64_t number = 0; number < 3'000; ++number) {
        ASSERT_FALSE(schedule.ended());
        const base::Nanoseconds intended = schedule.take();
        const std::uint64_t exact = number * base::second_ns / 3;
        EXPECT_LE(intended > start + exact ? intended - start - exact : start + exact - intended,
                  1U);
    }
    EXPECT_TRUE(schedule.ended());
}

TEST(OpenLoopSchedule, nothing_is_due_before_its_time_or_after_the_end) {
    OpenLoopSchedule schedule(start, start + 2 * base::second_ns, 1);
    EXPECT_FALSE(schedule.is_due(start - 1));
    EXPECT_TRUE(schedule.is_due(start));
    EXPECT_EQ(schedule.take(), start);
    EXPECT_FALSE(schedule.is_due(start + base::second_ns - 1));
    EXPECT_TRUE(schedule.is_due(start + 60 * base::second_ns));  // late, but not forgotten
    EXPECT_EQ(schedule.take(), start + base::second_ns);
    EXPECT_FALSE(schedule.is_due(start + 60 * base::second_ns));
}

TEST(OpenLoopSchedule, parts_together_are_the_whole) {
    OpenLoopSchedule whole(start, start + base::second_ns, 1000);
    OpenLoopSchedule parts[3] = {{start, start + base::second_ns, 1000, 0, 3},
                                 {start, start + base::second_ns, 1000, 1, 3},
                                 {start, start + base::second_ns, 1000, 2, 3}};
    for (int number = 0; !whole.ended(); ++number) {
        EXPECT_EQ(parts[number % 3].take(), whole.take());
    }
    EXPECT_TRUE(parts[0].ended() && parts[1].ended() && parts[2].ended());
}

// One connection, 1,000 requests a second, answered in 100 us, but once the target stands still for
// a second. A closed loop sees one slow request of 1,000; the open one a second of them.
TEST(OpenLoopSchedule, a_pause_of_the_target_shows_in_all_that_it_delayed) {
    OpenLoopSchedule schedule(start, start + 10 * base::second_ns, 1000);
    Histogram corrected;
    Histogram from_sending;
    base::Nanoseconds now = start;
    const base::Nanoseconds pause_at = start + 2 * base::second_ns;
    while (!schedule.ended()) {
        now = std::max(now, schedule.next_at());
        const base::Nanoseconds sent_at = now;
        const base::Nanoseconds intended = schedule.take();
        now += 100 * base::microsecond_ns;
        if (sent_at <= pause_at && now > pause_at) {
            now += base::second_ns;
        }
        corrected.record(now - intended);
        from_sending.record(now - sent_at);
    }
    EXPECT_EQ(corrected.count(), 10'000U);
    EXPECT_LT(from_sending.percentile_ns(99), base::millisecond_ns);
    EXPECT_GT(corrected.percentile_ns(99), 800 * base::millisecond_ns);
    EXPECT_LT(corrected.percentile_ns(50), base::millisecond_ns);
}

}  // namespace
}  // namespace bore::bench
