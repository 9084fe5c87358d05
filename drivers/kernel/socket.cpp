// One system call per function.
#include "drivers/kernel/socket.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace bore::drivers {

using stream::IoResult;

namespace {

bool on_one_machine(const sockaddr_storage& own, const sockaddr_storage& peer) {
    if (own.ss_family == AF_INET) {
        const in_addr_t own_address = reinterpret_cast<const sockaddr_in&>(own).sin_addr.s_addr;
        const in_addr_t address = reinterpret_cast<const sockaddr_in&>(peer).sin_addr.s_addr;
        return own_address == address || ntohl(address) >> 24U == IN_LOOPBACKNET;
    }
    return own.ss_family == AF_INET6 &&
           IN6_ARE_ADDR_EQUAL(&reinterpret_cast<const sockaddr_in6&>(own).sin6_addr,
                              &reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr);
}

}  // namespace

IoResult send_some(int socket, std::span<const std::byte> bytes) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return IoResult::from_call(sent, errno);
}

IoResult receive_some(int socket, std::span<std::byte> buffer) {
    const ssize_t received = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
    return IoResult::from_call(received, errno);
}

bool has_unread(int socket) {
    char byte = 0;
    return ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

int shutdown_write(int socket) {
    return ::shutdown(socket, SHUT_WR) == 0 ? 0 : errno;
}

int socket_error(int socket) {
    // SO_ERROR alone reports soft errors as well (a route that is gone for a moment), which must
    // not end a connection (RFC 1122, 4.2.3.9); poll(2) knows only the hard ones.
    pollfd state{.fd = socket, .events = 0, .revents = 0};
    if (::poll(&state, 1, 0) <= 0 || (state.revents & POLLERR) == 0) {
        return 0;
    }
    int error_number = 0;
    socklen_t size = sizeof error_number;
    ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error_number, &size);
    return error_number;
}

void set_low_water(int socket, std::size_t bytes) {
    const int value = static_cast<int>(bytes);
    ::setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value);
}

void quick_ack(int socket) {
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

void stop_local_pacing(int socket) {
    sockaddr_storage own{};
    sockaddr_storage peer{};
    socklen_t own_size = sizeof own;
    socklen_t peer_size = sizeof peer;
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &own_size) == 0 &&
        ::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0 &&
        on_one_machine(own, peer)) {
        // Every kernel has it and every user may choose it.
        static constexpr std::string_view reno = "reno";
        ::setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, reno.data(), reno.size());
    }
}

void close_socket(int socket, bool reset) {
    if (reset) {
        const linger abort{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    }
    ::close(socket);
}

}  // namespace bore::drivers
