// ICMP errors about spliced segments. A router that could not pass on a segment which the relay had
// sent on one leg complains to the relay; the one who must know is the other leg's peer, whose
// segment it was. The complaint is turned into one about the segment as that peer sent it: its
// addresses, ports and sequence number, and a packet size that fits when the relay's header was
// larger. Called by the slow path; pure but for the look-up in the flow table.
//
// Only what proves to know a segment under way passes (RFC 5927, 4.1): its sequence number lies
// between what the leg's peer has acknowledged and what was sent to it. A size that no honest path
// has is ignored (7.2): it would only make the sender send crumbs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/packet/flow_table.hpp"

namespace bore::packet {

enum class IcmpVerdict : std::uint8_t { translated, to_kernel, ignored };

// Why a frame is not translated. to_kernel: none of ours.
enum class IcmpReason : std::uint8_t {
    none,
    not_an_error,       // to kernel: not ICMP, another type, in fragments, with IP options
    not_spliced,        // to kernel: about a packet that no spliced flow sent
    truncated,          // ignored: too short for what it says, or for ports and sequence number
    bad_checksum,       // ignored
    wrong_destination,  // ignored: not sent to the address that the segment came from
    not_under_way,      // ignored: sequence number acknowledged already, or never sent
    bad_size,           // ignored: a packet size too small to be true, or the segment's own
    hop_limit,          // ignored: TTL or hop limit has run out
    no_room,            // ignored: `out` is too small
};

struct IcmpResult {
    IcmpVerdict verdict{IcmpVerdict::ignored};
    IcmpReason reason{IcmpReason::none};
    std::uint16_t length_bytes{0};  // of the frame in `out`
    std::uint8_t port_index{0};     // that it goes out by
};

// The smallest sizes that are believed. IPv4: 68 is legal, but 552 is the smallest that Linux
// itself takes over (net.ipv4.route.min_pmtu). IPv6: RFC 8200, 5.
inline constexpr std::uint32_t min_path_bytes_v4 = 552;
inline constexpr std::uint32_t min_path_bytes_v6 = 1'280;

// `out` must not overlap `frame`; max_icmp_growth_bytes more than `frame` are always enough.
inline constexpr std::size_t max_icmp_growth_bytes = 4;  // a VLAN tag on the other leg
[[nodiscard]] IcmpResult translate_icmp(const FlowTable& table, std::span<const std::byte> frame,
                                        std::span<std::byte> out);

}  // namespace bore::packet
