// See socket_path.hpp.
#include "controlplane/command/socket_path.hpp"

#include <algorithm>

namespace bore::command {

namespace {

constexpr std::string_view system_folder = "/run/bore";

std::string_view variable(const config::Environment& environment, std::string_view name) {
    const auto found = environment.find(name);
    return found == environment.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace

std::vector<std::string> socket_folders(const config::Environment& environment) {
    std::vector<std::string> folders;
    const auto add = [&folders](std::string folder) {
        if (!folder.empty() && folder.front() == '/' &&
            std::find(folders.begin(), folders.end(), folder) == folders.end()) {
            folders.push_back(std::move(folder));
        }
    };
    // systemd names several with colons between them.
    const std::string_view runtime = variable(environment, "RUNTIME_DIRECTORY");
    add(std::string(runtime.substr(0, runtime.find(':'))));
    add(std::string(system_folder));
    if (const std::string_view own = variable(environment, "XDG_RUNTIME_DIR"); !own.empty()) {
        add(std::string(own) + "/bore");
    }
    return folders;
}

std::string socket_path(std::string_view folder, std::string_view name) {
    return std::string(folder) + "/" + std::string(name) + ".sock";
}

}  // namespace bore::command
