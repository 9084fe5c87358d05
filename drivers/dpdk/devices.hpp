// What an operator may write as the device of a packet port, and what it means. Text in, value out;
// nothing here asks the machine whether the device exists (checks.hpp does).
//
//   0000:03:00.0          a NIC by its PCI address, bound to vfio-pci
//   af_packet:eth1        an interface that stays the kernel's, through packet sockets: any kind
//   af_xdp:eth1           the same through XDP sockets; needs one queue of the interface per worker
//   tap:NAME              an interface that the port makes; its other side is the kernel
//   ring:NAME             what is sent on queue n is received on queue n; for tests
//   null                  swallows what it is sent, receives nothing
//   null:BYTES            the same, and receives frames of zeros without end
//   pcap:IN[:OUT]         receives the frames of a file once, writes what it is sent into another
//   pcap_loop:IN[:OUT]    the same without end
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace bore::drivers {

enum class DeviceKind : std::uint8_t { pci, af_packet, af_xdp, tap, ring, null, pcap, pcap_loop };

struct DeviceSpec {
    DeviceKind kind{DeviceKind::null};
    std::string text;         // canonical form of what was written; a PCI address with its domain
    std::string name;         // PCI address, interface, NAME or IN
    std::string output_file;  // OUT; empty = frames sent are dropped
    std::uint16_t frame_bytes{0};  // null:BYTES; 0 = receives nothing

    // The interface belongs to the kernel and exists before the port.
    [[nodiscard]] bool on_kernel_interface() const {
        return kind == DeviceKind::af_packet || kind == DeviceKind::af_xdp;
    }
    bool operator==(const DeviceSpec&) const = default;
};

// The error is a sentence: value, rule, remedy.
[[nodiscard]] std::expected<DeviceSpec, std::string> parse_device(std::string_view text);

}  // namespace bore::drivers
