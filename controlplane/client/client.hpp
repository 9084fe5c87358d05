// The whole client on one control thread: tunnels, visitors, the engine's events, signals and the
// exit code. Made by main.cpp with an engine, and by tests with theirs.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <vector>

#include "controlplane/client/session.hpp"
#include "controlplane/client/tunnel.hpp"
#include "controlplane/client/visitors.hpp"

namespace bore::client {

class Client {
  public:
    // `session` must outlive the client, and the client whatever runs on session.io.
    explicit Client(const Session& session);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    // SIGINT and SIGTERM become interrupt().
    void watch_signals();
    // Starts the tunnels. session.io.run() returns when the client is over.
    void start();
    // First call: tunnels close, running pairs get Timing::drain. Second call: the end at once.
    void interrupt();

    // After session.io.run().
    [[nodiscard]] int exit_code() const { return exit_code_; }

  private:
    void shut_down();
    void on_tunnel_over(int exit_code);
    void watch_engine();
    void end_when_drained();

    const Session& session_;
    Visitors visitors_;
    std::vector<std::unique_ptr<Tunnel>> tunnels_;
    std::size_t running_count_{0};
    asio::signal_set signals_;
    asio::posix::stream_descriptor engine_events_;
    asio::steady_timer drain_timer_;
    std::vector<abi::PairEnded> ended_;
    bool shutting_down_{false};
    int exit_code_{0};
};

}  // namespace bore::client
