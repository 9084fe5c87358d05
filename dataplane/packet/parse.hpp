// From the bytes of an Ethernet frame to a view of its TCP segment, or to the reason why there is
// none. Reads, never writes; every offset in a view was checked against the frame. The packet path
// and the slow path both start here.
//
// Accepted: Ethernet with no tag or one (802.1Q or 802.1ad); IPv4 without options and not in
// fragments; IPv6 without extension headers; TCP. What lies behind the IP packet is padding and
// not part of the view. No checksum is verified here: the packet path changes them incrementally,
// and so leaves wrong ones wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/packet/flow_entry.hpp"
#include "dataplane/packet/frame.hpp"

namespace bore::packet {

using abi::PacketReason;

inline constexpr std::size_t ethernet_header_bytes = 14;
inline constexpr std::size_t tagged_header_bytes = 18;
inline constexpr std::size_t ipv4_header_bytes = 20;  // without options
inline constexpr std::size_t ipv6_header_bytes = 40;
inline constexpr std::size_t tcp_header_bytes = 20;  // without options
inline constexpr std::size_t max_tcp_header_bytes = 60;
inline constexpr std::size_t max_tcp_option_bytes = max_tcp_header_bytes - tcp_header_bytes;

inline constexpr std::uint16_t ethertype_ipv4 = 0x0800;
inline constexpr std::uint16_t ethertype_arp = 0x0806;
inline constexpr std::uint16_t ethertype_ipv6 = 0x86dd;
inline constexpr std::uint16_t ethertype_vlan = 0x8100;          // 802.1Q
inline constexpr std::uint16_t ethertype_service_vlan = 0x88a8;  // 802.1ad
inline constexpr std::uint8_t protocol_tcp = 6;

inline constexpr std::uint8_t option_end = 0;
inline constexpr std::uint8_t option_nop = 1;
inline constexpr std::uint8_t option_sack = 5;
inline constexpr std::uint8_t option_timestamps = 8;
inline constexpr std::size_t timestamps_option_bytes = 10;
inline constexpr std::size_t sack_block_bytes = 8;
inline constexpr std::size_t max_sack_blocks = 4;

// Offsets count from the start of the frame. Host byte order throughout.
struct TcpView {
    std::uint32_t sequence{0};
    std::uint32_t acknowledgement{0};
    std::uint16_t source_port{0};
    std::uint16_t destination_port{0};
    std::uint16_t window{0};
    std::uint16_t payload_bytes{0};
    std::uint8_t ip_offset{0};
    std::uint8_t tcp_offset{0};
    std::uint8_t payload_offset{0};
    std::uint8_t flags{0};           // tcp_fin … tcp_cwr
    std::uint8_t reserved_flags{0};  // the four bits in front of them
    bool v6{false};
    // Filled by find_options() alone; 0 = not there.
    std::uint8_t timestamp_offset{0};  // of TSval; TSecr follows
    std::uint8_t sack_offset{0};       // of the first block's left edge
    std::uint8_t sack_blocks{0};

    [[nodiscard]] std::size_t tcp_bytes() const {  // the TCP header, options included
        return static_cast<std::size_t>(payload_offset) - tcp_offset;
    }
    [[nodiscard]] std::size_t option_bytes() const { return tcp_bytes() - tcp_header_bytes; }
    // Where the IP packet ends; what the frame has behind it is padding.
    [[nodiscard]] std::size_t end_offset() const {
        return static_cast<std::size_t>(payload_offset) + payload_bytes;
    }
    // Sequence numbers that the segment takes: SYN and FIN count one each.
    [[nodiscard]] std::uint32_t sequence_bytes() const {
        return payload_bytes + static_cast<std::uint32_t>((flags & tcp_syn) != 0) +
               static_cast<std::uint32_t>((flags & tcp_fin) != 0);
    }
};

// Fills the view and returns `spliced`, which here means that nothing speaks against it; or returns
// why not, and the view is then without meaning.
[[nodiscard]] PacketReason parse(std::span<const std::byte> frame, TcpView& view);

// Walks the options of a parsed segment. `spliced`, or `bad_options` when they are malformed: a
// length that is too short or leaves the header, a timestamp or SACK option of an impossible length
// or for the second time. Options of other kinds are passed over.
[[nodiscard]] PacketReason find_options(std::span<const std::byte> frame, TcpView& view);

// The flow that a frame from the wire belongs to: its source is the peer.
[[nodiscard]] FlowKey key_of(const TcpView& view, std::span<const std::byte> frame);
// The flow that a frame from the kernel belongs to: its source is the relay.
[[nodiscard]] FlowKey reversed_key_of(const TcpView& view, std::span<const std::byte> frame);

// ---- The usual layout, in line for the packet path: IPv4, no tag.

inline constexpr std::size_t usual_ip_offset = ethernet_header_bytes;
inline constexpr std::size_t usual_tcp_offset = usual_ip_offset + ipv4_header_bytes;

// Ethertype, version, header length, fragment and protocol by two compares of words, then the
// lengths. A frame that fails may still be one for parse().
[[nodiscard]] inline bool has_usual_layout(std::span<const std::byte> frame) {
    if (frame.size() < usual_tcp_offset + tcp_header_bytes) [[unlikely]] {
        return false;
    }
    const std::byte* ip = frame.data() + usual_ip_offset;
    constexpr std::uint32_t type_and_version = 0x0800'4500;  // and the traffic class
    constexpr std::uint32_t whole_and_tcp = 0x0000'0006;     // fragment, TTL, protocol
    const bool usual = (load32(ip - 2) & 0xffff'ff00U) == type_and_version &&
                       (load32(ip + 6) & 0x3fff'00ffU) == whole_and_tcp;
    const std::size_t total_bytes = load16(ip + 2);
    const std::size_t header_bytes = (load8(ip + ipv4_header_bytes + 12) >> 4U) * std::size_t{4};
    return usual && header_bytes >= tcp_header_bytes &&
           usual_ip_offset + total_bytes <= frame.size() &&
           ipv4_header_bytes + header_bytes <= total_bytes;
}

inline void view_usual(std::span<const std::byte> frame, TcpView& view) {
    const std::byte* ip = frame.data() + usual_ip_offset;
    const std::byte* tcp = frame.data() + usual_tcp_offset;
    const std::uint8_t offset_and_reserved = load8(tcp + 12);
    const std::uint32_t header_bytes = (offset_and_reserved >> 4U) * 4U;
    view.sequence = load32(tcp + 4);
    view.acknowledgement = load32(tcp + 8);
    view.source_port = load16(tcp);
    view.destination_port = load16(tcp + 2);
    view.window = load16(tcp + 14);
    view.payload_bytes =
        static_cast<std::uint16_t>(load16(ip + 2) - ipv4_header_bytes - header_bytes);
    view.ip_offset = usual_ip_offset;
    view.tcp_offset = usual_tcp_offset;
    view.payload_offset = static_cast<std::uint8_t>(usual_tcp_offset + header_bytes);
    view.flags = load8(tcp + 13);
    view.reserved_flags = offset_and_reserved & 0x0fU;
    view.v6 = false;
    view.timestamp_offset = 0;
    view.sack_offset = 0;
    view.sack_blocks = 0;
}

// The same result as parse(), sooner for the usual layout.
[[nodiscard]] inline PacketReason parse_usual(std::span<const std::byte> frame, TcpView& view) {
    if (!has_usual_layout(frame)) [[unlikely]] {
        return parse(frame, view);
    }
    view_usual(frame, view);
    return PacketReason::spliced;
}

}  // namespace bore::packet
