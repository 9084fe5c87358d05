// The memory that holds all counters: the control thread's block, one block per worker, one row per
// worker and tunnel. Anonymous zero pages, so that rows never touched cost nothing. Made by main
// before any thread starts and gone after the last one ended.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/abi/counters.hpp"

namespace bore::abi {

// A tunnel's counters summed over the workers. A snapshot: taken while the writers run.
struct TunnelTotals {
    std::uint64_t to_client_bytes;
    std::uint64_t to_visitor_bytes;
    std::uint64_t pairs_opened;
    std::uint64_t pairs_live;
};

class Statistics {
  public:
    // `worker_count` ≤ max_workers, `tunnel_capacity` ≤ max_tunnels (both counts).
    Statistics(std::uint32_t worker_count, std::uint32_t tunnel_capacity);
    ~Statistics();
    Statistics(const Statistics&) = delete;
    Statistics& operator=(const Statistics&) = delete;

    [[nodiscard]] ControlCounters& control() { return *control_; }
    [[nodiscard]] WorkerCounters& worker(std::uint32_t worker_index);
    [[nodiscard]] TunnelCounters& tunnel(std::uint32_t worker_index, std::uint32_t tunnel_index);

    [[nodiscard]] TunnelTotals tunnel_totals(std::uint32_t tunnel_index);
    [[nodiscard]] std::uint64_t worker_total(WorkerCounter counter);

    [[nodiscard]] std::uint32_t worker_count() const { return worker_count_; }
    [[nodiscard]] std::uint32_t tunnel_capacity() const { return tunnel_capacity_; }

  private:
    std::uint32_t worker_count_;
    std::uint32_t tunnel_capacity_;
    std::size_t size_bytes_;
    std::byte* memory_;
    ControlCounters* control_;
    WorkerCounters* workers_;
    TunnelCounters* tunnels_;
};

}  // namespace bore::abi
