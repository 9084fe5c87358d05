// The tunnel client's configuration: typed values and loading them from command line and
// environment (the client has no file). Names, ranges and help are the table in client_keys.cpp;
// defaults are the initialisers below. Called by the client's main.cpp.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/config/load.hpp"
#include "controlplane/config/settings.hpp"

namespace bore::config {

struct TunnelRequest {
    std::uint16_t local_port = 0;
    std::uint16_t public_port = 0;  // 0 = any

    bool operator==(const TunnelRequest&) const = default;
};

struct ClientConfig {
    std::vector<TunnelRequest> tunnels;    // at least one in a loaded configuration
    std::string local_host = "localhost";  // name or address of the service
    std::string to;                        // name or address of the relay
    std::uint16_t control_port = 7835;
    std::optional<std::string> secret;  // "" is legal; absent = no authentication
    bool no_reconnect = false;          // true = end with the control connection
    AuthDialect auth_dialect = AuthDialect::automatic;
    StreamDriver stream_driver = StreamDriver::automatic;
    LogLevel log_level = LogLevel::info;
    LogFormat log_format = LogFormat::text;
    bool color = true;  // false when NO_COLOR is set and not empty

    // As written; loading folds them into tunnels.
    std::vector<std::uint16_t> local_ports;
    std::vector<std::uint16_t> public_ports;

    bool operator==(const ClientConfig&) const = default;
};

struct LoadedClient {
    ClientConfig config;
    Action action = Action::run;        // run, help or version
    std::vector<std::string> warnings;  // one line each, for the log
};

using ClientResult = std::expected<LoadedClient, std::vector<ConfigError>>;

// `args` is argv with the program's name in front. All errors are collected.
[[nodiscard]] ClientResult load_client_config(std::span<const char* const> args,
                                              const Environment& environment);

// Text and exit code when there is nothing to run: errors, help, version.
[[nodiscard]] std::optional<Finished> finish_early(const ClientResult& result);

[[nodiscard]] std::string client_help();

}  // namespace bore::config
