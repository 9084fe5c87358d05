// What a reader of the segment gets: plain values, taken while the writers ran. Everything can be
// walked together with its table (for_each), so that no reader has a list of names of its own.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/abi/segment.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::abi {

// The table of an enumeration of counters.
template <typename Enum>
inline constexpr const auto& counter_infos = control_counter_infos;
template <>
inline constexpr const auto& counter_infos<WorkerCounter> = worker_counter_infos;
template <>
inline constexpr const auto& counter_infos<TunnelCounter> = tunnel_counter_infos;
template <>
inline constexpr const auto& counter_infos<PacketWorkerCounter> = packet_worker_counter_infos;
template <>
inline constexpr const auto& counter_infos<SlowPathCounter> = slow_path_counter_infos;
template <>
inline constexpr const auto& counter_infos<PortCounter> = port_counter_infos;

template <typename Enum>
struct CounterValues {
    std::array<std::uint64_t, static_cast<std::size_t>(Enum::count)> values{};

    [[nodiscard]] std::uint64_t get(Enum counter) const {
        return values[static_cast<std::size_t>(counter)];
    }
    CounterValues& operator+=(const CounterValues& other) {
        for (std::size_t index = 0; index < values.size(); ++index) {
            values[index] += other.values[index];
        }
        return *this;
    }
};

struct HistogramValues {
    std::array<std::uint64_t, bucket_count> counts{};  // not cumulative; see bucket_bound()
    std::uint64_t sum{0};

    [[nodiscard]] std::uint64_t count() const {
        return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
    }
    HistogramValues& operator+=(const HistogramValues& other) {
        for (std::size_t index = 0; index < counts.size(); ++index) {
            counts[index] += other.counts[index];
        }
        sum += other.sum;
        return *this;
    }
};

template <typename Enum>
struct HistogramSet {
    std::array<HistogramValues, static_cast<std::size_t>(Enum::count)> histograms{};

    [[nodiscard]] const HistogramValues& get(Enum which) const {
        return histograms[static_cast<std::size_t>(which)];
    }
    HistogramSet& operator+=(const HistogramSet& other) {
        for (std::size_t index = 0; index < histograms.size(); ++index) {
            histograms[index] += other.histograms[index];
        }
        return *this;
    }
};

// visit(const CounterInfo&, std::uint64_t)
template <typename Enum, typename Visit>
void for_each(const CounterValues<Enum>& counters, Visit&& visit) {
    for (std::size_t index = 0; index < counters.values.size(); ++index) {
        visit(counter_infos<Enum>[index], counters.values[index]);
    }
}
// visit(const HistogramInfo&, const HistogramValues&)
template <typename Enum, typename Visit>
void for_each(const HistogramSet<Enum>& set, Visit&& visit) {
    for (std::size_t index = 0; index < set.histograms.size(); ++index) {
        visit(histogram_infos<Enum>[index], set.histograms[index]);
    }
}

struct WorkerSnapshot {
    CounterValues<WorkerCounter> counters;
    HistogramSet<WorkerHistogram> histograms;
    base::Nanoseconds heartbeat_age_ns{0};
};

struct PacketWorkerSnapshot {
    CounterValues<PacketWorkerCounter> counters;
    HistogramSet<PacketWorkerHistogram> histograms;
    base::Nanoseconds heartbeat_age_ns{0};
};

struct SlowPathSnapshot {
    CounterValues<SlowPathCounter> counters;
    HistogramSet<SlowPathHistogram> histograms;
    base::Nanoseconds heartbeat_age_ns{0};
};

// What a worker's time went into, from the relay's start to its latest turn. A stream worker is
// busy while it does not sleep in the kernel, spinning included; a packet worker in turns that
// found something to do. Of two looks the difference is what was between them.
struct WorkTime {
    std::uint64_t busy_ns{0};
    std::uint64_t whole_ns{0};

