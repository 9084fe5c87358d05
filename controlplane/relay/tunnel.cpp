// Accepting visitors, the control connection after Hello, and the end of a tunnel.
#include "controlplane/relay/tunnel.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "controlplane/bore/message.hpp"
#include "controlplane/relay/pairs.hpp"
#include "controlplane/relay/sockets.hpp"
#include "controlplane/relay/tunnels.hpp"

namespace bore::relay {

using abi::ControlCounter;

namespace {

// With so few descriptors left, visitors are accepted one by one with pauses.
constexpr std::uint64_t scarce_descriptors = 8;

}  // namespace

std::string_view to_string(TunnelEnd reason) {
    switch (reason) {
        case TunnelEnd::client_closed:
            return "client closed";
        case TunnelEnd::client_reset:
            return "client reset";
        case TunnelEnd::client_dead:
            return "client vanished";
        case TunnelEnd::replaced:
            return "replaced by its client's new connection";
        case TunnelEnd::killed:
            return "ended by an operator";
        case TunnelEnd::shutdown:
            return "relay stops";
        case TunnelEnd::socket_error:
            break;
    }
    return "socket error";
}

Tunnel::Tunnel(const Context& context, Tunnels& owner, Pairs& pairs, std::uint32_t index,
               std::uint16_t port, TunnelClient client)
    : context_(context),
      owner_(owner),
      pairs_(pairs),
      index_(index),
      port_(port),
      client_(std::move(client)),
      limits_(context.policy.tunnel_limits),
      opened_at_(base::monotonic_now()),
      totals_at_start_(context.statistics.tunnel_totals(index)),
      row_(context.statistics.tunnel_description(index)),
      control_(context.io) {
    limits_.path_policy = path_policy(context.policy.config, port);
}

void Tunnel::start(std::vector<Descriptor> listeners,
                   boost::asio::posix::stream_descriptor control) {
    control_ = std::move(control);
    watch_peer(control_.native_handle(), context_.policy.config.client_dead_timeout_ms);
    for (Descriptor& socket : listeners) {
        listeners_.push_back(std::make_shared<Listener>(
            context_.io, context_.timers, context_.counters, std::move(socket), *this));
        listeners_.back()->start();
    }
    unsent_ = protocol::encode_hello(port_).view();
    last_sent_ = opened_at_;
    context_.timers.arm(heartbeat_, opened_at_ + context_.policy.config.heartbeat_interval_ms *
                                                     base::millisecond_ns);
    watch_control();
    flush();
}

void Tunnel::end(TunnelEnd reason) {
    if (ended_) {
        return;
    }
    ended_ = true;
    close_listeners();
    context_.timers.cancel(heartbeat_);
    boost::system::error_code ignored;
    control_.close(ignored);
    unsent_ = {};
    if (reason == TunnelEnd::client_dead) {
        context_.counters.add(ControlCounter::clients_dead_total);
    }
    log_end(reason);
    owner_.on_ended(*this);
}

void Tunnel::close_listeners() {
    for (const auto& listener : listeners_) {
        listener->close();
    }
    listeners_.clear();
}

void Tunnel::shut_listeners() {
    for (const auto& listener : listeners_) {
        listener->shut();
    }
}

bool Tunnel::reopen_listeners() {
    for (const auto& listener : listeners_) {
        if (const auto reopened = listener->reopen(); !reopened) {
            context_.log.warning("tunnel's port cannot be opened again",
                                 {{"port", port_}, {"error", std::strerror(reopened.error())}});
            end(TunnelEnd::socket_error);
            return false;
        }
    }
    return true;
}

void Tunnel::apply_timeouts() {
    limits_.idle_timeout_ms = context_.policy.tunnel_limits.idle_timeout_ms;
    limits_.half_closed_timeout_ms = context_.policy.tunnel_limits.half_closed_timeout_ms;
    context_.engine.set_tunnel_limits(index_, limits_);
    show_limits();
}

abi::TunnelTotals Tunnel::totals() const {
    abi::TunnelTotals totals = context_.statistics.tunnel_totals(index_);
    totals.to_client_bytes -= totals_at_start_.to_client_bytes;
    totals.to_visitor_bytes -= totals_at_start_.to_visitor_bytes;
    totals.pairs_opened -= totals_at_start_.pairs_opened;
    return totals;
}

abi::TunnelDescription Tunnel::description() const {
    abi::TunnelDescription description{
        .since_realtime_ns = base::realtime_now(),
        .since_monotonic_ns = opened_at_,
        .to_client_bytes_per_second = limits_.to_client_bytes_per_second,
        .to_visitor_bytes_per_second = limits_.to_visitor_bytes_per_second,
        .idle_timeout_s = static_cast<std::uint32_t>(limits_.idle_timeout_ms / 1000),
        .half_closed_timeout_s = static_cast<std::uint32_t>(limits_.half_closed_timeout_ms / 1000),
        .port = port_,
        .client_port = client_.port,
        .state = abi::TunnelState::live,
        .dialect = client_.dialect == protocol::Dialect::fork ? abi::TunnelDialect::fork
                                                              : abi::TunnelDialect::upstream,
        .path_policy = limits_.path_policy,
        .authenticated = client_.authenticated ? std::uint8_t{1} : std::uint8_t{0}};
    abi::set_text(description.client_address, client_.address.to_string());
    std::string bound;
    for (const config::IpAddress& address : config::tunnel_addresses(context_.policy.config)) {
        bound += (bound.empty() ? "" : ",") + address.to_string();
    }
    abi::set_text(description.bind_addresses, bound);
    return description;
}

void Tunnel::show_limits() {
    abi::TunnelDescription shown = row_.description.value();
    const abi::TunnelDescription now = description();
    shown.idle_timeout_s = now.idle_timeout_s;
    shown.half_closed_timeout_s = now.half_closed_timeout_s;
    row_.description.write(shown);
}

void Tunnel::show_visitors() {
    row_.visitors_pending.store(pending_count_, std::memory_order_relaxed);
    row_.visitors_live.store(live_count_, std::memory_order_relaxed);
}

void Tunnel::log_end(TunnelEnd reason) const {
    const abi::TunnelTotals sums = totals();
    const double seconds =
        static_cast<double>(base::monotonic_now() - opened_at_) / double{base::second_ns};
    context_.log.info("tunnel ended", {{"port", port_},
                                       {"client", client_.address.to_string()},
                                       {"reason", to_string(reason)},
                                       {"duration_s", seconds},
                                       {"pairs", sums.pairs_opened},
                                       {"pairs_live", live_count_},
                                       {"to_client_bytes", sums.to_client_bytes},
                                       {"to_visitor_bytes", sums.to_visitor_bytes}});
}

// ---- Visitors

Listener::Flow Tunnel::on_accepted(Descriptor socket, const sockaddr_storage& peer) {
    context_.counters.add(ControlCounter::visitors_accepted_total);
    if (!admits_visitor(peer)) {
        return Listener::Flow::more;
    }
    const std::uint64_t left = descriptors_left(socket.get());
    if (left == 0) {
        context_.counters.add(ControlCounter::visitors_refused_limit_total);
        return Listener::Flow::rest;
    }
    const protocol::Uuid id = pairs_.add_visitor(*this, std::move(socket), peer);
    ++pending_count_;
    show_visitors();
    const std::size_t end = unsent_.size();
    unsent_.resize(end + protocol::connection_frame_bytes);
    protocol::write_connection_frame(
        id, std::span<char, protocol::connection_frame_bytes>(unsent_.data() + end,
                                                              protocol::connection_frame_bytes));
    if (full()) {
        paused_ = true;
        context_.counters.add(ControlCounter::visitors_paused_total);
        return Listener::Flow::pause;
    }
    return left <= scarce_descriptors ? Listener::Flow::rest : Listener::Flow::more;
}

bool Tunnel::admits_visitor(const sockaddr_storage& peer) {
    const auto address = config::IpAddress::from(peer);
    if (!address || !context_.policy.visitors.admits(*address)) {
        context_.counters.add(ControlCounter::visitors_refused_network_total);
        return false;
    }
    if (pending_count_ + live_count_ >= context_.policy.config.max_visitors_per_tunnel) {
        context_.counters.add(ControlCounter::visitors_refused_limit_total);
        return false;
    }
    if (context_.log.sample()) {
        context_.log.info("visitor", {{"port", port_}, {"from", address->to_string()}});
    }
    return true;
}

bool Tunnel::full() const {
    return pending_count_ >= context_.policy.config.max_pending_visitors ||
           unsent_.size() >= max_unsent_bytes;
}

// Every visitor that waits needs one more descriptor, for its data connection. The kernel gives the
// lowest free number, so all below the newest are in use; a visitor accepted without a descriptor
// left for its partner would only keep others from theirs.
std::uint64_t Tunnel::descriptors_left(int newest) const {
    constexpr std::uint64_t reserve = 8;  // for control connections
    const std::uint64_t used =
        static_cast<std::uint64_t>(newest) + pairs_.pending_count() + reserve;
    return used < context_.descriptor_limit ? context_.descriptor_limit - used : 0;
}

void Tunnel::visitor_left() {
    --pending_count_;
    show_visitors();
    resume_accepting();
}

void Tunnel::pair_opened() {
    ++live_count_;
    show_visitors();
}

void Tunnel::pair_ended() {
    --live_count_;
    show_visitors();
}

void Tunnel::resume_accepting() {
    // Not at the first free place: a burst is cheaper than one visitor at a time.
    const std::uint32_t cap = context_.policy.config.max_pending_visitors;
    if (paused_ && unsent_.size() < max_unsent_bytes / 2 &&
        pending_count_ + std::max(1U, cap / 8) <= cap) {
        paused_ = false;
        for (const auto& listener : listeners_) {
            listener->resume();
        }
    }
}

// ---- The control connection

void Tunnel::watch_control() {
    control_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                        [self = shared_from_this()](const boost::system::error_code& error) {
                            if (!error && !self->ended_) {
                                self->read_control();
                            }
                        });
}

