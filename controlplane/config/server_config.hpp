// The relay's configuration: the typed value of every key, and loading and reloading them. Key
// names, ranges, units, environment names and help sentences are the one table in server_keys.cpp;
// the defaults are the initialisers below. Called by the relay's main.cpp and its reload.
//
//     auto loaded = load_server_config(args, environment_of_process(environ), reader);
//     if (auto done = finish_early(loaded)) { print; return done->exit_code; }
//     run(loaded->config);                                  // log loaded->warnings first
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/config/address_list.hpp"
#include "controlplane/config/load.hpp"
#include "controlplane/config/packet_port.hpp"
#include "controlplane/config/settings.hpp"

namespace bore::config {

// As many as the data plane has (abi::max_workers; bore-server's main asserts it).
inline constexpr std::uint32_t max_workers = 64;

// "R" behind a line: changes on reload. Everything else needs a restart.
struct ServerConfig {
    // Tunnel ports
    std::uint16_t min_port = 1024;
    std::uint16_t max_port = 65535;
    // Never given to a tunnel, neither by number nor for port 0. See also is_reserved_port().
    std::vector<std::uint16_t> reserved_ports = {2375, 2376, 2379, 2380, 3000,  3306, 5432,
                                                 6379, 6443, 9090, 9100, 11211, 27017};

    // Addresses
    std::vector<IpAddress> bind_addr = {IpAddress::parse("0.0.0.0").value()};
    std::vector<IpAddress> bind_tunnels;  // as written; empty = bind_addr, see tunnel_addresses()
    std::uint16_t control_port = 7835;

    // Authentication
    std::optional<std::string> secret;                  // R; "" is legal and switches it on
    bool open = false;                                  // R
    bool require_auth = false;                          // R
    AuthDialect auth_dialect = AuthDialect::automatic;  // R
    std::uint32_t challenge_grace_ms = 100;             // R
    bool accept_from_tunnel_address = false;            // R

    // Source networks (use AccessList{allow, deny})
    std::vector<Prefix> allow_clients;   // R
    std::vector<Prefix> deny_clients;    // R
    std::vector<Prefix> allow_visitors;  // R
    std::vector<Prefix> deny_visitors;   // R

    // Limits
    std::uint32_t max_tunnels = 16384;                   // R
    std::uint32_t max_tunnels_per_source = 1024;         // R
    std::uint32_t max_unauthenticated = 4096;            // R
    std::uint32_t max_unauthenticated_per_source = 128;  // R
    std::uint32_t handshake_rate_per_source = 200;       // R; per second, burst the same, 0 = off
    std::uint32_t max_pending_visitors = 1024;           // R; per tunnel
    std::uint32_t max_visitors_per_tunnel = 50000;       // R
    std::uint32_t tunnel_bandwidth_mbit = 0;             // R, new tunnels; per direction, 0 = off
    std::uint32_t max_open_files = 0;                    // 0 = as high as allowed

    // Times
    std::uint32_t first_byte_timeout_ms = 3000;      // R
    std::uint32_t handshake_timeout_ms = 10000;      // R
    std::uint32_t heartbeat_interval_ms = 500;       // R
    std::uint32_t client_dead_timeout_ms = 12000;    // R, new connections
    std::uint32_t visitor_claim_timeout_ms = 10000;  // R
    std::uint32_t idle_timeout_s = 0;                // R, at once; 0 = off
    std::uint32_t half_closed_timeout_s = 3600;      // R, at once; 0 = off
    std::uint32_t drain_timeout_s = 30;              // R

    // Engine
    std::optional<std::uint32_t> workers;  // empty = auto, see worker_count()
    std::vector<std::uint32_t> cpus;       // worker i runs on cpus[i % count]; empty = anywhere
    std::uint32_t busy_poll_us = 0;
    StreamDriver stream_driver = StreamDriver::automatic;

