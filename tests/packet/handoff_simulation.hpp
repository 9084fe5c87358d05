// A relay in a world of its own: two TCP peers, the wires to them, the packet path, the slow path,
// and a kernel with sockets, all in simulated time and from one seed. A seed is one visitor and one
// tunnel client; what can happen to them (loss, repetition, reordering, lag on the way to the
// kernel and back, early data, refusals of the kernel, commands, resets) follows from it.
//
// Real: SlowPath, FlowTable, Pipeline and all that they use. Models: the peers and the kernel's
// sockets (tcp_model.hpp), accept and Accept (the control plane), copying (the stream engine).
//
// What must hold: every byte arrives once and in order, on the splice or on the stream engine; both
// peers learn of the end; every pair is reported once, with exact counts; nothing is left behind.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/packet/flow_table.hpp"

namespace bore::packet::testing {

class PacketPool;
class EventQueue;

// What the seeds of one run share, because it is expensive to make, and their sums.
class SimulationGround {
  public:
    SimulationGround();
    ~SimulationGround();
    SimulationGround(const SimulationGround&) = delete;
    SimulationGround& operator=(const SimulationGround&) = delete;

    FlowTable& table() { return *table_; }
    FlowTable& full_table() { return *full_table_; }  // takes no flow
    PacketPool& pool() { return *pool_; }
    EventQueue& events() { return *events_; }

    std::uint64_t spliced{0};
    std::uint64_t unpaired{0};
    std::uint64_t closed_in_handoff{0};
    std::uint64_t retried_freezes{0};
    std::uint64_t replayed_frames{0};
    std::uint64_t drained_bytes{0};
    std::array<std::uint64_t, static_cast<std::size_t>(abi::StreamReason::count)> to_stream{};
    std::array<std::uint64_t, static_cast<std::size_t>(abi::EndReason::count)> ended{};

  private:
    std::unique_ptr<TableMemory> memory_;
    std::unique_ptr<FlowTable> table_;
    std::unique_ptr<FlowTable> full_table_;
    std::unique_ptr<PacketPool> pool_;
    std::unique_ptr<EventQueue> events_;
};

// Empty when everything held; else what did not. `trace` prints every step to standard error.
[[nodiscard]] std::string simulate(SimulationGround& ground, std::uint64_t seed, bool trace);

}  // namespace bore::packet::testing
