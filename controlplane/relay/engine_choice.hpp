// Which engine runs, and everything that it needs around it: DPDK's environment, ports, exception
// interfaces, kernel rules, privileges. Composition like main.cpp, split from it for its length.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/config/server_config.hpp"
#include "controlplane/relay/log.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/abi/tunnel_limits.hpp"
#include "drivers/dpdk/eal.hpp"
#include "drivers/kernel/kernel_rules.hpp"
#include "drivers/packet_engine/packet_engine.hpp"

namespace bore::relay {

// The counts that the engine and its statistics agree on.
struct EngineShape {
    std::uint32_t stream_workers{1};
    std::uint32_t packet_workers{0};
};

// What the packet engine stands on, ready to run; destroyed in reverse after the engine.
struct PacketParts {
    std::unique_ptr<drivers::Eal> eal;
    std::unique_ptr<packet::TableMemory> memory;
    std::unique_ptr<packet::FlowTable> table;  // moved into the engine
    std::vector<std::unique_ptr<drivers::KernelRules>> rules;
    std::vector<drivers::EnginePort> ports;  // moved into the engine
    EngineShape shape;
};

// Opens the ports that the configuration names. Nothing: the stream engine is to run, because it
// was asked for, or because `auto` found the packet engine impossible (the reason is logged). The
// error is a sentence, and the relay must not start.
[[nodiscard]] std::expected<std::optional<PacketParts>, std::string> open_packet_ports(
    const config::ServerConfig& config, Log& log);

// Whether the relay runs on with CAP_NET_ADMIN alone, and as --packet-user: where the packet engine
// was to run. `has_parts`: it will.
[[nodiscard]] bool gives_up_privileges(const config::ServerConfig& config, bool has_parts);
// Behind everything that needs more, before the engine: threads inherit what is left. The error is
// a sentence.
[[nodiscard]] std::expected<void, std::string> give_up_privileges(
    const config::ServerConfig& config);

// Needs statistics made for its shape; `tunnels` must outlive the engine.
[[nodiscard]] std::expected<std::unique_ptr<abi::Engine>, std::string> make_engine(
    const config::ServerConfig& config, std::uint32_t worker_count, PacketParts* parts,
    abi::Statistics& statistics, abi::TunnelTable& tunnels);

}  // namespace bore::relay
