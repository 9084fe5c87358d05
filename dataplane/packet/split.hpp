// Cuts a translated segment that is too large for the other leg's MSS into several, as a host with
// segmentation offload would: same acknowledgement, window and options on each, PSH and FIN on the
// last alone, a running IPv4 identification. The checksums of the segment were verified before, so
// those of the pieces are made anew.
#pragma once

#include <cstddef>
#include <expected>
#include <span>

#include "dataplane/packet/parse.hpp"
#include "dataplane/packet/pipeline.hpp"

namespace bore::packet {

// A frame of 9 kB for an MSS of 536, and as much again.
inline constexpr std::size_t max_pieces = 40;

// Fills `pieces` from the front and returns how many; the first is `whole`, cut short in its own
// buffer, the others are copies. On failure (`no_buffer`, `too_big`) nothing was allocated in the
// end and `whole` is as it was.
[[nodiscard]] std::expected<std::size_t, PacketReason> split(const Frame& whole,
                                                             std::size_t payload_bytes_each,
                                                             Outlet& outlet,
                                                             std::span<Frame, max_pieces> pieces);

}  // namespace bore::packet
