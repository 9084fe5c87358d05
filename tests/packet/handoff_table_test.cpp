// Hand-offs for which the flow table has no room: flows, memory, adjacencies. Each is given back
// before anything is closed.
#include <gmock/gmock.h>

#include <array>
#include <cstring>

#include "dataplane/packet/handoff.hpp"
#include "tests/packet/slow_path_fixture.hpp"

namespace bore::packet::test {
namespace {

using abi::StreamReason;
using ::testing::ElementsAre;

TEST_F(SlowPathTest, AFullTableGivesThePairBackBeforeAnythingIsClosed) {
    start(1);
    make_legs();
    abi::PairRequest first;
    first.visitor_socket = visitor_socket;
    first.client_socket = client_socket;
    slow->open_pair(pair_slot + 1, pair_generation, std::move(first), now);
    ASSERT_EQ(count(Counter::handoffs_total), 1U);
    visitor_key.peer_port = 1;
    client_key.peer_port = 2;
    host.sockets[12] = {.key = visitor_key, .snapshot = snapshot(to_visitor_next, visitor_next)};
    host.sockets[13] = {.key = client_key, .snapshot = snapshot(to_client_next, client_next)};
    wire_in(from_visitor(visitor_next, "held"));
    wire_in(from_client(client_next, ""), 1);
    abi::PairRequest second;
    second.visitor_socket = 12;
    second.client_socket = 13;
    slow->open_pair(pair_slot, pair_generation, std::move(second), now);
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::table_full));
    EXPECT_FALSE(host.sockets[12].closed || host.sockets[13].closed);
    EXPECT_THAT(payloads(host.kernel), ::testing::Contains("held"));
}

// Memory that runs out when it is told to.
class MeagreMemory final : public TableMemory {
  public:
    std::byte* reserve(std::size_t size_bytes) override { return memory_->reserve(size_bytes); }
    bool commit(std::byte* at, std::size_t size_bytes) override {
        return !exhausted && memory_->commit(at, size_bytes);
    }
    void release(std::byte* at, std::size_t size_bytes) override {
        memory_->release(at, size_bytes);
    }
    std::size_t granule_bytes() const override { return memory_->granule_bytes(); }
    bool exhausted{false};

  private:
    std::unique_ptr<TableMemory> memory_{make_ordinary_memory()};
};

TEST_F(SlowPathTest, APeerThatTheTableHasNoRoomToRememberIsNotSpliced) {
    MeagreMemory meagre;
    table = FlowTable::make(meagre, 4, 1, 7).value();
    slow = std::make_unique<SlowPath>(host, *table, *counters, *histograms, *rows, options);
    slow->open_tunnel(1, tunnel_port, limits);
    // The first piece of memory is there from the start; others fill it.
    for (std::uint8_t other = 0; other < meagre.granule_bytes() / sizeof(Adjacency); ++other) {
        std::array<std::byte, 14> header{};
        header[5] = static_cast<std::byte>(other);
        ASSERT_TRUE(table->adjacency(header, 7));
    }
    meagre.exhausted = true;
    make_legs();
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::unknown_neighbour));
    slow.reset();
    table.reset();
}

// With one adjacency free for two legs of different ways, both are given that one.
TEST_F(SlowPathTest, ATableWithoutRoomForBothWaysGivesThePairBack) {
    start(20'000);
    std::uint32_t number = 0;
    const auto way = [&] {
        std::array<std::byte, 14> header{};
        header[0] = std::byte{2};
        ++number;
        std::memcpy(header.data() + 2, &number, sizeof number);
        return table->adjacency(header, 0).value();
    };
    // Four adjacencies a flow: two ways, each of them bound to an address of the relay.
    const auto add_flow = [&](std::uint16_t of_visitor, std::uint16_t of_client) {
        FlowState state;
        for (const std::size_t leg : {0U, 1U}) {
            FlowKey& key = state.legs[leg].key;
            key = leg == 0 ? visitor_key : client_key;
            key.own_address = ipv4(10, 9, 9, 9);
            key.peer_address[13] = static_cast<std::uint8_t>(number >> 16U);
            key.peer_address[14] = static_cast<std::uint8_t>(number >> 8U);
            key.peer_address[15] = static_cast<std::uint8_t>(number);
            state.legs[leg].adjacency = leg == 0 ? of_visitor : of_client;
        }
        ASSERT_TRUE(table->install(state, now));
    };
    for (std::size_t used = 0; used < 65'532; used += 4) {
        const std::uint16_t first = way();
        add_flow(first, way());
    }
    const std::uint16_t shared = way();
    add_flow(shared, shared);  // 65,534 of 65,535
    make_legs();
    open();
    EXPECT_THAT(host.to_stream_reasons, ElementsAre(StreamReason::table_full));
    EXPECT_FALSE(host.sockets[visitor_socket].closed || host.sockets[client_socket].closed);
    EXPECT_FALSE(table->find(visitor_key));
}

}  // namespace
}  // namespace bore::packet::test
