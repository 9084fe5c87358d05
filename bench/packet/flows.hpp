// The flows that the bench moves packets of: flow n as the table is told of it, and as its packets
// stand on the wire. Visitors are behind port 0, clients behind port 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/packet/flow_table.hpp"

namespace bore::bench {

struct FrameShape {
    std::uint16_t payload_bytes{0};
    std::uint16_t least_frame_bytes{64};
    bool ipv6{false};

    [[nodiscard]] std::size_t frame_bytes() const {
        const std::size_t whole = 14U + (ipv6 ? 40U : 20U) + 20U + payload_bytes;
        return whole < least_frame_bytes ? least_frame_bytes : whole;
    }
};

// Adjacency 0 leads to the visitors, 1 to the clients; see install_flows.
[[nodiscard]] packet::FlowState flow_state(std::uint32_t flow, bool ipv6);

// The frame that the peer of `leg` sends: an ACK with payload, valid checksums, the first one
// behind the splice. `frame` has shape.frame_bytes() bytes.
void write_frame(std::uint32_t flow, abi::Leg leg, const FrameShape& shape,
                 std::span<std::byte> frame);

// Makes both adjacencies and installs flows 0 … flow_count - 1, in an order of chance, as they
// would come. False when the table or its memory is full.
[[nodiscard]] bool install_flows(packet::FlowTable& table, std::uint32_t flow_count, bool ipv6,
                                 std::uint64_t seed);

// 0 … count - 1 in an order of chance.
[[nodiscard]] std::vector<std::uint32_t> shuffled(std::uint32_t count, std::uint64_t seed);

}  // namespace bore::bench
