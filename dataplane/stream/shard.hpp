// One worker's share of the pairs, without a system call: commands in, events out, timers,
// counters, the turn of the poll loop. A driver owns a Shard, calls it from its one thread and
// implements Io.
//
// A turn: begin_turn(now) → the driver hands the events of its sockets to the pairs → end_turn()
// runs the commands, then the timers, then flushes events. (Poll, then commands, then tick.)
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/abi/tunnel_limits.hpp"
#include "dataplane/base/spsc_ring.hpp"
#include "dataplane/base/timer_wheel.hpp"
#include "dataplane/stream/io.hpp"
#include "dataplane/stream/pair.hpp"

namespace bore::stream {

struct Command {
    enum class Kind : std::uint8_t { open, close, drain };
    Kind kind{Kind::close};
    std::uint32_t slot_index{0};
    std::uint32_t generation{0};
    abi::PairRequest request;       // open
    base::Nanoseconds deadline{0};  // drain
};

// The two rings between the control thread and one worker.
struct WorkerQueues {
    base::SpscRing<Command> commands{abi::command_ring_capacity};
    base::SpscRing<abi::PairEnded> events{abi::event_ring_capacity};
};

class Shard {
  public:
    // Timers of pairs: gathering wants 1 ms.
    static constexpr base::Nanoseconds tick_ns = base::millisecond_ns;

    // All references outlive the shard. `worker_index` names its counters.
    Shard(std::uint32_t worker_index, abi::Statistics& statistics, abi::TunnelTable& tunnels,
          WorkerQueues& queues, Io& io, base::Nanoseconds now);
    Shard(const Shard&) = delete;
    Shard& operator=(const Shard&) = delete;

    // `event_count`: events that the driver found since the turn before.
    void begin_turn(base::Nanoseconds now, std::size_t event_count);
    void end_turn();
    // The driver is about to sleep; begin_turn() ends that.
    void will_sleep(base::Nanoseconds now);

    // When the next turn must happen at the latest; nothing = when an event comes.
    [[nodiscard]] std::optional<base::Nanoseconds> next_deadline() const;
    // True once when the control thread should be told that events wait.
    [[nodiscard]] bool take_announcement();
    // A drain was commanded, no pair is left, every event is in the ring.
    [[nodiscard]] bool finished() const;
    [[nodiscard]] bool commands_wait() const {
        return !queues_.commands.empty() || tunnels_.change_count() != seen_change_count_;
    }

    // For pairs and drivers.
    [[nodiscard]] base::Nanoseconds now() const { return now_; }
    [[nodiscard]] std::uint32_t worker_index() const { return worker_index_; }
    [[nodiscard]] base::TimerWheel& timers() { return timers_; }
    [[nodiscard]] Io& io() { return io_; }
    [[nodiscard]] abi::WorkerCounters& counters() { return counters_; }
    [[nodiscard]] abi::WorkerHistograms& histograms() { return histograms_; }
    [[nodiscard]] abi::TunnelCounters& tunnel_row(std::uint32_t tunnel_index) {
        return statistics_.tunnel(worker_index_, tunnel_index);
    }
    [[nodiscard]] abi::TunnelEntry& tunnel(std::uint32_t tunnel_index) {
        return tunnels_.entry(tunnel_index);
    }
    void count(abi::WorkerCounter counter, std::uint64_t amount = 1) {
        counters_.add(counter, amount);
    }
    void on_pair_closed(Pair& pair);

  private:
    // Announcing each end at once would wake the control thread once per short connection.
    static constexpr base::Nanoseconds announce_after_ns = 2 * base::millisecond_ns;
    static constexpr std::uint32_t announce_count = 64;
    static constexpr std::size_t commands_per_turn = 256;

    void run(Command&& command);
    void follow_limits();
    template <typename Visit>
    void for_each_live_pair(Visit&& visit);
    void close_all(abi::EndReason reason);
    void fire(base::TimerNode& node);
    void flush_events();

    std::uint32_t worker_index_;
    abi::Statistics& statistics_;
    abi::TunnelTable& tunnels_;
    WorkerQueues& queues_;
    Io& io_;
    abi::WorkerCounters& counters_;
    abi::WorkerHistograms& histograms_;
    base::TimerWheel timers_;
    base::Nanoseconds now_;
    base::Nanoseconds asleep_at_{0};               // 0 = awake
    std::vector<abi::PairEnded> deferred_events_;  // the ring was full; bounded by the slots
    PairTimer announce_timer_;
    PairTimer drain_timer_;
    std::uint32_t seen_change_count_;
    std::uint32_t highest_slot_{0};
    std::uint32_t live_pairs_{0};
    std::uint32_t unannounced_events_{0};
    bool announce_{false};
    bool draining_{false};
};

}  // namespace bore::stream
