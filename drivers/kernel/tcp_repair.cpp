// One system call a line; what each costs decides what is asked at all (README.md).
#include "drivers/kernel/tcp_repair.hpp"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace bore::drivers {
namespace {

// Kernel numbers that Debian 12's headers lack.
constexpr std::uint8_t option_microsecond_timestamps = 64;  // TCPI_OPT_USEC_TS, kernel 6.7
constexpr std::uint8_t option_fast_open_child = 128;        // TCPI_OPT_TFO_CHILD, kernel 6.13
constexpr std::uint8_t state_established = 1;               // TCP_ESTABLISHED
// enum of the kernel's net/tcp.h behind TCP_REPAIR_QUEUE
constexpr int receive_queue = 1;
constexpr int send_queue = 2;

constexpr std::uint32_t timestamp_option_bytes = 12;  // with its padding
constexpr std::size_t move_bytes = 65'536;

std::expected<std::uint32_t, int> option(int socket, int name) {
    std::uint32_t value = 0;
    socklen_t size = sizeof value;
    if (::getsockopt(socket, IPPROTO_TCP, name, &value, &size) != 0) {
        return std::unexpected(errno);
    }
    return value;
}

std::expected<std::uint32_t, int> queue_sequence(int socket, int queue) {
    if (::setsockopt(socket, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue) != 0) {
        return std::unexpected(errno);
    }
    return option(socket, TCP_QUEUE_SEQ);
}

std::size_t queued(int socket, unsigned long request) {
    int bytes = 0;
    return ::ioctl(socket, request, &bytes) == 0 ? static_cast<std::size_t>(std::max(bytes, 0)) : 0;
}

bool take_address(const sockaddr_storage& from, std::array<std::uint8_t, 16>& address,
                  std::uint16_t& port) {
    if (from.ss_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
        address = {};
        address[10] = address[11] = 0xff;
        std::memcpy(&address[12], &v4.sin_addr, 4);
        port = ntohs(v4.sin_port);
        return true;
    }
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
    std::memcpy(address.data(), &v6.sin6_addr, 16);
    port = ntohs(v6.sin6_port);
    return from.ss_family == AF_INET6;
}

void take_info(const tcp_info& info, packet::SocketSnapshot& snapshot) {
    // Multipath TCP, TCP-AO, MD5 and TLS are not asked: only the relay itself could have switched
    // them on, and its listeners never do.
    constexpr std::uint8_t unsupported =
        TCPI_OPT_ECN | TCPI_OPT_SYN_DATA | option_microsecond_timestamps | option_fast_open_child;
    snapshot.established = info.tcpi_state == state_established;
    snapshot.window_scaling = (info.tcpi_options & TCPI_OPT_WSCALE) != 0;
    snapshot.timestamps = (info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0;
    snapshot.sack = (info.tcpi_options & TCPI_OPT_SACK) != 0;
    snapshot.unsupported_options = (info.tcpi_options & unsupported) != 0;
    snapshot.peer_window_scale = snapshot.window_scaling ? info.tcpi_snd_wscale : 0;
    snapshot.own_window_scale = snapshot.window_scaling ? info.tcpi_rcv_wscale : 0;
    snapshot.peer_window_bytes = info.tcpi_snd_wnd;
    snapshot.unacknowledged = info.tcpi_unacked != 0 || info.tcpi_notsent_bytes != 0;
    // What the kernel would send to this peer: its MSS option, the path's MTU and TCP's rule of
    // half a (tiny) window, whichever is least. The segment's timestamp option is not part of that
    // figure, but is of ours. One call less than TCP_MAXSEG under repair, which knows the option
    // alone.
    const std::uint32_t mss =
        info.tcpi_snd_mss + (snapshot.timestamps ? timestamp_option_bytes : 0);
    snapshot.peer_mss = static_cast<std::uint16_t>(std::min(mss, std::uint32_t{0xffff}));
    snapshot.round_trip_us = info.tcpi_rtt;
    snapshot.received_bytes = info.tcpi_bytes_received;
}

// Both numbers by TCP_REPAIR_QUEUE and TCP_QUEUE_SEQ, which repair alone permits: seven system
// calls.
std::expected<void, int> ask_numbers(int socket, packet::SocketSnapshot& snapshot) {
    if (!set_repair(socket, RepairMode::on)) {
        return std::unexpected(errno);
    }
    const auto sent = queue_sequence(socket, send_queue);
    const auto received = queue_sequence(socket, receive_queue);
    if (!set_repair(socket, RepairMode::off_without_probe)) {
        return std::unexpected(errno);
    }
    for (const auto* answer : {&sent, &received}) {
        if (!*answer) {
            return std::unexpected(answer->error());
        }
    }
    snapshot.snd_nxt = *sent;
    snapshot.rcv_nxt = *received;
    return {};
}

// Both numbers from the bytes that TCP_INFO counts, SYNs excluded (RFC 4898,
// tcpEStatsAppHCThruOctetsAcked and -Received): what the peer has acknowledged is what was sent
// when nothing is unacknowledged.
void count_numbers(const tcp_info& info, const packet::SocketOrigin& origin,
                   packet::SocketSnapshot& snapshot) {
    snapshot.snd_nxt = origin.first_sequence + static_cast<std::uint32_t>(info.tcpi_bytes_acked);
    snapshot.rcv_nxt =
        origin.first_acknowledgement + static_cast<std::uint32_t>(info.tcpi_bytes_received);
}

}  // namespace

std::expected<packet::FlowKey, int> key_of(int socket, const abi::LegFacts& facts) {
    if (facts.own_port != 0) {
        return packet::key_told_by(facts);
    }
    sockaddr_storage peer;  // written by the kernel
    sockaddr_storage own;
    socklen_t peer_size = sizeof peer;
    socklen_t own_size = sizeof own;
    if (::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0 ||
        ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &own_size) != 0) {
        return std::unexpected(errno);
    }
    packet::FlowKey key;
    if (!take_address(peer, key.peer_address, key.peer_port) ||
        !take_address(own, key.own_address, key.own_port)) {
        return std::unexpected(EAFNOSUPPORT);
    }
    return key;
}

