// The system calls that the control plane makes on sockets, with the options they need and why.
// Errors come back as errno values; what they mean is for the caller to say. No event loop here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>

#include "controlplane/config/address_list.hpp"
#include "controlplane/relay/descriptor.hpp"

namespace bore::relay {

// Connections that wait in the kernel until they are accepted; net.core.somaxconn caps it (4096 by
// default). With 1024 pending visitors it lets 5,000 come at once.
inline constexpr int listen_backlog = 4096;

// A listening, nonblocking socket. Connections accepted from it inherit TCP_NODELAY and
// SO_KEEPALIVE, so that no leg of a pair costs a system call for them.
[[nodiscard]] std::expected<Descriptor, int> listen_on(const config::IpAddress& address,
                                                       std::uint16_t port, bool only_v6);

// True when an IPv6 socket for `address` must leave IPv4 alone: always, except for :: where no IPv4
// address is listed beside it.
[[nodiscard]] bool needs_only_v6(const config::IpAddress& address,
                                 std::span<const config::IpAddress> all);

// A tunnel's control connection: whoever vanishes behind it is noticed within `dead_timeout_ms`,
// by unacknowledged heartbeats (TCP_USER_TIMEOUT) or, between them, by keepalive.
void watch_peer(int socket, std::uint32_t dead_timeout_ms);

// One recv(2), nonblocking. 0 bytes: end of file. Error: errno (EAGAIN: nothing there).
[[nodiscard]] std::expected<std::size_t, int> receive(int socket, std::span<char> buffer);
// One send(2), nonblocking and without SIGPIPE. Returns how much the socket took.
[[nodiscard]] std::expected<std::size_t, int> send(int socket, std::string_view bytes);
[[nodiscard]] std::uint16_t port_of(const sockaddr_storage& address);  // AF_INET, AF_INET6
// Bytes sent and not yet acknowledged by the peer's kernel.
[[nodiscard]] std::size_t unacknowledged_bytes(int socket);
// What TCP knows of the peer: how long ago it acknowledged anything (in steps of up to 10 ms), and
// whether something was sent to it again because it did not.
struct PeerSilence {
    std::uint32_t last_acknowledgement_ms;
    bool retransmitting;
};
[[nodiscard]] PeerSilence peer_silence(int socket);
// The next close() resets the connection.
void reset_on_close(int socket);

}  // namespace bore::relay
