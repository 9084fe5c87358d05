// The two ends that the client talks to, for its tests: a relay made of blocking sockets and bytes,
// and a local service. Every wait is bounded, so that a test fails instead of hanging.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace bore::client::testing {

inline constexpr int patience_ms = 5'000;

// One connection; owns its descriptor.
class Peer {
  public:
    Peer() = default;
    explicit Peer(int descriptor) : descriptor_(descriptor) {}
    Peer(Peer&& other) noexcept
        : descriptor_(std::exchange(other.descriptor_, -1)), kept_(std::move(other.kept_)) {}
    Peer& operator=(Peer&& other) noexcept {
        std::swap(descriptor_, other.descriptor_);
        std::swap(kept_, other.kept_);
        return *this;
    }
    ~Peer() { close(); }

    [[nodiscard]] bool is_open() const { return descriptor_ >= 0; }
    void close() {
        if (descriptor_ >= 0) {
            ::close(std::exchange(descriptor_, -1));
        }
    }
    void send(std::string_view bytes) {
        EXPECT_EQ(::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }
    // JSON plus the terminator.
    void send_frame(std::string_view json) { send(std::string(json) + '\0'); }

    // The next frame's JSON; "<end>", "<reset>" or "<nothing>" where there is none.
    std::string frame(int within_ms = patience_ms) {
        for (;;) {
            if (const auto end = kept_.find('\0'); end != std::string::npos) {
                std::string json = kept_.substr(0, end);
                kept_.erase(0, end + 1);
                return json;
            }
            const std::string got = receive(within_ms);
            if (got.starts_with('<')) {
                return got;
            }
            kept_ += got;
        }
    }
    // What one read gives, or one of the three words.
    std::string receive(int within_ms = patience_ms) {
        pollfd watched{.fd = descriptor_, .events = POLLIN, .revents = 0};
        if (::poll(&watched, 1, within_ms) != 1) {
            return "<nothing>";
        }
        std::string buffer(4'096, '\0');
        const ssize_t size = ::recv(descriptor_, buffer.data(), buffer.size(), 0);
        if (size <= 0) {
            return size == 0 ? "<end>" : "<reset>";
        }
        buffer.resize(static_cast<std::size_t>(size));
        return buffer;
    }

  private:
    int descriptor_{-1};
    std::string kept_;
};

// A listening socket on 127.0.0.1: the relay's control port, or the local service.
class Listener {
  public:
    Listener() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        EXPECT_EQ(::bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size), 0);
        EXPECT_EQ(::listen(descriptor_, 1'024), 0);
        EXPECT_EQ(::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size), 0);
        port_ = ntohs(address.sin_port);
    }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener() { close(); }

    [[nodiscard]] std::uint16_t port() const { return port_; }
    void close() {
        if (descriptor_ >= 0) {
            ::close(std::exchange(descriptor_, -1));
        }
    }

    // A peer that is not open when nobody came.
    Peer accept(int within_ms = patience_ms) {
        pollfd watched{.fd = descriptor_, .events = POLLIN, .revents = 0};
        if (::poll(&watched, 1, within_ms) != 1) {
            return Peer();
        }
        return Peer(::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC));
    }

  private:
    int descriptor_;
    std::uint16_t port_{0};
};

// A port on which nothing listens (closed a moment ago).
inline std::uint16_t dead_port() {
    return Listener().port();
}

}  // namespace bore::client::testing
