// The packet path of one worker: a burst of frames in, frames to send and frames for the slow path
// out. Nothing here allocates, locks, logs or reads a clock. Stages, each over the whole burst, so
// that the memory that one needs is fetched while the one before still works:
//
//   1. parse      shape and hash; the bucket is prefetched.
//   2. candidate  the direction that the bucket names; its entry is prefetched.
//   3. translate  is it the one? Then in place: the shortest way (express.hpp), or the general one
//                 for whatever that refuses. Frames are grouped by where they go.
//   4. emit       one call of the outlet for each group.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/base/clock.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/frame.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/packet/port.hpp"
#include "dataplane/packet/translate.hpp"

namespace bore::packet {

class Shaper;

// What the slow path hears of a flow.
struct FlowEvent {
    enum class Kind : std::uint8_t {
        end,         // to be looked at: both FINs acknowledged, or a reset
        first_byte,  // a peer has acknowledged one; not in a hurry. May come twice, from two
                     // workers
    };
    FlowIndex flow{no_flow};
    std::uint32_t generation{0};
    Kind kind{Kind::end};
    base::Nanoseconds at{0};
};

// Where a worker's frames go; called once per burst and target, not per frame.
class Outlet {
  public:
    virtual ~Outlet() = default;
    // To the wire: frames[i].port_index says where. Owns the buffers from now on. At most max_burst
    // frames a call. Counts packets_sent_total and what the ports do not take.
    virtual void send(std::span<Frame> frames) = 0;
    // To the slow path. Owns the buffers from now on.
    virtual void divert(std::span<Frame> frames) = 0;
    virtual void drop(std::span<Frame> frames) = 0;
    // A buffer to split into, of the pool of `port_index`; false when there is none.
    [[nodiscard]] virtual bool allocate(std::uint8_t port_index, Frame& frame) = 0;
    virtual void flow_event(const FlowEvent& event) = 0;
};

class Pipeline {
  public:
    // `tunnel_rows` are this worker's, by tunnel index. All referred to must outlive the pipeline.
    Pipeline(std::uint32_t worker_index, FlowTable& table, abi::PacketWorkerCounters& counters,
             std::span<abi::TunnelCounters> tunnel_rows, Outlet& outlet);

    // Segments of limited directions go by it once they are translated; nullptr: nothing is
    // limited. What it holds is its own until the worker's loop asks it for what is due.
    void set_shaper(Shaper* shaper) { shaper_ = shaper; }

    // Takes the buffers of all frames. The caller publishes quiescent points of the table between
    // two calls, never during one.
    void process(std::span<Frame> frames, base::Nanoseconds now);

    [[nodiscard]] std::uint32_t worker_index() const { return worker_index_; }

  private:
    static_assert(max_burst <= 64);  // a bit each
    // A frame that does not go the shortest way.
    struct Slot {
        TcpView view;
        DirectionIndex direction;
        PacketReason reason;  // spliced as long as nothing speaks against it
    };
    // Bytes that a peer of some tunnel has newly acknowledged, not yet in its row.
    struct Delivery {
        std::uint32_t place{0};  // place_of()
        std::uint64_t bytes{0};
    };
    // Tunnel and the leg whose peer acknowledged.
    [[nodiscard]] static std::uint32_t place_of(std::uint16_t tunnel_index,
                                                DirectionIndex direction) {
        return std::uint32_t{tunnel_index} << 1U | (direction & 1U);
    }
    // What the burst has brought about so far. frames[0, send_count) are ready to be sent.
    struct Burst {
        std::span<Frame> frames;
        base::Nanoseconds now;
        Moment moment;
        std::uint64_t general;  // parse_all()'s
        std::size_t send_count{0};
        std::size_t divert_count{0};
        std::size_t drop_count{0};
        std::uint32_t spliced_count{0};
        // Bytes delivered to the same place one after the other; most bursts have one or two.
        Delivery delivery;
        Tally tally;
    };

    void process_burst(std::span<Frame> frames, base::Nanoseconds now);
    // The stages are functions of their own, so that each has the registers for itself.
    // Returns a bit for each frame that does not go the shortest way, the first is the lowest.
    [[gnu::noinline, nodiscard]] std::uint64_t parse_all(std::span<const Frame> frames,
                                                         const FlowTable::Reader& reader);
    [[gnu::noinline]] void parse_general(const Frame& frame, std::size_t index,
                                         const FlowTable::Reader& reader);
    [[gnu::noinline]] void find_candidates(std::size_t frame_count,
                                           const FlowTable::Reader& reader);
    void prefetch_addresses(std::uint64_t general) const;
    void translate_all(Burst& burst);
    template <bool moves>
    [[gnu::noinline, nodiscard]] std::size_t pass_run(Burst& burst, std::size_t first);
    [[nodiscard]] PacketReason confirm(const Burst& burst, std::size_t index);
    [[gnu::noinline]] void translate_general(Burst& burst, std::size_t index);
    void translate_rest(Burst& burst, std::size_t index);
    void divert_or_drop(Burst& burst, const Frame& frame, PacketReason reason);
    void emit_limited(Burst& burst, const Frame& frame, const Slot& slot,
                      std::uint32_t payload_bytes);
    void emit_split(Burst& burst, const Frame& frame, const Slot& slot, const Outcome& outcome);
    [[nodiscard]] PacketReason admit(const Burst& burst, const Frame& frame, const Slot& slot,
                                     std::uint32_t payload_bytes);
    void deliver(Delivery& delivery, std::uint32_t place, std::uint32_t bytes);
    void tell_first_byte(const Burst& burst, DirectionIndex direction);
    [[gnu::noinline]] void flush_delivered(const Delivery& delivery);
    void flush_send(Burst& burst);
    void count(const Burst& burst);

    std::uint32_t worker_index_;
    FlowTable& table_;
    abi::PacketWorkerCounters& counters_;
    std::span<abi::TunnelCounters> tunnel_rows_;
    Outlet& outlet_;
    Shaper* shaper_{nullptr};
    // Of the burst, by frame. What all frames need lies apart from what few do.
    std::array<std::uint32_t, max_burst> hashes_{};
    std::array<const FlowBucket*, max_burst> buckets_{};
    std::array<DirectionIndex, max_burst> directions_{};
    std::array<Slot, max_burst> slots_{};
    std::array<Frame, max_burst> divert_;
    std::array<Frame, max_burst> drop_;
};

}  // namespace bore::packet
