// What every part of the control thread works with, by reference: the loop, the timers, the
// configuration in force, counters, engine, log. Made by Server, which outlives all users.
#pragma once

#include <boost/asio/io_context.hpp>

#include "controlplane/bore/authentication.hpp"
#include "controlplane/bore/server_handshake.hpp"
#include "controlplane/config/address_list.hpp"
#include "controlplane/config/server_config.hpp"
#include "controlplane/relay/log.hpp"
#include "controlplane/relay/timers.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/statistics.hpp"

namespace bore::relay {

// The configuration and what follows from it. A reload replaces it as a whole, between two events.
struct Policy {
    explicit Policy(const config::ServerConfig& configuration)
        : config(configuration),
          clients(config.allow_clients, config.deny_clients),
          visitors(config.allow_visitors, config.deny_visitors),
          authentication(config.secret ? protocol::Authentication::with_secret(*config.secret)
                                       : protocol::Authentication::open()) {
        handshake.has_secret = config.secret.has_value();
        handshake.mode =
            config.auth_dialect == config::AuthDialect::upstream ? protocol::DialectMode::upstream
            : config.auth_dialect == config::AuthDialect::fork   ? protocol::DialectMode::fork
                                                                 : protocol::DialectMode::automatic;
        handshake.challenge_grace = config.challenge_grace_ms * base::millisecond_ns;
        handshake.first_byte_timeout = config.first_byte_timeout_ms * base::millisecond_ns;
        handshake.handshake_timeout = config.handshake_timeout_ms * base::millisecond_ns;
        const std::uint64_t bytes_per_second =
            std::uint64_t{config.tunnel_bandwidth_mbit} * 1'000'000 / 8;
        tunnel_limits.to_client_bytes_per_second = bytes_per_second;
        tunnel_limits.to_visitor_bytes_per_second = bytes_per_second;
        tunnel_limits.idle_timeout_ms = std::uint64_t{config.idle_timeout_s} * 1000;
        tunnel_limits.half_closed_timeout_ms = std::uint64_t{config.half_closed_timeout_s} * 1000;
    }

    config::ServerConfig config;
    config::AccessList clients;
    config::AccessList visitors;
    protocol::Authentication authentication;
    protocol::HandshakeOptions handshake;
    abi::TunnelLimits tunnel_limits;
};

// Which way the connections of a new tunnel on this port go.
[[nodiscard]] inline abi::PathPolicy path_policy(const config::ServerConfig& config,
                                                 std::uint16_t port) {
    switch (config::packet_path(config, port)) {
        case config::PacketPath::automatic:
            break;
        case config::PacketPath::splice:
            return abi::PathPolicy::splice;
        case config::PacketPath::stream:
            return abi::PathPolicy::stream;
    }
    return abi::PathPolicy::automatic;
}

struct Context {
    boost::asio::io_context& io;
    Timers& timers;
    const Policy& policy;
    abi::Engine& engine;
    abi::Statistics& statistics;
    abi::ControlCounters& counters;
    abi::ControlHistograms& histograms;
    Log& log;
    // RLIMIT_NOFILE: descriptor numbers are below it.
    std::uint64_t descriptor_limit;
};

}  // namespace bore::relay
