// Latencies of one run in log-linear buckets, as HdrHistogram lays them out with three significant
// digits: exact below 2048 ns, from then on 1024 buckets to each doubling, so none is wider than
// 0.1 % of its values. Recording is one addition; histograms of several threads are added. Pure;
// tested by histogram_test.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/load/json_line.hpp"

namespace bore::bench {

class Histogram {
  public:
    // 2^42 ns are 73 minutes; what takes longer counts as that.
    static constexpr std::uint64_t highest_ns = (std::uint64_t{1} << 42) - 1;

    void record(std::uint64_t latency_ns);
    void add(const Histogram& other);

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] std::uint64_t max_ns() const { return max_ns_; }
    // Nearest rank: the highest value of the bucket with the smallest sample that at least
    // `percent` of all samples do not exceed; never more than the maximum. 0 without a sample.
    [[nodiscard]] std::uint64_t percentile_ns(double percent) const;
    [[nodiscard]] double percentile_us(double percent) const {
        return static_cast<double>(percentile_ns(percent)) / 1000;
    }

    // p50_us, p90_us, p99_us, p999_us, max_us, mean_us and buckets_ns.
    void add_to(JsonLine& line) const;
    [[nodiscard]] JsonLine to_json() const;

  private:
    static constexpr int exact_bits = 11;  // values below 2^11 have a bucket each
    static constexpr std::uint64_t exact_count = 1U << exact_bits;
    static constexpr std::uint64_t half_count = exact_count / 2;  // buckets to a doubling
    static constexpr std::size_t bucket_count = exact_count + (42 - exact_bits) * half_count;

    [[nodiscard]] static std::size_t index_of(std::uint64_t value_ns);
    [[nodiscard]] static std::uint64_t highest_of(std::size_t index);
    [[nodiscard]] std::string buckets_json() const;

    // 264 KiB, of which a run touches a few lines; none before the first sample.
    std::vector<std::uint64_t> counts_;
    std::uint64_t count_ = 0;
    std::uint64_t max_ns_ = 0;
    double sum_ns_ = 0;
};

}  // namespace bore::bench
