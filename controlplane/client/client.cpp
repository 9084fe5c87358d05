// Start, events, end.
#include "controlplane/client/client.hpp"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <chrono>
#include <csignal>
#include <exception>

namespace bore::client {

Client::Client(const Session& session)
    : session_(session),
      visitors_(session),
      signals_(session.io),
      engine_events_(session.io, session.engine.event_descriptor()),
      drain_timer_(session.io) {
    std::uint32_t index = 0;
    for (const config::TunnelRequest& request : session.config.tunnels) {
        tunnels_.push_back(std::make_unique<Tunnel>(session, visitors_, request, index++));
    }
}

Client::~Client() {
    engine_events_.release();  // the engine's own
}

void Client::watch_signals() {
    signals_.add(SIGINT);
    signals_.add(SIGTERM);
    signals_.async_wait([this](const error_code& error, int) {
        if (!error) {
            interrupt();
            watch_signals();
        }
    });
}

void Client::start() {
    watch_engine();
    running_count_ = tunnels_.size();
    for (const auto& tunnel : tunnels_) {
        asio::co_spawn(
            session_.io, tunnel->run(), [this](const std::exception_ptr& error, int code) {
                if (error) {
                    std::rethrow_exception(error);  // out of session.io.run(): a bug, not a failure
                }
                on_tunnel_over(code);
            });
    }
}

void Client::on_tunnel_over(int exit_code) {
    --running_count_;
    if (exit_code != 0) {
        exit_code_ = exit_code;
    }
    // One tunnel that cannot be had is an error of the whole command.
    if (exit_code != 0 || running_count_ == 0) {
        shut_down();
    }
}

void Client::interrupt() {
    if (shutting_down_) {
        session_.io.stop();
        return;
    }
    shut_down();
}

void Client::shut_down() {
    if (shutting_down_) {
        return;
    }
    shutting_down_ = true;
    for (const auto& tunnel : tunnels_) {
        tunnel->stop();
    }
    visitors_.stop();
    const auto drain = session_.timing.drain;
    if (visitors_.live_count() != 0) {
        spdlog::info(
            "the tunnels are closed; {} visitors may finish within {} s, a second signal ends them "
            "at once",
            visitors_.live_count(), drain.count() / 1'000);
    }
    session_.engine.drain(base::monotonic_now() +
                          static_cast<base::Nanoseconds>(drain.count()) * base::millisecond_ns);
    // The engine cuts its pairs at the deadline; this only guards against one that does not.
    drain_timer_.expires_after(drain + std::chrono::seconds(1));
    drain_timer_.async_wait([this](const error_code& error) {
        if (!error) {
            session_.io.stop();
        }
    });
    end_when_drained();
}

void Client::watch_engine() {
    engine_events_.async_wait(asio::posix::stream_descriptor::wait_read,
                              [this](const error_code& error) {
                                  if (error) {
                                      return;
                                  }
                                  bool more = true;
                                  while (more) {
                                      ended_.clear();
                                      more = session_.engine.poll_events(ended_);
                                      for (const abi::PairEnded& ended : ended_) {
                                          visitors_.pair_ended(ended);
                                      }
                                  }
                                  end_when_drained();
                                  watch_engine();
                              });
}

void Client::end_when_drained() {
    if (shutting_down_ && session_.engine.drained()) {
        session_.io.stop();
    }
}

}  // namespace bore::client
