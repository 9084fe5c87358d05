// The limits of every tunnel as the workers see them: rates with their token buckets, timeouts.
// Written by the control thread through the engine, read by all workers; the buckets are shared by
// the workers of both engines, so that a tunnel's rate holds over all its pairs wherever they run.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>

#include "dataplane/abi/engine.hpp"
#include "dataplane/base/check.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::abi {

// A token bucket in one word (the generic cell rate algorithm): the time at which everything
// charged so far is paid off. Reading is allowed when that time has come; what was read is charged
// afterwards. The shared word is a compare-and-swap on limited tunnels only.
class RateLimiter {
  public:
    // Unused time counts up to this: 50 ms hide a late wake-up and add 1.7 % to the first 3 s.
    static constexpr base::Nanoseconds burst_ns = 50 * base::millisecond_ns;
    // What readers may be ahead of a queue: 2 % of the first 3 s.
    static constexpr base::Nanoseconds max_ahead_ns = 60 * base::millisecond_ns;

    // A new rate starts afresh: what was read at the old one is paid off.
    void set_rate(std::uint64_t bytes_per_second) {
        if (bytes_per_second_.exchange(bytes_per_second, std::memory_order_relaxed) !=
            bytes_per_second) {
            reset();
        }
    }
    [[nodiscard]] bool limited() const {
        return bytes_per_second_.load(std::memory_order_relaxed) != 0;
    }

    // When the next read may happen; ≤ now means now. What the packet engine has queued was charged
    // but not sent; readers do not wait for it, and may be ahead of it by as much again: else a
    // full queue would shut them out.
    [[nodiscard]] base::Nanoseconds ready_at() const {
        const std::uint64_t rate = bytes_per_second_.load(std::memory_order_relaxed);
        if (rate == 0) {
            return 0;
        }
        const base::Nanoseconds paid_off = paid_off_at_.load(std::memory_order_relaxed);
        const std::uint64_t queued = queued_bytes_.load(std::memory_order_relaxed);
        if (queued == 0) {
            return paid_off;
        }
        const base::Nanoseconds queued_ns = queued * base::second_ns / rate;
        const base::Nanoseconds ahead_ns = queued_ns + std::min(queued_ns, max_ahead_ns);
        return paid_off > ahead_ns ? paid_off - ahead_ns : 0;
    }

    // How much one read may take, so that what it overshoots is 20 ms worth at most and small
    // writes do not dribble: 2 KiB are 16 ms of 1 Mbit/s.
    [[nodiscard]] std::size_t read_size_bytes(std::size_t wanted_bytes) const {
        const std::uint64_t rate = bytes_per_second_.load(std::memory_order_relaxed);
        if (rate == 0) {
            return wanted_bytes;
        }
        const std::uint64_t quantum = std::max<std::uint64_t>(rate / 50, 2'048);
        return static_cast<std::size_t>(std::min<std::uint64_t>(wanted_bytes, quantum));
    }

    void charge(base::Nanoseconds now, std::size_t bytes, std::uint32_t worker_index) {
        if (limited()) {
            last_reader_.store(worker_index, std::memory_order_relaxed);
            (void)reserve(now, bytes, burst_ns);
        }
    }

    // The worker that was charged last.
    [[nodiscard]] std::uint32_t last_reader() const {
        return last_reader_.load(std::memory_order_relaxed);
    }

    void reset() { paid_off_at_.store(0, std::memory_order_relaxed); }

    // ---- The packet engine charges a segment before it is sent: its time comes when everything
    // charged before it is paid off. Until then it is queued.

    // When the segment may leave; ≤ now means now. Unused time counts up to `burst`.
    [[nodiscard]] base::Nanoseconds reserve(base::Nanoseconds now, std::size_t bytes,
                                            base::Nanoseconds burst) {
        const std::uint64_t rate = bytes_per_second_.load(std::memory_order_relaxed);
        if (rate == 0) {
            return 0;
        }
        // bytes ≤ 1 MiB (a pipe), so the product stays below 2^50.
        const base::Nanoseconds cost = bytes * base::second_ns / rate;
        const base::Nanoseconds oldest = now > burst ? now - burst : 0;
        base::Nanoseconds seen = paid_off_at_.load(std::memory_order_relaxed);
        while (!paid_off_at_.compare_exchange_weak(seen, std::max(seen, oldest) + cost,
                                                   std::memory_order_relaxed)) {
        }
        return std::max(seen, oldest);
    }
    // When everything charged so far, queued or not, is paid off.
    [[nodiscard]] base::Nanoseconds paid_off_at() const {
        return paid_off_at_.load(std::memory_order_relaxed);
    }
    // Payload that whole milliseconds are enough for; unlimited: any.
    [[nodiscard]] std::uint64_t bytes_in(base::Nanoseconds duration) const {
        const std::uint64_t rate = bytes_per_second_.load(std::memory_order_relaxed);
        if (rate == 0) {
            return std::numeric_limits<std::uint64_t>::max();
        }
        const std::uint64_t duration_ms = duration / base::millisecond_ns;
        return rate / 1'000 * duration_ms + rate % 1'000 * duration_ms / 1'000;
    }
    // Payload in the packet workers' queues, all together.
    [[nodiscard]] std::uint32_t queued_bytes() const {
        return queued_bytes_.load(std::memory_order_relaxed);
    }
    void add_queued(std::uint32_t bytes) {
        queued_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    }
    void subtract_queued(std::uint32_t bytes) {
        queued_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    }

  private:
    std::atomic<std::uint64_t> bytes_per_second_{0};
    std::atomic<base::Nanoseconds> paid_off_at_{0};
    std::atomic<std::uint32_t> last_reader_{0};
    std::atomic<std::uint32_t> queued_bytes_{0};
};

struct TunnelEntry {
    RateLimiter limiters[2];  // indexed by the leg that is read: visitor → client, client → visitor
    std::atomic<std::uint64_t> idle_timeout_ms{0};
    std::atomic<std::uint64_t> half_closed_timeout_ms{0};

    void set(const TunnelLimits& limits) {
        limiters[static_cast<std::size_t>(Leg::visitor)].set_rate(
            limits.to_client_bytes_per_second);
        limiters[static_cast<std::size_t>(Leg::client)].set_rate(
            limits.to_visitor_bytes_per_second);
        idle_timeout_ms.store(limits.idle_timeout_ms, std::memory_order_relaxed);
        half_closed_timeout_ms.store(limits.half_closed_timeout_ms, std::memory_order_relaxed);
    }
};

class TunnelTable {
  public:
    explicit TunnelTable(std::uint32_t capacity)
        : capacity_(capacity), entries_(std::make_unique<TunnelEntry[]>(capacity)) {}

    [[nodiscard]] TunnelEntry& entry(std::uint32_t tunnel_index) {
        BORE_CHECK(tunnel_index < capacity_, "no such tunnel");
        return entries_[tunnel_index];
    }
    // New limits for pairs that may already run; the workers notice the count of changes.
    void change(std::uint32_t tunnel_index, const TunnelLimits& limits) {
        entry(tunnel_index).set(limits);
        change_count_.fetch_add(1, std::memory_order_release);
    }
    [[nodiscard]] std::uint32_t change_count() const {
        return change_count_.load(std::memory_order_acquire);
    }

  private:
    std::uint32_t capacity_;
    std::unique_ptr<TunnelEntry[]> entries_;
    std::atomic<std::uint32_t> change_count_{0};
};

}  // namespace bore::abi
