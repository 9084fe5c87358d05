// The loop behind event_loop.hpp. A batch holds one event per descriptor, so a handler that closes
// its own descriptor cannot be called again within the batch.
#include "bench/load/event_loop.hpp"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "bench/load/sockets.hpp"

namespace bore::bench {
namespace {

// Set by the signal; the descriptor wakes the loops of all threads and is never read.
std::atomic<bool> stop_flag{false};
int stop_event = -1;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may not wait");

extern "C" void on_stop_signal(int) {
    stop_flag.store(true, std::memory_order_relaxed);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stop_event, &one, sizeof one);
}

// An epoll_wait this short found its events waiting: it was a system call, not a wait.
constexpr base::Nanoseconds shortest_wait_ns = 2 * base::microsecond_ns;

timespec to_timespec(base::Nanoseconds length) {
    return {.tv_sec = static_cast<time_t>(length / base::second_ns),
            .tv_nsec = static_cast<long>(length % base::second_ns)};
}

}  // namespace

void Descriptor::reset() {
    if (number_ >= 0) {
        ::close(number_);
    }
    number_ = -1;
}

void catch_stop_signals() {
    stop_event = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (stop_event < 0) {
        die_errno("eventfd");
    }
    struct sigaction action{};
    action.sa_handler = on_stop_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
}

bool stop_requested() {
    return stop_flag.load(std::memory_order_relaxed);
}

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_.valid()) {
        die_errno("epoll_create1");
    }
    if (stop_event >= 0) {
        // Edge-triggered: it wakes once, and a loop that has more to do afterwards does not spin.
        epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.ptr = nullptr}};
        if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stop_event, &event) != 0) {
            die_errno("epoll_ctl add");
        }
    }
}

void EventLoop::add(int descriptor, std::uint32_t events, Handler& handler) {
    epoll_event event{.events = events, .data = {.ptr = &handler}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) {
        die_errno("epoll_ctl add");
    }
}

void EventLoop::modify(int descriptor, std::uint32_t events, Handler& handler) {
    epoll_event event{.events = events, .data = {.ptr = &handler}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, descriptor, &event) != 0) {
        die_errno("epoll_ctl modify");
    }
}

void EventLoop::remove(int descriptor) {
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor, nullptr) != 0) {
        die_errno("epoll_ctl remove");
    }
}

void EventLoop::call_at(base::Nanoseconds when, std::function<void()> what) {
    timers_.push({.when = when, .number = timers_made_++, .what = std::move(what)});
}

void EventLoop::call_every(base::Nanoseconds interval, std::function<void()> what) {
    call_every_from(base::monotonic_now() + interval, interval, std::move(what));
}

void EventLoop::call_every_from(base::Nanoseconds when, base::Nanoseconds interval,
                                std::function<void()> what) {
    call_at(when, [this, when, interval, what = std::move(what)] {
        what();
        // No drift, and no crowd of calls after a long pause.
        call_every_from(std::max(when + interval, base::monotonic_now()), interval, what);
    });
}

EventLoop::End EventLoop::run_until(base::Nanoseconds deadline, const std::function<bool()>& done,
                                    bool heed_stop) {
    for (;;) {
        base::Nanoseconds now = base::monotonic_now();
        if (fire_timers(now)) {
            now = base::monotonic_now();  // their work was no wait
        }
        if (done()) {
            return End::done;
        }
        if (heed_stop && stop_requested()) {
            return End::stopped;
        }
        if (now >= deadline) {
            return End::deadline;
        }
        turn(now, timers_.empty() ? deadline : std::min(deadline, timers_.top().when));
    }
}

bool EventLoop::fire_timers(base::Nanoseconds now) {
    bool fired = false;
    while (!timers_.empty() && timers_.top().when <= now) {
        const std::function<void()> what = timers_.top().what;
        timers_.pop();
        what();
        fired = true;
    }
    return fired;
}

void EventLoop::turn(base::Nanoseconds now, base::Nanoseconds wake_at) {
    std::array<epoll_event, 256> events;
    // A timer armed for the past by another timer fires in the next round.
    const base::Nanoseconds length =
        std::min<base::Nanoseconds>(wake_at > now ? wake_at - now : 0, base::second_ns);
    const timespec timeout = to_timespec(length);
    const int count = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                     &timeout, nullptr);
    if (count < 0 && errno != EINTR) {
        die_errno("epoll_pwait2");
    }
    const base::Nanoseconds waited = base::monotonic_now() - now;
    waited_ns_ += waited >= shortest_wait_ns ? waited : 0;
    for (int index = 0; index < count; ++index) {
        const epoll_event& event = events[static_cast<std::size_t>(index)];
        if (event.data.ptr != nullptr) {
            static_cast<Handler*>(event.data.ptr)->on_ready(event.events);
        }
    }
    retired_.clear();
}

}  // namespace bore::bench
