// The --help text, laid out from a key table.
#pragma once

#include <span>
#include <string>

#include "controlplane/config/sources.hpp"

namespace bore::config {

// The rows group by group, then `commands`. `rows` must be bound to a default configuration.
[[nodiscard]] std::string option_help(const Rows& rows, std::span<const CommandOption> commands);

}  // namespace bore::config
