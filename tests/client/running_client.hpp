// A client on a thread of its own, with an engine that keeps the pairs for the test to look at,
// short times, and its output and log captured.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/client/client.hpp"
#include "tests/client/fake_peers.hpp"

namespace bore::client::testing {

// Lines that threads leave for the test.
class Lines {
  public:
    void add(std::string line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
        added_.notify_all();
    }
    // Waits for a line that contains `part`; the line or "".
    std::string wait_for(std::string_view part, int within_ms = patience_ms) {
        std::unique_lock lock(mutex_);
        std::string found;
        added_.wait_for(lock, std::chrono::milliseconds(within_ms), [&] {
            for (const std::string& line : lines_) {
                if (line.find(part) != std::string::npos) {
                    found = line;
                    return true;
                }
            }
            return false;
        });
        return found;
    }
    std::vector<std::string> all() {
        const std::lock_guard lock(mutex_);
        return lines_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable added_;
    std::vector<std::string> lines_;
};

class CaptureSink final : public spdlog::sinks::base_sink<std::mutex> {
  public:
    explicit CaptureSink(Lines& lines) : lines_(lines) {}

  private:
    void sink_it_(const spdlog::details::log_msg& message) override {
        lines_.add(std::string(message.payload.data(), message.payload.size()));
    }
    void flush_() override {}

    Lines& lines_;
};

struct KeptPair {
    abi::PairRequest request;
    Peer relay_leg;
    Peer local_leg;
};

// Takes pairs and moves nothing.
class KeepingEngine final : public abi::Engine {
  public:
    KeepingEngine() : events_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
    ~KeepingEngine() override { ::close(events_); }

    void open_tunnel(std::uint32_t index, std::uint16_t port, const abi::TunnelLimits&) override {
        const std::lock_guard lock(mutex_);
        tunnels_.emplace_back(index, port);
    }
    void set_tunnel_limits(std::uint32_t, const abi::TunnelLimits&) override {}
    void close_tunnel(std::uint32_t) override {}
    std::expected<abi::PairHandle, abi::OpenError> open_pair(abi::PairRequest&& request) override {
        const std::lock_guard lock(mutex_);
        if (draining_) {
            return std::unexpected(abi::OpenError::draining);
        }
        ++live_;
        pairs_.push_back(std::move(request));
        changed_.notify_all();
        return abi::PairHandle{.slot_index = ++opened_};
    }
    void close_pair(abi::PairHandle) override {}
    void close_pairs_of(std::optional<std::uint32_t>) override {}
    void drain(base::Nanoseconds deadline) override {
        const std::lock_guard lock(mutex_);
        draining_ = true;
        drain_deadline_ = deadline;
        changed_.notify_all();
    }
    bool drained() const override {
        const std::lock_guard lock(mutex_);
        return draining_ && live_ == 0;
    }
    int event_descriptor() const override { return events_; }
    bool poll_events(std::vector<abi::PairEnded>& events) override {
        std::uint64_t value = 0;
        EXPECT_EQ(::read(events_, &value, sizeof value), ssize_t{sizeof value});
        const std::lock_guard lock(mutex_);
        for (; ending_ > 0; --ending_, --live_) {
            events.emplace_back();
        }
        return false;
    }
    std::uint32_t worker_count() const override { return 1; }
    std::string description() const override { return "keeps"; }

    // The test's side.
    std::optional<KeptPair> wait_for_pair(int within_ms = patience_ms) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::milliseconds(within_ms),
                               [this] { return !pairs_.empty(); })) {
            return std::nullopt;
        }
        abi::PairRequest request = std::move(pairs_.front());
        pairs_.pop_front();
        KeptPair pair{.request = request,
                      .relay_leg = Peer(request.visitor_socket),
                      .local_leg = Peer(request.client_socket)};
        return pair;
    }
    void end_one_pair() {
        const std::lock_guard lock(mutex_);
        ++ending_;
        const std::uint64_t one = 1;
        EXPECT_EQ(::write(events_, &one, sizeof one), ssize_t{sizeof one});
    }
    std::vector<std::pair<std::uint32_t, std::uint16_t>> tunnels() {
        const std::lock_guard lock(mutex_);
        return tunnels_;
    }
    // Nothing when drain() was not called in time.
    std::optional<base::Nanoseconds> wait_for_drain() {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::milliseconds(patience_ms),
                               [this] { return draining_; })) {
            return std::nullopt;
        }
        return drain_deadline_;
    }

  private:
    int events_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<abi::PairRequest> pairs_;
    std::vector<std::pair<std::uint32_t, std::uint16_t>> tunnels_;
    std::uint32_t opened_{0};
    std::size_t live_{0};
    std::size_t ending_{0};
    bool draining_{false};
    base::Nanoseconds drain_deadline_{0};
};

// Short, but long enough for a busy machine.
inline Timing quick() {
    using std::chrono::milliseconds;
    Timing timing;
    timing.backoff_first = milliseconds(20);
    timing.backoff_greatest = milliseconds(100);
    timing.lingering = milliseconds(200);
    return timing;
}

class RunningClient {
  public:
    explicit RunningClient(config::ClientConfig config, Timing timing = quick(),
                           std::size_t max_pairs = 1'000)
        : config_(std::move(config)),
          session_{.io = io_,
                   .config = config_,
                   .engine = engine_,
                   .announce = [this](std::string_view line) { out_.add(std::string(line)); },
                   .max_pairs = max_pairs,
                   .timing = timing} {
        auto logger = std::make_shared<spdlog::logger>("test", std::make_shared<CaptureSink>(log_));
        logger->set_level(spdlog::level::debug);
        spdlog::set_default_logger(std::move(logger));
        client_ = std::make_unique<Client>(session_);
        client_->start();
        thread_ = std::jthread([this] {
            io_.run();
            std::lock_guard lock(mutex_);
            over_ = true;
            changed_.notify_all();
        });
    }
    ~RunningClient() {
        io_.stop();
        thread_.join();
    }

    // The exit code; nothing when the client did not end in time.
    std::optional<int> wait_for_end(int within_ms = patience_ms) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::milliseconds(within_ms),
                               [this] { return over_; })) {
            return std::nullopt;
        }
        return client_->exit_code();
    }
    void interrupt() {
        boost::asio::post(io_, [this] { client_->interrupt(); });
    }

    KeepingEngine& engine() { return engine_; }
    Lines& out() { return out_; }
    Lines& log() { return log_; }

  private:
    Lines out_;
    Lines log_;
    config::ClientConfig config_;
    KeepingEngine engine_;
    // Client before io_context in destruction, as in the program.
    boost::asio::io_context io_{1};
    Session session_;
    std::unique_ptr<Client> client_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool over_{false};
    std::jthread thread_;
};

inline config::ClientConfig config_for(std::uint16_t relay_port, std::uint16_t local_port,
                                       std::optional<std::string> secret = std::nullopt) {
    config::ClientConfig config;
    config.to = "127.0.0.1";
    config.control_port = relay_port;
    config.local_host = "127.0.0.1";
    config.tunnels = {{.local_port = local_port, .public_port = 0}};
    config.secret = std::move(secret);
    return config;
}

}  // namespace bore::client::testing
