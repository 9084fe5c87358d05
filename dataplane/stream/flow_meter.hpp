// What a direction's flow behaves like, and what follows from it: the path (receive and send, or
// splice), whether small writes may gather before they are read, and whether its sender is waiting
// for an acknowledgement. Pure bookkeeping, one per direction, fed by the pair.
//
// The idea: a message exchange alternates between the directions, a bulk transfer does not. The
// bytes read since the other direction last moved anything (the streak) tell one from the other
// after few reads, whatever the sizes of the writes are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/base/clock.hpp"

namespace bore::stream {

class FlowMeter {
  public:
    // A streak of this length is bulk: a 20 kB exchange stays interactive, a page of 64 KiB does
    // not repay the pipe.
    static constexpr std::size_t bulk_streak_bytes = 64 * 1024;
    // From here on reads may wait for small writes to gather.
    static constexpr std::size_t gather_streak_bytes = 512 * 1024;
    static constexpr std::size_t gather_low_water_bytes = 512 * 1024;
    // The longest that a byte waits for others, plus a timer tick.
    static constexpr base::Nanoseconds gather_deadline_ns = base::millisecond_ns;
    // Reads of a spliced direction below this are small; so many in a row end the splicing.
    static constexpr std::size_t small_read_bytes = 4'096;
    static constexpr std::uint8_t small_reads_to_copy = 8;
    // At a deadline less than this means that the flow has calmed down.
    static constexpr std::size_t trickle_bytes = 16 * 1024;
    // A spliced direction without a byte for this long gives its pipe back.
    static constexpr base::Nanoseconds pipe_idle_ns = 200 * base::millisecond_ns;

    // A read this large is probably a piece of a longer message whose sender (Nagle's algorithm, as
    // in the Rust client with its writes of 8 KiB) holds the rest back until this is acknowledged.
    static constexpr std::size_t piece_bytes = 4'096;
    // Linux delays an acknowledgement by 40 ms (TCP_DELACK_MIN). A pause of about that length
    // inside one message shows a sender that waited for it.
    static constexpr base::Nanoseconds stall_least_ns = 30 * base::millisecond_ns;
    static constexpr base::Nanoseconds stall_most_ns = 60 * base::millisecond_ns;
    // So many answered single-read messages later it is believed to be cured.
    static constexpr std::uint8_t single_reads_to_forget = 64;

    // `bytes` were read from this direction's source.
    void on_read(std::size_t bytes, base::Nanoseconds now) {
        if (reads_in_message_ > 0) {
            const base::Nanoseconds pause = now - last_read_at_;
            if (pause >= stall_least_ns && pause <= stall_most_ns) {
                sender_waits_ = true;
                single_read_messages_ = 0;
            }
        }
        last_read_at_ = now;
        streak_bytes_ += bytes;
        count_up(reads_in_message_);
        if (bytes >= small_read_bytes) {
            small_reads_ = 0;
        } else {
            count_up(small_reads_);
        }
    }

    // The other direction read something: the message of this one is answered.
    void on_opposite_read() {
        if (reads_in_message_ == 1 && sender_waits_ &&
            ++single_read_messages_ >= single_reads_to_forget) {
            sender_waits_ = false;
        } else if (reads_in_message_ > 1) {
            single_read_messages_ = 0;
        }
        streak_bytes_ = 0;
        reads_in_message_ = 0;
    }

    // Nothing came for a while.
    void on_pause() { streak_bytes_ = 0; }

    [[nodiscard]] base::Nanoseconds last_read_at() const { return last_read_at_; }
    // Copying direction: is it bulk?
    [[nodiscard]] bool is_bulk() const { return streak_bytes_ >= bulk_streak_bytes; }
    // Splicing direction: is it no longer?
    [[nodiscard]] bool is_interactive() const { return small_reads_ >= small_reads_to_copy; }
    // How many bytes should wait in the socket before it is read.
    [[nodiscard]] std::size_t low_water_bytes() const {
        return streak_bytes_ >= gather_streak_bytes ? gather_low_water_bytes : 1;
    }
    // After a read of `bytes` that emptied the socket: acknowledge at once? While small writes
    // gather the kernel does so by itself as long as the low-water mark is not reached.
    [[nodiscard]] bool wants_quick_ack(std::size_t bytes) const {
        return sender_waits_ || (bytes >= piece_bytes && low_water_bytes() == 1);
    }

  private:
    static void count_up(std::uint8_t& counter) {
        if (counter < 255) {
            ++counter;
        }
    }

    std::size_t streak_bytes_{0};
    base::Nanoseconds last_read_at_{0};
    std::uint8_t reads_in_message_{0};
    std::uint8_t small_reads_{0};
    std::uint8_t single_read_messages_{0};
    bool sender_waits_{false};
};

}  // namespace bore::stream
