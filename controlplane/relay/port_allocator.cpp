// The bitmap and the search.
#include "controlplane/relay/port_allocator.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "dataplane/base/check.hpp"

namespace bore::relay {

namespace {

PortError error_of(int error_number) {
    switch (error_number) {
        case EADDRINUSE:
            return PortError::in_use;
        case EACCES:
            return PortError::permission_denied;
        default:
            return PortError::bind_failed;
    }
}

}  // namespace

PortAllocator::PortAllocator(std::uint16_t min, std::uint16_t max,
                             std::span<const std::uint16_t> reserved)
    : min_(min), end_(std::uint32_t{max} + 1) {
    BORE_CHECK(min >= 1 && min <= max, "port range is empty");
    for (std::uint32_t port = min_; port < end_; ++port) {
        set(allowed_, port);
    }
    for (const std::uint16_t port : reserved) {
        clear(allowed_, port);
    }
    free_ = allowed_;
    for (const std::uint64_t word : free_) {
        free_count_ += static_cast<std::uint32_t>(std::popcount(word));
    }
}

std::expected<std::uint16_t, PortError> PortAllocator::allocate(std::uint16_t requested,
                                                                std::uint32_t random,
                                                                const Bind& bind) {
    return requested != 0 ? allocate_fixed(requested, bind) : allocate_any(random, bind);
}

std::expected<std::uint16_t, PortError> PortAllocator::allocate_fixed(std::uint16_t port,
                                                                      const Bind& bind) {
    if (!allowed(port)) {
        return std::unexpected(PortError::not_allowed);
    }
    if (!bit(free_, port)) {
        return std::unexpected(PortError::in_use);
    }
    if (const int error_number = bind(port); error_number != 0) {
        return std::unexpected(error_of(error_number));
    }
    take(port);
    return port;
}

std::expected<std::uint16_t, PortError> PortAllocator::allocate_any(std::uint32_t random,
                                                                    const Bind& bind) {
    const std::uint32_t start = min_ + random % (end_ - min_);
    // From the start to the end of the range, then from its beginning to the start.
    const std::array<std::array<std::uint32_t, 2>, 2> spans{{{start, end_}, {min_, start}}};
    for (const auto& [begin, end] : spans) {
        auto candidate = first_free(begin, end);
        while (candidate) {
            const auto port = static_cast<std::uint16_t>(*candidate);
            const int error_number = bind(port);
            if (error_number == 0) {
                take(port);
                return port;
            }
            // Another program's port, or one that this process may not bind: the next. Anything
            // else (no descriptor, no such address) would fail for every port.
            if (error_number != EADDRINUSE && error_number != EACCES) {
                return std::unexpected(PortError::bind_failed);
            }
            candidate = first_free(*candidate + 1, end);
        }
    }
    return std::unexpected(PortError::none_left);
}

std::optional<std::uint32_t> PortAllocator::first_free(std::uint32_t from,
                                                       std::uint32_t end) const {
    while (from < end) {
        const std::uint64_t rest = free_[from / word_bits] >> (from % word_bits);
        if (rest != 0) {
            const std::uint32_t port = from + static_cast<std::uint32_t>(std::countr_zero(rest));
            return port < end ? std::optional(port) : std::nullopt;
        }
        from = (from / word_bits + 1) * word_bits;
    }
    return std::nullopt;
}

void PortAllocator::take(std::uint16_t port) {
    clear(free_, port);
    --free_count_;
}

void PortAllocator::give_back(std::uint16_t port) {
    BORE_CHECK(allowed(port) && !bit(free_, port), "a port was given back twice");
    set(free_, port);
    ++free_count_;
}

}  // namespace bore::relay
