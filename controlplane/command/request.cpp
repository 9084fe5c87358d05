// Requests from and to JSON. A parsed document, not the protocol's event parser: a request is asked
// for by a person, has at most three members and is capped before it gets here.
#include "controlplane/command/request.hpp"

#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <initializer_list>
#include <limits>
#include <utility>

#include "controlplane/config/key.hpp"

namespace bore::command {

namespace {

namespace json = boost::json;
using config::LogLevel;
using config::printable;

using Result = std::expected<Request, std::string>;

constexpr std::size_t max_depth = 4;

constexpr std::array<std::pair<std::string_view, LogLevel>, 6> levels{{
    {"trace", LogLevel::trace},
    {"debug", LogLevel::debug},
    {"info", LogLevel::info},
    {"warning", LogLevel::warning},
    {"error", LogLevel::error},
    {"off", LogLevel::off},
}};

constexpr std::string_view command_names = "ping, kill, drain, undrain, reload, loglevel and flows";

std::string shown(const json::value& value) {
    return printable(json::serialize(value));
}

// What a command may have beside "command"; the first that it may not have is an error.
std::expected<void, std::string> allow(const json::object& object,
                                       std::initializer_list<std::string_view> members) {
    for (const auto& [key, value] : object) {
        const std::string_view name(key.data(), key.size());
        bool known = name == "command";
        std::string list;
        for (const std::string_view member : members) {
            known = known || name == member;
            list += (list.empty() ? "" : ", ") + std::string(member);
        }
        if (!known) {
            return std::unexpected("member " + printable(name) + ": this command has no such " +
                                   (list.empty() ? "member and takes none; leave it out"
                                                 : "member; it takes " + list));
        }
    }
    return {};
}

// Nothing when the member is not there.
std::expected<std::optional<std::uint64_t>, std::string> number(const json::object& object,
                                                                std::string_view name,
                                                                std::uint64_t lowest,
                                                                std::uint64_t highest) {
    const json::value* const value = object.if_contains({name.data(), name.size()});
    if (value == nullptr) {
        return std::nullopt;
    }
    json::error_code error;
    const auto found = value->to_number<std::uint64_t>(error);
    if (error || value->is_double() || found < lowest || found > highest) {
        return std::unexpected(std::string(name) + ": " + shown(*value) +
                               " is no whole number from " + std::to_string(lowest) + " to " +
                               std::to_string(highest));
    }
    return found;
}

template <typename Command>
Result plain(const json::object& object) {
    if (auto allowed = allow(object, {}); !allowed) {
        return std::unexpected(allowed.error());
    }
    return Command{};
}

Result kill(const json::object& object) {
    constexpr std::uint64_t max_port = 65'535;
    if (auto allowed = allow(object, {"port", "id"}); !allowed) {
        return std::unexpected(allowed.error());
    }
    const auto port = number(object, "port", 1, max_port);
    if (!port) {
        return std::unexpected(port.error());
    }
    Kill kill;
    if (const json::value* const value = object.if_contains("id")) {
        const json::string* const text = value->if_string();
        kill.id = text == nullptr ? std::nullopt : parse_tunnel_id({text->data(), text->size()});
        if (!kill.id) {
            return std::unexpected("id: " + shown(*value) +
                                   R"( is no id; write it as borectl does, as in "3.1")");
        }
    }
    if (port->has_value() == kill.id.has_value()) {
        return std::unexpected("kill: needs either port or id; name the tunnel by one of them");
    }
    if (*port) {
        kill.port = static_cast<std::uint16_t>(**port);
    }
    return kill;
}

Result drain(const json::object& object) {
    if (auto allowed = allow(object, {"deadline_s"}); !allowed) {
        return std::unexpected(allowed.error());
    }
    const auto deadline = number(object, "deadline_s", 0, max_drain_deadline_s);
    if (!deadline) {
        return std::unexpected(deadline.error());
    }
    Drain drain;
    if (*deadline) {
        drain.deadline_s = static_cast<std::uint32_t>(**deadline);
    }
    return drain;
}

Result log_level(const json::object& object) {
    if (auto allowed = allow(object, {"level"}); !allowed) {
        return std::unexpected(allowed.error());
    }
    const json::value* const value = object.if_contains("level");
    const json::string* const text = value == nullptr ? nullptr : value->if_string();
    const auto level = text == nullptr ? std::nullopt : log_level_of({text->data(), text->size()});
    if (!level) {
        return std::unexpected(
            "level: " + (value == nullptr ? "is missing" : shown(*value) + " is no level") +
            "; the levels are trace, debug, info, warning, error and off");
    }
    return SetLogLevel{*level};
}

Result flows(const json::object& object) {
    if (auto allowed = allow(object, {"from"}); !allowed) {
        return std::unexpected(allowed.error());
    }
    const auto from = number(object, "from", 0, std::numeric_limits<std::uint32_t>::max());
    if (!from) {
        return std::unexpected(from.error());
    }
    return ListFlows{static_cast<std::uint32_t>(from->value_or(0))};
}

Result request_of(std::string_view command, const json::object& object) {
    constexpr std::array<std::pair<std::string_view, Result (*)(const json::object&)>, 7> parsers{{
        {"ping", &plain<Ping>},
        {"kill", &kill},
        {"drain", &drain},
        {"undrain", &plain<Undrain>},
        {"reload", &plain<Reload>},
        {"loglevel", &log_level},
        {"flows", &flows},
    }};
    for (const auto& [name, parse] : parsers) {
        if (name == command) {
            return parse(object);
        }
    }
    return std::unexpected("command: " + printable(command) + " is none; the commands are " +
                           std::string(command_names));
}

struct Encoder {
    json::object& object;

