// One tunnel: its public listeners, its control connection after Hello, its visitors' accounts.
// Control thread only.
//
// 1. Tunnels makes it with bound listeners and the client's socket; start() answers Hello(port).
// 2. Visitors are accepted in bursts. Each gets an id and waits in Pairs; the burst's Connection
//    frames go out in one write. At the cap of pending visitors the listeners pause.
// 3. Heartbeats go out when nothing else was sent for an interval. What the client sends is read
//    and thrown away, at a bounded rate; its FIN or RST, or its silence, ends the tunnel.
// 4. end(): listeners and control connection close at once and the port is free. Visitors that
//    wait stay claimable and pairs live on; the last of them lets Tunnels forget the tunnel.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "controlplane/bore/dialect.hpp"
#include "controlplane/relay/context.hpp"
#include "controlplane/relay/listener.hpp"
#include "controlplane/relay/sources.hpp"

namespace bore::relay {

class Pairs;
class Tunnels;

enum class TunnelEnd : std::uint8_t {
    client_closed,  // FIN
    client_reset,
    client_dead,  // acknowledges or reads nothing any more
    replaced,     // its client came back and asked for the port
    killed,       // by an operator
    shutdown,     // the relay stops
    socket_error,
};

[[nodiscard]] std::string_view to_string(TunnelEnd reason);

// The client behind a tunnel, as its handshake showed it.
struct TunnelClient {
    config::IpAddress address;
    std::uint16_t port{0};
    SourceHold source;
    bool authenticated{false};
    bool visitors_need_authentication{false};  // wire protocol §8.4
    protocol::Dialect dialect{protocol::Dialect::fork};
};

class Tunnel final : public Listener::Handler, public std::enable_shared_from_this<Tunnel> {
  public:
    // What may wait for a client that does not read before its tunnel stops accepting: the
    // Connection frames of more visitors than may be pending by default.
    static constexpr std::size_t max_unsent_bytes = 64 * 1024;
    // What a client may say after Hello, per heartbeat interval, before it is left unread.
    static constexpr std::size_t max_ignored_bytes = 64 * 1024;

    Tunnel(const Context& context, Tunnels& owner, Pairs& pairs, std::uint32_t index,
           std::uint16_t port, TunnelClient client);

    void start(std::vector<Descriptor> listeners, boost::asio::posix::stream_descriptor control);
    void end(TunnelEnd reason);
    // Drain: no new visitors, but the client goes on with those it has.
    void close_listeners();
    // The same for a while: the port stays the tunnel's. False: the port could not be opened again,
    // and the tunnel has ended.
    void shut_listeners();
    bool reopen_listeners();

    // Reload: the timeouts of the configuration in force; the bandwidth stays.
    void apply_timeouts();

    // False when the client's kernel acknowledges what is sent to it; true when it has not for one
    // second (at once, when that second has passed already), or the tunnel ended meanwhile.
    [[nodiscard]] boost::asio::awaitable<bool> client_vanished();

    // Told by Pairs.
    void visitor_left();  // claimed, or dropped: no longer pending
    void pair_opened();
    void pair_ended();

    [[nodiscard]] std::uint32_t index() const { return index_; }
    // How many tunnels the row has had, this one included. With the index it names the tunnel for
    // as long as the relay runs.
    [[nodiscard]] std::uint64_t generation() const { return row_.description.value().generation; }
    [[nodiscard]] std::uint16_t port() const { return port_; }
    [[nodiscard]] const TunnelClient& client() const { return client_; }
    [[nodiscard]] std::uint32_t pending_count() const { return pending_count_; }
    [[nodiscard]] std::uint32_t live_count() const { return live_count_; }
    [[nodiscard]] bool ended() const { return ended_; }
    // Nothing is left of it but its row.
    [[nodiscard]] bool finished() const { return ended_ && pending_count_ + live_count_ == 0; }
    [[nodiscard]] const abi::TunnelLimits& limits() const { return limits_; }
    // Since the tunnel began.
    [[nodiscard]] abi::TunnelTotals totals() const;
    // What readers of the statistics see of it.
    [[nodiscard]] abi::TunnelDescription description() const;

    Listener::Flow on_accepted(Descriptor socket, const sockaddr_storage& peer) override;
    void on_burst_ended() override { flush(); }

  private:
    [[nodiscard]] bool admits_visitor(const sockaddr_storage& peer);
    [[nodiscard]] bool full() const;
    [[nodiscard]] std::uint64_t descriptors_left(int newest) const;
    void resume_accepting();

    void watch_control();
    void read_control();
    void flush();
    void wait_writable();
    void heartbeat_due();
    void socket_failed(int error_number);
    void log_end(TunnelEnd reason) const;
    void show_limits();
    void show_visitors();

    const Context& context_;
    Tunnels& owner_;
    Pairs& pairs_;
    const std::uint32_t index_;
    const std::uint16_t port_;
    TunnelClient client_;
    abi::TunnelLimits limits_;
    const base::Nanoseconds opened_at_;
    const abi::TunnelTotals totals_at_start_;
    abi::TunnelDescriptionRow& row_;  // of the statistics

    std::uint32_t pending_count_{0};
    std::uint32_t live_count_{0};
    bool ended_{false};
    bool paused_{false};  // accepting stopped at a cap
    bool reading_paused_{false};
    bool waiting_writable_{false};
    std::size_t ignored_bytes_{0};  // in this heartbeat interval
    std::string unsent_;            // frames for the client
    base::Nanoseconds last_sent_{0};
    base::Nanoseconds blocked_since_{0};  // the socket took nothing since
    std::vector<std::shared_ptr<Listener>> listeners_;
    boost::asio::posix::stream_descriptor control_;
    Timer heartbeat_{Timer::calling<&Tunnel::heartbeat_due>(this)};
};

}  // namespace bore::relay
