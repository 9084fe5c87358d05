// Relay, tunnels, loops and ports. Drops, histograms and flows are in reasons.cpp.
#include "controlplane/ctl/views.hpp"

#include <algorithm>
#include <boost/json/value.hpp>

#include "controlplane/command/request.hpp"
#include "controlplane/ctl/format.hpp"
#include "dataplane/abi/segment_owner.hpp"

namespace bore::ctl {

namespace {

namespace json = boost::json;

using abi::ControlCounter;
using abi::PacketWorkerCounter;
using abi::PortCounter;
using abi::SlowPathCounter;
using abi::Snapshot;
using abi::TunnelCounter;
using abi::TunnelSnapshot;
using abi::TunnelState;
using abi::WorkerCounter;

json::string text(std::string_view value) {
    return json::string(value.data(), value.size());
}

template <typename Enum>
json::object counters_of(const abi::CounterValues<Enum>& counters) {
    json::object object;
    abi::for_each(counters, [&](const abi::CounterInfo& info, std::uint64_t value) {
        object[json::string_view(info.name.data(), info.name.size())] = value;
    });
    return object;
}

double seconds(base::Nanoseconds duration) {
    return static_cast<double>(duration) / double{base::second_ns};
}

base::Nanoseconds age_of(const Snapshot& snapshot, base::Nanoseconds since) {
    return snapshot.taken_at > since ? snapshot.taken_at - since : 0;
}

std::string limit_text(const TunnelSnapshot& tunnel) {
    const abi::TunnelDescription& known = tunnel.description;
    const std::uint64_t most =
        std::max(known.to_client_bytes_per_second, known.to_visitor_bytes_per_second);
    return most == 0 ? "-" : rate_text(static_cast<double>(most));
}

json::object tunnel_object(const Snapshot& snapshot, const TunnelSnapshot& tunnel) {
    const abi::TunnelDescription& known = tunnel.description;
    json::object object;
    object["id"] = id_of(tunnel);
    object["port"] = known.port;
    object["state"] = name_of(known.state);
    object["bind_addresses"] = text(abi::text_of(known.bind_addresses));
    object["client_address"] = text(abi::text_of(known.client_address));
    object["client_port"] = known.client_port;
    object["dialect"] = known.dialect == abi::TunnelDialect::fork ? "fork" : "upstream";
    object["authenticated"] = known.authenticated != 0;
    object["since"] = time_text(known.since_realtime_ns);
    object["age_s"] = seconds(age_of(snapshot, known.since_monotonic_ns));
    object["visitors_pending"] = tunnel.visitors_pending;
    object["visitors_live"] = tunnel.visitors_live;
    object["to_client_bytes_per_second_limit"] = known.to_client_bytes_per_second;
    object["to_visitor_bytes_per_second_limit"] = known.to_visitor_bytes_per_second;
    object["idle_timeout_s"] = known.idle_timeout_s;
    object["half_closed_timeout_s"] = known.half_closed_timeout_s;
    object["path"] = path_of(tunnel);
    object["counters"] = counters_of(tunnel.total());
    object["stream"] = counters_of(tunnel.stream);
    object["packet"] = counters_of(tunnel.packet);
    return object;
}

std::vector<std::string> tunnel_row(const Snapshot& snapshot, const TunnelSnapshot& tunnel) {
    const abi::TunnelDescription& known = tunnel.description;
    const auto total = tunnel.total();
    return {std::to_string(known.port),
            std::string(abi::text_of(known.client_address)),
            name_of(known.state),
            duration_text(age_of(snapshot, known.since_monotonic_ns)),
            std::to_string(tunnel.visitors_live),
            std::to_string(tunnel.visitors_pending),
            std::to_string(total.get(TunnelCounter::tunnel_pairs_opened_total)),
            bytes_text(total.get(TunnelCounter::to_client_bytes_total)),
            bytes_text(total.get(TunnelCounter::to_visitor_bytes_total)),
            path_of(tunnel),
            limit_text(tunnel),
            id_of(tunnel)};
}

// What the packet engine moved since the start: the rows hold what earlier tunnels on them moved,
// as their baselines.
std::uint64_t moved_as_packets(const Snapshot& snapshot) {
    std::uint64_t sum = 0;
    for (const TunnelSnapshot& tunnel : snapshot.tunnels) {
        for (const TunnelCounter counter :
             {TunnelCounter::to_client_bytes_total, TunnelCounter::to_visitor_bytes_total}) {
            sum += tunnel.packet.get(counter) +
                   tunnel.description.packet_baseline[static_cast<std::size_t>(counter)];
        }
    }
    return sum;
}

// The same of the stream engine; its workers count that.
std::uint64_t moved_bytes(const Snapshot& snapshot) {
    const auto workers = abi::sum_of_counters(snapshot.workers);
    return workers.get(WorkerCounter::copied_bytes_total) +
           workers.get(WorkerCounter::spliced_bytes_total);
}

std::string state_text(const Snapshot& snapshot, const std::optional<json::object>& ping) {
    if (snapshot.stale_since) {
        return stale_text(snapshot);
    }
    if (!ping) {
        return "running (no control socket to ask)";
    }
    const json::value* const state = ping->if_contains("state");
    std::string told = state != nullptr && state->is_string() ? state->as_string().c_str() : "?";
    if (const json::value* const left = ping->if_contains("deadline_s")) {
        told += ", pairs are cut in " + std::to_string(left->to_number<std::int64_t>()) + " s";
    }
    return told;
}

std::string moved_text(const Snapshot& snapshot) {
    return bytes_text(moved_bytes(snapshot)) + " by the stream engine" +
           (snapshot.slow_path ? ", " + bytes_text(moved_as_packets(snapshot)) + " as packets"
                               : "");
}

std::uint64_t refused(const Snapshot& snapshot) {
    std::uint64_t sum = 0;
    abi::for_each(snapshot.control, [&](const abi::CounterInfo& info, std::uint64_t value) {
        if (info.name.find("_refused_") != std::string_view::npos) {
            sum += value;
        }
    });
    return sum;
}

std::string share_text(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? "-" : percent_text(static_cast<double>(part) / static_cast<double>(whole));
}

struct Loops {
    Table table{.columns = {{"LOOP"},
                            {"BEAT", Align::right},
                            {"BUSY", Align::right},
                            {"PAIRS", Align::right},
                            {"OPENED", Align::right},
                            {"COPIED", Align::right},
                            {"SPLICED", Align::right},
                            {"TURNS", Align::right},
                            {"IDLE", Align::right}},
                .rows = {}};
    json::array objects;

