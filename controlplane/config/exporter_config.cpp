// Loading the exporter's configuration: texts of the table into addresses and numbers.
#include "controlplane/config/exporter_config.hpp"

#include <algorithm>
#include <charconv>

#include "controlplane/config/exporter_keys.hpp"
#include "controlplane/config/help.hpp"

namespace bore::config {
namespace {

constexpr std::string_view program = "bore-exporter";
constexpr std::uint32_t max_top_count = 65'536;  // a relay has no more tunnels

template <class Number>
bool parse_whole(std::string_view text, Number lowest, Number highest, Number& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc{} && end == text.data() + text.size() && number >= lowest &&
           number <= highest;
}

std::size_t index_of(const Rows& rows, std::string_view name) {
    const auto row = std::find_if(rows.begin(), rows.end(), [name](const Row& candidate) {
        return candidate.info->name == name;
    });
    return static_cast<std::size_t>(row - rows.begin());
}

void read_listen(ExporterConfig& config, Collected& into) {
    for (const std::string& text : config.listen) {
        const auto address = ListenAddress::parse(text);
        if (!address) {
            into.errors.push_back({"listen=" + printable(text), address.error(),
                                   "write it as in 127.0.0.1:7836 or [::1]:7836"});
        } else if (std::ranges::count(config.addresses, *address) > 0) {
            into.errors.push_back(
                {"listen=" + printable(text), "is there twice", "leave one of them out"});
        } else {
            config.addresses.push_back(*address);
        }
    }
    if (config.listen.empty()) {
        into.errors.push_back({"listen is empty", "must name at least one address",
                               "leave it out for the default, 127.0.0.1:7836"});
    }
}

void read_series(ExporterConfig& config, Collected& into) {
    const auto series = TunnelSeries::parse(config.tunnel_series);
    if (series) {
        config.series = *series;
    } else {
        into.errors.push_back({"tunnel-series=" + printable(config.tunnel_series), series.error(),
                               "write top:100 for the hundred busiest tunnels of each relay"});
    }
}

// Relays are told apart by the names of their segments, whatever folder these are in.
std::string_view segment_name(std::string_view relay) {
    constexpr std::string_view prefix = "bore-";
    const std::size_t slash = relay.rfind('/');
    if (slash != std::string_view::npos) {
        relay.remove_prefix(slash + 1);
        relay.remove_prefix(relay.starts_with(prefix) ? prefix.size() : 0);
    }
    return relay;
}

void check_relays(const ExporterConfig& config, Collected& into) {
    for (auto relay = config.relays.begin(); relay != config.relays.end(); ++relay) {
        const auto same = [relay](const std::string& other) {
            return segment_name(other) == segment_name(*relay);
        };
        if (std::find_if(config.relays.begin(), relay, same) != relay) {
            into.errors.push_back({"relay=" + printable(*relay), "has the name of another relay",
                                   "give each relay a server-id of its own, and name it once"});
        }
    }
}

}  // namespace

std::expected<ListenAddress, std::string> ListenAddress::parse(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    std::string_view host = text.substr(0, colon == std::string_view::npos ? 0 : colon);
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) {
        host = host.substr(1, host.size() - 2);
    }
    ListenAddress result;
    const auto address = IpAddress::parse(host);
    // "::1" alone would else read as address "::" without a port of its own.
    const bool has_port =
        colon != std::string_view::npos && bracketed == (host.find(':') != std::string_view::npos);
    if (!has_port || !address ||
        !parse_whole<std::uint16_t>(text.substr(colon + 1), 0, 65'535, result.port)) {
        return std::unexpected("must be an IP address and a port, an IPv6 address in brackets");
    }
    result.address = *address;
    return result;
}

std::string ListenAddress::to_string() const {
    const std::string host = address.to_string();
    return (address.is_v4() ? host : "[" + host + "]") + ":" + std::to_string(port);
}

std::expected<TunnelSeries, std::string> TunnelSeries::parse(std::string_view text) {
    constexpr std::string_view top = "top:";
    std::uint32_t count = 0;
    if (text == "all") {
        return TunnelSeries{};
    }
    if (text == "none") {
        return TunnelSeries{0};
    }
    if (text.starts_with(top) &&
        parse_whole<std::uint32_t>(text.substr(top.size()), 1, max_top_count, count)) {
        return TunnelSeries{count};
    }
    return std::unexpected("must be all, none or top:N with N from 1 to " +
                           std::to_string(max_top_count));
}

ExporterResult load_exporter_config(std::span<const char* const> args,
                                    const Environment& environment) {
    LoadedExporter loaded;
    const Rows rows = bind(exporter_keys(), loaded.config);
    Collected collected;
    const CommandLine line = read_command_line(
        rows, exporter_commands(), {args.begin() + (args.empty() ? 0 : 1), args.end()}, collected);
    loaded.action = line.action;
    if (line.action != Action::run) {
        return loaded;
    }
    for (const std::string& word : line.words) {
        collected.errors.push_back({printable(word) + " (command line)",
                                    "is not an option of this program", "see --help"});
    }
    read_environment(rows, environment, collected);
    (void)apply(rows, collected);
    const auto valid = [&](std::string_view name) {
        return !collected.invalid.contains(index_of(rows, name));
    };
    if (valid("listen")) {
        read_listen(loaded.config, collected);
    }
    if (valid("tunnel-series")) {
        read_series(loaded.config, collected);
    }
    if (valid("relay")) {
        check_relays(loaded.config, collected);
    }
    if (!collected.errors.empty()) {
        return std::unexpected(std::move(collected.errors));
    }
    return loaded;
}

std::optional<Finished> finish_early(const ExporterResult& result) {
    if (!result) {
        return usage_errors(program, result.error());
    }
    if (result->action == Action::help) {
        return Finished{.standard_output = exporter_help()};
    }
    if (result->action == Action::version) {
        return Finished{.standard_output = version_line(program) + "\n"};
    }
    return std::nullopt;
}

std::string exporter_help() {
    ExporterConfig defaults;
    return "bore-exporter: serves the statistics of the relays of this machine to Prometheus.\n"
           "\n"
           "Usage: bore-exporter [OPTION...]\n"
           "\n"
           "Examples:\n"
           "  bore-exporter\n"
           "      All relays of this machine, at http://127.0.0.1:7836/metrics.\n"
           "  bore-exporter --listen 192.0.2.1:7836 --relay edge-1 --tunnel-series top:20\n"
           "      One relay, which must be there; series of its twenty busiest tunnels.\n"
           "\n"
           "It reads the relays' shared-memory segments and asks nothing of the relays "
           "themselves.\n"
           "The command line wins over the environment.\n" +
           option_help(bind(exporter_keys(), defaults), exporter_commands()) +
           "\nExit codes: 0 normal end, 1 failure while running, 2 usage error.\n"
           "See also bore-exporter(8), bore-server(8).\n";
}

}  // namespace bore::config
