// Binding, admission, and the list of handshakes.
#include "controlplane/relay/control_port.hpp"

#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "controlplane/relay/sockets.hpp"

namespace bore::relay {

using abi::ControlCounter;

namespace {

std::string listen_error(const config::IpAddress& address, std::uint16_t port, int error_number) {
    std::string text = "cannot listen on " + address.to_string() + " port " + std::to_string(port) +
                       " (bind-addr, control-port): " + std::strerror(error_number) + "; ";
    switch (error_number) {
        case EADDRINUSE:
            return text +
                   "another program holds it: stop that one or choose another port or "
                   "address (ss -ltnp shows who it is)";
        case EADDRNOTAVAIL:
            return text + "the address must be one of this machine: see `ip address`";
        case EACCES:
            return text +
                   "ports below net.ipv4.ip_unprivileged_port_start need "
                   "CAP_NET_BIND_SERVICE: grant it or choose a higher port";
        default:
            return text + "choose another address or port";
    }
}

}  // namespace

std::expected<void, std::string> ControlPort::listen() {
    const config::ServerConfig& config = context_.policy.config;
    for (const config::IpAddress& address : config.bind_addr) {
        auto socket =
            listen_on(address, config.control_port, needs_only_v6(address, config.bind_addr));
        if (!socket) {
            return std::unexpected(listen_error(address, config.control_port, socket.error()));
        }
        bound_.push_back(std::move(*socket));
    }
    return {};
}

void ControlPort::start() {
    for (Descriptor& socket : bound_) {
        listeners_.push_back(std::make_shared<Listener>(
            context_.io, context_.timers, context_.counters, std::move(socket), *this));
        listeners_.back()->start();
    }
    bound_.clear();
}

void ControlPort::close_listeners() {
    for (const auto& listener : listeners_) {
        listener->close();
    }
    listeners_.clear();
}

void ControlPort::abort_connections() {
    for (ControlConnection& connection : connections_) {
        connection.abort();
    }
}

Listener::Flow ControlPort::on_accepted(Descriptor socket, const sockaddr_storage& peer) {
    context_.counters.add(ControlCounter::connections_accepted_total);
    const auto address = config::IpAddress::from(peer);
    if (!address || !context_.policy.clients.admits(*address)) {
        context_.counters.add(ControlCounter::connections_refused_network_total);
        return Listener::Flow::more;
    }
    auto source = sources_.admit(*address, base::monotonic_now());
    if (!source) {
        context_.counters.add(source.error() == Sources::Refusal::rate
                                  ? ControlCounter::connections_refused_rate_total
                                  : ControlCounter::connections_refused_unauthenticated_total);
        return Listener::Flow::more;
    }
    fresh_.push_back(std::make_shared<ControlConnection>(
        *this, std::move(socket),
        ControlConnection::Peer{
            .address = *address, .port = port_of(peer), .source = std::move(*source)}));
    connections_.push_back(*fresh_.back());
    return Listener::Flow::more;
}

// Read after the burst and not one by one: meanwhile more of them have something to say.
void ControlPort::on_burst_ended() {
    for (const auto& connection : fresh_) {
        connection->begin();
    }
    fresh_.clear();
    context_.counters.set(ControlCounter::unauthenticated_connections,
                          sources_.unauthenticated_count());
}

void ControlPort::on_gone(ControlConnection& connection) {
    connections_.erase(connections_.iterator_to(connection));
    sources_.settle(connection.source());
    context_.counters.set(ControlCounter::unauthenticated_connections,
                          sources_.unauthenticated_count());
}

}  // namespace bore::relay
