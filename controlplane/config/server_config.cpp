// Loading the relay's configuration: command line, file, environment, then precedence, then the
// rules between keys. Reloading is loading again and comparing row by row.
#include "controlplane/config/server_config.hpp"

#include <algorithm>

#include "controlplane/config/server_keys.hpp"
#include "controlplane/config/server_rules.hpp"
#include "controlplane/config/sources.hpp"

namespace bore::config {
namespace {

constexpr std::string_view program = "bore-server";

// Rows of a configuration that is only looked at.
Rows rows_of(const ServerConfig& config) {
    return bind(server_keys(), const_cast<ServerConfig&>(config));
}

// argv without the program's name and without the word `server` of the combined Rust program.
std::vector<std::string> own_arguments(std::span<const char* const> args) {
    std::vector<std::string> words(args.begin() + (args.empty() ? 0 : 1), args.end());
    if (!words.empty() && words.front() == "server") {
        words.erase(words.begin());
    }
    return words;
}

void refuse_words(const std::vector<std::string>& words, Collected& into) {
    for (const std::string& word : words) {
        into.errors.push_back({printable(word) + " (command line)", "is not expected here",
                               word == "local" ? "the tunnel client is the program `bore`"
                                               : "options begin with --; see --help"});
    }
}

void read_file(const Rows& rows, const std::string& path, const FileReader& read, Collected& into) {
    const auto text = read(path);
    if (text) {
        read_toml(rows, *text, printable(path), into);
        return;
    }
    into.incomplete = true;
    into.errors.push_back({"config=" + printable(path), "cannot be read: " + text.error().message(),
                           "correct the path or make the file readable for the relay's user"});
}

// RUST_LOG is read loosely and never an error: it is often set for other programs.
void read_rust_log(const Rows& rows, const Environment& environment, Collected& into) {
    const auto level = rust_log_level(variable(environment, "RUST_LOG").value_or(""));
    const auto row = std::find_if(rows.begin(), rows.end(), [](const Row& candidate) {
        return candidate.info->name == "log-level";
    });
    if (level) {
        into.settings.push_back({.key_index = static_cast<std::size_t>(row - rows.begin()),
                                 .kind = SourceKind::environment_alias,
                                 .origin = "environment RUST_LOG",
                                 .shown = "RUST_LOG (environment)",
                                 .items = {*level}});
    }
}

std::string join(const std::vector<IpAddress>& addresses, std::uint16_t port) {
    std::string text;
    for (const IpAddress& address : addresses) {
        const std::string host =
            address.is_v4() ? address.to_string() : "[" + address.to_string() + "]";
        text += (text.empty() ? "" : ", ") + host + (port == 0 ? "" : ":" + std::to_string(port));
    }
    return text;
}

// What --check-config says of a configuration without errors.
std::string summary(const LoadedServer& loaded) {
    const ServerConfig& config = loaded.config;
    std::string text = "configuration is ok\n";
    text += "  file            " +
            (loaded.config_file.empty() ? std::string("none") : printable(loaded.config_file)) +
            "\n";
    text += "  clients         " + join(config.bind_addr, config.control_port) + "\n";
    text += "  tunnels         " + join(tunnel_addresses(config), 0) + ", ports " +
            std::to_string(config.min_port) + " to " + std::to_string(config.max_port) + ", " +
            std::to_string(config.reserved_ports.size()) + " reserved\n";
    text += "  authentication  " +
            (config.secret ? "secret from " + loaded.secret_origin.text : std::string("none")) +
            "\n";
    for (const std::string& warning : loaded.warnings) {
        text += "warning: " + warning + "\n";
    }
    return text;
}

}  // namespace

ServerResult load_server_config(std::span<const char* const> args, const Environment& environment,
                                const FileReader& read) {
    LoadedServer loaded;
    const Rows rows = bind(server_keys(), loaded.config);
    Collected collected;
    const CommandLine line =
        read_command_line(rows, server_commands(), own_arguments(args), collected);
    loaded.action = line.action;
    if (line.action == Action::help || line.action == Action::version) {
        return loaded;
    }
    refuse_words(line.words, collected);
    const auto file = line.config_file ? line.config_file : variable(environment, "BORE_CONFIG");
    if (file) {
        loaded.config_file = *file;
        read_file(rows, *file, read, collected);
    }
    read_rust_log(rows, environment, collected);
    read_environment(rows, environment, collected);
    loaded.origins = apply(rows, collected);
    if (!collected.incomplete) {
        fold_and_check(loaded, rows, environment, read, collected);
    }
    if (!collected.errors.empty()) {
        return std::unexpected(std::move(collected.errors));
    }
    loaded.config.color = !variable(environment, "NO_COLOR");
    loaded.warnings = std::move(collected.warnings);
    return loaded;
}

std::optional<Finished> finish_early(const ServerResult& result) {
    if (!result) {
        return usage_errors(program, result.error());
    }
    switch (result->action) {
        case Action::help:
            return Finished{.standard_output = server_help()};
        case Action::version:
            return Finished{.standard_output = version_line(program) + "\n"};
        case Action::check_config:
            return Finished{.standard_output = summary(*result)};
        case Action::print_config:
            return Finished{.standard_output = print_server_config(*result)};
        case Action::run:
            break;
    }
    return std::nullopt;
}

std::expected<ReloadedServer, std::vector<ConfigError>> reload_server_config(
    const LoadedServer& running, std::span<const char* const> args, const Environment& environment,
    const FileReader& read) {
    ServerResult loaded = load_server_config(args, environment, read);
    if (!loaded) {
        return std::unexpected(std::move(loaded.error()));
    }
    if (running.config.secret && !loaded->config.secret && !loaded->config.open) {
        return std::unexpected(std::vector<ConfigError>{
            {.value = "no secret",
             .rule = "the running relay has one (" + running.secret_origin.text +
                     ") and would be open to everybody",
             .remedy = "put it back, or say --open if that is meant"}});
    }
    ReloadedServer result{.next = std::move(*loaded), .changed = {}, .needs_restart = {}};
    const Rows old_rows = rows_of(running.config);
    const Rows new_rows = rows_of(result.next.config);
    for (std::size_t index = 0; index < new_rows.size(); ++index) {
        if (equal(old_rows[index].field, new_rows[index].field)) {
            continue;
        }
        const KeyInfo& key = *new_rows[index].info;
        if (key.reload == Reload::yes) {
            result.changed.emplace_back(key.name);
        } else {
            result.needs_restart.emplace_back(key.name);
            copy(old_rows[index].field, new_rows[index].field);
            result.next.origins[index] = running.origins[index];
        }
    }
    return result;
}

const std::vector<IpAddress>& tunnel_addresses(const ServerConfig& config) {
    return config.bind_tunnels.empty() ? config.bind_addr : config.bind_tunnels;
}

bool is_reserved_port(const ServerConfig& config, std::uint16_t port) {
    return port == config.control_port ||
           std::find(config.reserved_ports.begin(), config.reserved_ports.end(), port) !=
               config.reserved_ports.end();
}

PacketPath packet_path(const ServerConfig& config, std::uint16_t port) {
    for (const PathRule& rule : config.packet_path_rules) {
        if (port >= rule.first && port <= rule.last) {
            return rule.path;
        }
    }
    return config.packet_path;
}

std::string stats_name(const ServerConfig& config) {
    const ServerConfig defaults;
    const bool unnamed = config.server_id == defaults.server_id;
    return unnamed && config.control_port != defaults.control_port
               ? config.server_id + "-" + std::to_string(config.control_port)
               : config.server_id;
}

std::uint32_t worker_count(const ServerConfig& config, std::uint32_t core_count) {
    if (config.workers) {
        return *config.workers;
    }
    if (!config.cpus.empty()) {
        return static_cast<std::uint32_t>(config.cpus.size());
    }
    return std::clamp(core_count, 2U, max_workers + 1) - 1;
}

}  // namespace bore::config
