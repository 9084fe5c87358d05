// The histogram against exact quantiles of the sorted samples, and the limits of its buckets.
#include "bench/load/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace bore::bench {
namespace {

std::uint64_t exact(const std::vector<std::uint64_t>& sorted, double percent) {
    const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()) - 1e-9);
    return sorted[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

TEST(Histogram, no_sample_is_zero) {
    const Histogram histogram;
    EXPECT_EQ(histogram.percentile_ns(50), 0U);
    EXPECT_NE(histogram.to_json().text().find("\"buckets_ns\":[]"), std::string::npos);
}

TEST(Histogram, small_values_are_exact) {
    Histogram histogram;
    for (std::uint64_t value = 0; value < 2048; ++value) {
        histogram.record(value);
    }
    for (double percent : {0.1, 25.0, 50.0, 99.0, 99.9, 100.0}) {
        const auto rank = static_cast<std::uint64_t>(std::ceil(percent / 100 * 2048 - 1e-9));
        EXPECT_EQ(histogram.percentile_ns(percent), rank - 1) << percent;
    }
}

TEST(Histogram, follows_exact_quantiles_within_a_thousandth) {
    std::mt19937_64 random(20'261'129);
    // From microseconds to minutes, so that every doubling has samples.
    std::uniform_real_distribution<double> exponent(0, 40);
    Histogram histogram;
    std::vector<std::uint64_t> samples;
    for (int count = 0; count < 50'000; ++count) {
        samples.push_back(static_cast<std::uint64_t>(std::exp2(exponent(random))));
        histogram.record(samples.back());
    }
    std::ranges::sort(samples);
    for (double percent = 0.5; percent <= 100; percent += 0.5) {
        const std::uint64_t want = exact(samples, percent);
        const std::uint64_t got = histogram.percentile_ns(percent);
        EXPECT_GE(got, want) << percent;
        EXPECT_LE(static_cast<double>(got), static_cast<double>(want) * 1.001) << percent;
    }
    EXPECT_EQ(histogram.percentile_ns(100), samples.back());
}

TEST(Histogram, bucket_limits_at_every_doubling) {
    for (int bit = 11; bit < 42; ++bit) {
        for (std::uint64_t value :
             {(std::uint64_t{1} << bit) - 1, std::uint64_t{1} << bit, (std::uint64_t{1} << bit) + 1,
              (std::uint64_t{3} << (bit - 1)) - 1}) {
            Histogram histogram;
            histogram.record(value);
            histogram.record(Histogram::highest_ns);  // or the maximum would hide the limit
            const std::uint64_t got = histogram.percentile_ns(50);
            EXPECT_GE(got, value);
            EXPECT_LE(got - value, value / 1024 + 1);
        }
    }
}

TEST(Histogram, what_is_too_long_counts_as_the_longest) {
    Histogram histogram;
    histogram.record(~std::uint64_t{0});
    EXPECT_EQ(histogram.percentile_ns(50), Histogram::highest_ns);
}

TEST(Histogram, sums_of_threads_equal_one_of_all) {
    Histogram all;
    Histogram one;
    Histogram other;
    for (std::uint64_t value = 1; value < 100'000; value += 7) {
        all.record(value);
        (value % 2 == 0 ? one : other).record(value);
    }
    one.add(other);
    one.add(Histogram());
    EXPECT_EQ(one.to_json().text(), all.to_json().text());
}

TEST(Histogram, buckets_are_highest_value_and_count) {
    Histogram histogram;
    histogram.record(7);
    histogram.record(7);
    histogram.record(4096);  // buckets of 4 ns
    EXPECT_NE(histogram.to_json().text().find("\"buckets_ns\":[[7,2],[4099,1]]"), std::string::npos)
        << histogram.to_json().text();
}

}  // namespace
}  // namespace bore::bench
