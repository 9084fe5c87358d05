// The exporter's configuration: typed values and loading them from command line and environment
// (the exporter has no file). Names, ranges and help are the table in exporter_keys.cpp; defaults
// are the initialisers below. Called by the exporter's main.cpp.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "controlplane/config/address_list.hpp"
#include "controlplane/config/key.hpp"
#include "controlplane/config/load.hpp"
#include "controlplane/config/settings.hpp"

namespace bore::config {

struct ListenAddress {
    IpAddress address;
    std::uint16_t port = 0;

    bool operator==(const ListenAddress&) const = default;
    // "127.0.0.1:7836", "[::1]:7836"; the error is a sentence fragment.
    [[nodiscard]] static std::expected<ListenAddress, std::string> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
};

// How many tunnels have series of their own; the others are summed.
struct TunnelSeries {
    std::optional<std::uint32_t> most;  // nothing = all

    bool operator==(const TunnelSeries&) const = default;
    // "all", "none", "top:N"; the error is a sentence fragment.
    [[nodiscard]] static std::expected<TunnelSeries, std::string> parse(std::string_view text);
};

struct ExporterConfig {
    // Text as written, and what it means once loaded.
    Texts listen = {"127.0.0.1:7836"};
    std::vector<ListenAddress> addresses;
    std::string tunnel_series = "top:100";
    TunnelSeries series;

    Texts relays;                   // server ids or paths; none = every segment that is there
    std::uint32_t max_relays = 32;  // of those that are found
    std::string segment_directory = "/dev/shm";
    std::uint32_t link_mbit = 1'000;  // what a relay's link carries, each way
    LogLevel log_level = LogLevel::info;

    bool operator==(const ExporterConfig&) const = default;
};

struct LoadedExporter {
    ExporterConfig config;
    Action action = Action::run;  // run, help or version
};

using ExporterResult = std::expected<LoadedExporter, std::vector<ConfigError>>;

// `args` is argv with the program's name in front. All errors are collected.
[[nodiscard]] ExporterResult load_exporter_config(std::span<const char* const> args,
                                                  const Environment& environment);

// Text and exit code when there is nothing to run: errors, help, version.
[[nodiscard]] std::optional<Finished> finish_early(const ExporterResult& result);

[[nodiscard]] std::string exporter_help();

}  // namespace bore::config
