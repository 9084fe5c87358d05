#include "tests/packet/frames.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace bore::packet::test {

namespace {

void put8(Bytes& to, std::uint32_t value) {
    to.push_back(static_cast<std::byte>(value & 0xffU));
}
void put16(Bytes& to, std::uint32_t value) {
    put8(to, value >> 8U);
    put8(to, value);
}
void put32(Bytes& to, std::uint32_t value) {
    put16(to, value >> 16U);
    put16(to, value);
}
template <typename Container>
void put(Bytes& to, const Container& bytes) {
    for (const auto byte : bytes) {
        to.push_back(static_cast<std::byte>(byte));
    }
}

std::uint32_t get(std::span<const std::byte> bytes, std::size_t at, std::size_t count) {
    std::uint32_t value = 0;
    for (std::size_t index = 0; index < count; ++index) {
        value = value << 8U | std::to_integer<std::uint32_t>(bytes[at + index]);
    }
    return value;
}

bool mapped(const std::array<std::uint8_t, 16>& address) {
    return FlowKey{.peer_address = address}.is_v4();
}

void put_ip(Bytes& frame, const Segment& segment, std::size_t tcp_bytes) {
    if (!mapped(segment.source)) {
        put32(frame, 6U << 28U | std::uint32_t{segment.traffic_class} << 20U | segment.flow_label);
        put16(frame, static_cast<std::uint32_t>(tcp_bytes));
        put8(frame, segment.protocol);
        put8(frame, segment.hop_limit);
        put(frame, segment.source);
        put(frame, segment.destination);
        return;
    }
    const std::size_t header_bytes = 20 + segment.ip_options.size();
    Bytes header;
    put8(header, static_cast<std::uint32_t>(0x40 + header_bytes / 4));
    put8(header, segment.traffic_class);
    put16(header, static_cast<std::uint32_t>(header_bytes + tcp_bytes));
    put16(header, segment.identification);
    put16(header, segment.fragment);
    put8(header, segment.hop_limit);
    put8(header, segment.protocol);
    put16(header, 0);
    put(header, std::span(segment.source).subspan(12));
    put(header, std::span(segment.destination).subspan(12));
    put(header, segment.ip_options);
    store16(header.data() + 10, full_checksum(header));
    put(frame, header);
}

Bytes pseudo_header(const std::array<std::uint8_t, 16>& source,
                    const std::array<std::uint8_t, 16>& destination, std::size_t tcp_bytes,
                    std::uint8_t protocol) {
    Bytes pseudo;
    const std::size_t skipped = mapped(source) ? 12 : 0;
    put(pseudo, std::span(source).subspan(skipped));
    put(pseudo, std::span(destination).subspan(skipped));
    put32(pseudo, static_cast<std::uint32_t>(tcp_bytes));
    put32(pseudo, protocol);
    return pseudo;
}

// The complement of the checksum is the folded sum.
std::uint64_t sum_of(std::span<const std::byte> bytes) {
    return static_cast<std::uint16_t>(~full_checksum(bytes));
}

Bytes tcp_header(const Segment& segment) {
    Bytes options = segment.options;
    options.resize((options.size() + 3) / 4 * 4);
    Bytes header;
    put16(header, segment.source_port);
    put16(header, segment.destination_port);
    put32(header, segment.sequence);
    put32(header, segment.acknowledgement);
    put8(header,
         static_cast<std::uint32_t>((20 + options.size()) / 4) << 4U | segment.reserved_flags);
    put8(header, segment.flags);
    put16(header, segment.window);
    put16(header, 0);
    put16(header, segment.urgent_pointer);
    put(header, options);
    return header;
}

// The pieces of a frame that read() and the check of its checksums look at.
struct Layout {
    std::size_t ip{0};
    std::size_t tcp{0};
    std::size_t end{0};
    bool v6{false};
};

std::optional<Layout> layout_of(std::span<const std::byte> frame) {
    if (frame.size() < 18 + 20) {
        return std::nullopt;
    }
    Layout layout;
    std::uint32_t ethertype = get(frame, 12, 2);
    layout.ip = 14;
    if (ethertype == 0x8100 || ethertype == 0x88a8) {
        ethertype = get(frame, 16, 2);
        layout.ip = 18;
    }
    layout.v6 = ethertype == 0x86dd;
    if (layout.v6) {
        layout.tcp = layout.ip + 40;
        layout.end = layout.tcp + get(frame, layout.ip + 4, 2);
    } else if (ethertype == 0x0800) {
        layout.tcp = layout.ip + (get(frame, layout.ip, 1) & 0xfU) * 4;
        layout.end = layout.ip + get(frame, layout.ip + 2, 2);
    } else {
        return std::nullopt;
    }
    if (layout.end > frame.size() || layout.tcp + 20 > layout.end) {
        return std::nullopt;
    }
    return layout;
}

std::array<std::uint8_t, 16> address_at(std::span<const std::byte> frame, std::size_t at, bool v6) {
    if (!v6) {
        return ipv4(std::to_integer<std::uint8_t>(frame[at]),
                    std::to_integer<std::uint8_t>(frame[at + 1]),
                    std::to_integer<std::uint8_t>(frame[at + 2]),
                    std::to_integer<std::uint8_t>(frame[at + 3]));
    }
    std::array<std::uint8_t, 16> address{};
    std::memcpy(address.data(), frame.data() + at, 16);
    return address;
}

void read_ip(std::span<const std::byte> frame, const Layout& layout, Segment& segment) {
    const std::size_t ip = layout.ip;
    if (layout.v6) {
        const std::uint32_t first = get(frame, ip, 4);
        segment.traffic_class = static_cast<std::uint8_t>(first >> 20U);
        segment.flow_label = first & 0xfffffU;
        segment.protocol = static_cast<std::uint8_t>(get(frame, ip + 6, 1));
        segment.hop_limit = static_cast<std::uint8_t>(get(frame, ip + 7, 1));
        segment.source = address_at(frame, ip + 8, true);
        segment.destination = address_at(frame, ip + 24, true);
        return;
    }
    segment.traffic_class = static_cast<std::uint8_t>(get(frame, ip + 1, 1));
    segment.identification = static_cast<std::uint16_t>(get(frame, ip + 4, 2));
    segment.fragment = static_cast<std::uint16_t>(get(frame, ip + 6, 2));
    segment.hop_limit = static_cast<std::uint8_t>(get(frame, ip + 8, 1));
    segment.protocol = static_cast<std::uint8_t>(get(frame, ip + 9, 1));
    segment.source = address_at(frame, ip + 12, false);
    segment.destination = address_at(frame, ip + 16, false);
}

}  // namespace

