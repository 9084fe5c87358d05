// The rules in the order in which they run: fold the port range and the secret, then check ports,
// addresses, times, the backend keys and last who may come in.
#include "controlplane/config/server_rules.hpp"

#include <algorithm>
#include <initializer_list>
#include <set>

namespace bore::config {
namespace {

// systemd.exec(5), LoadCredential=: a directory of files that only this service can read.
constexpr std::string_view credential_name = "bore-secret";
constexpr std::size_t max_secret_size_bytes = 4096;
constexpr std::size_t max_server_id_size_bytes = 64;

class Rules {
  public:
    Rules(LoadedServer& loaded, const Rows& rows, const Environment& environment,
          const FileReader& read_file, Collected& into)
        : loaded_(loaded),
          config_(loaded.config),
          rows_(rows),
          environment_(environment),
          read_file_(read_file),
          into_(into) {}

    void run() {
        fold_port_range();
        fold_secret();
        check_ports();
        check_addresses();
        check_times();
        check_workers();
        check_packet();
        check_server_id();
        check_control_socket();
        const bool backend_asked_for = refuse_backend();
        check_authentication(backend_asked_for);
    }

  private:
    [[nodiscard]] std::size_t index_of(std::string_view name) const {
        const auto found = std::find_if(rows_.begin(), rows_.end(),
                                        [name](const Row& row) { return row.info->name == name; });
        return static_cast<std::size_t>(found - rows_.begin());
    }

    [[nodiscard]] Origin& origin(std::string_view name) { return loaded_.origins[index_of(name)]; }

    // "min-port=3000 (environment BORE_MIN_PORT)"
    [[nodiscard]] std::string described(std::string_view name) {
        const Row& row = rows_[index_of(name)];
        return std::string(name) + "=" + printable_value(*row.info, plain_text(row.field)) + " (" +
               origin(name).text + ")";
    }

    // Whether the values of these keys are what somebody wanted them to be.
    [[nodiscard]] bool valid(std::initializer_list<std::string_view> names) const {
        return std::none_of(names.begin(), names.end(), [this](std::string_view name) {
            return into_.invalid.contains(index_of(name));
        });
    }

    void refuse(std::string value, std::string rule, std::string remedy) {
        into_.errors.push_back({std::move(value), std::move(rule), std::move(remedy)});
    }

    void fold_port_range();
    void fold_port_range_end(std::string_view name, std::uint16_t from_range, std::uint16_t& end);
    void fold_secret();
    void take_secret_from(const std::string& path, const std::string& shown, const Origin& origin);
    void check_ports();
    void check_addresses();
    void check_no_duplicates(std::string_view name, const std::vector<IpAddress>& addresses);
    void check_times();
    void check_workers();
    void check_packet();
    void check_below(std::string_view smaller, std::uint32_t smaller_value, std::string_view larger,
                     std::uint32_t larger_value);
    void check_server_id();
    void check_control_socket();
    bool refuse_backend();
    void check_authentication(bool backend_asked_for);
    [[nodiscard]] std::string backend_looking_variables() const;

