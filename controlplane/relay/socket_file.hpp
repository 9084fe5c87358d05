// A listening Unix socket with a name in the file system: taken so that it never has wider rights
// than it should, over the socket that a killed relay left behind, and never over a live one.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>

#include "controlplane/config/load.hpp"
#include "controlplane/config/server_config.hpp"
#include "controlplane/relay/descriptor.hpp"
#include "controlplane/relay/log.hpp"

namespace bore::relay {

class SocketFile {
  public:
    struct Error {
        bool in_use{false};    // somebody answers there
        std::string sentence;  // value, rule, remedy
    };

    // Mode 0660; the group is that of the process unless one is named. How:
    //   1. The folder is locked, so that two relays that start at once do not see each other's gap.
    //   2. Bound as PATH.new with no rights but the owner's, then group and mode.
    //   3. Whoever answers at PATH keeps it. A socket that nobody answers is replaced by renaming.
    [[nodiscard]] static std::expected<SocketFile, Error> open(const std::string& path,
                                                               const std::string& group);

    SocketFile(SocketFile&& other) noexcept = default;
    SocketFile& operator=(SocketFile&& other) noexcept = default;
    // Removes the name, if it is still this socket's.
    ~SocketFile();

    [[nodiscard]] int descriptor() const { return socket_.get(); }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    SocketFile(Descriptor socket, std::string path);

    Descriptor socket_;
    std::string path_;
    std::uint64_t inode_{0};
};

// The control socket that the configuration asks for. Nothing: it is off, or `auto` found no place
// for it, which the log says. The error is a sentence, and the relay must not start.
[[nodiscard]] std::expected<std::optional<SocketFile>, std::string> open_control_socket(
    const config::ServerConfig& config, const config::Environment& environment, Log& log);

}  // namespace bore::relay
