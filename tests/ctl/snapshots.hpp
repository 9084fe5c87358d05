// Snapshots by hand, as a relay's segment would give them.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "dataplane/abi/snapshot.hpp"

namespace bore::ctl::testing {

inline constexpr base::Nanoseconds start_ns = 1000 * base::second_ns;

inline abi::TunnelSnapshot tunnel(std::uint32_t row, std::uint16_t port, std::string_view client,
                                  std::uint64_t to_client = 0, std::uint64_t to_visitor = 0) {
    abi::TunnelSnapshot tunnel;
    tunnel.row_index = row;
    tunnel.description.generation = 1;
    tunnel.description.port = port;
    tunnel.description.state = abi::TunnelState::live;
    tunnel.description.since_monotonic_ns = start_ns;
    abi::set_text(tunnel.description.client_address, client);
    const auto set = [&tunnel](abi::TunnelCounter counter, std::uint64_t value) {
        tunnel.stream.values[static_cast<std::size_t>(counter)] = value;
    };
    set(abi::TunnelCounter::to_client_bytes_total, to_client);
    set(abi::TunnelCounter::to_visitor_bytes_total, to_visitor);
    set(abi::TunnelCounter::tunnel_pairs_opened_total, 1);
    tunnel.visitors_live = 1;
    return tunnel;
}

inline abi::Snapshot snapshot(base::Nanoseconds after_ns,
                              std::vector<abi::TunnelSnapshot> tunnels = {}) {
    abi::Snapshot taken;
    taken.path = "/dev/shm/bore-one";
    taken.identity.process_id = 42;
    taken.identity.started_realtime_ns = 1'764'424'800 * base::second_ns;  // 2025-11-29T14:00:00Z
    taken.identity.started_monotonic_ns = start_ns;
    abi::set_text(taken.identity.server_id, "one");
    abi::set_text(taken.identity.version, "1.2.3");
    taken.instance_id = 7;
    taken.taken_at = start_ns + after_ns;
    taken.writer_alive = true;
    taken.workers.resize(1);
    taken.tunnels = std::move(tunnels);
    taken.control.values[static_cast<std::size_t>(abi::ControlCounter::tunnels_live)] =
        taken.tunnels.size();
    return taken;
}

}  // namespace bore::ctl::testing
