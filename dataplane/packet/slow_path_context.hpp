// What the parts of the slow path share: the seam, the table, the counters, the tunnels, one timer
// wheel and the time of the current call. Made by SlowPath, used by its legs, hand-offs and flow
// ends; one thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "dataplane/abi/packet_counters.hpp"
#include "dataplane/base/timer_wheel.hpp"
#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/slow_path.hpp"

namespace bore::packet {

using SlowCounter = abi::SlowPathCounter;

// The order of abi::Leg, for loops over both.
inline constexpr std::size_t visitor_leg = static_cast<std::size_t>(abi::Leg::visitor);
inline constexpr std::size_t client_leg = static_cast<std::size_t>(abi::Leg::client);
inline constexpr std::array leg_indices{visitor_leg, client_leg};
inline constexpr std::uint32_t no_pair = 0xffff'ffff;

// A timer of the slow path's one wheel; the kind says whose, the index which one.
struct SlowTimer : base::TimerNode {
    enum class Kind : std::uint8_t { leg, handoff, flow };
    std::uint32_t index{0};
    Kind kind{Kind::leg};
};

// Tunnels by index and their public ports. A closed tunnel's limits stay: its flows go on.
class TunnelPorts {
  public:
    void open(std::uint32_t tunnel_index, std::uint16_t public_port,
              const abi::TunnelLimits& limits);
    void set_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits);
    void close(std::uint32_t tunnel_index);

    [[nodiscard]] bool is_open(std::uint16_t public_port) const {
        return ports_.contains(public_port);
    }
    // Whether the first frames of this port's visitors are held.
    [[nodiscard]] bool holds(std::uint16_t public_port) const;
    [[nodiscard]] const abi::TunnelLimits& limits(std::uint32_t tunnel_index) const;

  private:
    std::vector<TunnelPath> tunnels_;
    std::unordered_map<std::uint16_t, std::uint32_t> ports_;
};

struct SlowPathContext {
    // Hand-offs are looked at again after 1 ms, so the tick is a quarter of that.
    static constexpr base::Nanoseconds tick_ns = 250 * base::microsecond_ns;

    SlowPathHost& host;
    FlowTable& table;
    abi::SlowPathCounters& counters;
    abi::SlowPathHistograms& histograms;
    std::span<abi::TunnelCounters> tunnel_rows;
    SlowPathOptions options;
    TunnelPorts tunnels;
    base::TimerWheel wheel{0, tick_ns};
    base::Nanoseconds next_due{~base::Nanoseconds{0}};  // no timer is due before; asking costs 1 us
    base::Nanoseconds now{0};
    bool draining{false};

    void arm(SlowTimer& timer, base::Nanoseconds due) {
        wheel.arm(timer, due);
        next_due = std::min(next_due, due);
    }
    void to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) {
        counters.add(host.to_kernel(port_index, frame) ? SlowCounter::frames_to_kernel_total
                                                       : SlowCounter::kernel_write_errors_total);
    }
    [[nodiscard]] abi::TunnelCounters& row(std::uint32_t tunnel_index) {
        return tunnel_rows[tunnel_index];
    }
    // Payload that left the relay towards the other leg's peer; `source` is who had sent it.
    void count_delivered(std::uint32_t tunnel_index, std::size_t source, std::uint64_t bytes) {
        row(tunnel_index)
            .add(source == visitor_leg ? abi::TunnelCounter::to_client_bytes_total
                                       : abi::TunnelCounter::to_visitor_bytes_total,
                 bytes);
    }
};

}  // namespace bore::packet
