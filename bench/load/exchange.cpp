// The exchange behind exchange.hpp. Edge-triggered, so that a connection costs one epoll_ctl in its
// life; every send and receive goes on until it is complete or would block.
#include "bench/load/exchange.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace bore::bench {

void ExchangeVisitor::connect(bool with_request) {
    began_at_ = progress_at_ = base::monotonic_now();
    connecting_ = true;
    awaiting_ = with_request;
    peer_ended_ = false;
    const std::uint64_t request_bytes = with_request ? opening_.lower() : 0;
    const std::uint64_t response_bytes = with_request ? opening_.upper() : 0;
    sender_ = PatternSender(opening_.begin(Direction::up), request_bytes);
    sender_.open_with(opening_.encode());
    receiver_ = PatternReceiver(opening_.begin(Direction::down), response_bytes, true);
    std::expected<Descriptor, int> connection = part_.dialer.dial();
    if (!connection) {
        // Later, because the owner may connect again at once, and that would be recursion.
        part_.loop.call_at(began_at_, [this, error = connection.error()] {
            connecting_ = false;
            fail(reason_of_connect(error), std::strerror(error));
        });
        return;
    }
    connection_ = std::move(*connection);
    part_.loop.add(connection_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
}

void ExchangeVisitor::send_request() {
    began_at_ = progress_at_ = base::monotonic_now();
    sender_.extend(opening_.lower());
    receiver_.extend(opening_.upper());
    awaiting_ = true;
    send_rest();
    // Its event has passed, together with the last response.
    if (is_open() && peer_ended_) {
        receive();
    }
}

void ExchangeVisitor::close() {
    if (connection_.valid()) {
        connection_.reset();
        part_.live.held.set(part_.live.held.get() - (connecting_ ? 0 : 1));
    }
    connecting_ = false;
    awaiting_ = false;
}

void ExchangeVisitor::sweep(base::Nanoseconds now) {
    if (is_open() && !is_idle() && part_.has_stalled(progress_at_, now)) {
        fail(Reason::stalled, connecting_ ? "no answer to a connect" : "no response");
    }
}

void ExchangeVisitor::give_up() {
    if (is_open() && !is_idle()) {
        fail(Reason::stalled, "not complete at the end");
    }
}

void ExchangeVisitor::on_ready(std::uint32_t events) {
    if (connecting_) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
            return;
        }
        if (const int error = connect_error(connection_.get()); error != 0) {
            return fail(reason_of_connect(error), std::strerror(error));
        }
        on_connected();
    }
    peer_ended_ |= (events & EPOLLRDHUP) != 0;
    if (is_open() && !sender_.complete()) {
        send_rest();
    }
    if (is_open() && (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) {
        awaiting_ ? receive() : expect_silence();
    }
}

void ExchangeVisitor::on_connected() {
    connecting_ = false;
    progress_at_ = base::monotonic_now();
    part_.live.connections.add(1);
    part_.live.held.add(1);
    owner_.on_connected(*this, progress_at_ - began_at_);
}

void ExchangeVisitor::send_rest() {
    while (!sender_.complete()) {
        switch (sender_.pump(connection_.get())) {
            case Pump::blocked:
                return;
            case Pump::failed:
                return fail(reason_of_stream(errno), std::strerror(errno));
            default:
                progress_at_ = base::monotonic_now();
        }
    }
}

void ExchangeVisitor::receive() {
    while (!receiver_.complete()) {
        switch (receiver_.pump(connection_.get())) {
            case Pump::blocked:
                return;
            case Pump::ended:
                return fail(Reason::cut, "the connection ended before the response");
            case Pump::failed:
                return fail(reason_of_stream(errno), std::strerror(errno));
            default:
                progress_at_ = base::monotonic_now();
        }
        if (receiver_.first_mismatch()) {
            return fail(Reason::corrupt, "a response differs");
        }
    }
    awaiting_ = false;
    part_.live.requests.add(1);
    owner_.on_response(*this, began_at_);
}

void ExchangeVisitor::expect_silence() {
    std::byte surplus{};
    const ssize_t count = ::recv(connection_.get(), &surplus, 1, 0);
    if (count > 0) {
        fail(Reason::corrupt, "a byte that nobody asked for");
    } else if (count == 0) {
        fail(Reason::cut, "the connection ended between two requests");
    } else if (errno != EAGAIN) {
        fail(reason_of_stream(errno), std::strerror(errno));
    }
}

void ExchangeVisitor::fail(Reason reason, const char* what) {
    part_.fail(reason, what);
    close();
    owner_.on_failure(*this);
}

}  // namespace bore::bench
