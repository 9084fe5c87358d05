#include "dataplane/abi/segment_owner.hpp"

#include <pwd.h>
#include <unistd.h>

#include <optional>
#include <vector>

namespace bore::abi {

namespace {

constexpr std::size_t user_entry_bytes = 16'384;

std::optional<uid_t> id_of(const char* name) {
    std::vector<char> buffer(user_entry_bytes);
    passwd entry{};
    passwd* found = nullptr;
    (void)::getpwnam_r(name, &entry, buffer.data(), buffer.size(), &found);
    return found == nullptr ? std::nullopt : std::optional(found->pw_uid);
}

}  // namespace

bool is_relay_user(std::uint32_t user_id) {
    static const std::optional<uid_t> relay_user = id_of(relay_user_name);
    return user_id == 0 || user_id == ::geteuid() || user_id == relay_user;
}

std::string user_text(std::uint32_t user_id) {
    const std::string id = "uid " + std::to_string(user_id);
    std::vector<char> buffer(user_entry_bytes);
    passwd entry{};
    passwd* found = nullptr;
    (void)::getpwuid_r(user_id, &entry, buffer.data(), buffer.size(), &found);
    return found == nullptr ? id : "user " + std::string(found->pw_name) + " (" + id + ")";
}

}  // namespace bore::abi
