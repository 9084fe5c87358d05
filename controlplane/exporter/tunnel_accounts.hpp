// Which tunnels of a relay have series of their own, and what the others moved. Fed with every
// snapshot of one relay; keeps the last counters of every row, so that nothing which a tunnel moved
// is lost to the sums when it leaves the busiest, ends, or its row is taken by another.
//
// `other` counts what was moved by tunnels without series of their own while this exporter watched.
// It only grows while the relay lives: a tunnel that enters or leaves the busiest changes where its
// further bytes go, never what `other` holds. So rate() over `other` is right, and the sum of all
// rates is what the relay moved.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/abi/snapshot.hpp"

namespace bore::exporter {

using TunnelValues = abi::CounterValues<abi::TunnelCounter>;

// One path's and the other's, as in the snapshot; gauges are of now.
struct OtherTunnels {
    std::uint32_t count{0};  // tunnels without series, ended ones left out
    TunnelValues stream;
    TunnelValues packet;
    std::uint64_t visitors_pending{0};
    std::uint64_t visitors_live{0};
};

class TunnelAccounts {
  public:
    // `most` tunnels have series, or all. `watching_since`: CLOCK_MONOTONIC of the exporter's
    // start. What a relay moved before that is not counted: `other` of an exporter that was started
    // again begins at 0, which rate() takes for the reset that it is.
    TunnelAccounts(std::optional<std::uint32_t> most, base::Nanoseconds watching_since)
        : most_(most), watching_since_(watching_since) {}

    void update(const abi::Snapshot& snapshot);

    // Of the latest snapshot: indices into its tunnels, one for each public port.
    [[nodiscard]] const std::vector<std::uint32_t>& shown() const { return shown_; }
    [[nodiscard]] const OtherTunnels& other() const { return other_; }
    // Payload that all tunnels moved, both directions together; mean over ten seconds or more.
    [[nodiscard]] double bytes_per_second() const { return bytes_per_second_; }

  private:
    struct Row {
        std::uint64_t generation{0};  // 0: not seen yet
        TunnelValues stream;
        TunnelValues packet;
        double busy{0};  // bytes, older ones count less
        bool shown{false};
    };
    // What a row counted since the snapshot before.
    struct Change {
        TunnelValues stream;
        TunnelValues packet;
        bool first{false};  // the row's tunnel was not seen before
    };

    void begin(const abi::Snapshot& snapshot);
    [[nodiscard]] Change change_of(const abi::TunnelSnapshot& tunnel) const;
    void take(const abi::TunnelSnapshot& tunnel, const Change& change, double decay);
    void choose(const std::vector<abi::TunnelSnapshot>& tunnels);
    void measure(base::Nanoseconds now, std::uint64_t bytes);

    std::optional<std::uint32_t> most_;
    base::Nanoseconds watching_since_;

    std::optional<std::uint64_t> instance_id_;
    bool counts_from_start_{false};  // the relay was started after this exporter
    base::Nanoseconds updated_at_{0};
    std::vector<Row> rows_;  // by row_index
    std::vector<std::uint32_t> shown_;
    OtherTunnels other_;

    base::Nanoseconds measured_from_{0};
    std::uint64_t measured_bytes_{0};
    double bytes_per_second_{0};
};

}  // namespace bore::exporter
