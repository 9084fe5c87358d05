#include "bench/packet/flows.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "dataplane/packet/frame.hpp"

namespace bore::bench {

namespace {

using packet::store16;
using packet::store32;
using packet::store8;

constexpr std::uint32_t flows_per_address = 50'000;  // then the peers get another one

std::array<std::uint8_t, 16> address(std::uint32_t v4, bool ipv6) {
    std::array<std::uint8_t, 16> bytes{};
    if (ipv6) {
        bytes = {0x20, 0x01, 0x0d, 0xb8};
    } else {
        bytes[10] = bytes[11] = 0xff;
    }
    store32(reinterpret_cast<std::byte*>(bytes.data() + 12), v4);
    return bytes;
}

std::array<std::byte, 14> ethernet(std::uint8_t peer, bool ipv6) {
    std::array<std::byte, 14> header{};
    header[0] = header[6] = std::byte{2};
    store8(&header[5], peer);
    store8(&header[11], static_cast<std::uint8_t>(peer + 0x80));
    store16(&header[12], ipv6 ? 0x86dd : 0x0800);
    return header;
}

std::uint64_t sum_of(std::span<const std::byte> bytes, std::uint64_t sum) {
    for (std::size_t index = 0; index < bytes.size(); ++index) {
        const auto value = std::uint64_t{packet::load8(&bytes[index])};
        sum += index % 2 == 0 ? value << 8U : value;
    }
    return sum;
}

std::uint16_t folded(std::uint64_t sum) {
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16U);
    }
    return static_cast<std::uint16_t>(~sum);
}

void write_ip(const packet::FlowKey& key, const FrameShape& shape, std::span<std::byte> ip) {
    const std::size_t tcp_bytes = 20U + shape.payload_bytes;
    if (shape.ipv6) {
        store8(&ip[0], 0x60);
        store16(&ip[4], static_cast<std::uint16_t>(tcp_bytes));
        store8(&ip[6], 6);
        store8(&ip[7], 64);
        std::memcpy(&ip[8], key.peer_address.data(), 16);
        std::memcpy(&ip[24], key.own_address.data(), 16);
        return;
    }
    store8(&ip[0], 0x45);
    store16(&ip[2], static_cast<std::uint16_t>(20 + tcp_bytes));
    store16(&ip[6], 0x4000);
    store8(&ip[8], 64);
    store8(&ip[9], 6);
    std::memcpy(&ip[12], key.peer_address.data() + 12, 4);
    std::memcpy(&ip[16], key.own_address.data() + 12, 4);
    store16(&ip[10], folded(sum_of(ip.first(20), 0)));
}

}  // namespace

packet::FlowState flow_state(std::uint32_t flow, bool ipv6) {
    packet::FlowState state;
    const std::uint32_t host = flow / flows_per_address;
    const auto port = static_cast<std::uint16_t>(1'024 + flow % flows_per_address);
    state.legs[0].key = {address(0x0a00'0001 + host, ipv6), address(0xc000'0201, ipv6), port,
                         20'000};
    state.legs[1].key = {address(0x0b00'0001 + host, ipv6), address(0xc000'0202, ipv6), port,
                         7'835};
    for (std::uint16_t index = 0; index < 2; ++index) {
        packet::LegState& leg = state.legs[index];
        leg.adjacency = index;
        leg.snd_nxt = 0x1234'5678 + flow * 77 + index;
        leg.rcv_nxt = 0x8765'4321 + flow * 99 + index;
        leg.peer_window_bytes = 60'000;
        leg.peer_mss = 1'460;
        leg.peer_window_scale = leg.own_window_scale = 7;
        leg.window_scaling = leg.sack = true;
    }
    return state;
}

void write_frame(std::uint32_t flow, abi::Leg leg, const FrameShape& shape,
                 std::span<std::byte> frame) {
    std::ranges::fill(frame, std::byte{0});
    const packet::FlowState state = flow_state(flow, shape.ipv6);
    const packet::LegState& from = state.legs[static_cast<std::size_t>(leg)];
    // As the peer sends it: to the relay's address, from its own.
    std::array<std::byte, 14> link = ethernet(static_cast<std::uint8_t>(leg), shape.ipv6);
    std::swap_ranges(link.begin(), link.begin() + 6, link.begin() + 6);
    std::memcpy(frame.data(), link.data(), link.size());
    const std::span<std::byte> ip = frame.subspan(14);
    write_ip(from.key, shape, ip);
    const std::size_t tcp_bytes = 20U + shape.payload_bytes;
    const std::span<std::byte> tcp = ip.subspan(shape.ipv6 ? 40 : 20, tcp_bytes);
    store16(&tcp[0], from.key.peer_port);
    store16(&tcp[2], from.key.own_port);
    store32(&tcp[4], from.rcv_nxt);
    store32(&tcp[8], from.snd_nxt);
    store8(&tcp[12], 0x50);
    store8(&tcp[13], packet::tcp_ack);
    store16(&tcp[14], 500);
    std::ranges::fill(tcp.subspan(20), std::byte{'x'});
    const std::span<std::byte> pseudo = shape.ipv6 ? ip.subspan(8, 32) : ip.subspan(12, 8);
    store16(&tcp[16], folded(sum_of(tcp, sum_of(pseudo, 6 + tcp_bytes))));
}

bool install_flows(packet::FlowTable& table, std::uint32_t flow_count, bool ipv6,
                   std::uint64_t seed) {
    for (std::uint8_t peer = 0; peer < 2; ++peer) {
        if (table.adjacency(ethernet(peer, ipv6), peer) != peer) {
            return false;
        }
    }
    return std::ranges::all_of(shuffled(flow_count, seed), [&](std::uint32_t flow) {
        return table.install(flow_state(flow, ipv6), 0).has_value();
    });
}

std::vector<std::uint32_t> shuffled(std::uint32_t count, std::uint64_t seed) {
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    return order;
}

}  // namespace bore::bench
