// Everything that is not a segment of a spliced flow: frames between wire and kernel, the legs of
// connections that may be spliced, the hand-off itself, and the end of flows. One thread calls it;
// it makes no system call and reads no clock, so that a simulation can own sockets, wires and time.
//
// Life of a pair (design, traps and reasons: README.md):
//   1. PASS/HOLD  frames of both legs pass to the kernel; a visitor's payload and FIN are held back
//                 from its first segment on, and the kernel gets the segment stripped of them.
//   2. DRAIN      open_pair(): both legs hold. What the kernel had received is moved to the other
//                 socket, until nothing is unread and nothing unacknowledged.
//   3. FREEZE     wire → kernel is held whole, kernel → wire is dropped, for both tuples.
//   4. READ       state of both sockets; whatever is unread now undoes the freeze.
//   5. INSTALL    both directions of the flow.
//   6. REPLAY     window updates; what was held goes through the packet path as if it came now; the
//                 sockets are closed silently.
//   7. SPLICED    until both FINs are acknowledged, a reset stands, a timeout or a command.
//   8. LINGER     late segments still pass; a new SYN on the tuple ends it.
//   ABORT         from any of 2–5: held frames to the kernel, pair to the stream engine.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/histogram.hpp"
#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/base/clock.hpp"
#include "dataplane/packet/flow_table.hpp"

namespace bore::packet {

// What the kernel's SYN-ACK said of a connection: the first sequence number of its data and of the
// peer's. TCP_INFO counts bytes from there.
struct SocketOrigin {
    std::uint32_t first_sequence{0};
    std::uint32_t first_acknowledgement{0};
};

// What TCP_INFO and TCP_REPAIR tell of a socket. Sequence numbers as in LegState.
struct SocketSnapshot {
    bool established{false};
    bool unacknowledged{false};  // something was written that the peer has not acknowledged
    std::uint32_t snd_nxt{0};
    std::uint32_t rcv_nxt{0};
    std::uint32_t peer_window_bytes{0};
    std::uint16_t peer_mss{536};
    std::uint8_t peer_window_scale{0};
    std::uint8_t own_window_scale{0};
    bool window_scaling{false};
    bool timestamps{false};
    bool sack{false};
    bool unsupported_options{false};  // ECN, fast open with data under way, MPTCP, TCP-AO, …
    // TCP_TIMESTAMP + 1: bit 0 is masked by the kernel. Not asked for when the origin was given.
    std::uint32_t own_timestamp{0};
    std::uint32_t round_trip_us{0};
    // Payload that the kernel has received since the connection began (and a FIN, as one more),
    // at the moment of rcv_nxt or later.
    std::uint64_t received_bytes{0};
};

// The addresses that the control plane told with a pair; only where own_port ≠ 0.
[[nodiscard]] inline FlowKey key_told_by(const abi::LegFacts& facts) {
    return {.peer_address = facts.peer_address,
            .own_address = facts.own_address,
            .peer_port = facts.peer_port,
            .own_port = facts.own_port};
}

using LinkAddress = std::array<std::uint8_t, 6>;

// The world of the slow path. Its functions never block.
class SlowPathHost {
  public:
    virtual ~SlowPathHost() = default;

    // ---- Frames. Copied or sent by the call; the bytes stay the caller's.
    // To the kernel through the exception interface of the port. False: not taken.
    virtual bool to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) = 0;
    virtual bool to_wire(std::uint8_t port_index, std::span<const std::byte> frame) = 0;
    // Through the packet path of the worker that receives this flow, as if it came from the wire.
    virtual bool replay(std::uint32_t worker_index, std::uint8_t port_index,
                        std::span<const std::byte> frame) = 0;

    // ---- Sockets (connected, nonblocking)
    // From the facts where they tell the addresses (own_port ≠ 0), even of a connection that is
    // over; else from the kernel, and an error when it is over.
    [[nodiscard]] virtual std::expected<FlowKey, int> key_of(int socket,
                                                             const abi::LegFacts& facts) = 0;
    [[nodiscard]] virtual std::size_t unread_bytes(int socket) = 0;          // SIOCINQ
    [[nodiscard]] virtual std::size_t unacknowledged_bytes(int socket) = 0;  // SIOCOUTQ
    // Moves what is unread from one socket into the other; what the other does not take stays
    // unread. Returns bytes moved, or errno.
    [[nodiscard]] virtual std::expected<std::size_t, int> move_unread(int from, int to) = 0;
    [[nodiscard]] virtual std::expected<std::size_t, int> send(
        int socket, std::span<const std::byte> bytes) = 0;
    // With the origin, where it is known, there is less to ask the kernel for.
    [[nodiscard]] virtual std::expected<SocketSnapshot, int> snapshot(
        int socket, const std::optional<SocketOrigin>& origin) = 0;
    // No FIN, no RST. The host may do it later, several at once, since nobody hears of
    // it; but close_now() has it done, because a frame on such a tuple may reach the kernel next.
    virtual void close_silently(int socket) = 0;
    virtual void close_now() = 0;

