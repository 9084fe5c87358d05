// Lays the segment out in its memory and finds the blocks in it again.
#include "dataplane/abi/statistics.hpp"

#include <algorithm>
#include <random>
#include <utility>

#include "dataplane/abi/limits.hpp"
#include "dataplane/base/check.hpp"

namespace bore::abi {

namespace {

std::uint64_t size_bytes(const SegmentShape& shape) {
    BORE_CHECK(shape.worker_count > 0 && shape.worker_count <= max_workers,
               "worker count out of range");
    BORE_CHECK(shape.tunnel_capacity > 0 && shape.tunnel_capacity <= max_tunnels,
               "tunnel capacity out of range");
    BORE_CHECK(shape.packet.worker_count <= max_workers, "packet worker count out of range");
    BORE_CHECK(shape.packet.port_count <= max_packet_ports, "port count out of range");
    SegmentHeader header;
    lay_out(shape, header);
    return header.segment_bytes;
}

std::uint64_t random_id() {
    std::random_device device;
    return std::uint64_t{device()} << 32U | device();
}

}  // namespace

Statistics::Statistics(std::uint32_t worker_count, std::uint32_t tunnel_capacity,
                       PacketShape packet)
    : Statistics(SegmentShape{worker_count, tunnel_capacity, packet},
                 SegmentMemory::anonymous(size_bytes({worker_count, tunnel_capacity, packet}))) {}

std::expected<Statistics, std::string> Statistics::shared(const SegmentShape& shape,
                                                          const SegmentOptions& options) {
    auto memory = SegmentMemory::shared(options, size_bytes(shape));
    if (!memory) {
        return std::unexpected(memory.error());
    }
    return Statistics(shape, std::move(*memory));
}

Statistics::Statistics(const SegmentShape& shape, SegmentMemory memory)
    : shape_(shape), memory_(std::move(memory)) {
    // Zero pages are valid values of all blocks: lock-free atomics of value zero (counters.hpp),
    // and constructing them would touch every page.
    header_ = reinterpret_cast<SegmentHeader*>(memory_.data());
    lay_out(shape, *header_);
    header_->instance_id = random_id();
    const auto find = [this](Block block, auto*& pointer) {
        std::byte* place = memory_.data() + header_->blocks[static_cast<std::size_t>(block)].offset;
        pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(place);
    };
    find(Block::control_counters, control_);
    find(Block::control_histograms, control_histograms_);
    find(Block::worker_counters, workers_);
    find(Block::worker_histograms, worker_histograms_);
    find(Block::packet_worker_counters, packet_workers_);
    find(Block::packet_worker_histograms, packet_worker_histograms_);
    find(Block::slow_path_counters, slow_path_);
    find(Block::slow_path_histograms, slow_path_histograms_);
    find(Block::port_counters, ports_);
    find(Block::tunnel_descriptions, descriptions_);
    find(Block::tunnel_rows, tunnels_);
}

void Statistics::describe(const SegmentIdentity& identity) {
    const BlockPlace& place = header_->blocks[static_cast<std::size_t>(Block::identity)];
    *reinterpret_cast<SegmentIdentity*>(memory_.data() + place.offset) = identity;
}

void Statistics::describe_port(std::uint32_t index, std::string_view name) {
    BORE_CHECK(index < shape_.packet.port_count, "no such port");
    const BlockPlace& place = header_->blocks[static_cast<std::size_t>(Block::port_descriptions)];
    set_text(reinterpret_cast<PortDescription*>(memory_.data() + place.offset)[index].name, name);
}

void Statistics::set_configuration(std::string_view text) {
    const BlockPlace& place = header_->blocks[static_cast<std::size_t>(Block::configuration)];
    auto& block = *reinterpret_cast<ConfigurationBlock*>(memory_.data() + place.offset);
    ConfigurationText value;
    value.size_bytes = std::min(text.size(), value.text.size());
    text.copy(value.text.data(), value.size_bytes);
    block.write(value);
}

TunnelDescriptionRow& Statistics::tunnel_description(std::uint32_t tunnel_index) {
    BORE_CHECK(tunnel_index < shape_.tunnel_capacity, "no such tunnel row");
    return descriptions_[tunnel_index];
}

void Statistics::begin_tunnel(std::uint32_t tunnel_index, TunnelDescription description) {
    TunnelDescriptionRow& row = tunnel_description(tunnel_index);
    description.generation = row.description.value().generation + 1;
    description.stream_baseline = {};
    description.packet_baseline = {};
    for (std::uint32_t row_index = 0; row_index < shape_.row_writer_count(); ++row_index) {
        auto& baseline = row_index < shape_.worker_count ? description.stream_baseline
                                                         : description.packet_baseline;
        for (std::size_t counter = 0; counter < baseline.size(); ++counter) {
            if (tunnel_counter_infos[counter].kind == CounterKind::counter) {
                baseline[counter] +=
                    rows(row_index)[tunnel_index].get(static_cast<TunnelCounter>(counter));
            }
        }
    }
    row.description.write(description, [&row] {
        row.visitors_pending.store(0, std::memory_order_relaxed);
        row.visitors_live.store(0, std::memory_order_relaxed);
    });
    const std::uint64_t used = header_->tunnel_rows_used.load(std::memory_order_relaxed);
    header_->tunnel_rows_used.store(std::max<std::uint64_t>(used, tunnel_index + 1U),
                                    std::memory_order_release);
}

void Statistics::end_tunnel(std::uint32_t tunnel_index, TunnelState state, base::Nanoseconds now) {
    auto& row = tunnel_description(tunnel_index).description;
    TunnelDescription description = row.value();
    description.state = state;
    if (description.ended_monotonic_ns == 0) {
        description.ended_monotonic_ns = now;
    }
    row.write(description);
}

std::span<TunnelCounters> Statistics::rows(std::uint32_t row_index) {
    BORE_CHECK(row_index < shape_.row_writer_count(), "no such rows");
    return {tunnels_ + std::size_t{row_index} * shape_.tunnel_capacity, shape_.tunnel_capacity};
}

WorkerHistograms& Statistics::worker_histograms(std::uint32_t worker_index) {
    BORE_CHECK(worker_index < shape_.worker_count, "no such worker");
    return worker_histograms_[worker_index];
}

PacketWorkerHistograms& Statistics::packet_worker_histograms(std::uint32_t index) {
    BORE_CHECK(index < shape_.packet.worker_count, "no such packet worker");
    return packet_worker_histograms_[index];
}

PacketWorkerCounters& Statistics::packet_worker(std::uint32_t index) {
    BORE_CHECK(index < shape_.packet.worker_count, "no such packet worker");
    return packet_workers_[index];
}

PortCounters& Statistics::port(std::uint32_t index) {
    BORE_CHECK(index < shape_.packet.port_count, "no such port");
    return ports_[index];
}

std::span<TunnelCounters> Statistics::packet_worker_rows(std::uint32_t index) {
    BORE_CHECK(index < shape_.packet.worker_count, "no such packet worker");
    return rows(shape_.worker_count + index);
}

std::span<TunnelCounters> Statistics::slow_path_rows() {
    return rows(shape_.worker_count + shape_.packet.worker_count);
}

WorkerCounters& Statistics::worker(std::uint32_t worker_index) {
    BORE_CHECK(worker_index < shape_.worker_count, "no such worker");
    return workers_[worker_index];
}

TunnelCounters& Statistics::tunnel(std::uint32_t worker_index, std::uint32_t tunnel_index) {
    BORE_CHECK(worker_index < shape_.worker_count, "no such worker");
    BORE_CHECK(tunnel_index < shape_.tunnel_capacity, "no such tunnel row");
    return tunnels_[std::size_t{worker_index} * shape_.tunnel_capacity + tunnel_index];
}

TunnelTotals Statistics::tunnel_totals(std::uint32_t tunnel_index) {
    TunnelTotals totals{};
    for (std::uint32_t row_index = 0; row_index < shape_.row_writer_count(); ++row_index) {
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
    for (std::uint32_t worker_index = 0; worker_index < shape_.worker_count; ++worker_index) {
        total += worker(worker_index).get(counter);
    }
    return total;
}

std::uint64_t Statistics::packet_worker_total(PacketWorkerCounter counter) {
    std::uint64_t total = 0;
    for (std::uint32_t index = 0; index < shape_.packet.worker_count; ++index) {
        total += packet_worker(index).get(counter);
    }
    return total;
}

std::uint64_t Statistics::oldest_heartbeat_ns() {
    std::uint64_t oldest = ~std::uint64_t{0};
    for (std::uint32_t index = 0; index < shape_.worker_count; ++index) {
        oldest = std::min(oldest, worker(index).get(WorkerCounter::heartbeat_ns));
    }
    for (std::uint32_t index = 0; index < shape_.packet.worker_count; ++index) {
        oldest =
            std::min(oldest, packet_worker(index).get(PacketWorkerCounter::packet_heartbeat_ns));
    }
    if (shape_.packet.worker_count > 0) {
        oldest = std::min(oldest, slow_path().get(SlowPathCounter::slow_path_heartbeat_ns));
    }
    return oldest;
}

}  // namespace bore::abi
