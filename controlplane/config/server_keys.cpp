// Rows of the relay's key table, one block per group of --help.
#include "controlplane/config/server_keys.hpp"

#include <algorithm>
#include <iterator>

namespace bore::config {
namespace {

using Table = std::vector<Key<ServerConfig>>;

constexpr std::uint64_t max_port_number = 65535;

Table port_keys() {
    constexpr std::string_view group = "Tunnel ports";
    return {
        {{.group = group,
          .name = "min-port",
          .lowest = 1,
          .highest = max_port_number,
          .aliases = {"MIN_PORT"},
          .help = "First port that tunnels may have."},
         field_of<ServerConfig, &ServerConfig::min_port>},
        {{.group = group,
          .name = "max-port",
          .lowest = 1,
          .highest = max_port_number,
          .aliases = {"MAX_PORT"},
          .help = "Last port that tunnels may have."},
         field_of<ServerConfig, &ServerConfig::max_port>},
        {{.group = group,
          .name = "port-range",
          .lowest = 1,
          .highest = max_port_number,
          .help = "Both ends of the port range in one, as in 10000:20000."},
         field_of<ServerConfig, &ServerConfig::port_range>},
        {{.group = group,
          .name = "reserved-ports",
          .lowest = 1,
          .highest = max_port_number,
          .help = "Ports of the range that no tunnel gets, asked for or drawn; the control port is "
                  "always one of them."},
         field_of<ServerConfig, &ServerConfig::reserved_ports>},
    };
}

Table address_keys() {
    constexpr std::string_view group = "Addresses";
    return {
        {{.group = group,
          .name = "bind-addr",
          .aliases = {"BIND_ADDR"},
          .help = "Addresses the relay listens on for tunnel clients."},
         field_of<ServerConfig, &ServerConfig::bind_addr>},
        {{.group = group,
          .name = "bind-tunnels",
          .aliases = {"BIND_TUNNELS"},
          .help = "Addresses that tunnel ports listen on; none = those of bind-addr."},
         field_of<ServerConfig, &ServerConfig::bind_tunnels>},
        {{.group = group,
          .name = "control-port",
          .lowest = 1,
          .highest = max_port_number,
          .help = "Port for tunnel clients; existing clients know no other than 7835."},
         field_of<ServerConfig, &ServerConfig::control_port>},
    };
}

Table authentication_keys() {
    constexpr std::string_view group = "Authentication";
    return {
        {{.group = group,
          .name = "secret",
          .short_name = 's',
          .reload = Reload::yes,
          .help = "Shared secret that tunnel clients must know; an empty one is legal and counts.",
          .sensitive = true,
          .empty_is_a_value = true},
         field_of<ServerConfig, &ServerConfig::secret>},
        {{.group = group,
          .name = "secret-file",
          .reload = Reload::yes,
          .help = "File whose text is the secret, without its last line break.",
          .placeholder = "FILE"},
         field_of<ServerConfig, &ServerConfig::secret_file>},
        {{.group = group,
          .name = "open",
          .reload = Reload::yes,
          .help = "Let everybody open tunnels, and say that this is meant."},
         field_of<ServerConfig, &ServerConfig::open>},
        {{.group = group,
          .name = "require-auth",
          .reload = Reload::yes,
          .help = "Refuse to start without a secret."},
         field_of<ServerConfig, &ServerConfig::require_auth>},
        {{.group = group,
          .name = "auth-dialect",
          .reload = Reload::yes,
          .help = "Order of the handshake: upstream clients wait for the relay's challenge, fork "
                  "clients speak first; auto serves both."},
         field_of<ServerConfig, &ServerConfig::auth_dialect>},
        {{.group = group,
          .name = "challenge-grace-ms",
          .unit = "ms",
          .lowest = 0,
          .highest = 1000,
          .reload = Reload::yes,
          .help =
              "How long auto waits for a fork client's first words before it sends the challenge; "
              "never more than half of first-byte-timeout-ms."},
         field_of<ServerConfig, &ServerConfig::challenge_grace_ms>},
        {{.group = group,
          .name = "accept-from-tunnel-address",
          .reload = Reload::yes,
          .help =
              "Take data connections only from the address of their tunnel's control connection."},
         field_of<ServerConfig, &ServerConfig::accept_from_tunnel_address>},
    };
}

Table network_keys() {
    constexpr std::string_view group = "Source networks";
    return {
        {{.group = group,
          .name = "allow-clients",
          .reload = Reload::yes,
          .help = "Networks that tunnel clients may come from; none = all."},
         field_of<ServerConfig, &ServerConfig::allow_clients>},
        {{.group = group,
          .name = "deny-clients",
          .reload = Reload::yes,
          .help = "Networks that tunnel clients may not come from, even when allowed."},
         field_of<ServerConfig, &ServerConfig::deny_clients>},
        {{.group = group,
          .name = "allow-visitors",
          .reload = Reload::yes,
          .help = "Networks that visitors may come from; none = all."},
         field_of<ServerConfig, &ServerConfig::allow_visitors>},
        {{.group = group,
          .name = "deny-visitors",
          .reload = Reload::yes,
          .help = "Networks that visitors may not come from, even when allowed."},
         field_of<ServerConfig, &ServerConfig::deny_visitors>},
    };
}

Table limit_keys() {
    constexpr std::string_view group = "Limits";
    return {
        {{.group = group,
          .name = "max-tunnels",
          .lowest = 1,
          .highest = 65535,
          .reload = Reload::yes,
          .help = "Tunnels at one time."},
         field_of<ServerConfig, &ServerConfig::max_tunnels>},
        {{.group = group,
          .name = "max-tunnels-per-source",
          .lowest = 1,
          .highest = 65535,
          .reload = Reload::yes,
          .help = "Tunnels at one time from one client address."},
         field_of<ServerConfig, &ServerConfig::max_tunnels_per_source>},
        {{.group = group,
          .name = "max-unauthenticated",
          .lowest = 1,
          .highest = 1'000'000,
          .reload = Reload::yes,
          .help = "Connections at one time that have not finished their handshake."},
         field_of<ServerConfig, &ServerConfig::max_unauthenticated>},
        {{.group = group,
          .name = "max-unauthenticated-per-source",
          .lowest = 1,
          .highest = 1'000'000,
          .reload = Reload::yes,
          .help = "The same from one address."},
         field_of<ServerConfig, &ServerConfig::max_unauthenticated_per_source>},
        {{.group = group,
          .name = "handshake-rate-per-source",
          .unit = "per second",
          .lowest = 0,
          .highest = 1'000'000,
          .reload = Reload::yes,
          .help = "New connections to the control port from one address, with a burst of the same "
                  "size; 0 = no limit."},
         field_of<ServerConfig, &ServerConfig::handshake_rate_per_source>},
        {{.group = group,
          .name = "max-pending-visitors",
          .lowest = 1,
          .highest = 65535,
          .reload = Reload::yes,
          .help = "Visitors of one tunnel that wait for its client; at the limit the rest wait in "
                  "the listen backlog."},
         field_of<ServerConfig, &ServerConfig::max_pending_visitors>},
        {{.group = group,
          .name = "max-visitors-per-tunnel",
          .lowest = 1,
          .highest = 1'000'000,
          .reload = Reload::yes,
          .help = "Visitors of one tunnel at one time."},
         field_of<ServerConfig, &ServerConfig::max_visitors_per_tunnel>},
        {{.group = group,
          .name = "tunnel-bandwidth-mbit",
          .unit = "Mbit/s",
          .lowest = 0,
          .highest = 1'000'000,
          .reload = Reload::yes,
          .aliases = {"MAX_BANDWIDTH_PER_TUNNEL"},
          .help = "Bandwidth of one tunnel in each direction; 0 = no limit."},
         field_of<ServerConfig, &ServerConfig::tunnel_bandwidth_mbit>},
        {{.group = group,
          .name = "max-open-files",
          .lowest = 0,
          .highest = 1'000'000'000,
          .help = "Soft limit of open descriptors to ask for; 0 = as high as allowed."},
         field_of<ServerConfig, &ServerConfig::max_open_files>},
    };
}

Table time_keys() {
    constexpr std::string_view group = "Times";
    return {
        {{.group = group,
          .name = "first-byte-timeout-ms",
          .unit = "ms",
          .lowest = 100,
          .highest = 60'000,
          .reload = Reload::yes,
          .help = "How long a connection to the control port may stay silent."},
         field_of<ServerConfig, &ServerConfig::first_byte_timeout_ms>},
        {{.group = group,
          .name = "handshake-timeout-ms",
          .unit = "ms",
          .lowest = 100,
          .highest = 120'000,
          .reload = Reload::yes,
          .help = "How long a whole handshake may take."},
         field_of<ServerConfig, &ServerConfig::handshake_timeout_ms>},
        {{.group = group,
          .name = "heartbeat-interval-ms",
          .unit = "ms",
          .lowest = 50,
          .highest = 10'000,
          .reload = Reload::yes,
          .help = "A heartbeat follows this long after the last message to a client."},
         field_of<ServerConfig, &ServerConfig::heartbeat_interval_ms>},
        {{.group = group,
          .name = "client-dead-timeout-ms",
          .unit = "ms",
          .lowest = 1000,
          .highest = 15'000,
          .reload = Reload::yes,
          .help =
              "A client that acknowledges nothing for this long is dead and its ports are free."},
         field_of<ServerConfig, &ServerConfig::client_dead_timeout_ms>},
        {{.group = group,
          .name = "visitor-claim-timeout-ms",
          .unit = "ms",
          .lowest = 100,
          .highest = 600'000,
          .reload = Reload::yes,
          .help = "A visitor that the client does not fetch in this time is closed."},
         field_of<ServerConfig, &ServerConfig::visitor_claim_timeout_ms>},
        {{.group = group,
          .name = "idle-timeout-s",
          .unit = "s",
          .lowest = 0,
          .highest = 31'536'000,
          .reload = Reload::yes,
          .help = "A pair without traffic for this long is closed; 0 = never."},
         field_of<ServerConfig, &ServerConfig::idle_timeout_s>},
        {{.group = group,
          .name = "half-closed-timeout-s",
          .unit = "s",
          .lowest = 0,
          .highest = 31'536'000,
          .reload = Reload::yes,
          .help =
              "A pair with one direction ended and no traffic for this long is closed; 0 = never."},
         field_of<ServerConfig, &ServerConfig::half_closed_timeout_s>},
        {{.group = group,
          .name = "drain-timeout-s",
          .unit = "s",
          .lowest = 0,
          .highest = 86'400,
          .reload = Reload::yes,
          .help = "How long a stopping relay lets live pairs finish."},
         field_of<ServerConfig, &ServerConfig::drain_timeout_s>},
    };
}

Table engine_keys() {
    constexpr std::string_view group = "Engine";
    return {
        {{.group = group,
          .name = "workers",
          .lowest = 1,
          .highest = max_workers,
          .help =
              "Threads that move bytes; auto = one per entry of cpus, else one per core but one."},
         field_of<ServerConfig, &ServerConfig::workers>},
        {{.group = group,
          .name = "cpus",
          .lowest = 0,
          .highest = 1023,
          .help = "Cores to pin the workers to, one after the other; none = no pinning."},
         field_of<ServerConfig, &ServerConfig::cpus>},
        {{.group = group,
          .name = "busy-poll-us",
          .unit = "us",
          .lowest = 0,
          .highest = 10'000,
          .help = "How long an idle worker spins before it sleeps: less latency for more processor "
                  "time."},
         field_of<ServerConfig, &ServerConfig::busy_poll_us>},
        {{.group = group,
          .name = "stream-driver",
          .help = "What moves the bytes; auto = io_uring where the kernel permits it, else epoll."},
         field_of<ServerConfig, &ServerConfig::stream_driver>},
    };
}

Table packet_keys() {
    constexpr std::string_view group = "Packet engine";
    return {
        {{.group = group,
          .name = "engine",
          .help = "stream: the kernel's TCP; packet: DPDK on ports of its own; auto = packet where "
                  "packet-port is set and the machine permits it."},
         field_of<ServerConfig, &ServerConfig::engine>},
        {{.group = group,
          .name = "packet-port",
          .help = "NIC of the packet engine with the addresses that the relay has on it: a PCI "
                  "address bound to vfio-pci, af_xdp:INTERFACE or af_packet:INTERFACE."},
         field_of<ServerConfig, &ServerConfig::packet_ports>},
        {{.group = group,
          .name = "packet-path",
          .reload = Reload::yes,
          .help = "How new tunnels' connections go: splice = packets whenever possible, stream = "
                  "never, auto = where it is likely to be faster."},
         field_of<ServerConfig, &ServerConfig::packet_path>},
        {{.group = group,
          .name = "packet-path-rules",
          .reload = Reload::yes,
          .help = "The same for single ports; the first rule that fits wins."},
         field_of<ServerConfig, &ServerConfig::packet_path_rules>},
        {{.group = group,
          .name = "packet-max-flows",
          .lowest = 1,
          .highest = 1'048'576,
          .help = "Connections that may be spliced at once; about 200 bytes of hugepages each."},
         field_of<ServerConfig, &ServerConfig::packet_max_flows>},
        {{.group = group,
          .name = "packet-idle",
          .help = "What a poll loop does without packets: spin, pause (saves power), or sleep (for "
                  "machines that are not the relay's alone)."},
         field_of<ServerConfig, &ServerConfig::packet_idle>},
        {{.group = group,
          .name = "packet-memory-mib",
          .unit = "MiB",
          .lowest = 32,
          .highest = 65'536,
          .help = "Hugepages for packet buffers."},
         field_of<ServerConfig, &ServerConfig::packet_memory_mib>},
        {{.group = group,
          .name = "packet-linger-s",
          .unit = "s",
          .lowest = 1,
          .highest = 600,
          .help = "How long an ended flow still passes late segments."},
         field_of<ServerConfig, &ServerConfig::packet_linger_s>},
        {{.group = group,
          .name = "packet-user",
          .help = "User to run as once the ports are open; only CAP_NET_ADMIN is kept in any case.",
          .placeholder = "USER"},
         field_of<ServerConfig, &ServerConfig::packet_user>},
        {{.group = group,
          .name = "packet-eal",
          .help = "More arguments for DPDK's EAL, for what has no key of its own.",
          .placeholder = "ARGUMENTS"},
         field_of<ServerConfig, &ServerConfig::packet_eal>},
    };
}

Table statistics_keys() {
    constexpr std::string_view group = "Statistics";
    return {
        {{.group = group,
          .name = "stats",
          .help =
              "Keep the statistics in shared memory, /dev/shm/bore-SERVER_ID, for bore-exporter "
              "and borectl."},
         field_of<ServerConfig, &ServerConfig::stats>},
        {{.group = group,
          .name = "stats-group",
          .help = "Group that may read them; none = the group that the relay runs as.",
          .placeholder = "GROUP"},
         field_of<ServerConfig, &ServerConfig::stats_group>},
    };
}

Table log_keys() {
    constexpr std::string_view group = "Log";
    return {
        {{.group = group,
          .name = "log-level",
          .reload = Reload::yes,
          .help = "Least severe messages to log; RUST_LOG is understood, too."},
         field_of<ServerConfig, &ServerConfig::log_level>},
        {{.group = group,
          .name = "log-format",
          .reload = Reload::yes,
          .help = "Lines for people or one JSON object per line."},
         field_of<ServerConfig, &ServerConfig::log_format>},
        {{.group = group,
          .name = "visitor-log-rate",
          .unit = "lines per second",
          .lowest = 0,
          .highest = 1'000'000,
          .reload = Reload::yes,
          .help = "Most log lines about single visitors; the rest are counted. 0 = none."},
         field_of<ServerConfig, &ServerConfig::visitor_log_rate>},
    };
}

Table operation_keys() {
    constexpr std::string_view group = "Operation";
    return {
        {{.group = group,
          .name = "control-socket",
          .help =
              "Unix socket for borectl's commands, mode 0660: a path or off; auto = SERVER_ID.sock "
              "in $RUNTIME_DIRECTORY, /run/bore or $XDG_RUNTIME_DIR/bore, where one can be "
              "written.",
          .placeholder = "PATH|off|auto"},
         field_of<ServerConfig, &ServerConfig::control_socket>},
        {{.group = group,
          .name = "control-socket-group",
          .help = "Group whose members may send commands; none = the relay's own group.",
          .placeholder = "GROUP"},
         field_of<ServerConfig, &ServerConfig::control_socket_group>},
    };
}

Table identity_keys() {
    constexpr std::string_view group = "Identity";
    return {
        {{.group = group,
          .name = "server-id",
          .aliases = {"SERVER_ID"},
          .help =
              "Name of this relay in logs and metrics; relays on one machine need names of their "
              "own."},
         field_of<ServerConfig, &ServerConfig::server_id>},
        {{.group = group,
          .name = "backend-url",
          .aliases = {"BACKEND_URL"},
          .help = "Known, but refused: this version has no backend link.",
          .placeholder = "URL"},
         field_of<ServerConfig, &ServerConfig::backend_url>},
        {{.group = group,
          .name = "backend-api-key",
          .aliases = {"INTERNAL_API_KEY", "BACKEND_API_KEY"},
          .help = "Known, but refused: this version has no backend link.",
          .placeholder = "KEY",
          .sensitive = true},
         field_of<ServerConfig, &ServerConfig::backend_api_key>},
    };
}

}  // namespace

const Table& server_keys() {
    static const Table table = [] {
        Table all;
        for (const Table& part :
             {port_keys(), address_keys(), authentication_keys(), network_keys(), limit_keys(),
              time_keys(), engine_keys(), packet_keys(), statistics_keys(), log_keys(),
              operation_keys(), identity_keys()}) {
            std::ranges::copy(part, std::back_inserter(all));
        }
        return all;
    }();
    return table;
}

const std::vector<CommandOption>& server_commands() {
    // In the order in which they win when several are given.
    static const std::vector<CommandOption> commands = {
        {"help", 'h', Action::help, "", "Show this text and end."},
        {"version", 'V', Action::version, "", "Show the version and end."},
        {"check-config", 0, Action::check_config, "",
         "Check the whole configuration, say what is wrong with it and end."},
        {"print-config", 0, Action::print_config, "",
         "Show the configuration as TOML with the source of every value and end."},
        {"config", 'c', Action::run, "FILE",
         "Read keys from this TOML file (or the one that BORE_CONFIG names)."},
    };
    return commands;
}

}  // namespace bore::config
