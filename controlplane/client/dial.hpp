// Names into addresses, addresses into connected sockets. A connect is begun and finished in two
// calls, so that the two legs of a visitor are under way together. No policy and no time limits
// here: the caller closes the socket when its own deadline passes. Called by Tunnel, LocalService
// and Visitors.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <vector>

namespace bore::client {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Completion token: co_await gives a tuple that begins with the error code.
inline constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

using Endpoints = std::vector<tcp::endpoint>;

// The address itself where `host` is one (IPv6 with or without brackets), else nothing.
[[nodiscard]] std::optional<asio::ip::address> address_literal(const std::string& host);

// Never empty on success. A literal costs no lookup.
[[nodiscard]] asio::awaitable<std::expected<Endpoints, error_code>> resolve(std::string host,
                                                                            std::uint16_t port);

// A nonblocking socket with TCP_NODELAY whose connect is under way.
[[nodiscard]] std::expected<tcp::socket, error_code> begin_connect(
    const asio::any_io_executor& executor, const tcp::endpoint& endpoint);

// Waits for the end of that connect. operation_aborted or bad_descriptor when the caller closed it.
[[nodiscard]] asio::awaitable<error_code> finish_connect(tcp::socket& socket);

// A control connection carries nothing for hours: a peer that vanished is noticed after about 11 s.
void watch_control_connection(tcp::socket& socket);

// A data connection may idle for hours, too; this one only keeps a vanished peer from holding it
// for ever.
void watch_data_connection(tcp::socket& socket);

}  // namespace bore::client
