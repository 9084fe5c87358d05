// Sockets, waits and measurements of the engine's tests.
#include "tests/drivers/harness.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/stream/pattern.hpp"

namespace bore::drivers::testing {

using stream::testing::Pattern;
using Clock = std::chrono::steady_clock;

namespace {

bool wait_for(int descriptor, short events, std::chrono::milliseconds most) {
    pollfd state{.fd = descriptor, .events = events, .revents = 0};
    return ::poll(&state, 1, static_cast<int>(most.count())) > 0;
}

void set_option(int descriptor, int level, int name, int value) {
    ASSERT_EQ(::setsockopt(descriptor, level, name, &value, sizeof value), 0)
        << std::strerror(errno);
}

// All the descriptors that the machine allows; thousands of pairs need four each.
void raise_descriptor_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

// ---- Sockets

void Socket::close() {
    if (descriptor_ >= 0) {
        ::close(std::exchange(descriptor_, -1));
    }
}

void Socket::reset() {
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    close();
}

void Socket::finish() const {
    ::shutdown(descriptor_, SHUT_WR);
}

bool Socket::send_pattern(std::uint64_t stream, std::uint64_t first, std::uint64_t bytes,
                          std::size_t write_bytes) const {
    std::vector<std::byte> buffer(std::min<std::uint64_t>(write_bytes, bytes));
    const std::uint64_t end = first + bytes;
    while (first < end) {
        const std::size_t size = std::min<std::uint64_t>(buffer.size(), end - first);
        Pattern::fill(stream, first, std::span(buffer).first(size));
        const ssize_t sent = ::send(descriptor_, buffer.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            first += static_cast<std::uint64_t>(sent);
        } else if (errno != EAGAIN || !wait_for(descriptor_, POLLOUT, patience)) {
            return false;
        }
    }
    return true;
}

bool Socket::receive_pattern(std::uint64_t stream, std::uint64_t first, std::uint64_t bytes) const {
    std::vector<std::byte> buffer(std::min<std::uint64_t>(262'144, bytes));
    const std::uint64_t end = first + bytes;
    while (first < end) {
        if (!wait_for(descriptor_, POLLIN, patience)) {
            return false;
        }
        const ssize_t received = ::recv(descriptor_, buffer.data(),
                                        std::min<std::uint64_t>(buffer.size(), end - first), 0);
        if (received <= 0 ||
            !Pattern::matches(stream, first,
                              std::span(buffer).first(static_cast<std::size_t>(received)))) {
            return false;
        }
        first += static_cast<std::uint64_t>(received);
    }
    return true;
}

Socket::End Socket::next_end() const {
    if (!wait_for(descriptor_, POLLIN, patience)) {
        return End::timeout;
    }
    std::byte byte{};
    const ssize_t received = ::recv(descriptor_, &byte, 1, MSG_DONTWAIT);
    return received > 0 ? End::bytes : received == 0 ? End::fin : End::reset;
}

std::uint64_t Socket::push_until_full(std::chrono::milliseconds quiet) const {
    std::vector<std::byte> buffer(65'536);
    std::uint64_t taken = 0;
    const auto limit = Clock::now() + patience;
    while (Clock::now() < limit) {
        Pattern::fill(0, taken, buffer);
        const ssize_t sent =
            ::send(descriptor_, buffer.data(), buffer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            taken += static_cast<std::uint64_t>(sent);
        } else if (!wait_for(descriptor_, POLLOUT, quiet)) {
            return taken;
        }
    }
    ADD_FAILURE() << "a receiver that does not read took " << taken << " bytes and more";
    return taken;
}

// ---- The engine

void EngineTest::SetUp() {
    raise_descriptor_limit();
    descriptors_at_start_ = open_descriptors();
    listener_ = Socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address{.sin_family = AF_INET,
                              .sin_port = 0,
                              .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
                              .sin_zero = {}};
    ASSERT_EQ(
        ::bind(listener_.descriptor(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
        0);
    ASSERT_EQ(::listen(listener_.descriptor(), 4'096), 0);
    start(1);
}

void EngineTest::TearDown() {
    engine_.reset();
    listener_.close();
    if (!IsSkipped() && !HasFailure()) {
        EXPECT_EQ(open_descriptors(), descriptors_at_start_) << "descriptors leaked";
        for (std::uint32_t tunnel = 0; tunnel < tunnel_capacity; ++tunnel) {
            EXPECT_EQ(statistics_->tunnel_totals(tunnel).pairs_live, 0U);
        }
        EXPECT_EQ(counter(abi::WorkerCounter::pairs_live), 0U);
        EXPECT_EQ(counter(abi::WorkerCounter::pipes_lent), 0U);
    }
}

void EngineTest::start(std::uint32_t worker_count, std::uint32_t busy_poll_us) {
    engine_.reset();
    ended_.clear();
    statistics_ = std::make_unique<abi::Statistics>(worker_count, tunnel_capacity);
    tunnels_ = std::make_unique<abi::TunnelTable>(tunnel_capacity);
    auto made = make_stream_engine({.driver = GetParam(),
                                    .worker_count = worker_count,
                                    .cpus = {},
                                    .busy_poll_us = busy_poll_us},
                                   *statistics_, *tunnels_);
    if (!made && GetParam() == StreamDriver::io_uring) {
        listener_.close();
        GTEST_SKIP() << "io_uring is not to be had on this machine: " << made.error();
    }
    ASSERT_TRUE(made.has_value()) << made.error();
    engine_ = std::move(*made);
    for (std::uint32_t tunnel = 0; tunnel < tunnel_capacity; ++tunnel) {
        engine_->open_tunnel(tunnel, 0, {});
    }
}

std::pair<Socket, Socket> EngineTest::connect(int buffer_bytes) const {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    ::getsockname(listener_.descriptor(), reinterpret_cast<sockaddr*>(&address), &size);
    if (buffer_bytes > 0) {  // inherited by what is accepted
        set_option(listener_.descriptor(), SOL_SOCKET, SO_RCVBUF, buffer_bytes);
        set_option(listener_.descriptor(), SOL_SOCKET, SO_SNDBUF, buffer_bytes);
    }
    Socket far(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (buffer_bytes > 0) {
        set_option(far.descriptor(), SOL_SOCKET, SO_RCVBUF, buffer_bytes);
        set_option(far.descriptor(), SOL_SOCKET, SO_SNDBUF, buffer_bytes);
    }
    EXPECT_EQ(::connect(far.descriptor(), reinterpret_cast<const sockaddr*>(&address), size), 0)
        << std::strerror(errno);
    Socket near(::accept4(listener_.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    EXPECT_GE(near.descriptor(), 0) << std::strerror(errno);
    set_option(near.descriptor(), IPPROTO_TCP, TCP_NODELAY, 1);  // as the control plane does
    return {std::move(near), std::move(far)};
}

Ends EngineTest::open(OpenOptions&& options) {
    auto [near_visitor, visitor] = connect(options.buffer_bytes);
    auto [near_client, client] = connect(options.buffer_bytes);
    set_option(visitor.descriptor(), IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(client.descriptor(), IPPROTO_TCP, TCP_NODELAY, options.nagle ? 0 : 1);
    abi::PairRequest request{.visitor_socket = near_visitor.descriptor(),
                             .client_socket = near_client.descriptor(),
                             .left_over_to_visitor = std::move(options.left_over_to_visitor),
                             .left_over_to_client = {},
                             .tunnel_index = options.tunnel_index,
                             .tag = options.tag};
    Ends ends{.visitor = std::move(visitor), .client = std::move(client), .handle = {}};
    const auto limit = Clock::now() + patience;
    while (Clock::now() < limit) {
        // NOLINTNEXTLINE(bugprone-use-after-move): a refused request stays as it is
        const auto opened = engine_->open_pair(std::move(request));
        if (opened) {
            (void)near_visitor.release();
            (void)near_client.release();
            ends.handle = *opened;
            return ends;
        }
        EXPECT_EQ(opened.error(), abi::OpenError::busy);
        ::usleep(1'000);
    }
    ADD_FAILURE() << "the engine took no pair";
    return ends;
}

void EngineTest::wait_for_ends(std::size_t count) {
    const auto limit = Clock::now() + patience;
    while (ended_.size() < count && Clock::now() < limit) {
        // Asked only when announced: a lost announcement is a failure.
        if (wait_for(engine_->event_descriptor(), POLLIN, std::chrono::seconds(1))) {
            while (engine_->poll_events(ended_)) {
            }
        }
    }
    ASSERT_EQ(ended_.size(), count);
}

// ---- Measurements

std::size_t open_descriptors() {
    const auto listing = std::filesystem::directory_iterator("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(listing), end(listing)));
}

std::size_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::size_t total_pages = 0;
    std::size_t resident_pages = 0;
    file >> total_pages >> resident_pages;
    return resident_pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace bore::drivers::testing
