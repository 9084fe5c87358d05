// Locking, binding, replacing, removing; and where `auto` looks for a place.
#include "controlplane/relay/socket_file.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "controlplane/command/socket_path.hpp"

namespace bore::relay {

namespace {

using Error = SocketFile::Error;
using std::chrono::milliseconds;

constexpr int backlog = 16;
constexpr mode_t wanted_mode = 0660;
constexpr mode_t folder_mode = 0755;
// Another relay holds the folder's lock for the time of a few system calls. Whoever has it longer
// is none: everybody who may read the folder can lock it, and must not keep a relay from starting.
constexpr int lock_attempts = 200;
constexpr milliseconds lock_pause{10};

std::unexpected<Error> failed(const std::string& path, const std::string& what, int error_number,
                              const std::string& remedy) {
    return std::unexpected(Error{.sentence = "control-socket = " + path + ": " + what + ": " +
                                             std::strerror(error_number) + "; " + remedy});
}

std::string folder_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == 0 ? "/" : path.substr(0, slash);
}

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());  // open() has looked at the length
    return address;
}

// A lock on the folder itself needs no file that somebody would have to remove.
std::expected<Descriptor, Error> lock_folder(const std::string& path) {
    const std::string folder = folder_of(path);
    Descriptor lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!lock) {
        return failed(path, "the folder cannot be opened", errno,
                      "make " + folder + " first, with rights for the relay's user");
    }
    for (int attempt = 0; attempt < lock_attempts && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0;
         ++attempt) {
        std::this_thread::sleep_for(lock_pause);
    }
    return lock;
}

enum class Holder : std::uint8_t { nobody, dead, live, other };

Holder holder_of(const std::string& path) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) {
        return Holder::nobody;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return Holder::other;
    }
    const Descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const sockaddr_un address = address_of(path);
    if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
        return Holder::live;
    }
    return errno == ECONNREFUSED ? Holder::dead : Holder::live;  // EAGAIN: its backlog is full
}

std::expected<void, Error> check_free(const std::string& path) {
    switch (holder_of(path)) {
        case Holder::nobody:
        case Holder::dead:
            break;
        case Holder::live:
            return std::unexpected(
                Error{.in_use = true,
                      .sentence = "control-socket = " + path +
                                  ": a running relay answers there; give each relay its own "
                                  "server-id or control-socket"});
        case Holder::other:
            return std::unexpected(
                Error{.sentence = "control-socket = " + path +
                                  ": is there already and no socket; remove it or choose another "
                                  "path"});
    }
    return {};
}

std::expected<gid_t, Error> group_of(const std::string& path, const std::string& name) {
    std::array<char, 4096> buffer{};
    group entry{};
    group* found = nullptr;
    const int error = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (found == nullptr) {
        return std::unexpected(
            Error{.sentence = "control-socket-group = " + name + " (of " + path +
                              "): " + (error == 0 ? "no such group" : std::strerror(error)) +
                              "; name one of `getent group`"});
    }
    return found->gr_gid;
}

std::expected<void, Error> give_to(const std::string& temporary, const std::string& path,
                                   const std::string& group) {
    if (!group.empty()) {
        const auto id = group_of(path, group);
        if (!id) {
            return std::unexpected(id.error());
        }
        if (::chown(temporary.c_str(), static_cast<uid_t>(-1), *id) != 0) {
            return failed(path, "cannot be given to the group " + group, errno,
                          "name a group that the relay's user is a member of");
        }
    }
    if (::chmod(temporary.c_str(), wanted_mode) != 0) {
        return failed(path, "cannot get mode 0660", errno, "choose another folder");
    }
    return {};
}

// A folder that nobody made yet; where that is not permitted, opening it says why.
void make_folder(const std::string& folder) {
    (void)::mkdir(folder.c_str(), folder_mode);
}

}  // namespace

std::expected<SocketFile, Error> SocketFile::open(const std::string& path,
                                                  const std::string& group) {
    if (path.empty() || path.front() != '/' || path.size() > command::max_socket_path_bytes) {
        return std::unexpected(
            Error{.sentence = "control-socket = " + path + ": must begin with / and have at most " +
                              std::to_string(command::max_socket_path_bytes) +
                              " bytes; use a path such as /run/bore/NAME.sock, off or auto"});
    }
    const auto lock = lock_folder(path);
    if (!lock) {
        return std::unexpected(lock.error());
    }
    if (auto free = check_free(path); !free) {
        return std::unexpected(free.error());
    }
    Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    // The mode that a socket has when it is bound is the file's (less the umask's): nobody else
    // can connect before group and mode are what they should be.
    if (!socket || ::fchmod(socket.get(), S_IRUSR | S_IWUSR) != 0) {
        return failed(path, "no socket", errno, "raise max-open-files");
    }
    const std::string temporary = path + ".new";
    (void)::unlink(temporary.c_str());  // of a relay that was killed right here
    const sockaddr_un address = address_of(temporary);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(socket.get(), backlog) != 0) {
        return failed(
            path, "cannot be made", errno,
            "give the relay's user rights in " + folder_of(path) + ", or choose another path");
    }
    auto given = give_to(temporary, path, group);
    if (given && ::rename(temporary.c_str(), path.c_str()) != 0) {
        given = failed(path, "cannot be renamed", errno, "choose another path");
    }
    if (!given) {
        (void)::unlink(temporary.c_str());
        return std::unexpected(given.error());
    }
    return SocketFile(std::move(socket), path);
}

SocketFile::SocketFile(Descriptor socket, std::string path)
    : socket_(std::move(socket)), path_(std::move(path)) {
    struct stat status{};
    if (::lstat(path_.c_str(), &status) == 0) {
        inode_ = status.st_ino;
    }
}

SocketFile::~SocketFile() {
    struct stat status{};
    // Another relay may have been started in the same place after this name was taken away.
    if (socket_ && ::lstat(path_.c_str(), &status) == 0 && status.st_ino == inode_) {
        (void)::unlink(path_.c_str());
    }
}

std::expected<std::optional<SocketFile>, std::string> open_control_socket(
    const config::ServerConfig& config, const config::Environment& environment, Log& log) {
    const std::string group = config.control_socket_group.value_or("");
    if (config.control_socket == "off") {
        return std::nullopt;
    }
    if (config.control_socket != "auto") {
        auto opened = SocketFile::open(config.control_socket, group);
        if (!opened) {
            return std::unexpected(opened.error().sentence);
        }
        return std::move(*opened);
    }
    std::string reason = "no folder for it";
    for (const std::string& folder : command::socket_folders(environment)) {
        make_folder(folder);
        auto opened =
            SocketFile::open(command::socket_path(folder, config::stats_name(config)), group);
        if (opened) {
            return std::move(*opened);
        }
        reason = opened.error().sentence;
        if (opened.error().in_use) {
            break;  // a second one in another folder would only be mistaken for the first
        }
    }
    log.warning("no control socket, borectl cannot command this relay: " + reason);
    return std::nullopt;
}

}  // namespace bore::relay
