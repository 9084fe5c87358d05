// The turn of a worker: commands, timers, events.
#include "dataplane/stream/shard.hpp"

#include <algorithm>
#include <utility>

namespace bore::stream {

using abi::EndReason;
using abi::WorkerCounter;

namespace {

WorkerCounter counter_of(EndReason reason) {
    switch (reason) {
        case EndReason::fin:
            return WorkerCounter::pairs_ended_fin_total;
        case EndReason::reset:
            return WorkerCounter::pairs_ended_reset_total;
        case EndReason::idle:
            return WorkerCounter::pairs_ended_idle_total;
        case EndReason::half_closed:
            return WorkerCounter::pairs_ended_half_closed_total;
        case EndReason::closed:
            return WorkerCounter::pairs_ended_closed_total;
        case EndReason::drained:
            return WorkerCounter::pairs_ended_drained_total;
        case EndReason::error:
        case EndReason::count:
            break;
    }
    return WorkerCounter::pairs_ended_error_total;
}

}  // namespace

Shard::Shard(std::uint32_t worker_index, abi::Statistics& statistics, abi::TunnelTable& tunnels,
             WorkerQueues& queues, Io& io, base::Nanoseconds now)
    : worker_index_(worker_index),
      statistics_(statistics),
      tunnels_(tunnels),
      queues_(queues),
      io_(io),
      counters_(statistics.worker(worker_index)),
      histograms_(statistics.worker_histograms(worker_index)),
      timers_(now, tick_ns),
      now_(now),
      seen_change_count_(tunnels.change_count()) {
    announce_timer_.kind = PairTimer::Kind::shard;
    drain_timer_.kind = PairTimer::Kind::shard;
}

void Shard::begin_turn(base::Nanoseconds now, std::size_t event_count) {
    now_ = now;
    counters_.add(WorkerCounter::loops_total);
    counters_.set(WorkerCounter::heartbeat_ns, now);
    if (asleep_at_ != 0) {
        counters_.add(WorkerCounter::asleep_ns_total, now - asleep_at_);
        asleep_at_ = 0;
    } else if (event_count == 0) {
        counters_.add(WorkerCounter::spins_total);
    }
    if (event_count > 0) {
        histograms_.record(abi::WorkerHistogram::loop_events, event_count);
    }
}

void Shard::will_sleep(base::Nanoseconds now) {
    counters_.add(WorkerCounter::waits_total);
    asleep_at_ = now;
}

void Shard::end_turn() {
    for (std::size_t done = 0; done < commands_per_turn; ++done) {
        auto command = queues_.commands.pop();
        if (!command) {
            break;
        }
        run(std::move(*command));
    }
    if (tunnels_.change_count() != seen_change_count_) {
        follow_limits();
    }
    timers_.advance(now_, [this](base::TimerNode& node) { fire(node); });
    flush_events();
}

std::optional<base::Nanoseconds> Shard::next_deadline() const {
    return timers_.next_deadline();
}

void Shard::run(Command&& command) {
    switch (command.kind) {
        case Command::Kind::open: {
            Pair& pair = io_.attach(command.slot_index, command.request.visitor_socket,
                                    command.request.client_socket);
            ++live_pairs_;
            highest_slot_ = std::max(highest_slot_, command.slot_index);
            counters_.add(WorkerCounter::pairs_opened_total);
            counters_.set(WorkerCounter::pairs_live, live_pairs_);
            auto& row = tunnel_row(command.request.tunnel_index);
            row.add(abi::TunnelCounter::tunnel_pairs_opened_total);
            row.add(abi::TunnelCounter::tunnel_pairs_live);
            pair.open(*this, std::move(command.request), command.slot_index, command.generation);
            break;
        }
        case Command::Kind::close: {
            Pair* pair = io_.find(command.slot_index);
            if (pair != nullptr && pair->live() && pair->generation() == command.generation) {
                pair->close(EndReason::closed);
            }
            break;
        }
        case Command::Kind::drain:
            draining_ = true;
            // The loop may end with this turn, before the timer that would announce them.
            announce_ = announce_ || unannounced_events_ > 0;
            if (command.deadline <= now_) {
                close_all(EndReason::drained);
            } else {
                timers_.arm(drain_timer_, command.deadline);
            }
            break;
    }
}

template <typename Visit>
void Shard::for_each_live_pair(Visit&& visit) {
    for (std::uint32_t slot_index = 0; slot_index <= highest_slot_; ++slot_index) {
        Pair* pair = io_.find(slot_index);
        if (pair != nullptr && pair->live()) {
            visit(*pair);
        }
    }
}

// One walk for all changes since the last turn: a reload may change every tunnel.
void Shard::follow_limits() {
    seen_change_count_ = tunnels_.change_count();
    for_each_live_pair([](Pair& pair) { pair.on_limits_changed(); });
}

void Shard::close_all(EndReason reason) {
    for_each_live_pair([reason](Pair& pair) { pair.close(reason); });
}

void Shard::fire(base::TimerNode& node) {
    auto& timer = static_cast<PairTimer&>(node);
    if (&timer == &announce_timer_) {
        announce_ = unannounced_events_ > 0;
    } else if (&timer == &drain_timer_) {
        close_all(EndReason::drained);
    } else {
        timer.pair->on_timer(timer);
    }
}

void Shard::on_pair_closed(Pair& pair) {
    const abi::PairEnded ended = pair.ended();
    --live_pairs_;
    counters_.set(WorkerCounter::pairs_live, live_pairs_);
    counters_.add(counter_of(ended.reason));
    histograms_.record(abi::WorkerHistogram::pair_lifetime_ns, ended.duration_ns);
    tunnel_row(ended.tunnel_index).subtract(abi::TunnelCounter::tunnel_pairs_live);
    ++unannounced_events_;
    if (!deferred_events_.empty() || !queues_.events.push(abi::PairEnded(ended))) {
        counters_.add(WorkerCounter::events_deferred_total);
        deferred_events_.push_back(ended);
    }
    if (unannounced_events_ >= announce_count || draining_) {
        announce_ = true;
    } else if (!announce_timer_.armed()) {
        timers_.arm(announce_timer_, now_ + announce_after_ns);
    }
}

void Shard::flush_events() {
    std::size_t flushed = 0;
    while (flushed < deferred_events_.size() &&
           queues_.events.push(abi::PairEnded(deferred_events_[flushed]))) {
        ++flushed;
    }
    if (!deferred_events_.empty()) {
        deferred_events_.erase(deferred_events_.begin(),
                               deferred_events_.begin() + static_cast<std::ptrdiff_t>(flushed));
        // The control thread is behind: ask it again, and look again soon.
        announce_ = true;
        timers_.arm(announce_timer_, now_ + announce_after_ns);
    }
}

bool Shard::take_announcement() {
    if (!announce_) {
        return false;
    }
    announce_ = false;
    unannounced_events_ = 0;
    return true;
}

bool Shard::finished() const {
    return draining_ && live_pairs_ == 0 && deferred_events_.empty() && queues_.commands.empty();
}

}  // namespace bore::stream
