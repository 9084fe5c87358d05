// One packet worker: a poll loop over its queue of every port. Made by the engine, run on a thread
// of its own; only stop() and heartbeats concern others.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "dataplane/abi/statistics.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/pipeline.hpp"
#include "dataplane/packet/port.hpp"
#include "dataplane/packet/shaper.hpp"
#include "drivers/kernel/wake_event.hpp"
#include "drivers/packet_engine/messages.hpp"
#include "drivers/packet_engine/packet_engine.hpp"

namespace bore::drivers {

// Everything a packet worker needs; all of it outlives the worker.
struct PacketWorkerContext {
    std::uint32_t worker_index;
    std::span<const EnginePort> ports;
    packet::FlowTable& table;
    abi::TunnelTable& tunnels;
    abi::Statistics& statistics;
    WorkerLink& link;
    WakeEvent& slow_path_wake;
    IdleMode idle;
    void (*power_pause)(std::uint32_t nanoseconds);
};

class PacketWorker final : private packet::Outlet {
  public:
    explicit PacketWorker(const PacketWorkerContext& context);

    void run();  // until stop()
    void stop() { stopping_.store(true, std::memory_order_relaxed); }

  private:
    // ---- Outlet of the pipeline
    void send(std::span<packet::Frame> frames) override;
    void divert(std::span<packet::Frame> frames) override;
    void drop(std::span<packet::Frame> frames) override;
    [[nodiscard]] bool allocate(std::uint8_t port_index, packet::Frame& frame) override;
    void flow_event(const packet::FlowEvent& event) override;

    [[nodiscard]] packet::PacketPort& port(std::uint8_t port_index) const {
        return *context_.ports[port_index].port;
    }
    [[nodiscard]] bool turn(base::Nanoseconds now);
    [[nodiscard]] bool take_injected(base::Nanoseconds now);
    [[nodiscard]] bool send_due(base::Nanoseconds now);
    void send_to(std::uint8_t port_index, std::span<packet::Frame> frames);
    void release(std::span<packet::Frame> frames);
    void rest(std::uint32_t idle_turns);

    PacketWorkerContext context_;
    std::uint16_t queue_;
    abi::PacketWorkerCounters& counters_;
    abi::PacketWorkerHistograms& histograms_;
    packet::Pipeline pipeline_;
    packet::Shaper shaper_;
    std::array<packet::Frame, packet::max_burst> frames_;
    bool had_full_burst_{false};  // the present turn
    std::atomic<bool> stopping_{false};
};

}  // namespace bore::drivers
