// How lines of the counter tables become Prometheus metrics: `bore_` in front, base units, and
// counters that differ by a reason only become one metric with a label. Names and sentences come
// from the tables; what is here is rules. families.cpp walks the plans at each scrape.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/histogram.hpp"

namespace bore::exporter {

struct PlannedFamily {
    struct Member {
        std::size_t counter_index;  // in its table
        std::string label_value;    // of `label`; empty where there is none
    };

    std::string name;
    std::string help;
    abi::CounterKind kind{abi::CounterKind::counter};
    std::string label;  // tells the members apart; empty with one member
    double scale{1};    // the counter times this is the metric
    std::vector<Member> members;
};

// One table's metrics, in the table's order. Heartbeats are left out: a reading of another
// process's clock says nothing, families.cpp shows their age.
[[nodiscard]] std::vector<PlannedFamily> plan(std::span<const abi::CounterInfo> table);

struct PlannedHistogram {
    std::string name;
    double scale;
};
[[nodiscard]] PlannedHistogram plan(const abi::HistogramInfo& info);

}  // namespace bore::exporter
