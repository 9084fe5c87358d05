// The exception interface of a packet port: a TAP device that carries the NIC's MAC, MTU and
// addresses, so that the kernel answers ARP, neighbour discovery, ping and handshakes for a NIC
// that it does not own. Frames for the kernel are written here, frames of the kernel are read here.
// The device lives as long as this object; when the process dies, the kernel takes it away.
//
// Answers leave on the port that the question came in on, whatever the machine's other routes say:
// every address has a rule "from ADDRESS look up TABLE", and the table holds the port's networks
// and gateways. Strict reverse path filtering is content with that, so no rp_filter is touched.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/kernel/route_socket.hpp"

namespace bore::drivers {

struct ExceptionInterfaceOptions {
    std::string name{"bore0"};           // 1 to 15 characters
    std::array<std::uint8_t, 6> mac{};   // of the NIC
    std::uint16_t mtu_bytes{1500};       // of the NIC
    std::vector<std::string> addresses;  // "192.0.2.10/24", "2001:db8::10/64"; at least one
    std::vector<std::string> gateways;   // "192.0.2.1", at most one per family
};

// Totals since the interface was made; one thread reads and writes.
struct ExceptionCounters {
    std::uint64_t read_frames{0};
    std::uint64_t written_frames{0};
    std::uint64_t read_errors{0};   // other than "no frame waits"
    std::uint64_t write_errors{0};  // frames that the kernel did not take
    int latest_error{0};            // errno of the latest of both
};

class ExceptionInterface {
  public:
    ~ExceptionInterface();
    ExceptionInterface(const ExceptionInterface&) = delete;
    ExceptionInterface& operator=(const ExceptionInterface&) = delete;

    // One frame of the kernel into `buffer` (at least max_frame_bytes()); its length, 0 = none
    // waits.
    [[nodiscard]] std::size_t read(std::span<std::byte> buffer);
    // One frame to the kernel, which has processed it when this returns. False: not taken, counted.
    bool write(std::span<const std::byte> frame);

    // Readable when frames of the kernel wait. Level-triggered; stays this object's.
    [[nodiscard]] int descriptor() const { return descriptor_; }
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] int index() const { return index_; }  // as in if_nametoindex()
    // Whether the address is in a network of this interface, and so reached without a gateway.
    [[nodiscard]] bool is_on_link(const NetworkAddress& address) const;
    // MTU, Ethernet header and one VLAN tag.
    [[nodiscard]] std::size_t max_frame_bytes() const { return mtu_bytes_ + 18U; }
    [[nodiscard]] const ExceptionCounters& counters() const { return counters_; }

  private:
    friend std::expected<std::unique_ptr<ExceptionInterface>, std::string> make_exception_interface(
        const ExceptionInterfaceOptions& options);
    ExceptionInterface() = default;

    struct Network {
        NetworkAddress base;
        unsigned prefix_bits;
    };

    int descriptor_{-1};
    int index_{0};
    std::uint16_t mtu_bytes_{0};
    std::string name_;
    std::vector<Network> networks_;
    ExceptionCounters counters_;
};

// Needs CAP_NET_ADMIN in the network namespace of the calling thread. The error is a sentence for
// the operator: the value, the rule it breaks, the remedy.
[[nodiscard]] std::expected<std::unique_ptr<ExceptionInterface>, std::string>
make_exception_interface(const ExceptionInterfaceOptions& options);

}  // namespace bore::drivers
