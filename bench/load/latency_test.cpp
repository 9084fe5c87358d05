// Percentiles of the load generator against values counted by hand.
#include "bench/load/latency.hpp"

#include <gtest/gtest.h>

namespace bore::bench {
namespace {

TEST(Latencies, no_sample_is_zero) {
    Latencies latencies;
    EXPECT_EQ(latencies.percentile_us(50), 0);
}

TEST(Latencies, one_sample_is_every_percentile) {
    Latencies latencies;
    latencies.record(7'000);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(0), 7);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(50), 7);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(100), 7);
}

TEST(Latencies, nearest_rank_in_any_order) {
    Latencies latencies;
    for (std::uint64_t sample = 1000; sample >= 1; --sample) {
        latencies.record(sample * 1000);
    }
    EXPECT_EQ(latencies.count(), 1000U);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(50), 500);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(99), 990);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(99.9), 999);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(100), 1000);
}

TEST(Latencies, what_exceeds_32_bits_is_held_at_the_top) {
    Latencies latencies;
    latencies.record(10'000'000'000);
    EXPECT_DOUBLE_EQ(latencies.percentile_us(50), 4'294'967.295);
}

}  // namespace
}  // namespace bore::bench
