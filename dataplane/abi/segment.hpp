// The layout of the statistics segment, once: what the relay writes in statistics.cpp and what
// segment_reader.cpp reads. A header names version, byte order, tables and the place of every
// block; README.md has the picture. Changing anything here or in a table changes schema_hash();
// changing the meaning without the shape needs a new segment_version.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/histogram.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/abi/sequenced.hpp"

namespace bore::abi {

inline constexpr std::array<char, 8> segment_magic{'B', 'O', 'R', 'E', 'S', 'T', 'A', 'T'};
inline constexpr std::uint32_t segment_version = 1;
// Read as 0x04030201 it was written by a machine of the other byte order.
inline constexpr std::uint32_t segment_byte_order = 0x01020304;

inline constexpr std::string_view segment_directory = "/dev/shm";
inline constexpr std::string_view segment_prefix = "bore-";

// What the packet engine adds; nothing where it does not run.
struct PacketShape {
    std::uint32_t worker_count{0};
    std::uint32_t port_count{0};
};

inline constexpr std::uint32_t max_packet_ports = 64;

// ---- Blocks

// Text in shared memory ends with a zero byte or with its array.
template <std::size_t Size>
[[nodiscard]] std::string_view text_of(const std::array<char, Size>& text) {
    const std::string_view all(text.data(), text.size());
    return all.substr(0, all.find('\0'));
}
// Cuts what does not fit.
template <std::size_t Size>
void set_text(std::array<char, Size>& text, std::string_view source) {
    text = {};
    source.substr(0, Size - 1).copy(text.data(), Size - 1);
}

// Who writes the segment. Written before the segment is published, never again.
struct SegmentIdentity {
    std::uint64_t process_id{0};
    std::uint64_t started_realtime_ns{0};   // CLOCK_REALTIME
    std::uint64_t started_monotonic_ns{0};  // CLOCK_MONOTONIC, the scale of heartbeats
    std::uint64_t control_port{0};
    std::array<char, 96> server_id{};
    std::array<char, 32> version{};
    std::array<char, 352> engine{};  // Engine::description()
};
static_assert(sizeof(SegmentIdentity) == 512);

// The configuration in force as text, without secrets; written again by a reload.
inline constexpr std::size_t max_configuration_bytes = 65'536 - 2 * sizeof(std::uint64_t);
struct ConfigurationText {
    std::uint64_t size_bytes{0};
    std::array<char, max_configuration_bytes> text{};
};
using ConfigurationBlock = Sequenced<ConfigurationText>;
static_assert(sizeof(ConfigurationBlock) == 65'536);

enum class TunnelState : std::uint8_t {
    none,       // the row was never used
    live,       // its client is connected
    finishing,  // its client has gone; visitors or pairs are left
    ended,      // nothing is left but the row, readable until the next tunnel takes it
};
enum class TunnelDialect : std::uint8_t { upstream, fork };

using TunnelSums = std::array<std::uint64_t, static_cast<std::size_t>(TunnelCounter::count)>;

// What the control thread knows of a tunnel.
struct TunnelDescription {
    std::uint64_t generation{0};  // how many tunnels this row has had, this one included
    std::uint64_t since_realtime_ns{0};
    std::uint64_t since_monotonic_ns{0};
    std::uint64_t ended_monotonic_ns{0};  // when its client had gone; 0 = live
    // What the rows of counters held when the tunnel began, in sum: earlier tunnels on the same
    // row.
    TunnelSums stream_baseline{};
    TunnelSums packet_baseline{};
    std::uint64_t to_client_bytes_per_second{0};  // 0 = unlimited
    std::uint64_t to_visitor_bytes_per_second{0};
    std::uint32_t idle_timeout_s{0};  // 0 = none
    std::uint32_t half_closed_timeout_s{0};
    std::uint16_t port{0};
    std::uint16_t client_port{0};
    TunnelState state{TunnelState::none};
    TunnelDialect dialect{TunnelDialect::fork};
    PathPolicy path_policy{PathPolicy::automatic};
    std::uint8_t authenticated{0};  // 1: the client proved that it knows the secret
    std::array<char, 48> client_address{};
    std::array<char, 104> bind_addresses{};  // with commas between them
};

// One row per tunnel, written by the control thread.
struct alignas(base::cache_line_bytes) TunnelDescriptionRow {
    Sequenced<TunnelDescription> description;
    // Pending and live visitors; single words, written as they change.
    std::atomic<std::uint64_t> visitors_pending{0};
    std::atomic<std::uint64_t> visitors_live{0};
};
static_assert(sizeof(TunnelDescription) == 296);
static_assert(offsetof(TunnelDescription, port) == 136);
static_assert(sizeof(TunnelDescriptionRow) == 320);

// A NIC's port; written before the segment is published. Its counters are in another block.
struct PortDescription {
    std::array<char, 64> name{};  // as --packet-port names it
};

// ---- The header

enum class Block : std::uint32_t {
    identity,
    configuration,
    control_counters,
    control_histograms,
    worker_counters,
    worker_histograms,
    packet_worker_counters,
    packet_worker_histograms,
    slow_path_counters,
    slow_path_histograms,
    port_counters,
    port_descriptions,
    tunnel_descriptions,
    tunnel_rows,  // one element per writer: a row of counters for each tunnel
    count,
};
inline constexpr std::size_t block_count = static_cast<std::size_t>(Block::count);

struct BlockPlace {
    std::uint64_t offset{0};        // from the start of the segment
    std::uint64_t stride_bytes{0};  // from one element to the next
    std::uint64_t count{0};         // elements
};

struct SegmentHeader {
    std::array<char, 8> magic{};
    std::uint32_t byte_order{0};
    std::uint32_t version{0};
    std::uint64_t schema_hash{0};
    std::uint64_t segment_bytes{0};
    std::uint64_t instance_id{0};  // drawn at each start
    std::uint32_t stream_worker_count{0};
    std::uint32_t packet_worker_count{0};
    std::uint32_t tunnel_capacity{0};
    std::uint32_t reserved{0};
    std::array<BlockPlace, block_count> blocks{};
    // Rows from here on were never used; readers stop at it.
    std::atomic<std::uint64_t> tunnel_rows_used{0};
};
static_assert(sizeof(SegmentHeader) == 400);
static_assert(offsetof(SegmentHeader, version) == 12);
static_assert(offsetof(SegmentHeader, segment_bytes) == 24);
static_assert(offsetof(SegmentHeader, blocks) == 56);
inline constexpr std::size_t segment_header_bytes = 4'096;
static_assert(sizeof(SegmentHeader) <= segment_header_bytes);

// Names, kinds and order of all tables and the size of everything: two builds whose hashes agree
// read each other's segments.
[[nodiscard]] std::uint64_t schema_hash();

struct SegmentShape {
    std::uint32_t worker_count{1};     // of the stream engine
    std::uint32_t tunnel_capacity{1};  // rows
    PacketShape packet{};

    // Writers of tunnel rows, in this order: stream workers, packet workers, slow path.
    [[nodiscard]] std::uint32_t row_writer_count() const {
        return worker_count + packet.worker_count + (packet.worker_count > 0 ? 1 : 0);
    }
};

// A header with every place filled in, ready to be copied to the start of the segment.
void lay_out(const SegmentShape& shape, SegmentHeader& header);

}  // namespace bore::abi
