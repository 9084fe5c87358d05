// Making, locking, naming and removing the file of a segment.
#include "dataplane/abi/segment_memory.hpp"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/segment_owner.hpp"
#include "dataplane/base/check.hpp"

namespace bore::abi {

namespace {

constexpr mode_t segment_mode = 0640;
constexpr std::string_view remedy = ", or start with --stats off";

std::string reason(int error_number) {
    return std::string(" (") + std::strerror(error_number) + ")";
}

struct Closing {
    explicit Closing(int number) : descriptor(number) {}
    Closing(const Closing&) = delete;
    Closing& operator=(const Closing&) = delete;
    ~Closing() {
        if (descriptor >= 0) {
            ::close(descriptor);
        }
    }
    int release() { return std::exchange(descriptor, -1); }

    int descriptor;
};

bool lock(int descriptor) {
    struct flock whole{};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    return ::fcntl(descriptor, F_OFD_SETLK, &whole) == 0;
}

std::expected<void, std::string> give_to_user(int descriptor, const std::string& name,
                                              const std::string& path) {
    std::vector<char> buffer(16'384);
    passwd entry{};
    passwd* found = nullptr;
    (void)::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (found == nullptr) {
        return std::unexpected("there is no user \"" + name +
                               "\"; make one (systemd-sysusers, adduser --system) or name another");
    }
    if (::fchown(descriptor, entry.pw_uid, entry.pw_gid) != 0) {
        return std::unexpected(path + " cannot be given to the user \"" + name + "\"" +
                               reason(errno) + "; start the relay as root, or as that user");
    }
    return {};
}

std::expected<void, std::string> give_to_group(int descriptor, const std::string& name,
                                               const std::string& path) {
    std::vector<char> buffer(16'384);
    group entry{};
    group* found = nullptr;
    if (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
        found == nullptr) {
        return std::unexpected("stats-group = " + name +
                               ": there is no such group; create it (groupadd " + name +
                               ") or name another");
    }
    if (::fchown(descriptor, static_cast<uid_t>(-1), entry.gr_gid) != 0) {
        return std::unexpected("stats-group = " + name + ": " + path +
                               " cannot be given to this group" + reason(errno) +
                               "; make the relay's user a member of it, or leave stats-group out");
    }
    return {};
}

// Whether the name is still that of the open file.
bool named(int descriptor, const std::string& path) {
    struct stat opened{};
    struct stat found{};
    return ::fstat(descriptor, &opened) == 0 && ::lstat(path.c_str(), &found) == 0 &&
           opened.st_ino == found.st_ino && opened.st_dev == found.st_dev;
}

// Relays lock for writing, which who may only read the file cannot.
bool locked_by_a_relay(int descriptor) {
    struct flock whole{};
    whole.l_type = F_RDLCK;
    whole.l_whence = SEEK_SET;
    return ::fcntl(descriptor, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

std::unexpected<PublishError> taken(const std::string& path, uid_t owner, const std::string& what) {
    return std::unexpected(PublishError{
        .by_another_user = true,
        .sentence = path + " belongs to " + user_text(owner) + " and " + what +
                    "; as root, remove it, then start the relay anew, or choose another server-id" +
                    std::string(remedy)});
}

// Removes what a dead relay left, or what root may remove of another user's, unless its lock says
// that a relay lives. Whether it did: false when it has gone by itself meanwhile.
std::expected<bool, PublishError> remove_old(const std::string& path) {
    struct stat found{};
    if (::lstat(path.c_str(), &found) != 0) {
        return false;  // linkat() says what is wrong, if anything is
    }
    const bool foreign = found.st_uid != ::geteuid();
    const auto refused = [&](const std::string& what) -> std::expected<bool, PublishError> {
        if (foreign) {
            return taken(path, found.st_uid, what);
        }
        return std::unexpected(PublishError{.sentence = path + " is there and " + what +
                                                        "; remove it, choose another server-id" +
                                                        std::string(remedy)});
    };
    const auto remove = [&]() -> std::expected<bool, PublishError> {
        if (::unlink(path.c_str()) == 0) {
            return true;
        }
        return errno == ENOENT ? std::expected<bool, PublishError>(false)
                               : refused("cannot be removed" + reason(errno));
    };
    if (foreign && !S_ISREG(found.st_mode)) {
        return remove();  // a link, a pipe: no relay's, and nothing that could be locked
    }
    const Closing old(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (old.descriptor < 0) {
        return errno == ENOENT ? std::expected<bool, PublishError>(false)
                               : refused("cannot be opened" + reason(errno));
    }
    if (!lock(old.descriptor)) {
        if (foreign) {
            return refused("is in use by a program of that user");
        }
        if (!locked_by_a_relay(old.descriptor)) {
            return taken(path, found.st_uid, "is kept locked by somebody who may read it");
        }
        return std::unexpected(
            PublishError{.sentence = "another relay that runs on this machine holds " + path +
                                     "; give each its own server-id" + std::string(remedy)});
    }
    return named(old.descriptor, path) ? remove() : false;
}

// Removes what another user than `own` has under the name, as far as remove_old() does. Whose it
// was; empty when nothing was removed.
std::string make_way(const std::string& path, uid_t own) {
    struct stat found{};
    if (::lstat(path.c_str(), &found) != 0 || found.st_uid == own) {
        return {};
    }
    return remove_old(path).value_or(false) ? user_text(found.st_uid) : std::string();
}

std::string megabytes(std::size_t size_bytes) {
    return std::to_string((size_bytes + (1U << 20U) - 1) >> 20U) + " MiB";
}

}  // namespace

SegmentMemory SegmentMemory::anonymous(std::size_t size_bytes) {
    void* memory = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    BORE_CHECK(memory != MAP_FAILED, "no address space for the statistics");
    return {static_cast<std::byte*>(memory), size_bytes, -1, {}};
}

std::expected<SegmentMemory, std::string> SegmentMemory::shared(const SegmentOptions& options,
                                                                std::size_t size_bytes) {
    const std::string directory =
        options.directory.empty() ? std::string(segment_directory) : options.directory;
    const std::string path = directory + "/" + options.name;
    Closing file(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, segment_mode));
    if (file.descriptor < 0) {
        return std::unexpected("the statistics need shared memory, but no file can be made in " +
                               directory + reason(errno) + "; mount a tmpfs there" +
                               std::string(remedy));
    }
    // The umask may have taken bits away.
    if (::fchmod(file.descriptor, segment_mode) != 0) {
        return std::unexpected(path + " cannot be made readable for its group" + reason(errno) +
                               "; mount a tmpfs on " + directory + std::string(remedy));
    }
    std::expected<void, std::string> given;
    if (options.user) {
        given = give_to_user(file.descriptor, *options.user, path);
    }
    if (given && options.group) {
        given = give_to_group(file.descriptor, *options.group, path);
    }
    if (!given) {
        return std::unexpected(given.error());
    }
    struct stat own{};
    std::string removed_of;
    if (::fstat(file.descriptor, &own) == 0) {
        removed_of = make_way(path, own.st_uid);
    }
    if (const int error = ::posix_fallocate(file.descriptor, 0, static_cast<off_t>(size_bytes));
        error != 0) {
        return std::unexpected("the statistics need " + megabytes(size_bytes) + " in " + directory +
                               ", which it does not have" + reason(error) +
                               "; remove files there, make it larger (mount -o remount,size=...), "
                               "lower max-tunnels or workers" +
                               std::string(remedy));
    }
    void* memory =
        ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0);
    if (memory == MAP_FAILED) {
        return std::unexpected(path + " cannot be mapped" + reason(errno) +
                               "; raise the limit of address space (ulimit -v)" +
                               std::string(remedy));
    }
    SegmentMemory made(static_cast<std::byte*>(memory), size_bytes, file.release(), path);
    made.removed_of_ = std::move(removed_of);
    if (!lock(made.descriptor_)) {
        return std::unexpected(path + " cannot be locked" + reason(errno) + "; mount a tmpfs on " +
                               directory + std::string(remedy));
    }
    return made;
}

SegmentMemory::SegmentMemory(SegmentMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(other.size_bytes_),
      descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      removed_of_(std::move(other.removed_of_)),
      published_(std::exchange(other.published_, false)) {}

SegmentMemory::~SegmentMemory() {
    if (data_ == nullptr) {
        return;
    }
    if (published_ && named(descriptor_, path_)) {
        ::unlink(path_.c_str());
    }
    ::munmap(data_, size_bytes_);
    if (descriptor_ >= 0) {
        ::close(descriptor_);
    }
}

std::expected<void, PublishError> SegmentMemory::publish() {
    if (descriptor_ < 0 || published_) {
        return {};
    }
    const std::string own = "/proc/self/fd/" + std::to_string(descriptor_);
    // linkat() never replaces. What is in the way is removed only by who holds its lock while it
    // still has the name, so of several relays that start at once, one gets it.
    for (int attempt = 0; attempt < 16; ++attempt) {
        if (::linkat(AT_FDCWD, own.c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) == 0) {
            published_ = true;
            return {};
        }
        if (errno != EEXIST) {
            return std::unexpected(PublishError{.sentence = path_ + " cannot be made" +
                                                            reason(errno) + "; is /proc mounted?" +
                                                            std::string(remedy)});
        }
        if (const auto removed = remove_old(path_); !removed) {
            return std::unexpected(removed.error());
        }
    }
    return std::unexpected(PublishError{
        .by_another_user = true,
        .sentence = path_ + " changes hands all the time; find out who makes it (lsof, ls -l), and "
                            "start the relay anew"});
}

}  // namespace bore::abi
