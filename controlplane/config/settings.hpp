// Value types that the programs' configurations share. No parsing lives here, no defaults; the
// relay, the client and the composition in each main.cpp switch over these.
#pragma once

#include <cstdint>

namespace bore::config {

// Which protocol dialect a handshake may use; `automatic` tells them apart per connection.
enum class AuthDialect : std::uint8_t { automatic, upstream, fork };

// Which driver moves the bytes; `automatic` takes io_uring where the kernel permits it.
enum class StreamDriver : std::uint8_t { automatic, io_uring, epoll };

// What moves the bytes: `automatic` takes the packet engine where ports are named and the machine
// permits it.
enum class EngineChoice : std::uint8_t { automatic, stream, packet };

// Which way a tunnel's connections go where the packet engine runs.
enum class PacketPath : std::uint8_t { automatic, splice, stream };

// What a packet worker does when it finds nothing to do.
enum class PacketIdle : std::uint8_t { spin, pause, sleep };

// Whether readers on this machine see the relay's statistics.
enum class Stats : std::uint8_t { on, off };

enum class LogLevel : std::uint8_t { trace, debug, info, warning, error, off };

enum class LogFormat : std::uint8_t { text, json };

// Both ends belong to it.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;

    bool operator==(const PortRange&) const = default;
};

}  // namespace bore::config
