// The stream engine: workers, each a thread with one poll loop over kernel sockets, behind the
// engine seam. Made by a program's main; its control-side functions belong to the thread that makes
// it.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/abi/tunnel_limits.hpp"

namespace bore::drivers {

enum class StreamDriver : std::uint8_t {
    automatic,  // io_uring where the kernel permits it and has what it needs, else epoll
    io_uring,   // or fail with the reason
    epoll,
};

struct StreamEngineOptions {
    StreamDriver driver{StreamDriver::automatic};
    std::uint32_t worker_count{1};  // must equal Statistics::worker_count()
    std::vector<int> cpus;          // worker i is pinned to cpus[i % size]; empty = not pinned
    std::uint32_t busy_poll_us{0};  // spin this long before sleeping; 0 = sleep at once
};

// Starts the workers. `statistics` and `tunnels` (of statistics.tunnel_capacity() entries, which
// another engine may share) must outlive the engine. The destructor resets what is still
// live and joins the workers. The error is a sentence with value, rule and remedy. Where automatic
// fell back to epoll, Engine::description() says why.
[[nodiscard]] std::expected<std::unique_ptr<abi::Engine>, std::string> make_stream_engine(
    const StreamEngineOptions& options, abi::Statistics& statistics, abi::TunnelTable& tunnels);

}  // namespace bore::drivers
