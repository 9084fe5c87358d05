// The writers' side of the segment: the control thread's block, one block per worker, packet worker
// and port, one of the slow path, one row per writer and tunnel, descriptions of the tunnels. Lives
// in shared or anonymous memory. Made by main before any thread starts and gone after the last one
// ended.
#pragma once

#include <cstddef>
#include <cstdint>

#include <expected>
#include <span>
#include <string>
#include <string_view>

#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/segment_memory.hpp"
#include "dataplane/base/clock.hpp"

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
    // In anonymous memory: nobody else reads it, and rows never touched cost nothing.
    Statistics(std::uint32_t worker_count, std::uint32_t tunnel_capacity, PacketShape packet = {});
    // In shared memory, not yet under its name. The error is a sentence with a remedy.
    [[nodiscard]] static std::expected<Statistics, std::string> shared(
        const SegmentShape& shape, const SegmentOptions& options);
    Statistics(Statistics&&) noexcept = default;
    ~Statistics() = default;
    Statistics(const Statistics&) = delete;
    Statistics& operator=(const Statistics&) = delete;
    Statistics& operator=(Statistics&&) = delete;

    // What readers see of the relay as a whole. Before publish().
    void describe(const SegmentIdentity& identity);
    void describe_port(std::uint32_t index, std::string_view name);
    // Readers find the segment from now on. Before that, everything above.
    [[nodiscard]] std::expected<void, PublishError> publish() { return memory_.publish(); }
    [[nodiscard]] const SegmentMemory& memory() const { return memory_; }

    // The configuration in force, without secrets; what does not fit is cut. Control thread.
    void set_configuration(std::string_view text);
    // A tunnel's row. Control thread.
    [[nodiscard]] TunnelDescriptionRow& tunnel_description(std::uint32_t tunnel_index);
    // A tunnel takes the row: fills in generation and baseline, sets its visitors to none.
    void begin_tunnel(std::uint32_t tunnel_index, TunnelDescription description);
    // Its client has gone (finishing) or nothing is left of it (ended); the row stays readable.
    void end_tunnel(std::uint32_t tunnel_index, TunnelState state, base::Nanoseconds now);

    [[nodiscard]] ControlCounters& control() { return *control_; }
    [[nodiscard]] WorkerCounters& worker(std::uint32_t worker_index);
    [[nodiscard]] TunnelCounters& tunnel(std::uint32_t worker_index, std::uint32_t tunnel_index);
    [[nodiscard]] ControlHistograms& control_histograms() { return *control_histograms_; }
    [[nodiscard]] WorkerHistograms& worker_histograms(std::uint32_t worker_index);
    [[nodiscard]] PacketWorkerHistograms& packet_worker_histograms(std::uint32_t index);
    [[nodiscard]] SlowPathHistograms& slow_path_histograms() { return *slow_path_histograms_; }

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

    [[nodiscard]] std::uint32_t worker_count() const { return shape_.worker_count; }
    [[nodiscard]] std::uint32_t tunnel_capacity() const { return shape_.tunnel_capacity; }
    [[nodiscard]] PacketShape packet_shape() const { return shape_.packet; }

  private:
    Statistics(const SegmentShape& shape, SegmentMemory memory);

    [[nodiscard]] std::span<TunnelCounters> rows(std::uint32_t row_index);

    SegmentShape shape_;
    SegmentMemory memory_;
    // Into memory_.
    SegmentHeader* header_;
    ControlCounters* control_;
    ControlHistograms* control_histograms_;
    WorkerCounters* workers_;
    WorkerHistograms* worker_histograms_;
    PacketWorkerCounters* packet_workers_;
    PacketWorkerHistograms* packet_worker_histograms_;
    SlowPathCounters* slow_path_;
    SlowPathHistograms* slow_path_histograms_;
    PortCounters* ports_;
    TunnelDescriptionRow* descriptions_;
    TunnelCounters* tunnels_;
};

}  // namespace bore::abi
