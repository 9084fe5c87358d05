// The table of spliced flows over time: slots and adjacencies are reused only after a grace period,
// delivered bytes are counted beyond 32 bits, and readers look up while another thread installs and
// removes (to be run under the thread sanitizer, too).
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "dataplane/packet/flow_table.hpp"
#include "tests/packet/flow_table_fixture.hpp"

namespace bore::packet {
namespace {

using namespace test;
using abi::Leg;

// ---- Grace period

TEST(FlowTable, ReusesASlotOnlyAfterEveryWorkerHasPassed) {
    TableFixture fixture(1, 3);
    FlowTable& table = *fixture.table;
    table.online(0);
    table.online(1);  // worker 2 never comes
    const FlowIndex flow = fixture.install(1);
    const DirectionEntry& entry = table.direction(direction_of(flow, Leg::visitor));
    const std::uint32_t ports = entry.in_ports;
    table.remove(flow);
    EXPECT_FALSE(table.find(flow_state(1).legs[0].key));
    EXPECT_FALSE(table.install(flow_state(2), now_ns));
    table.quiescent(0);
    EXPECT_EQ(table.collect(), 0U);
    EXPECT_FALSE(table.install(flow_state(2), now_ns));
    EXPECT_EQ(entry.in_ports, ports) << "a worker may still read it";
    table.quiescent(1);
    EXPECT_EQ(table.collect(), 1U);
    EXPECT_TRUE(table.install(flow_state(2), now_ns));
}

TEST(FlowTable, ASleepingWorkerHoldsNothingUp) {
    TableFixture fixture(1, 2);
    FlowTable& table = *fixture.table;
    table.quiescent(0);  // the first call brings it online
    table.quiescent(1);
    table.remove(fixture.install(1));
    table.quiescent(0);
    EXPECT_EQ(table.collect(), 0U);
    table.offline(1);
    EXPECT_EQ(table.collect(), 1U);
    table.online(1);
    table.remove(fixture.install(2));
    table.quiescent(0);
    EXPECT_EQ(table.collect(), 0U) << "awake again, it counts again";
    table.quiescent(1);
    EXPECT_EQ(table.collect(), 1U);
}

TEST(FlowTable, KeepsTheOldBucketsUntilEveryWorkerHasPassed) {
    TableFixture fixture(10'000);
    for (std::uint32_t number = 0; number < 1'000; ++number) {
        fixture.install(number);
    }
    fixture.table->collect();
    const std::size_t before = fixture.memory.held_count();
    fixture.table->online(0);
    for (std::uint32_t number = 1'000; number < 4'000; ++number) {
        fixture.install(number);
    }
    EXPECT_GT(fixture.memory.held_count(), before);
    fixture.table->quiescent(0);
    fixture.table->collect();
    EXPECT_EQ(fixture.memory.held_count(), before);
}

// ---- Bytes

TEST(FlowTable, CountsDeliveredBytesBeyondFourGigabytes) {
    TableFixture fixture(2);
    FlowTable& table = *fixture.table;
    const FlowIndex flow = table.install(detailed_state(), now_ns).value();
    EXPECT_EQ(table.delivered_bytes(flow), (std::array<std::uint64_t, 2>{0, 0}));
    DirectionEntry& of_visitor = table.direction(direction_of(flow, Leg::visitor));
    DirectionEntry& of_client = table.direction(direction_of(flow, Leg::client));
    FlowCold& cold = table.cold(flow);
    of_visitor.acknowledged = 1'500;  // 500 bytes of the client's have arrived there
    of_client.acknowledged = 50'007;
    EXPECT_EQ(table.delivered_bytes(flow), (std::array<std::uint64_t, 2>{7, 500}));
    of_client.acknowledged = 10;
    cold.acknowledged_wraps[1] = 3;
    EXPECT_EQ(table.delivered_bytes(flow)[0], (std::uint64_t{3} << 32U) + 10 - 50'000);
    EXPECT_EQ(table.delivered_bytes(flow)[1], 500U);
}

TEST(FlowTable, AFinIsNoByte) {
    TableFixture fixture(2);
    FlowTable& table = *fixture.table;
    const FlowIndex flow = table.install(detailed_state(), now_ns).value();
    DirectionEntry& of_client = table.direction(direction_of(flow, Leg::client));
    FlowCold& cold = table.cold(flow);
    // The visitor sends 100 bytes and a FIN.
    cold.fin_end[0] = 4'000'000'101;
    cold.fin_seen[0] = 1;
    of_client.acknowledged = 50'099;
    EXPECT_EQ(table.delivered_bytes(flow)[0], 99U);
    of_client.acknowledged = 50'100;
    EXPECT_EQ(table.delivered_bytes(flow)[0], 100U);
    of_client.acknowledged = 50'101;
    EXPECT_EQ(table.delivered_bytes(flow)[0], 100U);
    of_client.acknowledged = 59'000;  // of bytes that nobody sent
    EXPECT_EQ(table.delivered_bytes(flow)[0], 100U);
    of_client.acknowledged = 49'000;  // of bytes before the splice
    EXPECT_EQ(table.delivered_bytes(flow)[0], 0U);
}

// ---- Adjacencies

std::array<std::byte, 14> ethernet(std::uint32_t number) {
    std::array<std::byte, 14> header{};
    std::memcpy(header.data(), &number, sizeof number);
    return header;
}

TEST(FlowTable, SharesEqualAdjacencies) {
    TableFixture fixture(2);
    FlowTable& table = *fixture.table;
    const auto first = table.adjacency(ethernet(1), 0);
    EXPECT_EQ(table.adjacency(ethernet(1), 0), first);
    EXPECT_NE(table.adjacency(ethernet(1), 1), first);
    EXPECT_NE(table.adjacency(ethernet(2), 0), first);
    std::array<std::byte, 18> tagged{};
    std::ranges::copy(ethernet(1), tagged.begin());
    EXPECT_NE(table.adjacency(tagged, 0), first);
    EXPECT_FALSE(table.adjacency(std::span(tagged).first(13), 0));
    EXPECT_FALSE(table.adjacency({}, 0));
}

TEST(FlowTable, GivesOnlyUnusedAdjacenciesToOthers) {
    TableFixture fixture(4);
    FlowTable& table = *fixture.table;
    FlowState state = flow_state(1);
    state.legs[0].adjacency = table.adjacency(ethernet(1'000'000), 0).value();
    state.legs[1].adjacency = table.adjacency(ethernet(1'000'001), 0).value();
    const FlowIndex flow = table.install(state, now_ns).value();
    // Twice as many as there are: all indices come round, those of the flow do not.
    for (std::uint32_t number = 1; number < 2 * FlowTable::max_adjacencies; ++number) {
        const auto index = table.adjacency(ethernet(number), 0);
        ASSERT_TRUE(index);
        ASSERT_NE(*index, state.legs[0].adjacency);
        ASSERT_NE(*index, state.legs[1].adjacency);
        ASSERT_EQ(std::memcmp(table.adjacency_at(*index).header.data(), &number, 4), 0);
    }
    EXPECT_EQ(table.adjacency(ethernet(1'000'001), 0), state.legs[1].adjacency);
    table.online(0);
    table.remove(flow);
    const auto taken = [&] {
        for (std::uint32_t number = 0; number < FlowTable::max_adjacencies; ++number) {
            if (table.adjacency(ethernet(3'000'000 + number), 0) == state.legs[0].adjacency) {
                return true;
            }
        }
        return false;
    };
    EXPECT_FALSE(taken()) << "a worker may still send to it";
    table.quiescent(0);
    table.collect();
    for (std::uint32_t number = 0; number < FlowTable::max_adjacencies; ++number) {
        (void)table.adjacency(ethernet(5'000'000 + number), 0);
    }
    EXPECT_TRUE(taken());
}

// ---- Readers and a writer at once

// What a reader sees of a direction must be all of it: fields that install() derives from the same
// number must agree, and the generation must not move between two quiescent points.
bool whole(const FlowTable& table, DirectionIndex found, std::uint32_t number, std::size_t leg) {
    const DirectionEntry& entry = table.direction(found);
    const FlowState state = flow_state(number);
    const LegState& in = state.legs[leg];
    const LegState& out = state.legs[1 - leg];
    return leg_of(found) == static_cast<Leg>(leg) && entry.in_ports == key4(in.key).ports &&
           entry.sequence_delta == out.snd_nxt - in.rcv_nxt &&
           entry.acknowledgement_delta == out.rcv_nxt - in.snd_nxt &&
           entry.next_sequence.load(std::memory_order_relaxed) == in.rcv_nxt &&
           entry.tunnel_index == static_cast<std::uint16_t>(number);
}

TEST(FlowTableThreads, ReadersSeeAllOrNothingWhileFlowsComeAndGo) {
    constexpr std::uint32_t permanent_count = 200;
    constexpr std::uint32_t universe = 6'000;
    constexpr std::uint32_t reader_count = 3;
    constexpr std::uint64_t seed = 99;
    SCOPED_TRACE("seed " + std::to_string(seed));
    TableFixture fixture(universe, reader_count);
    FlowTable& table = *fixture.table;
    for (std::uint32_t number = 0; number < permanent_count; ++number) {
        fixture.install(number);
    }
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> lost{0};
    std::atomic<std::uint64_t> torn{0};
    std::atomic<std::uint64_t> hits{0};
    const auto read = [&](std::uint32_t worker) {
        std::mt19937_64 random(seed + worker);
        std::uint64_t own_hits = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            table.quiescent(worker);
            for (int look = 0; look < 32; ++look) {
                const auto number = static_cast<std::uint32_t>(
                    look % 2 == 0 ? random() % permanent_count : random() % universe);
                const std::size_t leg = random() % 2;
                const DirectionIndex found =
                    staged_look_up(table, flow_state(number).legs[leg].key);
                if (found == FlowTable::no_direction) {
                    lost += number < permanent_count;
                    continue;
                }
                ++own_hits;
                torn += !whole(table, found, number, leg);
            }
            if (random() % 64 == 0) {
                table.offline(worker);
                std::this_thread::yield();
                table.online(worker);
            }
        }
        hits += own_hits;
        table.offline(worker);
    };
    std::vector<std::thread> readers;
    for (std::uint32_t worker = 0; worker < reader_count; ++worker) {
        readers.emplace_back(read, worker);
    }
    std::mt19937_64 random(seed);
    std::map<std::uint32_t, FlowIndex> live;
    std::size_t freed = 0;
    for (int step = 0; step < 60'000; ++step) {
        // Fills to 5/6, then empties to a half, so that slots are reused and buckets have grown.
        const bool growing = step % 20'000 < 14'000;
        const auto number =
            permanent_count + static_cast<std::uint32_t>(random() % (universe - permanent_count));
        if (const auto known = live.find(number); known == live.end()) {
            const auto flow = growing ? table.install(flow_state(number), now_ns) : std::nullopt;
            if (flow) {
                live[number] = *flow;
            }
        } else if (!growing || random() % 4 == 0) {
            table.remove(known->second);
            live.erase(known);
        }
        freed += table.collect();
    }
    stop = true;
    for (std::thread& reader : readers) {
        reader.join();
    }
    EXPECT_EQ(lost, 0U);
    EXPECT_EQ(torn, 0U);
    EXPECT_GT(hits, 1'000U);
    EXPECT_GT(freed, 1'000U);
}

}  // namespace
}  // namespace bore::packet
