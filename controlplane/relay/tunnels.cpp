// Opening, closing and forgetting tunnels.
#include "controlplane/relay/tunnels.hpp"

#include <cerrno>
#include <random>
#include <utility>

#include <boost/asio/post.hpp>

#include "controlplane/bore/error_texts.hpp"
#include "controlplane/relay/sockets.hpp"

namespace bore::relay {

using abi::ControlCounter;

namespace {

std::vector<std::uint16_t> reserved_ports(const config::ServerConfig& config) {
    std::vector<std::uint16_t> ports = config.reserved_ports;
    ports.push_back(config.control_port);
    return ports;
}

std::string_view text_of(PortError error) {
    switch (error) {
        case PortError::not_allowed:
            return protocol::error_text::port_not_allowed;
        case PortError::in_use:
            return protocol::error_text::port_in_use;
        case PortError::permission_denied:
            return protocol::error_text::permission_denied;
        case PortError::bind_failed:
            return protocol::error_text::bind_failed;
        case PortError::none_left:
            break;
    }
    return protocol::error_text::no_port_available;
}

}  // namespace

Tunnels::Tunnels(const Context& context)
    : context_(context),
      ports_(context.policy.config.min_port, context.policy.config.max_port,
             reserved_ports(context.policy.config)) {
    // Low rows first: readers look at the rows used so far.
    const std::uint32_t capacity = context.statistics.tunnel_capacity();
    rows_.resize(capacity);
    free_rows_.reserve(capacity);
    for (std::uint32_t index = capacity; index-- > 0;) {
        free_rows_.push_back(index);
    }
}

std::expected<void, std::string> Tunnels::check_caps(const TunnelClient& client) {
    const config::ServerConfig& config = context_.policy.config;
    if (live_count() >= config.max_tunnels || free_rows_.empty()) {
        return std::unexpected("this relay is full (" + std::to_string(live_count()) +
                               " tunnels); try again later or use another relay");
    }
    if (client.source->tunnel_count >= config.max_tunnels_per_source) {
        return std::unexpected("your address has " + std::to_string(client.source->tunnel_count) +
                               " tunnels, the most this relay allows; close one first");
    }
    return {};
}

std::expected<std::uint16_t, PortError> Tunnels::bind_port(std::uint16_t requested,
                                                           std::vector<Descriptor>& listeners) {
    const auto& addresses = config::tunnel_addresses(context_.policy.config);
    const auto bind = [&](std::uint16_t port) {
        listeners.clear();
        for (const config::IpAddress& address : addresses) {
            auto socket = listen_on(address, port, needs_only_v6(address, addresses));
            if (!socket) {
                listeners.clear();
                return socket.error();
            }
            listeners.push_back(std::move(*socket));
        }
        return 0;
    };
    return ports_.allocate(requested, std::random_device{}(), bind);
}

std::expected<void, std::string> Tunnels::open(std::uint16_t requested_port, TunnelClient&& client,
                                               Pairs& pairs,
                                               boost::asio::posix::stream_descriptor& control) {
    if (auto within = check_caps(client); !within) {
        context_.counters.add(ControlCounter::tunnels_refused_limit_total);
        return within;
    }
    std::vector<Descriptor> listeners;
    const auto port = bind_port(requested_port, listeners);
    if (!port) {
        context_.counters.add(ControlCounter::tunnels_refused_port_total);
        return std::unexpected(std::string(text_of(port.error())));
    }
    const std::uint32_t index = free_rows_.back();
    free_rows_.pop_back();
    const auto tunnel =
        std::make_shared<Tunnel>(context_, *this, pairs, index, *port, std::move(client));
    rows_[index] = tunnel;
    by_port_.emplace(*port, tunnel.get());
    ++tunnel->client().source->tunnel_count;
    hints_.tunnel_opened(tunnel->client().address.bytes, tunnel->client().dialect);
    context_.statistics.begin_tunnel(index, tunnel->description());
    context_.engine.open_tunnel(index, *port, tunnel->limits());
    context_.counters.add(ControlCounter::tunnels_opened_total);
    context_.counters.set(ControlCounter::tunnels_live, live_count());
    context_.log.info("tunnel opened", {{"port", *port},
                                        {"client", tunnel->client().address.to_string()},
                                        {"client_port", tunnel->client().port}});
    tunnel->start(std::move(listeners), std::move(control));
    return {};
}

std::shared_ptr<Tunnel> Tunnels::holder_of(std::uint16_t port) const {
    const auto found = by_port_.find(port);
    return found == by_port_.end() ? nullptr : rows_[found->second->index()];
}

std::shared_ptr<Tunnel> Tunnels::find(std::uint32_t index, std::uint64_t generation) const {
    return index < rows_.size() && rows_[index] && rows_[index]->generation() == generation
               ? rows_[index]
               : nullptr;
}

void Tunnels::on_ended(Tunnel& tunnel) {
    const TunnelClient& client = tunnel.client();
    by_port_.erase(tunnel.port());
    ports_.give_back(tunnel.port());
    --client.source->tunnel_count;
    hints_.tunnel_closed(client.address.bytes, client.dialect, base::monotonic_now());
    context_.counters.add(ControlCounter::tunnels_closed_total);
    context_.counters.set(ControlCounter::tunnels_live, live_count());
    context_.statistics.end_tunnel(tunnel.index(), abi::TunnelState::finishing,
                                   base::monotonic_now());
    if (tunnel.finished()) {
        forget_later(tunnel.index());
    }
}

void Tunnels::on_visitor_gone(Tunnel& tunnel) {
    if (tunnel.finished()) {
        forget_later(tunnel.index());
    }
}

void Tunnels::forget_later(std::uint32_t index) {
    // Not now: the tunnel may be the caller.
    boost::asio::post(context_.io, [this, index] {
        context_.engine.close_tunnel(index);
        context_.statistics.end_tunnel(index, abi::TunnelState::ended, base::monotonic_now());
        rows_[index].reset();
        free_rows_.push_back(index);
    });
}

void Tunnels::apply_limits() {
    // Ended tunnels, too, as long as they have pairs: those are in no map of ports.
    for_each([](Tunnel& tunnel) { tunnel.apply_timeouts(); });
}

void Tunnels::close_listeners() {
    for (const auto& [port, tunnel] : by_port_) {
        tunnel->close_listeners();
    }
}

void Tunnels::shut_listeners() {
    for (const auto& [port, tunnel] : by_port_) {
        tunnel->shut_listeners();
    }
}

std::vector<std::uint16_t> Tunnels::reopen_listeners() {
    std::vector<Tunnel*> tunnels;  // one that fails leaves the map
    for (const auto& [port, tunnel] : by_port_) {
        tunnels.push_back(tunnel);
    }
    std::vector<std::uint16_t> lost;
    for (Tunnel* const tunnel : tunnels) {
        const std::uint16_t port = tunnel->port();
        if (!tunnel->reopen_listeners()) {
            lost.push_back(port);
        }
    }
    return lost;
}

void Tunnels::end_all(TunnelEnd reason) {
    while (!by_port_.empty()) {
        by_port_.begin()->second->end(reason);
    }
}

void Tunnels::end_finished_work() {
    std::vector<Tunnel*> idle;
    for (const auto& [port, tunnel] : by_port_) {
        if (tunnel->pending_count() + tunnel->live_count() == 0) {
            idle.push_back(tunnel);
        }
    }
    for (Tunnel* tunnel : idle) {
        tunnel->end(TunnelEnd::shutdown);
    }
}

}  // namespace bore::relay
