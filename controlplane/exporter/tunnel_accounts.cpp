// A snapshot: 1. what every row counted since the one before, 2. who is shown now, 3. what the rest
// counted goes to `other`.
#include "controlplane/exporter/tunnel_accounts.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace bore::exporter {
namespace {

using abi::TunnelCounter;
using abi::TunnelSnapshot;

// A byte counts half as much after ten minutes: long enough that the choice is calm, short enough
// that yesterday's giant makes room.
constexpr double half_life_s = 600;
// Who is shown stays until another is busier by this factor: a series that comes and goes is worth
// less than one that stays.
constexpr double stays = 1.25;
// The shortest time over which bytes per second are taken, however often somebody scrapes.
constexpr base::Nanoseconds measured_at_least_ns = 10 * base::second_ns;

std::uint64_t bytes_of(const TunnelValues& values) {
    return values.get(TunnelCounter::to_client_bytes_total) +
           values.get(TunnelCounter::to_visitor_bytes_total);
}

bool is_counter(std::size_t index) {
    return abi::tunnel_counter_infos[index].kind == abi::CounterKind::counter;
}

// Rows only grow while their tunnel lives; a damaged segment may do anything.
TunnelValues increase(const TunnelValues& now, const TunnelValues& before) {
    TunnelValues result;
    for (std::size_t index = 0; index < result.values.size(); ++index) {
        const bool grew = is_counter(index) && now.values[index] > before.values[index];
        result.values[index] = grew ? now.values[index] - before.values[index] : 0;
    }
    return result;
}

void add_counters(TunnelValues& sum, const TunnelValues& change) {
    sum += change;  // gauges of a change are 0
}

void add_gauges(TunnelValues& sum, const TunnelValues& now) {
    for (std::size_t index = 0; index < sum.values.size(); ++index) {
        sum.values[index] += is_counter(index) ? 0 : now.values[index];
    }
}

void clear_gauges(TunnelValues& sum) {
    for (std::size_t index = 0; index < sum.values.size(); ++index) {
        sum.values[index] = is_counter(index) ? sum.values[index] : 0;
    }
}

bool has_ended(const TunnelSnapshot& tunnel) {
    return tunnel.description.state != abi::TunnelState::live &&
           tunnel.description.state != abi::TunnelState::finishing;
}

// A port's tunnel of now: its predecessor may still be finishing.
std::vector<std::uint32_t> newest_of_each_port(const std::vector<TunnelSnapshot>& tunnels) {
    std::unordered_map<std::uint16_t, std::uint32_t> newest;
    newest.reserve(tunnels.size());
    for (std::uint32_t index = 0; index < tunnels.size(); ++index) {
        if (has_ended(tunnels[index])) {
            continue;
        }
        const auto [place, fresh] = newest.emplace(tunnels[index].description.port, index);
        if (!fresh && tunnels[place->second].description.since_monotonic_ns <
                          tunnels[index].description.since_monotonic_ns) {
            place->second = index;
        }
    }
    std::vector<std::uint32_t> result;
    result.reserve(newest.size());
    for (const auto& [port, index] : newest) {
        result.push_back(index);
    }
    return result;
}

}  // namespace

