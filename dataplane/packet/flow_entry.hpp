// One direction of a spliced flow: everything that the packet path needs to turn a segment of one
// leg into a segment of the other, in one cache line for IPv4. Written once by the thread that
// installs flows, then read by whichever worker receives the direction; the few words that change
// belong to that worker alone, so that no line is written from two cores on the packet path.
//
// Names: a direction belongs to the leg whose peer sends it. `in` is that leg, `out` the other.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dataplane/abi/engine.hpp"
#include "dataplane/base/spsc_ring.hpp"
#include "dataplane/packet/checksum.hpp"

namespace bore::packet {

// The two ends of one leg. IPv4 addresses in their IPv6-mapped form (::ffff:a.b.c.d), network byte
// order; ports in host byte order.
struct FlowKey {
    std::array<std::uint8_t, 16> peer_address{};
    std::array<std::uint8_t, 16> own_address{};
    std::uint16_t peer_port{0};
    std::uint16_t own_port{0};

    [[nodiscard]] bool is_v4() const {
        for (std::size_t index = 0; index < 10; ++index) {
            if (peer_address[index] != 0) {
                return false;
            }
        }
        return peer_address[10] == 0xff && peer_address[11] == 0xff;
    }
    bool operator==(const FlowKey&) const = default;
};

// A flow is two directions; flow f has the directions 2f (its frames come from the visitor) and
// 2f + 1 (from the client), which is abi::Leg's order.
using FlowIndex = std::uint32_t;
using DirectionIndex = std::uint32_t;
inline constexpr FlowIndex no_flow = 0xffff'ffff;

[[nodiscard]] constexpr DirectionIndex direction_of(FlowIndex flow, abi::Leg leg) {
    return flow * 2 + static_cast<std::uint32_t>(leg);
}
[[nodiscard]] constexpr FlowIndex flow_of(DirectionIndex direction) {
    return direction / 2;
}
[[nodiscard]] constexpr abi::Leg leg_of(DirectionIndex direction) {
    return static_cast<abi::Leg>(direction & 1U);
}

// Bits of DirectionEntry::flags, set at installation.
inline constexpr std::uint8_t flag_v6 = 0x01;
inline constexpr std::uint8_t flag_in_timestamps = 0x02;    // negotiated on the in leg
inline constexpr std::uint8_t flag_out_timestamps = 0x04;   // negotiated on the out leg
inline constexpr std::uint8_t flag_sack = 0x08;             // permitted on both legs, else stripped
inline constexpr std::uint8_t flag_tagged = 0x10;           // leaves with a VLAN tag
inline constexpr std::uint8_t flag_no_window_scale = 0x20;  // out leg without window scaling

// Bits of DirectionEntry::state. Two threads change them, so always by fetch_or and fetch_and.
// Any bit keeps a segment off the shortest way through the packet path.
inline constexpr std::uint8_t state_closed = 0x01;    // slow path: the relay ended it, drop
inline constexpr std::uint8_t state_ack_hold = 0x02;  // set at installation, cleared by the worker
                                                      // when the hold is over, see FlowCold
inline constexpr std::uint8_t state_reset = 0x04;     // worker: FlowCold::reset_seen is set
inline constexpr std::uint8_t state_limited = 0x08;   // slow path: the tunnel has a rate this way
inline constexpr std::uint8_t state_first = 0x10;     // set at installation, cleared in both by the
                                                      // worker that tells of the first byte
inline constexpr std::uint8_t state_unheard = 0x20;  // the other direction's worker: its peer sends
                                                     // again what this one's has acknowledged

struct alignas(base::cache_line_bytes) DirectionEntry {
    // ---- What a frame must carry to belong here (IPv4, network order as in the packet: source
    // address, destination address, source port, destination port). IPv6: peers' addresses are in
    // FlowAddresses, here is a fold; instead of the own one is the adjacency that has it.
    std::uint32_t in_source{0};
    std::uint32_t in_destination{0};
    std::uint32_t in_ports{0};
    // ---- What it carries when it leaves, same form. The source is in the adjacency.
    std::uint32_t out_destination{0};
    std::uint32_t out_ports{0};
    // ---- What that changes in sums, see set_changes(); words as they lie in memory.
    std::uint16_t address_change{0};
    std::uint16_t constant_change{0};
    // ---- Added to the fields of TCP, modulo 2^32, host order.
    std::uint32_t sequence_delta{0};         // out.snd_nxt - in.rcv_nxt at the splice
    std::uint32_t acknowledgement_delta{0};  // minus the other direction's sequence_delta; SACK too
    std::uint32_t timestamp_delta{0};        // TSval
    std::uint32_t timestamp_echo_delta{0};   // TSecr: minus the other direction's timestamp_delta
    // Own address, L2 header and port of the out leg. The slow path changes it when the next hop
    // of that leg's peer gets another link address.
    std::atomic<std::uint16_t> adjacency{0};
    std::uint16_t out_mss{0};       // payload + TCP options that the out leg's peer takes
    std::uint8_t window_scales{0};  // in leg's peer scale, out leg's own scale << 4
    std::uint8_t flags{0};
    std::atomic<std::uint8_t> state{0};
    std::atomic<std::uint8_t> other_fin{0};  // other direction's worker: 1 once it saw that FIN

    // ---- Changed by the worker that receives this direction, relaxed.
    // Numbering of the in leg throughout.
    std::atomic<std::uint32_t> next_sequence{0};  // highest end of segment seen from the peer
    std::atomic<std::uint32_t> acknowledged{0};   // highest acknowledgement seen from the peer
    std::atomic<std::uint32_t> window_edge{0};    // highest acknowledgement + window seen
    std::atomic<std::uint16_t> last_seen{0};      // activity_tick() of the latest frame
    std::uint16_t tunnel_index{0};

