// Lays the counter blocks out in one anonymous mapping.
#include "dataplane/abi/statistics.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "dataplane/abi/limits.hpp"
#include "dataplane/base/check.hpp"

namespace bore::abi {

Statistics::Statistics(std::uint32_t worker_count, std::uint32_t tunnel_capacity,
                       PacketShape packet)
    : worker_count_(worker_count), tunnel_capacity_(tunnel_capacity), packet_(packet) {
    BORE_CHECK(worker_count > 0 && worker_count <= max_workers, "worker count out of range");
    BORE_CHECK(tunnel_capacity > 0 && tunnel_capacity <= max_tunnels,
               "tunnel capacity out of range");
    BORE_CHECK(packet.worker_count <= max_workers, "packet worker count out of range");
    const std::size_t workers_offset = sizeof(ControlCounters);
    const std::size_t packet_workers_offset =
        workers_offset + sizeof(WorkerCounters) * worker_count;
    const std::size_t slow_path_offset =
        packet_workers_offset + sizeof(PacketWorkerCounters) * packet.worker_count;
    const std::size_t ports_offset = slow_path_offset + sizeof(SlowPathCounters);
    const std::size_t tunnels_offset = ports_offset + sizeof(PortCounters) * packet.port_count;
    size_bytes_ =
        tunnels_offset + sizeof(TunnelCounters) * row_count() * std::size_t{tunnel_capacity};
    void* memory = ::mmap(nullptr, size_bytes_, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    BORE_CHECK(memory != MAP_FAILED, "no address space for the statistics");
    // Zero pages are valid values of all blocks: lock-free atomics of value zero (counters.hpp),
    // and constructing them would touch every page.
    memory_ = static_cast<std::byte*>(memory);
    control_ = reinterpret_cast<ControlCounters*>(memory_);
    workers_ = reinterpret_cast<WorkerCounters*>(memory_ + workers_offset);
    packet_workers_ = reinterpret_cast<PacketWorkerCounters*>(memory_ + packet_workers_offset);
    slow_path_ = reinterpret_cast<SlowPathCounters*>(memory_ + slow_path_offset);
    ports_ = reinterpret_cast<PortCounters*>(memory_ + ports_offset);
    tunnels_ = reinterpret_cast<TunnelCounters*>(memory_ + tunnels_offset);
}

Statistics::~Statistics() {
    ::munmap(memory_, size_bytes_);
}

std::span<TunnelCounters> Statistics::rows(std::uint32_t row_index) {
    BORE_CHECK(row_index < row_count(), "no such rows");
    return {tunnels_ + std::size_t{row_index} * tunnel_capacity_, tunnel_capacity_};
}

PacketWorkerCounters& Statistics::packet_worker(std::uint32_t index) {
    BORE_CHECK(index < packet_.worker_count, "no such packet worker");
    return packet_workers_[index];
}

PortCounters& Statistics::port(std::uint32_t index) {
    BORE_CHECK(index < packet_.port_count, "no such port");
    return ports_[index];
}

std::span<TunnelCounters> Statistics::packet_worker_rows(std::uint32_t index) {
    BORE_CHECK(index < packet_.worker_count, "no such packet worker");
    return rows(worker_count_ + index);
}

std::span<TunnelCounters> Statistics::slow_path_rows() {
    return rows(worker_count_ + packet_.worker_count);
}

WorkerCounters& Statistics::worker(std::uint32_t worker_index) {
    BORE_CHECK(worker_index < worker_count_, "no such worker");
    return workers_[worker_index];
}

TunnelCounters& Statistics::tunnel(std::uint32_t worker_index, std::uint32_t tunnel_index) {
    BORE_CHECK(worker_index < worker_count_, "no such worker");
    BORE_CHECK(tunnel_index < tunnel_capacity_, "no such tunnel row");
    return tunnels_[std::size_t{worker_index} * tunnel_capacity_ + tunnel_index];
}

TunnelTotals Statistics::tunnel_totals(std::uint32_t tunnel_index) {
    TunnelTotals totals{};
    for (std::uint32_t row_index = 0; row_index < row_count(); ++row_index) {
        const TunnelCounters& row = rows(row_index)[tunnel_index];
        totals.to_client_bytes += row.get(TunnelCounter::to_client_bytes_total);
        totals.to_visitor_bytes += row.get(TunnelCounter::to_visitor_bytes_total);
        totals.pairs_opened += row.get(TunnelCounter::tunnel_pairs_opened_total);
        totals.pairs_live += row.get(TunnelCounter::tunnel_pairs_live);
    }
    return totals;
}

std::uint64_t Statistics::worker_total(WorkerCounter counter) {
    std::uint64_t total = 0;
    for (std::uint32_t worker_index = 0; worker_index < worker_count_; ++worker_index) {
        total += worker(worker_index).get(counter);
    }
    return total;
}

std::uint64_t Statistics::packet_worker_total(PacketWorkerCounter counter) {
    std::uint64_t total = 0;
    for (std::uint32_t index = 0; index < packet_.worker_count; ++index) {
        total += packet_worker(index).get(counter);
    }
    return total;
}

std::uint64_t Statistics::oldest_heartbeat_ns() {
    std::uint64_t oldest = ~std::uint64_t{0};
    for (std::uint32_t index = 0; index < worker_count_; ++index) {
        oldest = std::min(oldest, worker(index).get(WorkerCounter::heartbeat_ns));
    }
    for (std::uint32_t index = 0; index < packet_.worker_count; ++index) {
        oldest =
            std::min(oldest, packet_worker(index).get(PacketWorkerCounter::packet_heartbeat_ns));
    }
    if (packet_.worker_count > 0) {
        oldest = std::min(oldest, slow_path().get(SlowPathCounter::slow_path_heartbeat_ns));
    }
    return oldest;
}

}  // namespace bore::abi
