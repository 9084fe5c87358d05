// Loading the tunnel client's configuration, and the forms of its command line: local ports as
// bare words, with or without the word `local` in front.
#include "controlplane/config/client_config.hpp"

#include <algorithm>
#include <array>

#include "controlplane/config/client_keys.hpp"
#include "controlplane/config/help.hpp"

namespace bore::config {
namespace {

constexpr std::string_view program = "bore";
// One process serves a handful of services; each tunnel is a connection and a port on the relay.
constexpr std::size_t max_tunnel_count = 256;

std::size_t index_of(const Rows& rows, std::string_view name) {
    const auto row = std::find_if(rows.begin(), rows.end(), [name](const Row& candidate) {
        return candidate.info->name == name;
    });
    return static_cast<std::size_t>(row - rows.begin());
}

// First words that other programs of this name take as commands.
std::optional<ConfigError> foreign_command(std::string_view word) {
    static constexpr std::array<std::string_view, 5> account_commands = {"login", "logout", "list",
                                                                         "start", "stop"};
    if (word == "server") {
        return ConfigError{"server (command line)", "is a program of its own here",
                           "run bore-server with the same options"};
    }
    if (std::find(account_commands.begin(), account_commands.end(), word) !=
        account_commands.end()) {
        return ConfigError{std::string(word) + " (command line)",
                           "needs a central backend, which this version does not have",
                           "use bore local PORT --to HOST, with --secret if the relay asks"};
    }
    return std::nullopt;
}

// Bare words become the value of local-port, as if it had been an option.
void read_words(const Rows& rows, std::vector<std::string> words, Collected& into) {
    if (!words.empty() && words.front() == "local") {
        words.erase(words.begin());
    }
    if (words.empty()) {
        return;
    }
    std::string joined;
    std::vector<std::string> items;
    for (const std::string& word : words) {
        joined += (joined.empty() ? "" : " ") + word;
        std::ranges::copy(split_list(word), std::back_inserter(items));
    }
    into.settings.push_back({.key_index = index_of(rows, "local-port"),
                             .kind = SourceKind::command_line,
                             .origin = "command line",
                             .shown = "local port " + printable(joined) + " (command line)",
                             .items = std::move(items)});
}

void read_rust_log(const Rows& rows, const Environment& environment, Collected& into) {
    const auto level = rust_log_level(variable(environment, "RUST_LOG").value_or(""));
    if (level) {
        into.settings.push_back({.key_index = index_of(rows, "log-level"),
                                 .kind = SourceKind::environment_alias,
                                 .origin = "environment RUST_LOG",
                                 .shown = "RUST_LOG (environment)",
                                 .items = {*level}});
    }
}

void check_host(const std::string& host, const std::string& option, Collected& into) {
    const auto colons = std::count(host.begin(), host.end(), ':');
    const bool has_blank = host.find_first_of(" \t/[]@") != std::string::npos;
    if (has_blank || (colons > 0 && !IpAddress::parse(host))) {
        into.errors.push_back(
            {option + "=" + printable(host), "must be a host name or an IP address alone",
             "leave out scheme, brackets and port; --control-port names another port"});
    }
}

// One public port per local port: none given = any, else as many as local ports, or 0 for all.
void fold_tunnels(ClientConfig& config, const Rows& rows, Collected& into) {
    const auto& locals = config.local_ports;
    const auto& publics = config.public_ports;
    if (into.invalid.contains(index_of(rows, "local-port")) ||
        into.invalid.contains(index_of(rows, "port"))) {
        return;
    }
    if (locals.empty() || locals.size() > max_tunnel_count) {
        into.errors.push_back({std::to_string(locals.size()) + " local ports",
                               "must be 1 to " + std::to_string(max_tunnel_count),
                               "name the port of your service, as in bore local 3000 --to HOST"});
        return;
    }
    const bool any_port = publics.empty() || (publics.size() == 1 && publics[0] == 0);
    if (!any_port && publics.size() != locals.size()) {
        into.errors.push_back(
            {"port=" + plain_text(rows[index_of(rows, "port")].field),
             "gives " + std::to_string(publics.size()) + " public ports for " +
                 std::to_string(locals.size()) + " local ports",
             "give --port once per local port, in the same order, or leave it out for any"});
        return;
    }
    for (std::size_t index = 0; index < locals.size(); ++index) {
        config.tunnels.push_back({locals[index], any_port ? std::uint16_t{0} : publics[index]});
    }
}

void check_rules(ClientConfig& config, const Rows& rows, Collected& into) {
    fold_tunnels(config, rows, into);
    if (config.to.empty() && !into.invalid.contains(index_of(rows, "to"))) {
        into.errors.push_back(
            {"to is not set", "must name the relay", "add --to HOST or set BORE_SERVER"});
    }
    check_host(config.to, "to", into);
    check_host(config.local_host, "local-host", into);
}

}  // namespace

ClientResult load_client_config(std::span<const char* const> args, const Environment& environment) {
    LoadedClient loaded;
    const Rows rows = bind(client_keys(), loaded.config);
    if (args.size() > 1) {
        if (const auto foreign = foreign_command(args[1])) {
            return std::unexpected(std::vector{*foreign});
        }
    }
    Collected collected;
    const CommandLine line = read_command_line(
        rows, client_commands(), {args.begin() + (args.empty() ? 0 : 1), args.end()}, collected);
    loaded.action = line.action;
    if (line.action != Action::run) {
        return loaded;
    }
    read_words(rows, line.words, collected);
    read_rust_log(rows, environment, collected);
    read_environment(rows, environment, collected);
    const std::vector<Origin> origins = apply(rows, collected);
    if (!collected.incomplete) {
        check_rules(loaded.config, rows, collected);
    }
    if (!collected.errors.empty()) {
        return std::unexpected(std::move(collected.errors));
    }
    if (origins[index_of(rows, "secret")].kind == SourceKind::command_line) {
        collected.warnings.emplace_back(
            "the secret is on the command line, where ps shows it; BORE_SECRET keeps it out of "
            "sight");
    }
    loaded.config.color = !variable(environment, "NO_COLOR");
    loaded.warnings = std::move(collected.warnings);
    return loaded;
}

std::optional<Finished> finish_early(const ClientResult& result) {
    if (!result) {
        return usage_errors(program, result.error());
    }
    if (result->action == Action::help) {
        return Finished{.standard_output = client_help()};
    }
    if (result->action == Action::version) {
        return Finished{.standard_output = version_line(program) + "\n"};
    }
    return std::nullopt;
}

std::string client_help() {
    ClientConfig defaults;
    return "bore: publishes a local TCP port through a relay.\n"
           "\n"
           "Usage: bore [local] LOCAL_PORT... --to HOST [OPTION...]\n"
           "\n"
           "Examples:\n"
           "  bore local 3000 --to relay.example.com\n"
           "      Publish port 3000 of this machine; the relay picks the public port.\n"
           "  BORE_SECRET=s3cret bore 8080 --to relay.example.com --port 18080\n"
           "      Ask for public port 18080, at a relay that wants a secret.\n"
           "  bore 3000 5432 --port 13000 --port 15432 --local-host 10.0.0.7 --to "
           "relay.example.com\n"
           "      Two services of another machine in one process.\n"
           "\n"
           "Each tunnel is one line `listening at HOST:PORT` on the standard output. The command\n"
           "line wins over the environment. NO_COLOR switches colours off.\n" +
           option_help(bind(client_keys(), defaults), client_commands()) +
           "\nExit codes: 0 normal end, 1 failure while running, 2 usage error.\n"
           "See also bore(1).\n";
}

}  // namespace bore::config
