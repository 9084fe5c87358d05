#include "tests/wire/end.hpp"

#include <fcntl.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bore::wire {

namespace {

constexpr int socket_buffer_bytes = 64 << 20;

[[noreturn]] void give_up(const std::string& what) {
    std::fprintf(stderr, "bore-wire: %s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

void set(int socket, int level, int name, int value, const char* what) {
    if (setsockopt(socket, level, name, &value, sizeof value) != 0) {
        give_up(what);
    }
}

// A packet socket of the namespace at `path`; the thread comes back to its own.
int socket_inside(const std::string& path) {
    const int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (!path.empty()) {
        const int there = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (there < 0 || setns(there, CLONE_NEWNET) != 0) {
            give_up("cannot enter the network namespace " + path);
        }
        close(there);
    }
    // No protocol yet: it receives nothing before it is bound to its interface.
    const int made = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) {
        give_up("no packet socket (CAP_NET_RAW is needed)");
    }
    return home >= 0 && setns(home, CLONE_NEWNET) == 0 && close(home) == 0 ? made : -1;
}

}  // namespace

End::End(const std::string& place) {
    const std::size_t colon = place.rfind(':');
    const std::string path = colon == std::string::npos ? "" : place.substr(0, colon);
    const std::string interface = colon == std::string::npos ? place : place.substr(colon + 1);
    socket_ = socket_inside(path);
    ifreq request{};
    interface.copy(request.ifr_name, sizeof request.ifr_name - 1);
    if (ioctl(socket_, SIOCGIFINDEX, &request) != 0) {
        give_up("no interface " + interface);
    }
    set(socket_, SOL_SOCKET, SO_RCVBUFFORCE, socket_buffer_bytes, "SO_RCVBUFFORCE");
    set(socket_, SOL_SOCKET, SO_SNDBUFFORCE, socket_buffer_bytes, "SO_SNDBUFFORCE");
    set(socket_, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING");
    set(socket_, SOL_PACKET, PACKET_QDISC_BYPASS, 1, "PACKET_QDISC_BYPASS");
    set(socket_, SOL_PACKET, PACKET_AUXDATA, 1, "PACKET_AUXDATA");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = request.ifr_ifindex;
    if (bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        give_up("cannot bind to " + interface);
    }
    // The link must not hide frames that are for others' addresses.
    packet_mreq promiscuous{request.ifr_ifindex, PACKET_MR_PROMISC, 0, {}};
    if (setsockopt(socket_, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) !=
        0) {
        give_up("cannot make promiscuous " + interface);
    }
}

End::~End() {
    close(socket_);
}

void End::receive(Buffers& buffers, std::vector<BufferIndex>& received, LaneCounters& counters) {
    std::array<BufferIndex, burst_frames> taken{};
    const std::size_t count = std::min(burst_frames, buffers.free_count());
    for (std::size_t index = 0; index < count; ++index) {
        taken[index] = buffers.take();
        vectors_[index] = {buffers.room(taken[index]), max_frame_bytes};
        msghdr& header = messages_[index].msg_hdr;
        header = {};
        header.msg_iov = &vectors_[index];
        header.msg_iovlen = 1;
        header.msg_control = controls_[index].bytes.data();
        header.msg_controllen = sizeof controls_[index].bytes;
    }
    const int answer =
        recvmmsg(socket_, messages_.data(), static_cast<unsigned>(count), MSG_DONTWAIT, nullptr);
    const std::size_t filled = answer > 0 ? static_cast<std::size_t>(answer) : 0;
    for (std::size_t index = 0; index < filled; ++index) {
        msghdr& header = messages_[index].msg_hdr;
        if ((header.msg_flags & MSG_TRUNC) != 0) {
            ++counters.oversized;
            buffers.release(taken[index]);
            continue;
        }
        buffers.set(taken[index], buffers.room(taken[index]), messages_[index].msg_len);
        restore_vlan_tag(buffers, taken[index], header);
        ++counters.received_frames;
        counters.received_bytes += buffers.length_bytes(taken[index]);
        received.push_back(taken[index]);
    }
    for (std::size_t index = count; index > filled; --index) {
        buffers.release(taken[index - 1]);
    }
}

// The kernel takes an outer tag out before packet sockets see the frame and tells it aside.
void End::restore_vlan_tag(Buffers& buffers, BufferIndex buffer, msghdr& header) const {
    constexpr std::size_t addresses_bytes = 12, tag_bytes = 4;
    for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr;
         each = CMSG_NXTHDR(&header, each)) {
        if (each->cmsg_level != SOL_PACKET || each->cmsg_type != PACKET_AUXDATA) {
            continue;
        }
        tpacket_auxdata aside{};
        std::memcpy(&aside, CMSG_DATA(each), sizeof aside);
        if ((aside.tp_status & TP_STATUS_VLAN_VALID) == 0) {
            return;
        }
        const std::uint16_t protocol = (aside.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0
                                           ? aside.tp_vlan_tpid
                                           : std::uint16_t{ETH_P_8021Q};
        std::uint8_t* data = buffers.data(buffer) - tag_bytes;
        std::memmove(data, data + tag_bytes, addresses_bytes);
        const std::array<std::uint8_t, tag_bytes> tag{
            static_cast<std::uint8_t>(protocol >> 8U), static_cast<std::uint8_t>(protocol),
            static_cast<std::uint8_t>(aside.tp_vlan_tci >> 8U),
            static_cast<std::uint8_t>(aside.tp_vlan_tci)};
        std::memcpy(data + addresses_bytes, tag.data(), tag_bytes);
        buffers.set(buffer, data, buffers.length_bytes(buffer) + tag_bytes);
        return;
    }
}

std::size_t End::send(Buffers& buffers, std::span<const BufferIndex> frames,
                      LaneCounters& counters) {
    const std::size_t count = std::min(frames.size(), burst_frames);
    for (std::size_t index = 0; index < count; ++index) {
        vectors_[index] = {buffers.data(frames[index]), buffers.length_bytes(frames[index])};
        messages_[index].msg_hdr = {};
        messages_[index].msg_hdr.msg_iov = &vectors_[index];
        messages_[index].msg_hdr.msg_iovlen = 1;
    }
    const int answer =
        sendmmsg(socket_, messages_.data(), static_cast<unsigned>(count), MSG_DONTWAIT);
    if (answer < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR) {
        ++counters.send_errors;  // the link is down, or the frame is longer than it takes
        return 1;
    }
    const std::size_t sent = answer > 0 ? static_cast<std::size_t>(answer) : 0;
    for (std::size_t index = 0; index < sent; ++index) {
        ++counters.sent_frames;
        counters.sent_bytes += buffers.length_bytes(frames[index]);
    }
    return sent;
}

std::uint64_t End::overruns() {
    tpacket_stats statistics{};
    socklen_t length = sizeof statistics;
    if (getsockopt(socket_, SOL_PACKET, PACKET_STATISTICS, &statistics, &length) == 0) {
        overruns_ += statistics.tp_drops;
    }
    return overruns_;
}

}  // namespace bore::wire
