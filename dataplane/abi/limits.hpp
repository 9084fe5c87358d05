// Every limit of the data plane, once, with its reason; the static_asserts say how they relate.
// Nothing else of ours may define a bound of its own on these quantities.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bore::abi {

// Workers are threads with one poll loop each; the bound sizes the statistics segment.
inline constexpr std::uint32_t max_workers = 64;

// Rows of per-tunnel counters. One row per worker and tunnel; untouched rows cost no memory.
inline constexpr std::uint32_t max_tunnels = 65'536;

// Commands to a worker and events from it that may be under way at once.
inline constexpr std::size_t command_ring_capacity = 8'192;
inline constexpr std::size_t event_ring_capacity = 8'192;

// Bytes that the control plane may have read past the Accept frame of a data connection.
inline constexpr std::size_t max_left_over_bytes = 4'096;

// Receive buffers that io_uring fills: 64 × 8 KiB = 512 KiB, half of the 1 MiB L2 of today's server
// cores. The footprint decides, not the count: 4 MiB of them cost half the throughput.
inline constexpr std::size_t receive_buffer_bytes = 8'192;
inline constexpr std::size_t receive_buffer_count = 64;
static_assert((receive_buffer_count & (receive_buffer_count - 1)) == 0);

// What one direction may hold in user space when its receiver does not read: the kernel delivers a
// multishot receive in bursts of at most 32 buffers (MULTISHOT_MAX_RETRY) before a cancel is seen.
inline constexpr std::size_t max_buffered_bytes_per_direction =
    2 * receive_buffer_count * receive_buffer_bytes;

// A pipe is lent to a bulk direction. 1 MiB was the measured optimum (0.10 s/GB against 0.25 with
// 64 KiB); it is also the default of fs.pipe-max-size.
inline constexpr std::size_t pipe_bytes = 1U << 20U;
inline constexpr std::size_t max_pipes_per_worker = 512;

}  // namespace bore::abi
