// The control port: its listeners, admission, and the connections whose handshake is under way.
// Control thread only.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include <boost/intrusive/list.hpp>

#include "controlplane/relay/context.hpp"
#include "controlplane/relay/control_connection.hpp"
#include "controlplane/relay/listener.hpp"
#include "controlplane/relay/pairs.hpp"
#include "controlplane/relay/sources.hpp"
#include "controlplane/relay/tunnels.hpp"
#include "dataplane/abi/limits.hpp"

namespace bore::relay {

// What becomes of new tunnels.
enum class Admission : std::uint8_t {
    open,
    drained,   // refused until an operator undoes it
    stopping,  // refused: the relay ends
};

class ControlPort final : public Listener::Handler {
  public:
    ControlPort(const Context& context, Sources& sources, Tunnels& tunnels, Pairs& pairs)
        : context_(context), sources_(sources), tunnels_(tunnels), pairs_(pairs) {}
    ControlPort(const ControlPort&) = delete;
    ControlPort& operator=(const ControlPort&) = delete;

    // Binds all addresses; the error is a sentence for the operator.
    [[nodiscard]] std::expected<void, std::string> listen();
    void start();
    // Whether Hello is refused from now on; claims are served in any case.
    void set_admission(Admission admission) { admission_ = admission; }
    void close_listeners();
    // Ends the handshakes that are under way.
    void abort_connections();

    Listener::Flow on_accepted(Descriptor socket, const sockaddr_storage& peer) override;
    void on_burst_ended() override;

    // For ControlConnection.
    void on_gone(ControlConnection& connection);
    [[nodiscard]] const Context& context() const { return context_; }
    [[nodiscard]] Sources& sources() { return sources_; }
    [[nodiscard]] Tunnels& tunnels() { return tunnels_; }
    [[nodiscard]] Pairs& pairs() { return pairs_; }
    [[nodiscard]] Admission admission() const { return admission_; }
    // One read's place; what must outlive a wait is copied out of it.
    [[nodiscard]] std::array<char, abi::max_left_over_bytes>& scratch() { return scratch_; }

  private:
    const Context& context_;
    Sources& sources_;
    Tunnels& tunnels_;
    Pairs& pairs_;
    Admission admission_{Admission::open};
    std::vector<Descriptor> bound_;
    std::vector<std::shared_ptr<Listener>> listeners_;
    std::vector<std::shared_ptr<ControlConnection>> fresh_;  // of the present burst
    boost::intrusive::list<ControlConnection> connections_;
    std::array<char, abi::max_left_over_bytes> scratch_;
};

}  // namespace bore::relay
