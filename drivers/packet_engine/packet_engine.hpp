// The packet engine: frames of spliced connections go from NIC to NIC through packet workers, and
// everything else takes the kernel's way. It owns the stream engine as its fallback and hands it
// every pair that cannot be spliced, on the same sockets. Made by a program's main; its functions
// belong to the thread that makes it.
//
//   control thread ──commands──▶ slow path thread ◀──frames, ends of flows── packet workers (N)
//        ▲  ◀──pairs ended,──────    │       ▲  ──frames to send, to replay──▶   │      ▲
//        │     pairs for the stream  ▼       │                                   ▼      │
//   stream engine               exception interfaces (TAP)                    ports (NIC queues)
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/port.hpp"
#include "dataplane/packet/slow_path.hpp"
#include "drivers/kernel/exception_interface.hpp"
#include "drivers/stream_engine/stream_engine.hpp"

namespace bore::drivers {

// What a packet worker does when a turn of its loop found nothing.
enum class IdleMode : std::uint8_t {
    spin,   // nothing: least latency, a core at full power
    pause,  // the processor's pause, at low power where it can; still a whole core
    sleep,  // up to 200 µs of sleep: for machines that have other work for the core
};

struct PacketEngineOptions {
    StreamEngineOptions stream;     // of the fallback
    std::uint32_t worker_count{1};  // packet workers = queues of every port
    std::vector<int> cpus;          // packet worker i is pinned to cpus[i % size]; empty = nowhere
    IdleMode idle{IdleMode::pause};
    packet::SlowPathOptions slow_path;
    // Called once on every thread that touches frames; the driver's registration.
    std::function<void()> on_thread_start;
    std::function<void()> on_thread_end;
    // Rests so many nanoseconds at low power; nullptr where the processor cannot.
    void (*power_pause)(std::uint32_t nanoseconds){nullptr};
};

// A port and the kernel's side of it.
struct EnginePort {
    std::unique_ptr<packet::PacketPort> port;
    std::unique_ptr<ExceptionInterface> exception;
};

// Starts the stream engine, the slow path and the packet workers. `statistics` must have been made
// for packet_shape() {options.worker_count, ports.size()}, the table for as many workers;
// statistics, `tunnels` and the table's memory must outlive the engine. The destructor resets what
// is still live and joins the threads. The error is a sentence.
[[nodiscard]] std::expected<std::unique_ptr<abi::Engine>, std::string> make_packet_engine(
    const PacketEngineOptions& options, std::vector<EnginePort> ports,
    std::unique_ptr<packet::FlowTable> table, abi::Statistics& statistics,
    abi::TunnelTable& tunnels);

}  // namespace bore::drivers