    LoadedServer& loaded_;
    ServerConfig& config_;
    const Rows& rows_;
    const Environment& environment_;
    const FileReader& read_file_;
    Collected& into_;
};

void Rules::fold_port_range() {
    if (config_.port_range && valid({"port-range", "min-port", "max-port"})) {
        fold_port_range_end("min-port", config_.port_range->first, config_.min_port);
        fold_port_range_end("max-port", config_.port_range->last, config_.max_port);
    }
    config_.port_range.reset();
}

void Rules::fold_port_range_end(std::string_view name, std::uint16_t from_range,
                                std::uint16_t& end) {
    const Origin& range_origin = origin("port-range");
    if (origin(name).kind > range_origin.kind) {
        return;  // as everywhere: the stronger source wins
    }
    if (origin(name).kind == range_origin.kind && end != from_range) {
        refuse(described("port-range") + " and " + described(name), "disagree",
               "give either the range or its ends");
        into_.invalid.insert(index_of(name));
        return;
    }
    end = from_range;
    origin(name) = range_origin;
}

void Rules::fold_secret() {
    if (!valid({"secret", "secret-file"})) {
        return;
    }
    if (config_.secret && config_.secret_file) {
        if (origin("secret").kind == origin("secret-file").kind) {
            refuse(described("secret") + " and " + described("secret-file"),
                   "are both given by the same source", "leave one of them out");
            return;
        }
        if (origin("secret").kind > origin("secret-file").kind) {
            config_.secret_file.reset();
        }
    }
    const auto credentials = variable(environment_, "CREDENTIALS_DIRECTORY");
    loaded_.secret_origin = origin("secret");
    if (config_.secret_file) {
        take_secret_from(
            *config_.secret_file, described("secret-file"),
            {origin("secret-file").kind, "secret_file of " + origin("secret-file").text});
    } else if (!config_.secret && credentials) {
        const std::string path = *credentials + "/" + std::string(credential_name);
        take_secret_from(path, printable(path) + " (systemd credential)",
                         {SourceKind::credential, "systemd credential"});
    }
    if (origin("secret").kind == SourceKind::command_line && !config_.secret_file) {
        into_.warnings.emplace_back(
            "the secret is on the command line, where ps shows it; BORE_SECRET or secret-file "
            "keep it out of sight");
    }
}

void Rules::take_secret_from(const std::string& path, const std::string& shown,
                             const Origin& origin) {
    auto text = read_file_(path);
    if (!text) {
        // A unit without LoadCredential= for us still has the directory; anything but absence
        // must not end in an open relay.
        if (origin.kind != SourceKind::credential ||
            text.error() != std::errc::no_such_file_or_directory) {
            refuse(shown, "cannot be read: " + text.error().message(),
                   "correct the path or make the file readable for the relay's user");
            into_.invalid.insert(index_of("secret"));
        }
        return;
    }
    if (text->ends_with('\n')) {
        text->pop_back();
        if (text->ends_with('\r')) {
            text->pop_back();
        }
    }
    if (text->empty() || text->size() > max_secret_size_bytes) {
        refuse(shown,
               "must hold a secret of 1 to " + std::to_string(max_secret_size_bytes) +
                   " bytes, not " + std::to_string(text->size()),
               "write the secret into it as one line");
        into_.invalid.insert(index_of("secret"));
        return;
    }
    config_.secret = std::move(*text);
    loaded_.secret_origin = origin;
}

void Rules::check_ports() {
    if (!valid({"port-range", "min-port", "max-port", "reserved-ports", "control-port"})) {
        return;
    }
    const std::string both = described("min-port") + " and " + described("max-port");
    if (config_.min_port > config_.max_port) {
        refuse(both, "port range is empty", "make min-port at most max-port");
        return;
    }
    std::set<std::uint32_t> taken;
    for (const std::uint32_t port : config_.reserved_ports) {
        taken.insert(port);
    }
    taken.insert(config_.control_port);
    const auto first = taken.lower_bound(config_.min_port);
    const auto last = taken.upper_bound(config_.max_port);
    if (std::distance(first, last) > config_.max_port - config_.min_port) {
        refuse(both, "every port of the range is reserved",
               "widen the range or shorten reserved-ports; the control port is always reserved");
    }
}

void Rules::check_addresses() {
    if (config_.bind_addr.empty() && valid({"bind-addr"})) {
        refuse(described("bind-addr"), "must name at least one address",
               "use 0.0.0.0 for every IPv4 address or :: for every IPv6 address");
    }
    check_no_duplicates("bind-addr", config_.bind_addr);
    check_no_duplicates("bind-tunnels", config_.bind_tunnels);
}

void Rules::check_no_duplicates(std::string_view name, const std::vector<IpAddress>& addresses) {
    if (std::set(addresses.begin(), addresses.end()).size() != addresses.size()) {
        refuse(described(name), "names an address twice", "name each address once");
    }
}

void Rules::check_times() {
    check_below("challenge-grace-ms", config_.challenge_grace_ms, "first-byte-timeout-ms",
                config_.first_byte_timeout_ms);
    check_below("first-byte-timeout-ms", config_.first_byte_timeout_ms, "handshake-timeout-ms",
                config_.handshake_timeout_ms);
    check_below("heartbeat-interval-ms", config_.heartbeat_interval_ms, "client-dead-timeout-ms",
                config_.client_dead_timeout_ms);
}

void Rules::check_workers() {
    if (!config_.workers && config_.cpus.size() > max_workers && valid({"cpus"})) {
        refuse(described("cpus"),
               "has " + std::to_string(config_.cpus.size()) +
                   " entries, one worker each, and there can be " + std::to_string(max_workers) +
                   " workers",
               "name fewer cores, or set workers");
    }
}

void Rules::check_packet() {
    if (!valid({"engine", "packet-port"})) {
        return;
    }
    if (config_.engine == EngineChoice::packet && config_.packet_ports.empty()) {
        refuse(described("engine"), "needs at least one packet-port, and there is none",
               "name a NIC with its address, as in "
               "--packet-port 0000:03:00.0,address=192.0.2.10/24; tools/nic lists them");
    }
    if (config_.engine == EngineChoice::stream && !config_.packet_ports.empty()) {
        into_.warnings.emplace_back("packet-port is not used: engine is stream");
    }
}

void Rules::check_below(std::string_view smaller, std::uint32_t smaller_value,
                        std::string_view larger, std::uint32_t larger_value) {
    if (smaller_value > larger_value && valid({smaller, larger})) {
        refuse(described(smaller) + " and " + described(larger),
               std::string(smaller) + " must be at most " + std::string(larger),
               "lower the first or raise the second");
    }
}

void Rules::check_server_id() {
    const bool is_label =
        config_.server_id.size() <= max_server_id_size_bytes &&
        std::all_of(config_.server_id.begin(), config_.server_id.end(), [](char letter) {
            return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                   (letter >= '0' && letter <= '9') || letter == '-' || letter == '_' ||
                   letter == '.';
        });
    if (!is_label) {
        refuse(described("server-id"),
               "must be 1 to " + std::to_string(max_server_id_size_bytes) +
                   " letters, digits, dots, dashes and underscores",
               "use a name such as server-us-east-1");
    }
}

void Rules::check_control_socket() {
    constexpr std::size_t max_size_bytes = 103;  // of sun_path, see command/socket_path.hpp
    const std::string& path = config_.control_socket;
    if (path == "auto" || path == "off") {
        return;
    }
    if (path.empty() || path.front() != '/' || path.back() == '/' || path.size() > max_size_bytes ||
        path.find('\0') != std::string::npos) {
        refuse(described("control-socket"),
               "must be auto, off, or a path that begins with / and has at most " +
                   std::to_string(max_size_bytes) + " bytes",
               "use a path such as /run/bore/relay.sock");
    }
}

bool Rules::refuse_backend() {
    bool asked_for = false;
    for (const std::string_view name : {"backend-url", "backend-api-key"}) {
        auto& value = name == "backend-url" ? config_.backend_url : config_.backend_api_key;
        if (!value) {
            continue;
        }
        // A variable that was set for something else may stay when --open says that nobody is to
        // be asked for anything.
        if (origin(name).kind == SourceKind::environment_alias && config_.open) {
            into_.warnings.push_back(origin(name).text +
                                     " is not used: this version has no backend link, and open "
                                     "lets everybody in");
        } else {
            asked_for = true;
            refuse(described(name), "cannot be used: this version has no backend link",
                   "remove it and set secret or secret-file, or open to let everybody in");
        }
        value.reset();
    }
    return asked_for;
}

std::string Rules::backend_looking_variables() const {
    std::string names;
    for (const auto& [name, value] : environment_) {
        const bool looks_like_backend = name.starts_with("REDIS_") || name == "BACKEND_URL" ||
                                        name == "BACKEND_API_KEY" || name == "INTERNAL_API_KEY";
        if (looks_like_backend && !value.empty()) {
            names += (names.empty() ? "" : ", ") + printable(name);
        }
    }
    return names;
}

void Rules::check_authentication(bool backend_asked_for) {
    if (!valid({"secret", "secret-file", "open", "require-auth"})) {
        return;
    }
    if (config_.open && config_.require_auth) {
        refuse(described("open") + " and " + described("require-auth"), "contradict each other",
               "leave one of them out");
        return;
    }
    if (config_.open && config_.secret) {
        refuse(described("open") + " and a secret (" + loaded_.secret_origin.text + ")",
               "contradict each other", "leave open out to ask for the secret");
        return;
    }
    if (config_.secret || config_.secret_file || config_.open || backend_asked_for) {
        return;
    }
    if (config_.require_auth) {
        refuse(described("require-auth"), "needs a secret, and there is none",
               "set BORE_SECRET, secret-file or the systemd credential bore-secret");
        return;
    }
    const std::string variables = backend_looking_variables();
    if (!variables.empty()) {
        refuse(variables + " (environment)",
               "belongs to a set-up that authenticates clients, but there is no secret and the "
               "relay would be open to everybody",
               "set BORE_SECRET or secret-file, or say --open if that is meant");
        return;
    }
    into_.warnings.emplace_back(
        "no secret: everybody who reaches the control port can open tunnels; set BORE_SECRET or "
        "secret-file, or say --open if that is meant");
}

}  // namespace

void fold_and_check(LoadedServer& loaded, const Rows& rows, const Environment& environment,
                    const FileReader& read_file, Collected& into) {
    Rules(loaded, rows, environment, read_file, into).run();
}

}  // namespace bore::config
