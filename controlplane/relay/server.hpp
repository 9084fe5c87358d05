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
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include "controlplane/relay/context.hpp"
#include "controlplane/relay/control_port.hpp"
#include "controlplane/relay/pairs.hpp"
#include "controlplane/relay/service_manager.hpp"
#include "controlplane/relay/sources.hpp"
#include "controlplane/relay/timers.hpp"
#include "controlplane/relay/tunnels.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/statistics.hpp"

namespace bore::relay {

class Server {
  public:
    // Loads the configuration again; nothing when it has errors, which were logged.
    using Reload = std::function<std::optional<config::ServerConfig>()>;

    struct Parts {
        abi::Engine& engine;
        abi::Statistics& statistics;
        Log& log;
        std::uint64_t descriptor_limit;
        Reload reload;
    };

    Server(const config::ServerConfig& config, Parts parts);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    [[nodiscard]] std::expected<void, std::string> listen() { return control_port_.listen(); }
    void run();

    // What the signals do; on the loop's thread.
    void drain();
    void stop();
    void reload();
    void log_counters();

    // For tests that run it on a thread of their own: have the loop call `work`.
    void post(std::function<void()> work);

  private:
    void watch_signals();
    void drain_step();
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

    bool draining_{false};
    bool engine_draining_{false};
    bool stopped_{false};
    base::Nanoseconds drain_deadline_{0};
    base::Nanoseconds workers_woken_at_{0};
    Timer tick_{Timer::calling<&Server::tick>(this)};
    Timer drain_timer_{Timer::calling<&Server::drain_step>(this)};
    Timer watchdog_{Timer::calling<&Server::feed_watchdog>(this)};
};

}  // namespace bore::relay
