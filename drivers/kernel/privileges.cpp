// Capabilities and no_new_privs belong to threads, so a drop has to happen in each of them:
//   1. every thread keeps its capabilities across a change of user (only where one is asked for)
//   2. the user changes; glibc does that in every thread
//   3. every thread gives up what is not needed
//   4. /proc tells whether all of them did
//
// A thread is reached by a signal whose handler makes the system calls. libcap's libpsx does the
// same, but version 2.66 knows only threads whose pthread_create() was wrapped when the program was
// linked, and DPDK makes its own inside a shared library.
#include "drivers/kernel/privileges.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "dataplane/base/clock.hpp"

namespace bore::drivers {
namespace {

using Done = std::expected<void, std::string>;

constexpr std::uint64_t kept = 1ULL << CAP_NET_ADMIN;
constexpr base::Nanoseconds patience_ns = 5 * base::second_ns;
constexpr base::Nanoseconds short_patience_ns = 500 * base::millisecond_ns;
// Kernel threads that serve io_uring; they run each request with the rights of who submitted it.
constexpr unsigned long kernel_worker_flags = 0x10 | 0x4000;  // PF_IO_WORKER, PF_USER_WORKER

// ---- What /proc tells of a thread

// Values of /proc/self/task/THREAD/status by name; empty when the thread has ended.
std::map<std::string, std::string> status_of(const std::string& thread) {
    std::map<std::string, std::string> values;
    std::ifstream file("/proc/self/task/" + thread + "/status");
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(":\t");
        if (colon != std::string::npos) {
            values[line.substr(0, colon)] = line.substr(colon + 2);
        }
    }
    return values;
}

std::uint64_t mask_of(const std::map<std::string, std::string>& status, const char* name) {
    const auto found = status.find(name);
    return found == status.end() ? 0 : std::strtoull(found->second.c_str(), nullptr, 16);
}

bool is_kernel_worker(const std::string& thread) {
    std::ifstream file("/proc/self/task/" + thread + "/stat");
    std::string line;
    std::getline(file, line);
    // Behind the name in parentheses: state and six numbers, then the flags.
    std::size_t at = line.rfind(") ");
    for (int field = 0; field < 7 && at != std::string::npos; ++field) {
        at = line.find(' ', at + 1);
    }
    return at != std::string::npos &&
           (std::strtoul(line.c_str() + at, nullptr, 10) & kernel_worker_flags) != 0;
}

std::vector<std::string> threads() {
    std::vector<std::string> found;
    DIR* folder = ::opendir("/proc/self/task");
    if (folder == nullptr) {
        return found;
    }
    while (const dirent* entry = ::readdir(folder)) {
        if (entry->d_name[0] != '.' && !is_kernel_worker(entry->d_name)) {
            found.emplace_back(entry->d_name);
        }
    }
    ::closedir(folder);
    return found;
}

// ---- What each thread does. Runs in a signal handler: system calls only.

using Work = bool (*)();

bool keep_across_change_of_user() {
    return ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0;
}

bool set_capabilities(const std::array<__user_cap_data_struct, 2>& data) {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    return ::syscall(SYS_capset, &header, data.data()) == 0;
}

bool give_up() {
    // A change of user has left them permitted, but not effective.
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> data{};
    ::syscall(SYS_capget, &header, data.data());
    for (auto& word : data) {
        word.effective = word.permitted;
    }
    set_capabilities(data);
    for (unsigned long capability = 0; capability < 64; ++capability) {
        // Without CAP_SETPCAP the bounding set stays. no_new_privs makes that harmless: a program
        // executed from here gets no capability that this thread has not.
        if (capability != CAP_NET_ADMIN) {
            ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
    }
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    data = {};
    data[0].permitted = data[0].effective = static_cast<std::uint32_t>(kept);
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && set_capabilities(data);
}

std::atomic<Work> work{nullptr};
std::atomic<int> threads_done{0};
std::atomic<int> work_error{0};

void on_signal(int /*signal*/) {
    const int saved = errno;
    if (const Work todo = work.load(); todo != nullptr && !todo()) {
        work_error.store(errno);
    }
    threads_done.fetch_add(1);
    errno = saved;
}

// ---- The round over all threads

Done wait_for(int count, const std::string& thread) {
    const base::Nanoseconds deadline = base::monotonic_now() + patience_ns;
    while (threads_done.load() < count) {
        if (::access(("/proc/self/task/" + thread).c_str(), F_OK) != 0) {
            threads_done.store(count);  // it ended before it saw the signal
        } else if (base::monotonic_now() > deadline) {
            return std::unexpected("thread " + thread + " did not answer within 5 s");
        } else {
            ::usleep(50);
        }
    }
    return {};
}

bool blocks_signal(const std::string& thread) {
    const std::uint64_t bit = 1ULL << static_cast<unsigned>(privilege_signal() - 1);
    return (mask_of(status_of(thread), "SigBlk") & bit) != 0;
}

Done do_in(const std::string& thread) {
    // A thread that has just begun blocks all signals for a moment; others mean it.
    const base::Nanoseconds deadline = base::monotonic_now() + short_patience_ns;
    while (blocks_signal(thread)) {
        if (base::monotonic_now() > deadline) {
            const auto status = status_of(thread);
            const auto name = status.find("Name");
            return std::unexpected("thread " + thread + " (" +
                                   (name == status.end() ? "?" : name->second) +
                                   ") blocks the signal for giving up privileges");
        }
        ::usleep(100);
    }
    const int before = threads_done.load();
    if (::syscall(SYS_tgkill, ::getpid(), std::stoi(thread), privilege_signal()) != 0) {
        return {};  // it has ended
    }
    return wait_for(before + 1, thread);
}

Done do_everywhere(Work todo) {
    work_error.store(0);
    work.store(todo);
    struct sigaction action{};
    struct sigaction previous{};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    ::sigaction(privilege_signal(), &action, &previous);
    const std::string self = std::to_string(::syscall(SYS_gettid));
    std::set<std::string> done{self};
    Done result;
    bool found = true;
    // Until no thread is new: one that was not done yet may have started another meanwhile.
    while (found && result) {
        found = false;
        for (const std::string& thread : threads()) {
            if (result && done.insert(thread).second) {
                found = true;
                result = do_in(thread);
            }
        }
    }
    if (result && !todo()) {
        work_error.store(errno);
    }
    ::sigaction(privilege_signal(), &previous, nullptr);
    work.store(nullptr);
    if (result && work_error.load() != 0) {
        return std::unexpected(std::string("the kernel refused: ") +
                               std::strerror(work_error.load()));
    }
    return result;
}

// ---- Steps

Done become(const std::string& user) {
    errno = 0;
    const passwd* entry = ::getpwnam(user.c_str());
    if (entry == nullptr) {
        return std::unexpected("there is no user \"" + user +
                               "\"; make one (systemd-sysusers, adduser --system) or name another");
    }
    const uid_t uid = entry->pw_uid;
    const gid_t gid = entry->pw_gid;
    if (::initgroups(entry->pw_name, gid) != 0 || ::setresgid(gid, gid, gid) != 0 ||
        ::setresuid(uid, uid, uid) != 0) {
        return std::unexpected("the relay cannot become user \"" + user +
                               "\": " + std::strerror(errno) +
                               "; start it as root, or as that user with the capabilities");
    }
    return {};
}

Done verify() {
    for (const std::string& thread : threads()) {
        const auto status = status_of(thread);
        if (status.empty()) {
            continue;
        }
        const bool reduced = mask_of(status, "CapPrm") == kept &&
                             mask_of(status, "CapEff") == kept && mask_of(status, "CapInh") == 0 &&
                             mask_of(status, "CapAmb") == 0 && status.contains("NoNewPrivs") &&
                             status.at("NoNewPrivs") == "1";
        if (!reduced) {
            return std::unexpected("thread " + thread + " (" + status.at("Name") +
                                   ") still has privileges");
        }
    }
    return {};
}

// ---- What is missing

std::optional<std::uint64_t> first_number(const std::string& path) {
    std::ifstream file(path);
    std::uint64_t value = 0;
    return file >> value ? std::optional(value) : std::nullopt;
}

bool has_free_hugepages() {
    constexpr std::array sizes{"2048kB", "1048576kB", "65536kB", "524288kB"};
    return std::any_of(sizes.begin(), sizes.end(), [](const char* size) {
        return first_number(std::string("/sys/kernel/mm/hugepages/hugepages-") + size +
                            "/free_hugepages")
                   .value_or(0) > 0;
    });
}

bool may_lock_memory(std::uint64_t capabilities) {
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    return (capabilities >> CAP_IPC_LOCK & 1U) != 0 || limit.rlim_cur == RLIM_INFINITY;
}

}  // namespace

int privilege_signal() {
    return SIGRTMAX - 3;
}

std::vector<std::string> missing_privileges(const PrivilegeNeeds& needs) {
    const std::uint64_t capabilities =
        mask_of(status_of(std::to_string(::syscall(SYS_gettid))), "CapEff");
    const auto has = [capabilities](int capability) {
        return (capabilities >> static_cast<unsigned>(capability) & 1U) != 0;
    };
    std::vector<std::string> missing;
    const auto want = [&missing](bool there, const char* sentence) {
        if (!there) {
            missing.emplace_back(sentence);
        }
    };
    want(has(CAP_NET_ADMIN),
         "CAP_NET_ADMIN is missing, for the exception interface and TCP_REPAIR: "
         "start as root, or with the packet engine's systemd drop-in");
    want(::access("/dev/net/tun", R_OK | W_OK) == 0,
         "/dev/net/tun cannot be used, for the exception interface: modprobe tun, and let the "
         "service use the device (DeviceAllow=/dev/net/tun rw)");
    if (needs.af_packet || needs.af_xdp) {
        want(has(CAP_NET_RAW),
             "CAP_NET_RAW is missing, for packet sockets: start as root, or with "
             "the packet engine's systemd drop-in");
    }
    if (needs.af_xdp) {
        want(has(CAP_BPF) || has(CAP_SYS_ADMIN),
             "CAP_BPF is missing, to load af_xdp's program: add it to AmbientCapabilities and "
             "CapabilityBoundingSet, or use af_packet");
    }
    if (needs.vfio) {
        want(
            ::access("/dev/vfio/vfio", R_OK | W_OK) == 0,
            "/dev/vfio/vfio cannot be used, for NICs by PCI address: modprobe vfio-pci, bind the "
            "NIC (tools/nic bind), and let the service use the devices (DeviceAllow=char-vfio rw)");
    }
    if (needs.vfio || needs.af_xdp) {
        want(may_lock_memory(capabilities),
             "memory cannot be locked for DMA: set LimitMEMLOCK=infinity (ulimit -l unlimited), or "
             "give CAP_IPC_LOCK");
    }
    if (needs.hugepages) {
        want(has_free_hugepages(),
             "no hugepage is free: sysctl vm.nr_hugepages=512 (1 GiB in pages "
             "of 2 MiB), best at boot");
    }
    return missing;
}

std::expected<void, std::string> drop_privileges(const PrivilegeDrop& options) {
    Done done;
    if (!options.user.empty()) {
        done = do_everywhere(keep_across_change_of_user);
        done = done ? become(options.user) : done;
    }
    done = done ? do_everywhere(give_up) : done;
    done = done ? verify() : done;
    if (!done) {
        return std::unexpected("privileges cannot be given up: " + done.error());
    }
    return {};
}

}  // namespace bore::drivers