    // window_scales, flags, state and other_fin, from the lowest byte to the highest, in one load.
    [[nodiscard]] std::uint32_t marks() const {
        using Word [[gnu::may_alias]] = std::uint32_t;
        return __atomic_load_n(reinterpret_cast<const Word*>(&window_scales), __ATOMIC_RELAXED);
    }
};
static_assert(std::endian::native == std::endian::little &&
              offsetof(DirectionEntry, window_scales) % 4 == 0 &&
              offsetof(DirectionEntry, flags) == offsetof(DirectionEntry, window_scales) + 1 &&
              offsetof(DirectionEntry, state) == offsetof(DirectionEntry, window_scales) + 2 &&
              offsetof(DirectionEntry, other_fin) == offsetof(DirectionEntry, window_scales) + 3);
static_assert(sizeof(DirectionEntry) == base::cache_line_bytes, "one line per IPv4 packet");
static_assert(offsetof(DirectionEntry, next_sequence) == 48);
static_assert(offsetof(DirectionEntry, out_ports) == offsetof(DirectionEntry, out_destination) + 4);

// The sums over what changes by constants, once for all frames. `addresses` is what replacing the
// addresses adds. The second sum has ports and deltas, too: a number modulo 2^32 changes a sum by
// its delta, less one (as a word in memory: carry_change) when the addition wraps, because 2^32 is
// 1 in one's complement.
inline constexpr std::uint64_t carry_change = 0x0100;
inline void set_changes(DirectionEntry& entry, std::uint64_t addresses) {
    entry.address_change = fold(addresses);
    std::uint64_t all = fold(addresses) + change32(entry.in_ports, entry.out_ports);
    for (const std::uint32_t delta : {entry.sequence_delta, entry.acknowledgement_delta,
                                      entry.timestamp_delta, entry.timestamp_echo_delta}) {
        all += __builtin_bswap32(delta);
    }
    entry.constant_change = fold(all);
}

// What only unusual segments, the end of a flow and the slow path look at. One per flow; index 0 of
// each pair belongs to the visitor's direction.
struct alignas(base::cache_line_bytes) FlowCold {
    // in.rcv_nxt at the splice: bytes before are the relay's. The worker moves it along, 2^30
    // behind next_sequence, so that it still compares after 2^31 bytes.
    std::array<std::atomic<std::uint32_t>, 2> first_sequence{};
    std::array<std::uint32_t, 2> first_acknowledgement{};  // in.snd_nxt at the splice
    std::array<std::atomic<std::uint32_t>, 2> fin_end{};   // sequence number behind the FIN
    // Times that `acknowledged` went from 2^32 - 1 to 0. Acknowledged since the splice, the FIN
    // included: (wraps << 32 | acknowledged) - first_acknowledgement, in 64 bits.
    std::array<std::atomic<std::uint32_t>, 2> acknowledged_wraps{};
    // One-sided timestamps: the peer's latest TSval, and the relay's own clock on the leg. The
    // former also while acknowledgements are held back.
    std::array<std::atomic<std::uint32_t>, 2> peer_timestamp{};  // of the in leg's peer
    // In leg's own TSval = own_timestamp + timestamp_ms(now), that is, LegState's minus that.
    std::array<std::uint32_t, 2> own_timestamp{};
    std::uint32_t ack_hold_until_ms{
        0};  // timestamp_ms(); only the direction to the client holds ACKs back:
    std::atomic<std::uint32_t> generation{0};  // of the flow slot; odd while installed
    std::array<std::atomic<std::uint8_t>, 2> fin_seen{};
    std::array<std::atomic<std::uint8_t>, 2> fin_acknowledged{};
    std::array<std::atomic<std::uint8_t>, 2> reset_seen{};
    std::uint16_t ack_hold_back{0};  // until then the ACK says this many bytes less
};
static_assert(sizeof(FlowCold) == base::cache_line_bytes);

// The peers' addresses of an IPv6 flow, by leg. Untouched memory for IPv4.
struct alignas(32) FlowAddresses {
    std::array<std::array<std::uint8_t, 16>, 2> peer{};
};
static_assert(sizeof(FlowAddresses) == 32);

// How frames reach a peer: the Ethernet header, VLAN tag included, and the port, taken from the
// frames that the kernel sent to it; and the relay's own address there, of which there are few, so
// that flows need not have it each. Never changed while a flow refers to it.
struct alignas(base::cache_line_bytes) Adjacency {
    std::array<std::byte, 18> header{};  // destination, source, [tag], ethertype
    std::uint8_t header_bytes{0};        // 14 or 18
    std::uint8_t port_index{0};
    std::array<std::uint8_t, 16> own_address{};  // as in FlowKey

    [[nodiscard]] std::uint32_t own_v4() const {  // as it lies in the packet
        std::uint32_t word;
        std::memcpy(&word, own_address.data() + 12, sizeof word);
        return word;
    }
};
static_assert(sizeof(Adjacency) == base::cache_line_bytes);

// Activity is kept in ticks of 2^28 ns (268 ms), 16 bits of them: 4.9 hours until they wrap.
inline constexpr unsigned activity_tick_shift = 28;
[[nodiscard]] constexpr std::uint16_t activity_tick(std::uint64_t now_ns) {
    return static_cast<std::uint16_t>(now_ns >> activity_tick_shift);
}
// Timestamps that the relay makes itself count milliseconds of CLOCK_MONOTONIC.
[[nodiscard]] constexpr std::uint32_t timestamp_ms(std::uint64_t now_ns) {
    return static_cast<std::uint32_t>(now_ns / 1'000'000);
}

}  // namespace bore::packet
