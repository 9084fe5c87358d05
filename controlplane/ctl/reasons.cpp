// The views whose rows are names of the tables: drops and histograms; and flows, whose rows come
// from the control socket.
#include <array>
#include <boost/json/value.hpp>

#include "controlplane/ctl/format.hpp"
#include "controlplane/ctl/views.hpp"

namespace bore::ctl {

namespace {

namespace json = boost::json;

using abi::Snapshot;

json::string text(std::string_view value) {
    return json::string(value.data(), value.size());
}

bool contains(std::string_view name, std::initializer_list<std::string_view> parts) {
    for (const std::string_view part : parts) {
        if (name.find(part) != std::string_view::npos) {
            return true;
        }
    }
    return false;
}

// Whether a counter counts what did not go as somebody wished. By name and sentence, so that a new
// line of a table needs no second list.
bool is_reason(const abi::CounterInfo& info) {
    return info.kind == abi::CounterKind::counter &&
           (info.help.starts_with("Dropped:") ||
            info.help.starts_with("Pairs on the stream engine:") ||
            contains(info.name, {"refused", "failure", "timeouts", "error", "exhausted", "dropped",
                                 "unclaimed", "misfire", "accepts_un", "clients_dead", "missed",
                                 "no_buffer", "_evicted", "ended_reset", "ended_idle",
                                 "ended_half_closed", "ended_closed", "ended_drained"}));
}

struct Reasons {
    bool all;
    Table table{.columns = {{"COUNT", Align::right}, {"WHERE"}, {"REASON"}, {"MEANING"}},
                .rows = {}};
    json::array objects;

    template <typename Enum>
    void add(const std::string& where, const abi::CounterValues<Enum>& counters) {
        abi::for_each(counters, [&](const abi::CounterInfo& info, std::uint64_t value) {
            if (!is_reason(info) || (value == 0 && !all)) {
                return;
            }
            table.rows.push_back(
                {std::to_string(value), where, std::string(info.name), std::string(info.help)});
            json::object object;
            object["where"] = where;
            object["reason"] = text(info.name);
            object["meaning"] = text(info.help);
            object["count"] = value;
            objects.emplace_back(std::move(object));
        });
    }
};

std::string value_text(abi::HistogramUnit unit, std::uint64_t value) {
    return unit == abi::HistogramUnit::nanoseconds ? duration_text(value) : std::to_string(value);
}

// The bound of the bucket in which the share of all values lies.
std::string quantile_text(const abi::HistogramInfo& info, const abi::HistogramValues& values,
                          double share) {
    const double wanted = share * static_cast<double>(values.count());
    std::uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < abi::bucket_count; ++bucket) {
        seen += values.counts[bucket];
        if (seen > 0 && static_cast<double>(seen) >= wanted) {
            return bucket + 1 < abi::bucket_count
                       ? "<= " + value_text(info.unit, abi::bucket_bound(info, bucket))
                       : "> " + value_text(info.unit, abi::bucket_bound(info, bucket - 1));
        }
    }
    return "-";
}

struct Histograms {
    Table table{.columns = {{"HISTOGRAM"},
                            {"COUNT", Align::right},
                            {"MEAN", Align::right},
                            {"P50", Align::right},
                            {"P90", Align::right},
                            {"P99", Align::right},
                            {"MEANING"}},
                .rows = {}};
    json::array objects;

