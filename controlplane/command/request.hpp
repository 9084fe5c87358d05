// What an operator may ask of a running relay over its control socket: one JSON object per line.
// Pure code on text, used by the relay, which parses, and by borectl, which encodes. The format is
// written down byte by byte in bore-control(7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "controlplane/config/settings.hpp"

namespace bore::command {

// A request's line without its line feed.
inline constexpr std::size_t max_request_bytes = 4096;
inline constexpr std::uint32_t max_drain_deadline_s = 86'400;

struct Ping {
    bool operator==(const Ping&) const = default;
};
// Names a tunnel for as long as the relay runs, also when its port is another's already: its row in
// the statistics and how many tunnels that row has had. Written "ROW.GENERATION".
struct TunnelId {
    std::uint32_t row = 0;
    std::uint64_t generation = 0;
    bool operator==(const TunnelId&) const = default;
};
[[nodiscard]] std::optional<TunnelId> parse_tunnel_id(std::string_view text);
[[nodiscard]] std::string text_of(const TunnelId& id);

// Ends a tunnel and its pairs, by public port or by id.
struct Kill {
    std::optional<std::uint16_t> port;
    std::optional<TunnelId> id;
    bool operator==(const Kill&) const = default;
};
// No new tunnels and visitors; with a deadline, pairs that outlive it are cut.
struct Drain {
    std::optional<std::uint32_t> deadline_s;
    bool operator==(const Drain&) const = default;
};
struct Undrain {
    bool operator==(const Undrain&) const = default;
};
struct Reload {
    bool operator==(const Reload&) const = default;
};
struct SetLogLevel {
    config::LogLevel level = config::LogLevel::info;
    bool operator==(const SetLogLevel&) const = default;
};
// A page of spliced flows; `from` is the `next` of the page before, 0 for the first.
struct ListFlows {
    std::uint32_t from = 0;
    bool operator==(const ListFlows&) const = default;
};

using Request = std::variant<Ping, Kill, Drain, Undrain, Reload, SetLogLevel, ListFlows>;

// The error is a sentence: what was said, the rule, the remedy.
[[nodiscard]] std::expected<Request, std::string> parse_request(std::string_view line);
// With its line feed.
[[nodiscard]] std::string encode_request(const Request& request);

[[nodiscard]] std::string_view name_of(const Request& request);
[[nodiscard]] std::optional<config::LogLevel> log_level_of(std::string_view name);
[[nodiscard]] std::string_view name_of(config::LogLevel level);

}  // namespace bore::command
