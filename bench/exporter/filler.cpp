// bore-segment-filler: a segment with many tunnels, made by the relay's own writer without a relay.
// The exporter's figures are measured on it, and tests look at blocks that only a packet engine
// fills. Says one line when the segment can be read; counts on until its standard input ends.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "dataplane/abi/segment.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/base/clock.hpp"

namespace {

using namespace bore;

struct Options {
    std::string id{"filled"};
    std::string directory{abi::segment_directory};
    std::uint32_t tunnels{10'000};
    std::uint32_t workers{16};
    std::uint32_t packet_workers{0};
    std::uint32_t nics{0};
    std::uint16_t first_port{20'000};
};

constexpr int turn_ms = 100;

void open_tunnels(abi::Statistics& statistics, const Options& options) {
    for (std::uint32_t row = 0; row < options.tunnels; ++row) {
        abi::TunnelDescription tunnel{
            .since_realtime_ns = base::second_ns * 1'700'000'000,
            .since_monotonic_ns = base::monotonic_now(),
            .port = static_cast<std::uint16_t>(options.first_port + row),
            .client_port = 40'000,
            .state = abi::TunnelState::live,
            .dialect = row % 2 == 0 ? abi::TunnelDialect::upstream : abi::TunnelDialect::fork,
            .authenticated = 1};
        // A long address of each family: what such texts cost belongs to the figures.
        const std::string number = std::to_string(row);
        abi::set_text(tunnel.client_address, row % 2 == 0
                                                 ? "198.51.100." + std::to_string(row % 250)
                                                 : "2001:db8:1234:5678:9abc:def0:1:" + number);
        abi::set_text(tunnel.bind_addresses, "0.0.0.0,::");
        statistics.begin_tunnel(row, tunnel);
    }
    statistics.control().set(abi::ControlCounter::tunnels_live, options.tunnels);
    statistics.control().set(abi::ControlCounter::tunnels_opened_total, options.tunnels);
}

// One turn of every loop: heartbeats, and some bytes for each tunnel on one of the workers.
void turn(abi::Statistics& statistics, const Options& options, std::uint32_t number) {
    const base::Nanoseconds now = base::monotonic_now();
    statistics.control().set(abi::ControlCounter::control_heartbeat_ns, now);
    for (std::uint32_t worker = 0; worker < options.workers; ++worker) {
        statistics.worker(worker).set(abi::WorkerCounter::heartbeat_ns, now);
        statistics.worker(worker).add(abi::WorkerCounter::loops_total);
    }
    for (std::uint32_t worker = 0; worker < options.packet_workers; ++worker) {
        statistics.packet_worker(worker).set(abi::PacketWorkerCounter::packet_heartbeat_ns, now);
    }
    if (options.packet_workers > 0) {
        statistics.slow_path().set(abi::SlowPathCounter::slow_path_heartbeat_ns, now);
    }
    for (std::uint32_t row = 0; row < options.tunnels; ++row) {
        abi::TunnelCounters& counters = statistics.tunnel((row + number) % options.workers, row);
        counters.add(abi::TunnelCounter::to_client_bytes_total, 123'456 + row);
        counters.add(abi::TunnelCounter::to_visitor_bytes_total, 7'654'321 + row);
        counters.add(abi::TunnelCounter::tunnel_pairs_opened_total);
    }
}

int fill(const Options& options) {
    auto statistics = abi::Statistics::shared(
        {.worker_count = options.workers,
         .tunnel_capacity = options.tunnels,
         .packet = {.worker_count = options.packet_workers, .port_count = options.nics}},
        {.name = std::string(abi::segment_prefix) + options.id,
         .group = std::nullopt,
         .directory = options.directory});
    if (!statistics) {
        std::fprintf(stderr, "bore-segment-filler: %s\n", statistics.error().c_str());
        return 1;
    }
    abi::SegmentIdentity identity{.process_id = static_cast<std::uint64_t>(::getpid()),
                                  .started_realtime_ns = base::second_ns * 1'700'000'000,
                                  .started_monotonic_ns = base::monotonic_now(),
                                  .control_port = 7835};
    abi::set_text(identity.server_id, options.id);
    abi::set_text(identity.version, "filled");
    abi::set_text(identity.engine, "none: a segment without a relay");
    statistics->describe(identity);
    statistics->set_configuration("max_tunnels = " + std::to_string(options.tunnels) + "\n");
    for (std::uint32_t nic = 0; nic < options.nics; ++nic) {
        statistics->describe_port(nic, "0000:03:00." + std::to_string(nic));
    }
    open_tunnels(*statistics, options);
    turn(*statistics, options, 0);
    if (auto published = statistics->publish(); !published) {
        std::fprintf(stderr, "bore-segment-filler: %s\n", published.error().sentence.c_str());
        return 1;
    }
    std::printf("{\"path\":\"%s\",\"bytes\":%zu}\n", statistics->memory().path().c_str(),
                statistics->memory().size_bytes());
    std::fflush(stdout);
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    for (std::uint32_t number = 1;; ++number) {
        if (::poll(&input, 1, turn_ms) > 0) {
            char ignored[256];
            if (::read(STDIN_FILENO, ignored, sizeof ignored) <= 0) {
                return 0;
            }
        }
        turn(*statistics, options, number);
    }
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("A statistics segment with many tunnels and no relay.", "bore-segment-filler");
    app.add_option("--server-id", options.id, "name of the segment")->capture_default_str();
    app.add_option("--directory", options.directory)->capture_default_str();
    app.add_option("--tunnels", options.tunnels)
        ->check(CLI::Range(std::uint32_t{1}, std::uint32_t{45'535}))
        ->capture_default_str();
    app.add_option("--workers", options.workers)
        ->check(CLI::Range(std::uint32_t{1}, abi::max_workers))
        ->capture_default_str();
    app.add_option("--packet-workers", options.packet_workers)
        ->check(CLI::Range(std::uint32_t{0}, abi::max_workers))
        ->capture_default_str();
    app.add_option("--nics", options.nics)
        ->check(CLI::Range(std::uint32_t{0}, abi::max_packet_ports))
        ->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    return fill(options);
}
