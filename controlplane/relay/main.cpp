// bore-server: composes the control plane with an engine. Start-up is the table in run(), torn down
// in reverse by scope. Exit codes: 0 normal end, 1 it could not start, 2 usage error.
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "controlplane/config/server_config.hpp"
#include "controlplane/relay/descriptor_limit.hpp"
#include "controlplane/relay/engine_choice.hpp"
#include "controlplane/relay/log.hpp"
#include "controlplane/relay/server.hpp"
#include "controlplane/relay/socket_file.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/abi/statistics.hpp"

namespace {

using namespace bore;

using Arguments = std::span<const char* const>;

static_assert(config::max_workers == abi::max_workers);

relay::Log::Options log_options(const config::ServerConfig& config) {
    return {.level = config.log_level,
            .format = config.log_format,
            .visitor_lines_per_second = config.visitor_log_rate,
            .color = config.color};
}

// Rows for the tunnels allowed and for ended ones whose pairs live on.
std::uint32_t tunnel_rows(const config::ServerConfig& config) {
    const std::uint64_t wanted = std::uint64_t{config.max_tunnels} + config.max_tunnels / 4 + 1024;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, abi::max_tunnels));
}

void log_limit(relay::Log& log, const relay::DescriptorLimit& limit,
               const config::ServerConfig& config, std::uint32_t worker_count) {
    const std::size_t addresses = config::tunnel_addresses(config).size();
    log.info("descriptor limit", {{"descriptors", limit.count},
                                  {"allows_tunnels", limit.tunnels(addresses, worker_count)},
                                  {"allows_pairs", limit.pairs(worker_count)}});
    if (limit.count < limit.wanted) {
        log.warning(
            "max-open-files is more than this process may have; raise the hard limit "
            "(LimitNOFILE= in the unit, ulimit -Hn) or grant CAP_SYS_RESOURCE",
            {{"wanted", limit.wanted}, {"got", limit.count}});
    }
}

relay::Reloaded reload(config::LoadedServer& running, Arguments arguments, relay::Log& log) {
    relay::Reloaded result;
    auto reloaded =
        config::reload_server_config(running, arguments, config::environment_of_process(environ),
                                     config::file_reader_of_process(config::Pipes::refuse));
    if (!reloaded) {
        for (const config::ConfigError& error : reloaded.error()) {
            result.errors.push_back(error.to_string());
            log.error("configuration not reloaded: " + result.errors.back());
        }
        return result;
    }
    for (const std::string& warning : reloaded->next.warnings) {
        log.warning(warning);
    }
    for (const std::string& key : reloaded->changed) {
        log.info("configuration changed", {{"key", key}});
    }
    for (const std::string& key : reloaded->needs_restart) {
        log.warning("configuration change needs a restart", {{"key", key}});
    }
    log.info("configuration reloaded", {{"changed", reloaded->changed.size()}});
    running = std::move(reloaded->next);
    result.config = running.config;
    result.changed = std::move(reloaded->changed);
    result.needs_restart = std::move(reloaded->needs_restart);
    result.warnings = running.warnings;
    return result;
}

std::expected<abi::Statistics, std::string> make_statistics(const config::ServerConfig& config,
                                                            std::uint32_t worker_count,
                                                            const relay::PacketParts* parts,
                                                            std::optional<std::string> user) {
    abi::SegmentShape shape{.worker_count = worker_count, .tunnel_capacity = tunnel_rows(config)};
    if (parts != nullptr) {
        shape.packet = {parts->shape.packet_workers,
                        static_cast<std::uint32_t>(parts->ports.size())};
    }
    if (config.stats == config::Stats::off) {
        return abi::Statistics(shape.worker_count, shape.tunnel_capacity, shape.packet);
    }
    return abi::Statistics::shared(
        shape, {.name = std::string(abi::segment_prefix) + config::stats_name(config),
                .group = config.stats_group,
                .user = std::move(user),
                .directory = ""});
}

// The configuration in force, with the place that `auto` found for the control socket: borectl
// finds it there.
std::string configuration_text(const config::LoadedServer& loaded,
                               const std::string& control_socket) {
    config::LoadedServer in_force = loaded;
    in_force.config.control_socket = control_socket;
    return config::print_server_config(in_force);
}

// What readers of the statistics see besides the counters.
void describe(abi::Statistics& statistics, const config::LoadedServer& loaded,
              const std::string& engine) {
    abi::SegmentIdentity identity{.process_id = static_cast<std::uint64_t>(::getpid()),
                                  .started_realtime_ns = base::realtime_now(),
                                  .started_monotonic_ns = base::monotonic_now(),
                                  .control_port = loaded.config.control_port};
    abi::set_text(identity.server_id, loaded.config.server_id);
    abi::set_text(identity.version, BORE_VERSION);
    abi::set_text(identity.engine, engine);
    statistics.describe(identity);
    for (std::uint32_t port = 0; port < statistics.packet_shape().port_count; ++port) {
        statistics.describe_port(port, loaded.config.packet_ports[port].device);
    }
}

