// Why something failed, and how often. Every mode counts by the same reasons, so that two targets
// can be compared by how they fail.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "bench/load/json_line.hpp"

namespace bore::bench {

enum class Reason : std::uint8_t {
    refused,      // the connect was refused
    unreachable,  // any other error of a connect
    reset,
    cut,       // FIN before what was due
    stalled,   // no progress for --stall-s, or not complete at the deadline
    corrupt,   // a byte that differs, or one too many
    rejected,  // the relay said so in an Error message
    protocol,  // not the bore protocol
    local,     // this machine has no port, descriptor or memory left
};
inline constexpr std::size_t reason_count = 9;

[[nodiscard]] std::string_view to_string(Reason reason);
[[nodiscard]] Reason reason_of_connect(int error);
[[nodiscard]] Reason reason_of_stream(int error);

class Failures {
  public:
    // `what` says which one and how; only the first is kept.
    void count(Reason reason, const std::string& what);
    void add(const Failures& other);

    [[nodiscard]] std::uint64_t total() const;
    [[nodiscard]] std::uint64_t of(Reason reason) const {
        return counts_[static_cast<std::size_t>(reason)];
    }
    // failures, failures_by_reason, first_failure
    void add_to(JsonLine& line) const;

  private:
    std::array<std::uint64_t, reason_count> counts_{};
    std::string first_;
};

}  // namespace bore::bench
