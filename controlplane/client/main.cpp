// bore, the tunnel client: configuration, engine and client put together, and nothing else. The
// only file of the client that knows which engine moves the bytes.
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "controlplane/client/client.hpp"
#include "controlplane/client/logging.hpp"
#include "controlplane/config/client_config.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/abi/statistics.hpp"
#include "drivers/stream_engine/stream_engine.hpp"

extern char** environ;

namespace {

using bore::config::ClientConfig;

// Raises the soft limit of descriptors to the hard one and says how many pairs fit.
std::size_t max_pairs_of_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        limit.rlim_cur = 1'024;
    }
    const rlimit raised{.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) {
        limit.rlim_cur = limit.rlim_max;
    }
    // A pair has two sockets and, while both directions are bulk, two pipes of two descriptors; the
    // engine lends a bounded number of pipes.
    constexpr rlim_t other = 64;
    constexpr rlim_t pipes = 2 * bore::abi::max_pipes_per_worker;
    constexpr rlim_t most = 1U << 20U;  // RLIM_INFINITY would make the sum meaningless
    const rlim_t usable = std::clamp(limit.rlim_cur, other + 6, most) - other;
    const rlim_t pairs = std::max(usable / 6, usable > pipes ? (usable - pipes) / 2 : 0);
    spdlog::debug("{} open files are allowed: {} visitors at once", limit.rlim_cur, pairs);
    return static_cast<std::size_t>(pairs);
}

bore::drivers::StreamDriver driver_of(bore::config::StreamDriver driver) {
    switch (driver) {
        case bore::config::StreamDriver::io_uring:
            return bore::drivers::StreamDriver::io_uring;
        case bore::config::StreamDriver::epoll:
            return bore::drivers::StreamDriver::epoll;
        case bore::config::StreamDriver::automatic:
            break;
    }
    return bore::drivers::StreamDriver::automatic;
}

void announce(std::string_view line) {
    std::fprintf(stdout, "%.*s\n", static_cast<int>(line.size()), line.data());
    std::fflush(stdout);
}

int run(const ClientConfig& config) {
    bore::abi::Statistics statistics(1, static_cast<std::uint32_t>(config.tunnels.size()));
    bore::abi::TunnelTable tunnels(statistics.tunnel_capacity());
    auto engine = bore::drivers::make_stream_engine(
        {.driver = driver_of(config.stream_driver), .worker_count = 1}, statistics, tunnels);
    if (!engine) {
        spdlog::error("{}", engine.error());
        return 1;
    }
    spdlog::debug("{}", (*engine)->description());

    boost::asio::io_context io(1);  // one thread: Asio leaves its locks out
    const bore::client::Session session{.io = io,
                                        .config = config,
                                        .engine = **engine,
                                        .announce = announce,
                                        .max_pairs = max_pairs_of_descriptor_limit()};
    int exit_code = 0;
    {
        bore::client::Client client(session);
        client.watch_signals();
        client.start();
        io.run();
        exit_code = client.exit_code();
    }
    engine->reset();
    spdlog::shutdown();
    // A name lookup that is under way cannot be cancelled, and the destructor of `io` would wait
    // for the name service, up to half a minute.
    std::_Exit(exit_code);
}

}  // namespace

int main(int argument_count, char** arguments) {
    const auto loaded =
        bore::config::load_client_config({arguments, static_cast<std::size_t>(argument_count)},
                                         bore::config::environment_of_process(environ));
    if (const auto finished = bore::config::finish_early(loaded)) {
        std::fputs(finished->standard_output.c_str(), stdout);
        std::fputs(finished->standard_error.c_str(), stderr);
        return finished->exit_code;
    }
    // A script that reads the address and goes away must not end the tunnel with it.
    std::signal(SIGPIPE, SIG_IGN);
    const ClientConfig& config = loaded->config;
    bore::client::set_up_logging(config);
    for (const std::string& warning : loaded->warnings) {
        spdlog::warn("{}", warning);
    }
    return run(config);
}