    // Packet engine
    EngineChoice engine = EngineChoice::automatic;
    std::vector<PacketPort> packet_ports;
    PacketPath packet_path = PacketPath::automatic;  // R, new tunnels
    std::vector<PathRule> packet_path_rules;         // R, new tunnels; the first that fits wins
    std::uint32_t packet_max_flows = 65536;
    PacketIdle packet_idle = PacketIdle::pause;
    std::uint32_t packet_memory_mib = 256;
    std::uint32_t packet_linger_s = 15;
    std::optional<std::string> packet_user;  // after start; empty = the same user
    std::optional<std::string> packet_eal;

    // Statistics
    Stats stats = Stats::on;
    std::optional<std::string> stats_group;

    // Log
    LogLevel log_level = LogLevel::info;     // R
    LogFormat log_format = LogFormat::text;  // R
    std::uint32_t visitor_log_rate = 10;     // R; lines per second, 0 = none
    bool color = true;                       // false when NO_COLOR is set and not empty

    // Operation
    std::string control_socket = "auto";  // a path, "off", or "auto"
    std::optional<std::string> control_socket_group;

    // Identity
    std::string server_id = "default";  // only a label, in log lines and metrics
    // Refused when set until the relay has a backend link, so always empty in a loaded one.
    std::optional<std::string> backend_url;
    std::optional<std::string> backend_api_key;

    // How the secret and the port range may be written beside their own keys; loading folds them
    // into secret, min_port and max_port.
    std::optional<std::string> secret_file;
    std::optional<PortRange> port_range;  // empty in a loaded configuration

    bool operator==(const ServerConfig&) const = default;
};

struct LoadedServer {
    ServerConfig config;
    Action action = Action::run;
    std::string config_file;            // empty when none was read
    std::vector<Origin> origins;        // one per row of the key table
    Origin secret_origin;               // where the secret came from
    std::vector<std::string> warnings;  // one line each; the relay logs them at start and reload
};

using ServerResult = std::expected<LoadedServer, std::vector<ConfigError>>;

// `args` is argv with the program's name in front. All errors are collected.
[[nodiscard]] ServerResult load_server_config(std::span<const char* const> args,
                                              const Environment& environment,
                                              const FileReader& read_file);

// Text and exit code when there is nothing to run: errors, help, version, check, print.
[[nodiscard]] std::optional<Finished> finish_early(const ServerResult& result);

struct ReloadedServer {
    LoadedServer next;                       // running values with only reloadable changes applied
    std::vector<std::string> changed;        // key names that take effect now
    std::vector<std::string> needs_restart;  // key names whose new value was left aside
};

// The same sources again. Errors leave the running configuration as it is.
[[nodiscard]] std::expected<ReloadedServer, std::vector<ConfigError>> reload_server_config(
    const LoadedServer& running, std::span<const char* const> args, const Environment& environment,
    const FileReader& read_file);

// The configuration as TOML that can be fed back, each line with its source; secrets stay out.
[[nodiscard]] std::string print_server_config(const LoadedServer& loaded);

[[nodiscard]] std::string server_help();

// bind_tunnels, or bind_addr when that is empty.
[[nodiscard]] const std::vector<IpAddress>& tunnel_addresses(const ServerConfig& config);
// In reserved_ports, or the control port.
[[nodiscard]] bool is_reserved_port(const ServerConfig& config, std::uint16_t port);
// workers; else one per entry of cpus; else max(1, core_count - 1).
[[nodiscard]] std::uint32_t worker_count(const ServerConfig& config, std::uint32_t core_count);
// The name of the statistics in shared memory behind "bore-": server_id. A relay that nobody named
// has its control port added unless that is the usual one, so that two of them can run beside each
// other as ever.
[[nodiscard]] std::string stats_name(const ServerConfig& config);
// The path of a new tunnel on this port: the first rule that fits, else packet_path.
[[nodiscard]] PacketPath packet_path(const ServerConfig& config, std::uint16_t port);

}  // namespace bore::config
