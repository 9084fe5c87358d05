// DPDK's run-time environment: hugepages, PCI devices, registered threads. One for a process, made
// once by a program's main before its ports and destroyed after them; DPDK can not be started a
// second time. What can be known to fail is looked for before DPDK is asked, because its own
// messages name neither the value nor the remedy.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bore::drivers {

enum class EalLogLevel : std::uint8_t { error, warning, info, debug };
// One line without its end. Called from any thread of DPDK, one call at a time.
using EalLog = std::function<void(EalLogLevel, std::string_view)>;

struct EalOptions {
    // Hugepage memory taken at the start, for buffers and drivers. 0: taken as ports are made.
    std::uint32_t memory_mib{0};
    // CPUs of the packet workers: DPDK's own threads (interrupts) keep off them where others exist.
    std::vector<int> worker_cpus;
    std::vector<std::string> devices;  // of all ports, see devices.hpp
    std::string extra_arguments;       // given to rte_eal_init as they are, split at blanks
    // Signals that DPDK's threads do not block; they block all others, which are the program's.
    std::vector<int> open_signals;
    EalLog log;  // nothing = DPDK's log is dropped
};

class Eal {
  public:
    ~Eal();
    Eal(const Eal&) = delete;
    Eal& operator=(const Eal&) = delete;

    // Every thread that touches frames calls it first; again is no error. False: DPDK has no slot
    // left (RTE_MAX_LCORE threads), the thread may go on but without a cache of buffers.
    static bool register_thread();
    // Before the thread ends. What its cache holds goes to the next thread that registers.
    static void unregister_thread();

    // The latest error line that DPDK logged, to be told with a failure; empty = none.
    [[nodiscard]] static std::string latest_error();
    static void forget_errors();

  private:
    friend std::expected<std::unique_ptr<Eal>, std::string> make_eal(const EalOptions& options);
    Eal() = default;
};

// The error is one sentence. The calling thread keeps its CPUs and its signal mask; DPDK's threads
// get no signal.
[[nodiscard]] std::expected<std::unique_ptr<Eal>, std::string> make_eal(const EalOptions& options);

}  // namespace bore::drivers