std::size_t unread_bytes(int socket) {
    return queued(socket, SIOCINQ);
}

std::size_t unacknowledged_bytes(int socket) {
    return queued(socket, SIOCOUTQ);
}

std::uint32_t round_trip_us(int socket) {
    tcp_info info{};
    socklen_t size = sizeof info;
    return ::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_rtt : 0;
}

std::expected<std::size_t, int> move_unread(int from, int to) {
    // One thread makes hand-offs; its stack need not hold the buffer.
    static thread_local std::array<std::byte, move_bytes> buffer;
    const ssize_t seen = ::recv(from, buffer.data(), buffer.size(), MSG_PEEK | MSG_DONTWAIT);
    if (seen <= 0) {
        return seen == 0 || errno == EAGAIN ? std::expected<std::size_t, int>(0)
                                            : std::unexpected(errno);
    }
    const auto sent = send_bytes(to, std::span(buffer).first(static_cast<std::size_t>(seen)));
    if (!sent) {
        return sent;
    }
    // Only what the other side has taken leaves the queue; TCP's MSG_TRUNC drops without a copy.
    std::size_t dropped = 0;
    while (dropped < *sent) {
        const ssize_t size = ::recv(from, nullptr, *sent - dropped, MSG_TRUNC | MSG_DONTWAIT);
        if (size <= 0) {
            // Peeked bytes are only ever gone when the connection was reset meanwhile.
            return std::unexpected(size < 0 && errno != EAGAIN ? errno : EPROTO);
        }
        dropped += static_cast<std::size_t>(size);
    }
    return *sent;
}

std::expected<std::size_t, int> send_bytes(int socket, std::span<const std::byte> bytes) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
        return static_cast<std::size_t>(sent);
    }
    return errno == EAGAIN ? std::expected<std::size_t, int>(0) : std::unexpected(errno);
}

bool set_repair(int socket, RepairMode mode) {
    const bool on = mode == RepairMode::on;
    const int value = on ? TCP_REPAIR_ON : TCP_REPAIR_OFF_NO_WP;
    if (::setsockopt(socket, IPPROTO_TCP, TCP_REPAIR, &value, sizeof value) != 0) {
        return false;
    }
    // Leaving repair takes SO_REUSEADDR away, and until the end of its TIME_WAIT the connection
    // would keep every later listener off its port: that of a tunnel that comes back, or 7835.
    const int yes = 1;
    return on || ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0;
}

std::expected<packet::SocketSnapshot, int> snapshot(
    int socket, const std::optional<packet::SocketOrigin>& origin) {
    packet::SocketSnapshot result;
    if (!origin) {
        if (const auto asked = ask_numbers(socket, result); !asked) {
            return std::unexpected(asked.error());
        }
    }
    // TCP_INFO comes last: a FIN that arrives between the calls is counted by rcv_nxt or not, but
    // then the state is no longer ESTABLISHED.
    tcp_info info{};
    socklen_t size = sizeof info;
    if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
        return std::unexpected(errno);
    }
    if (size < offsetof(tcp_info, tcpi_snd_wnd) + sizeof info.tcpi_snd_wnd) {
        return std::unexpected(ENOSYS);  // before kernel 5.4
    }
    take_info(info, result);
    if (origin) {
        count_numbers(info, *origin, result);
    } else if (result.timestamps) {
        const auto timestamp = option(socket, TCP_TIMESTAMP);
        if (!timestamp) {
            return std::unexpected(timestamp.error());
        }
        result.own_timestamp = *timestamp + 1;  // the kernel masks bit 0
    }
    return result;
}

void close_silently(int socket) {
    // Refused to whom lost the capability, which the start has checked; then the FIN is a frame of
    // a tuple that the slow path knows, and is dropped there.
    (void)set_repair(socket, RepairMode::on);
    ::close(socket);
}

}  // namespace bore::drivers
