// An engine that moves no bytes: it keeps the pairs it was given, so that a test can look at them
// and end them. Called by the relay's thread and by the test's, hence the lock.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/abi/engine.hpp"

namespace bore::relay::testing {

class FakeEngine final : public abi::Engine {
  public:
    FakeEngine() : events_descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~FakeEngine() override {
        for (const auto& pair : pairs_) {
            close_sockets(pair);
        }
        ::close(events_descriptor_);
    }

    // The relay's side
    void open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                     const abi::TunnelLimits& limits) override {
        const std::lock_guard lock(mutex_);
        opened_tunnels_.push_back({tunnel_index, public_port, limits});
    }
    void set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) override {
        const std::lock_guard lock(mutex_);
        opened_tunnels_.push_back({tunnel_index, 0, limits});
    }
    void close_tunnel(std::uint32_t tunnel_index) override {
        const std::lock_guard lock(mutex_);
        closed_tunnels_.push_back(tunnel_index);
    }
    [[nodiscard]] bool wants_addresses() const override { return true; }
    std::expected<abi::PairHandle, abi::OpenError> open_pair(abi::PairRequest&& request) override {
        const std::lock_guard lock(mutex_);
        if (busy_) {
            return std::unexpected(abi::OpenError::busy);
        }
        pairs_.push_back(std::move(request));
        ++live_count_;
        return abi::PairHandle{static_cast<std::uint32_t>(pairs_.size() - 1), 1};
    }
    void close_pair(abi::PairHandle /*handle*/) override {}
    void close_pairs_of(std::optional<std::uint32_t> tunnel_index) override {
        std::vector<std::size_t> theirs;
        {
            const std::lock_guard lock(mutex_);
            for (std::size_t index = 0; index < pairs_.size(); ++index) {
                const std::uint32_t tunnel = pairs_[index].tunnel_index;
                if (tunnel == tunnel_index.value_or(tunnel) && pairs_[index].visitor_socket >= 0) {
                    theirs.push_back(index);
                }
            }
        }
        for (const std::size_t index : theirs) {
            end_pair(index);
        }
    }
    void drain(base::Nanoseconds /*deadline*/) override {
        const std::lock_guard lock(mutex_);
        draining_ = true;
    }
    bool drained() const override {
        const std::lock_guard lock(mutex_);
        return draining_ && live_count_ == 0;
    }
    int event_descriptor() const override { return events_descriptor_; }
    bool poll_events(std::vector<abi::PairEnded>& events) override {
        const std::lock_guard lock(mutex_);
        std::uint64_t count = 0;
        (void)!::read(events_descriptor_, &count, sizeof count);
        live_count_ -= events_.size();
        events.insert(events.end(), events_.begin(), events_.end());
        events_.clear();
        return false;
    }
    std::uint32_t worker_count() const override { return 1; }
    std::string description() const override { return "fake"; }

    // The test's side
    struct OpenedTunnel {
        std::uint32_t tunnel_index;
        std::uint16_t public_port;  // 0: set_tunnel_limits()
        abi::TunnelLimits limits;
    };
    [[nodiscard]] std::vector<OpenedTunnel> opened_tunnels() const {
        const std::lock_guard lock(mutex_);
        return opened_tunnels_;
    }
    [[nodiscard]] std::vector<std::uint32_t> closed_tunnels() const {
        const std::lock_guard lock(mutex_);
        return closed_tunnels_;
    }
    [[nodiscard]] std::size_t pair_count() const {
        const std::lock_guard lock(mutex_);
        return pairs_.size();
    }
    [[nodiscard]] abi::PairRequest pair(std::size_t index) const {
        const std::lock_guard lock(mutex_);
        return pairs_.at(index);
    }
    void end_pair(std::size_t index) {
        const std::lock_guard lock(mutex_);
        close_sockets(pairs_.at(index));
        events_.push_back({.handle = {static_cast<std::uint32_t>(index), 1},
                           .tunnel_index = pairs_[index].tunnel_index});
        pairs_[index].visitor_socket = pairs_[index].client_socket = -1;
        const std::uint64_t one = 1;
        (void)!::write(events_descriptor_, &one, sizeof one);
    }
    void refuse_pairs() {
        const std::lock_guard lock(mutex_);
        busy_ = true;
    }

  private:
    static void close_sockets(const abi::PairRequest& pair) {
        if (pair.visitor_socket >= 0) {
            ::close(pair.visitor_socket);
            ::close(pair.client_socket);
        }
    }

    mutable std::mutex mutex_;
    int events_descriptor_;
    bool busy_{false};
    bool draining_{false};
    std::size_t live_count_{0};
    std::vector<abi::PairRequest> pairs_;
    std::vector<abi::PairEnded> events_;
    std::vector<OpenedTunnel> opened_tunnels_;
    std::vector<std::uint32_t> closed_tunnels_;
};

}  // namespace bore::relay::testing
