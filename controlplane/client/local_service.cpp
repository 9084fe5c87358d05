// Steps for a visitor: begin() with the preferred address while the relay is being reached,
// finish() when the relay has the visitor's Accept.
#include "controlplane/client/local_service.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <utility>

#include "controlplane/client/explain.hpp"

namespace bore::client {

namespace {

// A name may move (a container that restarted): looked at again after 30 s, and after a failure
// when the last look is older than 1 s.
constexpr base::Nanoseconds refresh_after = 30 * base::second_ns;
constexpr base::Nanoseconds refresh_after_failure = base::second_ns;

}  // namespace

LocalService::LocalService(asio::any_io_executor executor, std::string host, std::uint16_t port)
    : executor_(std::move(executor)),
      host_(std::move(host)),
      port_(port),
      name_(host_and_port(host_, port)),
      is_literal_(address_literal(host_).has_value()) {
    if (const auto address = address_literal(host_)) {
        endpoints_.emplace_back(*address, port);
    }
}

bool LocalService::is_stale(base::Nanoseconds age) const {
    return !is_literal_ && !looking_up_ && base::monotonic_now() - looked_up_at_ > age;
}

void LocalService::refresh() {
    if (!is_literal_ && !looking_up_) {
        asio::co_spawn(executor_, look_up(), asio::detached);
    }
}

asio::awaitable<void> LocalService::look_up() {
    looking_up_ = true;
    auto found = co_await resolve(host_, port_);
    looking_up_ = false;
    looked_up_at_ = base::monotonic_now();
    if (!found) {
        lookup_error_ = found.error();
        co_return;
    }
    lookup_error_ = {};
    if (*found != endpoints_) {
        endpoints_ = std::move(*found);
        preferred_index_ = 0;
    }
}

tcp::socket LocalService::begin() {
    if (endpoints_.empty()) {
        return tcp::socket(executor_);
    }
    if (is_stale(refresh_after)) {
        refresh();
    }
    auto socket = begin_connect(executor_, endpoints_[preferred_index_]);
    return socket ? std::move(*socket) : tcp::socket(executor_);
}

asio::awaitable<error_code> LocalService::finish(tcp::socket& socket, const bool* abandoned) {
    error_code error = asio::error::host_not_found;
    if (socket.is_open()) {
        error = co_await finish_connect(socket);
        if (!error) {
            co_return error;
        }
    }
    if (endpoints_.empty()) {
        co_await look_up();
        error = lookup_error_;
    }
    // A copy: a lookup may change the list while this waits.
    const Endpoints endpoints = endpoints_;
    for (std::size_t index = 0; index < endpoints.size() && !*abandoned; ++index) {
        auto next = begin_connect(executor_, endpoints[index]);
        if (!next) {
            error = next.error();
            continue;
        }
        socket = std::move(*next);
        error = co_await finish_connect(socket);
        if (!error) {
            if (endpoints == endpoints_) {
                preferred_index_ = index;
            }
            co_return error;
        }
    }
    if (is_stale(refresh_after_failure)) {
        refresh();
    }
    co_return *abandoned ? error_code(asio::error::timed_out) : error;
}

}  // namespace bore::client
