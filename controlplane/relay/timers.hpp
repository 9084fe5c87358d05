// All deadlines of the control thread: one timer wheel, driven by one timer of the event loop.
// Arming and cancelling are O(1) and make no system call, unless the new deadline is the nearest.
// Control thread only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "dataplane/base/clock.hpp"
#include "dataplane/base/timer_wheel.hpp"

namespace bore::relay {

// Embedded in its owner, whose function it calls: `Timer
// timer_{Timer::calling<&Owner::due>(this)}`.
class Timer : public base::TimerNode {
  public:
    template <auto function, typename Owner>
    static Timer calling(Owner* owner) {
        return Timer(owner, [](void* target) { (static_cast<Owner*>(target)->*function)(); });
    }

  private:
    friend class Timers;
    using Function = void (*)(void*);

    Timer(void* owner, Function function) : owner_(owner), function_(function) {}

    void* owner_;
    Function function_;
};

class Timers {
  public:
    // Deadlines are met late by at most this much; the tightest is a challenge grace of 100 ms.
    static constexpr base::Nanoseconds tick_ns = 5 * base::millisecond_ns;

    explicit Timers(boost::asio::io_context& io);

    void arm(Timer& timer, base::Nanoseconds due);
    void arm_after(Timer& timer, base::Nanoseconds delay) {
        arm(timer, base::monotonic_now() + delay);
    }
    void cancel(Timer& timer) { wheel_.cancel(timer); }

    // No timer fires any more; the event loop may end.
    void stop();

  private:
    void schedule(base::Nanoseconds due);
    void advance();

    base::TimerWheel wheel_;
    boost::asio::steady_timer alarm_;
    base::Nanoseconds scheduled_{0};  // 0 = the alarm is not set
    bool advancing_{false};
    bool stopped_{false};
};

}  // namespace bore::relay
