// Rows of the exporter's key table. The exporter has no file, so no row has a reload mark. Its
// variables begin with BORE_EXPORTER: those of the relay mean other things.
#include "controlplane/config/exporter_keys.hpp"

namespace bore::config {

const std::vector<Key<ExporterConfig>>& exporter_keys() {
    constexpr std::string_view serving = "Serving";
    constexpr std::string_view relays = "Relays";
    constexpr std::string_view series = "Series";
    constexpr std::string_view running = "Running";
    static const std::vector<Key<ExporterConfig>> table = {
        {{.group = serving,
          .name = "listen",
          .help = "Address and port to serve /metrics and /health on; IPv6 as in [::1]:7836.",
          .placeholder = "IP:PORT",
          .variable = "BORE_EXPORTER_LISTEN"},
         field_of<ExporterConfig, &ExporterConfig::listen>},
        {{.group = relays,
          .name = "relay",
          .help =
              "Server id of a relay of this machine, or the path of its segment; such a relay is "
              "reported as down when it is not there. None = all that are there of root, bore and "
              "this user, followed as they come and go; a path is read whoever owns it.",
          .placeholder = "ID",
          .variable = "BORE_EXPORTER_RELAY"},
         field_of<ExporterConfig, &ExporterConfig::relays>},
        {{.group = relays,
          .name = "max-relays",
          .lowest = 1,
          .highest = 1'000,
          .help = "Relays that are followed at most where none is named; the log and "
                  "bore_exporter_segments_left_out say when there are more.",
          .variable = "BORE_EXPORTER_MAX_RELAYS"},
         field_of<ExporterConfig, &ExporterConfig::max_relays>},
        {{.group = relays,
          .name = "segment-directory",
          .help = "Where the relays' segments are.",
          .placeholder = "PATH",
          .variable = "BORE_EXPORTER_SEGMENT_DIRECTORY"},
         field_of<ExporterConfig, &ExporterConfig::segment_directory>},
        {{.group = relays,
          .name = "link-mbit",
          .unit = "Mbit/s",
          .lowest = 1,
          .highest = 10'000'000,
          .help = "What a relay's link carries each way; bore_bandwidth_utilization_percent is "
                  "counted against it.",
          .variable = "BORE_EXPORTER_LINK_MBIT"},
         field_of<ExporterConfig, &ExporterConfig::link_mbit>},
        {{.group = series,
          .name = "tunnel-series",
          .help = "Tunnels with series of their own: top:N = the N busiest of each relay, all, or "
                  "none. The others are summed under port=\"other\".",
          .placeholder = "top:N|all|none",
          .variable = "BORE_EXPORTER_TUNNEL_SERIES"},
         field_of<ExporterConfig, &ExporterConfig::tunnel_series>},
        {{.group = running,
          .name = "log-level",
          .help = "Least severe messages to log.",
          .variable = "BORE_EXPORTER_LOG_LEVEL"},
         field_of<ExporterConfig, &ExporterConfig::log_level>},
    };
    return table;
}

const std::vector<CommandOption>& exporter_commands() {
    static const std::vector<CommandOption> commands = {
        {"help", 'h', Action::help, "", "Show this text and end."},
        {"version", 'V', Action::version, "", "Show the version and end."},
    };
    return commands;
}

}  // namespace bore::config