    void operator()(const Kill& kill) const {
        if (kill.port) {
            object["port"] = *kill.port;
        }
        if (kill.id) {
            object["id"] = text_of(*kill.id);
        }
    }
    void operator()(const Drain& drain) const {
        if (drain.deadline_s) {
            object["deadline_s"] = *drain.deadline_s;
        }
    }
    void operator()(const SetLogLevel& wanted) const {
        const std::string_view name = name_of(wanted.level);
        object["level"] = json::string_view(name.data(), name.size());
    }
    void operator()(const ListFlows& flows) const { object["from"] = flows.from; }
    template <typename Other>
    void operator()(const Other& /*has no members*/) const {}
};

struct Namer {
    std::string_view operator()(const Ping&) const { return "ping"; }
    std::string_view operator()(const Kill&) const { return "kill"; }
    std::string_view operator()(const Drain&) const { return "drain"; }
    std::string_view operator()(const Undrain&) const { return "undrain"; }
    std::string_view operator()(const Reload&) const { return "reload"; }
    std::string_view operator()(const SetLogLevel&) const { return "loglevel"; }
    std::string_view operator()(const ListFlows&) const { return "flows"; }
};

}  // namespace

Result parse_request(std::string_view line) {
    if (line.size() > max_request_bytes) {
        return std::unexpected("a request of " + std::to_string(line.size()) +
                               " bytes is too long; at most " + std::to_string(max_request_bytes) +
                               " are read");
    }
    json::parse_options options;
    options.max_depth = max_depth;
    json::error_code error;
    const json::value document = json::parse({line.data(), line.size()}, error, {}, options);
    if (error || !document.is_object()) {
        return std::unexpected(printable(line) + ": is no JSON object" +
                               (error ? " (" + error.message() + ")" : "") +
                               R"(; write one per line, as in {"command":"ping"})");
    }
    const json::object& object = document.get_object();
    const json::value* const command = object.if_contains("command");
    const json::string* const name = command == nullptr ? nullptr : command->if_string();
    if (name == nullptr) {
        return std::unexpected(
            "command: " +
            (command == nullptr ? std::string("is missing") : shown(*command) + " is no text") +
            "; the commands are " + std::string(command_names));
    }
    return request_of({name->data(), name->size()}, object);
}

std::optional<TunnelId> parse_tunnel_id(std::string_view text) {
    TunnelId id;
    const char* const end = text.data() + text.size();
    const auto row = std::from_chars(text.data(), end, id.row);
    if (row.ec != std::errc() || row.ptr == end || *row.ptr != '.') {
        return std::nullopt;
    }
    const auto generation = std::from_chars(row.ptr + 1, end, id.generation);
    if (generation.ec != std::errc() || generation.ptr != end) {
        return std::nullopt;
    }
    return id;
}

std::string text_of(const TunnelId& id) {
    return std::to_string(id.row) + "." + std::to_string(id.generation);
}

std::string encode_request(const Request& request) {
    json::object object;
    const std::string_view name = name_of(request);
    object["command"] = json::string_view(name.data(), name.size());
    std::visit(Encoder{object}, request);
    return json::serialize(object) + "\n";
}

std::string_view name_of(const Request& request) {
    return std::visit(Namer{}, request);
}

std::optional<LogLevel> log_level_of(std::string_view name) {
    for (const auto& [text, level] : levels) {
        if (text == name) {
            return level;
        }
    }
    return std::nullopt;
}

std::string_view name_of(LogLevel level) {
    for (const auto& [text, known] : levels) {
        if (known == level) {
            return text;
        }
    }
    return "off";
}

}  // namespace bore::command
