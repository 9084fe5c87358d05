// What is known of neighbours; what a change means for legs and flows; the flows, bit by bit.
#include "dataplane/packet/neighbours.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bore::packet {

namespace {

constexpr std::array both_legs{abi::Leg::visitor, abi::Leg::client};

LinkAddress destination_of(const Adjacency& adjacency) {
    LinkAddress address;
    std::memcpy(address.data(), adjacency.header.data(), address.size());
    return address;
}

bool is_v4(const std::array<std::uint8_t, 16>& address) {
    return FlowKey{.peer_address = address}.is_v4();
}

void redirect(Adjacency& adjacency, const LinkAddress& to) {
    std::memcpy(adjacency.header.data(), to.data(), to.size());
}

}  // namespace

// Neighbours are few, and who may choose their addresses is on the relay's own network.
std::size_t Neighbours::Hash::operator()(const Place& place) const {
    std::uint64_t low;
    std::uint64_t high;
    std::memcpy(&high, place.address.data(), sizeof high);
    std::memcpy(&low, place.address.data() + sizeof high, sizeof low);
    return (low ^ (high * 0x9e37'79b9'7f4a'7c15U) ^ place.port_index) * 0xd6e8'feb8'6659'fd93U;
}

void Neighbours::learn(std::uint8_t port_index, const std::array<std::uint8_t, 16>& address,
                       const LinkAddress& link_address) {
    const Place place{port_index, address};
    const auto known = known_.find(place);
    if (known == known_.end()) {
        if (known_.size() < max_neighbours) {
            known_.emplace(place, link_address);
        }
        return;
    }
    if (known->second != link_address) {
        const LinkAddress before = std::exchange(known->second, link_address);
        plan(place, before, link_address);
    }
}

void Neighbours::plan(const Place& place, const LinkAddress& from, const LinkAddress& to) {
    const Move move{.place = place, .from = from, .to = to, .sole = !has_another(place, from)};
    legs_.for_each([&](Leg& leg) {
        if (concerns(move, leg.adjacency, leg.key.peer_address)) {
            redirect(leg.adjacency, to);
        }
    });
    // Connections whose SYN-ACK is on its way become legs with what is known from that.
    legs_.for_each_neighbour([&](const auto& peer_address, Adjacency& adjacency) {
        if (concerns(move, adjacency, peer_address)) {
            redirect(adjacency, to);
        }
    });
    // A neighbour that comes and goes must not make this list long: what was not begun yet is
    // replaced, and goes from where it is now to where it is in the end.
    const auto waiting = std::ranges::find_if(
        moves_, [&](const Move& other) { return other.place == place && other.next == 0; });
    if (waiting != moves_.end()) {
        waiting->to = to;
    } else {
        moves_.push_back(move);
    }
}

// Another neighbour of the port and the family with this link address.
bool Neighbours::has_another(const Place& place, const LinkAddress& link_address) const {
    return std::ranges::any_of(known_, [&](const auto& known) {
        return known.second == link_address && known.first.port_index == place.port_index &&
               known.first.address != place.address &&
               is_v4(known.first.address) == is_v4(place.address);
    });
}

bool Neighbours::concerns(const Move& move, const Adjacency& adjacency,
                          const std::array<std::uint8_t, 16>& peer_address) const {
    if (adjacency.port_index != move.place.port_index || adjacency.header_bytes == 0 ||
        destination_of(adjacency) == move.to) {
        return false;
    }
    if (peer_address == move.place.address) {
        return true;
    }
    return move.sole && destination_of(adjacency) == move.from &&
           is_v4(peer_address) == is_v4(move.place.address) &&
           !known_.contains({move.place.port_index, peer_address});
}

void Neighbours::tick() {
    if (moves_.empty()) {
        return;
    }
    Move& move = moves_.front();
    const FlowIndex last = std::min(flows_.end_index(), move.next + flows_per_tick);
    for (; move.next < last; ++move.next) {
        if (flows_.is_installed(move.next)) {
            for (const abi::Leg leg : both_legs) {
                move_leg(move, move.next, leg);
            }
        }
    }
    if (move.next >= flows_.end_index()) {
        moves_.pop_front();
    }
}

void Neighbours::move_leg(const Move& move, FlowIndex flow, abi::Leg leg) {
    Adjacency adjacency = flows_.adjacency_of_leg(flow, leg);
    if (!concerns(move, adjacency, flows_.key_of_leg(flow, leg).peer_address)) {
        return;
    }
    redirect(adjacency, move.to);
    const auto index = context_.table.adjacency(
        std::span(adjacency.header).first(adjacency.header_bytes), adjacency.port_index);
    const abi::Leg other = leg == abi::Leg::visitor ? abi::Leg::client : abi::Leg::visitor;
    if (!index || !context_.table.set_adjacency(direction_of(flow, other), *index)) {
        return;  // 65,535 next hops, all in use
    }
    context_.counters.add(SlowCounter::flows_moved_total);
}

}  // namespace bore::packet
