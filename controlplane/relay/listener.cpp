// The accept loop.
#include "controlplane/relay/listener.hpp"

#include <algorithm>
#include <cerrno>

#include "controlplane/relay/sockets.hpp"

namespace bore::relay {

Listener::Listener(boost::asio::io_context& io, Timers& timers, abi::ControlCounters& counters,
                   Descriptor socket, Handler& handler)
    : socket_(io, socket.release()), timers_(timers), counters_(counters), handler_(&handler) {}

void Listener::resume() {
    if (handler_ != nullptr && paused_) {
        paused_ = false;
        if (!rest_timer_.armed()) {
            wait();
        }
    }
}

// A listening socket that is shut down falls back to being bound, connections in its backlog are
// reset, and listen(2) makes it what it was (tcp_disconnect() in the kernel).
void Listener::shut() {
    if (handler_ == nullptr || shut_) {
        return;
    }
    shut_ = true;
    timers_.cancel(rest_timer_);
    boost::system::error_code ignored;
    socket_.cancel(ignored);
    ::shutdown(socket_.native_handle(), SHUT_RD);
}

std::expected<void, int> Listener::reopen() {
    if (handler_ == nullptr || !shut_) {
        return {};
    }
    if (::listen(socket_.native_handle(), listen_backlog) != 0) {
        return std::unexpected(errno);
    }
    shut_ = false;
    if (!paused_) {
        wait();
    }
    return {};
}

void Listener::close() {
    if (handler_ != nullptr) {
        handler_ = nullptr;
        timers_.cancel(rest_timer_);
        boost::system::error_code ignored;
        socket_.close(ignored);
    }
}

void Listener::wait() {
    if (waiting_ || shut_) {
        return;
    }
    waiting_ = true;
    // The wait re-arms the descriptor in the kernel, so a burst need not run until EAGAIN.
    socket_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                       [self = shared_from_this()](const boost::system::error_code& error) {
                           self->waiting_ = false;
                           if (self->handler_ == nullptr || self->paused_ || self->shut_) {
                               return;
                           }
                           if (error) {
                               self->wait();  // shut and opened again since
                           } else {
                               self->accept_burst();
                           }
                       });
}

void Listener::accept_burst() {
    Flow flow = Flow::more;
    const bool single = single_bursts_left_ > 0;
    const int limit = single ? 1 : max_burst;
    int count = 0;
    for (; count < limit && flow == Flow::more && handler_ != nullptr; ++count) {
        sockaddr_storage peer;  // written by the kernel
        socklen_t length = sizeof peer;
        Descriptor socket(::accept4(socket_.native_handle(), reinterpret_cast<sockaddr*>(&peer),
                                    &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (socket) {
            flow = handler_->on_accepted(std::move(socket), peer);
            if (flow != Flow::rest) {
                rest_ns_ = min_rest_ns;
            }
        } else if (errno == EAGAIN) {
            break;
        } else {
            flow = after_error(errno);
        }
    }
    single_bursts_left_ = single ? single_bursts_left_ - 1 : count <= 1 ? single_bursts : 0;
    if (handler_ == nullptr) {
        return;
    }
    paused_ = flow == Flow::pause;
    handler_->on_burst_ended();  // may resume or close
    if (handler_ == nullptr || paused_) {
        return;
    }
    if (flow == Flow::rest) {
        rest();
    } else {
        wait();
    }
}

Listener::Flow Listener::after_error(int error_number) {
    counters_.add(abi::ControlCounter::accept_errors_total);
    switch (error_number) {
        // The connection died in the backlog, or Linux reports its pending network error here
        // (accept(2), "Error handling"). The next one may be well.
        case ECONNABORTED:
        case EINTR:
        case EPROTO:
        case EPERM:
        case ENETDOWN:
        case ENOPROTOOPT:
        case EHOSTDOWN:
        case ENONET:
        case EHOSTUNREACH:
        case EOPNOTSUPP:
        case ENETUNREACH:
            return Flow::more;
        default:  // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever else would repeat at once
            return Flow::rest;
    }
}

void Listener::rest() {
    timers_.arm_after(rest_timer_, rest_ns_);
    rest_ns_ = std::min(rest_ns_ * 2, max_rest_ns);
}

void Listener::rested() {
    if (handler_ != nullptr && !paused_) {
        wait();
    }
}

}  // namespace bore::relay
