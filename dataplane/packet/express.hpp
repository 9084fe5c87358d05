// The shortest way through the packet path: an untagged IPv4 segment with ACK and perhaps PSH, no
// option or exactly NOP NOP timestamps, of a flow that nothing special is under way on. What it
// does is what translate() does, in less than half of the instructions: every field is loaded once,
// every condition is tested before anything is written, and whatever does not fit is left untouched
// for the general way. A test holds both to the same bytes and the same state.
//
//   recognize()     the frame alone: its shape, its key
//   pass()          with the entry of its direction: the rest of the conditions, then the rewriting
//   pass_leaving()  the same where numbers leave their block of 64 KiB, which pass() refuses
#pragma once

#include <bit>
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

// A multiple of 65535, so that a checksum, which is a sum's complement, can be subtracted and
// nothing becomes negative.
inline constexpr std::uint32_t bias = 0xffff * 4;

// A sum that fits 32 bits down to 16, as fold() does.
inline std::uint16_t fold32(std::uint32_t sum) {
    return static_cast<std::uint16_t>((sum + std::rotl(sum, 16)) >> 16U);
}

[[nodiscard]] inline FlowTable::Key4 key_of(const std::byte* at) {
    return {.source = word32(at + addresses_at),
            .destination = word32(at + addresses_at + 4),
            .ports = word32(at + ports_at)};
}

// Whether the frame alone may go the shortest way. Does not look at the length that the IP header
// tells: pass() does, which needs it anyway.
[[nodiscard]] inline bool recognize(const Frame& frame) {
    const std::byte* at = frame.data;
    if (frame.length_bytes < ethernet_header_bytes + plain_headers_bytes) [[unlikely]] {
        return false;
    }
    // Ethertype, version 4 and five words of header, no ECN; no fragment, protocol TCP.
    const std::uint32_t kind = word32(at + ethertype_at) & 0x03ff'ffffU;
    const std::uint32_t carried = word32(at + fragment_at) & 0xff00'ff3fU;
    if (((kind ^ 0x0045'0008U) | (carried ^ 0x0600'0000U)) != 0) [[unlikely]] {
        return false;
    }
    const std::uint32_t offset = word16(at + offset_at) | push_bit;
    return offset == plain_offset ||
           (offset == stamped_offset &&
            frame.length_bytes >= ethernet_header_bytes + stamped_headers_bytes &&
            word32(at + options_at) == usual_option_word);
}

inline constexpr std::uint32_t flags_shift = 8;  // in DirectionEntry::marks()

