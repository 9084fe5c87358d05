// The loop behind event_loop.hpp. A batch holds one event per descriptor, so a handler that closes
// its own descriptor cannot be called again within the batch.
#include "bench/load/event_loop.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "bench/load/sockets.hpp"

namespace bore::bench {

void Descriptor::reset() {
    if (number_ >= 0) {
        ::close(number_);
    }
    number_ = -1;
}

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_.valid()) {
        die_errno("epoll_create1");
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

bool EventLoop::run_until(base::Nanoseconds deadline, const std::function<bool()>& done) {
    while (!done()) {
        const base::Nanoseconds now = base::monotonic_now();
        if (now >= deadline) {
            return false;
        }
        // Rounded up: a timeout of 0 would spin through the last millisecond.
        const base::Nanoseconds wait_ms = (deadline - now) / base::millisecond_ns + 1;
        turn(static_cast<int>(std::min<base::Nanoseconds>(wait_ms, 1000)));
    }
    return true;
}

void EventLoop::run_forever() {
    for (;;) {
        turn(-1);
    }
}

void EventLoop::turn(int timeout_ms) {
    std::array<epoll_event, 256> events;
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
    if (count < 0 && errno != EINTR) {
        die_errno("epoll_wait");
    }
    for (int index = 0; index < count; ++index) {
        const epoll_event& event = events[static_cast<std::size_t>(index)];
        static_cast<Handler*>(event.data.ptr)->on_ready(event.events);
    }
    retired_.clear();
}

}  // namespace bore::bench
