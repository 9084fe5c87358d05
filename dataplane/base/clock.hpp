// The one clock of all loops: CLOCK_MONOTONIC in nanoseconds. A loop reads it once per turn and
// passes the value down; nothing below a loop reads a clock, so that tests can own time.
#pragma once

#include <time.h>

#include <cstdint>

namespace bore::base {

using Nanoseconds = std::uint64_t;

inline constexpr Nanoseconds microsecond_ns = 1'000;
inline constexpr Nanoseconds millisecond_ns = 1'000'000;
inline constexpr Nanoseconds second_ns = 1'000'000'000;

inline Nanoseconds monotonic_now() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);  // vDSO: about 20 ns
    return static_cast<Nanoseconds>(now.tv_sec) * second_ns + static_cast<Nanoseconds>(now.tv_nsec);
}

// The clock of a loop that turns far more often than its time must be exact: read every eighth
// turn, and after expire().
class CoarseClock {
  public:
    Nanoseconds now() {
        if (turns_left_ == 0) {
            turns_left_ = turns_per_reading;
            now_ = monotonic_now();
        }
        --turns_left_;
        return now_;
    }
    void expire() { turns_left_ = 0; }

  private:
    static constexpr std::uint32_t turns_per_reading = 8;
    Nanoseconds now_{0};
    std::uint32_t turns_left_{0};
};

// CLOCK_REALTIME, for what people and other machines read.
inline Nanoseconds realtime_now() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<Nanoseconds>(now.tv_sec) * second_ns + static_cast<Nanoseconds>(now.tv_nsec);
}

}  // namespace bore::base
