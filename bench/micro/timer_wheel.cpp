// Timers while many others are armed.
#include <cstddef>
#include <vector>

#include "bench/micro/conclude.hpp"
#include "dataplane/base/timer_wheel.hpp"

namespace bore::bench {

namespace {

using base::millisecond_ns;
using base::Nanoseconds;
using base::TimerNode;
using base::TimerWheel;

constexpr Nanoseconds start = 1'000 * base::second_ns;

// Timers due within the next minute, as idle timeouts are.
class Field {
  public:
    explicit Field(std::size_t count) : nodes_(count) {
        for (TimerNode& node : nodes_) {
            arm(node);
        }
    }

    void arm(TimerNode& node) { wheel_.arm(node, now_ + delay()); }
    TimerNode& any() { return nodes_[chance_.next() % nodes_.size()]; }
    // A millisecond passes; whatever fires is armed again, so the count stays.
    std::size_t turn() {
        now_ += millisecond_ns;
        return wheel_.advance(now_, [this](TimerNode& node) { arm(node); });
    }
    [[nodiscard]] TimerWheel& wheel() { return wheel_; }
    [[nodiscard]] bool all_armed() const {
        for (const TimerNode& node : nodes_) {
            if (!node.armed()) {
                return false;
            }
        }
        return true;
    }

  private:
    Nanoseconds delay() { return (1 + chance_.next() % 60'000) * millisecond_ns; }

    Chance chance_;
    Nanoseconds now_{start};
    TimerWheel wheel_{start, millisecond_ns};
    std::vector<TimerNode> nodes_;  // unlink themselves before the wheel goes
};

void arm(benchmark::State& state) {
    Field field(static_cast<std::size_t>(state.range(0)));
    for (auto _ : state) {
        field.arm(field.any());
    }
    conclude(state, "timer armed anew, beside so many", 1, field.all_armed());
}
BENCHMARK(arm)->Name("timer_wheel/arm")->Arg(1'000)->Arg(100'000);

void cancel(benchmark::State& state) {
    Field field(static_cast<std::size_t>(state.range(0)));
    bool right = true;
    TimerNode node;
    for (auto _ : state) {
        field.arm(node);
        right &= node.armed();
        field.wheel().cancel(node);
        right &= !node.armed();
        keep(node);
    }
    conclude(state, "timer armed and cancelled, beside so many", 1, right && field.all_armed());
}
BENCHMARK(cancel)->Name("timer_wheel/arm_cancel")->Arg(1'000)->Arg(100'000);

void advance(benchmark::State& state) {
    Field field(static_cast<std::size_t>(state.range(0)));
    std::size_t fired = 0;
    // A minute first: by then the wheel has all its timers where they are in steady state.
    for (int turn = 0; turn < 60'000; ++turn) {
        fired += field.turn();
    }
    const bool lively = fired >= static_cast<std::size_t>(state.range(0));
    fired = 0;
    for (auto _ : state) {
        fired += field.turn();
    }
    keep(fired);
    state.counters["fired_per_turn"] =
        static_cast<double>(fired) / static_cast<double>(state.iterations());
    conclude(state, "millisecond of a wheel with so many, what fires armed again", 1,
             lively && field.all_armed());
}
BENCHMARK(advance)->Name("timer_wheel/advance")->Arg(1'000)->Arg(100'000);

void next_deadline(benchmark::State& state) {
    Field field(static_cast<std::size_t>(state.range(0)));
    std::optional<Nanoseconds> deadline;
    for (auto _ : state) {
        deadline = field.wheel().next_deadline();
        keep(deadline);
    }
    conclude(state, "next deadline asked for, with so many", 1,
             deadline > start && deadline <= start + 61 * base::second_ns);
}
BENCHMARK(next_deadline)->Name("timer_wheel/next_deadline")->Arg(1'000)->Arg(100'000);

}  // namespace

}  // namespace bore::bench
