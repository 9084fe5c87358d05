// The start of DPDK: what it must leave alone, and what stops it. DPDK starts once in a process, so
// every case runs in a child and tells by its exit status and a line on a pipe.
#include "drivers/dpdk/eal.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>

#include "tests/dpdk/wire.hpp"

namespace bore::drivers {
namespace {

namespace fs = std::filesystem;

// What the child returns; "" from a child that died.
std::string in_child(const std::function<std::string()>& body) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) {
        return {};
    }
    const pid_t child = ::fork();
    if (child == 0) {
        const std::string text = body();
        [[maybe_unused]] const ssize_t written = ::write(ends[1], text.data(), text.size());
        std::_Exit(0);
    }
    ::close(ends[1]);
    std::string text;
    std::array<char, 4'096> buffer{};
    for (ssize_t size = 0; (size = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
        text.append(buffer.data(), static_cast<std::size_t>(size));
    }
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? text : std::string{};
}

// The error of a start that must fail.
std::string error_of(const EalOptions& options) {
    return in_child([&] {
        auto eal = make_eal(options);
        return eal ? std::string{"it started"} : eal.error();
    });
}

void expect_parts(const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
        EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
    }
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
}

// Without hugepages, so that it runs everywhere.
EalOptions small(std::string extra = "") {
    EalOptions options;
    options.memory_mib = 64;
    options.extra_arguments = "--no-huge " + extra;
    return options;
}

std::string status_line(const fs::path& status, const std::string& key) {
    std::ifstream file{status};
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with(key)) {
            return line.substr(key.size() + 1);
        }
    }
    return {};
}

TEST(Eal, LeavesTheCallingThreadAlone) {
    const std::string told = in_child([]() -> std::string {
        sigset_t mask_before, mask_after;
        ::sigemptyset(&mask_before);
        ::sigaddset(&mask_before, SIGTERM);
        ::sigprocmask(SIG_SETMASK, &mask_before, nullptr);
        cpu_set_t cpus_before, cpus_after;
        ::sched_getaffinity(0, sizeof cpus_before, &cpus_before);
        auto eal = make_eal(small());
        if (!eal) {
            return eal.error();
        }
        ::sched_getaffinity(0, sizeof cpus_after, &cpus_after);
        ::sigprocmask(SIG_SETMASK, nullptr, &mask_after);
        if (!CPU_EQUAL(&cpus_before, &cpus_after)) {
            return "its CPUs changed";
        }
        for (int signal = 1; signal < 32; ++signal) {
            if (::sigismember(&mask_after, signal) != (signal == SIGTERM ? 1 : 0)) {
                return "signal " + std::to_string(signal) + " changed in its mask";
            }
        }
        return "unchanged";
    });
    EXPECT_EQ(told, "unchanged");
}

TEST(Eal, ItsThreadsTakeNoSignalAndKeepOffTheWorkersProcessors) {
    const std::string told = in_child([]() -> std::string {
        cpu_set_t cpus;
        ::sched_getaffinity(0, sizeof cpus, &cpus);
        int worker_cpu = 0;
        while (!CPU_ISSET(static_cast<std::size_t>(worker_cpu), &cpus)) {
            ++worker_cpu;
        }
        EalOptions options = small();
        options.worker_cpus = {worker_cpu};
        auto eal = make_eal(options);
        if (!eal) {
            return eal.error();
        }
        int threads = 0;
        for (const auto& entry : fs::directory_iterator{"/proc/self/task"}) {
            if (entry.path().filename() == std::to_string(::getpid())) {
                continue;
            }
            ++threads;
            const std::string blocked = status_line(entry.path() / "status", "SigBlk:");
            if ((std::stoull(blocked, nullptr, 16) >> (SIGTERM - 1) & 1U) == 0) {
                return "SIGTERM is not blocked: " + blocked;
            }
            const std::string allowed = status_line(entry.path() / "status", "Cpus_allowed:");
            if (CPU_COUNT(&cpus) > 1 &&
                (std::stoull(allowed, nullptr, 16) >> worker_cpu & 1U) != 0) {
                return "a thread of DPDK may run on the worker's processor: " + allowed;
            }
        }
        return threads > 0 ? "fine" : "there is no thread to look at";
    });
    EXPECT_EQ(told, "fine");
}