void Tunnel::read_control() {
    std::array<char, 16 * 1024> ignored;
    const auto size = receive(control_.native_handle(), ignored);
    if (!size && size.error() != EAGAIN) {
        socket_failed(size.error());
        return;
    }
    if (size && *size == 0) {
        end(TunnelEnd::client_closed);
        return;
    }
    ignored_bytes_ += size.value_or(0);
    if (ignored_bytes_ >= max_ignored_bytes) {
        reading_paused_ = true;  // until the next heartbeat
        return;
    }
    watch_control();
}

void Tunnel::flush() {
    if (ended_ || waiting_writable_ || unsent_.empty()) {
        return;
    }
    const auto sent = send(control_.native_handle(), unsent_);
    if (!sent && sent.error() != EAGAIN) {
        socket_failed(sent.error());
        return;
    }
    const base::Nanoseconds now = base::monotonic_now();
    if (sent) {
        last_sent_ = now;
        unsent_.erase(0, *sent);
    }
    if (!unsent_.empty()) {
        if (sent || blocked_since_ == 0) {
            blocked_since_ = now;
        }
        wait_writable();
        return;
    }
    blocked_since_ = 0;
    resume_accepting();
}

void Tunnel::wait_writable() {
    waiting_writable_ = true;
    control_.async_wait(boost::asio::posix::descriptor_base::wait_write,
                        [self = shared_from_this()](const boost::system::error_code& error) {
                            self->waiting_writable_ = false;
                            if (!error) {
                                self->flush();
                            }
                        });
}

