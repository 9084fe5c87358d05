// Sockets as every mode of the load generator uses them: nonblocking, TCP_NODELAY, HOST:PORT in
// text. What the target does is a returned error; what this machine cannot do at all ends the
// program with a sentence, because a benchmark with half its connections is worth nothing.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include "bench/load/event_loop.hpp"

namespace bore::bench {

// Exit statuses of the program.
inline constexpr int status_ok = 0;
inline constexpr int status_failures = 1;
inline constexpr int status_usage = 2;
inline constexpr int status_nothing_measured = 3;

// Ends the program with status_nothing_measured, or with the one given.
[[noreturn]] void die(const std::string& what, int status = status_nothing_measured);
[[noreturn]] void die_errno(const std::string& what);

struct Endpoint {
    sockaddr_storage address{};
    socklen_t length = 0;
    std::string text;
};

// "127.0.0.1:80", "[::1]:80" or "name:80"; ends the program when it does not resolve.
[[nodiscard]] Endpoint resolve(const std::string& text);
// A numeric address without a port, for the local end of connections.
[[nodiscard]] Endpoint resolve_source(const std::string& text);

// Listens with a backlog of 4096; returns the port actually bound through `port`. `shared`: other
// threads listen on the same port and the kernel spreads the connections.
[[nodiscard]] Descriptor listen_on(const Endpoint& endpoint, bool shared, std::uint16_t& port);

// Makes connections to one target, from the given local addresses in turn. Without any, and
// towards a loopback address, the next 127.x.y.z is taken when the ports of one have run out: a
// target port can have 28,000 connections from one address.
class Dialer {
  public:
    Dialer(Endpoint target, std::vector<Endpoint> sources)
        : target_(std::move(target)), sources_(std::move(sources)) {}

    // Starts a connection; completion shows as writable, its verdict by connect_error(). The error
    // is an errno.
    [[nodiscard]] std::expected<Descriptor, int> dial();
    [[nodiscard]] const Endpoint& target() const { return target_; }

  private:
    [[nodiscard]] std::expected<Descriptor, int> dial_from(const Endpoint* source) const;
    // False when the source is the user's choice or the target elsewhere.
    bool take_next_loopback_source();

    Endpoint target_;
    std::vector<Endpoint> sources_;
    std::size_t next_ = 0;
    bool has_loopback_source_ = false;
    std::uint32_t loopback_source_ = 0;
};

[[nodiscard]] int connect_error(int descriptor);

// Accepts one waiting connection; the error is an errno, EAGAIN when there is none.
[[nodiscard]] std::expected<Descriptor, int> accept_one(int listener);

// Lets the next close() send a reset.
void reset_on_close(int descriptor);

// Sends a delayed acknowledgement now; holds for what has arrived, not for what will.
void acknowledge_now(int descriptor);

// Raises the soft limit of descriptors to the hard one and ends the program if `needed` exceeds it.
void require_descriptors(std::uint64_t needed);

}  // namespace bore::bench
