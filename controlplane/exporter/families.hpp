// Snapshots of relays into metric families: what a scrape shows of the relays. Pure: no file is
// read and no clock asked here.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "controlplane/exporter/tunnel_accounts.hpp"
#include "dataplane/abi/snapshot.hpp"

namespace bore::exporter {

// Limits of a relay that the utilization is counted against.
struct RelayLimits {
    std::uint64_t max_tunnels{0};            // 0 = unknown
    std::uint64_t link_bytes_per_second{0};  // each way
};

struct RelayView {
    std::string name;                         // value of the label `relay`
    const abi::Snapshot* snapshot{nullptr};   // nullptr: cannot be read
    const TunnelAccounts* accounts{nullptr};  // with a snapshot; updated with it
    RelayLimits limits;
    std::uint64_t read_errors{0};
};

// Takes one family after the other, so that only one is in memory at a time: with 10,000 tunnels a
// family has megabytes.
using FamilySink = std::function<void(const prometheus::MetricFamily&)>;

// A family comes once, with all relays' series in it, as the format demands. Of a relay that is
// dead only that is told: its last values are no news.
void write_relays(std::span<const RelayView> relays, const FamilySink& sink);

// Readable, alive and its loops turn.
[[nodiscard]] bool is_up(const RelayView& relay);

// Text of others as a label value: UTF-8 or question marks; one wrong byte would make Prometheus
// refuse the whole scrape.
[[nodiscard]] std::string label_text(std::string_view text);

}  // namespace bore::exporter
