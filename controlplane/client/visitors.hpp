// The visitors of all tunnels, from the relay's Connection(id) to the engine. Control thread only.
//
// Path of a visitor:
//   1. enqueue(): waits for a turn, at most as long as the relay keeps it (10 s)
//   2. both connects are begun: to the relay's control port and to the local service
//   3. handshake of the data connection, ends with Accept(id)
//   4. both sockets, with what the relay sent behind the handshake, go to the engine
//   5. the engine reports the end of the pair
// A local service that is down costs the visitor an orderly end (FIN), not a reset.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>

#include "controlplane/bore/client_handshake.hpp"
#include "controlplane/bore/uuid.hpp"
#include "controlplane/client/dial.hpp"
#include "controlplane/client/local_service.hpp"
#include "controlplane/client/log_limit.hpp"
#include "controlplane/client/session.hpp"
#include "dataplane/abi/engine.hpp"

namespace bore::client {

// What a visitor inherits from its tunnel. The pointers are the tunnel's and outlive the visitor.
struct VisitorOrigin {
    tcp::endpoint relay;  // the very address of the control connection: a name may have several
    protocol::Dialect dialect{protocol::Dialect::upstream};
    const protocol::ClientOptions* options{nullptr};
    LocalService* local{nullptr};
    std::uint32_t tunnel_index{0};
};

class Visitors {
  public:
    explicit Visitors(const Session& session);

    void enqueue(const VisitorOrigin& origin, const protocol::Uuid& id);
    void pair_ended(const abi::PairEnded& ended);
    // No visitor is opened from now on; pairs of the engine go on.
    void stop();

    [[nodiscard]] std::size_t live_count() const { return live_count_; }

  private:
    struct Waiting {
        VisitorOrigin origin;
        protocol::Uuid id;
        base::Nanoseconds expires;
    };
    struct Visit {
        Visit(const Waiting& waiting, const asio::any_io_executor& executor)
            : origin(waiting.origin),
              id(waiting.id),
              expires(waiting.expires),
              relay(executor),
              local(executor) {}

        VisitorOrigin origin;
        protocol::Uuid id;
        base::Nanoseconds expires;
        bool abandoned{false};
        tcp::socket relay;
        tcp::socket local;
        std::vector<std::byte> left_over;  // sent by the relay behind the handshake
    };
    using VisitPlace = std::list<Visit>::iterator;

    void start_waiting();
    void sweep_later();
    void sweep();
    static void abandon(Visit& visit);
    [[nodiscard]] asio::awaitable<void> run(VisitPlace place);
    [[nodiscard]] asio::awaitable<bool> reach_relay(Visit& visit);
    [[nodiscard]] asio::awaitable<bool> shake_hands(Visit& visit);
    [[nodiscard]] asio::awaitable<void> close_in_order(Visit& visit);
    void hand_over(Visit& visit);
    void report_local_down(const Visit& visit, const error_code& error);
    void report_lost(const Visit& visit, std::string_view what);

    const Session& session_;
    std::deque<Waiting> waiting_;
    std::list<Visit> visits_;       // opening, and closing after a failure
    std::size_t opening_count_{0};  // visits_ without those that are closing
    std::size_t live_count_{0};     // in the engine
    bool stopping_{false};
    bool sweeping_{false};
    asio::steady_timer sweep_timer_;
    LogLimit local_down_limit_{5 * base::second_ns};
    LogLimit lost_limit_{5 * base::second_ns};
};

}  // namespace bore::client
