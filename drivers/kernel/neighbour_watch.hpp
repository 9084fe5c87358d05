// The kernel's neighbours (ARP, neighbour discovery) as they change: a netlink socket in the
// kernel's group for them, read now and then. Without a netlink socket nothing ever changes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "drivers/kernel/route_socket.hpp"

namespace bore::drivers {

struct NeighbourChange {
    int interface_index{0};
    NetworkAddress address;
    std::array<std::uint8_t, 6> link_address{};
};

class NeighbourWatch {
  public:
    using Each = std::function<void(const NeighbourChange&)>;

    // Asks for all neighbours that are known already; they come with the first read().
    NeighbourWatch();
    ~NeighbourWatch();
    NeighbourWatch(const NeighbourWatch&) = delete;
    NeighbourWatch& operator=(const NeighbourWatch&) = delete;

    // What has come since, at most `most` datagrams of it. Never blocks. When the kernel had to
    // drop some, all neighbours are asked for again.
    void read(const Each& each, std::size_t most = 16);

  private:
    void ask_for_all();

    mnl_socket* socket_{nullptr};
    std::uint32_t sequence_{0};
    bool ask_again_{false};
};

// The neighbours in a datagram of the kernel; anything else in it is passed over.
void parse_neighbours(std::span<const std::byte> datagram, const NeighbourWatch::Each& each);

}  // namespace bore::drivers