    // ---- For a host that measures: a pair is frozen from the latest freezing() to spliced().
    virtual void freezing() {}
    virtual void spliced() {}

    // ---- Results
    // The pair is the stream engine's from now on: sockets, and bytes still to be sent to them.
    virtual void to_stream(std::uint32_t pair_slot, abi::PairRequest&& request,
                           abi::StreamReason reason) = 0;
    // The pair has ended here (spliced ones only). handle.slot_index = pair_slot.
    virtual void ended(const abi::PairEnded& event) = 0;
};

struct SlowPathOptions {
    std::uint16_t control_port{7835};
    std::uint32_t worker_count{1};
    std::uint32_t max_legs{65'536};                // connections followed
    std::size_t max_held_bytes_per_leg{131'072};   // a visitor's initial window is smaller
    std::size_t max_held_bytes{64U << 20U};        // over all legs
    std::uint32_t max_handoffs{4'096};             // under way at once
    std::uint16_t max_payload_with_options{1460};  // clamp of the MSS option, see clamp below
    base::Nanoseconds drain_deadline_ns{2 * base::second_ns};
    base::Nanoseconds hold_deadline_ns{15 *
                                       base::second_ns};  // not paired: give frames to the kernel
    base::Nanoseconds linger_ns{15 * base::second_ns};
    std::uint32_t max_freezes{64};  // per hand-off
    // `auto` splices when both round trips are at most short_rtt_us or their ratio at most 2.
    std::uint32_t short_rtt_us{4'000};
};

// Limits of tunnels, read when flows are installed and for timeouts.
struct TunnelPath {
    std::uint16_t public_port{0};
    abi::TunnelLimits limits;
    bool open{false};
};

class SlowPath {
  public:
    SlowPath(SlowPathHost& host, FlowTable& table, abi::SlowPathCounters& counters,
             abi::SlowPathHistograms& histograms,
             std::span<abi::TunnelCounters> tunnel_rows,  // this thread's row of each tunnel
             const SlowPathOptions& options);
    ~SlowPath();
    SlowPath(const SlowPath&) = delete;
    SlowPath& operator=(const SlowPath&) = delete;

    // ---- Commands of the control thread, delivered by the engine
    void open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                     const abi::TunnelLimits& limits);
    void set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits);
    void close_tunnel(std::uint32_t tunnel_index);
    void open_pair(std::uint32_t pair_slot, std::uint32_t generation, abi::PairRequest&& request,
                   base::Nanoseconds now);
    void close_pair(std::uint32_t pair_slot, std::uint32_t generation, base::Nanoseconds now);
    // The stream engine has finished with a pair that to_stream() gave it: forget its legs.
    void stream_ended(std::uint32_t pair_slot);
    void drain(base::Nanoseconds deadline, base::Nanoseconds now);

    // ---- Frames
    void from_wire(std::uint32_t worker_index, std::uint8_t port_index,
                   std::span<const std::byte> frame, base::Nanoseconds now);
    void from_kernel(std::uint8_t port_index, std::span<const std::byte> frame,
                     base::Nanoseconds now);

    // ---- What the kernel says of a port's neighbours: the first word, and every change.
    void neighbour(std::uint8_t port_index, const std::array<std::uint8_t, 16>& address,
                   const LinkAddress& link_address, base::Nanoseconds now);

    // ---- Events of the packet path: the flow may have ended (FINs acknowledged, or a reset seen).
    void flow_event(FlowIndex flow, std::uint32_t generation, base::Nanoseconds now);
    // A peer of the flow has acknowledged a byte at `at`, the first one.
    void first_byte(FlowIndex flow, std::uint32_t generation, base::Nanoseconds at,
                    base::Nanoseconds now);
    // Some of them were lost: looks at every flow, bit by bit.
    void recheck_flows();

    // ---- Time. Call it at next_deadline() or later.
    void tick(base::Nanoseconds now);
    [[nodiscard]] base::Nanoseconds next_deadline(base::Nanoseconds now) const;

    // Live spliced flows from this index on, as many as a page takes.
    [[nodiscard]] abi::FlowPage list_flows(FlowIndex from, base::Nanoseconds now);

    [[nodiscard]] bool idle() const;  // no pair under way, no live flow

  private:
    class Implementation;
    std::unique_ptr<Implementation> implementation_;
};

}  // namespace bore::packet
