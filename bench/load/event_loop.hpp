// A plain level-triggered epoll loop with timers, the owner of a descriptor, and the stop signal,
// for the load generator alone. One thread per loop. Nothing of the product's engines may come in
// here, so that a fault of theirs cannot hide behind the same fault of the tool that measures them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <utility>
#include <vector>

#include "dataplane/base/clock.hpp"

namespace bore::bench {

class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    ~Descriptor() { reset(); }

    [[nodiscard]] int get() const { return number_; }
    [[nodiscard]] bool valid() const { return number_ >= 0; }
    void reset();

  private:
    int number_ = -1;
};

class Handler {
  public:
    Handler() = default;
    Handler(const Handler&) = delete;
    Handler& operator=(const Handler&) = delete;
    virtual ~Handler() = default;
    virtual void on_ready(std::uint32_t events) = 0;
};

// From then on SIGINT and SIGTERM end the run_until() of every loop; a second one ends the program.
void catch_stop_signals();
[[nodiscard]] bool stop_requested();

class EventLoop {
  public:
    enum class End : std::uint8_t { done, deadline, stopped };

    EventLoop();

    void add(int descriptor, std::uint32_t events, Handler& handler);
    void modify(int descriptor, std::uint32_t events, Handler& handler);
    void remove(int descriptor);

    // A handler may hand itself over in on_ready; it is destroyed after the current batch.
    void retire(std::unique_ptr<Handler> handler) { retired_.push_back(std::move(handler)); }

    // Calls once, not before that time. Cannot be taken back: what it refers to must live as long
    // as the loop runs.
    void call_at(base::Nanoseconds when, std::function<void()> what);
    void call_every(base::Nanoseconds interval, std::function<void()> what);

    // Until done() is true, the deadline has passed, or a stop signal has come. With `heed_stop`
    // false a signal that has come already does not count: for what is left to do after it.
    End run_until(base::Nanoseconds deadline, const std::function<bool()>& done,
                  bool heed_stop = true);

    // Time spent waiting for events, since the loop was made.
    [[nodiscard]] base::Nanoseconds waited_ns() const { return waited_ns_; }

  private:
    struct Timer {
        base::Nanoseconds when;
        std::uint64_t number;  // equal times fire in the order of their calls
        std::function<void()> what;
        bool operator>(const Timer& other) const {
            return std::pair(when, number) > std::pair(other.when, other.number);
        }
    };

    void call_every_from(base::Nanoseconds when, base::Nanoseconds interval,
                         std::function<void()> what);
    bool fire_timers(base::Nanoseconds now);  // true when one was due
    void turn(base::Nanoseconds now, base::Nanoseconds wake_at);

    Descriptor epoll_;
    std::vector<std::unique_ptr<Handler>> retired_;
    std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
    std::uint64_t timers_made_ = 0;
    base::Nanoseconds waited_ns_ = 0;
};

}  // namespace bore::bench
