// One system call per function.
#include "drivers/kernel/socket.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace bore::drivers {

using stream::IoResult;

IoResult send_some(int socket, std::span<const std::byte> bytes) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return IoResult::from_call(sent, errno);
}

IoResult receive_some(int socket, std::span<std::byte> buffer) {
    const ssize_t received = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
    return IoResult::from_call(received, errno);
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

void close_socket(int socket, bool reset) {
    if (reset) {
        const linger abort{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    }
    ::close(socket);
}

}  // namespace bore::drivers
