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

// Words as they lie in memory, read as little-endian.
inline constexpr std::uint16_t plain_offset = 0x1850;    // 20 bytes; ACK, PSH
inline constexpr std::uint16_t stamped_offset = 0x1880;  // 32 bytes
inline constexpr std::uint16_t push_bit = 0x0800;
// IP and TCP.
inline constexpr std::uint32_t plain_headers_bytes = 40;
inline constexpr std::uint32_t stamped_headers_bytes = 52;

// A multiple of 65535, so that differences can be added up without becoming negative.
inline constexpr std::uint32_t bias = 0xffff * 4;

// A sum of few 16-bit words down to one, end-around carries included.
inline std::uint16_t fold32(std::uint32_t sum) {
    const std::uint32_t once = (sum & 0xffffU) + (sum >> 16U);
    return static_cast<std::uint16_t>(once + (once >> 16U));
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
    // Ethertype, version 4 and five words of header, no ECN; no fragment, protocol TCP.
    const std::uint32_t kind = word32(at + ethertype_at) & 0x03ff'ffffU;
    const std::uint32_t carried = word32(at + fragment_at) & 0xff00'ff3fU;
    if (((kind ^ 0x0045'0008U) | (carried ^ 0x0600'0000U)) != 0) [[unlikely]] {
        return Shape::other;
    }
    const std::uint32_t offset = word16(at + offset_at) | push_bit;
    const std::uint32_t total_bytes = load16(at + total_bytes_at);
    // Lower and upper bound of the length at once: below the headers it becomes a large number.
    const auto room = static_cast<std::uint32_t>(length - options_at);
    if (offset == plain_offset) {
        return total_bytes - plain_headers_bytes <= room ? Shape::plain : Shape::other;
    }
    const bool stamped = offset == stamped_offset && total_bytes >= stamped_headers_bytes &&
                         total_bytes - plain_headers_bytes <= room &&
                         word32(at + options_at) == usual_option_word;
    return stamped ? Shape::stamped : Shape::other;
}

inline constexpr std::uint32_t refused = 0xffff'ffff;

// Whether numbers may leave the block of the latest ones: a segment that moves into another block
// must begin in the window that the other peer has announced, an acknowledgement that does must lie
// within what the other peer has sent. Looks at the other direction, which another core may be
// writing; about 1 in 22 full segments comes here.
[[gnu::noinline, nodiscard]] inline bool may_leave_block(std::uint32_t sequence, std::uint32_t end,
                                                         std::uint32_t acknowledgement,
                                                         const DirectionEntry& entry,
                                                         const DirectionEntry& other) {
    const std::uint32_t next = entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t highest = entry.acknowledged.load(std::memory_order_relaxed);
    if ((end ^ next) >= max_flight_bytes) {
        return false;  // first_sequence moves along
    }
    const std::uint32_t edge =
        other.window_edge.load(std::memory_order_relaxed) - entry.sequence_delta;
    const std::uint32_t sent =
        other.next_sequence.load(std::memory_order_relaxed) - entry.acknowledgement_delta;
    const bool acknowledgement_fits =
        (acknowledgement ^ highest) < near_bytes ||
        (sequence_after(acknowledgement, highest) && !sequence_after(acknowledgement, sent));
    return ((end ^ next) < near_bytes || !sequence_after(sequence, edge)) && acknowledgement_fits;
}

