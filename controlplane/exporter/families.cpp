// The relay as a whole, then its blocks of counters in the order of the tables, then histograms.
// What a block's metrics are called, naming.cpp has planned; tunnels are in tunnel_families.cpp.
#include "controlplane/exporter/families.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "controlplane/config/key.hpp"
#include "controlplane/exporter/family_parts.hpp"

namespace bore::exporter {
namespace {

// ---- The relay as a whole

// One gauge of every relay that `value_of` gives a value for.
template <typename ValueOf>
void write_gauge(Views relays, const FamilySink& sink, std::string name, std::string help,
                 ValueOf&& value_of) {
    MetricFamily family = gauge(std::move(name), std::move(help));
    for (const RelayView& relay : relays) {
        if (const std::optional<double> value = value_of(relay)) {
            family.metric.push_back(sample(family.type, {{"relay", relay.name}}, *value));
        }
    }
    deliver(family, sink);
}

// A gauge of every relay that can be read.
template <typename ValueOf>
void write_snapshot_gauge(Views relays, const FamilySink& sink, std::string name, std::string help,
                          ValueOf&& value_of) {
    write_gauge(relays, sink, std::move(name), std::move(help),
                [&](const RelayView& relay) -> std::optional<double> {
                    if (relay.snapshot == nullptr) {
                        return std::nullopt;
                    }
                    return value_of(*relay.snapshot);
                });
}

// A gauge of every relay that lives.
template <typename ValueOf>
void write_live_gauge(Views relays, const FamilySink& sink, std::string name, std::string help,
                      ValueOf&& value_of) {
    write_gauge(relays, sink, std::move(name), std::move(help),
                [&](const RelayView& relay) -> std::optional<double> {
                    return is_alive(relay) ? std::optional<double>(value_of(relay)) : std::nullopt;
                });
}

void write_states(Views relays, const FamilySink& sink) {
    write_gauge(relays, sink, "bore_up",
                "1 while the relay's statistics can be read, it lives and its control loop turns.",
                [](const RelayView& relay) { return std::optional<double>(is_up(relay)); });
    write_snapshot_gauge(
        relays, sink, "bore_stale_seconds",
        "Since when the relay is dead or its control loop stands still; 0 while neither.",
        [](const abi::Snapshot& snapshot) { return seconds(snapshot.stale_for_ns()); });
    MetricFamily errors{
        .name = "bore_segment_errors_total",
        .help = "Reads of the relay's segment that failed; the exporter's log says why.",
        .type = MetricType::Counter,
        .metric = {}};
    for (const RelayView& relay : relays) {
        errors.metric.push_back(
            sample(errors.type, {{"relay", relay.name}}, static_cast<double>(relay.read_errors)));
    }
    deliver(errors, sink);
}

void write_identities(Views relays, const FamilySink& sink) {
    MetricFamily info =
        gauge("bore_relay_info",
              "The relay: its server id, version, control port, engine and user (a number).");
    for (const RelayView& relay : relays) {
        if (relay.snapshot != nullptr) {
            const abi::SegmentIdentity& identity = relay.snapshot->identity;
            info.metric.push_back(
                sample(info.type,
                       {{"relay", relay.name},
                        {"server_id", label_text(abi::text_of(identity.server_id))},
                        {"version", label_text(abi::text_of(identity.version))},
                        {"control_port", std::to_string(identity.control_port)},
                        {"engine", label_text(abi::text_of(identity.engine))},
                        {"user", std::to_string(relay.snapshot->owner_uid)}},
                       1));
        }
    }
    deliver(info, sink);
    write_snapshot_gauge(relays, sink, "bore_relay_start_time_seconds",
                         "When the relay was started, in seconds since 1970.",
                         [](const abi::Snapshot& snapshot) {
                             return seconds(snapshot.identity.started_realtime_ns);
                         });
    write_snapshot_gauge(
        relays, sink, "bore_segment_bytes", "Size of the relay's segment.",
        [](const abi::Snapshot& snapshot) { return static_cast<double>(snapshot.segment_bytes); });
    write_snapshot_gauge(
        relays, sink, "bore_segment_torn_rows",
        "Tunnels left out of this scrape because their rows were written all the while.",
        [](const abi::Snapshot& snapshot) { return snapshot.torn_row_count; });
}

void write_utilization(Views relays, const FamilySink& sink) {
    write_live_gauge(
        relays, sink, "bore_max_tunnels", "Tunnels that the relay allows at one time; 0 = unknown.",
        [](const RelayView& relay) { return static_cast<double>(relay.limits.max_tunnels); });
    write_live_gauge(
        relays, sink, "bore_capacity_utilization_percent",
        "Live tunnels in percent of those that the relay allows.", [](const RelayView& relay) {
            const auto live = relay.snapshot->control.get(abi::ControlCounter::tunnels_live);
            const auto most = static_cast<double>(relay.limits.max_tunnels);
            return most > 0 ? 100 * static_cast<double>(live) / most : 0;
        });
    write_live_gauge(
        relays, sink, "bore_bandwidth_utilization_percent",
        "Payload moved, both directions together, in percent of the relay's link each way "
        "(--link-mbit of bore-exporter): each byte comes in once and goes out once.",
        [](const RelayView& relay) {
            const auto link = static_cast<double>(relay.limits.link_bytes_per_second);
            return link > 0 ? 100 * relay.accounts->bytes_per_second() / link : 0;
        });
}

void write_loops(Views relays, const FamilySink& sink) {
    MetricFamily family{
        .name = "bore_loop_age_seconds",
        .help = "Since the latest turn of a loop; loops turn at least once a second.",
        .type = MetricType::Gauge,
        .metric = {}};
    for (const RelayView& relay : relays) {
        if (!is_alive(relay)) {
            continue;
        }
        const auto add = [&](std::string loop, std::uint64_t age_ns) {
            family.metric.push_back(sample(
                family.type, {{"relay", relay.name}, {"loop", std::move(loop)}}, seconds(age_ns)));
        };
        const abi::Snapshot& snapshot = *relay.snapshot;
        const std::uint64_t control =
            std::max(snapshot.control.get(abi::ControlCounter::control_heartbeat_ns),
                     snapshot.identity.started_monotonic_ns);
        add("control", snapshot.taken_at > control ? snapshot.taken_at - control : 0);
        for (std::size_t index = 0; index < snapshot.workers.size(); ++index) {
            add("worker_" + std::to_string(index), snapshot.workers[index].heartbeat_age_ns);
        }
        for (std::size_t index = 0; index < snapshot.packet_workers.size(); ++index) {
            add("packet_worker_" + std::to_string(index),
                snapshot.packet_workers[index].heartbeat_age_ns);
        }
        if (snapshot.slow_path) {
            add("slow_path", snapshot.slow_path->heartbeat_age_ns);
        }
    }
    deliver(family, sink);
}

// ---- Blocks of counters

// A block of one relay with the label that tells it from others of its kind, if there are several.
template <typename Enum>
struct LabelledBlock {
    Labels labels;
    const abi::CounterValues<Enum>* counters;
};

template <typename Enum>
void write_blocks(const std::vector<LabelledBlock<Enum>>& blocks, const FamilySink& sink) {
    static const std::vector<PlannedFamily> families = plan(abi::counter_infos<Enum>);
    for (const PlannedFamily& planned : families) {
        MetricFamily family = family_of(planned);
        family.metric.reserve(blocks.size() * planned.members.size());
        for (const LabelledBlock<Enum>& block : blocks) {
            for (const PlannedFamily::Member& member : planned.members) {
                Labels labels = block.labels;
                if (!planned.label.empty()) {
                    labels.push_back({planned.label, member.label_value});
                }
                family.metric.push_back(
                    sample(family.type, std::move(labels),
                           planned.scale *
                               static_cast<double>(block.counters->values[member.counter_index])));
            }
        }
        deliver(family, sink);
    }
}

// `parts_of(snapshot)` are the blocks of one kind, `name_of(part, index)` the value of `label`.
template <typename Enum, typename PartsOf, typename NameOf>
void write_parts(Views relays, const FamilySink& sink, const std::string& label, PartsOf&& parts_of,
                 NameOf&& name_of) {
    std::vector<LabelledBlock<Enum>> blocks;
    for (const RelayView& relay : relays) {
        if (is_alive(relay)) {
            const auto& parts = parts_of(*relay.snapshot);
            for (std::size_t index = 0; index < parts.size(); ++index) {
                blocks.push_back({{{"relay", relay.name}, {label, name_of(parts[index], index)}},
                                  &parts[index].counters});
            }
        }
    }
    write_blocks(blocks, sink);
}

void write_counters(Views relays, const FamilySink& sink) {
    std::vector<LabelledBlock<abi::ControlCounter>> control;
    std::vector<LabelledBlock<abi::SlowPathCounter>> slow_path;
    for (const RelayView& relay : relays) {
        if (is_alive(relay)) {
            control.push_back({{{"relay", relay.name}}, &relay.snapshot->control});
            if (relay.snapshot->slow_path) {
                slow_path.push_back(
                    {{{"relay", relay.name}}, &relay.snapshot->slow_path->counters});
            }
        }
    }
    const auto number = [](const auto&, std::size_t index) { return std::to_string(index); };
    write_blocks(control, sink);
    write_parts<abi::WorkerCounter>(
        relays, sink, "worker", [](const auto& snapshot) -> auto& { return snapshot.workers; },
        number);
    write_parts<abi::PacketWorkerCounter>(
        relays, sink, "worker",
        [](const auto& snapshot) -> auto& { return snapshot.packet_workers; }, number);
    write_blocks(slow_path, sink);
    write_parts<abi::PortCounter>(
        relays, sink, "nic", [](const auto& snapshot) -> auto& { return snapshot.ports; },
        [](const abi::PortSnapshot& port, std::size_t index) {
            const std::string name = label_text(port.name);
            return name.empty() ? std::to_string(index) : name;
        });
}

// ---- Histograms: sums over the workers, for 31 buckets of each would be many series

void add_histogram(MetricFamily& family, const std::string& relay, const abi::HistogramInfo& info,
                   double scale, const abi::HistogramValues& values) {
    ClientMetric metric;
    metric.label = {{"relay", relay}};
    std::uint64_t cumulative = 0;
    for (std::size_t bucket = 0; bucket + 1 < abi::bucket_count; ++bucket) {
        cumulative += values.counts[bucket];
        metric.histogram.bucket.push_back(
            {.cumulative_count = cumulative,
             .upper_bound = scale * static_cast<double>(abi::bucket_bound(info, bucket))});
    }
    // The last bucket, without a bound, and the count are the same number by construction.
    metric.histogram.sample_count = cumulative + values.counts.back();
    metric.histogram.sample_sum = scale * static_cast<double>(values.sum);
    family.metric.push_back(std::move(metric));
}

// `set_of(snapshot)` is a set of histograms, or nothing where the engine is another.
template <typename Enum, typename SetOf>
void write_histograms(Views relays, const FamilySink& sink, SetOf&& set_of) {
    for (std::size_t index = 0; index < static_cast<std::size_t>(Enum::count); ++index) {
        const abi::HistogramInfo& info = abi::histogram_infos<Enum>[index];
        const PlannedHistogram planned = plan(info);
        MetricFamily family{.name = planned.name,
                            .help = std::string(info.help),
                            .type = MetricType::Histogram,
                            .metric = {}};
        for (const RelayView& relay : relays) {
            if (!is_alive(relay)) {
                continue;
            }
            if (const std::optional<abi::HistogramSet<Enum>> set = set_of(*relay.snapshot)) {
                add_histogram(family, relay.name, info, planned.scale, set->histograms[index]);
            }
        }
        deliver(family, sink);
    }
}

void write_all_histograms(Views relays, const FamilySink& sink) {
    using abi::Snapshot;
    write_histograms<abi::ControlHistogram>(relays, sink, [](const Snapshot& snapshot) {
        return std::optional(snapshot.control_histograms);
    });
    write_histograms<abi::WorkerHistogram>(relays, sink, [](const Snapshot& snapshot) {
        return std::optional(abi::sum_of_histograms(snapshot.workers));
    });
    write_histograms<abi::PacketWorkerHistogram>(relays, sink, [](const Snapshot& snapshot) {
        return snapshot.packet_workers.empty()
                   ? std::nullopt
                   : std::optional(abi::sum_of_histograms(snapshot.packet_workers));
    });
    write_histograms<abi::SlowPathHistogram>(relays, sink, [](const Snapshot& snapshot) {
        return snapshot.slow_path ? std::optional(snapshot.slow_path->histograms) : std::nullopt;
    });
}

}  // namespace

bool is_up(const RelayView& relay) {
    return is_alive(relay) && !relay.snapshot->stale_since;
}

std::string label_text(std::string_view text) {
    return config::printable(text);
}

void write_relays(std::span<const RelayView> relays, const FamilySink& sink) {
    write_states(relays, sink);
    write_identities(relays, sink);
    write_utilization(relays, sink);
    write_loops(relays, sink);
    write_counters(relays, sink);
    write_all_histograms(relays, sink);
    write_tunnels(relays, sink);
}

}  // namespace bore::exporter