    [[nodiscard]] double share() const {  // 0 to 1
        return whole_ns == 0 ? 0
                             : static_cast<double>(std::min(busy_ns, whole_ns)) /
                                   static_cast<double>(whole_ns);
    }
    [[nodiscard]] WorkTime since(const WorkTime& before) const {
        return {busy_ns - std::min(busy_ns, before.busy_ns),
                whole_ns - std::min(whole_ns, before.whole_ns)};
    }
};
[[nodiscard]] inline WorkTime work_time(const WorkerSnapshot& worker,
                                        std::uint64_t started_monotonic_ns) {
    const std::uint64_t beat = worker.counters.get(WorkerCounter::heartbeat_ns);
    const std::uint64_t whole = beat - std::min(beat, started_monotonic_ns);
    return {whole - std::min(whole, worker.counters.get(WorkerCounter::asleep_ns_total)), whole};
}
[[nodiscard]] inline WorkTime work_time(const PacketWorkerSnapshot& worker,
                                        std::uint64_t started_monotonic_ns) {
    const std::uint64_t beat = worker.counters.get(PacketWorkerCounter::packet_heartbeat_ns);
    return {worker.counters.get(PacketWorkerCounter::packet_busy_ns_total),
            beat - std::min(beat, started_monotonic_ns)};
}

struct PortSnapshot {
    std::string name;  // as --packet-port names it
    CounterValues<PortCounter> counters;
};

// A row of a tunnel, of an ended one too until the next takes the row. `row_index` with
// description.generation names the tunnel for as long as the relay runs.
struct TunnelSnapshot {
    std::uint32_t row_index{0};
    TunnelDescription description;  // texts by text_of()
    std::uint64_t visitors_pending{0};
    std::uint64_t visitors_live{0};
    // Since the tunnel began, by the engine that moved the bytes: which path was used.
    CounterValues<TunnelCounter> stream;
    CounterValues<TunnelCounter> packet;

    [[nodiscard]] CounterValues<TunnelCounter> total() const {
        CounterValues<TunnelCounter> sum = stream;
        return sum += packet;
    }
};

struct Snapshot {
    std::string path;
    std::uint32_t owner_uid{0};  // of the file
    SegmentIdentity identity;
    std::uint64_t instance_id{0};  // another one: the relay was started again, counters too
    std::uint64_t segment_bytes{0};
    std::uint32_t tunnel_capacity{0};  // rows
    std::string configuration;

    base::Nanoseconds taken_at{0};  // CLOCK_MONOTONIC
    // The relay's process lives. False: it ended without removing the segment, values are its last.
    bool writer_alive{false};
    // Set when the relay is dead or its control thread stands still: since when (CLOCK_MONOTONIC).
    std::optional<base::Nanoseconds> stale_since;

    CounterValues<ControlCounter> control;
    HistogramSet<ControlHistogram> control_histograms;
    std::vector<WorkerSnapshot> workers;
    std::vector<PacketWorkerSnapshot> packet_workers;
    std::optional<SlowPathSnapshot> slow_path;  // where the packet engine runs
    std::vector<PortSnapshot> ports;
    std::vector<TunnelSnapshot> tunnels;  // rows used at least once, in order
    // Rows left out because they never held still, or their writer died within one.
    std::uint32_t torn_row_count{0};

    [[nodiscard]] base::Nanoseconds stale_for_ns() const {
        return stale_since && taken_at > *stale_since ? taken_at - *stale_since : 0;
    }
};

// Sums over the workers.
template <typename Part>
[[nodiscard]] auto sum_of_counters(const std::vector<Part>& parts) {
    decltype(Part::counters) sum;
    for (const Part& part : parts) {
        sum += part.counters;
    }
    return sum;
}
template <typename Part>
[[nodiscard]] auto sum_of_histograms(const std::vector<Part>& parts) {
    decltype(Part::histograms) sum;
    for (const Part& part : parts) {
        sum += part.histograms;
    }
    return sum;
}

}  // namespace bore::abi
