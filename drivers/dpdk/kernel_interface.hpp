// The interface below an af_packet or af_xdp port: it stays the kernel's, so the kernel is asked
// for its MTU, queues and link. What else must hold there (offloads off, the kernel silent) is the
// work of drivers/kernel.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>

#include "dataplane/packet/port.hpp"

namespace bore::drivers {

// As `ethtool -l` tells them. Drivers either have combined queues or separate ones.
struct InterfaceQueues {
    bool combined{false};
    std::uint16_t receive{1};  // in use now; 1 where unknown
};

class KernelInterface {
  public:
    // Nothing is changed yet. The error is errno: ENODEV when there is none of this name.
    [[nodiscard]] static std::expected<std::unique_ptr<KernelInterface>, int> find(
        const std::string& name);
    ~KernelInterface();
    KernelInterface(const KernelInterface&) = delete;
    KernelInterface& operator=(const KernelInterface&) = delete;

    [[nodiscard]] std::uint16_t mtu_bytes() const;
    [[nodiscard]] InterfaceQueues queues() const;
    [[nodiscard]] bool up() const;
    [[nodiscard]] packet::LinkState link() const;  // three system calls, none waits

    // All multicast frames are received (neighbour discovery asks multicast addresses) for as long
    // as this object lives; also a killed process leaves nothing behind. The port works without.
    void join_all_multicast();

  private:
    KernelInterface(std::string name, int descriptor)
        : name_(std::move(name)), descriptor_(descriptor) {}

    std::string name_;
    int descriptor_;     // for ioctl
    int multicast_{-1};  // packet socket that receives nothing and holds the membership
};

}  // namespace bore::drivers
