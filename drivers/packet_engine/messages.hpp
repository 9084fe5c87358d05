// What the three kinds of threads of the packet engine say to each other, over bounded rings with
// one writer and one reader each.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/base/spsc_ring.hpp"
#include "dataplane/packet/frame.hpp"
#include "dataplane/packet/pipeline.hpp"

namespace bore::drivers {

// Control thread → slow path.
struct SlowPathCommand {
    enum class Kind : std::uint8_t {
        open_tunnel,
        set_tunnel_limits,
        close_tunnel,
        open_pair,
        close_pair,
        stream_ended,
        list_flows,
        drain,
        stop,
    };
    Kind kind{Kind::stop};
    std::uint32_t tunnel_index{0};
    std::uint16_t public_port{0};
    abi::TunnelLimits limits;
    std::uint32_t pair_slot{0};
    std::uint32_t generation{0};
    abi::PairRequest request;
    base::Nanoseconds deadline{0};
    std::uint32_t flows_from{0};  // list_flows
};

// Slow path → control thread.
struct SlowPathEvent {
    enum class Kind : std::uint8_t { to_stream, ended, flows };
    Kind kind{Kind::ended};
    std::uint32_t pair_slot{0};
    abi::PairRequest request;  // to_stream
    abi::StreamReason reason{abi::StreamReason::policy};
    abi::PairEnded end;                    // ended
    std::unique_ptr<abi::FlowPage> flows;  // flows
};

// Slow path → packet worker.
struct InjectedFrame {
    packet::Frame frame;
    bool replay{false};  // through the packet path as if received; else out as it is
};

// Frames on their way between a worker and the slow path: 4,096 hold the slow path's worst burst
// (every leg of a full accept queue replaying its initial window) and 8 MiB of buffers at most.
inline constexpr std::size_t frame_ring_capacity = 4'096;
// Frames of limited tunnels that a worker may have waiting.
inline constexpr std::uint32_t held_frames_per_worker = 8'192;
inline constexpr std::size_t flow_event_ring_capacity = 16'384;

// One worker's rings to and from the slow path.
struct WorkerLink {
    base::SpscRing<packet::Frame> diverted{frame_ring_capacity};
    base::SpscRing<packet::FlowEvent> flow_events{flow_event_ring_capacity};
    std::atomic<bool> flow_events_lost{false};
    base::SpscRing<InjectedFrame> injected{frame_ring_capacity};
};

}  // namespace bore::drivers
