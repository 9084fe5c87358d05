// The timer wheel: a table of single timers, and a naive model (a map of due times) against the
// real structure under random operations. The model's seed is printed; BORE_TEST_SEED repeats a
// run.
#include "dataplane/base/timer_wheel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <vector>

namespace bore::base {
namespace {

constexpr Nanoseconds tick = millisecond_ns;
constexpr Nanoseconds origin = 7 * second_ns + 123'456;  // not a multiple of the tick

std::uint64_t seed_of_run() {
    const char* given = std::getenv("BORE_TEST_SEED");
    const std::uint64_t seed =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "BORE_TEST_SEED=" << seed << '\n';
    return seed;
}

std::size_t count_fired(TimerWheel& wheel, Nanoseconds now) {
    return wheel.advance(now, [](TimerNode&) {});
}

TEST(TimerWheel, FiresOnceWithinOneTickOfItsTime) {
    // Both sides of every border between two levels of the wheel.
    for (const std::uint64_t delay_ticks :
         {1ULL, 2ULL, 63ULL, 64ULL, 65ULL, 4'095ULL, 4'096ULL, 4'097ULL, 262'143ULL, 262'144ULL,
          262'145ULL, 16'777'215ULL, 16'777'216ULL, 16'777'217ULL}) {
        for (const Nanoseconds odd : {Nanoseconds{0}, Nanoseconds{1}, tick - 1}) {
            TimerWheel wheel(origin, tick);
            TimerNode node;
            const Nanoseconds due = origin + delay_ticks * tick + odd;
            wheel.arm(node, due);
            EXPECT_EQ(count_fired(wheel, due - 1), 0U) << delay_ticks << " ticks + " << odd;
            EXPECT_TRUE(node.armed());
            EXPECT_EQ(count_fired(wheel, due + tick), 1U) << delay_ticks << " ticks + " << odd;
            EXPECT_FALSE(node.armed());
            EXPECT_EQ(count_fired(wheel, due + 100 * tick), 0U);
        }
    }
}

TEST(TimerWheel, FiresFromAnyPhaseOfTheWheel) {
    // The same delays, armed when the wheel stands just before, on and behind a border.
    for (const std::uint64_t phase : {1ULL, 63ULL, 64ULL, 4'095ULL, 4'096ULL, 262'143ULL}) {
        for (const std::uint64_t delay_ticks : {1ULL, 64ULL, 4'095ULL, 4'096ULL, 262'143ULL}) {
            TimerWheel wheel(origin, tick);
            TimerNode keeper;  // an armed timer makes the wheel walk every tick
            wheel.arm(keeper, origin + 900'000'000 * tick);
            EXPECT_EQ(count_fired(wheel, origin + phase * tick), 0U);
            TimerNode node;
            const Nanoseconds due = origin + (phase + delay_ticks) * tick;
            wheel.arm(node, due);
            EXPECT_EQ(count_fired(wheel, due - 1), 0U) << phase << " + " << delay_ticks;
            EXPECT_EQ(count_fired(wheel, due), 1U) << phase << " + " << delay_ticks;
        }
    }
}

TEST(TimerWheel, PastTimeFiresAtTheNextTick) {
    TimerWheel wheel(origin, tick);
    EXPECT_EQ(count_fired(wheel, origin + 500 * tick), 0U);
    TimerNode past;
    TimerNode before_start;
    wheel.arm(past, origin + 3 * tick);
    wheel.arm(before_start, 0);
    EXPECT_EQ(wheel.next_deadline(), origin + 501 * tick);
    EXPECT_EQ(count_fired(wheel, origin + 501 * tick), 2U);
}

TEST(TimerWheel, EmptyWheelHasNoDeadline) {
    TimerWheel wheel(origin, tick);
    EXPECT_EQ(wheel.next_deadline(), std::nullopt);
    TimerNode node;
    wheel.arm(node, origin + 10 * tick);
    EXPECT_EQ(wheel.next_deadline(), origin + 10 * tick);
    wheel.cancel(node);
    EXPECT_EQ(wheel.next_deadline(), std::nullopt);
    EXPECT_EQ(count_fired(wheel, origin + second_ns), 0U);
    wheel.cancel(node);  // of a node that is not armed: nothing happens
    EXPECT_FALSE(node.armed());
}

TEST(TimerWheel, LongSleepWithNothingArmedIsCheapAndExactAfterwards) {
    TimerWheel wheel(origin, tick);
    const Nanoseconds year = 365ULL * 24 * 3'600 * second_ns;  // 3e10 ticks: walking takes minutes
    EXPECT_EQ(count_fired(wheel, origin + year), 0U);
    TimerNode node;
    wheel.arm(node, origin + year + 5'000 * tick);
    EXPECT_EQ(count_fired(wheel, origin + year + 4'999 * tick), 0U);
    EXPECT_EQ(count_fired(wheel, origin + year + 5'000 * tick), 1U);
}

TEST(TimerWheel, LongSleepFiresAllThatCameDueInBetween) {
    TimerWheel wheel(origin, tick);
    std::array<TimerNode, 1'000> nodes;
    for (std::size_t index = 0; index < nodes.size(); ++index) {
        wheel.arm(nodes[index], origin + (index * 37 + 1) * tick);
    }
    EXPECT_EQ(count_fired(wheel, origin + 3'600 * second_ns), nodes.size());
    EXPECT_EQ(wheel.next_deadline(), std::nullopt);
}

TEST(TimerWheel, TimeBeyondTheHorizonIsNotCutShort) {
    // Five levels of 64 slots are 2^30 ticks, 12 days at 1 ms.
    constexpr std::uint64_t horizon = std::uint64_t{1} << 30U;
    TimerWheel wheel(0, tick);
    TimerNode node;
    const Nanoseconds due = (horizon + 12'345) * tick;
    wheel.arm(node, due);
    Nanoseconds now = 0;
    while (const auto deadline = wheel.next_deadline()) {
        ASSERT_GT(*deadline, now);
        ASSERT_LE(*deadline, due);
        now = *deadline;
        if (count_fired(wheel, now) != 0) {
            break;
        }
    }
    EXPECT_EQ(now, due);
    EXPECT_FALSE(node.armed());
}

TEST(TimerWheel, FireMayRearmItself) {
    TimerWheel wheel(origin, tick);
    TimerNode node;
    wheel.arm(node, origin + 5 * tick);
    std::size_t count = 0;
    for (Nanoseconds now = origin; now <= origin + 100 * tick; now += tick) {
        wheel.advance(now, [&](TimerNode& fired) {
            EXPECT_FALSE(fired.armed());
            ++count;
            wheel.arm(fired, now + 5 * tick);
        });
    }
    EXPECT_EQ(count, 20U);
    // Rearmed for a time that is already over: once more, at the next tick, not in this turn.
    const Nanoseconds late = origin + 105 * tick;
    EXPECT_EQ(wheel.advance(late, [&](TimerNode& fired) { wheel.arm(fired, late); }), 1U);
    EXPECT_TRUE(node.armed());
    EXPECT_EQ(count_fired(wheel, late + tick), 1U);
}

TEST(TimerWheel, FireMayCancelAndMoveOthersThatAreDue) {
    TimerWheel wheel(origin, tick);
    TimerNode first;
    TimerNode cancelled;
    TimerNode moved;
    auto destroyed = std::make_unique<TimerNode>();
    for (TimerNode* node : {&first, &cancelled, &moved, destroyed.get()}) {
        wheel.arm(*node, origin + 3 * tick);
    }
    std::vector<TimerNode*> fired;
    wheel.advance(origin + 3 * tick, [&](TimerNode& node) {
        fired.push_back(&node);
        wheel.cancel(cancelled);
        wheel.arm(moved, origin + 9 * tick);
        destroyed.reset();
    });
    EXPECT_EQ(fired, std::vector<TimerNode*>{&first});
    EXPECT_FALSE(cancelled.armed());
    EXPECT_TRUE(moved.armed());
    EXPECT_EQ(count_fired(wheel, origin + 8 * tick), 0U);
    EXPECT_EQ(count_fired(wheel, origin + 9 * tick), 1U);
}

TEST(TimerWheel, DestroyedOwnerAndDestroyedWheelLeaveNothingBehind) {
    TimerNode survivor;
    {
        TimerWheel wheel(origin, tick);
        {
            TimerNode gone;
            wheel.arm(gone, origin + tick);
        }
        wheel.arm(survivor, origin + 5'000 * tick);
        EXPECT_EQ(count_fired(wheel, origin + 10 * tick), 0U);
    }
    EXPECT_FALSE(survivor.armed());
}

// One armed timer of the naive model.
struct ModelTimer {
    TimerNode node;
    std::optional<Nanoseconds> due;
    Nanoseconds armed_at{0};  // the latest time the wheel knew when it was armed
};

class Model {
  public:
    explicit Model(std::uint64_t seed) : random_(seed), timers_(200) {}

    void run(std::size_t step_count) {
        for (std::size_t step = 0; step < step_count && !::testing::Test::HasFailure(); ++step) {
            switch (draw(10)) {
                case 0:
                case 1:
                case 2:
                case 3:
                    arm(timers_[draw(timers_.size())]);
                    break;
                case 4:
                    cancel(timers_[draw(timers_.size())]);
                    break;
                case 5:
                    sleep_until_deadline();
                    break;
                default:
                    advance(now_ + random_delay() / 4);
                    break;
            }
            check_deadline();
        }
        // Whatever is left fires in the end, each exactly once.
        for (Nanoseconds jump = tick; armed_count() != 0 && jump < 400'000 * second_ns; jump *= 2) {
            allow_changes_in_fire_ = false;
            advance(now_ + jump);
        }
        EXPECT_EQ(armed_count(), 0U);
        EXPECT_EQ(wheel_.next_deadline(), std::nullopt);
    }

    [[nodiscard]] std::size_t fired_count() const { return fired_count_; }

  private:
    std::size_t draw(std::size_t bound) { return static_cast<std::size_t>(random_() % bound); }

    // From part of a tick to hours, each magnitude as likely as the others.
    Nanoseconds random_delay() { return random_() % (Nanoseconds{1} << (10 + draw(34))); }

    void arm(ModelTimer& timer) {
        // Sometimes in the past.
        const Nanoseconds delay = random_delay();
        const Nanoseconds due = draw(10) == 0 ? now_ - std::min(now_, delay) : now_ + delay;
        wheel_.arm(timer.node, due);
        timer.due = due;
        timer.armed_at = now_;
    }

    void cancel(ModelTimer& timer) {
        wheel_.cancel(timer.node);
        timer.due.reset();
    }

    // The latest time by which a timer must have fired: its own or, in the past, the tick after the
    // one in which it was armed.
    static Nanoseconds latest(const ModelTimer& timer) {
        return std::max(*timer.due, timer.armed_at) + tick;
    }

    void advance(Nanoseconds now) {
        now_ = now;
        wheel_.advance(now_, [&](TimerNode& node) { on_fire(node); });
        for (const ModelTimer& timer : timers_) {
            EXPECT_EQ(timer.node.armed(), timer.due.has_value());
            if (timer.due) {
                EXPECT_GT(latest(timer), now_) << "a due timer did not fire";
            }
        }
    }

    void on_fire(TimerNode& node) {
        auto& timer =
            *std::find_if(timers_.begin(), timers_.end(),
                          [&](const ModelTimer& candidate) { return &candidate.node == &node; });
        ASSERT_TRUE(timer.due.has_value()) << "a cancelled timer fired";
        EXPECT_GE(now_, *timer.due) << "early";
        timer.due.reset();
        ++fired_count_;
        if (allow_changes_in_fire_) {
            switch (draw(4)) {
                case 0:
                    arm(timer);
                    break;
                case 1:
                    arm(timers_[draw(timers_.size())]);
                    break;
                case 2:
                    cancel(timers_[draw(timers_.size())]);
                    break;
                default:
                    break;
            }
        }
    }

    void check_deadline() {
        std::optional<Nanoseconds> first;
        for (const ModelTimer& timer : timers_) {
            if (timer.due) {
                first = std::min(first.value_or(latest(timer)), latest(timer));
            }
        }
        const auto deadline = wheel_.next_deadline();
        ASSERT_EQ(deadline.has_value(), first.has_value());
        if (first) {
            EXPECT_LE(*deadline, *first) << "a loop that sleeps so long is late";
            EXPECT_GT(*deadline + tick, now_) << "a loop would spin";
        }
    }

    // What a poll loop does: sleeps exactly until the deadline it was told.
    void sleep_until_deadline() {
        if (const auto deadline = wheel_.next_deadline()) {
            advance(std::max(now_, *deadline));
        }
    }

    std::size_t armed_count() const {
        return static_cast<std::size_t>(
            std::count_if(timers_.begin(), timers_.end(),
                          [](const ModelTimer& timer) { return timer.due.has_value(); }));
    }

    std::mt19937_64 random_;
    Nanoseconds now_{origin};
    TimerWheel wheel_{origin, tick};
    std::vector<ModelTimer> timers_;
    std::size_t fired_count_{0};
    bool allow_changes_in_fire_{true};
};

TEST(TimerWheel, AgreesWithANaiveModelUnderRandomOperations) {
    const std::uint64_t seed = seed_of_run();
    std::size_t fired_count = 0;
    for (std::uint64_t round = 0; round < 8 && !HasFailure(); ++round) {
        SCOPED_TRACE(round);
        Model model(seed + round);
        model.run(2'000);
        fired_count += model.fired_count();
    }
    EXPECT_GT(fired_count, 1'000U) << "the random operations hardly reached advance()";
}

}  // namespace
}  // namespace bore::base
