// Whose files are a relay's statistics: /dev/shm is everybody's to write to, so a name alone says
// nothing. README.md has the rule.
#pragma once

#include <cstdint>
#include <string>

namespace bore::abi {

// The user that the service unit runs relays as.
inline constexpr const char* relay_user_name = "bore";

// Root, the user of this process, or the user `bore`. Looks the latter up once.
[[nodiscard]] bool is_relay_user(std::uint32_t user_id);

// "user bore (uid 998)", "uid 1234" where it has no name.
[[nodiscard]] std::string user_text(std::uint32_t user_id);

}  // namespace bore::abi
