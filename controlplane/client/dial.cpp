// Resolving, connecting and the socket options of the client's connections.
#include "controlplane/client/dial.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/this_coro.hpp>
#include <cerrno>

namespace bore::client {

namespace {

error_code last_error(int number) {
    return {number, boost::system::system_category()};
}

// An option that the kernel refuses (a sandbox, an odd address family) costs comfort, not the
// connection, so failures are ignored here.
void set_option(tcp::socket& socket, int level, int name, int value) {
    (void)::setsockopt(socket.native_handle(), level, name, &value, sizeof value);
}

}  // namespace

std::optional<asio::ip::address> address_literal(const std::string& host) {
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    error_code error;
    auto address =
        asio::ip::make_address(bracketed ? host.substr(1, host.size() - 2) : host, error);
    if (error) {
        return std::nullopt;
    }
    return address;
}

asio::awaitable<std::expected<Endpoints, error_code>> resolve(std::string host,
                                                              std::uint16_t port) {
    if (const auto address = address_literal(host)) {
        co_return Endpoints{tcp::endpoint(*address, port)};
    }
    tcp::resolver resolver(co_await asio::this_coro::executor);
    const std::string service = std::to_string(port);
    const auto [error, results] =
        co_await resolver.async_resolve(host, service, tcp::resolver::numeric_service, as_result);
    if (error) {
        co_return std::unexpected(error);
    }
    Endpoints endpoints;
    for (const auto& result : results) {
        endpoints.push_back(result.endpoint());
    }
    if (endpoints.empty()) {
        co_return std::unexpected(error_code(asio::error::host_not_found));
    }
    co_return endpoints;
}

std::expected<tcp::socket, error_code> begin_connect(const asio::any_io_executor& executor,
                                                     const tcp::endpoint& endpoint) {
    tcp::socket socket(executor);
    error_code error;
    if (socket.open(endpoint.protocol(), error); error) {
        return std::unexpected(error);
    }
    if (socket.native_non_blocking(true, error); error) {
        return std::unexpected(error);
    }
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(socket, SOL_SOCKET, SO_OOBINLINE, 1);  // an urgent byte is a byte
    if (::connect(socket.native_handle(), endpoint.data(),
                  static_cast<socklen_t>(endpoint.size())) != 0 &&
        errno != EINPROGRESS) {
        return std::unexpected(last_error(errno));
    }
    return socket;
}

asio::awaitable<error_code> finish_connect(tcp::socket& socket) {
    // On loopback, where most services live, the handshake was over when connect(2) returned;
    // asking first saves the way through epoll.
    pollfd watched{.fd = socket.native_handle(), .events = POLLOUT, .revents = 0};
    if (::poll(&watched, 1, 0) != 1) {
        const auto [wait_error] = co_await socket.async_wait(tcp::socket::wait_write, as_result);
        if (wait_error) {
            co_return wait_error;
        }
    }
    int number = 0;
    socklen_t size = sizeof number;
    if (::getsockopt(socket.native_handle(), SOL_SOCKET, SO_ERROR, &number, &size) != 0) {
        number = errno;
    }
    co_return last_error(number);
}

void watch_control_connection(tcp::socket& socket) {
    // 5 s idle, then a probe every 2 s; with TCP_USER_TIMEOUT the kernel gives up by time and not
    // by count (tcp(7)), which also covers unacknowledged data.
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 5);
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 2);
    set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 10'000);
}

void watch_data_connection(tcp::socket& socket) {
    // 2 min: below the usual 5 min of NAT tables, and a vanished peer is gone after 13 min.
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 120);
}

}  // namespace bore::client