// A frame of that shape, and the direction that it may belong to, of two that are a flow. Returns
// the bytes that it newly acknowledges; or `refused`, nothing was changed, and the general way
// decides.
template <bool stamped>
[[nodiscard]] inline std::uint32_t pass(Frame& frame, DirectionEntry* entries,
                                        DirectionIndex direction, const Adjacency* adjacencies,
                                        std::uint16_t tick) {
    DirectionEntry& entry = entries[direction];
    std::byte* const at = frame.data;
    const std::byte* const fields = reinterpret_cast<const std::byte*>(&entry);
    // Of the flags only timestamps and a tag count here; IPv6 goes the general way, and so
    // does whatever has a bit in `state`, a rate among them.
    constexpr std::uint8_t harmless = flag_sack | flag_no_window_scale;
    const auto flags = static_cast<std::uint8_t>(entry.flags & ~harmless);
    const std::uint32_t special =
        static_cast<std::uint32_t>(flags ^ (stamped ? both_timestamps : std::uint8_t{0})) |
        entry.state.load(std::memory_order_relaxed) |
        entry.other_fin.load(std::memory_order_relaxed);
    const std::uint64_t in_addresses = word64(fields + offsetof(DirectionEntry, in_source));
    if (((in_addresses ^ word64(at + addresses_at)) | (entry.in_ports ^ word32(at + ports_at)) |
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
    const std::uint32_t hops = word32(at + ttl_at);  // TTL, protocol, checksum
    if (sequence - next > near_bytes || acknowledgement < highest ||
        total_bytes - plain_headers_bytes > entry.out_mss || (hops & 0xfeU) == 0) [[unlikely]] {
        return refused;
    }
    const std::uint32_t window = load16(at + window_at);
    const std::uint32_t window_bytes = window << (entry.window_scales & 0x0fU);
    const std::uint32_t scaled = window_bytes >> (entry.window_scales >> 4U);
    if (scaled > 0xffff) [[unlikely]] {
        return refused;
    }
    if (((end ^ next) | (acknowledgement ^ highest)) >= near_bytes &&
        !may_leave_block(sequence, end, acknowledgement, entry, entries[direction ^ 1U]))
        [[unlikely]] {
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

    // What changes by a constant is in the entry's sum, but for additions that wrap.
    std::uint32_t wraps = 0;
    const auto shift = [&wraps](std::uint32_t number, std::uint32_t delta) {
        std::uint32_t sum = 0;
        wraps += static_cast<std::uint32_t>(__builtin_add_overflow(number, delta, &sum));
        return __builtin_bswap32(sum);
    };
    put_word32(at + sequence_at, shift(sequence, entry.sequence_delta));
    put_word32(at + acknowledgement_at, shift(acknowledgement, entry.acknowledgement_delta));
    if constexpr (stamped) {
        std::byte* const stamps = at + options_at + 4;
        put_word32(stamps, shift(load32(stamps), entry.timestamp_delta));
        put_word32(stamps + 4, shift(load32(stamps + 4), entry.timestamp_echo_delta));
    }
    const std::uint16_t window_word = __builtin_bswap16(static_cast<std::uint16_t>(scaled));
    const std::uint32_t sum = bias + entry.constant_change + window_word - word16(at + window_at) +
                              static_cast<std::uint16_t>(~word16(at + checksum_at)) -
                              wraps * static_cast<std::uint32_t>(carry_change);
    const std::uint32_t ip_sum = bias - 1 + entry.address_change + (~hops >> 16U);

    const Adjacency& adjacency = adjacencies[entry.adjacency.load(std::memory_order_acquire)];
    std::memcpy(at, adjacency.header.data(), 8);
    std::memcpy(at + 8, adjacency.header.data() + 8, 4);
    put_word32(at + ttl_at, ((hops - 1) & 0xffffU) | ~std::uint32_t{fold32(ip_sum)} << 16U);
    put_word32(at + addresses_at, adjacency.own_v4());
    put_word64(at + addresses_at + 4, word64(fields + offsetof(DirectionEntry, out_destination)));
    put_word16(at + window_at, window_word);
    put_word16(at + checksum_at, static_cast<std::uint16_t>(~fold32(sum)));
    frame.length_bytes = static_cast<std::uint16_t>(ethernet_header_bytes + total_bytes);
    frame.port_index = adjacency.port_index;
    return advance;
}

}  // namespace bore::packet::express