TEST(Eal, LoadsEveryDriverOnce) {
    const std::string told = in_child([]() -> std::string {
        auto eal = make_eal(small());
        if (!eal) {
            return eal.error();
        }
        // Name of a library without its version → the files it is mapped from.
        std::map<std::string, std::set<std::string>> files;
        std::ifstream maps{"/proc/self/maps"};
        for (std::string line; std::getline(maps, line);) {
            std::istringstream words{line};
            std::string range, rights, offset, device, inode, path;
            words >> range >> rights >> offset >> device >> inode >> path;
            const std::string name = fs::path{path}.filename();
            if (name.starts_with("librte_")) {
                files[name.substr(0, name.find(".so"))].insert(inode);
            }
        }
        for (const auto& [name, inodes] : files) {
            if (inodes.size() != 1) {
                return name + " is loaded twice";
            }
        }
        return files.contains("librte_net_af_packet") ? "once" : "net_af_packet is not loaded";
    });
    EXPECT_EQ(told, "once");
}

TEST(Eal, LogsThroughTheCallback) {
    const std::string told = in_child([]() -> std::string {
        std::string lines;
        EalOptions options = small();
        options.log = [&](EalLogLevel, std::string_view line) { lines += std::string{line} + ";"; };
        auto eal = make_eal(options);
        return eal ? lines : eal.error();
    });
    expect_parts(told, {"EAL: ", "IOVA mode 'VA';"});
}

TEST(Eal, ThreadsRegisterUntilThereAreNoSlots) {
    const std::string told = in_child([]() -> std::string {
        if (Eal::register_thread()) {
            return "registered before the start";
        }
        auto eal = make_eal(small());
        return eal && Eal::register_thread() && Eal::register_thread() ? "registered" : "not";
    });
    EXPECT_EQ(told, "registered");
}

TEST(Eal, TwoProcessesAtTheSameTime) {
    const std::string told = in_child([]() -> std::string {
        auto first = make_eal(small());
        if (!first) {
            return first.error();
        }
        // A process of its own: DPDK of a forked child counts as started.
        const bool ran = dpdk_test::run(fs::read_symlink("/proc/self/exe").string() +
                                        " --gtest_filter=Eal.LogsThroughTheCallback");
        return ran ? "both" : "the second failed";
    });
    EXPECT_EQ(told, "both");
}

TEST(EalRefusal, UnknownDevice) {
    EalOptions options = small();
    options.devices = {"null", "eth0"};
    expect_parts(error_of(options), {"\"eth0\"", "unknown"});
}

TEST(EalRefusal, PciAddressThatDoesNotExist) {
    EalOptions options = small();
    options.devices = {"0000:7f:1f.7"};
    expect_parts(error_of(options), {"0000:7f:1f.7", "no PCI device", "tools/nic list"});
}

TEST(EalRefusal, InterfaceThatDoesNotExist) {
    EalOptions options = small();
    options.devices = {"af_packet:nosuch0"};
    expect_parts(error_of(options), {"af_packet:nosuch0", "no interface", "ip link"});
}

TEST(EalRefusal, MoreMemoryThanHugepages) {
    EalOptions options;
    options.memory_mib = 16'000'000;
    expect_parts(error_of(options),
                 {"16000000 MiB are needed", "MiB are free", "/proc/sys/vm/nr_hugepages"});
}

TEST(EalRefusal, ArgumentThatDpdkDoesNotKnow) {
    expect_parts(error_of(small("--no-such-option")), {"did not start", "--no-such-option"});
}

TEST(EalRefusal, NoPrivileges) {
    const std::string told = in_child([]() -> std::string {
        if (::geteuid() != 0 || ::setresuid(65'534, 65'534, 65'534) != 0) {
            return "";
        }
        EalOptions options = small();
        options.devices = {"af_packet:lo"};
        auto eal = make_eal(options);
        return eal ? "it started" : eal.error();
    });
    if (told.empty()) {
        GTEST_SKIP() << "SKIPPED: not root, there is nothing to drop";
    }
    expect_parts(told, {"af_packet:lo", "no permission", "CAP_NET_RAW"});
}

}  // namespace
}  // namespace bore::drivers
