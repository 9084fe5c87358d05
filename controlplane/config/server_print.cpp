// What the relay shows of its configuration: --print-config and --help.
#include "controlplane/config/help.hpp"
#include "controlplane/config/server_config.hpp"
#include "controlplane/config/server_keys.hpp"

namespace bore::config {
namespace {

// A line that can be fed back, or a comment where there is nothing to feed back.
std::string printed_line(const Row& row, const LoadedServer& loaded, const Origin& origin) {
    const std::string key = file_key(*row.info);
    if (row.info->name == "secret" && loaded.config.secret) {
        return "# " + key + " is set and not shown  # " + printable(loaded.secret_origin.text);
    }
    const std::string value = row.info->sensitive ? "" : toml_text(row.field);
    if (value.empty()) {
        return "# " + key + " is not set";
    }
    return key + " = " + value + "  # " + printable(origin.text);
}

}  // namespace

std::string print_server_config(const LoadedServer& loaded) {
    ServerConfig config = loaded.config;
    const Rows rows = bind(server_keys(), config);
    std::string text = "# Configuration of bore-server; behind every value is its source.\n";
    std::string_view group;
    for (std::size_t index = 0; index < rows.size(); ++index) {
        if (rows[index].info->group != group) {
            group = rows[index].info->group;
            text += "\n# " + std::string(group) + "\n";
        }
        text += printed_line(rows[index], loaded, loaded.origins[index]) + "\n";
    }
    return text;
}

std::string server_help() {
    ServerConfig defaults;
    return "bore-server: lets tunnel clients publish local ports on this host.\n"
           "\n"
           "Usage: bore-server [server] [OPTION...]\n"
           "\n"
           "Examples:\n"
           "  BORE_SECRET=s3cret bore-server --port-range 10000:20000\n"
           "      Tunnels on ports 10000 to 20000, for clients that know the secret.\n"
           "  bore-server --config /etc/bore/bore-server.toml --check-config\n"
           "      Is this file right? Says everything that is wrong with it; exit code 0 or 2.\n"
           "  bore-server --open --bind-addr 127.0.0.1 --bind-addr ::1\n"
           "      A relay for this machine alone, without a secret.\n"
           "\n"
           "Every option but the commands at the end is also a key of the TOML file (--min-port "
           "is\n"
           "min_port) and an environment variable. The command line wins over the environment, "
           "and\n"
           "that over the file. Lists take several values with commas between them, or the option\n"
           "several times; none is the empty list. Switches take =false. SIGHUP reads everything\n"
           "again: what is marked reload changes at once, the log names what needs a restart.\n" +
           option_help(bind(server_keys(), defaults), server_commands()) +
           "\nExit codes: 0 normal end, 1 failure while running, 2 usage error.\n"
           "See also bore-server(8), bore-server.toml(5).\n";
}

}  // namespace bore::config
