// Sockets as every mode of the load generator uses them: nonblocking, TCP_NODELAY, HOST:PORT in
// text. Failures of the set-up end the program with a sentence; a benchmark with half its
// connections is worth nothing.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <string>

#include "bench/load/event_loop.hpp"

namespace bore::bench {

[[noreturn]] void die(const std::string& what);
[[noreturn]] void die_errno(const std::string& what);

struct Endpoint {
    sockaddr_storage address{};
    socklen_t length = 0;
    std::string text;
};

// "127.0.0.1:80", "[::1]:80" or "name:80"; ends the program when it does not resolve.
[[nodiscard]] Endpoint resolve(const std::string& text);

// Listens with a backlog of 4096; returns the port actually bound through `port`.
[[nodiscard]] Descriptor listen_on(const Endpoint& endpoint, std::uint16_t& port);

// Starts a connection; completion shows as writable, its verdict by connect_error().
[[nodiscard]] Descriptor start_connect(const Endpoint& endpoint);
[[nodiscard]] int connect_error(int descriptor);

// Connects and waits for it; ends the program on failure.
[[nodiscard]] Descriptor connect_now(const Endpoint& endpoint);

// Accepts one waiting connection; invalid when there is none.
[[nodiscard]] Descriptor accept_one(int listener);

// Lets the next close() send a reset.
void reset_on_close(int descriptor);

// Sends a delayed acknowledgement now; holds for what has arrived, not for what will.
void acknowledge_now(int descriptor);

// Raises the soft limit of descriptors to the hard one and ends the program if `needed` exceeds it.
void require_descriptors(std::uint64_t needed);

}  // namespace bore::bench
