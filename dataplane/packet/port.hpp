// The packet seam: what the packet engine sees of a NIC. Frames only. DPDK's ethdev stands behind
// it in drivers/dpdk, a fake in tests. One worker calls a queue; the calls of different queues may
// come from different threads at once.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "dataplane/packet/frame.hpp"

namespace bore::packet {

struct PortInfo {
    std::string name;    // as the operator named it: 0000:03:00.0, af_xdp:eth1
    std::string driver;  // net_ixgbe, net_af_packet, …
    std::array<std::uint8_t, 6> mac{};
    std::uint16_t mtu_bytes{1500};  // of IP
    std::uint16_t queue_count{1};   // receive and transmit queues, equal
    bool receive_checksum{false};   // the NIC checks TCP checksums and says so
};

struct PortStatistics {  // totals since the port was started
    std::uint64_t received_packets{0}, received_bytes{0}, sent_packets{0}, sent_bytes{0};
    std::uint64_t missed{0}, receive_errors{0}, send_errors{0}, no_buffer{0};
};

struct LinkState {
    bool up{false};
    std::uint32_t speed_mbps{0};  // 0 = unknown
    bool operator==(const LinkState&) const = default;
};

class PacketPort {
  public:
    virtual ~PacketPort() = default;

    // ---- Workers. At most max_burst frames a call; an indirect call per burst, none per frame.
    // Fills `frames` from the front and returns how many; the caller owns their buffers then.
    [[nodiscard]] virtual std::size_t receive(std::uint16_t queue, std::span<Frame> frames) = 0;
    // Takes the buffers of the first n frames, in order, and returns n; the caller keeps the rest.
    // A frame's data and length may differ from what was received (headers moved, payload cut).
    [[nodiscard]] virtual std::size_t transmit(std::uint16_t queue, std::span<Frame> frames) = 0;

    // ---- Any thread that registered with the driver.
    // A buffer with at least 128 bytes of headroom and room for a frame of mtu_bytes + 18; its
    // length is 0. False when there is none.
    [[nodiscard]] virtual bool allocate(Frame& frame) = 0;
    // Gives buffers back that will not be sent.
    virtual void release(std::span<Frame> frames) = 0;

    // ---- The slow path's thread.
    [[nodiscard]] virtual const PortInfo& info() const = 0;
    [[nodiscard]] virtual PortStatistics statistics() = 0;
    [[nodiscard]] virtual LinkState link() = 0;  // asks the driver; never waits
};

}  // namespace bore::packet
