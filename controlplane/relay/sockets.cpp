// Plain system calls with their options.
#include "controlplane/relay/sockets.hpp"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace bore::relay {

namespace {

// Options are advice except where the caller checks: a socket without one still works.
int set_option(int socket, int level, int name, int value) {
    return ::setsockopt(socket, level, name, &value, sizeof value);
}

bool is_any_v6(const config::IpAddress& address) {
    return std::all_of(address.bytes.begin(), address.bytes.end(),
                       [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

bool needs_only_v6(const config::IpAddress& address, std::span<const config::IpAddress> all) {
    return !is_any_v6(address) ||
           std::any_of(all.begin(), all.end(),
                       [](const config::IpAddress& other) { return other.is_v4(); });
}

std::expected<Descriptor, int> listen_on(const config::IpAddress& address, std::uint16_t port,
                                         bool only_v6) {
    socklen_t length = 0;
    const sockaddr_storage where = address.to_sockaddr(port, length);
    Descriptor socket(
        ::socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (!socket) {
        return std::unexpected(errno);
    }
    // Connections of an earlier tunnel in TIME_WAIT must not keep the port taken. Two listeners on
    // one port still exclude each other.
    set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (where.ss_family == AF_INET6) {
        set_option(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, only_v6 ? 1 : 0);
    }
    set_option(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(socket.get(), SOL_SOCKET, SO_OOBINLINE, 1);  // an urgent byte is a byte
    set_option(socket.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&where), length) != 0 ||
        ::listen(socket.get(), listen_backlog) != 0) {
        return std::unexpected(errno);
    }
    return socket;
}

void watch_peer(int socket, std::uint32_t dead_timeout_ms) {
    // Probes start after a third of the timeout; when it has run out, TCP_USER_TIMEOUT ends the
    // connection whatever the count of probes (tcp_keepalive_timer in the kernel).
    const int seconds = static_cast<int>(dead_timeout_ms / 1000);
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, std::max(1, seconds / 3));
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, std::max(1, seconds / 6));
    set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
    set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(dead_timeout_ms));
}

std::expected<std::size_t, int> receive(int socket, std::span<char> buffer) {
    while (true) {
        const ssize_t size = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (size >= 0) {
            return static_cast<std::size_t>(size);
        }
        if (errno != EINTR) {
            return std::unexpected(errno);
        }
    }
}

std::expected<std::size_t, int> send(int socket, std::string_view bytes) {
    while (true) {
        const ssize_t size =
            ::send(socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size >= 0) {
            return static_cast<std::size_t>(size);
        }
        if (errno != EINTR) {
            return std::unexpected(errno);
        }
    }
}

std::uint16_t port_of(const sockaddr_storage& address) {
    return ntohs(address.ss_family == AF_INET6
                     ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                     : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

std::size_t unacknowledged_bytes(int socket) {
    int bytes = 0;
    return ::ioctl(socket, SIOCOUTQ, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

PeerSilence peer_silence(int socket) {
    tcp_info info{};
    socklen_t length = sizeof info;
    if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) {
        return {.last_acknowledgement_ms = 0, .retransmitting = false};
    }
    return {.last_acknowledgement_ms = info.tcpi_last_ack_recv,
            .retransmitting = info.tcpi_retransmits > 0};
}

void reset_on_close(int socket) {
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
}

}  // namespace bore::relay
