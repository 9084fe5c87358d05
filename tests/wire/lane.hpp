// One direction of the wire: decides the fate of each frame (lost, doubled, overtaken, late) and
// when it leaves. Pure: no system call, no clock; the same seed and the same frames give the same
// fates. Frames are numbers of buffers, never bytes: nothing is copied here.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_set>
#include <vector>

namespace bore::wire {

using Nanoseconds = std::int64_t;

struct Impairments {
    double loss_percent{0};
    double duplicate_percent{0};
    double reorder_percent{0};
    Nanoseconds delay_ns{0};
    bool drop_handshake_ack{false};  // the first bare ACK behind a SYN, once per connection
    std::uint64_t seed{1};
};

// A frame that was picked for reordering waits until so many others overtook it, or so long. Three
// is where a sender takes it for lost (RFC 5681), so both sides of that are met.
inline constexpr std::uint32_t min_overtakers = 1;
inline constexpr std::uint32_t max_overtakers = 8;
inline constexpr Nanoseconds max_overtaken_ns = 2'000'000;

struct LaneCounters {
    std::uint64_t received_frames, received_bytes, sent_frames, sent_bytes;
    std::uint64_t lost, duplicated, reordered, handshake_acks_dropped, cut;
    std::uint64_t no_buffer, send_errors, oversized;
};

// What a lane wants to know about a frame.
enum class Kind : std::uint8_t { other, tcp, tcp_syn, tcp_bare_ack };
struct Parsed {
    Kind kind{Kind::other};
    std::uint64_t connection{0};  // hash of addresses and ports, this direction
};
[[nodiscard]] Parsed parse(std::span<const std::uint8_t> frame);

using BufferIndex = std::uint32_t;

class Lane {
  public:
    Lane(const Impairments& impairments, std::uint64_t lane_number);

    enum class Fate : std::uint8_t { sent, sent_twice, dropped };
    // Takes a frame. `dropped`: the buffer is the caller's again; `sent_twice`: the buffer will
    // come out of take_due() two times.
    [[nodiscard]] Fate push(BufferIndex buffer, const Parsed& parsed, Nanoseconds now);

    // Appends the frames that leave at `now`, in their order, at most `limit`.
    void take_due(Nanoseconds now, std::size_t limit, std::vector<BufferIndex>& due);
    // Frames that could not be sent, in their order: they are due again, before all others.
    void give_back(std::span<const BufferIndex> unsent, Nanoseconds now);
    // When take_due() has something next; a negative number for never.
    [[nodiscard]] Nanoseconds next_due() const;
    [[nodiscard]] std::size_t waiting() const { return line_.size() + overtaken_.size(); }

    [[nodiscard]] LaneCounters& counters() { return counters_; }

  private:
    struct Leaving {
        BufferIndex buffer;
        Nanoseconds due;
    };
    struct Overtaken {
        BufferIndex buffer;
        std::uint32_t overtakers_left;
        Nanoseconds deadline;
    };

    [[nodiscard]] std::uint64_t random();
    [[nodiscard]] bool chance(double percent);
    [[nodiscard]] bool is_handshake_ack(const Parsed& parsed);
    void enqueue(BufferIndex buffer, Nanoseconds now);
    void count_overtaker(Nanoseconds now);
    void release_late(Nanoseconds now);

    Impairments impairments_;
    std::uint64_t random_state_;
    std::deque<Leaving> line_;
    std::deque<Overtaken> overtaken_;
    std::unordered_set<std::uint64_t> handshakes_;  // a SYN went by, its bare ACK not yet
    LaneCounters counters_{};
};

}  // namespace bore::wire
