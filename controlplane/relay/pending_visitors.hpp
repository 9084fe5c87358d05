// Visitors that wait for their client: id → socket and tunnel, until claimed or until their time is
// up. A waiting visitor is a raw socket and a timer node, about 180 bytes; no event loop watches
// it. Control thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>

#include "controlplane/bore/uuid.hpp"
#include "controlplane/relay/descriptor.hpp"
#include "controlplane/relay/timers.hpp"
#include "dataplane/abi/engine.hpp"

namespace bore::relay {

class Tunnel;

class PendingVisitors {
  public:
    class Handler {
      public:
        // The visitor's time is up; its socket is closed by then.
        virtual void on_visitor_expired(Tunnel& tunnel) = 0;

      protected:
        ~Handler() = default;
    };

    struct Visitor {
        Descriptor socket;
        Tunnel* tunnel{nullptr};
        base::Nanoseconds accepted_at{0};
        abi::LegFacts facts;
    };

    PendingVisitors(Timers& timers, Handler& handler) : timers_(timers), handler_(handler) {}

    // Draws the id. The tunnel must live until the visitor was taken or has expired.
    [[nodiscard]] protocol::Uuid add(Visitor&& visitor, base::Nanoseconds due);

    // Where the visitor belongs; null when the id is unknown, claimed or expired.
    [[nodiscard]] Tunnel* tunnel_of(const protocol::Uuid& id) const;
    // An id can be taken once.
    [[nodiscard]] std::optional<Visitor> take(const protocol::Uuid& id);
    // All of them, at the end of a drain.
    void drop_all();
    void drop_of(const Tunnel& tunnel);

    [[nodiscard]] std::size_t size() const { return visitors_.size(); }

  private:
    struct Entry {
        Entry(PendingVisitors& owner_, const protocol::Uuid& id_, Visitor&& visitor_)
            : owner(owner_), id(id_), visitor(std::move(visitor_)) {}
        void expired() { owner.expire(id); }

        PendingVisitors& owner;
        protocol::Uuid id;
        Visitor visitor;
        Timer timer{Timer::calling<&Entry::expired>(this)};
    };

    void expire(protocol::Uuid id);

    Timers& timers_;
    Handler& handler_;
    std::unordered_map<protocol::Uuid, Entry> visitors_;  // nodes do not move
};

}  // namespace bore::relay
