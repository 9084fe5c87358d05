// A ring with its provided receive buffers: the set-up that the worker and the probe share, and the
// few calls in which liburing's C interface needs care. One thread makes and uses it
// (IORING_SETUP_SINGLE_ISSUER).
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "dataplane/base/clock.hpp"

namespace bore::drivers {

struct RingSizes {
    unsigned submission_entries;
    unsigned completion_entries;
    unsigned buffer_count;  // a power of two, ≤ 32768
    std::size_t buffer_bytes;
};

class Ring {
  public:
    static constexpr int buffer_group = 0;

    [[nodiscard]] static std::expected<std::unique_ptr<Ring>, std::string> make(
        const RingSizes& sizes);
    ~Ring();
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    // A zeroed entry; what is queued is submitted when the queue is full.
    [[nodiscard]] io_uring_sqe& entry();
    // Submits and reaps without sleeping.
    void submit();
    // Submits and sleeps until a completion or the timeout (none = for ever).
    void submit_and_wait(std::optional<base::Nanoseconds> timeout_ns);

    // Completions present.
    [[nodiscard]] unsigned ready() const { return ::io_uring_cq_ready(&ring_); }
    // Calls `handle(const io_uring_cqe&)` for all completions present; returns their count.
    template <typename Handle>
    unsigned reap(Handle&& handle) {
        unsigned head = 0;
        unsigned count = 0;
        io_uring_cqe* completion = nullptr;
        io_uring_for_each_cqe(&ring_, head, completion) {
            handle(*completion);
            ++count;
        }
        io_uring_cq_advance(&ring_, count);
        return count;
    }

    // The bytes of a completed receive, and the buffer's way back to the kernel.
    [[nodiscard]] std::span<const std::byte> buffer(unsigned buffer_id, std::size_t bytes) const;
    void recycle(unsigned buffer_id);

  private:
    explicit Ring(const RingSizes& sizes) : sizes_(sizes) {}
    [[nodiscard]] std::string set_up();

    RingSizes sizes_;
    io_uring ring_{};
    bool ring_made_{false};
    io_uring_buf_ring* buffer_ring_{nullptr};
    std::byte* buffers_{nullptr};
    std::size_t mapped_bytes_{0};
};

}  // namespace bore::drivers
