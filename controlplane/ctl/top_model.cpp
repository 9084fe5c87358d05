// Rates, histories, order.
#include "controlplane/ctl/top_model.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "controlplane/ctl/views.hpp"

namespace bore::ctl {

namespace {

using abi::ControlCounter;
using abi::TunnelCounter;
using abi::TunnelState;

constexpr std::array<std::pair<TopSort, std::string_view>, top_sorts.size()> sort_names{{
    {TopSort::rate, "rate"},
    {TopSort::total, "total"},
    {TopSort::pairs, "pairs"},
    {TopSort::visits, "visits"},
    {TopSort::port, "port"},
    {TopSort::client, "client"},
}};

// Counters only grow; where one did not, the row is another's and the rate unknown.
double rate_of(std::uint64_t now, std::uint64_t before, double seconds) {
    return seconds > 0 && now > before ? static_cast<double>(now - before) / seconds : 0;
}

void remember(std::deque<double>& history, double value) {
    history.push_back(value);
    if (history.size() > TopModel::max_history) {
        history.pop_front();
    }
}

bool is_shown(TunnelState state) {
    return state == TunnelState::live || state == TunnelState::finishing;
}

}  // namespace

std::string_view name_of(TopSort sort) {
    for (const auto& [known, name] : sort_names) {
        if (known == sort) {
            return name;
        }
    }
    return "";
}

std::optional<TopSort> top_sort_of(std::string_view name) {
    for (const auto& [sort, known] : sort_names) {
        if (known == name) {
            return sort;
        }
    }
    return std::nullopt;
}

void TopModel::next_sort() {
    const auto* const found = std::find(top_sorts.begin(), top_sorts.end(), sort_);
    sort_ = found + 1 == top_sorts.end() ? top_sorts.front() : *(found + 1);
}

void TopModel::begin_anew() {
    rows_.clear();
    taken_at_.reset();
    work_times_.clear();
    summary_ = {};
}

void TopModel::add(const abi::Snapshot& snapshot) {
    if (paused_) {
        return;
    }
    if (snapshot.instance_id != instance_id_) {
        begin_anew();
        instance_id_ = snapshot.instance_id;
    }
    const double seconds =
        taken_at_ && snapshot.taken_at > *taken_at_
            ? static_cast<double>(snapshot.taken_at - *taken_at_) / double{base::second_ns}
            : 0;
    std::map<std::string, TopRow> before;
    before.swap(rows_);
    for (const abi::TunnelSnapshot& tunnel : snapshot.tunnels) {
        if (!is_shown(tunnel.description.state)) {
            continue;
        }
        const std::string id = id_of(tunnel);
        if (auto known = before.extract(id)) {
            rows_.insert(std::move(known));
            update_row(tunnel, seconds);
        } else {
            rows_[id].id = id;
            update_row(tunnel, 0);  // its rate is known from the second time on
        }
    }
    summarize(snapshot, seconds);
    measure_work(snapshot);
    taken_at_ = snapshot.taken_at;
}

void TopModel::update_row(const abi::TunnelSnapshot& tunnel, double seconds) {
    TopRow& row = rows_[id_of(tunnel)];
    const auto total = tunnel.total();
    const std::uint64_t to_client = total.get(TunnelCounter::to_client_bytes_total);
    const std::uint64_t to_visitor = total.get(TunnelCounter::to_visitor_bytes_total);
    const std::uint64_t visits = total.get(TunnelCounter::tunnel_pairs_opened_total);
    row.to_client_rate = rate_of(to_client, row.to_client_bytes, seconds);
    row.to_visitor_rate = rate_of(to_visitor, row.to_visitor_bytes, seconds);
    row.visit_rate = rate_of(visits, row.visits, seconds);
    row.to_client_bytes = to_client;
    row.to_visitor_bytes = to_visitor;
    row.visits = visits;
    row.port = tunnel.description.port;
    row.client = abi::text_of(tunnel.description.client_address);
    row.state = name_of(tunnel.description.state);
    row.path = path_of(tunnel);
    row.pairs_live = tunnel.visitors_live;
    row.visitors_pending = tunnel.visitors_pending;
    if (seconds > 0) {
        remember(row.history, row.rate());
    }
}

void TopModel::summarize(const abi::Snapshot& snapshot, double seconds) {
    summary_.relay = abi::text_of(snapshot.identity.server_id);
    summary_.version = abi::text_of(snapshot.identity.version);
    summary_.stale = stale_text(snapshot);
    summary_.uptime_ns = snapshot.taken_at > snapshot.identity.started_monotonic_ns
                             ? snapshot.taken_at - snapshot.identity.started_monotonic_ns
                             : 0;
    summary_.tunnels_live = snapshot.control.get(ControlCounter::tunnels_live);
    summary_.visitors_pending = snapshot.control.get(ControlCounter::visitors_pending);
    summary_.refused = 0;
    abi::for_each(snapshot.control, [this](const abi::CounterInfo& info, std::uint64_t value) {
        if (info.name.find("_refused_") != std::string_view::npos) {
            summary_.refused += value;
        }
    });
    summary_.pairs_live = 0;
    summary_.to_client_rate = summary_.to_visitor_rate = summary_.visit_rate = 0;
    for (const auto& [id, row] : rows_) {
        summary_.pairs_live += row.pairs_live;
        summary_.to_client_rate += row.to_client_rate;
        summary_.to_visitor_rate += row.to_visitor_rate;
        summary_.visit_rate += row.visit_rate;
    }
    summary_.slowest_beat_ns = 0;
    const auto look = [this](const auto& loop) {
        summary_.slowest_beat_ns = std::max(summary_.slowest_beat_ns, loop.heartbeat_age_ns);
    };
    std::ranges::for_each(snapshot.workers, look);
    std::ranges::for_each(snapshot.packet_workers, look);
    if (snapshot.slow_path) {
        look(*snapshot.slow_path);
    }
    if (seconds > 0) {
        remember(summary_.history, summary_.to_client_rate + summary_.to_visitor_rate);
    }
}

void TopModel::measure_work(const abi::Snapshot& snapshot) {
    std::vector<abi::WorkTime> times;
    const auto note = [&](const auto& worker) {
        times.push_back(abi::work_time(worker, snapshot.identity.started_monotonic_ns));
    };
    std::ranges::for_each(snapshot.workers, note);
    std::ranges::for_each(snapshot.packet_workers, note);
    work_times_.resize(times.size());
    summary_.busy_share = 0;
    for (std::size_t index = 0; index < times.size(); ++index) {
        summary_.busy_share =
            std::max(summary_.busy_share, times[index].since(work_times_[index]).share());
    }
    work_times_ = std::move(times);
}

bool TopModel::before(const TopRow& left, const TopRow& right) const {
    // Most first for what is measured, by the alphabet for names; the port decides between equals,
    // so that idle tunnels do not dance.
    const auto most = [&](auto left_value, auto right_value) {
        return std::tuple(right_value, left.port) < std::tuple(left_value, right.port);
    };
    switch (sort_) {
        case TopSort::rate:
            return most(left.rate(), right.rate());
        case TopSort::total:
            return most(left.to_client_bytes + left.to_visitor_bytes,
                        right.to_client_bytes + right.to_visitor_bytes);
        case TopSort::pairs:
            return most(left.pairs_live, right.pairs_live);
        case TopSort::visits:
            return most(left.visits, right.visits);
        case TopSort::client:
            return std::tie(left.client, left.port) < std::tie(right.client, right.port);
        case TopSort::port:
            break;
    }
    return left.port < right.port;
}

bool TopModel::passes(const TopRow& row) const {
    return filter_.empty() || std::to_string(row.port).find(filter_) != std::string::npos ||
           row.client.find(filter_) != std::string::npos ||
           row.state.find(filter_) != std::string::npos ||
           row.path.find(filter_) != std::string::npos;
}

std::vector<const TopRow*> TopModel::rows() const {
    std::vector<const TopRow*> shown;
    for (const auto& [id, row] : rows_) {
        if (passes(row)) {
            shown.push_back(&row);
        }
    }
    std::stable_sort(shown.begin(), shown.end(), [this](const TopRow* left, const TopRow* right) {
        return reversed_ ? before(*right, *left) : before(*left, *right);
    });
    return shown;
}

std::string sparkline(const std::deque<double>& history, std::size_t width, bool ascii) {
    static constexpr std::array<std::string_view, 9> blocks{" ", "▁", "▂", "▃", "▄",
                                                            "▅", "▆", "▇", "█"};
    static constexpr std::array<std::string_view, 9> plain{" ", ".", ":", "-", "=",
                                                           "+", "*", "#", "@"};
    const auto& steps = ascii ? plain : blocks;
    const std::size_t count = std::min(width, history.size());
    const auto first = history.end() - static_cast<std::ptrdiff_t>(count);
    const double most = count == 0 ? 0 : *std::max_element(first, history.end());
    std::string text(width - count, ' ');
    for (auto value = first; value != history.end(); ++value) {
        // Anything that moved shows.
        constexpr double highest = plain.size() - 2;
        const std::size_t step =
            *value <= 0 ? 0 : 1 + static_cast<std::size_t>(*value / most * highest);
        text += steps[std::min(step, steps.size() - 1)];
    }
    return text;
}

}  // namespace bore::ctl
