#include "tests/packet/spliced_pair.hpp"

#include <algorithm>

#include "dataplane/base/check.hpp"

namespace bore::packet::test {

namespace {

constexpr std::array<std::uint8_t, 6> own_mac{2, 0, 0, 0, 0, 0x11};
constexpr std::array<std::uint8_t, 6> visitor_mac{2, 0, 0, 0, 0, 0x22};
constexpr std::array<std::uint8_t, 6> client_mac{2, 0, 0, 0, 0, 0x33};

Bytes ethernet_header(const Variant& variant, abi::Leg to) {
    const bool tagged = to == abi::Leg::visitor ? variant.tagged_in : variant.tagged_out;
    const auto& destination = to == abi::Leg::visitor ? visitor_mac : client_mac;
    Bytes header;
    for (const auto* mac : {&destination, &own_mac}) {
        for (const std::uint8_t byte : *mac) {
            header.push_back(static_cast<std::byte>(byte));
        }
    }
    const auto put16 = [&header](std::uint16_t value) {
        header.push_back(static_cast<std::byte>(value >> 8U));
        header.push_back(static_cast<std::byte>(value & 0xffU));
    };
    if (tagged) {
        put16(0x8100);
        put16(to == abi::Leg::visitor ? visitor_tag : client_tag);
    }
    put16(variant.v6 ? 0x86dd : 0x0800);
    return header;
}

}  // namespace

std::ostream& operator<<(std::ostream& to, const Variant& variant) {
    return to << variant.name;
}

FlowState usual_state(const Variant& variant) {
    FlowState state;
    LegState& visitor = state.legs[0];
    visitor.key = {.peer_address = variant.v6 ? ipv6(1, 10) : ipv4(192, 0, 2, 10),
                   .own_address = variant.v6 ? ipv6(9, 1) : ipv4(198, 51, 100, 1),
                   .peer_port = 40'000,
                   .own_port = 20'000};
    visitor.snd_nxt = variant.visitor_snd_nxt;
    visitor.rcv_nxt = variant.visitor_rcv_nxt;
    visitor.peer_window_bytes = 64'000;
    visitor.peer_mss = 1'460;
    visitor.peer_window_scale = 7;
    visitor.own_window_scale = 9;
    visitor.window_scaling = true;
    LegState& client = state.legs[1];
    client.key = {.peer_address = variant.v6 ? ipv6(2, 7) : ipv4(203, 0, 113, 7),
                  .own_address = variant.v6 ? ipv6(9, 2) : ipv4(198, 51, 100, 2),
                  .peer_port = 50'123,
                  .own_port = 7'835};
    client.snd_nxt = variant.client_snd_nxt;
    client.rcv_nxt = variant.client_rcv_nxt;
    client.peer_window_bytes = 65'000;
    client.peer_mss = 1'460;
    client.peer_window_scale = 8;
    client.own_window_scale = 6;
    client.window_scaling = true;
    state.tunnel_index = 3;
    return state;
}

SplicedPair::SplicedPair(const Variant& variant, const FlowState& given)
    : state(given), memory(make_ordinary_memory()), variant_(variant) {
    table = std::move(FlowTable::make(*memory, 16, 1, 0x5eed)).value();
    flow = install_in(*table);
}

FlowIndex SplicedPair::install_in(FlowTable& where) {
    for (const abi::Leg which : {abi::Leg::visitor, abi::Leg::client}) {
        const auto adjacency =
            where.adjacency(ethernet_header(variant_, which),
                            which == abi::Leg::visitor ? visitor_port : client_port);
        state.legs[static_cast<std::size_t>(which)].adjacency = adjacency.value();
    }
    return where.install(state, now_ns).value();
}

Segment SplicedPair::from(abi::Leg in) const {
    Segment segment = segment_from_peer(leg(in).key);
    segment.destination_mac = own_mac;
    segment.source_mac = in == abi::Leg::visitor ? visitor_mac : client_mac;
    if (in == abi::Leg::visitor ? variant_.tagged_in : variant_.tagged_out) {
        segment.vlan = in == abi::Leg::visitor ? visitor_tag : client_tag;
    }
    segment.sequence = leg(in).rcv_nxt;
    segment.acknowledgement = leg(in).snd_nxt;
    segment.identification = 0x1234;
    if (!variant_.v6) {
        segment.fragment = 0x4000;
    }
    return segment;
}

Segment SplicedPair::mirrored(abi::Leg in, const Segment& segment) const {
    const LegState& from_leg = leg(in);
    const LegState& to_leg = leg(opposite(in));
    Segment mirror = segment;
    const Segment to_peer = segment_to_peer(to_leg.key);
    mirror.source = to_peer.source;
    mirror.destination = to_peer.destination;
    mirror.source_port = to_peer.source_port;
    mirror.destination_port = to_peer.destination_port;
    mirror.source_mac = own_mac;
    mirror.destination_mac = in == abi::Leg::visitor ? client_mac : visitor_mac;
    mirror.vlan.reset();
    if (in == abi::Leg::visitor ? variant_.tagged_out : variant_.tagged_in) {
        mirror.vlan = in == abi::Leg::visitor ? client_tag : visitor_tag;
    }
    mirror.vlan_ethertype = 0x8100;
    mirror.traffic_class = segment.traffic_class & 0xfc;
    mirror.hop_limit = static_cast<std::uint8_t>(segment.hop_limit - 1);
    // The byte that the relay would have sent next stands for the byte it would have read next.
    mirror.sequence = to_leg.snd_nxt + (segment.sequence - from_leg.rcv_nxt);
    mirror.acknowledgement = to_leg.rcv_nxt + (segment.acknowledgement - from_leg.snd_nxt);
    const std::uint64_t bytes = std::uint64_t{segment.window} << from_leg.peer_window_scale;
    const std::uint64_t window = bytes >> to_leg.own_window_scale;
    mirror.window = static_cast<std::uint16_t>(std::min<std::uint64_t>(window, 65'535));
    mirror.padding_bytes = 0;
    return mirror;
}

Passage SplicedPair::passage(abi::Leg in) const {
    return {.entry = entry(in),
            .adjacency = table->adjacency_at(entry(in).adjacency),
            .other = entry(opposite(in)),
            .cold = cold(),
            .addresses = table->addresses(flow),
            .in = in};
}

PacketReason SplicedPair::pass(abi::Leg in, const Segment& segment) {
    return pass(in, build(segment));
}

PacketReason SplicedPair::pass(abi::Leg in, const Bytes& bytes, std::size_t headroom_bytes) {
    BufferedFrame buffered(bytes, headroom_bytes);
    const std::byte* const start = buffered.frame.data;
    TcpView view;
    outcome = Outcome{};
    PacketReason reason = parse_usual(buffered.frame.bytes(), view);
    if (reason == PacketReason::spliced) {
        const Moment moment(now_ns);
        reason = translate(buffered.frame, view, passage(in), moment, tally, outcome);
    }
    out = buffered.bytes();
    out_port = buffered.frame.port_index;
    headroom_left = buffered.frame.headroom_bytes;
    // Whoever moves the front of a frame says so: drivers go by the headroom.
    BORE_CHECK(buffered.frame.data + headroom_bytes == start + headroom_left,
               "the frame has lost track of its buffer");
    return reason;
}

}  // namespace bore::packet::test
