// Histograms with fixed buckets: every bound is twice the one before it. One line of a table gives
// a histogram's name, unit, first bound and sentence, as counters.hpp does for counters. A block
// has one writing thread; any thread may read.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/base/spsc_ring.hpp"

namespace bore::abi {

enum class HistogramUnit : std::uint8_t { nanoseconds, count };

struct HistogramInfo {
    std::string_view name;  // with the unit last where it has one
    HistogramUnit unit;
    std::uint32_t first_bound_log2;  // the first bucket takes values up to 2 to this
    std::string_view help;
};

// name, unit, log2 of the first bound (10: 1 µs to 9 min, 20: 1 ms to 6 days), sentence
#define BORE_CONTROL_HISTOGRAMS(X)                                                   \
    X(handshake_ns, nanoseconds, 10,                                                 \
      "From a connection on the control port to the end of its handshake: a tunnel " \
      "opened or a visitor claimed.")                                                \
    X(pairing_ns, nanoseconds, 10, "From a visitor accepted to it being paired with its client.")

// One block per worker of the stream engine.
#define BORE_WORKER_HISTOGRAMS(X)                                                        \
    X(first_byte_ns, nanoseconds, 10,                                                    \
      "From a pair handed to the worker to its first byte delivered, either way.")       \
    X(pair_lifetime_ns, nanoseconds, 20, "From a pair handed to the worker to its end.") \
    X(loop_events, count, 0,                                                             \
      "Events that a turn of the poll loop found; turns without any left out.")

// One block per packet worker.
#define BORE_PACKET_WORKER_HISTOGRAMS(X) \
    X(packet_burst_frames, count, 0,     \
      "Frames that one receive of a port returned; empty ones left out.")

// The slow path's block.
#define BORE_SLOW_PATH_HISTOGRAMS(X)                                                             \
    X(handoff_ns, nanoseconds, 10,                                                               \
      "From a pair handed to the packet engine to it being spliced, failed hand-offs left out.") \
    X(flow_first_byte_ns, nanoseconds, 10,                                                       \
      "From a pair handed to the packet engine to the first byte that it delivered, either "     \
      "way; spliced, that is acknowledged by its receiver.")                                     \
    X(flow_lifetime_ns, nanoseconds, 20,                                                         \
      "From a pair handed to the packet engine to its end, "                                     \
      "where it was spliced.")

#define BORE_ENUMERATOR(name, unit, first_bound_log2, help) name,
enum class ControlHistogram : std::uint16_t { BORE_CONTROL_HISTOGRAMS(BORE_ENUMERATOR) count };
enum class WorkerHistogram : std::uint16_t { BORE_WORKER_HISTOGRAMS(BORE_ENUMERATOR) count };
enum class PacketWorkerHistogram : std::uint16_t {
    BORE_PACKET_WORKER_HISTOGRAMS(BORE_ENUMERATOR) count
};
enum class SlowPathHistogram : std::uint16_t { BORE_SLOW_PATH_HISTOGRAMS(BORE_ENUMERATOR) count };
#undef BORE_ENUMERATOR

#define BORE_INFO(name, unit, first_bound_log2, help) \
    HistogramInfo{#name, HistogramUnit::unit, first_bound_log2, help},
inline constexpr std::array control_histogram_infos{BORE_CONTROL_HISTOGRAMS(BORE_INFO)};
inline constexpr std::array worker_histogram_infos{BORE_WORKER_HISTOGRAMS(BORE_INFO)};
inline constexpr std::array packet_worker_histogram_infos{BORE_PACKET_WORKER_HISTOGRAMS(BORE_INFO)};
inline constexpr std::array slow_path_histogram_infos{BORE_SLOW_PATH_HISTOGRAMS(BORE_INFO)};
#undef BORE_INFO

// The table of an enumeration.
template <typename Enum>
inline constexpr const auto& histogram_infos = control_histogram_infos;
template <>
inline constexpr const auto& histogram_infos<WorkerHistogram> = worker_histogram_infos;
template <>
inline constexpr const auto& histogram_infos<PacketWorkerHistogram> = packet_worker_histogram_infos;
template <>
inline constexpr const auto& histogram_infos<SlowPathHistogram> = slow_path_histogram_infos;

// 30 buckets with bounds and one for everything above them; with the sum that is 256 bytes.
inline constexpr std::size_t bucket_count = 31;

// The largest value of a bucket; the last one has none.
[[nodiscard]] constexpr std::uint64_t bucket_bound(const HistogramInfo& info, std::size_t bucket) {
    return bucket + 1 < bucket_count ? std::uint64_t{1} << (info.first_bound_log2 + bucket)
                                     : ~std::uint64_t{0};
}

[[nodiscard]] constexpr std::size_t bucket_of(std::uint32_t first_bound_log2, std::uint64_t value) {
    if (value <= std::uint64_t{1} << first_bound_log2) {
        return 0;
    }
    const auto bucket = static_cast<std::size_t>(std::bit_width(value - 1)) - first_bound_log2;
    return bucket < bucket_count ? bucket : bucket_count - 1;
}

struct Histogram {
    std::array<std::atomic<std::uint64_t>, bucket_count> counts{};
    std::atomic<std::uint64_t> sum{0};
};

template <typename Enum>
struct alignas(base::cache_line_bytes) HistogramBlock {
    static constexpr std::size_t size = static_cast<std::size_t>(Enum::count);

    // Two plain stores; the block's writer only.
    void record(Enum which, std::uint64_t value) {
        const auto index = static_cast<std::size_t>(which);
        Histogram& histogram = histograms[index];
        auto& bucket =
            histogram.counts[bucket_of(histogram_infos<Enum>[index].first_bound_log2, value)];
        bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        histogram.sum.store(histogram.sum.load(std::memory_order_relaxed) + value,
                            std::memory_order_relaxed);
    }

    std::array<Histogram, size> histograms{};
};

using ControlHistograms = HistogramBlock<ControlHistogram>;
using WorkerHistograms = HistogramBlock<WorkerHistogram>;
using PacketWorkerHistograms = HistogramBlock<PacketWorkerHistogram>;
using SlowPathHistograms = HistogramBlock<SlowPathHistogram>;

static_assert(sizeof(Histogram) == 256);
static_assert(bucket_of(10, 0) == 0 && bucket_of(10, 1024) == 0 && bucket_of(10, 1025) == 1);
static_assert(bucket_of(0, 2) == 1 && bucket_of(0, 3) == 2 && bucket_of(0, 4) == 2);
static_assert(bucket_of(20, ~std::uint64_t{0}) == bucket_count - 1);

}  // namespace bore::abi
