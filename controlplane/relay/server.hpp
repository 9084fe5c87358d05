// The relay's control plane as a whole: owns every part of it, runs the loop, and carries out what
// signals ask for. Everything in it runs on the thread that calls run().
//
// Life: listen() binds or fails; run() serves until a stop is complete.
//   SIGTERM, SIGINT  drain: tunnel listeners close, Hello is refused, visitors that wait may still
//                    be claimed. When none waits the control port closes and the engine drains. A
//                    tunnel without pairs ends at once, the others with their last pair, so that
//                    clients keep their control connection as long as it serves. At the deadline
//                    what is left is cut.
//   a second one     stop now.
//   SIGHUP           reload.       SIGUSR1  log all counters.
// An operator's command can hold the relay, too: no new tunnels and visitors until it is undone.
// That never ends the relay or a tunnel.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include "controlplane/relay/commands.hpp"
#include "controlplane/relay/context.hpp"
#include "controlplane/relay/control_port.hpp"
#include "controlplane/relay/control_socket.hpp"
#include "controlplane/relay/pairs.hpp"
#include "controlplane/relay/service_manager.hpp"
#include "controlplane/relay/socket_file.hpp"
#include "controlplane/relay/sources.hpp"
#include "controlplane/relay/timers.hpp"
#include "controlplane/relay/tunnels.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/statistics.hpp"

namespace bore::relay {

// What loading the configuration again gave; all of it was logged.
struct Reloaded {
    std::optional<config::ServerConfig> config;  // nothing when there were errors
    std::vector<std::string> changed;            // names of keys
    std::vector<std::string> needs_restart;
    std::vector<std::string> warnings;
    std::vector<std::string> errors;
};

class Server {
  public:
    using Reload = std::function<Reloaded()>;

    struct Parts {
        abi::Engine& engine;
        abi::Statistics& statistics;
        Log& log;
        std::uint64_t descriptor_limit;
        Reload reload;
        std::string_view version;
        const SocketFile* control_socket{nullptr};  // null: no commands; outlives the server
    };

    Server(const config::ServerConfig& config, Parts parts);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    [[nodiscard]] std::expected<void, std::string> listen() { return control_port_.listen(); }
    void run();

    // What the signals do; on the loop's thread.
    void drain();
    void stop();
    Reloaded reload();
    void log_counters();

    // What commands do; on the loop's thread. hold() and unhold() do nothing when the relay stops.
    // With a deadline, pairs that outlive it are cut; the relay goes on.
    bool hold(std::optional<std::uint32_t> deadline_s);
    // Ports of tunnels that had to end because they could not be opened again.
    std::optional<std::vector<std::uint16_t>> unhold();
    void set_log_level(config::LogLevel level);  // until the next reload

    [[nodiscard]] Admission admission() const { return control_port_.admission(); }
    // Until pairs are cut, where that is to happen.
    [[nodiscard]] std::optional<base::Nanoseconds> drain_left_ns() const;
    [[nodiscard]] base::Nanoseconds uptime_ns() const {
        return base::monotonic_now() - started_at_;
    }
    [[nodiscard]] std::string_view version() const { return parts_.version; }
    [[nodiscard]] const config::ServerConfig& config() const { return policy_.config; }
    [[nodiscard]] abi::Engine& engine() { return parts_.engine; }
    [[nodiscard]] Log& log() { return parts_.log; }
    [[nodiscard]] Tunnels& tunnels() { return tunnels_; }
    [[nodiscard]] Pairs& pairs() { return pairs_; }

    // For tests that run it on a thread of their own: have the loop call `work`.
    void post(std::function<void()> work);

  private:
    void watch_signals();
    void drain_step();
    void cut_held();
    void configure_log();
    [[nodiscard]] std::string status() const;
    void tick();
    void feed_watchdog();
    [[nodiscard]] bool workers_alive() const;
    void log_ports();
    void log_tunnels();

    boost::asio::io_context io_;
    Parts parts_;
    Timers timers_;
    Policy policy_;
    Context context_;
    Sources sources_;
    Tunnels tunnels_;
    Pairs pairs_;
    ControlPort control_port_;
    ServiceManager service_manager_;
    boost::asio::signal_set signals_;
    Commands commands_{*this};
    std::optional<ControlSocket> control_socket_;

    const base::Nanoseconds started_at_{base::monotonic_now()};
    bool draining_{false};
    bool engine_draining_{false};
    bool stopped_{false};
    base::Nanoseconds drain_deadline_{0};
    base::Nanoseconds workers_woken_at_{0};
    Timer tick_{Timer::calling<&Server::tick>(this)};
    Timer drain_timer_{Timer::calling<&Server::drain_step>(this)};
    Timer held_timer_{Timer::calling<&Server::cut_held>(this)};
    Timer watchdog_{Timer::calling<&Server::feed_watchdog>(this)};
};

}  // namespace bore::relay
