#include "drivers/dpdk/kernel_interface.hpp"

#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace bore::drivers {

namespace {

ifreq request_for(const std::string& name) {
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
    return request;
}

}  // namespace

std::expected<std::unique_ptr<KernelInterface>, int> KernelInterface::find(
    const std::string& name) {
    const int descriptor = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) {
        return std::unexpected(errno);
    }
    std::unique_ptr<KernelInterface> found{new KernelInterface(name, descriptor)};
    ifreq request = request_for(name);
    if (::ioctl(descriptor, SIOCGIFINDEX, &request) != 0) {
        return std::unexpected(errno);
    }
    return found;
}

KernelInterface::~KernelInterface() {
    if (multicast_ >= 0) {
        ::close(multicast_);
    }
    ::close(descriptor_);
}

std::uint16_t KernelInterface::mtu_bytes() const {
    ifreq request = request_for(name_);
    if (::ioctl(descriptor_, SIOCGIFMTU, &request) != 0) {
        return 1500;
    }
    return static_cast<std::uint16_t>(std::clamp(request.ifr_mtu, 68, 65'535));
}

InterfaceQueues KernelInterface::queues() const {
    ethtool_channels channels{};
    channels.cmd = ETHTOOL_GCHANNELS;
    ifreq request = request_for(name_);
    request.ifr_data = reinterpret_cast<char*>(&channels);
    if (::ioctl(descriptor_, SIOCETHTOOL, &request) != 0) {
        return {};
    }
    const std::uint32_t count = channels.combined_count + channels.rx_count;
    return {.combined = channels.max_combined != 0,
            .receive = static_cast<std::uint16_t>(std::max(count, 1U))};
}

bool KernelInterface::up() const {
    ifreq request = request_for(name_);
    return ::ioctl(descriptor_, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0;
}

packet::LinkState KernelInterface::link() const {
    ifreq request = request_for(name_);
    if (::ioctl(descriptor_, SIOCGIFFLAGS, &request) != 0 || (request.ifr_flags & IFF_UP) == 0 ||
        (request.ifr_flags & IFF_RUNNING) == 0) {
        return {};
    }
    // ETHTOOL_GSET is old, but one call; ETHTOOL_GLINKSETTINGS needs two and an area of unknown
    // size.
    ethtool_cmd settings{};
    settings.cmd = ETHTOOL_GSET;
    request = request_for(name_);
    request.ifr_data = reinterpret_cast<char*>(&settings);
    std::uint32_t speed_mbps = 0;
    if (::ioctl(descriptor_, SIOCETHTOOL, &request) == 0) {
        const std::uint32_t told = ethtool_cmd_speed(&settings);
        speed_mbps = told == static_cast<std::uint32_t>(SPEED_UNKNOWN) ? 0 : told;
    }
    return {.up = true, .speed_mbps = speed_mbps};
}

void KernelInterface::join_all_multicast() {
    ifreq request = request_for(name_);
    if (::ioctl(descriptor_, SIOCGIFINDEX, &request) != 0) {
        return;
    }
    multicast_ = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (multicast_ < 0) {
        return;
    }
    packet_mreq membership{};
    membership.mr_ifindex = request.ifr_ifindex;
    membership.mr_type = PACKET_MR_ALLMULTI;
    [[maybe_unused]] const int result =
        ::setsockopt(multicast_, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof membership);
}

}  // namespace bore::drivers
