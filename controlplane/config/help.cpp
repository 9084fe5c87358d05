// Two lines per option: how it is written, and what it does with default, range and variables.
#include "controlplane/config/help.hpp"

namespace bore::config {
namespace {

constexpr std::size_t line_width = 96;
constexpr std::size_t indent_width = 10;

std::string wrapped(const std::string& text) {
    std::string result;
    std::string line;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find(' ', begin), text.size());
        const std::string word = text.substr(begin, end - begin);
        if (indent_width + line.size() + 1 + word.size() > line_width) {
            result += std::string(indent_width, ' ') + line + "\n";
            line.clear();
        }
        line += (line.empty() ? "" : " ") + word;
        begin = end + 1;
    }
    return result + std::string(indent_width, ' ') + line + "\n";
}

std::string heading(char short_name, std::string_view name, const std::string& placeholder) {
    return "  " + (short_name == 0 ? "    " : std::string("-") + short_name + ", ") + "--" +
           std::string(name) + (placeholder.empty() ? "" : " " + placeholder) + "\n";
}

// "[default 100; 0 to 1000 ms; BORE_CHALLENGE_GRACE_MS; reload]"
std::string facts(const Row& row) {
    const KeyInfo& key = *row.info;
    std::string text = plain_text(row.field);
    text = text.empty() ? "no default" : "default " + text;
    if (key.highest != 0) {
        text += "; " + std::to_string(key.lowest) + " to " + std::to_string(key.highest) +
                (key.unit.empty() ? "" : " " + std::string(key.unit));
    } else if (wanted(key, row.field).starts_with("one of ")) {
        text += "; " + wanted(key, row.field);
    }
    std::string variables = environment_name(key);
    for (const std::string_view alias : key.aliases) {
        variables += ", " + std::string(alias);
    }
    text += variables.empty() ? "" : "; " + variables;
    text += is_list(row.field) ? "; repeatable" : "";
    text += key.reload == Reload::yes ? "; reload" : "";
    return "[" + text + "]";
}

}  // namespace

std::string option_help(const Rows& rows, std::span<const CommandOption> commands) {
    std::string text;
    std::string_view group;
    for (const Row& row : rows) {
        const KeyInfo& key = *row.info;
        if (key.group != group) {
            group = key.group;
            text += "\n" + std::string(group) + ":\n";
        }
        text += heading(key.short_name, key.name, placeholder(key, row.field)) +
                wrapped(std::string(key.help) + " " + facts(row));
    }
    text += "\nCommands:\n";
    for (const CommandOption& command : commands) {
        text += heading(command.short_name, command.name, std::string(command.placeholder)) +
                wrapped(std::string(command.help));
    }
    return text;
}

}  // namespace bore::config
