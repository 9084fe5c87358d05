// The configuration file: TOML with one flat table of keys. Syntax errors, unknown keys and values
// of the wrong type become errors with their line; ranges are judged later.
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "controlplane/config/sources.hpp"

namespace bore::config {
namespace {

struct Shape {
    bool boolean = false;
    bool integer = false;
    bool string = false;
    bool array = false;  // of whatever the other members allow
    std::string_view wanted;
};

Shape shape_of(const Field& field) {
    if (std::holds_alternative<bool*>(field)) {
        return {.boolean = true, .wanted = "true or false"};
    }
    if (std::holds_alternative<std::uint16_t*>(field) ||
        std::holds_alternative<std::uint32_t*>(field)) {
        return {.integer = true, .wanted = "an integer"};
    }
    if (std::holds_alternative<std::optional<std::uint32_t>*>(field)) {
        return {.integer = true, .string = true, .wanted = "an integer or \"auto\""};
    }
    if (std::holds_alternative<Ports*>(field) || std::holds_alternative<Cpus*>(field)) {
        return {.integer = true,
                .string = true,
                .array = true,
                .wanted = "an array of integers or strings such as \"6000-6009\""};
    }
    if (is_list(field)) {
        return {.string = true, .array = true, .wanted = "an array of strings"};
    }
    return {.string = true, .wanted = "a string"};
}

std::optional<std::string> scalar_text(const Shape& shape, const toml::node& node) {
    if (const auto* boolean = node.as_boolean(); boolean != nullptr && shape.boolean) {
        return boolean->get() ? "true" : "false";
    }
    if (const auto* integer = node.as_integer(); integer != nullptr && shape.integer) {
        return std::to_string(integer->get());
    }
    if (const auto* string = node.as_string(); string != nullptr && shape.string) {
        return string->get();
    }
    return std::nullopt;
}

std::optional<std::vector<std::string>> items_of(const Shape& shape, const toml::node& node) {
    std::vector<std::string> items;
    if (!shape.array) {
        const auto text = scalar_text(shape, node);
        return text ? std::optional(std::vector{*text}) : std::nullopt;
    }
    const toml::array* array = node.as_array();
    if (array == nullptr) {
        return std::nullopt;
    }
    for (const toml::node& element : *array) {
        const auto text = scalar_text(shape, element);
        if (!text) {
            return std::nullopt;
        }
        items.push_back(*text);
    }
    return items;
}

std::string type_name(const toml::node& node) {
    switch (node.type()) {
        case toml::node_type::table:
            return "a table";
        case toml::node_type::array:
            return "an array of other things or of mixed types";
        case toml::node_type::string:
            return "a string";
        case toml::node_type::integer:
            return "an integer";
        case toml::node_type::floating_point:
            return "a number with a fraction";
        case toml::node_type::boolean:
            return "true or false";
        default:
            return "a date or time";
    }
}

// Where a value stands and how the file spells it, "bore.toml:12 max_port = 0".
std::string shown_line(const Row& row, const std::string& place, const std::string& text,
                       std::size_t line_number) {
    const std::string key = file_key(*row.info);
    std::istringstream lines(text);
    std::string line;
    for (std::size_t number = 0; number < line_number && std::getline(lines, line); ++number) {
    }
    line.erase(0, line.find_first_not_of(" \t"));
    if (row.info->sensitive || !line.starts_with(key)) {
        return place + " " + key + " = " + (row.info->sensitive ? "(hidden)" : "...");
    }
    return place + " " + printable(line.substr(0, line.find_last_not_of(" \t\r") + 1));
}

void report_unknown_key(const Rows& rows, const std::string& key, const std::string& place,
                        const toml::node& node, Collected& into) {
    std::vector<std::string> known;
    for (const Row& row : rows) {
        known.push_back(file_key(*row.info));
    }
    std::string spelling = key;
    std::replace(spelling.begin(), spelling.end(), '-', '_');
    const std::string meant = nearest(spelling, known);
    std::string remedy =
        meant.empty() ? "see bore-server.toml(5) for the keys" : "did you mean " + meant + "?";
    if (node.is_table()) {
        remedy = "keys stand at the top of the file, without a [" + printable(key) + "] in front";
    }
    into.errors.push_back({place + " " + printable(key), "is not a key", std::move(remedy)});
}

void read_key(const Rows& rows, const std::string& key, const toml::node& node,
              const std::string& name, const std::string& text, Collected& into) {
    const std::string place = name + ":" + std::to_string(node.source().begin.line);
    const auto found = std::find_if(rows.begin(), rows.end(),
                                    [&key](const Row& row) { return file_key(*row.info) == key; });
    if (found == rows.end()) {
        report_unknown_key(rows, key, place, node, into);
        return;
    }
    const Shape shape = shape_of(found->field);
    std::string shown = shown_line(*found, place, text, node.source().begin.line);
    auto items = items_of(shape, node);
    if (!items) {
        into.invalid.insert(static_cast<std::size_t>(found - rows.begin()));
        into.errors.push_back({std::move(shown),
                               "must be " + std::string(shape.wanted) + ", not " + type_name(node),
                               "write " + wanted(*found->info, found->field)});
        return;
    }
    into.settings.push_back({.key_index = static_cast<std::size_t>(found - rows.begin()),
                             .kind = SourceKind::file,
                             .origin = place,
                             .shown = std::move(shown),
                             .items = std::move(*items)});
}

}  // namespace

void read_toml(const Rows& rows, const std::string& text, const std::string& name,
               Collected& into) {
    try {
        const toml::table table = toml::parse(text);
        std::vector<std::pair<std::string, const toml::node*>> entries;
        for (const auto& [key, node] : table) {
            entries.emplace_back(std::string(key), &node);
        }
        std::sort(entries.begin(), entries.end(), [](const auto& left, const auto& right) {
            return left.second->source().begin < right.second->source().begin;
        });
        for (const auto& [key, node] : entries) {
            read_key(rows, key, *node, name, text, into);
        }
    } catch (const toml::parse_error& error) {
        into.incomplete = true;
        const toml::source_position where = error.source().begin;
        into.errors.push_back({name + ":" + std::to_string(where.line) + ":" +
                                   std::to_string(where.column) + " (line:column)",
                               "is not TOML: " + printable(error.description()),
                               "correct the line; strings need quotes, lists brackets"});
    }
}

}  // namespace bore::config
