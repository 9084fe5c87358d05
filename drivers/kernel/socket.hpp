// The socket calls that both stream drivers make in the same way: options, moves, the end of a
// connection. Nonblocking sockets only; errors come back as IoResult or errno.
#pragma once

#include <cstddef>
#include <span>

#include "dataplane/stream/io.hpp"

namespace bore::drivers {

[[nodiscard]] stream::IoResult send_some(int socket, std::span<const std::byte> bytes);
[[nodiscard]] stream::IoResult receive_some(int socket, std::span<std::byte> buffer);
// True while bytes wait to be received.
[[nodiscard]] bool has_unread(int socket);
[[nodiscard]] int shutdown_write(int socket);
// The error that ended the connection (it is cleared), or 0.
[[nodiscard]] int socket_error(int socket);
// SO_RCVLOWAT: readiness and wake-ups only from this many bytes on; the end always counts.
void set_low_water(int socket, std::size_t bytes);
// Sends an acknowledgement that is due, now (tcp(7), TCP_QUICKACK; it does not last).
void quick_ack(int socket);
// Where the peer is on this machine there is no path whose congestion could be controlled, and the
// timer with which BBR paces costs more than moving the bytes: such a socket changes to Reno, which
// does not pace. Any other socket keeps the system's congestion control.
void stop_local_pacing(int socket);
// `reset`: SO_LINGER of 0 s, so that the peer sees RST; else what was sent is still delivered.
void close_socket(int socket, bool reset);

}  // namespace bore::drivers
