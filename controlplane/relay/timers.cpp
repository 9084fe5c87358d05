// Couples the wheel with the event loop's timer.
#include "controlplane/relay/timers.hpp"

#include <chrono>

namespace bore::relay {

Timers::Timers(boost::asio::io_context& io) : wheel_(base::monotonic_now(), tick_ns), alarm_(io) {}

void Timers::arm(Timer& timer, base::Nanoseconds due) {
    wheel_.arm(timer, due);
    // Inside advance() the alarm is set once, at its end.
    if (!advancing_ && (scheduled_ == 0 || due < scheduled_)) {
        schedule(due + tick_ns);  // the wheel rounds up to a tick
    }
}

void Timers::stop() {
    stopped_ = true;
    alarm_.cancel();
}

void Timers::schedule(base::Nanoseconds due) {
    if (stopped_) {
        return;
    }
    scheduled_ = due;
    // steady_clock is CLOCK_MONOTONIC on Linux, the clock of base::monotonic_now().
    alarm_.expires_at(std::chrono::steady_clock::time_point(
        std::chrono::nanoseconds(static_cast<std::int64_t>(due))));
    alarm_.async_wait([this](const boost::system::error_code& error) {
        if (!error && !stopped_) {
            advance();
        }
    });
}

void Timers::advance() {
    scheduled_ = 0;
    advancing_ = true;
    wheel_.advance(base::monotonic_now(), [](base::TimerNode& node) {
        auto& timer = static_cast<Timer&>(node);
        timer.function_(timer.owner_);
    });
    advancing_ = false;
    if (const auto next = wheel_.next_deadline()) {
        schedule(*next);
    }
}

}  // namespace bore::relay
