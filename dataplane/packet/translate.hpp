// A segment of one leg becomes a segment of the other, in the buffer that it came in.
//
//   1. The usual segment: ACK and perhaps PSH, no option or exactly NOP NOP timestamps, no end of
//      the flow under way, numbers that go on from the latest. Judged and rewritten in place, in
//      line, within the entry's cache line.
//   2. The same with other numbers: a retransmission, a duplicate acknowledgement. They are looked
//      at more closely, the rewriting is the same.
//   3. Any other: the headers are taken apart and built anew in front of the payload, wherever that
//      makes them begin. The payload itself never moves.
//   4. A segment that is too large for the other leg leaves both whole, with headers of that leg,
//      and Outcome says how to split it (split.hpp).
//
// What changes: the Ethernet header and its tag, addresses, ports, TTL or hop limit (one less), the
// ECN bits (cleared, neither leg negotiated them; DSCP stays), sequence and acknowledgement
// numbers, SACK edges, timestamps and the window. Checksums change by the difference, so a segment
// that was corrupt on the way in stays corrupt, and the receiver's check covers the whole way. Only
// where payload is cut off or split is it verified first (`bad_checksum`) and made anew.
//
// What the rules below protect against is somebody off the path who guesses numbers. Whoever is on
// the path can do to a spliced connection what he can do to any other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/flow_entry.hpp"
#include "dataplane/packet/frame.hpp"
#include "dataplane/packet/parse.hpp"

namespace bore::packet {

// Numbers that move within a block of this size are taken as they are. Where they cross into the
// next one, they are compared with what the other direction has seen, which another core may be
// writing: once in 45 full segments. A distance from the latest number would not do instead of the
// block's border: whoever forges numbers could walk on it as far as he likes.
inline constexpr std::uint32_t near_bytes = 65'536;
// Nobody has more than this unacknowledged: the largest window is 65535 << 14.
inline constexpr std::uint32_t max_flight_bytes = 1U << 30U;

// A direction with all that belongs to it.
struct Passage {
    DirectionEntry& entry;
    const Adjacency& adjacency;  // entry.adjacency's
    // Only looked at when needed:
    DirectionEntry& other;
    FlowCold& cold;
    const FlowAddresses& addresses;
    abi::Leg in;

