// What both files of families share: samples, labels, and the way to the sink.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "controlplane/exporter/families.hpp"
#include "controlplane/exporter/naming.hpp"

namespace bore::exporter {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;
using Views = std::span<const RelayView>;

inline double seconds(std::uint64_t nanoseconds) {
    return static_cast<double>(nanoseconds) / 1e9;
}

inline ClientMetric sample(MetricType type, Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    return metric;
}

inline MetricFamily family_of(const PlannedFamily& planned) {
    const bool counts = planned.kind == abi::CounterKind::counter;
    return {.name = planned.name,
            .help = planned.help,
            .type = counts ? MetricType::Counter : MetricType::Gauge,
            .metric = {}};
}

inline MetricFamily gauge(std::string name, std::string help) {
    return {
        .name = std::move(name), .help = std::move(help), .type = MetricType::Gauge, .metric = {}};
}

inline void deliver(const MetricFamily& family, const FamilySink& sink) {
    if (!family.metric.empty()) {
        sink(family);
    }
}

inline bool is_alive(const RelayView& relay) {
    return relay.snapshot != nullptr && relay.snapshot->writer_alive;
}

// The families of the tunnels (tunnel_families.cpp); write_relays() ends with them.
void write_tunnels(Views relays, const FamilySink& sink);

}  // namespace bore::exporter
