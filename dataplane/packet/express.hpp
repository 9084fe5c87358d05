// The shortest way through the packet path: an untagged IPv4 segment with ACK and perhaps PSH, no
// option or exactly NOP NOP timestamps, of a flow that nothing special is under way on. What it
// does is what translate() does, in a third of the instructions: every field is loaded once, every
// condition is tested before anything is written, and whatever does not fit is left untouched for
// the general way. A test holds both to the same bytes and the same state.
//
//   recognize()  the frame alone: its shape, its key
//   pass()       with the entry of its direction: the rest of the conditions, then the rewriting
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/flow_entry.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/frame.hpp"
#include "dataplane/packet/translate.hpp"

namespace bore::packet::express {

// Offsets in the frame.
inline constexpr std::size_t ethertype_at = 12;
inline constexpr std::size_t first_word_at = 14;  // version, header length, DSCP and ECN
inline constexpr std::size_t total_bytes_at = 16;
inline constexpr std::size_t fragment_at = 20;
inline constexpr std::size_t ttl_at = 22;
inline constexpr std::size_t ip_checksum_at = 24;
inline constexpr std::size_t addresses_at = 26;
inline constexpr std::size_t ports_at = 34;
inline constexpr std::size_t sequence_at = 38;
inline constexpr std::size_t acknowledgement_at = 42;
inline constexpr std::size_t offset_at = 46;  // header length, flags
inline constexpr std::size_t window_at = 48;
inline constexpr std::size_t checksum_at = 50;
inline constexpr std::size_t options_at = 54;

inline std::uint64_t word64(const std::byte* at) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}
inline void put_word64(std::byte* at, std::uint64_t word) {
    std::memcpy(at, &word, sizeof word);
}

