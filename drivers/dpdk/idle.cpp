// DPDK's power intrinsics, which choose the instruction.
#include "drivers/dpdk/idle.hpp"

#include <rte_cpuflags.h>
#include <rte_cycles.h>
#include <rte_power_intrinsics.h>

namespace bore::drivers {

bool has_power_pause() {
    rte_cpu_intrinsics support{};
    rte_cpu_get_intrinsics_support(&support);
    return support.power_pause != 0;
}

void power_pause(std::uint32_t nanoseconds) {
    const std::uint64_t cycles = std::uint64_t{nanoseconds} * rte_get_tsc_hz() / 1'000'000'000;
    (void)rte_power_pause(rte_get_tsc_cycles() + cycles);
}

}  // namespace bore::drivers
