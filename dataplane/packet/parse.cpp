// Steps: Ethernet and its tag → IPv4 or IPv6 → TCP. Each step checks that its header lies in the
// frame before it reads it.
#include "dataplane/packet/parse.hpp"

#include <array>
#include <cstring>

namespace bore::packet {

namespace {

struct IpPacket {
    std::size_t offset;      // of the IP header
    std::size_t tcp_offset;  // behind it
    std::size_t end_offset;  // where the IP length says that the packet ends
};

PacketReason parse_ipv4(std::span<const std::byte> frame, IpPacket& packet) {
    if (frame.size() < packet.offset + ipv4_header_bytes) {
        return PacketReason::truncated;
    }
    const std::byte* at = frame.data() + packet.offset;
    const std::uint8_t version_and_length = load8(at);
    const std::size_t total_bytes = load16(at + 2);
    if (version_and_length < 0x45 || version_and_length > 0x4f || total_bytes < ipv4_header_bytes) {
        return PacketReason::bad_header;
    }
    if (packet.offset + total_bytes > frame.size()) {
        return PacketReason::truncated;
    }
    if (version_and_length != 0x45) {
        return PacketReason::ip_options;
    }
    if ((load16(at + 6) & 0x3fffU) != 0) {  // more fragments, or an offset
        return PacketReason::fragment;
    }
    if (load8(at + 9) != protocol_tcp) {
        return PacketReason::not_tcp;
    }
    packet.tcp_offset = packet.offset + ipv4_header_bytes;
    packet.end_offset = packet.offset + total_bytes;
    return PacketReason::spliced;
}

PacketReason reason_of_next_header(std::uint8_t next_header) {
    switch (next_header) {
        case protocol_tcp:
            return PacketReason::spliced;
        case 44:
            return PacketReason::fragment;
        case 0:    // hop-by-hop options
        case 43:   // routing
        case 50:   // encapsulating security payload
        case 51:   // authentication
        case 60:   // destination options
        case 135:  // mobility
        case 139:  // host identity
        case 140:  // shim6
            return PacketReason::ip_extension;
        default:
            return PacketReason::not_tcp;
    }
}

bool is_mapped(const std::byte* address) {
    static constexpr std::array<std::uint8_t, 12> prefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return std::memcmp(address, prefix.data(), prefix.size()) == 0;
}

PacketReason parse_ipv6(std::span<const std::byte> frame, IpPacket& packet) {
    if (frame.size() < packet.offset + ipv6_header_bytes) {
        return PacketReason::truncated;
    }
    const std::byte* at = frame.data() + packet.offset;
    if (load8(at) >> 4U != 6) {
        return PacketReason::bad_header;
    }
    packet.tcp_offset = packet.offset + ipv6_header_bytes;
    packet.end_offset = packet.tcp_offset + load16(at + 4);
    if (packet.end_offset > frame.size()) {
        return PacketReason::truncated;
    }
    // ::ffff:a.b.c.d is how IPv4 flows are named inside; on a wire no host has it (RFC 6890).
    if (is_mapped(at + 8) || is_mapped(at + 24)) {
        return PacketReason::bad_header;
    }
    return reason_of_next_header(load8(at + 6));
}

PacketReason parse_tcp(std::span<const std::byte> frame, const IpPacket& packet, TcpView& view) {
    if (packet.tcp_offset + tcp_header_bytes > packet.end_offset) {
        return PacketReason::truncated;
    }
    const std::byte* at = frame.data() + packet.tcp_offset;
    const std::size_t header_bytes = (load8(at + 12) >> 4U) * std::size_t{4};
    if (header_bytes < tcp_header_bytes) {
        return PacketReason::bad_header;
    }
    if (packet.tcp_offset + header_bytes > packet.end_offset) {
        return PacketReason::truncated;
    }
    view.sequence = load32(at + 4);
    view.acknowledgement = load32(at + 8);
    view.source_port = load16(at);
    view.destination_port = load16(at + 2);
    view.window = load16(at + 14);
    view.payload_bytes =
        static_cast<std::uint16_t>(packet.end_offset - packet.tcp_offset - header_bytes);
    view.ip_offset = static_cast<std::uint8_t>(packet.offset);
    view.tcp_offset = static_cast<std::uint8_t>(packet.tcp_offset);
    view.payload_offset = static_cast<std::uint8_t>(packet.tcp_offset + header_bytes);
    view.flags = load8(at + 13);
    view.reserved_flags = load8(at + 12) & 0x0fU;
    view.timestamp_offset = 0;
    view.sack_offset = 0;
    view.sack_blocks = 0;
    return PacketReason::spliced;
}

struct Ends {
    std::array<std::uint8_t, 16> source{};
    std::array<std::uint8_t, 16> destination{};
};

Ends ends_of(const TcpView& view, std::span<const std::byte> frame) {
    Ends ends;
    const std::byte* at = frame.data() + view.ip_offset;
    if (view.v6) {
        std::memcpy(ends.source.data(), at + 8, 16);
        std::memcpy(ends.destination.data(), at + 24, 16);
    } else {
        ends.source[10] = ends.source[11] = 0xff;
        ends.destination[10] = ends.destination[11] = 0xff;
        std::memcpy(ends.source.data() + 12, at + 12, 4);
        std::memcpy(ends.destination.data() + 12, at + 16, 4);
    }
    return ends;
}

}  // namespace

PacketReason parse(std::span<const std::byte> frame, TcpView& view) {
    if (frame.size() < ethernet_header_bytes) {
        return PacketReason::truncated;
    }
    IpPacket packet{.offset = ethernet_header_bytes, .tcp_offset = 0, .end_offset = 0};
    std::uint16_t ethertype = load16(frame.data() + 12);
    if (ethertype == ethertype_vlan || ethertype == ethertype_service_vlan) {
        if (frame.size() < tagged_header_bytes) {
            return PacketReason::truncated;
        }
        packet.offset = tagged_header_bytes;
        ethertype = load16(frame.data() + 16);
    }
    PacketReason reason = PacketReason::ethertype;
    if (ethertype == ethertype_ipv4) {
        reason = parse_ipv4(frame, packet);
    } else if (ethertype == ethertype_ipv6) {
        reason = parse_ipv6(frame, packet);
    } else if (ethertype == ethertype_arp) {
        reason = PacketReason::not_tcp;
    }
    if (reason != PacketReason::spliced) {
        return reason;
    }
    view.v6 = ethertype == ethertype_ipv6;
    return parse_tcp(frame, packet, view);
}

PacketReason find_options(std::span<const std::byte> frame, TcpView& view) {
    const std::byte* bytes = frame.data();
    std::size_t at = view.tcp_offset + tcp_header_bytes;
    const std::size_t end = view.payload_offset;
    view.timestamp_offset = view.sack_offset = view.sack_blocks = 0;
    while (at < end) {
        const std::uint8_t kind = load8(bytes + at);
        if (kind == option_end) {
            return PacketReason::spliced;
        }
        if (kind == option_nop) {
            ++at;
            continue;
        }
        if (end - at < 2) {
            return PacketReason::bad_options;
        }
        const std::size_t length = load8(bytes + at + 1);
        if (length < 2 || length > end - at) {
            return PacketReason::bad_options;
        }
        if (kind == option_timestamps) {
            if (length != timestamps_option_bytes || view.timestamp_offset != 0) {
                return PacketReason::bad_options;
            }
            view.timestamp_offset = static_cast<std::uint8_t>(at + 2);
        } else if (kind == option_sack) {
            const std::size_t blocks = (length - 2) / sack_block_bytes;
            if (blocks == 0 || blocks > max_sack_blocks ||
                blocks * sack_block_bytes + 2 != length || view.sack_offset != 0) {
                return PacketReason::bad_options;
            }
            view.sack_offset = static_cast<std::uint8_t>(at + 2);
            view.sack_blocks = static_cast<std::uint8_t>(blocks);
        }
        at += length;
    }
    return PacketReason::spliced;
}

FlowKey key_of(const TcpView& view, std::span<const std::byte> frame) {
    const Ends ends = ends_of(view, frame);
    return {.peer_address = ends.source,
            .own_address = ends.destination,
            .peer_port = view.source_port,
            .own_port = view.destination_port};
}

FlowKey reversed_key_of(const TcpView& view, std::span<const std::byte> frame) {
    const Ends ends = ends_of(view, frame);
    return {.peer_address = ends.destination,
            .own_address = ends.source,
            .peer_port = view.destination_port,
            .own_port = view.source_port};
}

}  // namespace bore::packet
