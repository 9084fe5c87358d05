// How a poll loop rests without leaving the processor: TPAUSE on x86 and WFET on Arm lower its
// power for a moment, and the loop goes on by itself.
#pragma once

#include <cstdint>

namespace bore::drivers {

// False where the processor has no such instruction.
[[nodiscard]] bool has_power_pause();
// Rests up to so long; any thread, after make_eal(), only where has_power_pause().
void power_pause(std::uint32_t nanoseconds);

}  // namespace bore::drivers
