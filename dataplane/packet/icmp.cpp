// Steps: the outer packet → its checksums → the embedded segment's flow → is it under way, is the
// size sane → the same bytes again with the other leg's values.
#include "dataplane/packet/icmp.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/parse.hpp"

namespace bore::packet {

namespace {

constexpr std::uint8_t protocol_icmp = 1;
constexpr std::uint8_t protocol_icmpv6 = 58;
constexpr std::size_t icmp_header_bytes = 8;
constexpr std::size_t embedded_tcp_bytes = 8;  // ports and sequence number (RFC 792)
constexpr std::uint32_t inserted_timestamp_bytes = 12;

constexpr std::size_t icmp_checksum_at = 2;
constexpr std::size_t icmp_size_at_v4 = 6;  // 16 bits, RFC 1191
constexpr std::size_t icmp_size_at_v6 = 4;  // 32 bits, RFC 4443

// Offsets count from the start of the IP header. Both headers are of the same length before and
// after the translation, so they hold for both frames.
struct Complaint {
    std::span<const std::byte> packet;  // the IP packet, padding cut off
    bool v6{false};
    std::size_t icmp{0};
    std::size_t embedded_ip{0};
    std::size_t embedded_tcp{0};
    bool about_size{false};
};

struct Failure {
    IcmpVerdict verdict;
    IcmpReason reason;
};
constexpr Failure to_kernel{IcmpVerdict::to_kernel, IcmpReason::not_an_error};
constexpr Failure ignored(IcmpReason reason) {
    return {IcmpVerdict::ignored, reason};
}
using Outcome = std::optional<Failure>;  // nothing: goes on

std::size_t ip_header_bytes(bool v6) {
    return v6 ? ipv6_header_bytes : ipv4_header_bytes;
}

// ---- The outer packet

bool is_error(bool v6, std::uint8_t type) {
    return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}
bool is_about_size(bool v6, std::uint8_t type, std::uint8_t code) {
    return v6 ? type == 2 : type == 3 && code == 4;
}

Outcome parse_outer(std::span<const std::byte> frame, Complaint& complaint) {
    if (frame.size() < tagged_header_bytes) {
        return to_kernel;
    }
    std::uint16_t ethertype = load16(frame.data() + 12);
    std::size_t ip_offset = ethernet_header_bytes;
    if (ethertype == ethertype_vlan || ethertype == ethertype_service_vlan) {
        ethertype = load16(frame.data() + 16);
        ip_offset = tagged_header_bytes;
    }
    if (ethertype != ethertype_ipv4 && ethertype != ethertype_ipv6) {
        return to_kernel;
    }
    complaint.v6 = ethertype == ethertype_ipv6;
    complaint.icmp = ip_header_bytes(complaint.v6);
    const std::span<const std::byte> packet = frame.subspan(ip_offset);
    if (packet.size() < complaint.icmp) {
        return to_kernel;
    }
    const std::byte* ip = packet.data();
    const bool plain = complaint.v6 ? load8(ip) >> 4U == 6 && load8(ip + 6) == protocol_icmpv6
                                    : load8(ip) == 0x45 && (load16(ip + 6) & 0x3fffU) == 0 &&
                                          load8(ip + 9) == protocol_icmp;
    const std::size_t total_bytes =
        complaint.v6 ? ipv6_header_bytes + load16(ip + 4) : std::size_t{load16(ip + 2)};
    if (!plain || total_bytes < complaint.icmp + icmp_header_bytes) {
        return to_kernel;
    }
    if (total_bytes > packet.size()) {
        return ignored(IcmpReason::truncated);
    }
    complaint.packet = packet.first(total_bytes);
    const std::uint8_t type = load8(ip + complaint.icmp);
    complaint.about_size = is_about_size(complaint.v6, type, load8(ip + complaint.icmp + 1));
    return is_error(complaint.v6, type) ? Outcome{} : to_kernel;
}

std::uint64_t icmp_sum(const std::byte* ip, std::size_t icmp, std::size_t packet_bytes, bool v6) {
    const std::size_t icmp_bytes = packet_bytes - icmp;
    std::uint64_t sum = sum_of(ip + icmp, icmp_bytes);
    if (v6) {  // RFC 4443, 2.3
        sum += sum_of(ip + 8, 32) + __builtin_bswap16(protocol_icmpv6) +
               __builtin_bswap16(static_cast<std::uint16_t>(icmp_bytes));
    }
    return sum;
}

bool has_right_checksums(const Complaint& complaint) {
    const std::byte* ip = complaint.packet.data();
    const bool header_right = complaint.v6 || fold(sum_of(ip, ipv4_header_bytes)) == 0xffff;
    return header_right &&
           fold(icmp_sum(ip, complaint.icmp, complaint.packet.size(), complaint.v6)) == 0xffff;
}

// ---- The embedded segment

// The relay sends neither IP options nor extension headers nor any fragment but a first one.
Outcome parse_embedded(Complaint& complaint) {
    complaint.embedded_ip = complaint.icmp + icmp_header_bytes;
    complaint.embedded_tcp = complaint.embedded_ip + ip_header_bytes(complaint.v6);
    if (complaint.packet.size() < complaint.embedded_tcp + embedded_tcp_bytes) {
        return ignored(IcmpReason::truncated);
    }
    const std::byte* ip = complaint.packet.data() + complaint.embedded_ip;
    const bool ours = complaint.v6 ? load8(ip) >> 4U == 6 && load8(ip + 6) == protocol_tcp
                                   : load8(ip) == 0x45 && (load16(ip + 6) & 0x1fffU) == 0 &&
                                         load8(ip + 9) == protocol_tcp;
    return ours ? Outcome{} : Failure{IcmpVerdict::to_kernel, IcmpReason::not_spliced};
}

// The leg that the segment was sent on: the relay's end is the source.
FlowKey leg_of_embedded(const Complaint& complaint) {
    FlowKey key;
    const std::byte* ip = complaint.packet.data() + complaint.embedded_ip;
    const std::byte* tcp = complaint.packet.data() + complaint.embedded_tcp;
    if (complaint.v6) {
        std::memcpy(key.own_address.data(), ip + 8, 16);
        std::memcpy(key.peer_address.data(), ip + 24, 16);
    } else {
        key.own_address[10] = key.own_address[11] = 0xff;
        key.peer_address[10] = key.peer_address[11] = 0xff;
        std::memcpy(key.own_address.data() + 12, ip + 12, 4);
        std::memcpy(key.peer_address.data() + 12, ip + 16, 4);
    }
    key.own_port = load16(tcp);
    key.peer_port = load16(tcp + 2);
    return key;
}

bool is_under_way(std::uint32_t sequence, const DirectionEntry& back, const DirectionEntry& forth) {
    const std::uint32_t unacknowledged = back.acknowledged.load(std::memory_order_relaxed);
    const std::uint32_t next =
        forth.next_sequence.load(std::memory_order_relaxed) + forth.sequence_delta;
    return !sequence_before(sequence, unacknowledged) && sequence_before(sequence, next);
}

bool goes_to_source(const Complaint& complaint) {
    const std::byte* ip = complaint.packet.data();
    const std::byte* embedded = ip + complaint.embedded_ip;
    return complaint.v6 ? std::memcmp(ip + 24, embedded + 8, 16) == 0
                        : std::memcmp(ip + 16, embedded + 12, 4) == 0;
}

// ---- The size

std::uint32_t size_of_path(const Complaint& complaint) {
    const std::byte* icmp = complaint.packet.data() + complaint.icmp;
    return complaint.v6 ? load32(icmp + icmp_size_at_v6) : load16(icmp + icmp_size_at_v4);
}

bool is_sane_size(const Complaint& complaint) {
    const std::uint32_t size_bytes = size_of_path(complaint);
    const std::byte* embedded = complaint.packet.data() + complaint.embedded_ip;
    const std::uint32_t segment_bytes =
        complaint.v6 ? ipv6_header_bytes + std::uint32_t{load16(embedded + 4)}
                     : load16(embedded + 2);
    return size_bytes >= (complaint.v6 ? min_path_bytes_v6 : min_path_bytes_v4) &&
           size_bytes < segment_bytes;
}

// What fits when the relay adds timestamps to what this peer sends. An IPv6 host does not go below
// 1,280 whatever it is told.
std::uint32_t size_for_peer(const Complaint& complaint, const DirectionEntry& forth) {
    const bool inserts =
        (forth.flags & (flag_in_timestamps | flag_out_timestamps)) == flag_out_timestamps;
    const std::uint32_t fits = size_of_path(complaint) - (inserts ? inserted_timestamp_bytes : 0);
    return complaint.v6 ? std::max(fits, min_path_bytes_v6) : fits;
}

// ---- Writing. `ip` is the new packet, at first a copy of the old one.

// The pair of addresses as `forth`'s segments carry it when they come in.
struct PeerAddresses {
    std::array<std::byte, 16> peer{};
    std::array<std::byte, 16> own{};
};

PeerAddresses addresses_of(const FlowTable& table, DirectionIndex index, bool v6) {
    PeerAddresses addresses;
    if (v6) {
        const FlowAddresses& full = table.addresses(flow_of(index));
        const auto leg = static_cast<std::size_t>(leg_of(index));
        std::memcpy(addresses.peer.data(), full.peer[leg].data(), 16);
        std::memcpy(addresses.own.data(), table.own_address6(index).data(), 16);
    } else {
        const DirectionEntry& entry = table.direction(index);
        std::memcpy(addresses.peer.data(), &entry.in_source, 4);
        std::memcpy(addresses.own.data(), &entry.in_destination, 4);
    }
    return addresses;
}

// The segment as the peer sent it. The TCP checksum that goes with the changes is kept right as far
// as the segment goes: it covers payload that is not there.
void write_embedded(const Complaint& complaint, const DirectionEntry& forth,
                    const PeerAddresses& addresses, std::span<std::byte> packet) {
    std::byte* ip = packet.data() + complaint.embedded_ip;
    std::byte* tcp = packet.data() + complaint.embedded_tcp;
    const std::size_t tcp_bytes = packet.size() - complaint.embedded_tcp;
    const std::size_t address_bytes = complaint.v6 ? 16 : 4;
    std::byte* ends = ip + (complaint.v6 ? 8 : 12);
    const std::uint64_t ends_before = sum_of(ends, 2 * address_bytes);
    std::uint64_t tcp_change = change32(word32(tcp), forth.in_ports);
    std::memcpy(ends, addresses.peer.data(), address_bytes);
    std::memcpy(ends + address_bytes, addresses.own.data(), address_bytes);
    const std::uint64_t ends_change =
        change16(fold(ends_before), fold(sum_of(ends, 2 * address_bytes)));
    if (!complaint.v6) {
        put_word16(ip + 10, changed_checksum(word16(ip + 10), ends_change));
    }
    put_word32(tcp, forth.in_ports);
    const auto subtract = [&](std::size_t at, std::uint32_t delta) {
        const std::uint32_t before = word32(tcp + at);
        store32(tcp + at, load32(tcp + at) - delta);
        tcp_change += change32(before, word32(tcp + at));
    };
    subtract(4, forth.sequence_delta);
    if (tcp_bytes >= 12) {
        subtract(8, forth.acknowledgement_delta);
    }
    if (tcp_bytes >= 18) {
        put_word16(tcp + 16, changed_checksum(word16(tcp + 16), tcp_change + ends_change));
    }
}

// From the relay's address, as all that this peer sees of the flow: a router's would be taken for
// forged on the way. The TTL goes on counting, so that nothing can circle.
void write_outer(const Complaint& complaint, const PeerAddresses& addresses,
                 std::uint32_t size_bytes, std::span<std::byte> packet) {
    std::byte* ip = packet.data();
    std::byte* icmp = ip + complaint.icmp;
    const std::size_t address_bytes = complaint.v6 ? 16 : 4;
    std::byte* ends = ip + (complaint.v6 ? 8 : 12);
    std::memcpy(ends, addresses.own.data(), address_bytes);
    std::memcpy(ends + address_bytes, addresses.peer.data(), address_bytes);
    std::byte* hops = ip + (complaint.v6 ? 7 : 8);
    store8(hops, static_cast<std::uint8_t>(load8(hops) - 1));
    if (complaint.about_size && complaint.v6) {
        store32(icmp + icmp_size_at_v6, size_bytes);
    } else if (complaint.about_size) {
        store16(icmp + icmp_size_at_v4, static_cast<std::uint16_t>(size_bytes));
    }
    put_word16(icmp + icmp_checksum_at, 0);
    put_word16(icmp + icmp_checksum_at, static_cast<std::uint16_t>(~fold(icmp_sum(
                                            ip, complaint.icmp, packet.size(), complaint.v6))));
    if (!complaint.v6) {
        put_word16(ip + 10, 0);
        put_word16(ip + 10, static_cast<std::uint16_t>(~fold(sum_of(ip, ipv4_header_bytes))));
    }
}

Outcome check(const Complaint& complaint, const DirectionEntry& back, const DirectionEntry& forth) {
    const std::byte* ip = complaint.packet.data();
    if (!goes_to_source(complaint)) {
        return ignored(IcmpReason::wrong_destination);
    }
    if (!is_under_way(load32(ip + complaint.embedded_tcp + 4), back, forth)) {
        return ignored(IcmpReason::not_under_way);
    }
    if (complaint.about_size && !is_sane_size(complaint)) {
        return ignored(IcmpReason::bad_size);
    }
    if (load8(ip + (complaint.v6 ? 7 : 8)) <= 1) {
        return ignored(IcmpReason::hop_limit);
    }
    return {};
}

}  // namespace

IcmpResult translate_icmp(const FlowTable& table, std::span<const std::byte> frame,
                          std::span<std::byte> out) {
    const auto failed = [](const Failure& failure) {
        return IcmpResult{.verdict = failure.verdict, .reason = failure.reason};
    };
    Complaint complaint;
    if (const Outcome outcome = parse_outer(frame, complaint)) {
        return failed(*outcome);
    }
    if (!has_right_checksums(complaint)) {
        return failed(ignored(IcmpReason::bad_checksum));
    }
    if (const Outcome outcome = parse_embedded(complaint)) {
        return failed(*outcome);
    }
    const std::optional<DirectionIndex> found = table.find(leg_of_embedded(complaint));
    // An IPv6 packet with mapped addresses would find a flow of IPv4.
    if (!found || ((table.direction(*found).flags & flag_v6) != 0) != complaint.v6) {
        return failed({IcmpVerdict::to_kernel, IcmpReason::not_spliced});
    }
    // `back` comes from the peer that the segment was sent to, `forth` from the one that sent it.
    const DirectionIndex forth_index = *found ^ 1U;
    const DirectionEntry& back = table.direction(*found);
    const DirectionEntry& forth = table.direction(forth_index);
    if (const Outcome outcome = check(complaint, back, forth)) {
        return failed(*outcome);
    }
    const Adjacency& adjacency = table.adjacency_at(back.adjacency);
    const std::size_t length_bytes = adjacency.header_bytes + complaint.packet.size();
    if (out.size() < length_bytes) {
        return failed(ignored(IcmpReason::no_room));
    }
    const std::span<std::byte> packet =
        out.subspan(adjacency.header_bytes, complaint.packet.size());
    std::memcpy(out.data(), adjacency.header.data(), adjacency.header_bytes);
    std::memcpy(packet.data(), complaint.packet.data(), packet.size());
    const PeerAddresses addresses = addresses_of(table, forth_index, complaint.v6);
    write_embedded(complaint, forth, addresses, packet);
    write_outer(complaint, addresses, size_for_peer(complaint, forth), packet);
    return {.verdict = IcmpVerdict::translated,
            .reason = IcmpReason::none,
            .length_bytes = static_cast<std::uint16_t>(length_bytes),
            .port_index = adjacency.port_index};
}

}  // namespace bore::packet