std::array<std::uint8_t, 16> ipv4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
    return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d};
}

std::array<std::uint8_t, 16> ipv6(std::uint16_t network, std::uint16_t host) {
    std::array<std::uint8_t, 16> address{0x20, 0x01, 0x0d, 0xb8};
    address[6] = static_cast<std::uint8_t>(network >> 8U);
    address[7] = static_cast<std::uint8_t>(network);
    address[14] = static_cast<std::uint8_t>(host >> 8U);
    address[15] = static_cast<std::uint8_t>(host);
    return address;
}

Segment segment_from_peer(const FlowKey& key) {
    Segment segment;
    segment.source = key.peer_address;
    segment.destination = key.own_address;
    segment.source_port = key.peer_port;
    segment.destination_port = key.own_port;
    return segment;
}

Segment segment_to_peer(const FlowKey& key) {
    Segment segment;
    segment.source = key.own_address;
    segment.destination = key.peer_address;
    segment.source_port = key.own_port;
    segment.destination_port = key.peer_port;
    return segment;
}

Bytes build(const Segment& segment) {
    Bytes frame;
    put(frame, segment.destination_mac);
    put(frame, segment.source_mac);
    if (segment.vlan.has_value()) {
        put16(frame, segment.vlan_ethertype);
        put16(frame, *segment.vlan);
    }
    put16(frame, mapped(segment.source) ? 0x0800 : 0x86dd);
    Bytes tcp = tcp_header(segment);
    put(tcp, segment.payload);
    put_ip(frame, segment, tcp.size());
    const std::uint16_t checksum = full_checksum(
        tcp,
        sum_of(pseudo_header(segment.source, segment.destination, tcp.size(), segment.protocol)));
    store16(tcp.data() + 16, checksum ^ segment.checksum_error);
    put(frame, tcp);
    frame.resize(frame.size() + segment.padding_bytes, std::byte{0xa5});
    return frame;
}

std::optional<Segment> read(std::span<const std::byte> frame, std::string* why) {
    const auto fail = [why](const std::string& text) -> std::optional<Segment> {
        if (why != nullptr) {
            *why = text;
        }
        return std::nullopt;
    };
    const std::optional<Layout> layout = layout_of(frame);
    if (!layout.has_value()) {
        return fail("not a whole TCP segment");
    }
    if (const std::string complaint = checksum_complaint(frame); !complaint.empty()) {
        return fail(complaint);
    }
    Segment segment;
    std::memcpy(segment.destination_mac.data(), frame.data(), 6);
    std::memcpy(segment.source_mac.data(), frame.data() + 6, 6);
    if (layout->ip == 18) {
        segment.vlan_ethertype = static_cast<std::uint16_t>(get(frame, 12, 2));
        segment.vlan = static_cast<std::uint16_t>(get(frame, 14, 2));
    }
    read_ip(frame, *layout, segment);
    const std::size_t tcp = layout->tcp;
    const std::size_t payload = tcp + (get(frame, tcp + 12, 1) >> 4U) * 4;
    if (payload < tcp + 20 || payload > layout->end) {
        return fail("impossible data offset");
    }
    segment.source_port = static_cast<std::uint16_t>(get(frame, tcp, 2));
    segment.destination_port = static_cast<std::uint16_t>(get(frame, tcp + 2, 2));
    segment.sequence = get(frame, tcp + 4, 4);
    segment.acknowledgement = get(frame, tcp + 8, 4);
    segment.reserved_flags = static_cast<std::uint8_t>(get(frame, tcp + 12, 1) & 0xfU);
    segment.flags = static_cast<std::uint8_t>(get(frame, tcp + 13, 1));
    segment.window = static_cast<std::uint16_t>(get(frame, tcp + 14, 2));
    segment.urgent_pointer = static_cast<std::uint16_t>(get(frame, tcp + 18, 2));
    const auto bytes_of = [frame](std::size_t from, std::size_t to) {
        const auto part = frame.subspan(from, to - from);
        return Bytes(part.begin(), part.end());
    };
    segment.ip_options = layout->v6 ? Bytes{} : bytes_of(layout->ip + 20, tcp);
    segment.options = bytes_of(tcp + 20, payload);
    segment.payload = bytes_of(payload, layout->end);
    segment.padding_bytes = frame.size() - layout->end;
    return segment;
}

