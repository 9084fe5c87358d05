// Places of the blocks, and the hash of everything that a reader must agree on.
#include "dataplane/abi/segment.hpp"

namespace bore::abi {

namespace {

// FNV-1a, 64 bits.
constexpr std::uint64_t hash_start = 0xcbf29ce484222325U;
constexpr std::uint64_t hash_prime = 0x100000001b3U;

std::uint64_t hashed(std::uint64_t hash, std::string_view text) {
    for (const char letter : text) {
        hash = (hash ^ static_cast<unsigned char>(letter)) * hash_prime;
    }
    return (hash ^ 0xffU) * hash_prime;  // so that "ab","c" differs from "a","bc"
}

std::uint64_t hashed(std::uint64_t hash, std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) {
        hash = (hash ^ ((number >> shift) & 0xffU)) * hash_prime;
    }
    return hash;
}

template <typename Infos>
std::uint64_t hash_counters(std::uint64_t hash, const Infos& infos) {
    for (const CounterInfo& info : infos) {
        hash = hashed(hashed(hash, info.name), static_cast<std::uint64_t>(info.kind));
    }
    return hashed(hash, infos.size());
}

template <typename Infos>
std::uint64_t hash_histograms(std::uint64_t hash, const Infos& infos) {
    for (const HistogramInfo& info : infos) {
        hash = hashed(hashed(hash, info.name), info.first_bound_log2);
    }
    return hashed(hash, infos.size());
}

}  // namespace

std::uint64_t schema_hash() {
    std::uint64_t hash = hash_start;
    hash = hash_counters(hash, worker_counter_infos);
    hash = hash_counters(hash, tunnel_counter_infos);
    hash = hash_counters(hash, control_counter_infos);
    hash = hash_counters(hash, packet_worker_counter_infos);
    hash = hash_counters(hash, slow_path_counter_infos);
    hash = hash_counters(hash, port_counter_infos);
    hash = hash_histograms(hash, control_histogram_infos);
    hash = hash_histograms(hash, worker_histogram_infos);
    hash = hash_histograms(hash, packet_worker_histogram_infos);
    hash = hash_histograms(hash, slow_path_histogram_infos);
    for (const std::size_t size :
         {sizeof(SegmentHeader), sizeof(SegmentIdentity), sizeof(ConfigurationBlock),
          sizeof(TunnelDescriptionRow), sizeof(PortDescription), sizeof(Histogram),
          segment_header_bytes}) {
        hash = hashed(hash, size);
    }
    return hash;
}

void lay_out(const SegmentShape& shape, SegmentHeader& header) {
    header.magic = segment_magic;
    header.byte_order = segment_byte_order;
    header.version = segment_version;
    header.schema_hash = schema_hash();
    header.stream_worker_count = shape.worker_count;
    header.packet_worker_count = shape.packet.worker_count;
    header.tunnel_capacity = shape.tunnel_capacity;
    std::uint64_t end = segment_header_bytes;
    const auto place = [&](Block block, std::uint64_t stride_bytes, std::uint64_t count) {
        header.blocks[static_cast<std::size_t>(block)] = {end, stride_bytes, count};
        const std::uint64_t line = base::cache_line_bytes;
        end += (stride_bytes * count + line - 1) / line * line;
    };
    const std::uint32_t packet_workers = shape.packet.worker_count;
    place(Block::identity, sizeof(SegmentIdentity), 1);
    place(Block::configuration, sizeof(ConfigurationBlock), 1);
    place(Block::control_counters, sizeof(ControlCounters), 1);
    place(Block::control_histograms, sizeof(ControlHistograms), 1);
    place(Block::worker_counters, sizeof(WorkerCounters), shape.worker_count);
    place(Block::worker_histograms, sizeof(WorkerHistograms), shape.worker_count);
    place(Block::packet_worker_counters, sizeof(PacketWorkerCounters), packet_workers);
    place(Block::packet_worker_histograms, sizeof(PacketWorkerHistograms), packet_workers);
    place(Block::slow_path_counters, sizeof(SlowPathCounters), 1);
    place(Block::slow_path_histograms, sizeof(SlowPathHistograms), 1);
    place(Block::port_counters, sizeof(PortCounters), shape.packet.port_count);
    place(Block::port_descriptions, sizeof(PortDescription), shape.packet.port_count);
    place(Block::tunnel_descriptions, sizeof(TunnelDescriptionRow), shape.tunnel_capacity);
    place(Block::tunnel_rows, sizeof(TunnelCounters) * std::uint64_t{shape.tunnel_capacity},
          shape.row_writer_count());
    header.segment_bytes = end;
}

}  // namespace bore::abi
