// The packet path of one worker: a burst of frames in, frames to send and frames for the slow path
// out. Stages over the burst: parse → look up → translate → emit. Nothing here allocates, locks,
// logs or reads a clock.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/frame.hpp"
#include "dataplane/packet/port.hpp"

namespace bore::packet {

// An end that the slow path should look at: both FINs acknowledged, or a reset.
struct FlowEvent {
    FlowIndex flow{no_flow};
    std::uint32_t generation{0};
};

// Where a worker's frames go; called once per burst and target, not per frame.
class Outlet {
  public:
    virtual ~Outlet() = default;
    // To the wire: frames[i].port_index says where. Owns the buffers from now on.
    virtual void send(std::span<Frame> frames) = 0;
    // To the slow path. Owns the buffers from now on.
    virtual void divert(std::span<Frame> frames) = 0;
    virtual void drop(std::span<Frame> frames) = 0;
    // A buffer to split into, of the pool of `port_index`; false when there is none.
    [[nodiscard]] virtual bool allocate(std::uint8_t port_index, Frame& frame) = 0;
    virtual void flow_ended(const FlowEvent& event) = 0;
};

}  // namespace bore::packet
