// All tunnels: caps, ports, rows of counters, and what is known about the dialects of their
// clients. Opens a tunnel for a client whose handshake is through. Control thread only.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "controlplane/bore/dialect_hints.hpp"
#include "controlplane/relay/context.hpp"
#include "controlplane/relay/port_allocator.hpp"
#include "controlplane/relay/tunnel.hpp"

namespace bore::relay {

class Tunnels {
  public:
    explicit Tunnels(const Context& context);

    // Opens a tunnel and answers Hello on `control`. On failure `control` stays the caller's and
    // the error is the text for its Error frame.
    [[nodiscard]] std::expected<void, std::string> open(
        std::uint16_t requested_port, TunnelClient&& client, Pairs& pairs,
        boost::asio::posix::stream_descriptor& control);

    // The tunnel that holds the port now; null when none of ours does.
    [[nodiscard]] std::shared_ptr<Tunnel> holder_of(std::uint16_t port) const;
    // One that has ended but for visitors or pairs included; null when the row has another now.
    [[nodiscard]] std::shared_ptr<Tunnel> find(std::uint32_t index, std::uint64_t generation) const;
    // A row's tunnel, ended ones with pairs included.
    [[nodiscard]] Tunnel& at(std::uint32_t index) const { return *rows_[index]; }

    // Told by a tunnel at its end, and by Pairs when a visitor or a pair of a tunnel has gone.
    void on_ended(Tunnel& tunnel);
    void on_visitor_gone(Tunnel& tunnel);

    // Reload: timeouts hold for all tunnels at once, bandwidth for new ones.
    void apply_limits();
    // Drain: no more visitors; a tunnel ends when it has nothing left to finish.
    void close_listeners();
    void shut_listeners();
    // Ports of tunnels that could not be opened again and have ended.
    [[nodiscard]] std::vector<std::uint16_t> reopen_listeners();
    void end_all(TunnelEnd reason);
    void end_finished_work();

    // Every row in use, ended tunnels with visitors or pairs included.
    template <typename Function>
    void for_each(const Function& function) {
        for (std::size_t index = 0; index < rows_.size(); ++index) {
            if (const std::shared_ptr<Tunnel> tunnel = rows_[index]) {
                function(*tunnel);
            }
        }
    }

    [[nodiscard]] std::size_t live_count() const { return by_port_.size(); }
    [[nodiscard]] const std::unordered_map<std::uint16_t, Tunnel*>& live() const {
        return by_port_;
    }
    [[nodiscard]] protocol::DialectHints& hints() { return hints_; }

  private:
    [[nodiscard]] std::expected<void, std::string> check_caps(const TunnelClient& client);
    [[nodiscard]] std::expected<std::uint16_t, PortError> bind_port(
        std::uint16_t requested, std::vector<Descriptor>& listeners);
    void forget_later(std::uint32_t index);

    const Context& context_;
    PortAllocator ports_;
    protocol::DialectHints hints_;
    std::vector<std::shared_ptr<Tunnel>> rows_;
    std::vector<std::uint32_t> free_rows_;
    std::unordered_map<std::uint16_t, Tunnel*> by_port_;
};

}  // namespace bore::relay
