// Timers by the hundred thousand: a hierarchical wheel of intrusive nodes (Varghese and Lauck,
// 1987). Arming and cancelling are O(1) and allocate nothing; the owner of a node embeds it.
// Single-threaded; the loop that owns the wheel passes the time in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "dataplane/base/clock.hpp"

namespace bore::base {

// Embedded in its owner, which must outlive it or cancel it (the destructor unlinks).
class TimerNode {
  public:
    TimerNode() = default;
    ~TimerNode() { unlink(); }
    TimerNode(const TimerNode&) = delete;
    TimerNode& operator=(const TimerNode&) = delete;

    [[nodiscard]] bool armed() const { return next_ != nullptr; }

  private:
    friend class TimerWheel;

    void unlink() {
        if (next_ != nullptr) {
            next_->previous_ = previous_;
            previous_->next_ = next_;
            next_ = previous_ = nullptr;
        }
    }

    TimerNode* next_{nullptr};
    TimerNode* previous_{nullptr};
    std::uint64_t due_tick_{0};
};

class TimerWheel {
  public:
    // Resolution: advance() at `due + tick_ns` or later has fired a timer, one before `due` has
    // not.
    TimerWheel(Nanoseconds now, Nanoseconds tick_ns);
    TimerWheel(const TimerWheel&) = delete;
    TimerWheel& operator=(const TimerWheel&) = delete;
    ~TimerWheel();

    // Arms or re-arms. A time in the past fires at the next tick.
    void arm(TimerNode& node, Nanoseconds due);
    void cancel(TimerNode& node) { node.unlink(); }

    // Calls `fire(TimerNode&)` once for every node that is due. `fire` may arm and cancel any
    // node, the fired one included. Returns the count of nodes fired.
    template <typename Fire>
    std::size_t advance(Nanoseconds now, Fire&& fire);

    // When advance() should be called next at the latest; nothing when no timer is armed. May be
    // earlier than the first timer (at the border where a coarse slot is spread out).
    [[nodiscard]] std::optional<Nanoseconds> next_deadline() const;

  private:
    static constexpr unsigned slot_bits = 6;
    static constexpr std::size_t slots_per_level = std::size_t{1} << slot_bits;
    static constexpr std::size_t level_count = 5;  // 64^5 ticks: 12 days at 1 ms

    void place(TimerNode& node);
    void spread(TimerNode& slot);
    // The next tick at which a slot fires or is spread.
    [[nodiscard]] std::optional<std::uint64_t> next_tick() const;
    void collect(std::uint64_t target_tick, TimerNode& due);
    static bool list_empty(const TimerNode& list) { return list.next_ == &list; }
    static void append(TimerNode& list, TimerNode& node);
    static void make_list(TimerNode& list) { list.next_ = list.previous_ = &list; }
    static void splice_all(TimerNode& from, TimerNode& to);

    Nanoseconds start_;
    Nanoseconds tick_ns_;
    std::uint64_t current_tick_{0};
    std::array<std::array<TimerNode, slots_per_level>, level_count> slots_;
};

template <typename Fire>
std::size_t TimerWheel::advance(Nanoseconds now, Fire&& fire) {
    const std::uint64_t target = now <= start_ ? 0 : (now - start_) / tick_ns_;
    if (target <= current_tick_) {
        return 0;
    }
    TimerNode due;
    make_list(due);
    collect(target, due);
    std::size_t count = 0;
    while (!list_empty(due)) {
        TimerNode& node = *due.next_;
        node.unlink();
        fire(node);
        ++count;
    }
    due.next_ = due.previous_ = nullptr;
    return count;
}

}  // namespace bore::base
