// Latencies of one run: every sample is kept, so percentiles are exact. Pure; tested by
// latency_test.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace bore::bench {

class Latencies {
  public:
    void record(std::uint64_t latency_ns) {
        // 32 bits hold 4.29 s; what takes longer is counted as that.
        constexpr std::uint64_t longest = std::numeric_limits<std::uint32_t>::max();
        samples_ns_.push_back(static_cast<std::uint32_t>(std::min(latency_ns, longest)));
    }

    [[nodiscard]] std::uint64_t count() const { return samples_ns_.size(); }

    // Nearest rank: the smallest sample that at least `percent` of all samples do not exceed.
    // 0 when there is no sample.
    [[nodiscard]] double percentile_us(double percent) {
        if (samples_ns_.empty()) {
            return 0;
        }
        const double count = static_cast<double>(samples_ns_.size());
        // The small term keeps 99.9 % of 1000 at rank 999 in spite of binary fractions.
        const double rank = std::ceil(percent / 100 * count - 1e-9);
        const auto index = static_cast<std::ptrdiff_t>(std::clamp(rank, 1.0, count)) - 1;
        std::nth_element(samples_ns_.begin(), samples_ns_.begin() + index, samples_ns_.end());
        return static_cast<double>(samples_ns_[static_cast<std::size_t>(index)]) / 1000;
    }

  private:
    std::vector<std::uint32_t> samples_ns_;
};

}  // namespace bore::bench
