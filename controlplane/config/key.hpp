// One row of a key table, and what can be done with the value behind it: parse, render, compare.
// The command line, the environment, the TOML file, the help text, --print-config and the reload
// difference all work on rows; none of them knows a key by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "controlplane/config/address_list.hpp"
#include "controlplane/config/load.hpp"
#include "controlplane/config/packet_port.hpp"
#include "controlplane/config/settings.hpp"

namespace bore::config {

// Strong names for the lists of numbers, which differ in what a person may write.
using Ports = std::vector<std::uint16_t>;
using Cpus = std::vector<std::uint32_t>;
using Texts = std::vector<std::string>;

// A pointer to the member a row describes. Its type decides how text becomes a value.
using Field =
    std::variant<bool*, std::uint16_t*, std::uint32_t*, std::optional<std::uint32_t>*, std::string*,
                 std::optional<std::string>*, std::optional<PortRange>*, std::vector<IpAddress>*,
                 std::vector<Prefix>*, Ports*, Cpus*, Texts*, std::vector<PacketPort>*,
                 std::vector<PathRule>*, AuthDialect*, StreamDriver*, EngineChoice*, PacketPath*,
                 PacketIdle*, Stats*, LogLevel*, LogFormat*>;

enum class Reload : std::uint8_t { no, yes };

struct KeyInfo {
    std::string_view group;
    std::string_view name;  // "min-port"; the TOML key and BORE_<KEY> follow from it
    char short_name = 0;
    std::string_view unit;  // "ms", "s", "Mbit/s", empty = a count
    std::uint64_t lowest = 0;
    std::uint64_t highest = 0;
    Reload reload = Reload::no;
    std::vector<std::string_view> aliases;  // variables beside the native one, which wins
    std::string_view help;                  // one sentence
    std::string_view placeholder;           // for --help: "N", "FILE"; empty = from the type
    bool sensitive = false;                 // the value is never shown
    bool empty_is_a_value = false;          // BORE_X= sets it; elsewhere that means "not set"
    // Replaces BORE_<KEY>; empty text = no variable at all.
    std::optional<std::string_view> variable;
};

template <class Config>
struct Key : KeyInfo {
    Field (*field)(Config&) = nullptr;
};

template <class Config, auto Member>
Field field_of(Config& config) {
    return &(config.*Member);
}

// A row bound to one configuration object, which must outlive it.
struct Row {
    const KeyInfo* info = nullptr;
    Field field;
};
using Rows = std::vector<Row>;

template <class Config>
Rows bind(const std::vector<Key<Config>>& table, Config& config) {
    Rows rows;
    rows.reserve(table.size());
    for (const Key<Config>& key : table) {
        rows.push_back({&key, key.field(config)});
    }
    return rows;
}

// One value as a person wrote it. A list has one item per element or per comma-separated text.
struct Setting {
    std::size_t key_index = 0;
    SourceKind kind = SourceKind::built_in;
    std::string origin;  // as in Origin::text
    std::string shown;   // as in ConfigError::value
    std::vector<std::string> items;
};

[[nodiscard]] std::string file_key(const KeyInfo& key);          // "min_port"
[[nodiscard]] std::string environment_name(const KeyInfo& key);  // "BORE_MIN_PORT" or empty
[[nodiscard]] bool is_list(const Field& field);
[[nodiscard]] std::string placeholder(const KeyInfo& key, const Field& field);

// "a whole number from 1 to 65535", "one of auto, upstream, fork", "true or false", ...
[[nodiscard]] std::string wanted(const KeyInfo& key, const Field& field);

// The value as a person would write it on a command line ("auto", "1024", "10.0.0.0/8,::/0").
[[nodiscard]] std::string plain_text(const Field& field);
// The same as a TOML value; empty when there is none to write (an optional text without value).
[[nodiscard]] std::string toml_text(const Field& field);

// Puts the value into the field. The error is the rule that was broken; the field is unchanged.
[[nodiscard]] std::expected<void, std::string> parse_value(const KeyInfo& key,
                                                           const std::vector<std::string>& items,
                                                           const Field& field);

// Both must be fields of the same row.
[[nodiscard]] bool equal(const Field& left, const Field& right);
void copy(const Field& from, const Field& to);

// What an error shows of a value: control bytes replaced, cut to a sensible length.
[[nodiscard]] std::string printable(std::string_view text);
// The same for a key's value, which a sensitive key hides.
[[nodiscard]] std::string printable_value(const KeyInfo& key, std::string_view text);

}  // namespace bore::config
