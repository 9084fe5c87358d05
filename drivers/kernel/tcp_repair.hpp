// The socket calls of a hand-off (packet::SlowPathHost): what a connection is, what the kernel
// still holds of it, its state, and its silent end under TCP_REPAIR. Each function is as few system
// calls as the kernel allows; README.md has what they cost. Connected, nonblocking TCP sockets
// only, whose listener had SO_OOBINLINE: at TCP's urgent mark SIOCINQ counts 0 whatever waits
// behind it, and a hand-off would lose that. An urgent byte that is data like any other has no
// mark. Repair needs CAP_NET_ADMIN in the user namespace that owns the socket's network namespace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>

#include "dataplane/packet/slow_path.hpp"

namespace bore::drivers {

// IPv4 in its mapped form, whatever the family of the socket. Without facts it is two system calls,
// and an error when the connection is gone. Error: errno.
[[nodiscard]] std::expected<packet::FlowKey, int> key_of(int socket,
                                                         const abi::LegFacts& facts = {});
// Bytes that wait to be read, without a FIN.
[[nodiscard]] std::size_t unread_bytes(int socket);
// Bytes (and a FIN) written and not yet acknowledged by the peer.
[[nodiscard]] std::size_t unacknowledged_bytes(int socket);
[[nodiscard]] std::uint32_t round_trip_us(int socket);  // smoothed; 0 = never measured

// Moves what is unread from one socket into the other, up to 64 KiB a call. What `to` does not take
// stays unread in `from`. Bytes moved (0: nothing unread, `to` full, or the end), or errno.
[[nodiscard]] std::expected<std::size_t, int> move_unread(int from, int to);
// Bytes taken (0: the socket is full), or errno.
[[nodiscard]] std::expected<std::size_t, int> send_bytes(int socket,
                                                         std::span<const std::byte> bytes);

enum class RepairMode : std::uint8_t { on, off_without_probe };
[[nodiscard]] bool set_repair(int socket, RepairMode mode);
// snd_nxt is meaningful when nothing is unacknowledged. Ask unread_bytes() afterwards: only 0 then
// proves that rcv_nxt is where the reader stands. With the origin it is one system call; without,
// nine, because the queues' numbers are told under repair alone.
[[nodiscard]] std::expected<packet::SocketSnapshot, int> snapshot(
    int socket, const std::optional<packet::SocketOrigin>& origin = std::nullopt);
// The connection is gone on this machine, and the peer has not heard of it.
void close_silently(int socket);

}  // namespace bore::drivers
