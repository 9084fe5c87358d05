// The bandwidth limits of tunnels on the packet path: one worker's part of the queues in front of
// emit. A translated segment gets its time to leave from its tunnel's bucket (abi::RateLimiter, the
// very same that the stream engine reads by): the moment at which everything charged before it, by
// any worker, is paid off. It goes at once when that has come, waits in order when not, and is
// dropped when too much waits already. One worker calls all of it; the buckets alone are shared.
// Nothing allocates after construction. How long the queues are, and why: README.md, "Limits".
//
//   1. admit()        each segment with payload, FIN or RST of a limited direction, translated.
//   2. release_due()  once per turn of the loop: what may leave now.
//   3. next_due()     how long the worker may sleep.
//
// A segment with neither payload nor FIN nor RST is never asked about: an acknowledgement must not
// wait behind data of its own direction, it belongs to the other direction's rate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/abi/tunnel_limits.hpp"
#include "dataplane/base/clock.hpp"
#include "dataplane/packet/frame.hpp"

namespace bore::packet {

struct ShaperOptions {
    std::uint32_t tunnel_count{abi::max_tunnels};
    // Frames that this worker holds at most, over all tunnels. Each keeps a buffer of the pool of
    // the port it came from: size the pools for it.
    std::uint32_t slot_count{8'192};
};

class Shaper {
  public:
    enum class Admit : std::uint8_t {
        send,  // the caller goes on with the frame
        held,  // the shaper owns the buffer until release_due()
        drop,  // the caller keeps the frame and drops it: PacketReason::rate_limited
    };
    static constexpr base::Nanoseconds never = std::numeric_limits<base::Nanoseconds>::max();

    // What a tunnel direction may have waiting, over all workers: 20 ms of its rate; where that is
    // less, 32 full segments (below 19 Mbit/s); but of those no more than 400 ms (below 0.9
    // Mbit/s), unless they are 4.
    static constexpr base::Nanoseconds queue_ns = 20 * base::millisecond_ns;
    static constexpr std::uint32_t queue_segments = 32;
    static constexpr base::Nanoseconds slow_queue_ns = 400 * base::millisecond_ns;
    static constexpr std::uint32_t min_queue_segments = 4;
    static constexpr std::uint32_t full_segment_bytes = 1'460;  // or the segment's own, if larger
    // One tunnel direction may not take all slots of a worker.
    static constexpr std::uint32_t slot_share = 4;
    // Unused time counts up to this. A polling worker is not late by more, and a longer burst would
    // teach slow start a rate that the tunnel does not have: what was too much is lost in one
    // piece.
    static constexpr base::Nanoseconds burst_ns = 10 * base::millisecond_ns;

    Shaper(abi::TunnelTable& tunnels, const ShaperOptions& options);

    // `source` is the leg whose peer sent the frame: leg_of(direction). The frame is ready to be
    // sent, port_index included.
    [[nodiscard]] Admit admit(const Frame& frame, std::uint32_t tunnel_index, abi::Leg source,
                              std::uint32_t payload_bytes, base::Nanoseconds now);

    // Fills `out` from the front with frames to send and returns how many. What finds no room there
    // stays due. Limits that have changed since the last call are taken up here.
    [[nodiscard]] std::size_t release_due(base::Nanoseconds now, std::span<Frame> out);

    // When release_due() should be called next; `never` when nothing waits.
    [[nodiscard]] base::Nanoseconds next_due() const;

    [[nodiscard]] std::uint32_t held_frames() const { return held_frames_; }

    // Frames whatever their time, for a worker that stops; 0 when none is left.
    [[nodiscard]] std::size_t abandon(std::span<Frame> out);

  private:
    struct Slot {
        Frame frame;
        base::Nanoseconds leaves_at{0};
        std::uint32_t next{0};
        std::uint32_t payload_bytes{0};
    };
    // Zeroed memory is an empty queue, so that the queues of tunnels without a limit cost no pages.
    // Links to slots count from 1; 0 is none.
    struct Queue {
        std::uint32_t first;
        std::uint32_t last;
        std::uint32_t frames;
    };
    struct Free {
        void operator()(Queue* queues) const;
    };
    struct Due {
        base::Nanoseconds at;
        std::uint32_t queue_index;
    };

    [[nodiscard]] abi::RateLimiter& limiter(std::uint32_t queue_index);
    [[nodiscard]] bool may_hold(const abi::RateLimiter& bucket, const Queue& queue,
                                std::uint32_t payload_bytes) const;
    void push(std::uint32_t queue_index, const Frame& frame, std::uint32_t payload_bytes,
              base::Nanoseconds leaves_at);
    Frame pop_front();
    void take_up_limits();

    void sift_up(std::size_t place);
    void sift_down(std::size_t place);

    abi::TunnelTable& tunnels_;
    std::uint32_t queue_count_;
    std::uint32_t change_count_;
    std::uint32_t held_frames_{0};
    std::uint32_t first_free_{0};
    std::vector<Slot> slots_;
    std::unique_ptr<Queue[], Free> queues_;
    std::vector<Due> heap_;  // queues with frames, by their first frame's time
};

}  // namespace bore::packet
