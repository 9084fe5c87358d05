// Fuzz target: a whole configuration. The input is text: the program's name on the first line, one
// argument per line, "---", one NAME=VALUE per line, "---", and the TOML file. Whatever it says,
// loading must either give errors that are complete sentences, or a configuration that keeps the
// rules and that --print-config writes down without loss.
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "controlplane/config/client_config.hpp"
#include "controlplane/config/exporter_config.hpp"
#include "controlplane/config/server_config.hpp"
#include "dataplane/base/check.hpp"

namespace {

using namespace bore::config;

struct Input {
    std::vector<std::string> args;
    Environment environment;
    std::string toml;
};

Input split(const std::string& text) {
    Input input;
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line) && line != "---") {
        // A word of argv ends at its first NUL.
        input.args.emplace_back(line.c_str());
    }
    while (std::getline(lines, line) && line != "---") {
        const std::size_t equals = line.find('=');
        if (equals != std::string::npos) {
            input.environment.emplace(line.substr(0, equals), line.substr(equals + 1));
        }
    }
    std::ostringstream rest;
    rest << lines.rdbuf();
    input.toml = rest.str();
    return input;
}

void check_errors(const std::vector<ConfigError>& errors) {
    BORE_CHECK(!errors.empty(), "a refusal names at least one error");
    for (const ConfigError& error : errors) {
        BORE_CHECK(!error.value.empty() && !error.rule.empty() && !error.remedy.empty(),
                   "an error has value, rule and remedy");
        BORE_CHECK(error.to_string().find('\n') == std::string::npos, "an error is one line");
    }
}

void check_rules(const ServerConfig& config) {
    BORE_CHECK(config.min_port >= 1 && config.min_port <= config.max_port, "a range with ports");
    BORE_CHECK(config.control_port != 0 && !config.bind_addr.empty(), "somewhere to listen");
    BORE_CHECK(!config.backend_url && !config.backend_api_key, "no backend link");
    BORE_CHECK(!config.require_auth || config.secret, "a secret where one is required");
    BORE_CHECK(!config.open || !config.secret, "open means without a secret");
    BORE_CHECK(config.first_byte_timeout_ms <= config.handshake_timeout_ms, "times in order");
}

void check_printing(const LoadedServer& loaded) {
    const std::string printed = print_server_config(loaded);
    Environment environment;
    if (loaded.config.secret && !loaded.config.secret_file) {
        environment["BORE_SECRET"] = *loaded.config.secret;
    }
    if (!loaded.config.color) {
        environment["NO_COLOR"] = "1";
    }
    const FileReader reader = [&](const std::string& path) {
        return path == "printed.toml" ? printed : loaded.config.secret.value_or("");
    };
    // The path of a secret file may happen to be this one; then it cannot be printed and read.
    if (loaded.config.secret_file == "printed.toml") {
        return;
    }
    environment["BORE_CONFIG"] = "printed.toml";
    const char* argv[] = {"bore-server"};
    const ServerResult again = load_server_config(argv, environment, reader);
    BORE_CHECK(again.has_value(), "what was printed is right");
    BORE_CHECK(again->config == loaded.config, "what was printed is the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const Input input = split(std::string(data, data + size));
    std::vector<const char*> argv;
    argv.reserve(input.args.size());
    for (const std::string& arg : input.args) {
        argv.push_back(arg.c_str());
    }
    if (!argv.empty() && input.args[0] == "bore") {
        const ClientResult client = load_client_config(argv, input.environment);
        if (!client) {
            check_errors(client.error());
        } else if (client->action == Action::run) {
            BORE_CHECK(!client->config.tunnels.empty() && !client->config.to.empty(),
                       "a client knows what to publish and where");
        }
        return 0;
    }
    if (!argv.empty() && input.args[0] == "bore-exporter") {
        const ExporterResult exporter = load_exporter_config(argv, input.environment);
        if (!exporter) {
            check_errors(exporter.error());
        } else if (exporter->action == Action::run) {
            BORE_CHECK(!exporter->config.addresses.empty(), "an exporter knows where to listen");
            for (const ListenAddress& address : exporter->config.addresses) {
                BORE_CHECK(ListenAddress::parse(address.to_string()) == address,
                           "an address is read as it is written");
            }
        }
        return 0;
    }
    const FileReader reader =
        [&input](const std::string& path) -> std::expected<std::string, std::error_code> {
        if (path.ends_with(".toml")) {
            return input.toml;
        }
        if (path.starts_with("none")) {
            return std::unexpected(std::make_error_code(std::errc::no_such_file_or_directory));
        }
        return path + "\n";
    };
    const ServerResult server = load_server_config(argv, input.environment, reader);
    if (!server) {
        check_errors(server.error());
    } else if (server->action != Action::help && server->action != Action::version) {
        check_rules(server->config);
        check_printing(*server);
    }
    return 0;
}
