// An eventfd with which one thread wakes the poll loop of another. Writing is skipped while the
// sleeper is awake anyway; the flag makes that race-free (Dekker: each side writes its own word,
// then reads the other's, all sequentially consistent).
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "dataplane/base/check.hpp"

namespace bore::drivers {

class WakeEvent {
  public:
    WakeEvent() : descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        BORE_CHECK(descriptor_ >= 0, "no descriptor for an eventfd");
    }
    ~WakeEvent() { ::close(descriptor_); }
    WakeEvent(const WakeEvent&) = delete;
    WakeEvent& operator=(const WakeEvent&) = delete;

    [[nodiscard]] int descriptor() const { return descriptor_; }

    // Sleeper: say so, then look for work once more, then wait on the descriptor.
    void will_sleep() {
        asleep_.store(true, std::memory_order_seq_cst);
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    void is_awake() { asleep_.store(false, std::memory_order_relaxed); }

    // Waker: after the work was published.
    void wake() {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) && asleep_.exchange(false)) {
            signal();
        }
    }
    void signal() {
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t written = ::write(descriptor_, &one, sizeof one);
    }
    void clear() {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t read = ::read(descriptor_, &count, sizeof count);
    }

  private:
    int descriptor_;
    std::atomic<bool> asleep_{false};
};

}  // namespace bore::drivers
