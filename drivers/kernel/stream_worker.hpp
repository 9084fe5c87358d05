// What the stream engine sees of a driver: a poll loop that runs on the engine's thread until its
// shard has drained. Made and run on that thread.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>

#include "dataplane/abi/statistics.hpp"
#include "dataplane/abi/tunnel_limits.hpp"
#include "dataplane/stream/shard.hpp"
#include "drivers/kernel/wake_event.hpp"

namespace bore::drivers {

// Everything a worker needs from the engine; all of it outlives the worker.
struct WorkerContext {
    std::uint32_t worker_index;
    abi::Statistics& statistics;
    abi::TunnelTable& tunnels;
    stream::WorkerQueues& queues;
    WakeEvent& wake;           // the engine wakes the worker
    WakeEvent& announcements;  // a worker tells the control thread that events wait
    std::uint32_t busy_poll_us;
};

class StreamWorker {
  public:
    virtual ~StreamWorker() = default;
    // Returns when the shard has drained.
    virtual void run() = 0;
};

}  // namespace bore::drivers
