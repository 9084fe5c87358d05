// Where a relay's control socket is when nobody said where: the relay makes it there and borectl
// looks there. Pure; the caller passes the environment. The name is that of the statistics
// (config::stats_name), so that both of a relay have one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/config/load.hpp"

namespace bore::command {

// A Unix socket's path has 108 bytes with its NUL, and the socket is bound under a longer name
// first (".new").
inline constexpr std::size_t max_socket_path_bytes = 103;

// Folders in the order in which a relay tries them: the one that systemd made for it
// (RuntimeDirectory=bore), /run/bore, the user's own.
[[nodiscard]] std::vector<std::string> socket_folders(const config::Environment& environment);
[[nodiscard]] std::string socket_path(std::string_view folder, std::string_view name);

}  // namespace bore::command
