// 1. A counter of a group joins its group's metric. 2. Any other keeps its name. 3. Units.
#include "controlplane/exporter/naming.hpp"

#include <algorithm>
#include <array>

#include "dataplane/abi/packet_counters.hpp"

namespace bore::exporter {
namespace {

constexpr std::string_view common_prefix = "bore_";
constexpr double seconds_per_nanosecond = 1e-9;
constexpr double bytes_per_megabit = 125'000;

// Counters named PREFIX + value + SUFFIX are members of one metric.
struct Group {
    std::string_view prefix;
    std::string_view suffix;
    std::string_view metric;
    std::string_view label;
    std::string_view title;
};

constexpr std::array groups{
    Group{"connections_refused_", "_total", "connections_refused_total", "reason",
          "Connections refused on the control port"},
    Group{"tunnels_refused_", "_total", "tunnels_refused_total", "reason", "Tunnels refused"},
    Group{"visitors_refused_", "_total", "visitors_refused_total", "reason", "Visitors refused"},
    Group{"pairs_ended_", "_total", "pairs_ended_total", "reason", "Pairs ended"},
    Group{"to_", "_bytes_total", "tunnel_bytes_total", "to", "Payload delivered"},
    Group{"handoff_frozen_", "us_total", "handoffs_frozen_total", "microseconds",
          "Hand-offs by the time that the connection was frozen"},
    Group{"stream_", "_total", "pairs_kept_on_stream_total", "reason",
          "Pairs that the packet engine left to the stream engine"},
    Group{"flows_ended_", "_total", "flows_ended_total", "reason", "Spliced flows ended"},
};

constexpr std::string_view packet_prefix = "packet_";
constexpr Group to_kernel{packet_prefix, "_total", "packets_to_kernel_total", "reason",
                          "Frames given to the kernel"};
constexpr Group dropped{packet_prefix, "_total", "packets_dropped_total", "reason",
                        "Frames dropped"};

// Frames have a table of reasons of their own; `spliced` and `held` are none.
const Group* group_of_frames(std::string_view name) {
    for (auto reason = abi::PacketReason::not_tcp; reason < abi::PacketReason::count;
         reason = static_cast<abi::PacketReason>(static_cast<std::uint8_t>(reason) + 1)) {
        const auto index = static_cast<std::size_t>(abi::counter_of(reason));
        if (abi::packet_worker_counter_infos[index].name == name) {
            return abi::goes_to_kernel(reason) ? &to_kernel : &dropped;
        }
    }
    return nullptr;
}

const Group* group_of(std::string_view name) {
    if (name.starts_with(packet_prefix)) {
        return group_of_frames(name);
    }
    const auto* group = std::ranges::find_if(groups, [name](const Group& candidate) {
        return name.starts_with(candidate.prefix) && name.ends_with(candidate.suffix) &&
               name.size() > candidate.prefix.size() + candidate.suffix.size();
    });
    return group == groups.end() ? nullptr : group;
}

std::string value_in(const Group& group, std::string_view name) {
    name.remove_prefix(group.prefix.size());
    name.remove_suffix(group.suffix.size());
    return std::string(name);
}

bool replace_ending(std::string& name, std::string_view ending, std::string_view replacement) {
    if (!name.ends_with(ending)) {
        return false;
    }
    name.replace(name.size() - ending.size(), ending.size(), replacement);
    return true;
}

PlannedFamily planned(const abi::CounterInfo& info, std::size_t index) {
    PlannedFamily family{.name = std::string(common_prefix) + std::string(info.name),
                         .help = std::string(info.help),
                         .kind = info.kind,
                         .label = "",
                         .members = {{index, ""}}};
    if (replace_ending(family.name, "_ns_total", "_seconds_total") ||
        replace_ending(family.name, "_ns", "_seconds")) {
        family.scale = seconds_per_nanosecond;
    } else if (replace_ending(family.name, "_mbps", "_bytes_per_second")) {
        family.scale = bytes_per_megabit;
        family.help = "Speed of the link; 0 = unknown.";
    }
    return family;
}

void join(const Group& group, const abi::CounterInfo& info, std::size_t index,
          std::vector<PlannedFamily>& plan) {
    const std::string name = std::string(common_prefix) + std::string(group.metric);
    auto family = std::ranges::find(plan, name, &PlannedFamily::name);
    if (family == plan.end()) {
        plan.push_back({.name = name,
                        .help = std::string(group.title) + ", by " + std::string(group.label) + ".",
                        .kind = info.kind,
                        .label = std::string(group.label),
                        .members = {}});
        family = std::prev(plan.end());
    }
    family->members.push_back({index, value_in(group, info.name)});
    family->help += " " + family->members.back().label_value + ": " + std::string(info.help);
}

}  // namespace

std::vector<PlannedFamily> plan(std::span<const abi::CounterInfo> table) {
    std::vector<PlannedFamily> plan;
    for (std::size_t index = 0; index < table.size(); ++index) {
        const abi::CounterInfo& info = table[index];
        if (info.name.ends_with("heartbeat_ns")) {
            continue;
        }
        if (const Group* group = group_of(info.name)) {
            join(*group, info, index, plan);
        } else {
            plan.push_back(planned(info, index));
        }
    }
    return plan;
}

PlannedHistogram plan(const abi::HistogramInfo& info) {
    std::string name = std::string(common_prefix) + std::string(info.name);
    const bool is_time = info.unit == abi::HistogramUnit::nanoseconds;
    if (is_time) {
        replace_ending(name, "_ns", "_seconds");
    }
    return {name, is_time ? seconds_per_nanosecond : 1.0};
}

}  // namespace bore::exporter
