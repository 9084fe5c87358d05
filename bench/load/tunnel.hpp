// Tunnels on a bore relay, as `plain` and `tunnels` have them: the control connection, and a data
// connection for every visitor, which the service answers in the same thread. So the tunnel leg is
// a plain socket and a measurement of the relay has no second program behind the tunnel.
//
// The handshakes are the product's codec (controlplane/bore): it knows secrets and both dialects,
// and costs nothing that is measured. What is measured, the bytes behind it, it never sees.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "bench/load/event_loop.hpp"
#include "bench/load/run.hpp"
#include "bench/load/service.hpp"
#include "controlplane/bore/client_handshake.hpp"
#include "controlplane/bore/frame.hpp"

namespace bore::bench {

// A connection to the relay until its handshake is over; what follows is the derived class's.
class Negotiation : public Handler {
  public:
    void on_ready(std::uint32_t events) override;

  protected:
    Negotiation(Part& part, const protocol::ClientOptions& options, std::uint16_t port);
    Negotiation(Part& part, const protocol::ClientOptions& options, protocol::Dialect dialect,
                const protocol::Uuid& visitor_id);

    void connect();
    void apply(const protocol::ClientStep& step);
    // Each ends the negotiation; `failed` closes first.
    virtual void agreed(const protocol::ClientStep& step) = 0;
    virtual void on_message(std::string_view json) = 0;  // behind the handshake
    virtual void failed(Reason reason, const std::string& what) = 0;
    void fail(Reason reason, const std::string& what);

    Part& part_;
    protocol::ClientHandshake handshake_;
    protocol::FrameReader reader_;
    Descriptor connection_;
    base::Nanoseconds began_at_ = 0;
    base::Nanoseconds heard_at_ = 0;
    bool connecting_ = false;

  private:
    void send_opening();
    void receive();
};

// What the tunnels of a thread share.
struct TunnelEvents {
    std::function<void(std::uint16_t port, base::Nanoseconds took)> registered;
    // Before or after it was registered; counted with the part's failures already.
    std::function<void(bool was_registered, Reason reason, const std::string& what)> ended;
    std::uint64_t heartbeats = 0;
    std::uint64_t visitors = 0;
};

class DataConnection;

class Tunnel final : public Negotiation {
  public:
    // `options`, `service` and `events` must outlive the tunnel.
    Tunnel(Part& part, const protocol::ClientOptions& options, std::uint16_t port, Service& service,
           TunnelEvents& events);
    ~Tunnel() override;

    void connect();
    // A relay that is silent for --stall-s is gone: it sends a heartbeat twice a second.
    void sweep(base::Nanoseconds now);

  private:
    friend class DataConnection;
    using DataConnections = std::list<std::unique_ptr<DataConnection>>;

    void agreed(const protocol::ClientStep& step) override;
    void on_message(std::string_view json) override;
    void failed(Reason reason, const std::string& what) override;
    void arm_deadline();

    const protocol::ClientOptions& options_;
    Service& service_;
    TunnelEvents& events_;
    protocol::Dialect dialect_ = protocol::Dialect::fork;
    DataConnections data_;  // in their handshakes
    bool registered_ = false;
};

}  // namespace bore::bench
