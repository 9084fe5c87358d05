// The buckets behind histogram.hpp. A value with its highest bit at position b >= 11 is shifted
// right by b - 10, which leaves 1024..2047: the bucket's place within its doubling.
#include "bench/load/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

namespace bore::bench {

void Histogram::record(std::uint64_t latency_ns) {
    if (counts_.empty()) {
        counts_.resize(bucket_count);
    }
    const std::uint64_t value = std::min(latency_ns, highest_ns);
    ++counts_[index_of(value)];
    ++count_;
    max_ns_ = std::max(max_ns_, value);
    sum_ns_ += static_cast<double>(value);
}

void Histogram::add(const Histogram& other) {
    if (other.counts_.empty()) {
        return;
    }
    counts_.resize(bucket_count);
    std::ranges::transform(counts_, other.counts_, counts_.begin(), std::plus<>());
    count_ += other.count_;
    max_ns_ = std::max(max_ns_, other.max_ns_);
    sum_ns_ += other.sum_ns_;
}

std::uint64_t Histogram::percentile_ns(double percent) const {
    if (count_ == 0) {
        return 0;
    }
    const double count = static_cast<double>(count_);
    // The small term keeps 99.9 % of 1000 at rank 999 in spite of binary fractions.
    const double rank = std::clamp(std::ceil(percent / 100 * count - 1e-9), 1.0, count);
    auto left = static_cast<std::uint64_t>(rank);
    for (std::size_t index = 0; index < counts_.size(); ++index) {
        if (counts_[index] >= left) {
            return std::min(highest_of(index), max_ns_);
        }
        left -= counts_[index];
    }
    return max_ns_;
}

std::size_t Histogram::index_of(std::uint64_t value_ns) {
    if (value_ns < exact_count) {
        return static_cast<std::size_t>(value_ns);
    }
    const auto shift = static_cast<std::uint64_t>(std::bit_width(value_ns)) - exact_bits;
    return static_cast<std::size_t>(shift * half_count + (value_ns >> shift));
}

std::uint64_t Histogram::highest_of(std::size_t index) {
    if (index < exact_count) {
        return index;
    }
    const std::uint64_t shift = index / half_count - 1;
    return ((index - shift * half_count + 1) << shift) - 1;
}

void Histogram::add_to(JsonLine& line) const {
    line.add("p50_us", percentile_us(50))
        .add("p90_us", percentile_us(90))
        .add("p99_us", percentile_us(99))
        .add("p999_us", percentile_us(99.9))
        .add("max_us", static_cast<double>(max_ns_) / 1000)
        .add("mean_us", count_ == 0 ? 0 : sum_ns_ / static_cast<double>(count_) / 1000)
        .raw("buckets_ns", buckets_json());
}

JsonLine Histogram::to_json() const {
    JsonLine line;
    line.add("count", count_);
    add_to(line);
    return line;
}

std::string Histogram::buckets_json() const {
    std::string text = "[";
    for (std::size_t index = 0; index < counts_.size(); ++index) {
        if (counts_[index] > 0) {
            text += text.size() > 1 ? ",[" : "[";
            text += std::to_string(highest_of(index)) + ',' + std::to_string(counts_[index]) + ']';
        }
    }
    return text + ']';
}

}  // namespace bore::bench
