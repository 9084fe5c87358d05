// Rows of the client's key table. The client has no file, so no row has a reload mark.
#include "controlplane/config/client_keys.hpp"

namespace bore::config {

const std::vector<Key<ClientConfig>>& client_keys() {
    constexpr std::uint64_t max_port_number = 65535;
    constexpr std::string_view tunnel = "Tunnel";
    constexpr std::string_view relay = "Relay";
    constexpr std::string_view running = "Running";
    static const std::vector<Key<ClientConfig>> table = {
        {{.group = tunnel,
          .name = "local-port",
          .lowest = 1,
          .highest = max_port_number,
          .help = "Port of the local service; mostly written as a bare word.",
          .placeholder = "PORT"},
         field_of<ClientConfig, &ClientConfig::local_ports>},
        {{.group = tunnel,
          .name = "local-host",
          .short_name = 'l',
          .help = "Host of the local service.",
          .placeholder = "HOST"},
         field_of<ClientConfig, &ClientConfig::local_host>},
        {{.group = tunnel,
          .name = "port",
          .short_name = 'p',
          .lowest = 0,
          .highest = max_port_number,
          .help = "Public port to ask for, one per local port in their order; 0 = any.",
          .placeholder = "PORT",
          .variable = ""},
         field_of<ClientConfig, &ClientConfig::public_ports>},
        {{.group = relay,
          .name = "to",
          .short_name = 't',
          .help = "The relay.",
          .placeholder = "HOST",
          .variable = "BORE_SERVER"},
         field_of<ClientConfig, &ClientConfig::to>},
        {{.group = relay,
          .name = "control-port",
          .lowest = 1,
          .highest = max_port_number,
          .help = "Port of the relay for tunnel clients."},
         field_of<ClientConfig, &ClientConfig::control_port>},
        {{.group = relay,
          .name = "secret",
          .short_name = 's',
          .help = "Shared secret of the relay; an empty one is legal and counts.",
          .sensitive = true,
          .empty_is_a_value = true},
         field_of<ClientConfig, &ClientConfig::secret>},
        {{.group = relay,
          .name = "auth-dialect",
          .help = "Order of the handshake: in upstream the relay speaks first, in fork the client; "
                  "auto finds out."},
         field_of<ClientConfig, &ClientConfig::auth_dialect>},
        {{.group = running,
          .name = "no-reconnect",
          .help = "End when the relay closes the connection instead of trying again."},
         field_of<ClientConfig, &ClientConfig::no_reconnect>},
        {{.group = running,
          .name = "stream-driver",
          .help = "What moves the bytes; auto = io_uring where the kernel permits it, else epoll."},
         field_of<ClientConfig, &ClientConfig::stream_driver>},
        {{.group = running,
          .name = "log-level",
          .help = "Least severe messages to log; RUST_LOG is understood, too."},
         field_of<ClientConfig, &ClientConfig::log_level>},
        {{.group = running,
          .name = "log-format",
          .help = "Lines for people or one JSON object per line."},
         field_of<ClientConfig, &ClientConfig::log_format>},
    };
    return table;
}

const std::vector<CommandOption>& client_commands() {
    static const std::vector<CommandOption> commands = {
        {"help", 'h', Action::help, "", "Show this text and end."},
        {"version", 'V', Action::version, "", "Show the version and end."},
    };
    return commands;
}

}  // namespace bore::config
