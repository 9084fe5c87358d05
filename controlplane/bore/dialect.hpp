// The two dialects of the protocol. They share every frame and differ in who speaks first
// (wire-protocol §5): upstream's server opens with a Challenge when it has a secret; the fork's
// client always opens.
#pragma once

#include <cstdint>

namespace bore::protocol {

enum class Dialect : std::uint8_t { upstream, fork };

// What an operator or user may force; automatic finds out per connection.
enum class DialectMode : std::uint8_t { automatic, upstream, fork };

// What is known about the dialect spoken behind a source address.
enum class DialectHint : std::uint8_t { unknown, only_upstream, any_fork };

}  // namespace bore::protocol
