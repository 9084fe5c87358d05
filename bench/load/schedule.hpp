// When the requests of an open loop are due: evenly spaced, whatever the target does. Pure; the
// caller passes the time. A request that waits for a free connection keeps its intended time, so
// its latency counts from there and a target that stalls cannot hide the requests that it kept
// from being sent (coordinated omission).
#pragma once

#include <cstdint>

#include "dataplane/base/clock.hpp"

namespace bore::bench {

class OpenLoopSchedule {
  public:
    // Of `rate` requests a second from `start` on, this one has every `parts`th, from `part` on:
    // threads share a rate without meeting.
    OpenLoopSchedule(base::Nanoseconds start, base::Nanoseconds end, double rate,
                     std::uint32_t part = 0, std::uint32_t parts = 1)
        : start_(start), end_(end), rate_(rate), part_(part), parts_(parts) {}

    // The next request's intended time; at or past the end there is none.
    [[nodiscard]] base::Nanoseconds next_at() const {
        const double number = static_cast<double>(next_ * parts_ + part_);
        return start_ + static_cast<base::Nanoseconds>(number / rate_ * 1e9);
    }
    [[nodiscard]] bool is_due(base::Nanoseconds now) const { return !ended() && next_at() <= now; }
    [[nodiscard]] bool ended() const { return next_at() >= end_; }

    // Takes the next request; returns its intended time.
    base::Nanoseconds take() {
        const base::Nanoseconds at = next_at();
        ++next_;
        return at;
    }

  private:
    base::Nanoseconds start_;
    base::Nanoseconds end_;
    double rate_;
    std::uint64_t part_;
    std::uint64_t parts_;
    std::uint64_t next_ = 0;  // computed from a number, not by adding: no drift
};

}  // namespace bore::bench
