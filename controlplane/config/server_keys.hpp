// The relay's key table and its options that are no keys. The one place where a key's name, range,
// unit, variables, reload behaviour and help sentence are written; defaults are the initialisers
// of ServerConfig. To add a key: a member there, a row here, a line in the man page and the sample
// file (a test names what is missing).
#pragma once

#include <vector>

#include "controlplane/config/server_config.hpp"
#include "controlplane/config/sources.hpp"

namespace bore::config {

[[nodiscard]] const std::vector<Key<ServerConfig>>& server_keys();
[[nodiscard]] const std::vector<CommandOption>& server_commands();

}  // namespace bore::config