    [[nodiscard]] std::size_t in_index() const { return static_cast<std::size_t>(in); }
    [[nodiscard]] std::size_t out_index() const { return 1 - static_cast<std::size_t>(in); }
};

// One reading of the clock, in the units that entries use.
struct Moment {
    explicit Moment(std::uint64_t now_ns)
        : milliseconds(timestamp_ms(now_ns)), tick(activity_tick(now_ns)) {}
    std::uint32_t milliseconds;
    std::uint16_t tick;
};

// Sums over a burst.
struct Tally {
    std::uint32_t trimmed{0};
    std::uint32_t timestamps_inserted{0};
    std::uint32_t timestamps_removed{0};
    std::uint32_t windows_clamped{0};
    std::uint32_t retransmitted_packets{0};
    std::uint64_t retransmitted_bytes{0};
};

// What one segment did beside changing its frame. Meaningful when it was spliced.
struct Outcome {
    std::uint32_t delivered_bytes{0};  // newly acknowledged by the peer that sent the segment
    std::uint32_t payload_bytes{0};    // as it leaves
    std::uint16_t split_bytes{0};      // not 0: split into payloads of at most this many bytes
    bool flow_event{false};            // the slow path should look at the flow
};

// ---- The usual segment, see below. True when it was one, and the frame is ready to be sent.
// False: nothing has changed, and translate_unusual() decides.
template <bool is_v6>
[[nodiscard]] bool translate_usual(Frame& frame, const TcpView& view, const Passage& passage,
                                   const Moment& moment, Tally& tally, Outcome& outcome);

// `spliced`, and the frame is ready for frame.port_index; or why not, and the frame is untouched.
[[nodiscard]] PacketReason translate_unusual(Frame& frame, TcpView& view, const Passage& passage,
                                             const Moment& moment, Tally& tally, Outcome& outcome);

[[nodiscard]] inline PacketReason translate(Frame& frame, TcpView& view, const Passage& passage,
                                            const Moment& moment, Tally& tally, Outcome& outcome) {
    const bool usual = view.v6
                           ? translate_usual<true>(frame, view, passage, moment, tally, outcome)
                           : translate_usual<false>(frame, view, passage, moment, tally, outcome);
    return usual ? PacketReason::spliced
                 : translate_unusual(frame, view, passage, moment, tally, outcome);
}

// ---- Numbers

// The window field for the other leg: the relay's scale there, always rounded down. Rounded up,
// even from nothing to one unit, a sender fills a window that is not there; Linux since 6.17 keeps
// nothing of a segment that crosses the edge, and the sender is left with its retransmission timer.
// (window_small, handoff.cpp, is what keeps zero from lasting.) Moves window_edge, never back:
// segments that were sent before a window shrank are still under way; nor by an old segment, which
// anybody can have.
inline std::uint16_t translate_window(std::uint16_t window, std::uint32_t acknowledgement,
                                      DirectionEntry& entry, Tally& tally) {
    const std::uint32_t bytes = std::uint32_t{window} << (entry.window_scales & 0x0fU);
    const std::uint32_t edge = acknowledgement + bytes;
    if (!sequence_before(acknowledgement, entry.acknowledged.load(std::memory_order_relaxed)) &&
        sequence_after(edge, entry.window_edge.load(std::memory_order_relaxed))) {
        entry.window_edge.store(edge, std::memory_order_relaxed);
    }
    const std::uint32_t scaled = bytes >> (entry.window_scales >> 4U);
    if (scaled > 0xffff) [[unlikely]] {
        tally.windows_clamped += 1;
        return 0xffff;
    }
    return static_cast<std::uint16_t>(scaled);
}

inline void note_activity(DirectionEntry& entry, const Moment& moment) {
    if (entry.last_seen.load(std::memory_order_relaxed) != moment.tick) [[unlikely]] {
        entry.last_seen.store(moment.tick, std::memory_order_relaxed);
    }
}

// ---- Bytes

// Where the TTL is, and which bits of the first word are ECN (the word read as little-endian).
template <bool is_v6>
inline constexpr std::size_t hop_limit_offset = is_v6 ? 7 : 8;
template <bool is_v6>
inline constexpr std::uint16_t ecn_mask = is_v6 ? 0x3000 : 0x0300;

// Addresses, TTL and ECN in place. `change`: what changes in the IPv4 header's sum besides TTL and
// ECN; entry.address_change, when it is the addresses alone.
template <bool is_v6>
inline void rewrite_ip(std::byte* ip, const Passage& passage, std::uint64_t change) {
    if constexpr (!is_v6) {
        const std::uint32_t source = passage.adjacency.own_v4();
        const std::uint32_t destination = passage.entry.out_destination;
        const std::uint16_t first = word16(ip);
        const std::uint16_t first_after = first & static_cast<std::uint16_t>(~ecn_mask<false>);
        const std::uint32_t hops = word32(ip + 8);  // TTL, at least 2; protocol; checksum
        const std::uint16_t checksum =
            changed_checksum(static_cast<std::uint16_t>(hops >> 16U),
                             change + change16(first, first_after) + change32(hops, hops - 1));
        put_word16(ip, first_after);
        put_word32(ip + 8, std::uint32_t{checksum} << 16U | ((hops - 1) & 0xffffU));
        put_word32(ip + 12, source);
        put_word32(ip + 16, destination);
    } else {
        const std::uint16_t first = word16(ip);
        put_word16(ip, first & static_cast<std::uint16_t>(~ecn_mask<true>));
        store8(ip + 7, static_cast<std::uint8_t>(load8(ip + 7) - 1));
        std::memcpy(ip + 8, passage.adjacency.own_address.data(), 16);
        std::memcpy(ip + 24, passage.addresses.peer[passage.out_index()].data(), 16);
    }
}

// The frame begins anew with the adjacency's header in front of `ip_offset` and ends at
// `end_offset`. The caller has checked the headroom. Writes up to two bytes beyond the header:
// whoever rewrites the IP header does it afterwards.
inline void place_header(Frame& frame, std::size_t ip_offset, std::size_t end_offset,
                         const Adjacency& adjacency) {
    const std::size_t header_bytes = adjacency.header_bytes;
    const std::ptrdiff_t start =
        static_cast<std::ptrdiff_t>(ip_offset) - static_cast<std::ptrdiff_t>(header_bytes);
    std::byte* at = frame.data + start;
    std::memcpy(at, adjacency.header.data(), 16);
    if (header_bytes == tagged_header_bytes) {
        std::memcpy(at + 16, adjacency.header.data() + 16, 2);
    }
    frame.headroom_bytes = static_cast<std::uint16_t>(frame.headroom_bytes + start);
    frame.length_bytes = static_cast<std::uint16_t>(end_offset - ip_offset + header_bytes);
    frame.data = at;
    frame.port_index = adjacency.port_index;
}

// ---- The usual segment

inline constexpr std::uint8_t both_timestamps = flag_in_timestamps | flag_out_timestamps;
inline constexpr std::size_t stamped_header_bytes = tcp_header_bytes + 12;
// NOP NOP kind length, as it lies in memory.
inline constexpr std::uint32_t usual_option_word = 0x0a080101;

template <bool is_v6>
[[nodiscard]] inline bool looks_usual(const Frame& frame, const TcpView& view,
                                      const Passage& passage) {
    const DirectionEntry& entry = passage.entry;
    const std::byte* tcp = frame.data + view.tcp_offset;
    const std::size_t header_bytes = view.tcp_bytes();
    const std::uint8_t stamps = entry.flags & both_timestamps;
    const bool plain = header_bytes == tcp_header_bytes && stamps == 0;
    const bool options_usual =
        plain || (header_bytes == stamped_header_bytes && stamps == both_timestamps &&
                  word32(tcp + tcp_header_bytes) == usual_option_word);
    constexpr std::uint8_t harmless = state_limited | state_first;
    const auto ends =
        static_cast<std::uint8_t>((entry.state.load(std::memory_order_relaxed) & ~harmless) |
                                  entry.other_fin.load(std::memory_order_relaxed));
    const auto odd_flags = static_cast<std::uint8_t>(
        ((view.flags | tcp_psh) ^ (tcp_ack | tcp_psh)) | view.reserved_flags | ends);
    return options_usual && odd_flags == 0 &&
           view.payload_bytes + header_bytes - tcp_header_bytes <= entry.out_mss &&
           load8(frame.data + view.ip_offset + hop_limit_offset<is_v6>) > 1 &&
           frame.headroom_bytes + std::size_t{view.ip_offset} >= passage.adjacency.header_bytes;
}

template <bool is_v6>
inline void rewrite_usual(Frame& frame, const TcpView& view, const Passage& passage,
                          std::uint16_t window) {
    const DirectionEntry& entry = passage.entry;
    std::byte* ip = frame.data + view.ip_offset;
    std::byte* tcp = frame.data + view.tcp_offset;
    const std::uint64_t addresses = entry.address_change;
    const std::uint32_t ports = entry.out_ports;
    const std::uint32_t sequence = __builtin_bswap32(view.sequence + entry.sequence_delta);
    const std::uint32_t acknowledgement =
        __builtin_bswap32(view.acknowledgement + entry.acknowledgement_delta);
    const std::uint16_t window_word = __builtin_bswap16(window);
    std::uint64_t change =
        addresses + change32(entry.in_ports, ports) + change32(word32(tcp + 4), sequence) +
        change32(word32(tcp + 8), acknowledgement) + change16(word16(tcp + 14), window_word);
    if (view.tcp_bytes() != tcp_header_bytes) {
        const std::uint32_t value = word32(tcp + 24);
        const std::uint32_t echo = word32(tcp + 28);
        const std::uint32_t value_after =
            __builtin_bswap32(__builtin_bswap32(value) + entry.timestamp_delta);
        const std::uint32_t echo_after =
            __builtin_bswap32(__builtin_bswap32(echo) + entry.timestamp_echo_delta);
        change += change32(value, value_after) + change32(echo, echo_after);
        put_word32(tcp + 24, value_after);
        put_word32(tcp + 28, echo_after);
    }
    const std::uint16_t checksum = changed_checksum(word16(tcp + 16), change);
    const std::uint16_t first = word16(ip);  // place_header() may write over it
    put_word32(tcp, ports);
    put_word32(tcp + 4, sequence);
    put_word32(tcp + 8, acknowledgement);
    put_word16(tcp + 14, window_word);
    put_word16(tcp + 16, checksum);
    place_header(frame, view.ip_offset, view.end_offset(), passage.adjacency);
    put_word16(ip, first);
    rewrite_ip<is_v6>(ip, passage, addresses);
}

template <bool is_v6>
[[nodiscard]] inline bool translate_usual(Frame& frame, const TcpView& view, const Passage& passage,
                                          const Moment& moment, Tally& tally, Outcome& outcome) {
    DirectionEntry& entry = passage.entry;
    const std::uint32_t next = entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t highest = entry.acknowledged.load(std::memory_order_relaxed);
    const std::uint32_t end = view.sequence + view.payload_bytes;
    const bool numbers_usual = (view.sequence - next <= near_bytes) &
                               (view.acknowledgement >= highest) &
                               (((end ^ next) | (view.acknowledgement ^ highest)) < near_bytes);
    if (!numbers_usual || !looks_usual<is_v6>(frame, view, passage)) [[unlikely]] {
        return false;
    }
    if (end != next) {
        entry.next_sequence.store(end, std::memory_order_relaxed);
    }
    if (view.acknowledgement != highest) {
        entry.acknowledged.store(view.acknowledgement, std::memory_order_relaxed);
    }
    outcome.delivered_bytes = view.acknowledgement - highest;
    outcome.payload_bytes = view.payload_bytes;
    note_activity(entry, moment);
    const std::uint16_t window = translate_window(view.window, view.acknowledgement, entry, tally);
    rewrite_usual<is_v6>(frame, view, passage, window);
    return true;
}

}  // namespace bore::packet
