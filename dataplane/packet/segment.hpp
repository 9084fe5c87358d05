// Single segments of the slow path: built from the values of a flow, or copied and rewritten on
// their way between wire and kernel. Pure functions of bytes. What parse.hpp found in a frame is
// passed along with it; checksums are changed, not computed anew, wherever a frame was received, so
// that what arrived wrong leaves wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/packet/flow_entry.hpp"
#include "dataplane/packet/parse.hpp"

namespace bore::packet {

struct SegmentTimestamps {
    std::uint32_t value{0};
    std::uint32_t echo{0};
};

// Of a segment from the relay to a leg's peer, in that leg's numbering.
struct SegmentFields {
    std::uint32_t sequence{0};
    std::uint32_t acknowledgement{0};
    std::uint16_t window{0};  // the field, already shifted
    std::optional<SegmentTimestamps> timestamps;
};

inline constexpr std::size_t max_built_segment_bytes =
    tagged_header_bytes + ipv6_header_bytes + tcp_header_bytes + 2 + timestamps_option_bytes;

// Frames to the peer of `leg`, without payload; `adjacency` leads to that peer. Write to the front
// of `out`, which has max_built_segment_bytes, and return the frame's length. IPv4 goes with "don't
// fragment" and identification 0 (RFC 6864, 4.1).
std::size_t build_acknowledgement(std::span<std::byte> out, const Adjacency& adjacency,
                                  const FlowKey& leg, const SegmentFields& fields);
// RST and ACK. The peer takes it at once when `sequence` is just the one that it waits for, and
// answers with an acknowledgement otherwise (RFC 5961, 3.2).
std::size_t build_reset(std::span<std::byte> out, const Adjacency& adjacency, const FlowKey& leg,
                        const SegmentFields& fields);

// What the kernel gets of a segment whose payload is held back: the same frame without payload,
// FIN, PSH and URG. Copies to the front of `out`, which has room for view.payload_offset bytes, and
// returns that length.
std::size_t strip_payload(std::span<const std::byte> frame, const TcpView& view,
                          std::span<std::byte> out);

// What a SYN asked for that concerns the splice.
struct SynReport {
    std::uint16_t length_bytes{0};      // of the frame now: without payload and padding
    bool asked_for_ecn{false};          // cleared
    bool asked_for_fast_open{false};    // blanked
    bool asked_for_multipath{false};    // blanked
    bool is_signed{false};              // TCP-AO or MD5: the frame was left as it came
    bool has_malformed_options{false};  // the kernel reads no further than we did
};

// Rewrites a SYN from the wire in place, so that the kernel negotiates nothing that two legs would
// have to agree on: no ECN, no fast open (its payload is cut off, the peer sends it again), no
// multipath TCP. A signed SYN would be spoilt by that; the kernel decides about it alone, and the
// connection is none for the splice.
SynReport sanitize_syn(std::span<std::byte> frame, const TcpView& view);

// Lowers the MSS option of a SYN to `most` when it is larger. True when it was.
bool clamp_mss(std::span<std::byte> frame, const TcpView& view, std::uint16_t most);

}  // namespace bore::packet