void TunnelAccounts::update(const abi::Snapshot& snapshot) {
    if (instance_id_ != snapshot.instance_id) {
        begin(snapshot);
    }
    const double passed_s =
        static_cast<double>(snapshot.taken_at - updated_at_) / static_cast<double>(base::second_ns);
    const double decay = updated_at_ == 0 ? 1 : std::exp2(-passed_s / half_life_s);
    const bool first_snapshot = updated_at_ == 0;
    updated_at_ = snapshot.taken_at;

    std::vector<Change> changes;
    std::vector<bool> was_shown;
    changes.reserve(snapshot.tunnels.size());
    was_shown.reserve(snapshot.tunnels.size());
    std::uint64_t moved_bytes = 0;
    for (const TunnelSnapshot& tunnel : snapshot.tunnels) {
        if (tunnel.row_index >= rows_.size()) {
            rows_.resize(tunnel.row_index + std::size_t{1});
        }
        changes.push_back(change_of(tunnel));
        was_shown.push_back(!changes.back().first && rows_[tunnel.row_index].shown);
        take(tunnel, changes.back(), decay);
        moved_bytes += bytes_of(changes.back().stream) + bytes_of(changes.back().packet);
    }

    choose(snapshot.tunnels);

    other_.count = 0;
    other_.visitors_pending = 0;
    other_.visitors_live = 0;
    clear_gauges(other_.stream);
    clear_gauges(other_.packet);
    for (std::size_t index = 0; index < snapshot.tunnels.size(); ++index) {
        const TunnelSnapshot& tunnel = snapshot.tunnels[index];
        const bool is_shown = rows_[tunnel.row_index].shown;
        // Increases between two samples of its own series belong to the series; so does what a
        // tunnel had counted when it is first seen. A series that begins in between cannot carry
        // the increase before its first sample.
        const bool own = is_shown && (was_shown[index] || changes[index].first);
        const bool before_us = first_snapshot && !counts_from_start_;
        if (!own && !before_us) {
            add_counters(other_.stream, changes[index].stream);
            add_counters(other_.packet, changes[index].packet);
        }
        if (!is_shown) {
            other_.count += has_ended(tunnel) ? 0U : 1U;
            other_.visitors_pending += tunnel.visitors_pending;
            other_.visitors_live += tunnel.visitors_live;
            add_gauges(other_.stream, tunnel.stream);
            add_gauges(other_.packet, tunnel.packet);
        }
    }
    measure(snapshot.taken_at, moved_bytes);
}

void TunnelAccounts::begin(const abi::Snapshot& snapshot) {
    instance_id_ = snapshot.instance_id;
    counts_from_start_ = snapshot.identity.started_monotonic_ns >= watching_since_;
    updated_at_ = 0;
    rows_.clear();
    other_ = {};
    measured_from_ = snapshot.identity.started_monotonic_ns;
    measured_bytes_ = 0;
    bytes_per_second_ = 0;
}

TunnelAccounts::Change TunnelAccounts::change_of(const TunnelSnapshot& tunnel) const {
    const Row& row = rows_[tunnel.row_index];
    const bool first = row.generation != tunnel.description.generation;
    const TunnelValues nothing;
    return {.stream = increase(tunnel.stream, first ? nothing : row.stream),
            .packet = increase(tunnel.packet, first ? nothing : row.packet),
            .first = first};
}

void TunnelAccounts::take(const TunnelSnapshot& tunnel, const Change& change, double decay) {
    Row& row = rows_[tunnel.row_index];
    if (change.first) {
        row = {.generation = tunnel.description.generation};
    }
    row.stream = tunnel.stream;
    row.packet = tunnel.packet;
    row.busy =
        row.busy * decay + static_cast<double>(bytes_of(change.stream) + bytes_of(change.packet));
}

void TunnelAccounts::choose(const std::vector<TunnelSnapshot>& tunnels) {
    std::vector<std::uint32_t> chosen = newest_of_each_port(tunnels);
    const auto port_of = [&](std::uint32_t index) { return tunnels[index].description.port; };
    if (most_ && chosen.size() > *most_) {
        const auto weight = [&](std::uint32_t index) {
            const Row& row = rows_[tunnels[index].row_index];
            return row.busy * (row.shown ? stays : 1);
        };
        std::ranges::nth_element(
            chosen, chosen.begin() + *most_, [&](std::uint32_t left, std::uint32_t right) {
                return weight(left) != weight(right) ? weight(left) > weight(right)
                                                     : port_of(left) < port_of(right);
            });
        chosen.resize(*most_);
    }
    std::ranges::sort(chosen, {}, port_of);
    for (const TunnelSnapshot& tunnel : tunnels) {
        rows_[tunnel.row_index].shown = false;
    }
    for (const std::uint32_t index : chosen) {
        rows_[tunnels[index].row_index].shown = true;
    }
    shown_ = std::move(chosen);
}

void TunnelAccounts::measure(base::Nanoseconds now, std::uint64_t bytes) {
    measured_bytes_ += bytes;
    const base::Nanoseconds passed = now > measured_from_ ? now - measured_from_ : 0;
    if (passed >= measured_at_least_ns) {
        bytes_per_second_ = static_cast<double>(measured_bytes_) *
                            static_cast<double>(base::second_ns) / static_cast<double>(passed);
        measured_from_ = now;
        measured_bytes_ = 0;
    }
}

}  // namespace bore::exporter