inline std::uint64_t halves(std::uint64_t word) {
    return (word >> 32U) + (word & 0xffff'ffffU);
}

// Words as they lie in memory, read as little-endian.
inline constexpr std::uint16_t plain_offset = 0x1850;    // 20 bytes; ACK, PSH
inline constexpr std::uint16_t stamped_offset = 0x1880;  // 32 bytes
inline constexpr std::uint16_t push_bit = 0x0800;
// IP and TCP.
inline constexpr std::uint32_t plain_headers_bytes = 40;
inline constexpr std::uint32_t stamped_headers_bytes = 52;

// Multiples of 65535, so that differences can be added up without becoming negative.
inline constexpr std::uint64_t bias = std::uint64_t{0xffff'ffff} * 16;

// A sum of 64 bits down to 16, end-around carries included.
inline std::uint16_t fold64(std::uint64_t sum) {
    const auto half = static_cast<std::uint32_t>((sum + std::rotr(sum, 32)) >> 32U);
    return static_cast<std::uint16_t>((half + std::rotr(half, 16)) >> 16U);
}

[[nodiscard]] inline FlowTable::Key4 key_of(const std::byte* at) {
    return {.source = word32(at + addresses_at),
            .destination = word32(at + addresses_at + 4),
            .ports = word32(at + ports_at)};
}

enum class Shape : std::uint8_t { plain, stamped, other };

[[nodiscard]] inline Shape recognize(const Frame& frame) {
    const std::byte* at = frame.data;
    const std::uint32_t length = frame.length_bytes;
    if (length < options_at) [[unlikely]] {
        return Shape::other;
    }
    // Ethertype, version 4 and five words of header; no fragment, protocol TCP.
    const std::uint32_t kind = word32(at + ethertype_at) & 0x00ff'ffffU;
    const std::uint32_t carried = word32(at + fragment_at) & 0xff00'ff3fU;
    if (((kind ^ 0x0045'0008U) | (carried ^ 0x0600'0000U)) != 0) [[unlikely]] {
        return Shape::other;
    }
    const std::uint32_t offset = word16(at + offset_at) | push_bit;
    const std::uint32_t total_bytes = load16(at + total_bytes_at);
    if (total_bytes + ethernet_header_bytes > length) [[unlikely]] {
        return Shape::other;
    }
    if (offset == plain_offset) {
        return total_bytes >= plain_headers_bytes ? Shape::plain : Shape::other;
    }
    const bool stamped = offset == stamped_offset && total_bytes >= stamped_headers_bytes &&
                         word32(at + options_at) == usual_option_word;
    return stamped ? Shape::stamped : Shape::other;
}

inline constexpr std::uint32_t refused = 0xffff'ffff;

// A frame of that shape, and the entry that it may belong to. Returns the bytes that it newly
// acknowledges; or `refused`, nothing was changed, and the general way decides.
template <bool stamped>
[[nodiscard]] inline std::uint32_t pass(Frame& frame, DirectionEntry& entry,
                                        const Adjacency* adjacencies, std::uint16_t tick) {
    std::byte* const at = frame.data;
    const std::byte* const fields = reinterpret_cast<const std::byte*>(&entry);
    const std::uint64_t in_addresses = word64(fields + offsetof(DirectionEntry, in_source));
    const std::uint32_t in_ports = entry.in_ports;
    // Of the flags only timestamps count here; IPv6 goes the general way, and so
    // does whatever has a bit in `state`, a rate among them.
    constexpr std::uint8_t harmless = flag_sack | flag_no_window_scale;
    const auto flags = static_cast<std::uint8_t>(entry.flags & ~harmless);
    const std::uint32_t special =
        static_cast<std::uint32_t>(flags ^ (stamped ? both_timestamps : std::uint8_t{0})) |
        entry.state.load(std::memory_order_relaxed) |
        entry.other_fin.load(std::memory_order_relaxed);
    if (((in_addresses ^ word64(at + addresses_at)) | (in_ports ^ word32(at + ports_at)) |
         special) != 0) [[unlikely]] {
        return refused;
    }
    const std::uint32_t total_bytes = load16(at + total_bytes_at);
    constexpr std::uint32_t headers_bytes = stamped ? stamped_headers_bytes : plain_headers_bytes;
    const std::uint32_t sequence = load32(at + sequence_at);
    const std::uint32_t acknowledgement = load32(at + acknowledgement_at);
    const std::uint32_t next = entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t highest = entry.acknowledged.load(std::memory_order_relaxed);
    const std::uint32_t end = sequence + (total_bytes - headers_bytes);
    const std::uint32_t advance = acknowledgement - highest;
    const Adjacency& adjacency = adjacencies[entry.adjacency.load(std::memory_order_acquire)];
    const std::uint32_t ttl = load8(at + ttl_at);
    if (sequence - next > near_bytes || acknowledgement < highest ||
        ((end ^ next) | (acknowledgement ^ highest)) >= near_bytes ||
        total_bytes - plain_headers_bytes > entry.out_mss || ttl <= 1 ||
        adjacency.header_bytes != ethernet_header_bytes) [[unlikely]] {
        return refused;
    }
    const std::uint32_t window = load16(at + window_at);
    const std::uint32_t window_bytes = window << (entry.window_scales & 0x0fU);
    const std::uint32_t scaled = window_bytes >> (entry.window_scales >> 4U);
    if (scaled > 0xffff) [[unlikely]] {
        return refused;
    }
    // Nothing speaks against it: from here on things change.
    const std::uint32_t edge = acknowledgement + window_bytes;
    const std::uint32_t edge_before = entry.window_edge.load(std::memory_order_relaxed);
    entry.window_edge.store(sequence_after(edge, edge_before) ? edge : edge_before,
                            std::memory_order_relaxed);
    entry.next_sequence.store(end, std::memory_order_relaxed);
    entry.acknowledged.store(acknowledgement, std::memory_order_relaxed);
    entry.last_seen.store(tick, std::memory_order_relaxed);

    const std::uint64_t out_addresses = word64(fields + offsetof(DirectionEntry, out_source));
    const std::uint32_t out_ports = entry.out_ports;
    const std::uint32_t sequence_word = __builtin_bswap32(sequence + entry.sequence_delta);
    const std::uint32_t acknowledgement_word =
        __builtin_bswap32(acknowledgement + entry.acknowledgement_delta);
    const std::uint16_t window_word = __builtin_bswap16(static_cast<std::uint16_t>(scaled));
    const std::uint64_t addresses = bias + halves(out_addresses) - halves(in_addresses);
    std::uint64_t sum = addresses + out_ports - in_ports + sequence_word -
                        word32(at + sequence_at) + acknowledgement_word -
                        word32(at + acknowledgement_at) + window_word - word16(at + window_at) +
                        static_cast<std::uint16_t>(~word16(at + checksum_at));
    if constexpr (stamped) {
        const std::uint32_t value = word32(at + options_at + 4);
        const std::uint32_t echo = word32(at + options_at + 8);
        const std::uint32_t value_word =
            __builtin_bswap32(__builtin_bswap32(value) + entry.timestamp_delta);
        const std::uint32_t echo_word =
            __builtin_bswap32(__builtin_bswap32(echo) + entry.timestamp_echo_delta);
        sum += std::uint64_t{value_word} - value + echo_word - echo;
        put_word32(at + options_at + 4, value_word);
        put_word32(at + options_at + 8, echo_word);
    }
    const std::uint32_t ecn = word16(at + first_word_at) & ecn_mask<false>;
    const std::uint64_t ip_sum =
        addresses - ecn - 1 + static_cast<std::uint16_t>(~word16(at + ip_checksum_at));
    std::memcpy(at, adjacency.header.data(), 8);
    std::memcpy(at + 8, adjacency.header.data() + 8, 4);
    store8(at + first_word_at + 1,
           static_cast<std::uint8_t>(load8(at + first_word_at + 1) & 0xfcU));
    store8(at + ttl_at, static_cast<std::uint8_t>(ttl - 1));
    put_word16(at + ip_checksum_at, static_cast<std::uint16_t>(~fold64(ip_sum)));
    put_word64(at + addresses_at, out_addresses);
    put_word32(at + ports_at, out_ports);
    put_word32(at + sequence_at, sequence_word);
    put_word32(at + acknowledgement_at, acknowledgement_word);
    put_word16(at + window_at, window_word);
    put_word16(at + checksum_at, static_cast<std::uint16_t>(~fold64(sum)));

    const std::uint32_t length = ethernet_header_bytes + total_bytes;
    frame.tailroom_bytes =
        static_cast<std::uint16_t>(frame.tailroom_bytes + frame.length_bytes - length);
    frame.length_bytes = static_cast<std::uint16_t>(length);
    frame.port_index = adjacency.port_index;
    return advance;
}

}  // namespace bore::packet::express