Bytes join(std::initializer_list<Bytes> parts) {
    Bytes whole;
    for (const Bytes& part : parts) {
        put(whole, part);
    }
    return whole;
}

Bytes nops(std::size_t count) {
    return Bytes(count, std::byte{1});
}

Bytes timestamps(std::uint32_t value, std::uint32_t echo) {
    Bytes option;
    put16(option, 0x080a);
    put32(option, value);
    put32(option, echo);
    return option;
}

Bytes sack(std::initializer_list<std::pair<std::uint32_t, std::uint32_t>> blocks) {
    Bytes option;
    put8(option, 5);
    put8(option, static_cast<std::uint32_t>(2 + 8 * blocks.size()));
    for (const auto& [left, right] : blocks) {
        put32(option, left);
        put32(option, right);
    }
    return option;
}

Bytes usual_timestamps(std::uint32_t value, std::uint32_t echo) {
    return join({nops(2), timestamps(value, echo)});
}

Bytes text(std::string_view characters) {
    Bytes bytes;
    put(bytes, characters);
    return bytes;
}

Bytes stream_bytes(std::uint32_t position, std::size_t count) {
    Bytes bytes;
    bytes.reserve(count);
    for (std::size_t index = 0; index < count; ++index) {
        const auto at = position + static_cast<std::uint32_t>(index);
        put8(bytes, (at * 2'654'435'761U) >> 24U);
    }
    return bytes;
}

std::uint16_t full_checksum(std::span<const std::byte> bytes, std::uint64_t initial_sum) {
    std::uint64_t sum = initial_sum;
    for (std::size_t index = 0; index < bytes.size(); ++index) {
        const auto byte = std::to_integer<std::uint64_t>(bytes[index]);
        sum += index % 2 == 0 ? byte << 8U : byte;
    }
    while (sum > 0xffff) {
        sum = (sum >> 16U) + (sum & 0xffffU);
    }
    return static_cast<std::uint16_t>(~sum);
}

std::string checksum_complaint(std::span<const std::byte> frame) {
    const std::optional<Layout> layout = layout_of(frame);
    if (!layout.has_value()) {
        return "not a whole TCP segment";
    }
    if (!layout->v6 && full_checksum(frame.subspan(layout->ip, layout->tcp - layout->ip)) != 0) {
        return "wrong IPv4 header checksum " + std::to_string(get(frame, layout->ip + 10, 2));
    }
    const std::size_t addresses = layout->ip + (layout->v6 ? 8 : 12);
    const std::size_t protocol = layout->ip + (layout->v6 ? 6 : 9);
    const Bytes pseudo = pseudo_header(
        address_at(frame, addresses, layout->v6),
        address_at(frame, addresses + (layout->v6 ? 16 : 4), layout->v6), layout->end - layout->tcp,
        static_cast<std::uint8_t>(get(frame, protocol, 1)));
    const auto tcp = frame.subspan(layout->tcp, layout->end - layout->tcp);
    if (full_checksum(tcp, sum_of(pseudo)) != 0) {
        return "wrong TCP checksum " + std::to_string(get(frame, layout->tcp + 16, 2));
    }
    return {};
}

BufferedFrame::BufferedFrame(std::span<const std::byte> bytes, std::size_t headroom_bytes,
                             std::size_t tailroom_bytes)
    : buffer_(headroom_bytes + bytes.size() + tailroom_bytes, std::byte{0xee}) {
    std::ranges::copy(bytes, buffer_.begin() + static_cast<std::ptrdiff_t>(headroom_bytes));
    frame.data = buffer_.data() + headroom_bytes;
    frame.length_bytes = static_cast<std::uint16_t>(bytes.size());
    frame.headroom_bytes = static_cast<std::uint16_t>(headroom_bytes);
    frame.tailroom_bytes = static_cast<std::uint16_t>(tailroom_bytes);
    frame.buffer = buffer_.data();
}

}  // namespace bore::packet::test
