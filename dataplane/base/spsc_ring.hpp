// A bounded ring from one producer thread to one consumer thread. The only way in which threads of
// this program speak to each other; what does not fit is refused and the producer decides.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "dataplane/base/check.hpp"

namespace bore::base {

inline constexpr std::size_t cache_line_bytes = 64;

template <typename T>
class SpscRing {
  public:
    // `capacity` is a count of elements and a power of two.
    explicit SpscRing(std::size_t capacity)
        : mask_(capacity - 1), slots_(std::make_unique<T[]>(capacity)) {
        BORE_CHECK(std::has_single_bit(capacity), "ring capacity must be a power of two");
    }

    // Producer thread. False when full; `value` is untouched then.
    [[nodiscard]] bool push(T&& value) {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - cached_head_ > mask_) {
            cached_head_ = head_.load(std::memory_order_acquire);
            if (tail - cached_head_ > mask_) {
                return false;
            }
        }
        slots_[tail & mask_] = std::move(value);
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    // Consumer thread.
    [[nodiscard]] std::optional<T> pop() {
        const std::size_t head = head_.load(std::memory_order_relaxed);
        if (head == cached_tail_) {
            cached_tail_ = tail_.load(std::memory_order_acquire);
            if (head == cached_tail_) {
                return std::nullopt;
            }
        }
        std::optional<T> value(std::move(slots_[head & mask_]));
        head_.store(head + 1, std::memory_order_release);
        return value;
    }

    // Either thread; exact only on the consumer's side.
    [[nodiscard]] bool empty() const {
        return head_.load(std::memory_order_acquire) == tail_.load(std::memory_order_acquire);
    }

    // Producer thread. True when one more push would be refused.
    [[nodiscard]] bool full() const {
        return tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire) >
               mask_;
    }

  private:
    const std::size_t mask_;
    std::unique_ptr<T[]> slots_;
    alignas(cache_line_bytes) std::atomic<std::size_t> head_{0};
    std::size_t cached_tail_{0};
    alignas(cache_line_bytes) std::atomic<std::size_t> tail_{0};
    std::size_t cached_head_{0};
};

}  // namespace bore::base
