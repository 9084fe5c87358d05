// The exchange behind exchange.hpp. Edge-triggered, so that a connection costs one epoll_ctl in its
// life; every send and receive goes on until it is complete or would block.
#include "bench/load/exchange.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "bench/load/payload.hpp"

namespace bore::bench {

ExchangeVisitor::ExchangeVisitor(EventLoop& loop, const Endpoint& endpoint,
                                 std::uint64_t size_bytes, ExchangeOwner& owner)
    : loop_(loop),
      endpoint_(endpoint),
      owner_(owner),
      request_(opening_size_bytes + size_bytes),
      response_(size_bytes) {
    const auto opening = Opening{.work = Work::requests, .size_bytes = size_bytes}.encode();
    std::memcpy(request_.data(), opening.data(), opening.size());
    for (std::size_t at = 0; at < size_bytes; at += chunk_size_bytes) {
        const std::size_t length = std::min<std::size_t>(chunk_size_bytes, size_bytes - at);
        std::memcpy(request_.data() + opening_size_bytes + at, pattern_at(at, length).data(),
                    length);
    }
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
    if (std::memcmp(response_.data(), request_.data() + opening_size_bytes, response_.size()) !=
        0) {
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
