// The exchange behind exchange.hpp. Edge-triggered, so that a connection costs one epoll_ctl in its
// life; every send and receive goes on until it is complete or would block.
#include "bench/load/exchange.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>

namespace bore::bench {

ExchangeVisitor::ExchangeVisitor(EventLoop& loop, const Endpoint& endpoint, const Opening& opening,
                                 ExchangeOwner& owner)
    : loop_(loop),
      endpoint_(endpoint),
      owner_(owner),
      request_(opening_size_bytes + opening.request_bytes()),
      response_(opening.response_bytes()),
      expected_(opening.response_bytes()) {
    const auto bytes = opening.encode();
    std::memcpy(request_.data(), bytes.data(), bytes.size());
    fill_with_pattern(std::span(request_).subspan(opening_size_bytes));
    fill_with_pattern(expected_);
}

void ExchangeVisitor::connect() {
    began_at_ = base::monotonic_now();
    connection_ = start_connect(endpoint_);
    connecting_ = true;
    awaiting_ = true;
    sent_bytes_ = 0;
    received_bytes_ = 0;
    loop_.add(connection_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
}

void ExchangeVisitor::send_request() {
    began_at_ = base::monotonic_now();
    sent_bytes_ = opening_size_bytes;
    received_bytes_ = 0;
    awaiting_ = true;
    send_rest();
}

void ExchangeVisitor::close() {
    connection_.reset();
}

void ExchangeVisitor::on_ready(std::uint32_t events) {
    if (connecting_) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
            return;
        }
        if (connect_error(connection_.get()) != 0) {
            return fail();
        }
        connecting_ = false;
    }
    if (sent_bytes_ < request_.size()) {
        send_rest();
    }
    if (is_open() && (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) {
        awaiting_ ? receive() : expect_silence();
    }
}

void ExchangeVisitor::send_rest() {
    while (sent_bytes_ < request_.size()) {
        const ssize_t sent = ::send(connection_.get(), request_.data() + sent_bytes_,
                                    request_.size() - sent_bytes_, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) {
                fail();
            }
            return;
        }
        sent_bytes_ += static_cast<std::size_t>(sent);
    }
}

void ExchangeVisitor::receive() {
    while (received_bytes_ < response_.size()) {
        const ssize_t count = ::recv(connection_.get(), response_.data() + received_bytes_,
                                     response_.size() - received_bytes_, 0);
        if (count <= 0) {
            if (count == 0 || errno != EAGAIN) {
                fail();
            }
            return;
        }
        received_bytes_ += static_cast<std::size_t>(count);
    }
    awaiting_ = false;
    if (response_ != expected_) {
        return fail();
    }
    owner_.on_response(*this, began_at_);
}

void ExchangeVisitor::expect_silence() {
    std::byte surplus{};
    if (::recv(connection_.get(), &surplus, 1, 0) >= 0 || errno != EAGAIN) {
        fail();
    }
}

void ExchangeVisitor::fail() {
    close();
    owner_.on_failure(*this);
}

}  // namespace bore::bench
