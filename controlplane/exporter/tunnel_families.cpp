// Series of the tunnels that are shown, and of the others in sum.
#include <string>
#include <string_view>
#include <utility>

#include "controlplane/exporter/family_parts.hpp"
#include "dataplane/abi/engine.hpp"

namespace bore::exporter {
namespace {

constexpr std::string_view other_port = "other";

// `add(labels, tunnel)` for every tunnel with series, then `add_other(labels, other)`.
template <typename Add, typename AddOther>
void for_each_tunnel(Views relays, Add&& add, AddOther&& add_other) {
    for (const RelayView& relay : relays) {
        if (!is_alive(relay)) {
            continue;
        }
        for (const std::uint32_t index : relay.accounts->shown()) {
            const abi::TunnelSnapshot& tunnel = relay.snapshot->tunnels[index];
            add(relay,
                Labels{{"relay", relay.name}, {"port", std::to_string(tunnel.description.port)}},
                tunnel);
        }
        add_other(relay, Labels{{"relay", relay.name}, {"port", std::string(other_port)}},
                  relay.accounts->other());
    }
}

void write_tunnel_counters(Views relays, const FamilySink& sink) {
    static const std::vector<PlannedFamily> families = plan(abi::counter_infos<abi::TunnelCounter>);
    for (const PlannedFamily& planned : families) {
        MetricFamily family = family_of(planned);
        const auto add_path = [&](const Labels& labels, std::string_view path,
                                  const TunnelValues& values) {
            for (const PlannedFamily::Member& member : planned.members) {
                Labels all = labels;
                all.push_back({"path", std::string(path)});
                if (!planned.label.empty()) {
                    all.push_back({planned.label, member.label_value});
                }
                family.metric.push_back(sample(
                    family.type, std::move(all),
                    planned.scale * static_cast<double>(values.values[member.counter_index])));
            }
        };
        const auto add_paths = [&](const RelayView& relay, const Labels& labels, const auto& of) {
            add_path(labels, "stream", of.stream);
            if (relay.snapshot->slow_path) {
                add_path(labels, "packet", of.packet);
            }
        };
        for_each_tunnel(relays, add_paths, add_paths);
        deliver(family, sink);
    }
}

// A gauge of every tunnel and of the others.
template <typename ValueOf>
void write_tunnel_gauge(Views relays, const FamilySink& sink, std::string name, std::string help,
                        ValueOf&& value_of) {
    MetricFamily family = gauge(std::move(name), std::move(help));
    const auto add = [&](const RelayView&, Labels labels, const auto& of) {
        family.metric.push_back(
            sample(family.type, std::move(labels), static_cast<double>(value_of(of))));
    };
    for_each_tunnel(relays, add, add);
    deliver(family, sink);
}

std::string_view to_string(abi::TunnelDialect dialect) {
    return dialect == abi::TunnelDialect::upstream ? "upstream" : "fork";
}

std::string_view to_string(abi::PathPolicy path_policy) {
    switch (path_policy) {
        case abi::PathPolicy::splice:
            return "splice";
        case abi::PathPolicy::stream:
            return "stream";
        case abi::PathPolicy::automatic:
            break;
    }
    return "auto";
}

void write_tunnel_descriptions(Views relays, const FamilySink& sink) {
    MetricFamily info =
        gauge("bore_tunnel_info",
              "The tunnel: its client's address and dialect, whether it proved that it knows the "
              "secret, its path policy.");
    MetricFamily since = gauge("bore_tunnel_start_time_seconds",
                               "When the tunnel was opened, in seconds since 1970.");
    const auto nothing = [](const RelayView&, const Labels&, const OtherTunnels&) {};
    for_each_tunnel(
        relays,
        [&](const RelayView&, Labels labels, const abi::TunnelSnapshot& tunnel) {
            const abi::TunnelDescription& about = tunnel.description;
            labels.push_back({"client", label_text(abi::text_of(about.client_address))});
            labels.push_back({"dialect", std::string(to_string(about.dialect))});
            labels.push_back({"authenticated", about.authenticated != 0 ? "yes" : "no"});
            labels.push_back({"policy", std::string(to_string(about.path_policy))});
            info.metric.push_back(sample(info.type, std::move(labels), 1));
        },
        nothing);
    deliver(info, sink);
    info = {};
    for_each_tunnel(
        relays,
        [&](const RelayView&, Labels labels, const abi::TunnelSnapshot& tunnel) {
            since.metric.push_back(sample(since.type, std::move(labels),
                                          seconds(tunnel.description.since_realtime_ns)));
        },
        nothing);
    deliver(since, sink);
}

}  // namespace

void write_tunnels(Views relays, const FamilySink& sink) {
    write_tunnel_counters(relays, sink);
    write_tunnel_gauge(relays, sink, "bore_tunnel_visitors_pending",
                       "Visitors that wait for the tunnel's client.",
                       [](const auto& of) { return of.visitors_pending; });
    write_tunnel_gauge(relays, sink, "bore_tunnel_visitors_live",
                       "Visitors that the tunnel has now.",
                       [](const auto& of) { return of.visitors_live; });
    write_tunnel_descriptions(relays, sink);
    MetricFamily others =
        gauge("bore_tunnels_in_other",
              "Tunnels without series of their own, summed under port=\"other\".");
    for (const RelayView& relay : relays) {
        if (is_alive(relay)) {
            others.metric.push_back(
                sample(others.type, {{"relay", relay.name}}, relay.accounts->other().count));
        }
    }
    deliver(others, sink);
}

}  // namespace bore::exporter
