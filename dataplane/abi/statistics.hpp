// The memory that holds all counters: the control thread's block, one block per worker, packet
// worker and port, one of the slow path, one row per writer and tunnel. Anonymous zero pages, so
// that rows never touched cost nothing. Made by main before any thread starts and gone after the
// last one ended.
#pragma once

#include <cstddef>
#include <cstdint>

#include <span>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/packet_counters.hpp"

namespace bore::abi {

// A tunnel's counters summed over the workers. A snapshot: taken while the writers run.
struct TunnelTotals {
    std::uint64_t to_client_bytes;
    std::uint64_t to_visitor_bytes;
    std::uint64_t pairs_opened;
    std::uint64_t pairs_live;
};

// What the packet engine adds; nothing where it does not run.
struct PacketShape {
    std::uint32_t worker_count{0};
    std::uint32_t port_count{0};
};

class Statistics {
  public:
    // `worker_count` ≤ max_workers, `tunnel_capacity` ≤ max_tunnels (both counts).
    Statistics(std::uint32_t worker_count, std::uint32_t tunnel_capacity, PacketShape packet = {});
    ~Statistics();
    Statistics(const Statistics&) = delete;
    Statistics& operator=(const Statistics&) = delete;

    [[nodiscard]] ControlCounters& control() { return *control_; }
    [[nodiscard]] WorkerCounters& worker(std::uint32_t worker_index);
    [[nodiscard]] TunnelCounters& tunnel(std::uint32_t worker_index, std::uint32_t tunnel_index);

    [[nodiscard]] PacketWorkerCounters& packet_worker(std::uint32_t index);
    [[nodiscard]] SlowPathCounters& slow_path() { return *slow_path_; }
    [[nodiscard]] PortCounters& port(std::uint32_t index);
    // The rows that a packet worker, or the slow path, writes: one for each tunnel.
    [[nodiscard]] std::span<TunnelCounters> packet_worker_rows(std::uint32_t index);
    [[nodiscard]] std::span<TunnelCounters> slow_path_rows();

    [[nodiscard]] TunnelTotals tunnel_totals(std::uint32_t tunnel_index);
    [[nodiscard]] std::uint64_t worker_total(WorkerCounter counter);
    [[nodiscard]] std::uint64_t packet_worker_total(PacketWorkerCounter counter);
    // The oldest of the loops' heartbeats, those of the packet engine included.
    [[nodiscard]] std::uint64_t oldest_heartbeat_ns();

    [[nodiscard]] std::uint32_t worker_count() const { return worker_count_; }
    [[nodiscard]] std::uint32_t tunnel_capacity() const { return tunnel_capacity_; }
    [[nodiscard]] PacketShape packet_shape() const { return packet_; }

  private:
    // Rows in this order: stream workers, packet workers, slow path.
    [[nodiscard]] std::uint32_t row_count() const {
        return worker_count_ + packet_.worker_count + (packet_.worker_count > 0 ? 1 : 0);
    }
    [[nodiscard]] std::span<TunnelCounters> rows(std::uint32_t row_index);

    std::uint32_t worker_count_;
    std::uint32_t tunnel_capacity_;
    PacketShape packet_;
    std::size_t size_bytes_;
    std::byte* memory_;
    ControlCounters* control_;
    WorkerCounters* workers_;
    PacketWorkerCounters* packet_workers_;
    SlowPathCounters* slow_path_;
    PortCounters* ports_;
    TunnelCounters* tunnels_;
};

}  // namespace bore::abi
