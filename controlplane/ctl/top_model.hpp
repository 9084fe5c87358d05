// What `borectl top` shows, without a screen: rates from snapshots, their history, order, filter,
// selection of a page. Pure; the clock is in the snapshots.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/snapshot.hpp"

namespace bore::ctl {

enum class TopSort : std::uint8_t { rate, total, pairs, visits, port, client };
inline constexpr std::array top_sorts{TopSort::rate,   TopSort::total, TopSort::pairs,
                                      TopSort::visits, TopSort::port,  TopSort::client};
[[nodiscard]] std::string_view name_of(TopSort sort);
[[nodiscard]] std::optional<TopSort> top_sort_of(std::string_view name);

struct TopRow {
    std::string id;
    std::uint16_t port{0};
    std::string client;
    std::string state;  // as views name it
    std::string path;
    std::uint64_t pairs_live{0};
    std::uint64_t visitors_pending{0};
    std::uint64_t visits{0};
    std::uint64_t to_client_bytes{0};
    std::uint64_t to_visitor_bytes{0};
    double to_client_rate{0};  // bytes per second since the snapshot before
    double to_visitor_rate{0};
    double visit_rate{0};        // pairs opened per second
    std::deque<double> history;  // bytes per second both ways, latest last

    [[nodiscard]] double rate() const { return to_client_rate + to_visitor_rate; }
};

// The relay as a whole.
struct TopSummary {
    std::string relay;
    std::string version;
    std::string stale;  // as stale_text(); empty while the relay lives
    base::Nanoseconds uptime_ns{0};
    std::uint64_t tunnels_live{0};
    std::uint64_t pairs_live{0};
    std::uint64_t visitors_pending{0};
    std::uint64_t refused{0};
    double to_client_rate{0};
    double to_visitor_rate{0};
    double visit_rate{0};
    std::deque<double> history;
    base::Nanoseconds slowest_beat_ns{0};  // age of the oldest heartbeat of a loop
    // Of the busiest worker, 0 to 1, since the snapshot before; at first since the relay's start.
    double busy_share{0};
};

class TopModel {
  public:
    static constexpr std::size_t max_history = 120;

    // A relay that was started again begins anew. Does nothing while paused.
    void add(const abi::Snapshot& snapshot);

    void set_sort(TopSort sort) { sort_ = sort; }
    void next_sort();
    void reverse() { reversed_ = !reversed_; }
    // Rows whose port, client, state or path contains it; empty: all.
    void set_filter(std::string filter) { filter_ = std::move(filter); }
    void set_paused(bool paused) { paused_ = paused; }

    [[nodiscard]] TopSort sort() const { return sort_; }
    [[nodiscard]] bool reversed() const { return reversed_; }
    [[nodiscard]] const std::string& filter() const { return filter_; }
    [[nodiscard]] bool paused() const { return paused_; }
    [[nodiscard]] const TopSummary& summary() const { return summary_; }
    // In order, filtered.
    [[nodiscard]] std::vector<const TopRow*> rows() const;

  private:
    void begin_anew();
    void update_row(const abi::TunnelSnapshot& tunnel, double seconds);
    void measure_work(const abi::Snapshot& snapshot);
    void summarize(const abi::Snapshot& snapshot, double seconds);
    [[nodiscard]] bool before(const TopRow& left, const TopRow& right) const;
    [[nodiscard]] bool passes(const TopRow& row) const;

    TopSort sort_{TopSort::rate};
    bool reversed_{false};
    bool paused_{false};
    std::string filter_;
    std::uint64_t instance_id_{0};
    std::optional<base::Nanoseconds> taken_at_;  // the snapshot before
    std::map<std::string, TopRow> rows_;         // by id
    std::vector<abi::WorkTime> work_times_;      // of the snapshot before, by loop
    TopSummary summary_;
};

// The latest `width` values of a history as block characters (UTF-8), scaled to the largest of
// them; spaces in front where there are fewer. `ascii`: by " .:-=+*#" instead.
[[nodiscard]] std::string sparkline(const std::deque<double>& history, std::size_t width,
                                    bool ascii);

}  // namespace bore::ctl
