// One device of DPDK from its probe to its end: found or made, its limits asked, its queues set up,
// started; stopped and closed by the destructor. Used by make_ports() only.
//
//   open()    PCI devices were probed by rte_eal_init; virtual ones are made here
//   limits    queues, MTU: what does not fit is an error before anything is set up
//   start()   configure → descriptors → receive and transmit queues → start → multicast
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>

#include "drivers/dpdk/devices.hpp"
#include "drivers/dpdk/frame_pool.hpp"
#include "drivers/dpdk/port.hpp"

namespace bore::drivers {

class Ethdev {
  public:
    // `mtu_bytes`: already settled. The error is a sentence.
    [[nodiscard]] static std::expected<std::unique_ptr<Ethdev>, std::string> open(
        const DeviceSpec& device, const PortOptions& options, std::uint16_t mtu_bytes);
    ~Ethdev();
    Ethdev(const Ethdev&) = delete;
    Ethdev& operator=(const Ethdev&) = delete;

    [[nodiscard]] int socket() const;  // of NUMA; -1 unknown
    // Buffers that its queues may hold.
    [[nodiscard]] std::uint32_t buffers_on_queues() const;
    [[nodiscard]] std::expected<void, std::string> start(const FramePool& pool);

    [[nodiscard]] std::uint16_t port_id() const { return port_id_; }
    [[nodiscard]] const std::string& driver() const { return driver_; }
    [[nodiscard]] std::array<std::uint8_t, 6> mac() const;
    [[nodiscard]] bool receive_checksum() const { return receive_checksum_; }
    [[nodiscard]] std::uint16_t mtu_bytes() const { return mtu_bytes_; }

  private:
    Ethdev(DeviceSpec device, const PortOptions& options, std::uint16_t mtu_bytes)
        : device_(std::move(device)), options_(options), mtu_bytes_(mtu_bytes) {}
    [[nodiscard]] std::string probe();  // these return an empty string or a sentence
    [[nodiscard]] std::string read_limits();
    [[nodiscard]] std::string configure();
    [[nodiscard]] std::string set_up_queues(const FramePool& pool);
    [[nodiscard]] std::string refused(std::string_view step, int error) const;

    static constexpr std::uint16_t no_port = 0xffff;
    DeviceSpec device_;
    PortOptions options_;
    std::uint16_t mtu_bytes_;
    std::uint16_t port_id_{no_port};
    std::string virtual_name_;  // of a virtual device made here
    std::string driver_;
    std::uint64_t receive_offloads_{0}, transmit_offloads_{0}, hash_functions_{0};
    bool receive_checksum_{false};
    bool started_{false};
};

}  // namespace bore::drivers
