// Next hops that get another link address: a gateway is replaced, an address moves to another
// machine. The kernel learns of it from ARP and neighbour discovery and says so; the flows that go
// there follow, though nothing of theirs ever reaches the kernel.
//
// Which flows go there? Those to the address itself. When it is a gateway: those of its family that
// carry its old link address and whose peer is no neighbour of its own on that port. While another
// neighbour still has that link address (a router with two addresses, or one that answers ARP for
// others), nobody knows which of them is the gateway, and these flows stay.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

#include "dataplane/packet/flow_end.hpp"
#include "dataplane/packet/legs.hpp"

namespace bore::packet {

class Neighbours {
  public:
    // Neighbours remembered; further ones are not followed. The kernel keeps 1,024 of a family
    // (net.ipv4.neigh.default.gc_thresh3).
    static constexpr std::size_t max_neighbours = 65'536;

    Neighbours(SlowPathContext& context, Legs& legs, Flows& flows)
        : context_(context), legs_(legs), flows_(flows) {}

    // The kernel's word. One that is new here is only remembered.
    void learn(std::uint8_t port_index, const std::array<std::uint8_t, 16>& address,
               const LinkAddress& link_address);

    // Some of the flows that are to follow, so that a million of them do not stop everything else.
    void tick();
    [[nodiscard]] bool has_work() const { return !moves_.empty(); }

  private:
    struct Place {
        std::uint8_t port_index{0};
        std::array<std::uint8_t, 16> address{};
        bool operator==(const Place&) const = default;
    };
    struct Hash {
        std::size_t operator()(const Place& place) const;
    };
    struct Move {
        Place place;
        LinkAddress from{};
        LinkAddress to{};
        bool sole{false};   // nobody else had `from`: flows through it go along
        FlowIndex next{0};  // flows below are done
    };
    static constexpr std::uint32_t flows_per_tick = 4'096;

    [[nodiscard]] bool concerns(const Move& move, const Adjacency& adjacency,
                                const std::array<std::uint8_t, 16>& peer_address) const;
    [[nodiscard]] bool has_another(const Place& place, const LinkAddress& link_address) const;
    void move_leg(const Move& move, FlowIndex flow, abi::Leg leg);
    void plan(const Place& place, const LinkAddress& from, const LinkAddress& to);

    SlowPathContext& context_;
    Legs& legs_;
    Flows& flows_;
    std::unordered_map<Place, LinkAddress, Hash> known_;
    std::deque<Move> moves_;
};

}  // namespace bore::packet
