// The exporter's key table and its options that are no keys; server_keys.hpp says how it is used.
#pragma once

#include <vector>

#include "controlplane/config/exporter_config.hpp"
#include "controlplane/config/sources.hpp"

namespace bore::config {

[[nodiscard]] const std::vector<Key<ExporterConfig>>& exporter_keys();
[[nodiscard]] const std::vector<CommandOption>& exporter_commands();

}  // namespace bore::config
