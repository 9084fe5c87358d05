#include "drivers/dpdk/eal.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <sys/resource.h>

#include <array>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <sstream>

#include "drivers/dpdk/checks.hpp"
#include "drivers/dpdk/kernel_interface.hpp"
#include "drivers/dpdk/sentence.hpp"

namespace bore::drivers {

namespace {

// DPDK keeps its state in globals, so there is one of these. It stays until the process ends,
// because the interrupt thread may log after rte_eal_cleanup(); `sink` does not.
struct EalLogSink {
    std::string line;  // received so far; the FILE's lock guards it
    std::mutex mutex;  // of the rest
    EalLog sink;
    std::string latest_error;
};

EalLogSink& log_sink() {
    static EalLogSink sink;
    return sink;
}

bool eal_was_started = false;

EalLogLevel level_of(int level) {
    if (level <= static_cast<int>(RTE_LOG_ERR)) {
        return EalLogLevel::error;
    }
    if (level == static_cast<int>(RTE_LOG_WARNING)) {
        return EalLogLevel::warning;
    }
    return level <= static_cast<int>(RTE_LOG_INFO) ? EalLogLevel::info : EalLogLevel::debug;
}

void deliver_line(EalLogSink& target) {
    const EalLogLevel level = level_of(rte_log_cur_msg_loglevel());
    const std::lock_guard lock{target.mutex};
    if (level == EalLogLevel::error) {
        target.latest_error = target.line;
    }
    if (target.sink) {
        target.sink(level, target.line);
    }
}

// rte_vlog() flushes after every message, so a line has the level of the message it came with.
ssize_t write_log(void* cookie, const char* bytes, std::size_t size_bytes) {
    auto& target = *static_cast<EalLogSink*>(cookie);
    for (const char byte : std::string_view{bytes, size_bytes}) {
        if (byte != '\n') {
            target.line.push_back(byte);
        } else {
            deliver_line(target);
            target.line.clear();
        }
    }
    return static_cast<ssize_t>(size_bytes);
}

void set_log(const EalLog& log) {
    const std::lock_guard lock{log_sink().mutex};
    log_sink().sink = log;
}

bool open_log(const EalLog& log) {
    set_log(log);
    FILE* stream = ::fopencookie(&log_sink(), "w", {nullptr, write_log, nullptr, nullptr});
    return stream != nullptr && rte_openlog_stream(stream) == 0;
}

// libxdp and libbpf, which net_af_xdp brings along, print to stderr unless they are told otherwise.
// Their levels are warning, information and debugging, as 0, 1 and 2.
int log_for_library(int level, const char* format, std::va_list arguments) {
    const std::uint32_t ours = level == 0   ? RTE_LOG_WARNING
                               : level == 1 ? RTE_LOG_INFO
                                            : RTE_LOG_DEBUG;
    return rte_vlog(ours, RTE_LOGTYPE_EAL, format, arguments);
}

// Not linked: who has no such port need not have them. `setter` is libxdp_set_print or
// libbpf_set_print.
void take_log_of(const char* library, const char* setter) {
    void* const loaded = ::dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    if (loaded == nullptr) {
        return;
    }
    using Print = int (*)(int level, const char* format, std::va_list arguments);
    if (void* const found = ::dlsym(loaded, setter); found != nullptr) {
        reinterpret_cast<Print (*)(Print)>(found)(log_for_library);
    }
    ::dlclose(loaded);
}

std::vector<std::string> words(const std::string& text) {
    std::istringstream stream{text};
    std::vector<std::string> found;
    for (std::string word; stream >> word;) {
        found.push_back(word);
    }
    return found;
}

bool has_option(const std::vector<std::string>& arguments,
                std::initializer_list<std::string_view> options) {
    for (const std::string& argument : arguments) {
        for (const std::string_view option : options) {
            const bool longer = option.starts_with("--") && argument.starts_with(option) &&
                                argument.size() > option.size() && argument[option.size()] == '=';
            if (argument == option || longer) {
                return true;
            }
        }
    }
    return false;
}

std::string cpu_list(const cpu_set_t& cpus) {
    std::string list;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(static_cast<std::size_t>(cpu), &cpus)) {
            list += sentence("{}{}", list.empty() ? "" : ",", cpu);
        }
    }
    return list;
}

