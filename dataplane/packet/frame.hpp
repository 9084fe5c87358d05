// A frame in a buffer, as a port's driver shows it to the packet path, and the byte order helpers
// that everything in this folder reads and writes headers with. A frame is a view: whoever holds it
// owns the buffer behind it until it gives it to a port, a ring or back to its driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace bore::packet {

// What the NIC said of the checksums of a received frame.
enum class ReceivedChecksum : std::uint8_t { unknown, good, bad };

// One Ethernet frame in one contiguous buffer: bytes [data, data + length_bytes). In front of it
// headroom_bytes may be written, too (VLAN tag, inserted options).
struct Frame {
    std::byte* data{nullptr};
    std::uint16_t length_bytes{0};
    std::uint16_t headroom_bytes{0};
    std::uint16_t tailroom_bytes{0};  // behind it; only of a buffer that was just allocated
    std::uint8_t port_index{0};       // received on, or to be sent on
    ReceivedChecksum checksum{ReceivedChecksum::unknown};
    void* buffer{nullptr};  // the driver's handle, an rte_mbuf for DPDK

    [[nodiscard]] std::span<std::byte> bytes() const { return {data, length_bytes}; }
};

// Frames that one call moves at most: twice DPDK's usual burst, because what is done once per burst
// weighs on each packet (2 cycles of 83), and what prefetching hides latency with.
inline constexpr std::size_t max_burst = 64;

// How many frames from the first on have its port; 0 of none.
[[nodiscard]] inline std::size_t leading_of_one_port(std::span<const Frame> frames) {
    const std::uint8_t port_index = frames.empty() ? std::uint8_t{0} : frames.front().port_index;
#pragma GCC unroll 4
    for (std::size_t index = 0; index < frames.size(); ++index) {
        if (frames[index].port_index != port_index) {
            return index;
        }
    }
    return frames.size();
}

// Network byte order; the compiler makes one load and a bswap of each.
inline std::uint8_t load8(const std::byte* at) {
    return static_cast<std::uint8_t>(*at);
}
inline std::uint16_t load16(const std::byte* at) {
    std::uint16_t value;
    std::memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}
inline std::uint32_t load32(const std::byte* at) {
    std::uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}
inline void store8(std::byte* at, std::uint8_t value) {
    *at = static_cast<std::byte>(value);
}
inline void store16(std::byte* at, std::uint16_t value) {
    value = __builtin_bswap16(value);
    std::memcpy(at, &value, sizeof value);
}
inline void store32(std::byte* at, std::uint32_t value) {
    value = __builtin_bswap32(value);
    std::memcpy(at, &value, sizeof value);
}

// Sequence numbers compare modulo 2^32 (RFC 9293, 3.4).
inline bool sequence_before(std::uint32_t left, std::uint32_t right) {
    return static_cast<std::int32_t>(left - right) < 0;
}
inline bool sequence_after(std::uint32_t left, std::uint32_t right) {
    return sequence_before(right, left);
}

inline constexpr std::uint8_t tcp_fin = 0x01;
inline constexpr std::uint8_t tcp_syn = 0x02;
inline constexpr std::uint8_t tcp_rst = 0x04;
inline constexpr std::uint8_t tcp_psh = 0x08;
inline constexpr std::uint8_t tcp_ack = 0x10;
inline constexpr std::uint8_t tcp_urg = 0x20;
inline constexpr std::uint8_t tcp_ece = 0x40;
inline constexpr std::uint8_t tcp_cwr = 0x80;

}  // namespace bore::packet
