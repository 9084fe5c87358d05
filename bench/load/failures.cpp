// Names and sums behind failures.hpp.
#include "bench/load/failures.hpp"

#include <cerrno>
#include <numeric>

namespace bore::bench {
namespace {

constexpr std::array<std::string_view, reason_count> names = {"refused",  "unreachable", "reset",
                                                              "cut",      "stalled",     "corrupt",
                                                              "rejected", "protocol",    "local"};

bool is_local(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
           error == EADDRNOTAVAIL || error == EADDRINUSE || error == EAGAIN;
}

}  // namespace

std::string_view to_string(Reason reason) {
    return names[static_cast<std::size_t>(reason)];
}

Reason reason_of_connect(int error) {
    if (error == ECONNREFUSED) {
        return Reason::refused;
    }
    if (error == ECONNRESET) {
        return Reason::reset;
    }
    return is_local(error) ? Reason::local : Reason::unreachable;
}

Reason reason_of_stream(int error) {
    return error == ETIMEDOUT ? Reason::stalled : is_local(error) ? Reason::local : Reason::reset;
}

void Failures::count(Reason reason, const std::string& what) {
    if (total() == 0) {
        first_ = std::string(to_string(reason)) + ": " + what;
    }
    ++counts_[static_cast<std::size_t>(reason)];
}

void Failures::add(const Failures& other) {
    if (total() == 0) {
        first_ = other.first_;
    }
    for (std::size_t index = 0; index < reason_count; ++index) {
        counts_[index] += other.counts_[index];
    }
}

std::uint64_t Failures::total() const {
    return std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
}

void Failures::add_to(JsonLine& line) const {
    JsonLine by_reason;
    for (std::size_t index = 0; index < reason_count; ++index) {
        if (counts_[index] > 0) {
            by_reason.add(names[index], counts_[index]);
        }
    }
    line.add("failures", total()).add("failures_by_reason", by_reason).add("first_failure", first_);
}

}  // namespace bore::bench
