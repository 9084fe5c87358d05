// The functions follow the steps of run() (tunnel.hpp).
#include "controlplane/client/tunnel.hpp"

#include <spdlog/spdlog.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <random>
#include <utility>

#include "controlplane/client/explain.hpp"

namespace bore::client {

namespace {

using Next = protocol::ClientStep::Next;
using Failure = protocol::ClientStep::Failure;
using FrameStatus = protocol::FrameReader::Status;

base::Nanoseconds nanoseconds(std::chrono::milliseconds duration) {
    return static_cast<base::Nanoseconds>(duration.count()) * base::millisecond_ns;
}

protocol::DialectMode mode_of(config::AuthDialect dialect) {
    switch (dialect) {
        case config::AuthDialect::upstream:
            return protocol::DialectMode::upstream;
        case config::AuthDialect::fork:
            return protocol::DialectMode::fork;
        case config::AuthDialect::automatic:
            break;
    }
    return protocol::DialectMode::automatic;
}

std::string address_text(const tcp::endpoint& endpoint) {
    return host_and_port(endpoint.address().to_string(), endpoint.port());
}

}  // namespace

Tunnel::Tunnel(const Session& session, Visitors& visitors, const config::TunnelRequest& request,
               std::uint32_t index)
    : session_(session),
      visitors_(visitors),
      request_(request),
      options_{.secret = session.config.secret,
               .mode = mode_of(session.config.auth_dialect),
               .reply_timeout = nanoseconds(session.timing.reply_timeout)},
      local_(session.io.get_executor(), session.config.local_host, request.local_port),
      relay_name_(host_and_port(session.config.to, session.config.control_port)),
      backoff_(session.timing.backoff_first, session.timing.backoff_greatest,
               std::random_device{}()),
      socket_(session.io),
      timer_(session.io),
      wanted_port_(request.public_port) {
    origin_.options = &options_;
    origin_.local = &local_;
    origin_.tunnel_index = index;
    if (session.config.tunnels.size() > 1) {
        log_prefix_ = local_.name() + ": ";
    }
}

asio::awaitable<int> Tunnel::run() {
    local_.refresh();
    for (;;) {
        const Ending ending = co_await attempt();
        close_socket();
        if (stopping_) {
            co_return 0;
        }
        if (is_final(ending)) {
            spdlog::log(ending.orderly ? spdlog::level::info : spdlog::level::err, "{}{}",
                        log_prefix_, ending.text);
            co_return ending.orderly ? 0 : 1;
        }
        // What was learned holds for one attempt; behind the same name may be another relay later.
        options_.mode = ending.retry_mode.value_or(mode_of(session_.config.auth_dialect));
        if (ending.retry_mode) {
            continue;  // at once, and at most once: a forced mode gives no retry_mode
        }
        plan_next_port(ending);
        const auto delay = backoff_.next();
        spdlog::warn("{}{}; trying again in {:.1f} s", log_prefix_, ending.text,
                     std::chrono::duration<double>(delay).count());
        timer_.expires_after(delay);
        co_await timer_.async_wait(as_result);
        if (stopping_) {
            co_return 0;
        }
    }
}

bool Tunnel::is_final(const Ending& ending) const {
    const bool gives_up = session_.config.no_reconnect || (ending.hopeless && !was_up_);
    return gives_up && !ending.retry_mode;
}

void Tunnel::plan_next_port(const Ending& ending) {
    const base::Nanoseconds now = base::monotonic_now();
    if (up_since_ != 0) {
        lost_since_ = now;
        if (now - up_since_ >= nanoseconds(session_.timing.stable_after)) {
            backoff_.reset();
        }
    }
    // Whoever asked for no port in particular gets another one when the earlier one stays taken.
    if (ending.port_refused && request_.public_port == 0 &&
        now - lost_since_ >= nanoseconds(session_.timing.port_patience)) {
        wanted_port_ = 0;
    }
}

asio::awaitable<Tunnel::Ending> Tunnel::attempt() {
    up_since_ = 0;
    if (auto ending = co_await dial()) {
        co_return std::move(*ending);
    }
    if (auto ending = co_await shake_hands()) {
        co_return std::move(*ending);
    }
    co_return co_await serve();
}

asio::awaitable<std::optional<Tunnel::Ending>> Tunnel::dial() {
    const auto endpoints = co_await resolve(session_.config.to, session_.config.control_port);
    if (!endpoints) {
        const bool unknown = endpoints.error() == asio::error::host_not_found;
        co_return Ending{.text = explain_unresolved(session_.config.to, endpoints.error()),
                         .hopeless = unknown};
    }
    error_code error;
    tcp::endpoint last;
    for (const tcp::endpoint& endpoint : *endpoints) {
        if (stopping_) {
            break;
        }
        last = endpoint;
        auto begun = begin_connect(session_.io.get_executor(), endpoint);
        if (!begun) {
            error = begun.error();
            continue;
        }
        socket_ = std::move(*begun);
        arm(base::monotonic_now() + nanoseconds(session_.timing.connect_timeout));
        error = co_await finish_connect(socket_);
        disarm();
        if (timed_out_) {
            error = asio::error::timed_out;
        }
        if (!error) {
            watch_control_connection(socket_);
            origin_.relay = endpoint;
            co_return std::nullopt;
        }
        close_socket();
    }
    co_return Ending{.text = explain_unreachable(relay_name_, address_text(last), error)};
}

asio::awaitable<std::optional<Tunnel::Ending>> Tunnel::shake_hands() {
    auto handshake = protocol::ClientHandshake::control(options_, wanted_port_);
    reader_ = {};
    first_bytes_.clear();
    protocol::ClientStep step = handshake.start(base::monotonic_now());
    for (bool at_end = false;;) {
        if (!step.send.empty()) {
            // A failed write shows again, with more to tell, in the read that follows.
            co_await asio::async_write(
                socket_, asio::const_buffer(step.send.data(), step.send.size()), as_result);
        }
        if (step.next == Next::ready) {
            opened(step);
            co_return std::nullopt;
        }
        if (step.next == Next::failed) {
            co_return handshake_failed(step);
        }
        step = {};
        const auto frame = at_end ? reader_.finish() : reader_.next();
        if (frame.status == FrameStatus::frame) {
            step = handshake.on_frame(frame.json);
            continue;
        }
        if (frame.status == FrameStatus::too_long) {
            step = handshake.on_frame_too_long();
            continue;
        }
        if (at_end) {
            step = handshake.on_end_of_stream();
            continue;
        }
        const Received received = co_await receive(handshake.deadline());
        if (received.timed_out) {
            step = handshake.on_timer(base::monotonic_now());
        } else if (received.error == asio::error::eof) {
            at_end = true;
        } else if (received.error) {
            co_return Ending{
                .text = "the relay " + relay_name_ +
                        " broke the connection during the handshake: " + received.error.message()};
        } else {
            first_bytes_.append(received.bytes.substr(0, 16));
            reader_.feed(received.bytes);
        }
    }
}

Tunnel::Ending Tunnel::handshake_failed(const protocol::ClientStep& failed) const {
    Ending ending{.text = explain_handshake(relay_name_, failed, options_, wanted_port_),
                  .hopeless = failed.failure != Failure::lost,
                  .port_refused = failed.failure == Failure::port,
                  .retry_mode = failed.retry_mode};
    if (ending.port_refused && was_up_) {
        ending.text = "the relay " + relay_name_ + " does not give public port " +
                      std::to_string(wanted_port_) + " back yet: " + failed.text;
    }
    if (auto foreign = explain_foreign_peer(relay_name_, first_bytes_); !foreign.empty()) {
        ending.text = std::move(foreign);
        ending.hopeless = true;
    }
    return ending;
}

void Tunnel::opened(const protocol::ClientStep& ready) {
    if (!was_up_) {
        // Once: the counters go on over reconnects, and pairs outlive the control connection.
        session_.engine.open_tunnel(origin_.tunnel_index, ready.port, {});
    }
    was_up_ = true;
    up_since_ = base::monotonic_now();
    origin_.dialect = ready.dialect;
    wanted_port_ = ready.port;
    liveness_.emplace(nanoseconds(session_.timing.silence_limit));
    const std::string address = host_and_port(session_.config.to, ready.port);
    spdlog::info("{} is public at {}", local_.name(), address);
    if (announced_port_ != ready.port) {
        announced_port_ = ready.port;
        session_.announce("listening at " + address +
                          (log_prefix_.empty() ? "" : " (" + local_.name() + ")"));
    }
}

asio::awaitable<Tunnel::Ending> Tunnel::serve() {
    for (;;) {
        for (;;) {
            const auto frame = reader_.next();
            if (frame.status == FrameStatus::need_more) {
                break;
            }
            if (frame.status == FrameStatus::too_long) {
                co_return Ending{.text = "the relay " + relay_name_ +
                                         " sent a frame that is too long; the tunnel is lost"};
            }
            if (auto ending = on_frame(frame.json)) {
                co_return std::move(*ending);
            }
        }
        const Received received = co_await receive(liveness_->deadline());
        if (received.timed_out) {
            co_return Ending{.text = "the relay " + relay_name_ +
                                     " has been silent for too long; it or the network is down"};
        }
        if (received.error == asio::error::eof) {
            co_return Ending{.text = "the relay " + relay_name_ + " closed the tunnel",
                             .orderly = true};
        }
        if (received.error) {
            co_return Ending{.text = "the connection to the relay " + relay_name_ +
                                     " was lost: " + received.error.message()};
        }
        liveness_->on_bytes(base::monotonic_now());
        reader_.feed(received.bytes);
    }
}

std::optional<Tunnel::Ending> Tunnel::on_frame(std::string_view json) {
    const auto message = protocol::parse_server_message(json);
    if (!message) {
        return Ending{.text = "the relay " + relay_name_ +
                              " sent a message that is not of the protocol; the tunnel is lost"};
    }
    if (const auto* connection = std::get_if<protocol::Connection>(&*message)) {
        visitors_.enqueue(origin_, connection->visitor_id);
    } else if (std::holds_alternative<protocol::Heartbeat>(*message)) {
        liveness_->on_heartbeat(base::monotonic_now());
    } else if (std::holds_alternative<protocol::EndOfStream>(*message)) {
        return Ending{.text = "the relay " + relay_name_ + " closed the tunnel", .orderly = true};
    } else if (const auto suffix = remark_limit_.admit(base::monotonic_now())) {
        const auto* error = std::get_if<protocol::Error>(&*message);
        spdlog::warn("{}the relay says: {}{}", log_prefix_,
                     error != nullptr ? error->text : "a message out of turn; ignored", *suffix);
    }
    return std::nullopt;
}

asio::awaitable<Tunnel::Received> Tunnel::receive(std::optional<base::Nanoseconds> deadline) {
    for (;;) {
        timed_out_ = false;
        if (deadline) {
            arm(*deadline);
        }
        const auto [error, size] =
            co_await socket_.async_read_some(asio::buffer(buffer_), as_result);
        disarm();
        // After a pause of this process (a stopped job) the deadline and the bytes come together.
        error_code ignored;
        if (error && timed_out_ && socket_.available(ignored) != 0) {
            continue;
        }
        co_return Received{
            .error = error, .bytes = {buffer_.data(), size}, .timed_out = error && timed_out_};
    }
}

void Tunnel::arm(base::Nanoseconds deadline) {
    timed_out_ = false;
    timer_.expires_at(std::chrono::steady_clock::time_point(
        std::chrono::nanoseconds(static_cast<std::int64_t>(deadline))));
    timer_.async_wait([this, generation = ++timer_generation_](const error_code& error) {
        if (!error && generation == timer_generation_) {
            timed_out_ = true;
            error_code ignored;
            (void)socket_.cancel(ignored);
        }
    });
}

void Tunnel::disarm() {
    ++timer_generation_;
    timer_.cancel();
}

void Tunnel::close_socket() {
    error_code ignored;
    (void)socket_.close(ignored);
}

void Tunnel::stop() {
    stopping_ = true;
    disarm();
    close_socket();
}

}  // namespace bore::client