// rte_eal_init() raises the limit of open files to its maximum. How many there may be is not its
// business but the operator's.
class DescriptorLimitGuard {
  public:
    DescriptorLimitGuard() : known_(::getrlimit(RLIMIT_NOFILE, &limit_) == 0) {}
    ~DescriptorLimitGuard() {
        if (known_) {
            (void)::setrlimit(RLIMIT_NOFILE, &limit_);
        }
    }
    DescriptorLimitGuard(const DescriptorLimitGuard&) = delete;
    DescriptorLimitGuard& operator=(const DescriptorLimitGuard&) = delete;

  private:
    rlimit limit_{};
    bool known_;
};

// DPDK derives the CPUs of its own threads from those of the thread that starts it and pins that
// thread, and the threads inherit its signal mask. This gives it the CPUs and the mask it shall
// have, and the thread its own ones back.
class CallingThreadGuard {
  public:
    explicit CallingThreadGuard(const EalOptions& options) {
        pthread_getaffinity_np(pthread_self(), sizeof cpus_, &cpus_);
        dpdk_cpus_ = cpus_;
        for (const int cpu : options.worker_cpus) {
            if (cpu >= 0 && cpu < CPU_SETSIZE) {
                CPU_CLR(static_cast<std::size_t>(cpu), &dpdk_cpus_);
            }
        }
        if (CPU_COUNT(&dpdk_cpus_) == 0) {
            dpdk_cpus_ = cpus_;
        }
        pthread_setaffinity_np(pthread_self(), sizeof dpdk_cpus_, &dpdk_cpus_);
        sigset_t blocked;
        ::sigfillset(&blocked);
        // Raised by what the thread itself does; blocked, they would end the process at once.
        for (const int signal : {SIGBUS, SIGSEGV, SIGFPE, SIGILL}) {
            ::sigdelset(&blocked, signal);
        }
        for (const int signal : options.open_signals) {
            ::sigdelset(&blocked, signal);
        }
        pthread_sigmask(SIG_SETMASK, &blocked, &mask_);
    }
    ~CallingThreadGuard() {
        pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
        pthread_setaffinity_np(pthread_self(), sizeof cpus_, &cpus_);
    }
    CallingThreadGuard(const CallingThreadGuard&) = delete;
    CallingThreadGuard& operator=(const CallingThreadGuard&) = delete;

    [[nodiscard]] std::string dpdk_cpus() const { return cpu_list(dpdk_cpus_); }

  private:
    cpu_set_t cpus_{};
    cpu_set_t dpdk_cpus_{};
    sigset_t mask_{};
};

// The first problem as a sentence, or nothing.
std::string check_device(const DeviceSpec& device) {
    if (device.kind == DeviceKind::pci) {
        return check_pci_device(device.name);
    }
    if (device.on_kernel_interface() && !KernelInterface::find(device.name)) {
        return sentence(
            "packet port \"{}\": there is no interface {} in this network namespace; "
            "`ip link` shows those there are",
            device.text, device.name);
    }
    if (std::string problem = check_privileges(device); !problem.empty()) {
        return problem;
    }
    return check_files(device);
}

