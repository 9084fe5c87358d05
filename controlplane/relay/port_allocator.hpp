// Which tunnel ports are free: one bit per port. Chooses by number or at random, asks the caller to
// bind, and goes on to the next free one where another program of the host holds a port, so it
// succeeds whenever one port is left. Pure but for the caller's bind function.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <span>

namespace bore::relay {

enum class PortError : std::uint8_t {
    not_allowed,  // outside the range, or reserved
    in_use,
    permission_denied,
    bind_failed,
    none_left,
};

class PortAllocator {
  public:
    // Binds the port on all tunnel addresses; 0 or the errno of the first failure.
    using Bind = std::function<int(std::uint16_t port)>;

    // Ports min..max without `reserved`.
    PortAllocator(std::uint16_t min, std::uint16_t max, std::span<const std::uint16_t> reserved);

    // `requested` 0 = any: the search starts at `random` modulo the range, so that ports can
    // neither be guessed nor come back at once.
    [[nodiscard]] std::expected<std::uint16_t, PortError> allocate(std::uint16_t requested,
                                                                   std::uint32_t random,
                                                                   const Bind& bind);
    void give_back(std::uint16_t port);

    [[nodiscard]] bool allowed(std::uint16_t port) const { return bit(allowed_, port); }
    [[nodiscard]] std::uint32_t free_count() const { return free_count_; }

  private:
    static constexpr std::uint32_t word_bits = 64;
    using Bits = std::array<std::uint64_t, 65536 / word_bits>;

    static bool bit(const Bits& bits, std::uint32_t port) {
        return ((bits[port / word_bits] >> (port % word_bits)) & 1U) != 0;
    }
    static void set(Bits& bits, std::uint32_t port) {
        bits[port / word_bits] |= std::uint64_t{1} << (port % word_bits);
    }
    static void clear(Bits& bits, std::uint32_t port) {
        bits[port / word_bits] &= ~(std::uint64_t{1} << (port % word_bits));
    }

    [[nodiscard]] std::expected<std::uint16_t, PortError> allocate_fixed(std::uint16_t port,
                                                                         const Bind& bind);
    [[nodiscard]] std::expected<std::uint16_t, PortError> allocate_any(std::uint32_t random,
                                                                       const Bind& bind);
    // The first free port of [from, end); one comparison per 64 ports.
    [[nodiscard]] std::optional<std::uint32_t> first_free(std::uint32_t from,
                                                          std::uint32_t end) const;
    void take(std::uint16_t port);

    std::uint32_t min_;
    std::uint32_t end_;
    std::uint32_t free_count_{0};
    Bits allowed_{};
    Bits free_{};
};

}  // namespace bore::relay
