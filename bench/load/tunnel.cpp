// A tunnel's way, behind tunnel.hpp:
//   1. connect, handshake: Challenge and Authenticate where there is a secret, Hello, the relay's
//   Hello
//   2. for each Connection message: connect, handshake, Accept; then the service has the socket
//   3. heartbeats, until one side ends
#include "bench/load/tunnel.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <type_traits>
#include <variant>

#include "controlplane/bore/message.hpp"

namespace bore::bench {
namespace {

Reason reason_of(protocol::ClientStep::Failure failure) {
    using Failure = protocol::ClientStep::Failure;
    switch (failure) {
        case Failure::lost:
            return Reason::cut;
        case Failure::protocol:
            return Reason::protocol;
        default:
            return Reason::rejected;
    }
}

}  // namespace

Negotiation::Negotiation(Part& part, const protocol::ClientOptions& options, std::uint16_t port)
    : part_(part), handshake_(protocol::ClientHandshake::control(options, port)) {}

Negotiation::Negotiation(Part& part, const protocol::ClientOptions& options,
                         protocol::Dialect dialect, const protocol::Uuid& visitor_id)
    : part_(part), handshake_(protocol::ClientHandshake::data(options, dialect, visitor_id)) {}

void Negotiation::connect() {
    began_at_ = heard_at_ = base::monotonic_now();
    connecting_ = true;
    std::expected<Descriptor, int> connection = part_.dialer.dial();
    if (!connection) {
        return fail(reason_of_connect(connection.error()), std::strerror(connection.error()));
    }
    connection_ = std::move(*connection);
    part_.loop.add(connection_.get(), EPOLLOUT, *this);
}

void Negotiation::on_ready(std::uint32_t) {
    connecting_ ? send_opening() : receive();
}

void Negotiation::send_opening() {
    if (const int error = connect_error(connection_.get()); error != 0) {
        return fail(reason_of_connect(error), std::strerror(error));
    }
    connecting_ = false;
    heard_at_ = base::monotonic_now();
    part_.loop.modify(connection_.get(), EPOLLIN, *this);
    apply(handshake_.start(heard_at_));
}

void Negotiation::apply(const protocol::ClientStep& step) {
    using Next = protocol::ClientStep::Next;
    // A few hundred bytes into an empty send buffer go at once or never.
    if (!step.send.empty() && ::send(connection_.get(), step.send.data(), step.send.size(),
                                     MSG_NOSIGNAL) != static_cast<ssize_t>(step.send.size())) {
        return fail(reason_of_stream(errno), std::strerror(errno));
    }
    if (step.next == Next::failed) {
        return fail(reason_of(step.failure), step.text);
    }
    if (step.next == Next::ready) {
        agreed(step);
    }
}

void Negotiation::receive() {
    thread_local char piece[16 * 1024];
    const ssize_t count = ::recv(connection_.get(), piece, sizeof piece, 0);
    if (count < 0) {
        return errno == EAGAIN || errno == EINTR
                   ? void()
                   : fail(reason_of_stream(errno), std::strerror(errno));
    }
    if (count == 0) {
        return fail(Reason::cut, "the relay closed the connection");
    }
    heard_at_ = base::monotonic_now();
    reader_.feed({piece, static_cast<std::size_t>(count)});
    while (connection_.valid()) {
        const protocol::FrameReader::Result frame = reader_.next();
        if (frame.status == protocol::FrameReader::Status::need_more) {
            return;
        }
        if (frame.status == protocol::FrameReader::Status::too_long) {
            return fail(Reason::protocol, "a message of more than 256 bytes");
        }
        if (handshake_.wants_frame()) {
            apply(handshake_.on_frame(frame.json));
        } else {
            on_message(frame.json);
        }
    }
}

void Negotiation::fail(Reason reason, const std::string& what) {
    connection_.reset();
    part_.fail(reason, what);
    failed(reason, what);
}

// Of one visitor, until the service has it.
class DataConnection final : public Negotiation {
  public:
    DataConnection(Tunnel& tunnel, const protocol::Uuid& visitor_id)
        : Negotiation(tunnel.part_, tunnel.options_, tunnel.dialect_, visitor_id),
          tunnel_(tunnel) {}

