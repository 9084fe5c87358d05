// The functions follow the path of a visitor (visitors.hpp).
#include "controlplane/client/visitors.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <span>
#include <utility>

#include "controlplane/bore/frame.hpp"
#include "controlplane/client/explain.hpp"

namespace bore::client {

namespace {

// Visitors under way to the engine at once. More of them only overflow listen backlogs (1,024 in
// the Rust relay), which costs a second per dropped SYN.
constexpr std::size_t max_opening = 256;

// Visitors that wait for a turn: 1 MiB. What a relay announces beyond it is dropped.
constexpr std::size_t max_waiting = 16'384;

// What a visitor may still send to a service that is down before its connection is reset.
constexpr std::size_t max_discarded_bytes = 65'536;

base::Nanoseconds nanoseconds(std::chrono::milliseconds duration) {
    return static_cast<base::Nanoseconds>(duration.count()) * base::millisecond_ns;
}

}  // namespace

Visitors::Visitors(const Session& session) : session_(session), sweep_timer_(session.io) {}

void Visitors::enqueue(const VisitorOrigin& origin, const protocol::Uuid& id) {
    if (stopping_) {
        return;
    }
    if (waiting_.size() >= max_waiting) {
        if (const auto suffix = lost_limit_.admit(base::monotonic_now())) {
            spdlog::warn("{} visitors wait already; one was turned away{}", waiting_.size(),
                         *suffix);
        }
        return;
    }
    const auto expires = base::monotonic_now() + nanoseconds(session_.timing.visitor_timeout);
    waiting_.push_back({origin, id, expires});
    start_waiting();
}

void Visitors::start_waiting() {
    while (!waiting_.empty() && opening_count_ < max_opening &&
           visits_.size() + live_count_ < session_.max_pairs) {
        const Waiting next = waiting_.front();
        waiting_.pop_front();
        if (base::monotonic_now() >= next.expires) {
            if (const auto suffix = lost_limit_.admit(base::monotonic_now())) {
                spdlog::warn(
                    "a visitor waited too long for a turn and was dropped by the relay: {} "
                    "connections are open, {} are allowed; raise the limit with ulimit -n{}",
                    live_count_, session_.max_pairs, *suffix);
            }
            continue;
        }
        visits_.emplace_back(next, session_.io.get_executor());
        ++opening_count_;
        asio::co_spawn(session_.io, run(std::prev(visits_.end())), asio::detached);
        sweep_later();
    }
}

asio::awaitable<void> Visitors::run(VisitPlace place) {
    Visit& visit = *place;
    // Both connects travel at once; the local one waits in the background of the relay's.
    auto relay = begin_connect(session_.io.get_executor(), visit.origin.relay);
    visit.local = visit.origin.local->begin();
    bool claimed = false;
    if (relay) {
        visit.relay = std::move(*relay);
        claimed = co_await reach_relay(visit) && co_await shake_hands(visit);
    } else {
        report_lost(visit, relay.error().message());
    }
    if (claimed) {
        const error_code error = co_await visit.origin.local->finish(visit.local, &visit.abandoned);
        if (!error && !stopping_) {
            hand_over(visit);
        } else if (!stopping_) {
            report_local_down(visit, error);
            --opening_count_;
            start_waiting();
            co_await close_in_order(visit);
            ++opening_count_;
        }
    }
    visits_.erase(place);
    --opening_count_;
    start_waiting();
}

asio::awaitable<bool> Visitors::reach_relay(Visit& visit) {
    const error_code error = co_await finish_connect(visit.relay);
    if (error) {
        report_lost(visit, visit.abandoned ? "it does not answer" : error.message());
        co_return false;
    }
    co_return true;
}

asio::awaitable<bool> Visitors::shake_hands(Visit& visit) {
    using Next = protocol::ClientStep::Next;
    auto handshake =
        protocol::ClientHandshake::data(*visit.origin.options, visit.origin.dialect, visit.id);
    protocol::FrameReader reader;
    std::array<char, 512> buffer{};
    protocol::ClientStep step = handshake.start(base::monotonic_now());
    for (;;) {
        if (!step.send.empty()) {
            const auto [error, size] = co_await asio::async_write(
                visit.relay, asio::const_buffer(step.send.data(), step.send.size()), as_result);
            if (error) {
                report_lost(visit, error.message());
                co_return false;
            }
        }
        if (step.next != Next::wait) {
            break;
        }
        const auto frame = reader.next();
        if (frame.status == protocol::FrameReader::Status::frame) {
            step = handshake.on_frame(frame.json);
            continue;
        }
        if (frame.status == protocol::FrameReader::Status::too_long) {
            step = handshake.on_frame_too_long();
            continue;
        }
        const auto [error, size] =
            co_await visit.relay.async_read_some(asio::buffer(buffer), as_result);
        if (error) {
            report_lost(visit, visit.abandoned ? "its handshake took too long" : error.message());
            co_return false;
        }
        reader.feed({buffer.data(), size});
        step = {};
    }
    if (step.next == Next::failed) {
        report_lost(visit, step.text);
        co_return false;
    }
    const auto behind = std::as_bytes(std::span(reader.take_leftover()));
    visit.left_over.assign(behind.begin(), behind.end());
    co_return true;
}

void Visitors::hand_over(Visit& visit) {
    watch_data_connection(visit.relay);
    watch_data_connection(visit.local);
    // In the engine's words the relay's leg is the visitor's: what comes from there was written by
    // the visitor. The local service has the part of the tunnel client.
    abi::PairRequest request;
    request.visitor_socket = visit.relay.release();
    request.client_socket = visit.local.release();
    request.left_over_to_client = std::move(visit.left_over);
    request.tunnel_index = visit.origin.tunnel_index;
    const int relay_socket = request.visitor_socket;
    const int local_socket = request.client_socket;
    if (const auto handle = session_.engine.open_pair(std::move(request)); !handle) {
        ::close(relay_socket);
        ::close(local_socket);
        report_lost(visit, "the engine takes no pair now");
        return;
    }
    ++live_count_;
    spdlog::debug("visitor {}: connected to {}", protocol::to_string(visit.id),
                  visit.origin.local->name());
}

void Visitors::pair_ended(const abi::PairEnded& ended) {
    --live_count_;
    spdlog::debug("a visitor's connection ended ({}): {} bytes to the service, {} bytes back",
                  abi::to_string(ended.reason), ended.to_client_bytes, ended.to_visitor_bytes);
    start_waiting();
}

asio::awaitable<void> Visitors::close_in_order(Visit& visit) {
    // Closing a socket with unread bytes sends a reset (RFC 1122, 4.2.2.13), and the relay would
    // pass it on; so read what the visitor sent until it ends, within bounds.
    visit.abandoned = false;
    visit.expires = base::monotonic_now() + nanoseconds(session_.timing.lingering);
    sweep_later();
    error_code error;
    (void)visit.relay.shutdown(tcp::socket::shutdown_send, error);
    std::array<char, 4'096> discarded{};
    for (std::size_t total = visit.left_over.size(); !error && total < max_discarded_bytes;) {
        const auto [read_error, size] =
            co_await visit.relay.async_read_some(asio::buffer(discarded), as_result);
        error = read_error;
        total += size;
    }
}

void Visitors::sweep_later() {
    if (sweeping_ || visits_.empty()) {
        return;
    }
    sweeping_ = true;
    // One timer for all: a visitor that opens quickly, as nearly all do, never costs a timer.
    sweep_timer_.expires_after(session_.timing.lingering / 2);
    sweep_timer_.async_wait([this](const error_code& error) {
        sweeping_ = false;
        if (!error) {
            sweep();
            sweep_later();
        }
    });
}

void Visitors::sweep() {
    const base::Nanoseconds now = base::monotonic_now();
    for (Visit& visit : visits_) {
        if (now >= visit.expires) {
            abandon(visit);
        }
    }
}

void Visitors::abandon(Visit& visit) {
    visit.abandoned = true;
    error_code ignored;
    (void)visit.relay.close(ignored);
    (void)visit.local.close(ignored);
}

void Visitors::stop() {
    stopping_ = true;
    waiting_.clear();
    for (Visit& visit : visits_) {
        abandon(visit);
    }
}

void Visitors::report_local_down(const Visit& visit, const error_code& error) {
    if (const auto suffix = local_down_limit_.admit(base::monotonic_now())) {
        spdlog::warn("{}{}", explain_local_down(visit.origin.local->name(), error), *suffix);
    }
}

void Visitors::report_lost(const Visit& visit, std::string_view what) {
    if (stopping_) {
        return;
    }
    if (const auto suffix = lost_limit_.admit(base::monotonic_now())) {
        spdlog::warn("visitor {} was lost on the way to the relay: {}{}",
                     protocol::to_string(visit.id), what, *suffix);
    }
}

}  // namespace bore::client
