// The processor's time stamp counter, which all figures of the bench are made with, and the CPU
// time of the calling thread, which a busy neighbour on the same core does not lengthen.
#pragma once

#include <cstdint>
#include <ctime>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace bore::bench {

inline std::uint64_t clock_ns(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

inline std::uint64_t cycles() {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return clock_ns(CLOCK_MONOTONIC);
#endif
}

// Counts of cycles() per second, measured over 50 ms.
inline double cycles_per_second() {
    const std::uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    const std::uint64_t start = cycles();
    std::uint64_t end_ns = start_ns;
    while (end_ns < start_ns + 50'000'000) {
        end_ns = clock_ns(CLOCK_MONOTONIC);
    }
    return static_cast<double>(cycles() - start) * 1e9 / static_cast<double>(end_ns - start_ns);
}

}  // namespace bore::bench