    void start(Tunnel::DataConnections::iterator place) {
        place_ = place;
        connect();
    }
    void sweep(base::Nanoseconds now) {
        if (part_.has_stalled(heard_at_, now)) {
            fail(Reason::stalled, "a data connection's handshake");
        }
    }

  private:
    void agreed(const protocol::ClientStep&) override {
        part_.loop.remove(connection_.get());
        // The relay says nothing of the visitor's before it has the Accept, so nothing of it can
        // have been read here.
        tunnel_.service_.adopt(std::move(connection_));
        leave();
    }
    void on_message(std::string_view) override {}
    void failed(Reason, const std::string&) override { leave(); }
    void leave() {
        part_.loop.retire(std::move(*place_));
        tunnel_.data_.erase(place_);
    }

    Tunnel& tunnel_;
    Tunnel::DataConnections::iterator place_;
};

Tunnel::Tunnel(Part& part, const protocol::ClientOptions& options, std::uint16_t port,
               Service& service, TunnelEvents& events)
    : Negotiation(part, options, port), options_(options), service_(service), events_(events) {}

Tunnel::~Tunnel() = default;

void Tunnel::connect() {
    Negotiation::connect();
    if (connection_.valid()) {
        part_.loop.call_at(began_at_ + options_.challenge_wait, [this] { arm_deadline(); });
    }
}

// The handshake's own timer: how long to listen for a Challenge before saying Hello.
void Tunnel::arm_deadline() {
    if (!connection_.valid() || registered_ || !handshake_.wants_frame()) {
        return;
    }
    const base::Nanoseconds now = base::monotonic_now();
    if (!connecting_) {
        apply(handshake_.on_timer(now));
    }
    const base::Nanoseconds next =
        connecting_ ? now + options_.challenge_wait : std::max(handshake_.deadline(), now + 1);
    part_.loop.call_at(next, [this] { arm_deadline(); });
}

void Tunnel::sweep(base::Nanoseconds now) {
    if (connection_.valid() && part_.has_stalled(heard_at_, now)) {
        return fail(Reason::stalled,
                    registered_ ? "a relay without heartbeats" : "no answer to a handshake");
    }
    for (auto place = data_.begin(); place != data_.end();) {
        (*place++)->sweep(now);
    }
}

void Tunnel::agreed(const protocol::ClientStep& step) {
    registered_ = true;
    dialect_ = step.dialect;
    events_.registered(step.port, base::monotonic_now() - began_at_);
}

void Tunnel::on_message(std::string_view json) {
    const auto message = protocol::parse_server_message(json);
    if (!message) {
        return fail(Reason::protocol, "a message that is none: " + std::string(json));
    }
    if (std::holds_alternative<protocol::Heartbeat>(*message)) {
        ++events_.heartbeats;
    } else if (const auto* visitor = std::get_if<protocol::Connection>(&*message)) {
        ++events_.visitors;
        data_.push_back(std::make_unique<DataConnection>(*this, visitor->visitor_id));
        data_.back()->start(std::prev(data_.end()));
    } else if (const auto* error = std::get_if<protocol::Error>(&*message)) {
        fail(Reason::rejected, "server error: " + error->text);
    } else if (std::holds_alternative<protocol::EndOfStream>(*message)) {
        fail(Reason::cut, "the relay ended the tunnel");
    } else {
        fail(Reason::protocol, "a message out of its turn: " + std::string(json));
    }
}

void Tunnel::failed(Reason reason, const std::string& what) {
    events_.ended(registered_, reason, what);
}

}  // namespace bore::bench