// rte_eal_init()'s arguments; the operator's come last and may replace ours.
std::vector<std::string> eal_arguments(const EalOptions& options,
                                       const std::vector<DeviceSpec>& devices,
                                       const std::string& own_cpus) {
    const std::vector<std::string> extra = words(options.extra_arguments);
    // Nothing of it is left in a file system, so that relays do not meet there. The first option
    // implies the second, but is refused without hugepages.
    std::vector<std::string> arguments{
        "bore", has_option(extra, {"--no-huge"}) ? "--no-shconf" : "--in-memory", "--no-telemetry"};
    // One descriptor for all hugepages instead of one each: 512 for a GiB of small ones.
    if (!has_option(extra, {"--no-huge"})) {
        arguments.emplace_back("--single-file-segments");
    }
    // One lcore, the calling thread; workers are threads of ours that register.
    if (!has_option(extra, {"-l", "-c", "-s", "-S", "--lcores"})) {
        arguments.push_back(sentence("--lcores=0@({})", own_cpus));
    }
    if (options.memory_mib != 0 && !has_option(extra, {"-m", "--socket-mem"})) {
        arguments.insert(arguments.end(), {"-m", std::to_string(options.memory_mib)});
    }
    bool any_pci = has_option(extra, {"-a", "--allow", "-b", "--block"});
    for (const DeviceSpec& device : devices) {
        if (device.kind == DeviceKind::pci) {
            any_pci = true;
            arguments.insert(arguments.end(), {"-a", device.name});
        }
    }
    if (!any_pci) {
        arguments.emplace_back("--no-pci");
        // Nothing makes DMA, and one piece of virtual memory is what af_xdp's pool must be.
        if (!has_option(extra, {"--iova-mode"})) {
            arguments.emplace_back("--iova-mode=va");
        }
    }
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    return arguments;
}

std::string init_failure(const std::vector<std::string>& arguments, int error) {
    std::string line;
    for (std::size_t index = 1; index < arguments.size(); ++index) {
        line += (line.empty() ? "" : " ") + arguments[index];
    }
    const std::string said = Eal::latest_error();
    return sentence(
        "DPDK did not start with \"{}\": {}{}; its log says more, the stream engine "
        "(--engine stream) runs without it",
        line, rte_strerror(error), said.empty() ? "" : " (" + said + ")");
}

}  // namespace

std::expected<std::unique_ptr<Eal>, std::string> make_eal(const EalOptions& options) {
    if (eal_was_started) {
        return std::unexpected(
            "DPDK was started before in this process and can be started only "
            "once; restart the relay");
    }
    std::vector<DeviceSpec> devices;
    for (const std::string& text : options.devices) {
        auto device = parse_device(text);
        if (!device) {
            return std::unexpected(device.error());
        }
        if (std::string problem = check_device(*device); !problem.empty()) {
            return std::unexpected(problem);
        }
        devices.push_back(std::move(*device));
    }
    if (!has_option(words(options.extra_arguments), {"--no-huge"})) {
        if (std::string problem = check_hugepages(options.memory_mib); !problem.empty()) {
            return std::unexpected(problem);
        }
    }
    if (!open_log(options.log)) {
        return std::unexpected("DPDK's log can not be opened: out of memory");
    }
    eal_was_started = true;
    CallingThreadGuard guard{options};
    const DescriptorLimitGuard descriptors;
    std::vector<std::string> arguments = eal_arguments(options, devices, guard.dpdk_cpus());
    // rte_eal_init() keeps and permutes the pointers: copies of the strings that it may change.
    static std::vector<std::string> kept;
    kept = arguments;
    std::vector<char*> pointers;
    for (std::string& argument : kept) {
        pointers.push_back(argument.data());
    }
    pointers.push_back(nullptr);
    if (rte_eal_init(static_cast<int>(kept.size()), pointers.data()) < 0) {
        set_log({});
        return std::unexpected(init_failure(arguments, rte_errno));
    }
    take_log_of("libxdp.so.1", "libxdp_set_print");
    take_log_of("libbpf.so.1", "libbpf_set_print");
    return std::unique_ptr<Eal>{new Eal};
}

Eal::~Eal() {
    rte_eal_cleanup();
    set_log({});
}

bool Eal::register_thread() {
    return rte_lcore_id() != LCORE_ID_ANY || rte_thread_register() == 0;
}

void Eal::unregister_thread() {
    if (rte_lcore_id() != rte_get_main_lcore()) {  // which keeps its number until the end
        rte_thread_unregister();
    }
}

std::string Eal::latest_error() {
    const std::lock_guard lock{log_sink().mutex};
    return log_sink().latest_error;
}

void Eal::forget_errors() {
    const std::lock_guard lock{log_sink().mutex};
    log_sink().latest_error.clear();
}

}  // namespace bore::drivers
