// Pairing and the engine's reports.
#include "controlplane/relay/pairs.hpp"

#include <sys/socket.h>

#include <optional>
#include <utility>

#include "controlplane/relay/sockets.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/base/check.hpp"

namespace bore::relay {

using abi::ControlCounter;

Pairs::Pairs(const Context& context, Tunnels& tunnels, Sources& sources)
    : context_(context),
      tunnels_(tunnels),
      sources_(sources),
      pending_(context.timers, *this),
      engine_events_(context.io, context.engine.event_descriptor()) {}

void Pairs::stop() {
    if (!std::exchange(stopped_, true)) {
        context_.timers.cancel(collect_);
        (void)engine_events_.release();
    }
}

// ---- Visitors that wait

protocol::Uuid Pairs::add_visitor(Tunnel& tunnel, Descriptor socket, const sockaddr_storage& peer) {
    const base::Nanoseconds now = base::monotonic_now();
    const base::Nanoseconds wait =
        context_.policy.config.visitor_claim_timeout_ms * base::millisecond_ns;
    const auto address = config::IpAddress::from(peer).value_or(config::IpAddress{});
    const abi::LegFacts facts = facts_of(socket.get(), address, port_of(peer));
    const protocol::Uuid id = pending_.add(
        {.socket = std::move(socket), .tunnel = &tunnel, .accepted_at = now, .facts = facts},
        now + wait);
    sources_.add_pending(*tunnel.client().source);
    context_.counters.set(ControlCounter::visitors_pending, pending_.size());
    return id;
}

void Pairs::left_pending(Tunnel& tunnel) {
    sources_.remove_pending(*tunnel.client().source);
    context_.counters.set(ControlCounter::visitors_pending, pending_.size());
    tunnel.visitor_left();
}

void Pairs::on_visitor_expired(Tunnel& tunnel) {
    context_.counters.add(ControlCounter::visitors_unclaimed_total);
    left_pending(tunnel);
    tunnels_.on_visitor_gone(tunnel);
}

bool Pairs::reset_visitor(const protocol::Uuid& id) {
    Tunnel* const tunnel = pending_.tunnel_of(id);
    if (tunnel == nullptr) {
        context_.counters.add(ControlCounter::accepts_unknown_total);
        return false;
    }
    if (tunnel->client().visitors_need_authentication) {
        context_.counters.add(ControlCounter::accepts_unauthorized_total);
        return false;
    }
    auto visitor = pending_.take(id);
    reset_on_close(visitor->socket.get());
    visitor->socket.reset();
    left_pending(*tunnel);
    tunnels_.on_visitor_gone(*tunnel);
    return true;
}

// ---- Pairing

// Asked for where the socket was used a moment ago: that costs a fourth of what it costs the engine
// later, when the processor's caches have lost it.
abi::LegFacts Pairs::facts_of(int socket, const config::IpAddress& peer,
                              std::uint16_t peer_port) const {
    abi::LegFacts facts{.peer_address = peer.bytes, .peer_port = peer_port};
    sockaddr_storage own;  // written by the kernel
    socklen_t length = sizeof own;
    if (context_.engine.wants_addresses() &&
        ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &length) == 0) {
        facts.own_address = config::IpAddress::from(own).value_or(config::IpAddress{}).bytes;
        facts.own_port = port_of(own);
    }
    return facts;
}

bool Pairs::may_claim(const Tunnel& tunnel, const Claim& claim) const {
    if (tunnel.client().visitors_need_authentication && !claim.authenticated) {
        return false;
    }
    return !context_.policy.config.accept_from_tunnel_address ||
           claim.client_address == tunnel.client().address;
}

bool Pairs::claim(const Claim& claim, Descriptor& client) {
    Tunnel* const tunnel = pending_.tunnel_of(claim.visitor_id);
    if (tunnel == nullptr) {
        context_.counters.add(ControlCounter::accepts_unknown_total);
        return false;
    }
    if (!may_claim(*tunnel, claim)) {
        context_.counters.add(ControlCounter::accepts_unauthorized_total);
        return false;
    }
    BORE_CHECK(claim.left_over.size() <= abi::max_left_over_bytes,
               "more was read behind Accept than the engine takes");
    auto visitor = pending_.take(claim.visitor_id);
    abi::PairRequest request{
        .visitor_socket = visitor->socket.get(),
        .client_socket = client.get(),
        .tunnel_index = tunnel->index(),
        .facts = {visitor->facts, facts_of(client.get(), claim.client_address, claim.client_port)}};
    request.facts[1].read_bytes = claim.read_bytes;
    if (!claim.left_over.empty()) {
        const auto* bytes = reinterpret_cast<const std::byte*>(claim.left_over.data());
        request.left_over_to_visitor.assign(bytes, bytes + claim.left_over.size());
    }
    const auto handle = context_.engine.open_pair(std::move(request));
    left_pending(*tunnel);
    if (handle) {
        context_.histograms.record(abi::ControlHistogram::pairing_ns,
                                   base::monotonic_now() - visitor->accepted_at);
        (void)visitor->socket.release();
        (void)client.release();
        tunnel->pair_opened();
        ++live_count_;
    } else {
        client.reset();
        context_.counters.add(ControlCounter::handoffs_refused_total);
        tunnels_.on_visitor_gone(*tunnel);
    }
    return true;
}

void Pairs::cut(Tunnel& tunnel) {
    pending_.drop_of(tunnel);
    context_.engine.close_pairs_of(tunnel.index());
}

void Pairs::cut_all() {
    pending_.drop_all();
    context_.engine.close_pairs_of(std::nullopt);
}

// ---- The engine's reports

void Pairs::watch_engine() {
    engine_events_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                              [this](const boost::system::error_code& error) {
                                  if (!error && !stopped_) {
                                      collect_due();
                                  }
                              });
}

void Pairs::collect_due() {
    // While pairs end one after the other the engine's descriptor is not watched: what ends until
    // the next look is collected in one go, and the workers need not wake this thread.
    if (collect_ended()) {
        context_.timers.arm_after(collect_, collect_interval_ns);
    } else {
        watch_engine();
    }
}

bool Pairs::collect_ended() {
    bool any = false;
    bool more = true;
    while (more) {
        events_.clear();
        more = context_.engine.poll_events(events_);
        any = any || !events_.empty();
        for (const abi::PairEnded& event : events_) {
            ended(event);
        }
    }
    return any;
}

void Pairs::ended(const abi::PairEnded& event) {
    Tunnel& tunnel = tunnels_.at(event.tunnel_index);
    --live_count_;
    tunnel.pair_ended();
    if (context_.log.sample()) {
        context_.log.info("pair ended", {{"port", tunnel.port()},
                                         {"reason", abi::to_string(event.reason)},
                                         {"duration_s", static_cast<double>(event.duration_ns) /
                                                            double{base::second_ns}},
                                         {"to_client_bytes", event.to_client_bytes},
                                         {"to_visitor_bytes", event.to_visitor_bytes}});
    }
    tunnels_.on_visitor_gone(tunnel);
}

}  // namespace bore::relay
