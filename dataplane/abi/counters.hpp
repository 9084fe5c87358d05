// Every counter of the relay: one line of a table gives its name, its unit and its sentence; the
// same table makes the enumerators, the help text, the log of SIGUSR1 and, later, the shared-memory
// segment and the exporter. A block of counters has one writing thread; any thread may read.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "dataplane/base/spsc_ring.hpp"

namespace bore::abi {

enum class CounterKind : std::uint8_t { counter, gauge };

struct CounterInfo {
    std::string_view name;  // Prometheus style, with the unit last
    CounterKind kind;
    std::string_view help;
};

// One block per worker.                name, kind, sentence
#define BORE_WORKER_COUNTERS(X)                                                              \
    X(pairs_opened_total, counter, "Pairs handed to this worker.")                           \
    X(pairs_live, gauge, "Pairs that this worker holds now.")                                \
    X(pairs_ended_fin_total, counter, "Pairs that ended in order, both directions by FIN.")  \
    X(pairs_ended_reset_total, counter, "Pairs that ended because a leg was reset.")         \
    X(pairs_ended_error_total, counter, "Pairs that ended by another socket error.")         \
    X(pairs_ended_idle_total, counter, "Pairs ended by the idle timeout.")                   \
    X(pairs_ended_half_closed_total, counter, "Pairs ended by the half-closed timeout.")     \
    X(pairs_ended_closed_total, counter, "Pairs closed by command of the control plane.")    \
    X(pairs_ended_drained_total, counter, "Pairs cut at the drain deadline.")                \
    X(copied_bytes_total, counter, "Bytes moved by receive and send.")                       \
    X(spliced_bytes_total, counter, "Bytes moved by splice through a pipe, without a copy.") \
    X(receives_total, counter, "Completed receives with data.")                              \
    X(sends_total, counter, "Completed sends.")                                              \
    X(splices_total, counter, "splice(2) calls that moved data.")                            \
    X(path_to_splice_total, counter, "Directions that changed from receive/send to splice.") \
    X(path_to_copy_total, counter, "Directions that changed from splice to receive/send.")   \
    X(pipes_lent, gauge, "Pipes lent to bulk directions now.")                               \
    X(pipes_exhausted_total, counter, "Bulk directions that found no free pipe.")            \
    X(backpressure_total, counter, "Times that a direction waited for its receiver.")        \
    X(rate_limited_total, counter, "Times that a direction waited for its tunnel's tokens.") \
    X(quick_acks_total, counter, "Acknowledgements sent at once by TCP_QUICKACK.")           \
    X(gather_deadlines_total, counter,                                                       \
      "Bulk reads started by the deadline, not by the low-water mark.")                      \
    X(buffers_exhausted_total, counter, "Receives that found no free provided buffer.")      \
    X(events_deferred_total, counter, "Ended pairs that waited for room in the event ring.") \
    X(loops_total, counter, "Turns of the poll loop.")                                       \
    X(waits_total, counter, "Turns that slept in the kernel.")                               \
    X(spins_total, counter, "Turns that neither slept nor found an event.")                  \
    X(asleep_ns_total, counter, "Time that the poll loop slept in the kernel.")              \
    X(heartbeat_ns, gauge, "CLOCK_MONOTONIC at the latest turn of the poll loop.")

// One row per worker and tunnel; a reader adds the rows up.
#define BORE_TUNNEL_COUNTERS(X)                                                                 \
    X(to_client_bytes_total, counter, "Payload delivered from visitors to the tunnel client.")  \
    X(to_visitor_bytes_total, counter, "Payload delivered from the tunnel client to visitors.") \
    X(tunnel_pairs_opened_total, counter, "Pairs opened on this tunnel.")                       \
    X(tunnel_pairs_live, gauge, "Pairs live on this tunnel.")                                   \
    X(tunnel_rate_limited_total, counter, "Times that a direction waited for the tunnel's tokens.")

// The control thread's block.
#define BORE_CONTROL_COUNTERS(X)                                                                   \
    X(connections_accepted_total, counter, "Connections accepted on the control port.")            \
    X(connections_refused_network_total, counter,                                                  \
      "Connections refused by allow-clients or deny-clients.")                                     \
    X(connections_refused_rate_total, counter,                                                     \
      "Connections refused by the handshake rate of their source.")                                \
    X(connections_refused_unauthenticated_total, counter,                                          \
      "Connections refused by a cap of unauthenticated connections.")                              \
    X(unauthenticated_connections, gauge, "Connections whose handshake is under way.")             \
    X(handshake_failures_total, counter, "Handshakes that failed after a complete message.")       \
    X(handshake_timeouts_total, counter, "Handshakes that ran out of time.")                       \
    X(frame_errors_total, counter, "Connections closed for a frame that is too long or not JSON.") \
    X(authentication_failures_total, counter, "Wrong or missing secrets.")                         \
    X(challenge_misfire_total, counter,                                                            \
      "Challenges sent into a data connection of the fork's dialect.")                             \
    X(http_probes_total, counter, "HTTP requests answered on the control port.")                   \
    X(tunnels_opened_total, counter, "Tunnels opened.")                                            \
    X(tunnels_closed_total, counter, "Tunnels closed.")                                            \
    X(tunnels_live, gauge, "Tunnels live now.")                                                    \
    X(tunnels_refused_limit_total, counter, "Tunnels refused by a cap.")                           \
    X(tunnels_refused_port_total, counter, "Tunnels refused because of the requested port.")       \
    X(clients_dead_total, counter, "Tunnel clients that vanished without closing.")                \
    X(visitors_accepted_total, counter, "Visitors accepted on tunnel ports.")                      \
    X(visitors_refused_network_total, counter,                                                     \
      "Visitors refused by allow-visitors or deny-visitors.")                                      \
    X(visitors_refused_limit_total, counter, "Visitors refused by a cap of live visitors.")        \
    X(visitors_pending, gauge, "Visitors that wait for their client's Accept.")                    \
    X(visitors_unclaimed_total, counter, "Visitors dropped because no client claimed them.")       \
    X(visitors_paused_total, counter,                                                              \
      "Times a tunnel stopped accepting at its cap of pending visitors.")                          \
    X(accepts_unknown_total, counter, "Accept messages with an unknown or expired id.")            \
    X(accepts_unauthorized_total, counter,                                                         \
      "Accept messages that lacked their tunnel's authentication.")                                \
    X(accept_errors_total, counter, "accept(2) errors survived, such as EMFILE.")                  \
    X(handoffs_refused_total, counter,                                                             \
      "Pairs refused because the worker's command ring was full.")                                 \
    X(heartbeats_total, counter, "Heartbeat frames sent.")                                         \
    X(log_lines_dropped_total, counter, "Log lines left out by sampling.")                         \
    X(reloads_total, counter, "Configurations reloaded.")                                          \
    X(tunnels_allowed, gauge, "Tunnels that may be live at once, by max-tunnels.")                 \
    X(draining, gauge, "Whether the relay drains (1) and takes no new tunnels and visitors.")      \
    X(control_heartbeat_ns, gauge, "CLOCK_MONOTONIC at the latest tick of the control thread.")

#define BORE_ENUMERATOR(name, kind, help) name,
enum class WorkerCounter : std::uint16_t { BORE_WORKER_COUNTERS(BORE_ENUMERATOR) count };
enum class TunnelCounter : std::uint16_t { BORE_TUNNEL_COUNTERS(BORE_ENUMERATOR) count };
enum class ControlCounter : std::uint16_t { BORE_CONTROL_COUNTERS(BORE_ENUMERATOR) count };
#undef BORE_ENUMERATOR

#define BORE_INFO(name, kind, help) CounterInfo{#name, CounterKind::kind, help},
inline constexpr std::array worker_counter_infos{BORE_WORKER_COUNTERS(BORE_INFO)};
inline constexpr std::array tunnel_counter_infos{BORE_TUNNEL_COUNTERS(BORE_INFO)};
inline constexpr std::array control_counter_infos{BORE_CONTROL_COUNTERS(BORE_INFO)};
#undef BORE_INFO

// A block of 64-bit values with one writer. Plain loads and stores on x86 and ARM64: the writer
// needs no read-modify-write instruction because nobody else writes.
template <typename Counter>
struct alignas(base::cache_line_bytes) CounterBlock {
    static constexpr std::size_t size = static_cast<std::size_t>(Counter::count);

    void add(Counter counter, std::uint64_t amount = 1) {
        auto& value = values[static_cast<std::size_t>(counter)];
        value.store(value.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
    void subtract(Counter counter, std::uint64_t amount = 1) {
        auto& value = values[static_cast<std::size_t>(counter)];
        value.store(value.load(std::memory_order_relaxed) - amount, std::memory_order_relaxed);
    }
    void set(Counter counter, std::uint64_t amount) {
        values[static_cast<std::size_t>(counter)].store(amount, std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t get(Counter counter) const {
        return values[static_cast<std::size_t>(counter)].load(std::memory_order_relaxed);
    }

    std::array<std::atomic<std::uint64_t>, size> values{};
};

using WorkerCounters = CounterBlock<WorkerCounter>;
using TunnelCounters = CounterBlock<TunnelCounter>;
using ControlCounters = CounterBlock<ControlCounter>;

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(sizeof(TunnelCounters) == base::cache_line_bytes, "a row is one cache line");

}  // namespace bore::abi
