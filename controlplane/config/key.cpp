// Values of every type a key may have: one overload each for parsing, rendering and describing.
#include "controlplane/config/key.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <utility>

namespace bore::config {
namespace {

// Bounds what a file can make us hold; a list of networks has its own, max_address_list_count.
constexpr std::size_t max_bind_address_count = 64;
constexpr std::size_t max_cpu_count = 1024;
constexpr std::size_t max_port_count = 65536;
constexpr std::size_t max_text_count = 256;
constexpr std::size_t max_text_size_bytes = 4096;
constexpr std::size_t max_shown_size_bytes = 160;

template <class Enum>
using Names = std::vector<std::pair<std::string_view, Enum>>;

const Names<AuthDialect>& names_of(AuthDialect) {
    static const Names<AuthDialect> names = {{"auto", AuthDialect::automatic},
                                             {"upstream", AuthDialect::upstream},
                                             {"fork", AuthDialect::fork}};
    return names;
}

const Names<StreamDriver>& names_of(StreamDriver) {
    static const Names<StreamDriver> names = {{"auto", StreamDriver::automatic},
                                              {"io_uring", StreamDriver::io_uring},
                                              {"epoll", StreamDriver::epoll}};
    return names;
}

const Names<EngineChoice>& names_of(EngineChoice) {
    static const Names<EngineChoice> names = {{"auto", EngineChoice::automatic},
                                              {"stream", EngineChoice::stream},
                                              {"packet", EngineChoice::packet}};
    return names;
}

const Names<PacketPath>& names_of(PacketPath) {
    static const Names<PacketPath> names = {{"auto", PacketPath::automatic},
                                            {"splice", PacketPath::splice},
                                            {"stream", PacketPath::stream}};
    return names;
}

const Names<PacketIdle>& names_of(PacketIdle) {
    static const Names<PacketIdle> names = {
        {"spin", PacketIdle::spin}, {"pause", PacketIdle::pause}, {"sleep", PacketIdle::sleep}};
    return names;
}

const Names<Stats>& names_of(Stats) {
    static const Names<Stats> names = {{"on", Stats::on}, {"off", Stats::off}};
    return names;
}

const Names<LogLevel>& names_of(LogLevel) {
    static const Names<LogLevel> names = {
        {"trace", LogLevel::trace},     {"debug", LogLevel::debug},  {"info", LogLevel::info},
        {"warning", LogLevel::warning}, {"warn", LogLevel::warning}, {"error", LogLevel::error},
        {"off", LogLevel::off}};
    return names;
}

const Names<LogFormat>& names_of(LogFormat) {
    static const Names<LogFormat> names = {{"text", LogFormat::text}, {"json", LogFormat::json}};
    return names;
}

template <class T>
concept Choice = std::is_enum_v<T>;

using Items = std::vector<std::string>;
using Parsed = std::expected<void, std::string>;

std::optional<std::uint64_t> whole_number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

std::string number_rule(const KeyInfo& key) {
    return "a whole number" + (key.unit.empty() ? "" : " of " + std::string(key.unit)) + " from " +
           std::to_string(key.lowest) + " to " + std::to_string(key.highest);
}

template <class Number>
bool parse_number(const KeyInfo& key, std::string_view text, Number& number) {
    const auto value = whole_number(text);
    if (!value || *value < key.lowest || *value > key.highest) {
        return false;
    }
    number = static_cast<Number>(*value);
    return true;
}

// "7" or "7-9"; both ends in the key's range.
bool parse_number_range(const KeyInfo& key, std::string_view text, std::uint32_t& first,
                        std::uint32_t& last) {
    const std::size_t dash = text.find('-');
    if (!parse_number(key, text.substr(0, dash), first)) {
        return false;
    }
    last = first;
    return dash == std::string_view::npos ||
           (parse_number(key, text.substr(dash + 1), last) && first <= last);
}

bool is_utf8_without_controls(std::string_view text) {
    for (std::size_t index = 0; index < text.size();) {
        const auto lead = static_cast<unsigned char>(text[index++]);
        if (lead < 0x20 || lead == 0x7f || (lead >= 0x80 && lead < 0xc2) || lead > 0xf4) {
            return false;
        }
        const int tail_count = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        std::uint32_t code = lead & (0x7fU >> (tail_count == 0 ? 0 : tail_count + 1));
        for (int tail = 0; tail < tail_count; ++tail, ++index) {
            if (index == text.size() || (static_cast<unsigned char>(text[index]) & 0xc0) != 0x80) {
                return false;
            }
            code = (code << 6) | (static_cast<unsigned char>(text[index]) & 0x3fU);
        }
        // Overlong forms, surrogates and beyond the last plane; RFC 3629 section 3.
        constexpr std::array<std::uint32_t, 4> lowest_code = {0, 0x80, 0x800, 0x10000};
        if (code < lowest_code[static_cast<std::size_t>(tail_count)] || code > 0x10ffff ||
            (code >= 0xd800 && code < 0xe000) || (code >= 0x80 && code < 0xa0)) {
            return false;
        }
    }
    return true;
}

Parsed broken(const KeyInfo& key, const Field& field) {
    return std::unexpected("must be " + wanted(key, field));
}

Parsed parse(const KeyInfo& key, const Items& items, bool* field) {
    static constexpr std::array<std::string_view, 4> yes = {"true", "1", "yes", "on"};
    static constexpr std::array<std::string_view, 4> no = {"false", "0", "no", "off"};
    const bool is_yes = std::find(yes.begin(), yes.end(), items[0]) != yes.end();
    if (!is_yes && std::find(no.begin(), no.end(), items[0]) == no.end()) {
        return broken(key, field);
    }
    *field = is_yes;
    return {};
}

Parsed parse(const KeyInfo& key, const Items& items, std::uint16_t* field) {
    return parse_number(key, items[0], *field) ? Parsed{} : broken(key, field);
}

Parsed parse(const KeyInfo& key, const Items& items, std::uint32_t* field) {
    return parse_number(key, items[0], *field) ? Parsed{} : broken(key, field);
}

Parsed parse(const KeyInfo& key, const Items& items, std::optional<std::uint32_t>* field) {
    std::uint32_t number = 0;
    if (items[0] == "auto") {
        field->reset();
    } else if (parse_number(key, items[0], number)) {
        *field = number;
    } else {
        return broken(key, field);
    }
    return {};
}

Parsed parse(const KeyInfo& key, const Items& items, std::string* field) {
    if (items[0].empty() || items[0].size() > max_text_size_bytes ||
        !is_utf8_without_controls(items[0])) {
        return broken(key, field);
    }
    *field = items[0];
    return {};
}

Parsed parse(const KeyInfo& key, const Items& items, std::optional<std::string>* field) {
    // A secret is bytes; everything that is shown or logged must be text.
    const bool fits = items[0].size() <= max_text_size_bytes &&
                      (key.empty_is_a_value || !items[0].empty()) &&
                      (key.sensitive || is_utf8_without_controls(items[0]));
    if (!fits) {
        return broken(key, field);
    }
    *field = items[0];
    return {};
}

Parsed parse(const KeyInfo& key, const Items& items, std::optional<PortRange>* field) {
    const std::string_view text = items[0];
    const std::size_t colon = text.find(':');
    PortRange range;
    if (colon == std::string_view::npos || !parse_number(key, text.substr(0, colon), range.first) ||
        !parse_number(key, text.substr(colon + 1), range.last)) {
        return broken(key, field);
    }
    *field = range;
    return {};
}

// Lists of addresses and prefixes: the element's own parser says what is wrong with it.
template <class Element>
Parsed parse_elements(const Items& items, std::size_t max_count, std::vector<Element>* field) {
    std::vector<Element> elements;
    for (const std::string& item : items) {
        const auto element = Element::parse(item);
        if (!element) {
            return std::unexpected(printable(element.error()));
        }
        elements.push_back(*element);
    }
    if (elements.size() > max_count) {
        return std::unexpected("may have at most " + std::to_string(max_count) + " entries, not " +
                               std::to_string(elements.size()));
    }
    *field = std::move(elements);
    return {};
}

Parsed parse(const KeyInfo&, const Items& items, std::vector<IpAddress>* field) {
    return parse_elements(items, max_bind_address_count, field);
}

Parsed parse(const KeyInfo&, const Items& items, std::vector<Prefix>* field) {
    return parse_elements(items, max_address_list_count, field);
}

Parsed parse(const KeyInfo&, const Items& items, std::vector<PacketPort>* field) {
    auto ports = parse_packet_ports(items);
    if (!ports) {
        return std::unexpected(printable(ports.error()));
    }
    *field = std::move(*ports);
    return {};
}

Parsed parse(const KeyInfo&, const Items& items, std::vector<PathRule>* field) {
    return parse_elements(items, max_path_rules, field);
}

template <class Number>
Parsed parse_numbers(const KeyInfo& key, const Items& items, std::size_t max_count,
                     std::vector<Number>* field) {
    std::vector<Number> numbers;
    for (const std::string& item : items) {
        std::uint32_t first = 0;
        std::uint32_t last = 0;
        if (!parse_number_range(key, item, first, last)) {
            return std::unexpected("has \"" + printable(item) + "\", but must be " +
                                   wanted(key, field));
        }
        if (numbers.size() + (last - first) >= max_count) {
            return std::unexpected("may have at most " + std::to_string(max_count) + " entries");
        }
        for (std::uint32_t number = first; number <= last; ++number) {
            numbers.push_back(static_cast<Number>(number));
        }
    }
    *field = std::move(numbers);
    return {};
}

Parsed parse(const KeyInfo& key, const Items& items, Ports* field) {
    return parse_numbers(key, items, max_port_count, field);
}

Parsed parse(const KeyInfo& key, const Items& items, Cpus* field) {
    return parse_numbers(key, items, max_cpu_count, field);
}

Parsed parse(const KeyInfo& key, const Items& items, Texts* field) {
    const bool fits = std::all_of(items.begin(), items.end(), [](const std::string& item) {
        return !item.empty() && item.size() <= max_text_size_bytes &&
               is_utf8_without_controls(item);
    });
    if (!fits || items.size() > max_text_count) {
        return broken(key, field);
    }
    *field = items;
    return {};
}

template <Choice Enum>
Parsed parse(const KeyInfo& key, const Items& items, Enum* field) {
    for (const auto& [name, value] : names_of(Enum{})) {
        if (name == items[0]) {
            *field = value;
            return {};
        }
    }
    return broken(key, field);
}

template <std::integral Number>
std::string text(Number value) {
    return std::to_string(value);
}
template <>
std::string text(bool value) {
    return value ? "true" : "false";
}
std::string text(const std::string& value) {
    return value;
}
std::string text(const IpAddress& value) {
    return value.to_string();
}
std::string text(const Prefix& value) {
    return value.to_string();
}

std::string text(const PacketPort& value) {
    return value.to_string();
}
std::string text(const PathRule& value) {
    return value.to_string();
}

std::string text(const PortRange& value) {
    return std::to_string(value.first) + ":" + std::to_string(value.last);
}

std::string text(const std::optional<std::uint32_t>& value) {
    return value ? std::to_string(*value) : "auto";
}

template <class T>
std::string text(const std::optional<T>& value) {
    return value ? text(*value) : "";
}

template <Choice Enum>
std::string text(Enum value) {
    const auto& names = names_of(value);
    const auto found = std::find_if(names.begin(), names.end(),
                                    [value](const auto& name) { return name.second == value; });
    return std::string(found->first);
}

template <class T>
std::string text(const std::vector<T>& values) {
    std::string result;
    for (const T& value : values) {
        result += (result.empty() ? "" : ",") + text(value);
    }
    return values.empty() ? "none" : result;
}

// A basic string of TOML 1.0; parsing let nothing but quotes and backslashes through that needs it.
std::string quoted(std::string_view value) {
    std::string result = "\"";
    for (const char character : value) {
        if (character == '"' || character == '\\') {
            result += '\\';
        }
        result += character;
    }
    return result + "\"";
}

template <std::integral Number>
std::string toml(Number value) {
    return text(value);
}

std::string toml(const std::optional<std::uint32_t>& value) {
    return value ? text(*value) : quoted("auto");
}

template <class T>
std::string toml(const std::optional<T>& value) {
    return value ? quoted(text(*value)) : "";
}

template <class T>
    requires(!std::integral<T>)
std::string toml(const T& value) {
    return quoted(text(value));
}

template <class T>
std::string toml(const std::vector<T>& values) {
    std::string result;
    for (const T& value : values) {
        result += (result.empty() ? "" : ", ") + toml(value);
    }
    return "[" + result + "]";
}

template <class T>
struct Described {
    static std::string wanted(const KeyInfo&) {
        std::string names;
        for (const auto& [name, value] : names_of(T{})) {
            names += (names.empty() ? "" : ", ") + std::string(name);
        }
        return "one of " + names;
    }
    static constexpr std::string_view placeholder = "NAME";
};

template <>
struct Described<bool> {
    static std::string wanted(const KeyInfo&) { return "true or false"; }
    static constexpr std::string_view placeholder = "";
};

template <>
struct Described<std::uint32_t> {
    static std::string wanted(const KeyInfo& key) { return number_rule(key); }
    static constexpr std::string_view placeholder = "N";
};

template <>
struct Described<std::uint16_t> : Described<std::uint32_t> {};

template <>
struct Described<std::optional<std::uint32_t>> {
    static std::string wanted(const KeyInfo& key) { return "auto or " + number_rule(key); }
    static constexpr std::string_view placeholder = "N|auto";
};

template <>
struct Described<std::string> {
    static std::string wanted(const KeyInfo&) {
        return "UTF-8 text of 1 to " + std::to_string(max_text_size_bytes) +
               " bytes without control characters";
    }
    static constexpr std::string_view placeholder = "TEXT";
};

template <>
struct Described<std::optional<std::string>> {
    static std::string wanted(const KeyInfo& key) {
        return key.sensitive ? "text of at most " + std::to_string(max_text_size_bytes) + " bytes"
                             : Described<std::string>::wanted(key);
    }
    static constexpr std::string_view placeholder = "TEXT";
};

template <>
struct Described<std::optional<PortRange>> {
    static std::string wanted(const KeyInfo& key) {
        return "MIN:MAX, each " + number_rule(key) + ", as in 10000:20000";
    }
    static constexpr std::string_view placeholder = "MIN:MAX";
};

template <>
struct Described<std::vector<IpAddress>> {
    static std::string wanted(const KeyInfo&) { return "a list of IP addresses"; }
    static constexpr std::string_view placeholder = "IP";
};

template <>
struct Described<std::vector<Prefix>> {
    static std::string wanted(const KeyInfo&) {
        return "a list of networks such as 10.0.0.0/8 or 2001:db8::/32";
    }
    static constexpr std::string_view placeholder = "CIDR";
};

template <>
struct Described<std::vector<PacketPort>> {
    static std::string wanted(const KeyInfo&) {
        return "a list of DEVICE,address=IP/PREFIX[,gateway=IP][,interface=NAME][,mtu=BYTES]";
    }
    static constexpr std::string_view placeholder = "PORT";
};

template <>
struct Described<std::vector<PathRule>> {
    static std::string wanted(const KeyInfo&) {
        return "a list of PORTS=PATH such as 20000-20099=stream";
    }
    static constexpr std::string_view placeholder = "PORTS=PATH";
};

template <>
struct Described<Ports> {
    static std::string wanted(const KeyInfo& key) {
        return "a list of whole numbers from " + std::to_string(key.lowest) + " to " +
               std::to_string(key.highest) + " or ranges such as 6000-6009";
    }
    static constexpr std::string_view placeholder = "PORT";
};

template <>
struct Described<Cpus> {
    static std::string wanted(const KeyInfo& key) {
        return "a list of whole numbers from " + std::to_string(key.lowest) + " to " +
               std::to_string(key.highest) + " or ranges such as 0-3";
    }
    static constexpr std::string_view placeholder = "CPU";
};

template <>
struct Described<Texts> {
    static std::string wanted(const KeyInfo&) {
        return "a list of at most " + std::to_string(max_text_count) +
               " texts of UTF-8 without control characters";
    }
    static constexpr std::string_view placeholder = "TEXT";
};

template <class Pointer>
using Value = std::remove_pointer_t<Pointer>;

}  // namespace

std::string file_key(const KeyInfo& key) {
    std::string result(key.name);
    std::replace(result.begin(), result.end(), '-', '_');
    return result;
}

std::string environment_name(const KeyInfo& key) {
    if (key.variable) {
        return std::string(*key.variable);
    }
    std::string result = "BORE_" + file_key(key);
    std::transform(result.begin(), result.end(), result.begin(), [](char letter) {
        return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
    });
    return result;
}

bool is_list(const Field& field) {
    return std::holds_alternative<std::vector<IpAddress>*>(field) ||
           std::holds_alternative<std::vector<Prefix>*>(field) ||
           std::holds_alternative<std::vector<PacketPort>*>(field) ||
           std::holds_alternative<std::vector<PathRule>*>(field) ||
           std::holds_alternative<Ports*>(field) || std::holds_alternative<Cpus*>(field) ||
           std::holds_alternative<Texts*>(field);
}

std::string placeholder(const KeyInfo& key, const Field& field) {
    if (!key.placeholder.empty()) {
        return std::string(key.placeholder);
    }
    return std::visit(
        []<class Pointer>(Pointer) { return std::string(Described<Value<Pointer>>::placeholder); },
        field);
}

std::string wanted(const KeyInfo& key, const Field& field) {
    return std::visit(
        [&key]<class Pointer>(Pointer) { return Described<Value<Pointer>>::wanted(key); }, field);
}

std::string plain_text(const Field& field) {
    return std::visit([](const auto* value) { return text(*value); }, field);
}

std::string toml_text(const Field& field) {
    return std::visit([](const auto* value) { return toml(*value); }, field);
}

std::expected<void, std::string> parse_value(const KeyInfo& key,
                                             const std::vector<std::string>& items,
                                             const Field& field) {
    return std::visit([&](auto* value) { return parse(key, items, value); }, field);
}

bool equal(const Field& left, const Field& right) {
    return std::visit(
        [&right]<class Pointer>(Pointer value) { return *value == *std::get<Pointer>(right); },
        left);
}

void copy(const Field& from, const Field& to) {
    std::visit([&to]<class Pointer>(Pointer value) { *std::get<Pointer>(to) = *value; }, from);
}

std::string printable(std::string_view text) {
    std::string result(text.substr(0, max_shown_size_bytes));
    const bool is_text = is_utf8_without_controls(result);
    std::replace_if(
        result.begin(), result.end(),
        [is_text](char letter) {
            const auto byte = static_cast<unsigned char>(letter);
            return !is_text && (byte < 0x20 || byte >= 0x7f);
        },
        '?');
    return text.size() > max_shown_size_bytes ? result + "..." : result;
}

std::string printable_value(const KeyInfo& key, std::string_view text) {
    return key.sensitive ? "(hidden)" : printable(text);
}

}  // namespace bore::config