    template <typename Enum>
    void add(const abi::HistogramSet<Enum>& set) {
        abi::for_each(set, [&](const abi::HistogramInfo& info, const abi::HistogramValues& values) {
            const std::uint64_t count = values.count();
            table.rows.push_back({std::string(info.name), std::to_string(count),
                                  count == 0 ? "-" : value_text(info.unit, values.sum / count),
                                  quantile_text(info, values, 0.5),
                                  quantile_text(info, values, 0.9),
                                  quantile_text(info, values, 0.99), std::string(info.help)});
            json::object object;
            object["histogram"] = text(info.name);
            object["meaning"] = text(info.help);
            object["count"] = count;
            object["sum"] = values.sum;
            json::array buckets;
            for (std::size_t bucket = 0; bucket < abi::bucket_count; ++bucket) {
                json::object one;
                one["le"] = bucket + 1 < abi::bucket_count
                                ? json::value(abi::bucket_bound(info, bucket))
                                : json::value(nullptr);
                one["count"] = values.counts[bucket];
                buckets.emplace_back(std::move(one));
            }
            object["buckets"] = std::move(buckets);
            objects.emplace_back(std::move(object));
        });
    }
};

std::string member(const json::object& object, std::string_view name) {
    const json::value* const value =
        object.if_contains(json::string_view(name.data(), name.size()));
    return value != nullptr && value->is_string() ? value->as_string().c_str() : "?";
}

std::string number(const json::object& object, std::string_view name,
                   std::string (*show)(std::uint64_t)) {
    const json::value* const value =
        object.if_contains(json::string_view(name.data(), name.size()));
    json::error_code error;
    const double found = value == nullptr ? 0 : value->to_number<double>(error);
    return error || found < 0 ? "?" : show(static_cast<std::uint64_t>(found));
}

}  // namespace

View drops_view(const Snapshot& snapshot, bool all) {
    Reasons reasons{.all = all};
    reasons.add("control", snapshot.control);
    reasons.add("workers", abi::sum_of_counters(snapshot.workers));
    if (snapshot.slow_path) {
        reasons.add("packets", abi::sum_of_counters(snapshot.packet_workers));
        reasons.add("slow path", snapshot.slow_path->counters);
    }
    for (const abi::PortSnapshot& port : snapshot.ports) {
        reasons.add(port.name, port.counters);
    }
    View view;
    view.note = stale_text(snapshot);
    if (reasons.table.rows.empty()) {
        view.note = "nothing was refused, dropped or cut since the start" +
                    (view.note.empty() ? std::string() : "; " + view.note);
    } else {
        view.table = std::move(reasons.table);
    }
    view.json = head_of(snapshot);
    view.json["drops"] = std::move(reasons.objects);
    return view;
}

View histograms_view(const Snapshot& snapshot) {
    Histograms histograms;
    histograms.add(snapshot.control_histograms);
    histograms.add(abi::sum_of_histograms(snapshot.workers));
    if (snapshot.slow_path) {
        histograms.add(abi::sum_of_histograms(snapshot.packet_workers));
        histograms.add(snapshot.slow_path->histograms);
    }
    View view;
    view.table = std::move(histograms.table);
    view.note = stale_text(snapshot);
    view.json = head_of(snapshot);
    view.json["histograms"] = std::move(histograms.objects);
    return view;
}

View flows_view(const std::vector<json::object>& answers) {
    const auto in_seconds = [](std::uint64_t value) {
        return duration_text(value * 1'000'000'000);
    };
    View view;
    Table table{.columns = {{"TUNNEL", Align::right},
                            {"VISITOR"},
                            {"CLIENT"},
                            {"TO CLIENT", Align::right},
                            {"TO VISITOR", Align::right},
                            {"AGE", Align::right},
                            {"IDLE", Align::right}},
                .rows = {}};
    json::array flows;
    for (const json::object& answer : answers) {
        if (const json::value* const note = answer.if_contains("note")) {
            view.note = note->is_string() ? note->as_string().c_str() : "";
        }
        const json::value* const page = answer.if_contains("flows");
        if (page == nullptr || !page->is_array()) {
            continue;
        }
        for (const json::value& flow : page->get_array()) {
            if (!flow.is_object()) {
                continue;
            }
            const json::object& known = flow.get_object();
            table.rows.push_back({number(known, "tunnel_port",
                                         [](std::uint64_t port) { return std::to_string(port); }),
                                  member(known, "visitor"), member(known, "client"),
                                  number(known, "to_client_bytes", &bytes_text),
                                  number(known, "to_visitor_bytes", &bytes_text),
                                  number(known, "age_s", in_seconds),
                                  number(known, "idle_s", in_seconds)});
            flows.emplace_back(flow);
        }
    }
    if (view.note.empty()) {
        view.table = std::move(table);
    }
    view.json["flows"] = std::move(flows);
    if (!view.note.empty()) {
        view.json["note"] = view.note;
    }
    return view;
}

}  // namespace bore::ctl
