// Frames and tables that the rows about packets work on: flows of bench/packet, with options where
// a row wants them, and a table in the largest pages that may be had without asking for any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bench/packet/flows.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/frame.hpp"

namespace bore::bench {

struct SegmentShape {
    std::uint16_t payload_bytes{0};
    bool timestamps{false};
    std::uint8_t sack_blocks{0};
    bool ipv6{false};
};

inline constexpr std::size_t headroom_bytes = 128;

// Where the fields stand in a frame of the shape.
[[nodiscard]] std::size_t tcp_offset(const SegmentShape& shape);

// What the peer of `leg` sends, headroom in front of it: the first segment behind the splice, with
// valid checksums.
[[nodiscard]] std::vector<std::byte> make_buffer(std::uint32_t flow, abi::Leg leg,
                                                 const SegmentShape& shape);
[[nodiscard]] packet::Frame frame_in(std::span<std::byte> buffer);

// By a sum over every byte: both checksums of a frame, IPv4's header and TCP's.
[[nodiscard]] bool checksums_right(std::span<const std::byte> frame, const SegmentShape& shape);

// Flows 0 … flow_count - 1 as bench/packet installs them. `timestamps`: both legs have them.
struct Installed {
    std::unique_ptr<packet::TableMemory> memory;
    std::unique_ptr<packet::FlowTable> table;
};
[[nodiscard]] Installed install(std::uint32_t flow_count, const SegmentShape& shape);

}  // namespace bore::bench
