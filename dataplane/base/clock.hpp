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

// CLOCK_REALTIME, for what people and other machines read.
inline Nanoseconds realtime_now() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<Nanoseconds>(now.tv_sec) * second_ns + static_cast<Nanoseconds>(now.tv_nsec);
}

}  // namespace bore::base
