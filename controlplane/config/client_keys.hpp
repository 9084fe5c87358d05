// The client's key table and its options that are no keys; see server_keys.hpp for how it is used.
#pragma once

#include <vector>

#include "controlplane/config/client_config.hpp"
#include "controlplane/config/sources.hpp"

namespace bore::config {

[[nodiscard]] const std::vector<Key<ClientConfig>>& client_keys();
[[nodiscard]] const std::vector<CommandOption>& client_commands();

}  // namespace bore::config
