// The out-of-line half of the timer wheel: placing nodes and walking ticks.
#include "dataplane/base/timer_wheel.hpp"

#include <algorithm>

#include "dataplane/base/check.hpp"

namespace bore::base {

TimerWheel::TimerWheel(Nanoseconds now, Nanoseconds tick_ns) : start_(now), tick_ns_(tick_ns) {
    BORE_CHECK(tick_ns > 0, "a timer wheel needs a tick");
    for (auto& level : slots_) {
        for (TimerNode& slot : level) {
            make_list(slot);
        }
    }
}

TimerWheel::~TimerWheel() {
    for (auto& level : slots_) {
        for (TimerNode& slot : level) {
            while (!list_empty(slot)) {
                slot.next_->unlink();
            }
            slot.next_ = slot.previous_ = nullptr;
        }
    }
}

void TimerWheel::append(TimerNode& list, TimerNode& node) {
    node.next_ = &list;
    node.previous_ = list.previous_;
    list.previous_->next_ = &node;
    list.previous_ = &node;
}

void TimerWheel::splice_all(TimerNode& from, TimerNode& to) {
    if (list_empty(from)) {
        return;
    }
    from.next_->previous_ = to.previous_;
    to.previous_->next_ = from.next_;
    from.previous_->next_ = &to;
    to.previous_ = from.previous_;
    make_list(from);
}

void TimerWheel::arm(TimerNode& node, Nanoseconds due) {
    node.unlink();
    // Rounded up, so that a timer never fires early; at least one tick ahead.
    const Nanoseconds offset = due <= start_ ? 0 : due - start_;
    const std::uint64_t tick = offset / tick_ns_ + (offset % tick_ns_ != 0 ? 1 : 0);
    node.due_tick_ = std::max(tick, current_tick_ + 1);
    place(node);
}

void TimerWheel::place(TimerNode& node) {
    // What lies beyond the last slot waits there and is placed again when that slot is spread.
    constexpr std::uint64_t horizon =
        (std::uint64_t{1} << (slot_bits * level_count)) - slots_per_level;
    const std::uint64_t distance = std::min(node.due_tick_ - current_tick_, horizon);
    std::size_t level = 0;
    while (level + 1 < level_count && distance >= (std::uint64_t{1} << (slot_bits * (level + 1)))) {
        ++level;
    }
    const std::uint64_t slot =
        ((current_tick_ + distance) >> (slot_bits * level)) % slots_per_level;
    append(slots_[level][slot], node);
}

void TimerWheel::spread(TimerNode& slot) {
    TimerNode moved;
    make_list(moved);
    splice_all(slot, moved);
    while (!list_empty(moved)) {
        TimerNode& node = *moved.next_;
        node.unlink();
        place(node);
    }
    moved.next_ = moved.previous_ = nullptr;
}

void TimerWheel::collect(std::uint64_t target_tick, TimerNode& due) {
    // From one occupied slot to the next: a long sleep must not walk every tick.
    for (auto tick = next_tick(); tick && *tick <= target_tick; tick = next_tick()) {
        current_tick_ = *tick;
        for (std::size_t level = level_count - 1; level > 0; --level) {
            if (current_tick_ % (std::uint64_t{1} << (slot_bits * level)) == 0) {
                spread(slots_[level][(current_tick_ >> (slot_bits * level)) % slots_per_level]);
            }
        }
        splice_all(slots_[0][current_tick_ % slots_per_level], due);
    }
    current_tick_ = target_tick;
}

std::optional<std::uint64_t> TimerWheel::next_tick() const {
    // The least over all levels: a coarse slot may have to be spread before a fine one is due.
    std::optional<std::uint64_t> least_tick;
    for (std::size_t level = 0; level < level_count; ++level) {
        const auto shift = static_cast<unsigned>(slot_bits * level);
        const std::uint64_t base = current_tick_ >> shift;
        for (std::uint64_t ahead = 1; ahead <= slots_per_level; ++ahead) {
            if (!list_empty(slots_[level][(base + ahead) % slots_per_level])) {
                const std::uint64_t tick = (base + ahead) << shift;
                least_tick = std::min(least_tick.value_or(tick), tick);
                break;
            }
        }
    }
    return least_tick;
}

std::optional<Nanoseconds> TimerWheel::next_deadline() const {
    const auto tick = next_tick();
    if (!tick) {
        return std::nullopt;
    }
    return start_ + *tick * tick_ns_;
}

}  // namespace bore::base
