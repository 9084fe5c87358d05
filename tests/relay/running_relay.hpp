// A relay on loopback with a fake engine, on a thread of its own, and the peers that talk to it
// byte by byte over real sockets.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "controlplane/config/server_config.hpp"
#include "controlplane/relay/descriptor.hpp"
#include "controlplane/relay/log.hpp"
#include "controlplane/relay/server.hpp"
#include "controlplane/relay/socket_file.hpp"
#include "dataplane/abi/statistics.hpp"
#include "tests/relay/fake_engine.hpp"

namespace bore::relay::testing {

using namespace std::string_literals;

// A TCP connection from loopback that waits at most two seconds for anything.
class Peer {
  public:
    explicit Peer(std::uint16_t port, const char* source = "127.0.0.1")
        : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const timeval patience{.tv_sec = 2, .tv_usec = 0};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        sockaddr_in from{.sin_family = AF_INET};
        ::inet_pton(AF_INET, source, &from.sin_addr);
        (void)::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&from), sizeof from);
        sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(port)};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        connected_ =
            ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
    }

    [[nodiscard]] bool connected() const { return connected_; }
    void send(std::string_view bytes) {
        (void)::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }
    void send_fin() { ::shutdown(socket_.get(), SHUT_WR); }
    void close() { socket_.reset(); }
    void reset() {
        const linger abort{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
        socket_.reset();
    }

    // The JSON of the next frame; "FIN", "RST" or "silence" where there is none.
    [[nodiscard]] std::string frame() {
        std::string json;
        char byte = 0;
        while (true) {
            const ssize_t size = ::recv(socket_.get(), &byte, 1, 0);
            if (size == 0) {
                return "FIN";
            }
            if (size < 0) {
                return errno == EAGAIN ? "silence" : "RST";
            }
            if (byte == '\0') {
                return json;
            }
            json += byte;
        }
    }
    [[nodiscard]] std::string frame_past_heartbeats() {
        std::string json = frame();
        while (json == "\"Heartbeat\"") {
            json = frame();
        }
        return json;
    }
    // True when the relay has closed, in whatever way.
    [[nodiscard]] bool closed() {
        const std::string end = frame_past_heartbeats();
        return end == "FIN" || end == "RST";
    }
    [[nodiscard]] std::uint16_t local_port() const {
        sockaddr_in address{};
        socklen_t length = sizeof address;
        ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &length);
        return ntohs(address.sin_port);
    }

  private:
    Descriptor socket_;
    bool connected_{false};
};

inline std::string hello(unsigned port) {
    return "{\"Hello\":" + std::to_string(port) + "}\0"s;
}
inline std::string accept(std::string_view id) {
    return "{\"Accept\":\"" + std::string(id) + "\"}\0"s;
}
inline std::string error(std::string_view text) {
    return "{\"Error\":\"" + std::string(text) + "\"}";
}

// Waits until `condition` holds, two seconds at most.
inline bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 400; ++i) {
        if (condition()) {
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

inline std::uint16_t unused_port() {
    const Descriptor probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    (void)::bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), length);
    ::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &length);
    return ntohs(address.sin_port);
}

class RunningRelay {
  public:
    // Defaults of the product, but on a free port of loopback.
    explicit RunningRelay(const std::function<void(config::ServerConfig&)>& change = [](auto&) {}) {
        config_.bind_addr = {config::IpAddress::parse("127.0.0.1").value()};
        config_.control_port = unused_port();
        config_.log_level = config::LogLevel::off;
        change(config_);
        log_.emplace(Log::Options{.level = config_.log_level,
                                  .visitor_lines_per_second = config_.visitor_log_rate});
        if (config_.control_socket.starts_with('/')) {
            auto opened = SocketFile::open(config_.control_socket, "");
            EXPECT_TRUE(opened) << opened.error().sentence;
            control_socket_.emplace(std::move(*opened));
        }
        server_.emplace(config_, Server::Parts{.engine = engine,
                                               .statistics = statistics,
                                               .log = *log_,
                                               .descriptor_limit = 1U << 20U,
                                               .reload = [this] { return reloaded_; },
                                               .version = "0.0.0",
                                               .control_socket =
                                                   control_socket_ ? &*control_socket_ : nullptr});
        listening_ = server_->listen().has_value();
        thread_ = std::thread([this] {
            server_->run();
            finished_.set_value();
        });
    }
    RunningRelay(const RunningRelay&) = delete;
    RunningRelay& operator=(const RunningRelay&) = delete;
    ~RunningRelay() {
        if (!ends_within(std::chrono::milliseconds(0))) {
            on_loop([this] { server_->stop(); });
        }
        thread_.join();
    }

    [[nodiscard]] std::uint16_t port() const { return config_.control_port; }
    [[nodiscard]] bool listening() const { return listening_; }
    [[nodiscard]] std::uint64_t count(abi::ControlCounter counter) {
        return statistics.control().get(counter);
    }

    // On the relay's thread, and done when this returns, unless the relay has ended.
    void on_loop(std::function<void()> work) {
        auto done = std::make_shared<std::promise<void>>();
        auto finished = done->get_future();
        server_->post([work = std::move(work), done] {
            work();
            done->set_value();
        });
        (void)finished.wait_for(std::chrono::seconds(2));
    }
    void drain() {
        on_loop([this] { server_->drain(); });
    }
    void reload(const std::function<void(config::ServerConfig&)>& change) {
        change(config_);
        reloaded_ = {.config = config_};
        on_loop([this] { server_->reload(); });
    }
    // What the next reload finds.
    void next_reload(Reloaded reloaded) {
        on_loop([this, reloaded = std::move(reloaded)] { reloaded_ = reloaded; });
    }
    [[nodiscard]] const config::ServerConfig& config() const { return config_; }
    [[nodiscard]] bool ends_within(std::chrono::milliseconds time) {
        return end_.wait_for(time) == std::future_status::ready;
    }

    FakeEngine engine;
    abi::Statistics statistics{1, 1024};

  private:
    config::ServerConfig config_;
    Reloaded reloaded_;
    std::optional<Log> log_;
    std::optional<SocketFile> control_socket_;
    std::optional<Server> server_;
    bool listening_{false};
    std::promise<void> finished_;
    std::shared_future<void> end_{finished_.get_future().share()};
    std::thread thread_;
};

// A control connection that has got its tunnel.
class TunnelPeer : public Peer {
  public:
    explicit TunnelPeer(std::uint16_t control_port, unsigned wanted_port = 0) : Peer(control_port) {
        send(hello(wanted_port));
        public_port_ = number_of(frame());
    }

    [[nodiscard]] std::uint16_t public_port() const { return public_port_; }
    // The id in the next Connection frame.
    [[nodiscard]] std::string next_visitor() {
        const std::string json = frame_past_heartbeats();
        const std::string_view prefix = "{\"Connection\":\"";
        return json.starts_with(prefix) ? json.substr(prefix.size(), 36) : json;
    }

  protected:
    static std::uint16_t number_of(const std::string& json) {
        const std::string_view prefix = "{\"Hello\":";
        return json.starts_with(prefix)
                   ? static_cast<std::uint16_t>(std::stoul(json.substr(prefix.size())))
                   : std::uint16_t{0};
    }

  private:
    std::uint16_t public_port_{0};
};

}  // namespace bore::relay::testing
