// The Internet checksum (RFC 1071): full sums, and changes of a sum when words under it change
// (RFC 1624, equation 3). One's complement addition does not care for byte order as long as the
// words keep their places, so everything here works on words as they lie in memory.
//
// Zero: a sum of words that are not all zero never folds to 0x0000, so its complement is never
// 0xffff; equation 3 keeps that. A received 0xffff (which is the same number) becomes the usual
// form when the sum is changed.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bore::packet {

static_assert(std::endian::native == std::endian::little, "odd bytes are placed for this order");

inline std::uint16_t word16(const std::byte* at) {
    std::uint16_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}
inline std::uint32_t word32(const std::byte* at) {
    std::uint32_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}
inline void put_word16(std::byte* at, std::uint16_t word) {
    std::memcpy(at, &word, sizeof word);
}
inline void put_word32(std::byte* at, std::uint32_t word) {
    std::memcpy(at, &word, sizeof word);
}

// Any sum down to 16 bits. Adding a number to itself with its halves swapped leaves the sum of the
// halves in the upper half, the carry of the lower one included.
inline std::uint16_t fold(std::uint64_t sum) {
    const auto half = static_cast<std::uint32_t>((sum + std::rotl(sum, 32)) >> 32U);
    return static_cast<std::uint16_t>((half + std::rotl(half, 16)) >> 16U);
}

// What replacing a word at an even offset adds to the sum.
inline std::uint64_t change16(std::uint16_t before, std::uint16_t after) {
    return std::uint64_t{static_cast<std::uint16_t>(~before)} + after;
}
inline std::uint64_t change32(std::uint32_t before, std::uint32_t after) {
    return std::uint64_t{~before} + after;
}

// The checksum field after the change.
inline std::uint16_t changed_checksum(std::uint16_t checksum, std::uint64_t change) {
    return static_cast<std::uint16_t>(~fold(change + static_cast<std::uint16_t>(~checksum)));
}

// The sum over any bytes, the first at an even offset, an odd last one filled up with zero.
inline std::uint64_t sum_of(const std::byte* at, std::size_t size_bytes) {
    std::uint64_t sum = 0;
    for (; size_bytes >= 4; at += 4, size_bytes -= 4) {
        sum += word32(at);
    }
    if (size_bytes >= 2) {
        sum += word16(at);
        at += 2;
        size_bytes -= 2;
    }
    if (size_bytes == 1) {
        sum += static_cast<std::uint8_t>(*at);
    }
    return sum;
}

// What the pseudo header has besides the addresses: protocol TCP and the TCP length, in the same
// places for IPv4 and IPv6 as far as the sum is concerned.
inline std::uint64_t pseudo_sum(std::size_t tcp_bytes) {
    constexpr std::uint16_t protocol_tcp_word = 0x0600;
    return std::uint64_t{protocol_tcp_word} +
           __builtin_bswap16(static_cast<std::uint16_t>(tcp_bytes));
}

}  // namespace bore::packet
