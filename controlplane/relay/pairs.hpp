// Visitors and their clients' data connections find each other here, and leave as pairs for the
// engine. Per live pair the control plane keeps nothing: the engine's report of its end names the
// tunnel, and the tunnel counts. Control thread only.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "controlplane/relay/context.hpp"
#include "controlplane/relay/pending_visitors.hpp"
#include "controlplane/relay/sources.hpp"
#include "controlplane/relay/tunnels.hpp"

namespace bore::relay {

class Pairs final : public PendingVisitors::Handler {
  public:
    // Ends of pairs are collected at most this often: a wake-up of the control thread per pair
    // would cost more than handling it.
    static constexpr base::Nanoseconds collect_interval_ns = 10 * base::millisecond_ns;

    Pairs(const Context& context, Tunnels& tunnels, Sources& sources);
    Pairs(const Pairs&) = delete;
    Pairs& operator=(const Pairs&) = delete;
    ~Pairs() { stop(); }

    void start() { watch_engine(); }
    // After the engine's end nothing may be polled.
    void stop();

    // The caller counts it as pending on its tunnel.
    [[nodiscard]] protocol::Uuid add_visitor(Tunnel& tunnel, Descriptor socket,
                                             const sockaddr_storage& peer);

    // A data connection as its handshake left it.
    struct Claim {
        protocol::Uuid visitor_id;
        config::IpAddress client_address;
        std::uint16_t client_port{0};
        std::uint64_t read_bytes{0};  // from the data connection, in all
        bool authenticated{false};
        std::string_view left_over;  // read behind Accept; at most abi::max_left_over_bytes
    };
    // True when the claim named a visitor that waits and may have it; the pair is the engine's, or
    // gone where the engine refused it, and `client` was taken. False: nothing happened.
    [[nodiscard]] bool claim(const Claim& claim, Descriptor& client);

    // A visitor whose data connection was spoilt by a Challenge: reset it. False: no such visitor,
    // or one that only an authenticated Accept can touch.
    bool reset_visitor(const protocol::Uuid& id);
    void drop_pending() { pending_.drop_all(); }
    // Visitors that wait are closed, pairs reset; their ends are reported as usual.
    void cut(Tunnel& tunnel);
    void cut_all();
    // Takes in what the engine has to report; true when it was something.
    bool collect_ended();

    [[nodiscard]] std::size_t pending_count() const { return pending_.size(); }
    [[nodiscard]] std::uint64_t live_count() const { return live_count_; }

    void on_visitor_expired(Tunnel& tunnel) override;

  private:
    [[nodiscard]] abi::LegFacts facts_of(int socket, const config::IpAddress& peer,
                                         std::uint16_t peer_port) const;
    [[nodiscard]] bool may_claim(const Tunnel& tunnel, const Claim& claim) const;
    void left_pending(Tunnel& tunnel);
    void watch_engine();
    void collect_due();
    void ended(const abi::PairEnded& event);

    const Context& context_;
    Tunnels& tunnels_;
    Sources& sources_;
    PendingVisitors pending_;
    std::uint64_t live_count_{0};
    bool stopped_{false};
    std::vector<abi::PairEnded> events_;
    boost::asio::posix::stream_descriptor engine_events_;  // the engine owns the descriptor
    Timer collect_{Timer::calling<&Pairs::collect_due>(this)};
};

}  // namespace bore::relay
