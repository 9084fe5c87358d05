// Packet ports on DPDK's ethdev. All ports of a process are made together, because they share one
// pool of buffers: a frame received on one port is sent on another, and its buffer has to go home.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dataplane/packet/port.hpp"
#include "drivers/dpdk/eal.hpp"

namespace bore::drivers {

struct PortOptions {
    std::string device;            // see devices.hpp; also among EalOptions::devices
    std::uint16_t queue_count{1};  // receive and transmit queues: one pair per worker
    std::uint16_t mtu_bytes{0};    // of IP; 0 = the kernel interface's, else 1500
    // Of each queue; the driver may round them.
    std::uint16_t receive_descriptors{1'024};
    std::uint16_t transmit_descriptors{1'024};
};

// Buffers that are neither on a NIC's queue nor in a worker's burst.
struct PoolOptions {
    std::uint32_t thread_count{2};    // that register: workers, slow path, the maker
    std::uint32_t reserve_frames{0};  // in the engine's rings and pacers, all together
    std::uint16_t buffer_bytes{0};    // behind the headroom; 0 = for the ports' largest MTU
};

using Ports = std::vector<std::unique_ptr<packet::PacketPort>>;

// Port i of the result has port_index i in its frames. Either all start or none; the error is
// one sentence. The ports must go before the Eal, and every frame before the ports.
[[nodiscard]] std::expected<Ports, std::string> make_ports(Eal& eal,
                                                           std::span<const PortOptions> options,
                                                           const PoolOptions& pool);
// A single one.
[[nodiscard]] std::expected<std::unique_ptr<packet::PacketPort>, std::string> make_port(
    Eal& eal, const PortOptions& options, const PoolOptions& pool = {});

// Buffers of the shared pool that nobody holds; all of them when no frame is on its way
// (receive queues hold theirs). For tests and for the log.
struct PoolState {
    std::uint32_t size{0}, available{0};
};
[[nodiscard]] PoolState pool_state(const packet::PacketPort& port);

}  // namespace bore::drivers
