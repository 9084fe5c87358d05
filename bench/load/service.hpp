// The local service behind a tunnel: does for each connection what its visitor's opening asks for
// (payload.hpp), or always the same when it was started so. Used by `serve` on accepted
// connections and by `plain-client` on data connections of the relay.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "bench/load/event_loop.hpp"
#include "bench/load/payload.hpp"

namespace bore::bench {

// What a service does without being asked; nullopt: every visitor says so in its opening.
using FixedWork = std::optional<Opening>;

// "asked", "sink", "source" or "echo"; any other text is a broken invariant, the command line
// has checked it.
[[nodiscard]] FixedWork fixed_work_of(const std::string& name);

// Takes a connected socket over; the connection lives in the loop until it ends.
void start_service(EventLoop& loop, Descriptor connection, const FixedWork& fixed);

}  // namespace bore::bench
