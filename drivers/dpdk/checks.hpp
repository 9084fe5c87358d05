// What can be known to fail before DPDK is asked: hugepages, PCI devices and their IOMMU groups,
// privileges. Reads /sys, /proc and /dev below a root that tests replace. Every function returns an
// empty string, or one sentence that names value, rule and remedy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "drivers/dpdk/devices.hpp"

namespace bore::drivers {

// `needed_mib` 0: at least one page must be free.
[[nodiscard]] std::string check_hugepages(std::uint32_t needed_mib, const std::string& root = "");

// The device exists, is a NIC and is bound to a driver that DPDK can work with; its IOMMU group is
// whole and can be opened.
[[nodiscard]] std::string check_pci_device(const std::string& address,
                                           const std::string& root = "");

// Capabilities of the calling thread that a device of this kind needs to be opened.
[[nodiscard]] std::string check_privileges(const DeviceSpec& device);

// Files of pcap devices can be read and written.
[[nodiscard]] std::string check_files(const DeviceSpec& device);

}  // namespace bore::drivers
