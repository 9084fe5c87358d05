// The state machine of one pair: two legs, two directions, every byte once and in order. No system
// call in it: it answers the events of a driver with the verbs of Io and is driven the same way by
// the simulation of the tests. Owned by a Shard; one thread.
//
// The path of a byte: it is read from the source leg (into a buffer of the driver's, or into a
// pipe), sent to the target leg at once, and held here only if the target does not take it; then
// the source is not read until the target has taken everything (back-pressure).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/abi/counters.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/tunnel_limits.hpp"
#include "dataplane/base/timer_wheel.hpp"
#include "dataplane/stream/flow_meter.hpp"
#include "dataplane/stream/io.hpp"

namespace bore::stream {

class Shard;

inline constexpr Leg other(Leg leg) {
    return leg == Leg::visitor ? Leg::client : Leg::visitor;
}
inline constexpr std::size_t index_of(Leg leg) {
    return static_cast<std::size_t>(leg);
}

// A timer that knows whom to wake. `leg` names a direction; the pair's own timer has its own kind.
struct PairTimer : base::TimerNode {
    enum class Kind : std::uint8_t { direction, pair, shard };
    Pair* pair{nullptr};
    Leg leg{Leg::visitor};
    Kind kind{Kind::direction};
};

class Pair {
  public:
    Pair();
    Pair(const Pair&) = delete;
    Pair& operator=(const Pair&) = delete;

    // Begins to move bytes. The sockets are the driver's business; the left-overs are delivered
    // first. `shard` outlives the pair.
    void open(Shard& shard, abi::PairRequest&& request, std::uint32_t slot_index,
              std::uint32_t generation);

    // Events of the driver. `source` is the leg that was read, `target` the one written to.
    void on_data(Leg source, std::span<const std::byte> bytes, bool more_waits);
    void on_end_of_stream(Leg source);
    void on_error(Leg leg, int error_number);
    void on_receive_stopped(Leg source);
    void on_readable(Leg source);
    void on_writable(Leg target);
    void on_closed();

    // Events of the shard.
    void on_timer(const PairTimer& timer);
    void on_limits_changed();
    void close(abi::EndReason reason);

    [[nodiscard]] bool live() const { return state_ == State::live; }
    [[nodiscard]] std::uint32_t slot_index() const { return slot_index_; }
    [[nodiscard]] std::uint32_t generation() const { return generation_; }
    [[nodiscard]] std::uint32_t tunnel_index() const { return tunnel_index_; }
    [[nodiscard]] abi::PairEnded ended() const;

  private:
    enum class State : std::uint8_t { free, live, closing };
    enum class Path : std::uint8_t { copy, splice };
    // What was asked of the source leg.
    enum class Source : std::uint8_t { idle, receiving, stopping, watching, ended };

    struct Direction {
        FlowMeter meter;
        PairTimer timer;  // gathering, tokens, or an idle pipe: whichever applies to the state
        std::vector<std::byte> held;  // read, not yet taken by the target (copy path)
        std::size_t held_offset{0};
        std::size_t pipe_bytes{0};  // the same on the splice path
        std::size_t low_water_bytes{1};
        std::uint64_t delivered_bytes{0};
        std::uint64_t spliced_bytes{0};
        Path path{Path::copy};
        Source source{Source::idle};
        bool blocked{false};  // the target is watched for room
        bool waits_for_tokens{false};
        bool has_pipe{false};
        bool wants_splice{false};  // the receive is being stopped for it
        bool finished{false};      // the target's write side is shut down
    };

    Direction& reading(Leg source) { return directions_[index_of(source)]; }
    [[nodiscard]] const Direction& reading(Leg source) const {
        return directions_[index_of(source)];
    }
    [[nodiscard]] bool holds_bytes(const Direction& direction) const {
        return direction.pipe_bytes > 0 || direction.held_offset < direction.held.size();
    }

    void advance(Leg source);
    void ask_for_more(Leg source);
    void wait_readable(Leg source);
    void wait_for_tokens(Leg source);
    void read_now(Leg source);
    void read_limited(Leg source);
    void pump(Leg source);
    enum class Fill : std::uint8_t { again, wait, empty, done };
    Fill fill_and_deliver(Leg source);
    void return_to_copying(Leg source);
    bool deliver(Leg source);
    void forward(Leg source, std::span<const std::byte> bytes);
    void hold(Leg source, std::span<const std::byte> bytes);
    void block(Leg source);
    void note_read(Leg source, std::size_t bytes, bool drained);
    void note_delivered(Leg source, std::size_t bytes, bool spliced);
    void stop_receiving(Leg source);
    void choose_path(Leg source);
    void start_splicing(Leg source);
    void stop_splicing(Leg source);
    void finish(Leg source);
    void fail(int error_number);
    void end(abi::EndReason reason, bool reset);
    void on_direction_timer(Leg source);
    void on_pair_timer();
    // How often a leg that nothing watches is asked whether it was reset.
    static constexpr base::Nanoseconds supervision_ns = 500 * base::millisecond_ns;
    void supervise_from_now();
    [[nodiscard]] bool unobserved(Leg leg) const;
    struct Deadline {
        base::Nanoseconds at;
        abi::EndReason reason;
    };
    [[nodiscard]] Deadline quiet_deadline();
    void arm_pair_timer();
    [[nodiscard]] abi::RateLimiter& limiter(Leg source);
    Io& io();

    Shard* shard_{nullptr};
    std::array<Direction, 2> directions_;
    PairTimer timer_;
    base::Nanoseconds opened_at_{0};
    base::Nanoseconds active_at_{0};
    base::Nanoseconds half_closed_at_{0};  // 0 = both directions open
    std::uint64_t tag_{0};
    std::uint32_t slot_index_{0};
    std::uint32_t generation_{0};
    std::uint32_t tunnel_index_{0};
    int error_number_{0};
    State state_{State::free};
    abi::EndReason reason_{abi::EndReason::fin};
    bool supervised_{false};
    bool first_byte_due_{false};  // it is to be measured yet
};

}  // namespace bore::stream
