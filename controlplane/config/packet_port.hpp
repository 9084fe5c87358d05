// What a person writes of the packet engine's ports and of the path of tunnels, as values. Nothing
// is looked up here: whether a device exists is for the driver to say.
//
//     0000:03:00.0,address=192.0.2.10/24,gateway=192.0.2.1,address=2001:db8::10/64
//     af_xdp:eth1,address=198.51.100.7/24,interface=bore1,mtu=1400
//     20000-20099=stream
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/config/address_list.hpp"
#include "controlplane/config/settings.hpp"

namespace bore::config {

inline constexpr std::size_t max_packet_ports = 16;
inline constexpr std::size_t max_path_rules = 256;

// An address of the kernel's side of a port, with the length of its network's prefix (0–32 or
// 0–128, by family).
struct InterfaceAddress {
    IpAddress address;
    std::uint8_t prefix_bits = 0;

    bool operator==(const InterfaceAddress&) const = default;
};

struct PacketPort {
    std::string device;                       // "0000:03:00.0", "af_xdp:eth1"
    std::vector<InterfaceAddress> addresses;  // at least one
    std::vector<IpAddress> gateways;          // of the default routes; none = no default route
    std::string interface;                    // its name in the kernel; empty = bore0, bore1, …
    std::uint16_t mtu = 0;                    // 0 = the device's

    [[nodiscard]] std::string to_string() const;
    bool operator==(const PacketPort&) const = default;
};

// Each item is a device with its settings behind commas, or a piece of it: a piece that is
// NAME=VALUE belongs to the device before it. The error is a sentence fragment.
[[nodiscard]] std::expected<std::vector<PacketPort>, std::string> parse_packet_ports(
    const std::vector<std::string>& items);

struct PathRule {
    std::uint16_t first = 0;  // both ends belong to it
    std::uint16_t last = 0;
    PacketPath path = PacketPath::automatic;

    // "20000-20099=stream" or "20100=splice".
    [[nodiscard]] static std::expected<PathRule, std::string> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;
    bool operator==(const PathRule&) const = default;
};

}  // namespace bore::config
