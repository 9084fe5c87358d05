// Sentences about answers. They come from another process, so nothing in them is taken for granted.
#include "controlplane/ctl/answers.hpp"

#include <string_view>
#include <variant>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

namespace bore::ctl {

namespace {

namespace json = boost::json;

// No control characters from another process on somebody's terminal.
std::string clean(std::string text) {
    for (char& letter : text) {
        const auto byte = static_cast<unsigned char>(letter);
        letter = byte < 0x20 || byte == 0x7f ? '?' : letter;
    }
    return text;
}

// A text as it is, anything else as JSON; "?" where it is missing.
std::string shown(const json::object& answer, std::string_view name) {
    const json::value* const value =
        answer.if_contains(json::string_view(name.data(), name.size()));
    if (value == nullptr) {
        return "?";
    }
    return clean(value->is_string() ? std::string(value->as_string().c_str())
                                    : json::serialize(*value));
}

std::string lines_of(const json::object& answer, std::string_view name, std::string_view what) {
    const json::value* const value =
        answer.if_contains(json::string_view(name.data(), name.size()));
    std::string text;
    if (value != nullptr && value->is_array()) {
        for (const json::value& line : value->get_array()) {
            text += std::string(what) +
                    clean(line.is_string() ? std::string(line.as_string().c_str())
                                           : json::serialize(line)) +
                    "\n";
        }
    }
    return text;
}

std::string amounts(const json::object& answer) {
    return shown(answer, "tunnels") + " tunnels, " + shown(answer, "pairs") + " pairs, " +
           shown(answer, "visitors_waiting") + " visitors waiting";
}

struct Sentence {
    const json::object& answer;

    std::string operator()(const command::Kill& /*request*/) const {
        return "ended: tunnel " + shown(answer, "id") + " of port " + shown(answer, "port") +
               ", client " + shown(answer, "client") + ", with " + shown(answer, "pairs") +
               " pairs and " + shown(answer, "visitors_waiting") + " visitors waiting\n";
    }
    std::string operator()(const command::Drain& /*request*/) const {
        const std::string cut = answer.contains("deadline_s")
                                    ? "; pairs are cut in " + shown(answer, "deadline_s") + " s"
                                    : std::string();
        return "drained: " + amounts(answer) + cut + "; undo it with `borectl undrain`\n";
    }
    std::string operator()(const command::Undrain& /*request*/) const {
        return "serving: " + shown(answer, "tunnels") + " tunnels\n" +
               lines_of(answer, "ports_lost", "lost, its tunnel has ended: port ");
    }
    std::string operator()(const command::Reload& /*request*/) const {
        const std::string changed = lines_of(answer, "changed", "changed: ");
        return (changed.empty() ? "reloaded, nothing changed\n" : changed) +
               lines_of(answer, "needs_restart", "needs a restart: ") +
               lines_of(answer, "warnings", "warning: ");
    }
    std::string operator()(const command::SetLogLevel& /*request*/) const {
        return "log level " + shown(answer, "level") + ", was " + shown(answer, "previous") + "\n";
    }
    std::string operator()(const command::Ping& /*request*/) const {
        return shown(answer, "state") + ": " + amounts(answer) + "\n";
    }
    std::string operator()(const command::ListFlows& /*request*/) const {
        return json::serialize(answer) + "\n";
    }
};

}  // namespace

bool is_ok(const json::object& answer) {
    const json::value* const ok = answer.if_contains("ok");
    return ok != nullptr && ok->is_bool() && ok->get_bool();
}

std::string success_text(const command::Request& request, const json::object& answer) {
    return std::visit(Sentence{answer}, request);
}

std::string failure_text(const json::object& answer) {
    return "borectl: " + shown(answer, "error") + "\n" + lines_of(answer, "errors", "  ");
}

}  // namespace bore::ctl
