// Next hops that get another link address: which legs and flows follow, and which do not.
#include <gmock/gmock.h>

#include "tests/packet/slow_path_fixture.hpp"

namespace bore::packet::test {
namespace {

constexpr LinkAddress new_address{2, 0, 0, 0, 0xaa, 1};

class NeighboursTest : public SlowPathTest {
  protected:
    // What frames to the peer of this leg carry as their destination.
    [[nodiscard]] LinkAddress hop_of(FlowIndex flow, abi::Leg leg) const {
        const DirectionIndex towards = direction_of(flow, leg) ^ 1U;
        const Adjacency& adjacency =
            table->adjacency_at(table->direction(towards).adjacency.load());
        LinkAddress address;
        std::memcpy(address.data(), adjacency.header.data(), address.size());
        return address;
    }
    // Of the usual frames.
    [[nodiscard]] LinkAddress link_address_of(const Bytes& frame_of_peer) const {
        LinkAddress address;
        std::memcpy(address.data(), frame_of_peer.data() + 6, address.size());
        return address;
    }
    LinkAddress visitor_link() const { return link_address_of(from_visitor(0, "")); }

    const std::array<std::uint8_t, 16> gateway = ipv4(10, 0, 0, 254);
};

TEST_F(NeighboursTest, AFlowFollowsItsPeer) {
    slow->neighbour(0, visitor_key.peer_address, visitor_link(), now);
    const FlowIndex flow = splice();
    const LinkAddress client_before = hop_of(flow, abi::Leg::client);
    ASSERT_EQ(hop_of(flow, abi::Leg::visitor), visitor_link());
    slow->neighbour(0, visitor_key.peer_address, new_address, now);
    EXPECT_EQ(slow->next_deadline(now), now);
    slow->tick(now);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), new_address);
    EXPECT_EQ(hop_of(flow, abi::Leg::client), client_before);
    EXPECT_EQ(count(Counter::flows_moved_total), 1U);
    // What the slow path itself sends goes there as well.
    slow->close_pair(pair_slot, pair_generation, now);
    ASSERT_FALSE(host.wire.empty());
    EXPECT_TRUE(std::ranges::any_of(host.wire, [](const SentFrame& sent) {
        return std::memcmp(sent.bytes.data(), new_address.data(), new_address.size()) == 0;
    }));
}

TEST_F(NeighboursTest, FlowsBehindAGatewayFollowIt) {
    slow->neighbour(0, gateway, visitor_link(), now);
    const FlowIndex flow = splice();
    slow->neighbour(0, gateway, new_address, now);
    slow->tick(now);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), new_address);
    // And back.
    slow->neighbour(0, gateway, visitor_link(), now);
    slow->tick(now);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), visitor_link());
}

TEST_F(NeighboursTest, APeerThatIsANeighbourItselfDoesNotFollowAnother) {
    slow->neighbour(0, visitor_key.peer_address, visitor_link(), now);
    slow->neighbour(0, gateway, visitor_link(), now);  // two addresses of one machine
    const FlowIndex flow = splice();
    slow->neighbour(0, gateway, new_address, now);
    slow->tick(now);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), visitor_link());
}

TEST_F(NeighboursTest, AnotherAddressOfTheGatewaysMachineTakesNoFlowsAlong) {
    const std::array<std::uint8_t, 16> other_address = ipv4(10, 0, 0, 253);
    slow->neighbour(0, gateway, visitor_link(), now);
    slow->neighbour(0, other_address, visitor_link(), now);
    const FlowIndex flow = splice();
    slow->neighbour(0, other_address, new_address, now);
    pass_time(second_ns);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), visitor_link());
    // The gateway was the last with that link address: now they follow.
    slow->neighbour(0, gateway, new_address, now);
    pass_time(second_ns);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), new_address);
}

TEST_F(NeighboursTest, OtherPortsAndOtherNeighboursMeanNothing) {
    slow->neighbour(0, gateway, LinkAddress{2, 0, 0, 0, 0xbb, 1}, now);
    slow->neighbour(1, visitor_key.peer_address, LinkAddress{2, 0, 0, 0, 0xbb, 2}, now);
    const FlowIndex flow = splice();
    slow->neighbour(0, gateway, new_address, now);                   // had another link address
    slow->neighbour(1, visitor_key.peer_address, new_address, now);  // on another port
    pass_time(second_ns);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), visitor_link());
    EXPECT_EQ(count(Counter::flows_moved_total), 0U);
}

TEST_F(NeighboursTest, AFirstWordMovesNothing) {
    const FlowIndex flow = splice();
    slow->neighbour(0, visitor_key.peer_address, new_address, now);
    pass_time(second_ns);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), visitor_link());
}

TEST_F(NeighboursTest, ALegOnItsWayFollowsAsWell) {
    slow->neighbour(0, visitor_key.peer_address, visitor_link(), now);
    make_legs();
    slow->neighbour(0, visitor_key.peer_address, new_address, now);
    open();
    const auto direction = table->find(visitor_key);
    ASSERT_TRUE(direction);
    EXPECT_EQ(hop_of(flow_of(*direction), abi::Leg::visitor), new_address);
}

TEST_F(NeighboursTest, AConnectionWhoseSynAckIsOnItsWayFollowsAsWell) {
    slow->neighbour(0, visitor_key.peer_address, visitor_link(), now);
    Segment greeting = segment_to_peer(visitor_key);
    greeting.flags = tcp_syn | tcp_ack;
    greeting.sequence = to_visitor_next - 1;
    greeting.acknowledgement = visitor_next;
    kernel_in(build(greeting));
    slow->neighbour(0, visitor_key.peer_address, new_address, now);
    make_legs();
    open();
    const auto direction = table->find(visitor_key);
    ASSERT_TRUE(direction);
    EXPECT_EQ(hop_of(flow_of(*direction), abi::Leg::visitor), new_address);
}

TEST_F(NeighboursTest, TheLastOfManyChangesCounts) {
    slow->neighbour(0, visitor_key.peer_address, visitor_link(), now);
    const FlowIndex flow = splice();
    for (std::uint8_t turn = 0; turn < 100; ++turn) {
        slow->neighbour(0, visitor_key.peer_address, {2, 0, 0, 0, 0xcc, turn}, now);
    }
    pass_time(second_ns);
    EXPECT_EQ(hop_of(flow, abi::Leg::visitor), (LinkAddress{2, 0, 0, 0, 0xcc, 99}));
    EXPECT_EQ(count(Counter::flows_moved_total), 1U);
}

}  // namespace
}  // namespace bore::packet::test
