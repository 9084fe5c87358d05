#include "tests/dpdk/wire.hpp"

#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "dataplane/packet/frame.hpp"

namespace bore::dpdk_test {

namespace {

constexpr std::size_t ethernet_bytes = 14;
constexpr std::size_t tag_bytes = 4;
constexpr std::size_t least_frame_bytes = 60;
constexpr std::uint8_t magic = 0xb7;  // differentiated services field of our frames
constexpr int wait_ms = 1'000;

std::size_t header_at(std::span<const std::byte> frame) {
    return packet::load16(frame.data() + 12) == 0x8100 ? ethernet_bytes + tag_bytes
                                                       : ethernet_bytes;
}

}  // namespace

Bytes make_frame(const FrameShape& shape) {
    Bytes frame(std::max<std::size_t>(shape.length_bytes, least_frame_bytes));
    constexpr std::array<std::uint8_t, 12> addresses{2, 0, 0, 0, 0, 0xaa, 2, 0, 0, 0, 0, 0xbb};
    std::memcpy(frame.data(), addresses.data(), addresses.size());
    std::size_t at = addresses.size();
    if (shape.vlan != 0) {
        packet::store16(frame.data() + at, 0x8100);
        packet::store16(frame.data() + at + 2, shape.vlan);
        at += tag_bytes;
    }
    packet::store16(frame.data() + at, 0x0800);
    at += 2;
    std::byte* ip = frame.data() + at;
    packet::store8(ip, 0x45);
    packet::store8(ip + 1, magic);
    packet::store16(ip + 2, static_cast<std::uint16_t>(frame.size() - at));
    packet::store8(ip + 8, 64);
    packet::store8(ip + 9, IPPROTO_TCP);
    packet::store32(ip + 12, 0x0a00'0001);
    packet::store32(ip + 16, 0x0a00'0002);
    std::uint32_t sum = 0;
    for (std::size_t word = 0; word < 20; word += 2) {
        sum += packet::load16(ip + word);
    }
    sum = (sum & 0xffffU) + (sum >> 16U);
    packet::store16(ip + 10, static_cast<std::uint16_t>(~((sum & 0xffffU) + (sum >> 16U))));
    packet::store16(ip + 20, shape.source_port);
    packet::store16(ip + 22, shape.destination_port);
    packet::store8(ip + 32, 0x50);
    packet::store8(ip + 33, packet::tcp_ack);
    for (std::size_t index = at + 40; index < frame.size(); ++index) {
        frame[index] = static_cast<std::byte>(index * 7 + shape.source_port);
    }
    return frame;
}

std::uint16_t source_port_of(std::span<const std::byte> frame) {
    return packet::load16(frame.data() + header_at(frame) + 20);
}

bool is_test_frame(std::span<const std::byte> frame) {
    return frame.size() >= least_frame_bytes &&
           packet::load8(frame.data() + header_at(frame) + 1) == magic;
}

std::string enter_own_namespace() {
    if (::unshare(CLONE_NEWNET) != 0) {
        return "SKIPPED: no network namespace of its own (needs root or CAP_SYS_ADMIN)";
    }
    // Neighbour discovery of the test's own interfaces would come between its frames.
    const int file = ::open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (file >= 0) {
        [[maybe_unused]] const ssize_t written = ::write(file, "1", 1);
        ::close(file);
    }
    if (!run("ip link set lo up")) {
        return "SKIPPED: no working `ip` command (package iproute2)";
    }
    return {};
}

bool run(const std::string& command) {
    const int status = std::system((command + " >/dev/null 2>&1").c_str());
    return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool make_veth(const std::string& name, unsigned queues) {
    const std::string count = std::to_string(queues);
    const std::string both = " numrxqueues " + count + " numtxqueues " + count + " ";
    return run("ip link add " + name + both + "type veth peer name " + name + "p" + both) &&
           run("ip link set " + name + " up") && run("ip link set " + name + "p up");
}

WireEnd::WireEnd(const std::string& interface)
    : socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    const int size_bytes = 8 << 20;
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &size_bytes, sizeof size_bytes);
    const int on = 1;  // the kernel takes tags out of the frame and tells them beside it
    ::setsockopt(socket_, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on);
    if (::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        std::abort();
    }
}

WireEnd::~WireEnd() {
    ::close(socket_);
}

bool WireEnd::send(std::span<const std::byte> frame) const {
    return ::send(socket_, frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
}

std::optional<Bytes> WireEnd::receive() const {
    for (;;) {
        pollfd ready{.fd = socket_, .events = POLLIN, .revents = 0};
        if (::poll(&ready, 1, wait_ms) != 1) {
            return std::nullopt;
        }
        Bytes frame(16'384);
        iovec vector{.iov_base = frame.data(), .iov_len = frame.size()};
        alignas(cmsghdr) std::array<char, 256> control{};
        sockaddr_ll from{};
        msghdr message{};
        message.msg_name = &from;
        message.msg_namelen = sizeof from;
        message.msg_iov = &vector;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        const ssize_t size = ::recvmsg(socket_, &message, 0);
        if (size < 0 || from.sll_pkttype == PACKET_OUTGOING) {
            continue;
        }
        frame.resize(static_cast<std::size_t>(size));
        for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
             part = CMSG_NXTHDR(&message, part)) {
            if (part->cmsg_type != PACKET_AUXDATA) {
                continue;
            }
            tpacket_auxdata told{};
            std::memcpy(&told, CMSG_DATA(part), sizeof told);
            if ((told.tp_status & TP_STATUS_VLAN_VALID) != 0) {
                std::array<std::byte, tag_bytes> tag{};
                packet::store16(tag.data(), 0x8100);
                packet::store16(tag.data() + 2, told.tp_vlan_tci);
                frame.insert(frame.begin() + 12, tag.begin(), tag.end());
            }
        }
        if (is_test_frame(frame)) {
            return frame;
        }
    }
}

}  // namespace bore::dpdk_test
