// One local port and its control connection: reach the relay, shake hands, serve, and after a loss
// do it again for the same public port. Control thread only.
//
// Steps of run(), each a function below:
//   1. dial()         name → addresses → a connected socket
//   2. shake_hands()  ends with the public port, which is announced
//   3. serve()        heartbeats and visitors, until the connection ends
//   4. wait for the back-off, then 1 again; or the end, where trying again cannot help
#pragma once

#include <array>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "controlplane/bore/client_handshake.hpp"
#include "controlplane/bore/frame.hpp"
#include "controlplane/client/backoff.hpp"
#include "controlplane/client/dial.hpp"
#include "controlplane/client/liveness.hpp"
#include "controlplane/client/local_service.hpp"
#include "controlplane/client/session.hpp"
#include "controlplane/client/visitors.hpp"

namespace bore::client {

class Tunnel {
  public:
    Tunnel(const Session& session, Visitors& visitors, const config::TunnelRequest& request,
           std::uint32_t index);

    // Returns when the tunnel is over for good: the process' exit code, 0 after stop() and after an
    // orderly end without reconnecting.
    [[nodiscard]] asio::awaitable<int> run();

    // Closes the control connection; run() returns soon. Pairs in the engine go on.
    void stop();

  private:
    // Why an attempt is over.
    struct Ending {
        std::string text;
        bool hopeless{false};      // at the first start: trying again cannot help
        bool port_refused{false};  // the relay did not give the port asked for
        bool orderly{false};       // the relay closed a tunnel that was up
        std::optional<protocol::DialectMode> retry_mode{};
    };
    // What reading gave; `bytes` is a view into buffer_.
    struct Received {
        error_code error;
        std::string_view bytes;
        bool timed_out{false};
    };

    [[nodiscard]] asio::awaitable<Ending> attempt();
    [[nodiscard]] asio::awaitable<std::optional<Ending>> dial();
    [[nodiscard]] asio::awaitable<std::optional<Ending>> shake_hands();
    [[nodiscard]] asio::awaitable<Ending> serve();

    void opened(const protocol::ClientStep& ready);
    [[nodiscard]] Ending handshake_failed(const protocol::ClientStep& failed) const;
    [[nodiscard]] asio::awaitable<Received> receive(std::optional<base::Nanoseconds> deadline);
    // Nothing, or why the control connection is over.
    [[nodiscard]] std::optional<Ending> on_frame(std::string_view json);
    void plan_next_port(const Ending& ending);
    [[nodiscard]] bool is_final(const Ending& ending) const;

    void arm(base::Nanoseconds deadline);
    void disarm();
    void close_socket();

    const Session& session_;
    Visitors& visitors_;
    config::TunnelRequest request_;
    protocol::ClientOptions options_;
    LocalService local_;
    VisitorOrigin origin_;
    std::string relay_name_;  // "host:7835"
    std::string log_prefix_;  // tells tunnels apart where there are several
    Backoff backoff_;

    tcp::socket socket_;
    asio::steady_timer timer_;
    std::uint64_t timer_generation_{0};  // a handler of an earlier arm() does nothing
    bool timed_out_{false};
    bool stopping_{false};

    protocol::FrameReader reader_;
    std::array<char, 4'096> buffer_{};
    std::string first_bytes_;  // of the peer, to recognize other protocols
    std::optional<Liveness> liveness_;
    LogLimit remark_limit_{base::second_ns};

    bool was_up_{false};               // ever
    base::Nanoseconds up_since_{0};    // of this attempt; 0 = it was never up
    base::Nanoseconds lost_since_{0};  // when the tunnel was up last
    std::uint16_t wanted_port_;
    std::uint16_t announced_port_{0};
};

}  // namespace bore::client
