// Numbers as a person reads them, in ASCII and few columns. Decimal units, as networks are
// measured.
#pragma once

#include <cstdint>
#include <string>

#include "dataplane/base/clock.hpp"

namespace bore::ctl {

[[nodiscard]] std::string bytes_text(std::uint64_t bytes);     // 999 B, 1.23 kB, 45.6 GB
[[nodiscard]] std::string rate_text(double bytes_per_second);  // 1.23 MB/s; 0 = "-"
[[nodiscard]] std::string duration_text(
    base::Nanoseconds duration);                                 // 42 ns, 1.5 ms, 3m 20s, 5d 2h
[[nodiscard]] std::string time_text(std::uint64_t realtime_ns);  // 2026-11-29T14:02:03Z
[[nodiscard]] std::string percent_text(double share);            // 0.123 -> 12.3 %

}  // namespace bore::ctl
