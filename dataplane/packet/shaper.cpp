// A pool of slots, a list of them per tunnel direction, and a heap of the directions that have
// frames, by the time at which the first of them leaves.
#include "dataplane/packet/shaper.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "dataplane/base/check.hpp"

namespace bore::packet {

namespace {

// Counts of queued bytes are 32 bits wide: the greatest queue, whatever the rate.
constexpr std::uint64_t max_queue_bytes = 1U << 30U;

std::uint64_t queue_bound_bytes(const abi::RateLimiter& bucket, std::uint32_t payload_bytes) {
    const std::uint64_t segment_bytes = std::max(Shaper::full_segment_bytes, payload_bytes);
    const std::uint64_t slow = std::max(bucket.bytes_in(Shaper::slow_queue_ns),
                                        Shaper::min_queue_segments * segment_bytes);
    const std::uint64_t most = std::max(bucket.bytes_in(Shaper::queue_ns),
                                        std::min(Shaper::queue_segments * segment_bytes, slow));
    return std::min(most, max_queue_bytes);
}

}  // namespace

void Shaper::Free::operator()(Queue* queues) const {
    std::free(queues);
}

Shaper::Shaper(abi::TunnelTable& tunnels, const ShaperOptions& options)
    : tunnels_(tunnels),
      queue_count_(options.tunnel_count * 2),
      change_count_(tunnels.change_count()),
      slots_(options.slot_count),
      queues_(static_cast<Queue*>(std::calloc(queue_count_, sizeof(Queue)))) {
    BORE_CHECK(queues_ != nullptr, "no memory for the queues of limited tunnels");
    for (std::uint32_t link = options.slot_count; link > 0; --link) {
        slots_[link - 1].next = std::exchange(first_free_, link);
    }
    // A queue in the heap holds a frame, so there are never more of them than slots.
    heap_.reserve(std::min<std::size_t>(options.slot_count, queue_count_));
}

// ---- Admission

Shaper::Admit Shaper::admit(const Frame& frame, std::uint32_t tunnel_index, abi::Leg source,
                            std::uint32_t payload_bytes, base::Nanoseconds now) {
    const std::uint32_t queue_index = tunnel_index * 2 + static_cast<std::uint32_t>(source);
    BORE_CHECK(queue_index < queue_count_, "no such tunnel");
    abi::RateLimiter& bucket = limiter(queue_index);
    const Queue& queue = queues_[queue_index];
    const bool waits = queue.frames > 0 || bucket.paid_off_at() > now;
    if (waits && !may_hold(bucket, queue, payload_bytes)) {
        return Admit::drop;
    }
    const base::Nanoseconds leaves_at = bucket.reserve(now, payload_bytes, burst_ns);
    if (!waits) {
        return Admit::send;  // when another worker reserved just before: early by its segments
    }
    push(queue_index, frame, payload_bytes, leaves_at);
    return Admit::held;
}

bool Shaper::may_hold(const abi::RateLimiter& bucket, const Queue& queue,
                      std::uint32_t payload_bytes) const {
    return first_free_ != 0 && queue.frames < slots_.size() / slot_share &&
           std::uint64_t{bucket.queued_bytes()} + payload_bytes <=
               queue_bound_bytes(bucket, payload_bytes);
}

// ---- Release

std::size_t Shaper::release_due(base::Nanoseconds now, std::span<Frame> out) {
    if (tunnels_.change_count() != change_count_) {
        take_up_limits();
    }
    std::size_t count = 0;
    while (!heap_.empty() && heap_.front().at <= now && count < out.size()) {
        out[count++] = pop_front();
    }
    return count;
}

// A bucket that is paid off before the last frame that waits for it was set back: its rate has
// changed. What was let in at the old rate leaves at once, for the new rate's segments come behind.
void Shaper::take_up_limits() {
    change_count_ = tunnels_.change_count();
    for (Due& due : heap_) {
        const Queue& queue = queues_[due.queue_index];
        if (limiter(due.queue_index).paid_off_at() >= slots_[queue.last - 1].leaves_at) {
            continue;
        }
        due.at = 0;
        for (std::uint32_t link = queue.first; link != 0; link = slots_[link - 1].next) {
            slots_[link - 1].leaves_at = 0;
        }
    }
    for (std::size_t place = heap_.size() / 2; place-- > 0;) {
        sift_down(place);
    }
}

base::Nanoseconds Shaper::next_due() const {
    return heap_.empty() ? never : heap_.front().at;
}

std::size_t Shaper::abandon(std::span<Frame> out) {
    std::size_t count = 0;
    while (!heap_.empty() && count < out.size()) {
        out[count++] = pop_front();
    }
    return count;
}

// ---- Queues

abi::RateLimiter& Shaper::limiter(std::uint32_t queue_index) {
    return tunnels_.entry(queue_index / 2).limiters[queue_index % 2];
}

void Shaper::push(std::uint32_t queue_index, const Frame& frame, std::uint32_t payload_bytes,
                  base::Nanoseconds leaves_at) {
    Queue& queue = queues_[queue_index];
    const std::uint32_t link = first_free_;
    Slot& slot = slots_[link - 1];
    first_free_ = slot.next;
    slot = Slot{.frame = frame, .leaves_at = leaves_at, .next = 0, .payload_bytes = payload_bytes};
    if (queue.frames++ == 0) {
        queue.first = link;
        heap_.push_back({leaves_at, queue_index});
        sift_up(heap_.size() - 1);
    } else {
        slots_[queue.last - 1].next = link;
    }
    queue.last = link;
    ++held_frames_;
    limiter(queue_index).add_queued(payload_bytes);
}

// The first frame of the first queue of the heap.
Frame Shaper::pop_front() {
    Due& due = heap_.front();
    Queue& queue = queues_[due.queue_index];
    const std::uint32_t link = queue.first;
    Slot& slot = slots_[link - 1];
    queue.first = std::exchange(slot.next, first_free_);
    first_free_ = link;
    --held_frames_;
    limiter(due.queue_index).subtract_queued(slot.payload_bytes);
    if (--queue.frames == 0) {
        due = heap_.back();
        heap_.pop_back();
    } else {
        due.at = slots_[queue.first - 1].leaves_at;
    }
    sift_down(0);
    return slot.frame;
}

// ---- The heap

void Shaper::sift_up(std::size_t place) {
    while (place > 0) {
        const std::size_t parent = (place - 1) / 2;
        if (heap_[parent].at <= heap_[place].at) {
            return;
        }
        std::swap(heap_[parent], heap_[place]);
        place = parent;
    }
}

void Shaper::sift_down(std::size_t place) {
    for (;;) {
        std::size_t least = place;
        for (std::size_t child = 2 * place + 1; child <= 2 * place + 2; ++child) {
            if (child < heap_.size() && heap_[child].at < heap_[least].at) {
                least = child;
            }
        }
        if (least == place) {
            return;
        }
        std::swap(heap_[least], heap_[place]);
        place = least;
    }
}

}  // namespace bore::packet
