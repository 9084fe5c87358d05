// The local service behind a tunnel: does for each connection what its visitor's opening asks for
// (payload.hpp), or always the same when it was started so. Used by `serve` on accepted connections
// and by `plain` and `tunnels` on data connections of the relay. One service belongs to one loop
// and owns its connections.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "bench/load/event_loop.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {

// What a service does without being asked; nullopt: every visitor says so in its opening.
using FixedWork = std::optional<Opening>;

// "asked", "sink", "source" or "echo"; any other text is a broken invariant, the command line
// has checked it.
[[nodiscard]] FixedWork fixed_work_of(const std::string& name);

class ServiceConnection;

class Service {
  public:
    // Counts in the part: bytes_up received, bytes_down sent, requests, connections, held; wrong
    // bytes as failures. A visitor without an opening is closed after the timeout (0: never).
    Service(Part& part, FixedWork fixed, base::Nanoseconds opening_timeout);
    ~Service();
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

    // Takes a connected socket over; the connection lives here until it ends.
    void adopt(Descriptor connection);

  private:
    friend class ServiceConnection;
    using Connections = std::list<std::unique_ptr<ServiceConnection>>;

    void release(Connections::iterator place);
    void close_silent(base::Nanoseconds now);

    Part& part_;
    const FixedWork fixed_;
    const base::Nanoseconds opening_timeout_;
    Connections connections_;  // the oldest first
};

// connections, live, requests, bytes_received, bytes_sent, corrupt, accept_errors
void add_service_fields(const Run& run, JsonLine& line);

}  // namespace bore::bench