void Tunnel::heartbeat_due() {
    const base::Nanoseconds now = base::monotonic_now();
    const config::ServerConfig& config = context_.policy.config;
    const base::Nanoseconds interval = config.heartbeat_interval_ms * base::millisecond_ns;
    if (!unsent_.empty()) {
        if (blocked_since_ != 0 &&
            now - blocked_since_ >= config.client_dead_timeout_ms * base::millisecond_ns) {
            end(TunnelEnd::client_dead);
            return;
        }
        last_sent_ = now;  // nothing fits, look again after an interval
    } else if (now >= last_sent_ + interval) {
        context_.counters.add(ControlCounter::heartbeats_total);
        unsent_ = protocol::heartbeat_frame;
        flush();
        if (ended_) {
            return;
        }
    }
    context_.timers.arm(heartbeat_, last_sent_ + interval);
    ignored_bytes_ = 0;
    if (std::exchange(reading_paused_, false)) {
        watch_control();
    }
}

void Tunnel::socket_failed(int error_number) {
    switch (error_number) {
        case ECONNRESET:
        case EPIPE:
            end(TunnelEnd::client_reset);
            break;
        case ETIMEDOUT:
        case EHOSTUNREACH:
        case ENETUNREACH:
            end(TunnelEnd::client_dead);
            break;
        default:
            end(TunnelEnd::socket_error);
    }
}

boost::asio::awaitable<bool> Tunnel::client_vanished() {
    // Anything that the peer's kernel must acknowledge tells; an acknowledgement may be delayed by
    // 40 ms (Linux) to 200 ms, and one lost packet is sent again after about 200 ms. A busy tunnel
    // always has something under way, so any acknowledgement since the question counts.
    using std::chrono::milliseconds;
    constexpr std::uint32_t clock_step_ms = 10;
    constexpr std::uint32_t silent_ms = 1000;
    const auto self = shared_from_this();
    const int socket = control_.native_handle();
    if (ended_) {
        co_return true;
    }
    const PeerSilence before = peer_silence(socket);
    if (before.retransmitting && before.last_acknowledgement_ms >= silent_ms) {
        co_return true;
    }
    boost::asio::steady_timer pause(context_.io);
    if (unsent_.empty()) {
        unsent_ = protocol::heartbeat_frame;
        flush();
    }
    std::uint32_t waited_ms = 0;
    for (const std::uint32_t wait_ms : {5U, 45U, 150U, 300U, 500U}) {
        pause.expires_after(milliseconds(wait_ms));
        co_await pause.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
        if (ended_) {
            co_return true;
        }
        waited_ms += wait_ms;
        const bool all_acknowledged = unsent_.empty() && unacknowledged_bytes(socket) == 0;
        if (all_acknowledged ||
            peer_silence(socket).last_acknowledgement_ms + clock_step_ms < waited_ms) {
            co_return false;
        }
    }
    co_return true;
}

}  // namespace bore::relay