void hold_signals(int how) {
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) {
        ::sigaddset(&signals, number);
    }
    ::pthread_sigmask(how, &signals, nullptr);
}

int run(config::LoadedServer loaded, Arguments arguments) {
    // 1. Log
    relay::Log log(log_options(loaded.config));
    for (const std::string& warning : loaded.warnings) {
        log.warning(warning);
    }
    // 2. Descriptors, before anything is opened
    const std::uint32_t worker_count =
        config::worker_count(loaded.config, std::thread::hardware_concurrency());
    const relay::DescriptorLimit limit =
        relay::raise_descriptor_limit(loaded.config.max_open_files);
    log_limit(log, limit, loaded.config, worker_count);
    // 3. Control socket, as long as this process may still give it to a group
    auto control_socket =
        relay::open_control_socket(loaded.config, config::environment_of_process(environ), log);
    if (!control_socket) {
        log.error(control_socket.error());
        return 1;
    }
    // 4. Ports of the packet engine, where it is to run
    auto opened = relay::open_packet_ports(loaded.config, log);
    if (!opened) {
        log.error(opened.error());
        return 1;
    }
    std::optional<relay::PacketParts>& parts = *opened;
    // 5. Counters, for which the same holds
    const bool reduces = relay::gives_up_privileges(loaded.config, parts.has_value());
    auto made = make_statistics(loaded.config, worker_count, parts ? &*parts : nullptr,
                                reduces ? loaded.config.packet_user : std::nullopt);
    if (!made) {
        log.error(made.error());
        return 1;
    }
    if (const abi::SegmentMemory& memory = made->memory(); !memory.removed_of().empty()) {
        log.info("removed what had the name of the statistics and no live relay's lock",
                 {{"segment", memory.path()}, {"owner", memory.removed_of()}});
    }
    // 6. Privileges
    if (auto given_up =
            reduces ? relay::give_up_privileges(loaded.config) : std::expected<void, std::string>{};
        !given_up) {
        log.error(given_up.error());
        return 1;
    }
    abi::Statistics& statistics = *made;
    log.count_dropped_in(statistics.control());
    // 7. Engine
    abi::TunnelTable tunnels(statistics.tunnel_capacity());
    auto engine = relay::make_engine(loaded.config, worker_count, parts ? &*parts : nullptr,
                                     statistics, tunnels);
    if (!engine) {
        log.error(engine.error());
        return 1;
    }
    log.info((*engine)->description());
    const auto publish_configuration = [&] {
        statistics.set_configuration(
            configuration_text(loaded, *control_socket ? (*control_socket)->path() : "off"));
    };
    describe(statistics, loaded, (*engine)->description());
    publish_configuration();
    // 8. Control plane
    relay::Server server(loaded.config,
                         {.engine = **engine,
                          .statistics = statistics,
                          .log = log,
                          .descriptor_limit = limit.count,
                          .reload =
                              [&] {
                                  auto reloaded = reload(loaded, arguments, log);
                                  publish_configuration();
                                  return reloaded;
                              },
                          .version = BORE_VERSION,
                          .control_socket = *control_socket ? &**control_socket : nullptr});
    if (auto listening = server.listen(); !listening) {
        log.error(listening.error());
        return 1;
    }
    if (auto published = statistics.publish(); !published) {
        if (!published.error().by_another_user) {
            log.error(published.error().sentence);
            return 1;
        }
        log.warning("nobody can read this relay's statistics: " + published.error().sentence);
    } else if (!statistics.memory().path().empty()) {
        log.info("statistics", {{"segment", statistics.memory().path()},
                                {"bytes", statistics.memory().size_bytes()}});
    }
    log.info("listening", {{"control_port", loaded.config.control_port},
                           {"min_port", loaded.config.min_port},
                           {"max_port", loaded.config.max_port},
                           {"authentication", loaded.config.secret ? "secret" : "open"},
                           {"server_id", loaded.config.server_id},
                           {"control_socket", *control_socket ? (*control_socket)->path() : "off"},
                           {"version", BORE_VERSION}});
    hold_signals(SIG_UNBLOCK);
    server.run();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Arguments arguments(argv, static_cast<std::size_t>(argc));
    auto loaded = config::load_server_config(arguments, config::environment_of_process(environ),
                                             config::file_reader_of_process(config::Pipes::read));
    if (const auto finished = config::finish_early(loaded)) {
        std::fputs(finished->standard_output.c_str(), stdout);
        std::fputs(finished->standard_error.c_str(), stderr);
        return finished->exit_code;
    }
    ::signal(SIGPIPE, SIG_IGN);  // a closed standard error must not end the relay
    hold_signals(SIG_BLOCK);     // until the server listens for them, so that what it opened closes
    ::pthread_setname_np(::pthread_self(), "bore-control");
    return run(std::move(*loaded), arguments);
}
