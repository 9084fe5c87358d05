// The loop, signals, drain, reload, watchdog and the report of counters.
#include "controlplane/relay/server.hpp"

#include <algorithm>
#include <csignal>
#include <utility>
#include <vector>

#include <boost/asio/post.hpp>

namespace bore::relay {

using abi::ControlCounter;
using abi::WorkerCounter;

namespace {

constexpr base::Nanoseconds tick_interval_ns = base::second_ns;
constexpr base::Nanoseconds drain_interval_ns = 20 * base::millisecond_ns;
constexpr std::size_t max_logged_tunnels = 1000;

}  // namespace

Server::Server(const config::ServerConfig& config, Parts parts)
    : io_(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO),  // one thread runs it; only post() comes from
                                                   // others
      parts_(std::move(parts)),
      timers_(io_),
      policy_(config),
      context_{.io = io_,
               .timers = timers_,
               .policy = policy_,
               .engine = parts_.engine,
               .statistics = parts_.statistics,
               .counters = parts_.statistics.control(),
               .histograms = parts_.statistics.control_histograms(),
               .log = parts_.log,
               .descriptor_limit = parts_.descriptor_limit},
      sources_(policy_.config),
      tunnels_(context_),
      pairs_(context_, tunnels_, sources_),
      control_port_(context_, sources_, tunnels_, pairs_),
      signals_(io_, SIGTERM, SIGINT) {
    signals_.add(SIGHUP);
    signals_.add(SIGUSR1);
    if (parts_.control_socket != nullptr) {
        control_socket_.emplace(io_, timers_, *parts_.control_socket, commands_);
    }
    context_.counters.set(ControlCounter::tunnels_allowed, policy_.config.max_tunnels);
}

void Server::run() {
    watch_signals();
    pairs_.start();
    control_port_.start();
    if (control_socket_) {
        control_socket_->start();
    }
    tick();
    if (service_manager_.watchdog_timeout()) {
        feed_watchdog();
    }
    service_manager_.ready(status());
    io_.run();
}

void Server::post(std::function<void()> work) {
    boost::asio::post(io_, std::move(work));
}

void Server::watch_signals() {
    signals_.async_wait([this](const boost::system::error_code& error, int number) {
        if (error || stopped_) {
            return;
        }
        switch (number) {
            case SIGHUP:
                reload();
                break;
            case SIGUSR1:
                log_counters();
                break;
            default:
                if (draining_) {
                    parts_.log.warning("second signal: stopping now",
                                       {{"pairs_cut", pairs_.live_count()}});
                    stop();
                } else {
                    drain();
                }
        }
        if (!stopped_) {
            watch_signals();
        }
    });
}

// ---- The end

void Server::drain() {
    draining_ = true;
    context_.counters.set(ControlCounter::draining, 1);
    const std::uint32_t timeout_s = policy_.config.drain_timeout_s;
    drain_deadline_ = base::monotonic_now() + timeout_s * base::second_ns;
    service_manager_.stopping();
    parts_.log.info("draining", {{"timeout_s", timeout_s},
                                 {"tunnels", tunnels_.live_count()},
                                 {"pairs", pairs_.live_count()},
                                 {"visitors_pending", pairs_.pending_count()}});
    timers_.cancel(held_timer_);
    control_port_.set_admission(Admission::stopping);
    tunnels_.close_listeners();
    drain_step();
}

void Server::drain_step() {
    (void)pairs_.collect_ended();
    const base::Nanoseconds now = base::monotonic_now();
    if (now >= drain_deadline_) {
        pairs_.drop_pending();
    }
    if (pairs_.pending_count() == 0 && !engine_draining_) {
        engine_draining_ = true;
        control_port_.close_listeners();
        parts_.engine.drain(drain_deadline_);
    }
    tunnels_.end_finished_work();
    if (engine_draining_ && parts_.engine.drained()) {
        stop();
    } else {
        timers_.arm(drain_timer_, now + drain_interval_ns);
    }
}

void Server::stop() {
    if (std::exchange(stopped_, true)) {
        return;
    }
    control_port_.close_listeners();
    control_port_.abort_connections();
    tunnels_.end_all(TunnelEnd::shutdown);
    pairs_.drop_pending();
    pairs_.stop();
    if (control_socket_) {
        control_socket_->stop();
    }
    boost::system::error_code ignored;
    signals_.cancel(ignored);
    timers_.stop();  // with it the loop runs out of work and run() returns
    parts_.log.info(
        "stopped",
        {{"tunnels_total", context_.counters.get(ControlCounter::tunnels_opened_total)},
         {"visitors_total", context_.counters.get(ControlCounter::visitors_accepted_total)}});
}

// ---- Held by an operator

bool Server::hold(std::optional<std::uint32_t> deadline_s) {
    if (draining_ || stopped_) {
        return false;
    }
    timers_.cancel(held_timer_);
    drain_deadline_ = 0;
    context_.counters.set(ControlCounter::draining, 1);
    control_port_.set_admission(Admission::drained);
    tunnels_.shut_listeners();
    if (deadline_s) {
        drain_deadline_ = base::monotonic_now() + *deadline_s * base::second_ns;
        timers_.arm(held_timer_, drain_deadline_);
    }
    service_manager_.ready(status());
    parts_.log.info("drained by command: no new tunnels and visitors",
                    {{"tunnels", tunnels_.live_count()}, {"pairs", pairs_.live_count()}});
    return true;
}

std::optional<std::vector<std::uint16_t>> Server::unhold() {
    if (draining_ || stopped_) {
        return std::nullopt;
    }
    std::vector<std::uint16_t> lost;
    if (control_port_.admission() == Admission::drained) {
        timers_.cancel(held_timer_);
        drain_deadline_ = 0;
        context_.counters.set(ControlCounter::draining, 0);
        control_port_.set_admission(Admission::open);
        lost = tunnels_.reopen_listeners();
        service_manager_.ready(status());
        parts_.log.info("drain undone by command",
                        {{"tunnels", tunnels_.live_count()}, {"ports_lost", lost.size()}});
    }
    return lost;
}

void Server::cut_held() {
    parts_.log.info("deadline of the drain: cutting what is left",
                    {{"pairs", pairs_.live_count()}, {"visitors_pending", pairs_.pending_count()}});
    drain_deadline_ = 0;
    pairs_.cut_all();
}

std::optional<base::Nanoseconds> Server::drain_left_ns() const {
    if (drain_deadline_ == 0) {
        return std::nullopt;
    }
    const base::Nanoseconds now = base::monotonic_now();
    return drain_deadline_ > now ? drain_deadline_ - now : 0;
}

std::string Server::status() const {
    const std::string port = "listening on port " + std::to_string(policy_.config.control_port);
    return control_port_.admission() == Admission::drained ? port + ", drained by command" : port;
}

// ---- Reload

Reloaded Server::reload() {
    service_manager_.reloading();
    Reloaded reloaded = parts_.reload();
    if (reloaded.config) {
        policy_ = Policy(*reloaded.config);
        context_.counters.set(ControlCounter::tunnels_allowed, policy_.config.max_tunnels);
        tunnels_.apply_limits();
        configure_log();
        context_.counters.add(ControlCounter::reloads_total);
    }
    service_manager_.ready(status());
    return reloaded;
}

void Server::configure_log() {
    const config::ServerConfig& config = policy_.config;
    parts_.log.configure({.level = config.log_level,
                          .format = config.log_format,
                          .visitor_lines_per_second = config.visitor_log_rate,
                          .color = config.color});
}

void Server::set_log_level(config::LogLevel level) {
    policy_.config.log_level = level;
    configure_log();
}

// ---- Signs of life

void Server::tick() {
    const base::Nanoseconds now = base::monotonic_now();
    context_.counters.set(ControlCounter::control_heartbeat_ns, now);
    // A sleeping worker has no heartbeat; one that does not wake either stands still.
    parts_.engine.wake_workers();
    timers_.arm(tick_, now + tick_interval_ns);
}

void Server::feed_watchdog() {
    const base::Nanoseconds now = base::monotonic_now();
    if (workers_alive()) {
        service_manager_.alive();
    } else {
        parts_.log.error("a worker's loop stands still; the watchdog is not fed", {});
    }
    // A sleeping worker and a stuck one look alike, so each is woken and looked at next time.
    parts_.engine.wake_workers();
    workers_woken_at_ = now;
    timers_.arm(watchdog_, now + *service_manager_.watchdog_timeout() / 2);
}

bool Server::workers_alive() const {
    return parts_.statistics.oldest_heartbeat_ns() >= workers_woken_at_;
}

// ---- SIGUSR1

void Server::log_counters() {
    // One line, so that no other comes between.
    std::vector<LogField> fields;
    const auto add = [&fields](const abi::CounterInfo& info, std::uint64_t value) {
        if (value != 0 && !info.name.ends_with("_ns")) {
            fields.emplace_back(info.name, value);
        }
    };
    for (std::size_t index = 0; index < abi::control_counter_infos.size(); ++index) {
        add(abi::control_counter_infos[index],
            context_.counters.get(static_cast<ControlCounter>(index)));
    }
    for (std::size_t index = 0; index < abi::worker_counter_infos.size(); ++index) {
        add(abi::worker_counter_infos[index],
            parts_.statistics.worker_total(static_cast<WorkerCounter>(index)));
    }
    const abi::PacketShape packet = parts_.statistics.packet_shape();
    for (std::size_t index = 0;
         packet.worker_count > 0 && index < abi::packet_worker_counter_infos.size(); ++index) {
        add(abi::packet_worker_counter_infos[index],
            parts_.statistics.packet_worker_total(static_cast<abi::PacketWorkerCounter>(index)));
    }
    for (std::size_t index = 0;
         packet.worker_count > 0 && index < abi::slow_path_counter_infos.size(); ++index) {
        add(abi::slow_path_counter_infos[index],
            parts_.statistics.slow_path().get(static_cast<abi::SlowPathCounter>(index)));
    }
    parts_.log.info("counters", fields);
    log_ports();
    log_tunnels();
}

void Server::log_ports() {
    for (std::uint32_t port = 0; port < parts_.statistics.packet_shape().port_count; ++port) {
        std::vector<LogField> fields{{"port_index", port}};
        for (std::size_t index = 0; index < abi::port_counter_infos.size(); ++index) {
            fields.emplace_back(
                abi::port_counter_infos[index].name,
                parts_.statistics.port(port).get(static_cast<abi::PortCounter>(index)));
        }
        parts_.log.info("packet port", fields);
    }
}

void Server::log_tunnels() {
    std::vector<const Tunnel*> tunnels;
    for (const auto& [port, tunnel] : tunnels_.live()) {
        tunnels.push_back(tunnel);
    }
    std::sort(tunnels.begin(), tunnels.end(),
              [](const Tunnel* left, const Tunnel* right) { return left->port() < right->port(); });
    const std::size_t count = std::min(tunnels.size(), max_logged_tunnels);
    for (std::size_t index = 0; index < count; ++index) {
        const Tunnel& tunnel = *tunnels[index];
        const abi::TunnelTotals totals = tunnel.totals();
        parts_.log.info("tunnel", {{"port", tunnel.port()},
                                   {"client", tunnel.client().address.to_string()},
                                   {"pairs", totals.pairs_opened},
                                   {"pairs_now", tunnel.live_count()},
                                   {"visitors_waiting", tunnel.pending_count()},
                                   {"to_client", totals.to_client_bytes},
                                   {"to_visitor", totals.to_visitor_bytes}});
    }
    if (count < tunnels.size()) {
        parts_.log.info("more tunnels not listed", {{"tunnels", tunnels.size() - count}});
    }
}

}  // namespace bore::relay