    template <typename Part>
    void note(const std::string& name, const Part& part,
              const std::optional<abi::WorkTime>& time = std::nullopt) {
        json::object object;
        object["loop"] = name;
        object["heartbeat_age_s"] = seconds(part.heartbeat_age_ns);
        if (time) {
            object["busy_share"] = time->share();
        }
        object["counters"] = counters_of(part.counters);
        objects.emplace_back(std::move(object));
    }
};

}  // namespace

json::object head_of(const Snapshot& snapshot) {
    json::object object;
    object["relay"] = text(abi::text_of(snapshot.identity.server_id));
    object["alive"] = snapshot.writer_alive;
    object["stale_for_s"] =
        snapshot.stale_since ? json::value(seconds(snapshot.stale_for_ns())) : json::value(nullptr);
    return object;
}

std::string render(const View& view) {
    std::string text = render_facts(view.facts);
    if (view.table) {
        text += (text.empty() ? "" : "\n") + render(*view.table);
    }
    if (!view.note.empty()) {
        text += (text.empty() ? "" : "\n") + view.note + "\n";
    }
    return text;
}

std::string stale_text(const Snapshot& snapshot) {
    if (!snapshot.stale_since) {
        return "";
    }
    // Heartbeats are on the monotonic scale; the identity relates it to the wall clock.
    const abi::SegmentIdentity& identity = snapshot.identity;
    const std::uint64_t since_start = *snapshot.stale_since > identity.started_monotonic_ns
                                          ? *snapshot.stale_since - identity.started_monotonic_ns
                                          : 0;
    return "stale since " + time_text(identity.started_realtime_ns + since_start) + " (" +
           duration_text(snapshot.stale_for_ns()) + " ago): " +
           (snapshot.writer_alive ? "the relay runs, but its control loop stands still"
                                  : "the relay has ended without a word, values are its last");
}

std::string id_of(const TunnelSnapshot& tunnel) {
    return command::text_of({tunnel.row_index, tunnel.description.generation});
}

std::string path_of(const TunnelSnapshot& tunnel) {
    const bool stream = tunnel.stream.get(TunnelCounter::tunnel_pairs_opened_total) > 0;
    const bool packet = tunnel.packet.get(TunnelCounter::tunnel_pairs_opened_total) > 0;
    return stream && packet ? "both" : stream ? "stream" : packet ? "packet" : "-";
}

std::string name_of(TunnelState state) {
    switch (state) {
        case TunnelState::none:
            return "none";
        case TunnelState::live:
            return "live";
        case TunnelState::finishing:
            return "finishing";
        case TunnelState::ended:
            break;
    }
    return "ended";
}

View status_view(const Snapshot& snapshot, const std::optional<json::object>& ping) {
    const abi::SegmentIdentity& identity = snapshot.identity;
    const auto count = [&](ControlCounter counter) {
        return std::to_string(snapshot.control.get(counter));
    };
    const auto finishing = std::count_if(
        snapshot.tunnels.begin(), snapshot.tunnels.end(), [](const TunnelSnapshot& tunnel) {
            return tunnel.description.state == TunnelState::finishing;
        });
    const auto workers = abi::sum_of_counters(snapshot.workers);
    const std::uint64_t spliced =
        snapshot.slow_path ? snapshot.slow_path->counters.get(SlowPathCounter::flows_live) : 0;
    View view;
    view.facts = {
        {"relay", std::string(abi::text_of(identity.server_id)) + " (process " +
                      std::to_string(identity.process_id) + ")"},
        {"state", state_text(snapshot, ping)},
        {"version", std::string(abi::text_of(identity.version))},
        {"engine", std::string(abi::text_of(identity.engine))},
        {"started", time_text(identity.started_realtime_ns) + " (" +
                        duration_text(age_of(snapshot, identity.started_monotonic_ns)) + ")"},
        {"control port", std::to_string(identity.control_port)},
        {"tunnels", count(ControlCounter::tunnels_live) + " live, " + std::to_string(finishing) +
                        " finishing, " + count(ControlCounter::tunnels_opened_total) +
                        " since the start"},
        {"pairs", std::to_string(workers.get(WorkerCounter::pairs_live) + spliced) + " live (" +
                      std::to_string(spliced) + " as packets), " +
                      count(ControlCounter::visitors_pending) + " visitors waiting"},
        {"moved", moved_text(snapshot)},
        {"refused", std::to_string(refused(snapshot)) + " (borectl drops has the reasons)"},
        {"segment", snapshot.path + ", " + bytes_text(snapshot.segment_bytes) + ", of " +
                        abi::user_text(snapshot.owner_uid)},
    };
    if (snapshot.torn_row_count > 0) {
        view.note = std::to_string(snapshot.torn_row_count) +
                    " rows of tunnels were being written and are left out";
    }
    view.json = head_of(snapshot);
    view.json["pid"] = identity.process_id;
    view.json["version"] = text(abi::text_of(identity.version));
    view.json["engine"] = text(abi::text_of(identity.engine));
    view.json["control_port"] = identity.control_port;
    view.json["started"] = time_text(identity.started_realtime_ns);
    view.json["uptime_s"] = seconds(age_of(snapshot, identity.started_monotonic_ns));
    const json::value* const state = ping ? ping->if_contains("state") : nullptr;
    view.json["state"] = state == nullptr ? json::value(nullptr) : *state;
    view.json["tunnels_live"] = snapshot.control.get(ControlCounter::tunnels_live);
    view.json["pairs_live"] = workers.get(WorkerCounter::pairs_live) + spliced;
    view.json["segment"] = snapshot.path;
    view.json["segment_owner_uid"] = snapshot.owner_uid;
    view.json["segment_bytes"] = snapshot.segment_bytes;
    view.json["control"] = counters_of(snapshot.control);
    view.json["workers"] = counters_of(workers);
    if (snapshot.slow_path) {
        view.json["packet_bytes_total"] = moved_as_packets(snapshot);
        view.json["packet_workers"] = counters_of(abi::sum_of_counters(snapshot.packet_workers));
        view.json["slow_path"] = counters_of(snapshot.slow_path->counters);
    }
    return view;
}

View tunnels_view(const Snapshot& snapshot, bool all) {
    View view;
    view.table = Table{.columns = {{"PORT", Align::right},
                                   {"CLIENT"},
                                   {"STATE"},
                                   {"AGE", Align::right},
                                   {"LIVE", Align::right},
                                   {"WAITING", Align::right},
                                   {"VISITS", Align::right},
                                   {"TO CLIENT", Align::right},
                                   {"TO VISITOR", Align::right},
                                   {"PATH"},
                                   {"LIMIT", Align::right},
                                   {"ID", Align::right}},
                       .rows = {}};
    std::vector<const TunnelSnapshot*> shown;
    for (const TunnelSnapshot& tunnel : snapshot.tunnels) {
        const TunnelState state = tunnel.description.state;
        if (state != TunnelState::none && (all || state != TunnelState::ended)) {
            shown.push_back(&tunnel);
        }
    }
    std::stable_sort(shown.begin(), shown.end(), [](const auto* left, const auto* right) {
        return left->description.port < right->description.port;
    });
    json::array objects;
    for (const TunnelSnapshot* const tunnel : shown) {
        view.table->rows.push_back(tunnel_row(snapshot, *tunnel));
        objects.emplace_back(tunnel_object(snapshot, *tunnel));
    }
    view.note = stale_text(snapshot);
    view.json = head_of(snapshot);
    view.json["tunnels"] = std::move(objects);
    return view;
}

View workers_view(const Snapshot& snapshot) {
    Loops loops;
    const std::uint64_t started = snapshot.identity.started_monotonic_ns;
    for (std::size_t index = 0; index < snapshot.workers.size(); ++index) {
        const abi::WorkerSnapshot& worker = snapshot.workers[index];
        const auto get = [&](WorkerCounter counter) { return worker.counters.get(counter); };
        const std::string name = "stream " + std::to_string(index);
        const abi::WorkTime time = abi::work_time(worker, started);
        loops.table.rows.push_back(
            {name, duration_text(worker.heartbeat_age_ns), percent_text(time.share()),
             std::to_string(get(WorkerCounter::pairs_live)),
             std::to_string(get(WorkerCounter::pairs_opened_total)),
             bytes_text(get(WorkerCounter::copied_bytes_total)),
             bytes_text(get(WorkerCounter::spliced_bytes_total)),
             std::to_string(get(WorkerCounter::loops_total)),
             share_text(get(WorkerCounter::waits_total), get(WorkerCounter::loops_total))});
        loops.note(name, worker, time);
    }
    for (std::size_t index = 0; index < snapshot.packet_workers.size(); ++index) {
        const abi::PacketWorkerSnapshot& worker = snapshot.packet_workers[index];
        const auto get = [&](PacketWorkerCounter counter) { return worker.counters.get(counter); };
        const std::string name = "packet " + std::to_string(index);
        const abi::WorkTime time = abi::work_time(worker, started);
        loops.table.rows.push_back(
            {name, duration_text(worker.heartbeat_age_ns), percent_text(time.share()), "-", "-",
             "-", std::to_string(get(PacketWorkerCounter::packet_spliced_total)) + " fr",
             std::to_string(get(PacketWorkerCounter::packet_loops_total)),
             share_text(get(PacketWorkerCounter::packet_idle_loops_total),
                        get(PacketWorkerCounter::packet_loops_total))});
        loops.note(name, worker, time);
    }
    if (snapshot.slow_path) {
        const auto get = [&](SlowPathCounter counter) {
            return std::to_string(snapshot.slow_path->counters.get(counter));
        };
        loops.table.rows.push_back(
            {"slow path", duration_text(snapshot.slow_path->heartbeat_age_ns), "-",
             get(SlowPathCounter::flows_live), get(SlowPathCounter::handoffs_total), "-", "-",
             get(SlowPathCounter::slow_path_loops_total), "-"});
        loops.note("slow path", *snapshot.slow_path);
    }
    View view;
    view.table = std::move(loops.table);
    view.note = stale_text(snapshot);
    view.json = head_of(snapshot);
    view.json["loops"] = std::move(loops.objects);
    return view;
}

View ports_view(const Snapshot& snapshot) {
    View view;
    view.json = head_of(snapshot);
    json::array objects;
    Table table{.columns = {{"PORT"},
                            {"LINK"},
                            {"RECEIVED", Align::right},
                            {"SENT", Align::right},
                            {"MISSED", Align::right},
                            {"ERRORS", Align::right},
                            {"NO BUFFER", Align::right}},
                .rows = {}};
    for (const abi::PortSnapshot& port : snapshot.ports) {
        const auto get = [&](PortCounter counter) { return port.counters.get(counter); };
        const std::uint64_t speed = get(PortCounter::port_speed_mbps);
        const std::string up = speed == 0 ? "up" : "up, " + std::to_string(speed) + " Mbit/s";
        table.rows.push_back({port.name, get(PortCounter::port_link_up) != 0 ? up : "down",
                              std::to_string(get(PortCounter::port_received_packets_total)) + " (" +
                                  bytes_text(get(PortCounter::port_received_bytes_total)) + ")",
                              std::to_string(get(PortCounter::port_sent_packets_total)) + " (" +
                                  bytes_text(get(PortCounter::port_sent_bytes_total)) + ")",
                              std::to_string(get(PortCounter::port_missed_total)),
                              std::to_string(get(PortCounter::port_receive_errors_total) +
                                             get(PortCounter::port_send_errors_total)),
                              std::to_string(get(PortCounter::port_no_buffer_total))});
        json::object object;
        object["name"] = port.name;
        object["counters"] = counters_of(port.counters);
        objects.emplace_back(std::move(object));
    }
    view.json["ports"] = std::move(objects);
    if (table.rows.empty()) {
        view.note = "no ports: the stream engine uses the kernel's network";
    } else {
        view.table = std::move(table);
        view.note = stale_text(snapshot);
    }
    return view;
}

}  // namespace bore::ctl
