// A plain level-triggered epoll loop and the owner of a descriptor, for the load generator alone.
// One thread, no timers: callers pass a deadline. Nothing of the product's engines may come in
// here, so that a fault of theirs cannot hide behind the same fault of the tool that measures them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
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

class EventLoop {
  public:
    EventLoop();

    void add(int descriptor, std::uint32_t events, Handler& handler);
    void modify(int descriptor, std::uint32_t events, Handler& handler);
    void remove(int descriptor);

    // A handler may hand itself over in on_ready; it is destroyed after the current batch.
    void retire(std::unique_ptr<Handler> handler) { retired_.push_back(std::move(handler)); }

    // Runs until done() is true or the deadline has passed; returns the last done().
    bool run_until(base::Nanoseconds deadline, const std::function<bool()>& done);
    [[noreturn]] void run_forever();

  private:
    void turn(int timeout_ms);

    Descriptor epoll_;
    std::vector<std::unique_ptr<Handler>> retired_;
};

}  // namespace bore::bench