// Whether numbers may leave the block of the latest ones: a segment that moves into another block
// must begin in the window that the other peer has announced, an acknowledgement that does must lie
// within what the other peer has sent. Looks at the other direction, which another core may be
// writing; about 1 in 22 full segments comes here.
[[nodiscard]] inline bool may_leave_block(std::uint32_t sequence, std::uint32_t end,
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

// pass() for either kind of segment. `leaves`: whether numbers may leave their block.
template <bool stamped, bool leaves>
[[gnu::always_inline, nodiscard]] inline bool pass_as(Frame& frame, DirectionEntry* entries,
                                                      DirectionIndex direction,
                                                      const Adjacency* adjacencies,
                                                      std::uint32_t tick, std::uint32_t marks,
                                                      std::uint32_t& delivered_bytes) {
    DirectionEntry& entry = entries[direction];
    std::byte* const at = frame.data;
    const std::byte* const fields = reinterpret_cast<const std::byte*>(&entry);
    // Of the flags only timestamps and a tag count here; IPv6 goes the general way, and so
    // does whatever has a bit in `state`, a rate among them.
    constexpr std::uint32_t harmless = 0xffU | (flag_sack | flag_no_window_scale) << flags_shift;
    const std::uint32_t special =
        (marks & ~harmless) ^ (stamped ? std::uint32_t{both_timestamps} << flags_shift : 0U);
    const std::uint64_t in_addresses = word64(fields + offsetof(DirectionEntry, in_source));
    if (((in_addresses ^ word64(at + addresses_at)) | (entry.in_ports ^ word32(at + ports_at)) |
         special) != 0) [[unlikely]] {
        return false;
    }
    if (load8(at + offset_at) != static_cast<std::uint8_t>(stamped ? stamped_offset : plain_offset))
        [[unlikely]] {
        return false;
    }
    const std::uint32_t total_bytes = load16(at + total_bytes_at);
    constexpr std::uint32_t headers_bytes = stamped ? stamped_headers_bytes : plain_headers_bytes;
    const std::uint32_t sequence = load32(at + sequence_at);
    const std::uint32_t acknowledgement = load32(at + acknowledgement_at);
    const std::uint32_t next = entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t highest = entry.acknowledged.load(std::memory_order_relaxed);
    // Below the headers it becomes a large number; the frame has room for them.
    const std::uint32_t payload_bytes = total_bytes - headers_bytes;
    constexpr std::uint32_t before_payload_bytes = ethernet_header_bytes + headers_bytes;
    const std::uint32_t room_bytes = frame.length_bytes - before_payload_bytes;
    const std::uint32_t end = sequence + payload_bytes;
    if (sequence - next > near_bytes || acknowledgement < highest || payload_bytes > room_bytes ||
        total_bytes - plain_headers_bytes > entry.out_mss || load8(at + ttl_at) <= 1) [[unlikely]] {
        return false;
    }
    // Both scales from `marks`; a shift looks at five bits, and the one above the upper scale is
    // flag_v6, which is not set.
    static_assert(flag_v6 == 0x01);
    const std::uint32_t window = load16(at + window_at);
    const std::uint32_t window_bytes = window << (marks & 0x0fU);
    const std::uint32_t scaled = window_bytes >> (marks >> 4U & 0x1fU);
    if (scaled > 0xffff) [[unlikely]] {
        return false;
    }
    const std::uint32_t moved = (end ^ next) | (acknowledgement ^ highest);
    if (moved >= near_bytes) [[unlikely]] {
        if (!leaves ||
            !may_leave_block(sequence, end, acknowledgement, entry, entries[direction ^ 1U])) {
            return false;
        }
    }
    // Nothing speaks against it: from here on things change. The entry only if it has to: a line
    // that stays clean need not be written back.
    frame.length_bytes = static_cast<std::uint16_t>(ethernet_header_bytes + total_bytes);
    const std::uint32_t edge = acknowledgement + window_bytes;
    const std::uint32_t edge_before = entry.window_edge.load(std::memory_order_relaxed);
    const std::uint32_t edge_after = sequence_after(edge, edge_before) ? edge : edge_before;
    if ((moved | (edge_after ^ edge_before) |
         (std::uint32_t{entry.last_seen.load(std::memory_order_relaxed)} ^ tick)) != 0) {
        entry.window_edge.store(edge_after, std::memory_order_relaxed);
        entry.next_sequence.store(end, std::memory_order_relaxed);
        entry.acknowledged.store(acknowledgement, std::memory_order_relaxed);
        entry.last_seen.store(static_cast<std::uint16_t>(tick), std::memory_order_relaxed);
    }

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
    const std::uint32_t sum = bias + entry.constant_change + window_word - word16(at + window_at) -
                              word16(at + checksum_at) -
                              wraps * static_cast<std::uint32_t>(carry_change);
    // The TTL is the low byte of its word. A single difference: only a borrow can be left of it.
    const std::uint32_t ip_difference =
        word16(at + ip_checksum_at) + 1U - std::uint32_t{entry.address_change};

    const Adjacency& adjacency = adjacencies[entry.adjacency.load(std::memory_order_acquire)];
    std::memcpy(at, adjacency.header.data(), 8);
    std::memcpy(at + 8, adjacency.header.data() + 8, 4);
    store8(at + ttl_at, static_cast<std::uint8_t>(load8(at + ttl_at) - 1));
    put_word16(at + ip_checksum_at,
               static_cast<std::uint16_t>(ip_difference - (ip_difference >> 31U)));
    put_word32(at + addresses_at, adjacency.own_v4());
    put_word64(at + addresses_at + 4, word64(fields + offsetof(DirectionEntry, out_destination)));
    put_word16(at + window_at, window_word);
    put_word16(at + checksum_at, static_cast<std::uint16_t>(~fold32(sum)));
    frame.port_index = adjacency.port_index;
    delivered_bytes = acknowledgement - highest;
    return true;
}

template <bool leaves>
[[gnu::always_inline, nodiscard]] inline bool pass_either(Frame& frame, DirectionEntry* entries,
                                                          DirectionIndex direction,
                                                          const Adjacency* adjacencies,
                                                          std::uint32_t tick,
                                                          std::uint32_t& delivered_bytes) {
    const std::uint32_t marks = entries[direction].marks();
    return (marks & std::uint32_t{flag_in_timestamps} << flags_shift) == 0
               ? pass_as<false, leaves>(frame, entries, direction, adjacencies, tick, marks,
                                        delivered_bytes)
               : pass_as<true, leaves>(frame, entries, direction, adjacencies, tick, marks,
                                       delivered_bytes);
}

// A frame that was recognized, and the direction that it may belong to, of two that are a flow.
// True: it is ready to be sent, and newly acknowledges so many bytes. False: nothing was changed,
// and pass_leaving() or the general way decides.
[[gnu::always_inline, nodiscard]] inline bool pass(Frame& frame, DirectionEntry* entries,
                                                   DirectionIndex direction,
                                                   const Adjacency* adjacencies, std::uint32_t tick,
                                                   std::uint32_t& delivered_bytes) {
    return pass_either<false>(frame, entries, direction, adjacencies, tick, delivered_bytes);
}

// What pass() refused: once more, with numbers that may leave their block. Not in line, so that
// pass() calls nothing and keeps its numbers in registers.
[[gnu::noinline, nodiscard]] inline bool pass_leaving(Frame& frame, DirectionEntry* entries,
                                                      DirectionIndex direction,
                                                      const Adjacency* adjacencies,
                                                      std::uint32_t tick,
                                                      std::uint32_t& delivered_bytes) {
    return pass_either<true>(frame, entries, direction, adjacencies, tick, delivered_bytes);
}

}  // namespace bore::packet::express
