// The hand-off of a pair from the kernel to the packet path: one explicit state machine per pair.
//
//   HOLD     may this pair be spliced at all? Both legs hold from now on.
//   DRAIN    left-over bytes first, then what a socket has received goes into the other one, until
//            nothing is unread and nothing unacknowledged. Looked at again when a frame of a leg
//            was seen, else after 1 to 5 ms. Deadline: drain_deadline. Skipped at first: most pairs
//            have nothing to drain, and READ finds out.
//   FREEZE   everything from the wire is held, everything from the kernel dropped.
//   READ     the state of both, and whether anything is unread or unacknowledged in that state or
//            since: data that was on its way to the kernel may have come meanwhile, and rcv_nxt
//            would count it. If there is: back to DRAIN, at most max_freezes times.
//   INSTALL  both directions are published.
//   REPLAY   window updates, then what was held goes through the packet path, then the sockets are
//            closed silently.
//   ABORT    from any state before REPLAY: held frames to the kernel, the pair to the stream
//            engine. Nothing was done to the sockets that would have to be undone.
//
// FREEZE to REPLAY is one call without a frame handled in between; the order of its steps is what
// keeps every byte, see README.md.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "dataplane/packet/flow_end.hpp"
#include "dataplane/packet/legs.hpp"

namespace bore::packet {

enum class HandoffState : std::uint8_t { hold, drain, freeze, read, install, replay, abort, over };

struct Handoff : SlowTimer {
    HandoffState state{HandoffState::over};
    std::uint32_t pair_slot{no_pair};
    std::uint32_t generation{0};
    abi::PairRequest request;
    std::array<Leg*, 2> legs{};
    std::array<SocketSnapshot, 2> snapshots{};
    abi::StreamReason reason{abi::StreamReason::policy};  // of ABORT
    FlowIndex flow{no_flow};
    std::array<std::uint64_t, 2> drained_bytes{};  // by who had sent them
    std::array<std::uint64_t, 2> read_bytes{};     // from each socket, since it was accepted
    base::Nanoseconds opened_at{0};
    base::Nanoseconds deadline{0};
    base::Nanoseconds back_off{0};
    std::uint32_t freezes{0};
    bool first_look{true};      // DRAIN was not asked for yet
    bool drain_skipped{false};  // and is taken for done until READ finds otherwise
    bool heard{false};          // waits in the list of those to be looked at

    [[nodiscard]] int socket(std::size_t leg) const {
        return leg == visitor_leg ? request.visitor_socket : request.client_socket;
    }
};

class Handoffs {
  public:
    static constexpr base::Nanoseconds first_back_off_ns = base::millisecond_ns;
    static constexpr base::Nanoseconds last_back_off_ns = 5 * base::millisecond_ns;
    // Legs whose round trips are longer than short_rtt_us may differ by this factor under `auto`.
    static constexpr std::uint32_t alike_rtt_ratio = 2;

    Handoffs(SlowPathContext& context, Legs& legs, Flows& flows)
        : context_(context), legs_(legs), flows_(flows) {}

    void open(std::uint32_t pair_slot, std::uint32_t generation, abi::PairRequest&& request);
    // False when the pair has no hand-off under way.
    bool close(std::uint32_t pair_slot, std::uint32_t generation);
    // A frame of this leg came or went: its hand-off may go on.
    void heard(Leg& leg);
    void abort(Handoff& handoff, abi::StreamReason reason);
    void abort_all(abi::StreamReason reason);

    void run_heard();
    void on_timer(std::uint32_t index);
    [[nodiscard]] bool has_heard() const { return !heard_.empty(); }
    [[nodiscard]] std::size_t count() const { return count_; }

  private:
    using Next = std::optional<HandoffState>;  // nothing: wait

    void advance(Handoff& handoff);
    [[nodiscard]] Next step(Handoff& handoff);
    [[nodiscard]] Next hold(Handoff& handoff);
    [[nodiscard]] Next drain(Handoff& handoff);
    [[nodiscard]] Next freeze(Handoff& handoff);
    [[nodiscard]] Next read(Handoff& handoff);
    [[nodiscard]] Next install(Handoff& handoff);
    [[nodiscard]] Next replay(Handoff& handoff);
    [[nodiscard]] Next give_up(Handoff& handoff);

    [[nodiscard]] Next abort_because(Handoff& handoff, abi::StreamReason reason);
    [[nodiscard]] bool send_left_over(Handoff& handoff, std::size_t source);
    [[nodiscard]] bool move_unread(Handoff& handoff, std::size_t source, bool& moved);
    [[nodiscard]] bool quiet(const Handoff& handoff);
    [[nodiscard]] bool quiet_as_read(const Handoff& handoff);
    [[nodiscard]] Next thaw(Handoff& handoff);
    [[nodiscard]] std::optional<abi::StreamReason> find_legs(Handoff& handoff);
    [[nodiscard]] std::optional<abi::StreamReason> unfit(const Handoff& handoff) const;
    [[nodiscard]] bool long_path(std::uint32_t visitor_us, std::uint32_t client_us) const;
    [[nodiscard]] std::optional<LegState> leg_state(const Handoff& handoff, std::size_t leg) const;
    [[nodiscard]] base::Nanoseconds acknowledgement_hold_ns(const Handoff& handoff) const;
    [[nodiscard]] SegmentFields window_update(const Handoff& handoff, std::size_t leg) const;
    void replay_leg(const Handoff& handoff, std::size_t leg);
    void send_acknowledgement(const Handoff& handoff, std::size_t leg, const SegmentFields& fields);
    void reset_peers(Handoff& handoff);
    void send_reset(const Leg& leg, std::uint32_t sequence, std::uint32_t acknowledgement);
    void wait(Handoff& handoff);
    void count_drained(Handoff& handoff, std::size_t source, std::uint64_t bytes);
    void finish(Handoff& handoff);

    SlowPathContext& context_;
    Legs& legs_;
    Flows& flows_;
    std::deque<Handoff> slots_;
    std::vector<Handoff*> free_;
    std::vector<Handoff*> heard_;
    std::vector<Handoff*> by_slot_;  // the engine numbers its pairs from 0
    std::size_t count_{0};
};

}  // namespace bore::packet
