// The engine seam: what the control plane sees of whatever moves the bytes. Two engines stand
// behind it: the stream engine (kernel TCP) and the packet engine (DPDK), which takes the same two
// sockets out of the kernel and falls back to the first. The control plane calls from one
// thread; after open_pair() it never touches the sockets or their bytes again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/flow_page.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::abi {

// The two legs of a pair and of every table indexed by leg.
enum class Leg : std::uint8_t { visitor = 0, client = 1 };

// Which way a tunnel's pairs may take. The stream engine ignores it; the packet engine splices
// frames where the rules of `automatic` allow or `splice` demands it.
enum class PathPolicy : std::uint8_t { automatic, splice, stream };

// A tunnel's limits. Rates are payload bytes per second over all pairs of the tunnel, one direction
// each; 0 = unlimited. Timeouts in milliseconds; 0 = none.
struct TunnelLimits {
    std::uint64_t to_client_bytes_per_second{0};
    std::uint64_t to_visitor_bytes_per_second{0};
    std::uint64_t idle_timeout_ms{0};
    std::uint64_t half_closed_timeout_ms{0};
    PathPolicy path_policy{PathPolicy::automatic};

    bool operator==(const TunnelLimits&) const = default;
};

// Names a live pair: valid from open_pair() until its PairEnded was polled. A handle used later is
// recognized by its generation and ignored.
struct PairHandle {
    std::uint32_t slot_index{0};
    std::uint32_t generation{0};

    bool operator==(const PairHandle&) const = default;
};

// What the caller knows of a connection already, so that an engine need not ask the kernel again.
struct LegFacts {
    std::array<std::uint8_t, 16> peer_address{};  // IPv4 in its mapped form
    std::array<std::uint8_t, 16> own_address{};
    std::uint16_t peer_port{0};
    std::uint16_t own_port{0};    // 0: no address and no port is known
    std::uint64_t read_bytes{0};  // read from the connection since it began, by whomever
};

// Two connected, nonblocking TCP sockets with TCP_NODELAY set (accepted sockets inherit it from
// their listener) and what the control plane already read from them.
// open_pair() takes the sockets over when it succeeds and leaves them to the caller when it fails.
// At most max_left_over_bytes may be handed over; either engine delivers them first.
struct PairRequest {
    int visitor_socket{-1};
    int client_socket{-1};
    std::vector<std::byte> left_over_to_visitor;  // read from the client behind its Accept
    std::vector<std::byte> left_over_to_client;   // read from the visitor; empty today
    std::uint32_t tunnel_index{0};                // row of Statistics; < tunnel_capacity
    std::uint64_t tag{0};                         // the caller's, comes back in PairEnded
    // What another engine delivered before it gave the pair away; counts in PairEnded.
    std::uint64_t delivered_to_client_bytes{0};
    std::uint64_t delivered_to_visitor_bytes{0};
    std::array<LegFacts, 2> facts{};  // by Leg
};

enum class OpenError : std::uint8_t {
    busy,      // the worker's command ring is full
    draining,  // drain() was called
};

#define BORE_END_REASONS(X)                                                                 \
    X(fin, "both directions ended in order")                                                \
    X(reset, "a leg was reset by its peer; the other leg was reset, too")                   \
    X(error, "a leg failed with a socket error; the other leg was reset")                   \
    X(idle, "no byte moved for the idle timeout")                                           \
    X(half_closed, "one direction had ended and no byte moved for the half-closed timeout") \
    X(closed, "closed by the control plane")                                                \
    X(drained, "cut at the drain deadline")

enum class EndReason : std::uint8_t {
#define BORE_ENUMERATOR(name, help) name,
    BORE_END_REASONS(BORE_ENUMERATOR)
#undef BORE_ENUMERATOR
        count
};

[[nodiscard]] std::string_view to_string(EndReason reason);

// Reported once per pair that open_pair() took; its sockets are closed by then.
struct PairEnded {
    PairHandle handle;
    std::uint64_t tag{0};
    std::uint32_t tunnel_index{0};
    EndReason reason{EndReason::fin};
    int error_number{0};  // errno of the leg that failed, where reason is reset or error
    std::uint64_t to_client_bytes{0};  // payload delivered
    std::uint64_t to_visitor_bytes{0};
    std::uint64_t spliced_bytes{0};  // part of the two that went without a copy
    base::Nanoseconds duration_ns{0};
};

class Engine {
  public:
    virtual ~Engine() = default;

    // A tunnel begins: its row of counters, its public port, its limits. Before any of its pairs.
    // (The packet engine starts to hold the first packets of visitors of this port.)
    virtual void open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                             const TunnelLimits& limits) = 0;
    // New limits for the tunnel; pairs already running follow at once.
    virtual void set_tunnel_limits(std::uint32_t tunnel_index, const TunnelLimits& limits) = 0;
    // The tunnel ends; pairs already running go on. The row may be given out again when the last of
    // them was reported.
    virtual void close_tunnel(std::uint32_t tunnel_index) = 0;

    // Hands a pair over. Never blocks.
    [[nodiscard]] virtual std::expected<PairHandle, OpenError> open_pair(PairRequest&& request) = 0;

    // Ends a pair by resetting both legs; PairEnded with reason `closed` follows.
    virtual void close_pair(PairHandle handle) = 0;
    // The same for every live pair of the tunnel, or, given none, of all. Looks at all pairs: for
    // an operator's command.
    virtual void close_pairs_of(std::optional<std::uint32_t> tunnel_index) = 0;

    // No new pairs from now on; pairs still live at `deadline` (base::monotonic_now() scale) are
    // reset. drained() is true when none is left and all events were polled.
    virtual void drain(base::Nanoseconds deadline) = 0;
    [[nodiscard]] virtual bool drained() const = 0;

    // Becomes readable when events wait. The caller watches it and then calls poll_events().
    [[nodiscard]] virtual int event_descriptor() const = 0;
    // Appends up to a bounded batch of events; true when more may wait.
    [[nodiscard]] virtual bool poll_events(std::vector<PairEnded>& events) = 0;

    // Tells of spliced flows from place `from` of the flow table on, a page at a time. `told` is
    // called on the caller's thread, at once or from a later poll_events(); pages come in the order
    // in which they were asked for. An engine without a packet path says so.
    using FlowsTold = std::function<void(FlowPage&& page)>;
    virtual void list_flows(std::uint32_t /*from*/, FlowsTold&& told) { told({}); }

    // Makes every worker turn its loop once, so that its heartbeat_ns moves: a worker asleep and
    // one that is stuck look alike otherwise. For the watchdog.
    virtual void wake_workers() {}

    // Whether it would ask the kernel for the addresses in LegFacts when the caller does not say.
    [[nodiscard]] virtual bool wants_addresses() const { return false; }

    [[nodiscard]] virtual std::uint32_t worker_count() const = 0;
    // One line for the start-up log: driver, features, workers.
    [[nodiscard]] virtual std::string description() const = 0;
};

}  // namespace bore::abi
