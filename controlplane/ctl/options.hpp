// borectl's command line.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "controlplane/command/request.hpp"
#include "controlplane/ctl/top_model.hpp"

namespace bore::ctl {

// Exit statuses, as borectl(1) lists them.
inline constexpr int exit_done = 0;
inline constexpr int exit_refused = 1;  // the relay refused, or something failed
inline constexpr int exit_usage = 2;
inline constexpr int exit_no_relay = 3;  // none, several, or one that cannot be read or reached
inline constexpr int exit_stale = 4;     // what was shown is a dead or stuck relay's

enum class Show : std::uint8_t { status, tunnels, workers, ports, drops, histograms, flows };

struct ShowOptions {
    Show what{Show::status};
    bool all{false};
};

struct TopOptions {
    base::Nanoseconds interval_ns{base::second_ns};
    bool once{false};
    TopSort sort{TopSort::rate};
    std::string filter;
    bool ascii{false};
};

struct Options {
    std::string relay;  // empty: the only one
    bool json{false};
    std::variant<ShowOptions, TopOptions, command::Request> action;
};

// Text to print and the status to end with, where there is nothing to do.
struct EarlyEnd {
    int status{exit_done};
    std::string output;
    std::string error;
};

[[nodiscard]] std::expected<Options, EarlyEnd> read_options(std::span<const char* const> arguments);

}  // namespace bore::ctl
