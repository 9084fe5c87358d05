// The table of spliced flows: what install() writes and refuses, what a look-up finds against a
// naive model, and growth.
#include "dataplane/packet/flow_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "tests/packet/flow_table_fixture.hpp"

namespace bore::packet {
namespace {

using namespace test;
using abi::Leg;

// ---- What install() writes

TEST(FlowTable, WritesTheDirectionOfTheVisitor) {
    TableFixture fixture(4);
    FlowTable& table = *fixture.table;
    FlowState state = detailed_state();
    std::array<std::byte, 18> header{};
    header[3] = std::byte{9};
    state.legs[1].adjacency = table.adjacency(header, 3).value();
    const FlowIndex flow = table.install(state, now_ns).value();
    const DirectionEntry& entry = table.direction(direction_of(flow, Leg::visitor));
    const FlowTable::Key4 in = key4(state.legs[0].key);
    EXPECT_EQ(entry.in_source, in.source);
    EXPECT_EQ(entry.in_destination, in.destination);
    EXPECT_EQ(entry.in_ports, in.ports);
    const FlowTable::Key4 back = key4(state.legs[1].key);  // the other way round on its way out
    EXPECT_EQ(table.adjacency_at(entry.adjacency).own_v4(), back.destination);
    EXPECT_EQ(entry.out_destination, back.source);
    EXPECT_EQ(__builtin_bswap32(entry.out_ports), 7'835U << 16U | 0x4567U);
    EXPECT_EQ(entry.sequence_delta, 50'000U - 4'000'000'000U);
    EXPECT_EQ(entry.acknowledgement_delta, 60'000U - 1'000U);
    EXPECT_EQ(entry.timestamp_delta, 500U - 7'000U);
    EXPECT_EQ(entry.timestamp_echo_delta, 4'294'967'000U - 90'000U);
    EXPECT_EQ(table.adjacency_at(entry.adjacency).port_index, 3);
    EXPECT_EQ(table.adjacency_at(entry.adjacency).header_bytes, 18);
    EXPECT_EQ(table.adjacency_at(entry.adjacency).header, header);
    EXPECT_EQ(entry.out_mss, 1'400);
    EXPECT_EQ(entry.window_scales, 7 | 14 << 4);
    EXPECT_EQ(entry.flags, flag_in_timestamps | flag_out_timestamps | flag_sack | flag_tagged);
    EXPECT_EQ(entry.state, 0);
    EXPECT_EQ(entry.other_fin, 0);
    EXPECT_EQ(entry.next_sequence, 4'000'000'000U);
    EXPECT_EQ(entry.acknowledged, 1'000U);
    EXPECT_EQ(entry.window_edge, 66'000U);
    EXPECT_EQ(entry.last_seen, activity_tick(now_ns));
    EXPECT_EQ(entry.tunnel_index, 77);
}

// The relay's own address is found by way of the adjacency, which flows share.
TEST(FlowTable, TellsFlowsApartByTheRelaysOwnAddressAlone) {
    for (const bool ipv6 : {false, true}) {
        TableFixture fixture(4);
        FlowTable& table = *fixture.table;
        const auto own = [ipv6](std::uint32_t value) { return ipv6 ? v6(value) : v4(value); };
        std::array<FlowIndex, 3> flows{};
        for (std::uint32_t number = 0; number < 3; ++number) {
            FlowState state = flow_state(1, ipv6);
            state.legs[0].key.own_address = own(0xc000'0300 + number);
            state.legs[1].key.own_address = own(0xc000'0400 + number / 2);  // two have the same
            state.legs[1].key.peer_port = static_cast<std::uint16_t>(5'000 + number);
            flows[number] = table.install(state, now_ns).value();
        }
        for (std::uint32_t number = 0; number < 3; ++number) {
            FlowKey key = flow_state(1, ipv6).legs[0].key;
            key.own_address = own(0xc000'0300 + number);
            EXPECT_EQ(table.find(key), direction_of(flows[number], Leg::visitor));
            const auto& to_client = table.direction(direction_of(flows[number], Leg::visitor));
            const auto& to_visitor = table.direction(direction_of(flows[number], Leg::client));
            EXPECT_EQ(table.adjacency_at(to_visitor.adjacency).own_address, key.own_address);
            EXPECT_EQ(table.adjacency_at(to_client.adjacency).own_address,
                      own(0xc000'0400 + number / 2));
        }
        const auto adjacency = [&](std::uint32_t number) {
            return table.direction(direction_of(flows[number], Leg::visitor)).adjacency.load();
        };
        EXPECT_EQ(adjacency(0), adjacency(1));
        EXPECT_NE(adjacency(0), adjacency(2));
        FlowKey key = flow_state(1, ipv6).legs[0].key;
        key.own_address = own(0xc000'0303);
        EXPECT_FALSE(table.find(key));
    }
}

TEST(FlowTable, DeltasOfTheTwoDirectionsUndoEachOther) {
    TableFixture fixture(4);
    const FlowIndex flow = fixture.table->install(detailed_state(), now_ns).value();
    const DirectionEntry& to_client = fixture.table->direction(direction_of(flow, Leg::visitor));
    const DirectionEntry& to_visitor = fixture.table->direction(direction_of(flow, Leg::client));
    EXPECT_EQ(to_client.sequence_delta + to_visitor.acknowledgement_delta, 0U);
    EXPECT_EQ(to_visitor.sequence_delta + to_client.acknowledgement_delta, 0U);
    EXPECT_EQ(to_client.timestamp_delta + to_visitor.timestamp_echo_delta, 0U);
    EXPECT_EQ(to_visitor.timestamp_delta + to_client.timestamp_echo_delta, 0U);
}

TEST(FlowTable, WritesTheColdPart) {
    TableFixture fixture(4);
    FlowState state = detailed_state();
    state.ack_hold_back = 60;
    state.ack_hold_until_ms = 12'345;
    const FlowIndex flow = fixture.table->install(state, now_ns).value();
    const FlowCold& cold = fixture.table->cold(flow);
    EXPECT_EQ(cold.first_sequence[0], 4'000'000'000U);
    EXPECT_EQ(cold.first_sequence[1], 60'000U);
    EXPECT_EQ(cold.first_acknowledgement[0], 1'000U);
    EXPECT_EQ(cold.first_acknowledgement[1], 50'000U);
    EXPECT_EQ(cold.peer_timestamp[1], 4'294'967'000U);
    EXPECT_EQ(cold.own_timestamp[0] + timestamp_ms(now_ns), 90'000U);
    EXPECT_EQ(cold.own_timestamp[1] + timestamp_ms(now_ns), 500U);
    EXPECT_EQ(cold.ack_hold_back, 60);
    EXPECT_EQ(cold.ack_hold_until_ms, 12'345U);
    EXPECT_EQ(cold.generation % 2, 1U);
    // Frames of the visitor acknowledge to the client.
    EXPECT_EQ(fixture.table->direction(direction_of(flow, Leg::visitor)).state, state_ack_hold);
    EXPECT_EQ(fixture.table->direction(direction_of(flow, Leg::client)).state, 0);
}

TEST(FlowTable, FlagsFollowWhatTheLegsNegotiated) {
    TableFixture fixture(4);
    FlowState state = detailed_state();
    state.legs[0].timestamps = false;
    state.legs[1].sack = false;
    state.legs[1].window_scaling = false;
    state.limited_to_visitor = true;
    const FlowIndex flow = fixture.table->install(state, now_ns).value();
    const DirectionEntry& to_client = fixture.table->direction(direction_of(flow, Leg::visitor));
    const DirectionEntry& to_visitor = fixture.table->direction(direction_of(flow, Leg::client));
    EXPECT_EQ(to_client.flags, flag_out_timestamps | flag_no_window_scale);
    EXPECT_EQ(to_visitor.flags, flag_in_timestamps);
    EXPECT_EQ(to_visitor.state, state_limited);
    EXPECT_EQ(to_client.state, 0);
    EXPECT_EQ(to_client.timestamp_delta, 0U);
    EXPECT_EQ(to_visitor.timestamp_echo_delta, 0U);
}

TEST(FlowTable, TheFirstByteIsToldOfWhereItIsAskedFor) {
    TableFixture fixture(1);
    FlowState state = detailed_state();
    state.tell_first_byte = true;
    const FlowIndex flow = fixture.table->install(state, now_ns).value();
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        EXPECT_EQ(fixture.table->direction(direction_of(flow, leg)).state & state_first,
                  state_first);
    }
}

TEST(FlowTable, ReusedSlotCarriesNothingOfItsFormerFlow) {
    TableFixture fixture(1);
    FlowTable& table = *fixture.table;
    FlowState limited = detailed_state();
    limited.ack_hold_back = 9;
    limited.tell_first_byte = true;
    const FlowIndex flow = table.install(limited, now_ns).value();
    DirectionEntry& entry = table.direction(direction_of(flow, Leg::visitor));
    entry.other_fin = 1;
    entry.state.fetch_or(state_closed);
    FlowCold& cold = table.cold(flow);
    cold.fin_seen[0] = cold.fin_acknowledged[1] = cold.reset_seen[0] = 1;
    cold.acknowledged_wraps[0] = 3;
    const std::uint32_t generation = cold.generation;
    table.remove(flow);
    EXPECT_EQ(cold.generation % 2, 0U);
    ASSERT_EQ(table.install(flow_state(1), now_ns), flow);
    EXPECT_EQ(cold.generation, generation + 2);
    EXPECT_EQ(entry.other_fin, 0);
    EXPECT_EQ(entry.state, 0);
    EXPECT_EQ(cold.fin_seen[0], 0);
    EXPECT_EQ(cold.fin_acknowledged[1], 0);
    EXPECT_EQ(cold.reset_seen[0], 0);
    EXPECT_EQ(cold.acknowledged_wraps[0], 0U);
    EXPECT_EQ(cold.ack_hold_back, 0);
}

// ---- What install() refuses

TEST(FlowTable, RefusesATupleThatIsInstalled) {
    TableFixture fixture(8);
    fixture.install(1);
    FlowState same_visitor = flow_state(2);
    same_visitor.legs[0].key = flow_state(1).legs[0].key;
    EXPECT_FALSE(fixture.table->install(same_visitor, now_ns));
    FlowState same_client = flow_state(2);
    same_client.legs[1].key = flow_state(1).legs[1].key;
    EXPECT_FALSE(fixture.table->install(same_client, now_ns));
    FlowState crossed = flow_state(2);  // one flow's visitor is another's client
    crossed.legs[0].key = flow_state(1).legs[1].key;
    EXPECT_FALSE(fixture.table->install(crossed, now_ns));
    EXPECT_EQ(fixture.table->size(), 1U);
    fixture.install(2);
}

TEST(FlowTable, RefusesEqualLegsAndMixedFamilies) {
    TableFixture fixture(8);
    FlowState equal = flow_state(1);
    equal.legs[1].key = equal.legs[0].key;
    EXPECT_FALSE(fixture.table->install(equal, now_ns));
    FlowState mixed = flow_state(1);
    mixed.legs[1].key = flow_state(1, true).legs[1].key;
    EXPECT_FALSE(fixture.table->install(mixed, now_ns));
    EXPECT_EQ(fixture.table->size(), 0U);
    EXPECT_FALSE(fixture.table->find(equal.legs[0].key));
}

TEST(FlowTable, FullTableRefusesUntilAFlowIsGone) {
    constexpr std::uint32_t max_flows = 100;
    TableFixture fixture(max_flows);
    for (std::uint32_t number = 0; number < max_flows; ++number) {
        fixture.install(number);
    }
    EXPECT_FALSE(fixture.table->install(flow_state(max_flows), now_ns));
    fixture.table->remove(17);
    EXPECT_EQ(fixture.install(max_flows), 17U);
    EXPECT_FALSE(fixture.table->install(flow_state(17), now_ns));
}

TEST(FlowTable, SaysWhatSizesItTakes) {
    CountingMemory memory;
    EXPECT_FALSE(FlowTable::make(memory, 0, 1, 1));
    const auto made = FlowTable::make(memory, FlowTable::max_flow_capacity + 1, 1, 1);
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().find("1048576"), std::string::npos);
}

TEST(FlowTable, GivesAllMemoryBack) {
    CountingMemory memory;
    {
        auto table = FlowTable::make(memory, 5'000, 1, 1).value();
        (void)table->adjacency(std::array<std::byte, 14>{}, 0);
        for (std::uint32_t number = 0; number < 5'000; ++number) {
            ASSERT_TRUE(table->install(flow_state(number), now_ns));
        }
        EXPECT_GT(memory.held_count(), 0U);
    }
    EXPECT_EQ(memory.held_count(), 0U);
    memory.limit_bytes = memory.committed_bytes;
    EXPECT_FALSE(FlowTable::make(memory, 5'000, 1, 1));
    EXPECT_EQ(memory.held_count(), 0U);
}

TEST(FlowTable, WithoutMemoryItRefusesAndKeepsWhatItHas) {
    TableFixture fixture(100'000);
    std::uint32_t installed = 0;
    fixture.memory.limit_bytes = 300'000;
    while (fixture.table->install(flow_state(installed), now_ns)) {
        ++installed;
    }
    EXPECT_GT(installed, 1'000U);
    EXPECT_LT(installed, 2'000U);
    for (std::uint32_t number = 0; number < installed; ++number) {
        ASSERT_TRUE(fixture.table->find(flow_state(number).legs[0].key)) << number;
    }
    fixture.memory.limit_bytes = std::size_t{1} << 30U;
    fixture.install(installed);
}

// ---- IPv6

TEST(FlowTable, FindsSixAndFourSideBySide) {
    TableFixture fixture(1'000);
    for (std::uint32_t number = 0; number < 500; ++number) {
        fixture.install(number, number % 2 == 0);
    }
    for (std::uint32_t number = 0; number < 500; ++number) {
        const bool ipv6 = number % 2 == 0;
        for (const std::size_t leg : {0U, 1U}) {
            const auto found = fixture.table->find(flow_state(number, ipv6).legs[leg].key);
            ASSERT_EQ(found, number * 2 + leg);
            EXPECT_FALSE(fixture.table->find(flow_state(number, !ipv6).legs[leg].key));
        }
        EXPECT_EQ((fixture.table->direction(number * 2).flags & flag_v6) != 0, ipv6);
    }
}

TEST(FlowTable, ComparesWholeSixAddresses) {
    TableFixture fixture(8);
    const FlowIndex flow = fixture.install(3, true);
    const FlowKey key = flow_state(3, true).legs[1].key;
    std::array<std::byte, 32> both;
    std::memcpy(both.data(), key.peer_address.data(), 16);
    std::memcpy(both.data() + 16, key.own_address.data(), 16);
    const std::uint32_t ports = fixture.table->direction(direction_of(flow, Leg::client)).in_ports;
    const std::uint32_t hash = fixture.table->hash6({both.data(), ports});
    const auto look_up = [&] {  // with the right hash, so that only the comparison decides
        const FlowTable::Key6 key6{both.data(), ports};
        const DirectionIndex candidate = fixture.table->candidate6(hash);
        EXPECT_EQ(fixture.table->confirm6(key6, hash, candidate),
                  fixture.table->look_up6(key6, hash));
        return fixture.table->look_up6(key6, hash);
    };
    EXPECT_EQ(look_up(), direction_of(flow, Leg::client));
    for (std::size_t index = 0; index < both.size(); ++index) {
        both[index] ^= std::byte{0x10};
        EXPECT_EQ(look_up(), FlowTable::no_direction) << index;
        both[index] ^= std::byte{0x10};
    }
    std::swap_ranges(both.begin(), both.begin() + 4, both.begin() + 8);  // the fold stays the same
    EXPECT_EQ(look_up(), FlowTable::no_direction);
}

TEST(FlowTable, ComparesWholeFourKeys) {
    TableFixture fixture(8);
    const FlowIndex flow = fixture.install(3);
    FlowTable::Key4 key = key4(flow_state(3).legs[0].key);
    const std::uint32_t hash = fixture.table->hash4(key);
    EXPECT_EQ(fixture.table->look_up4(key, hash), direction_of(flow, Leg::visitor));
    for (std::uint32_t FlowTable::Key4::* field :
         {&FlowTable::Key4::source, &FlowTable::Key4::destination, &FlowTable::Key4::ports}) {
        key.*field ^= 0x0100'0000;
        EXPECT_EQ(fixture.table->look_up4(key, hash), FlowTable::no_direction);
        EXPECT_EQ(fixture.table->confirm4(key, hash, fixture.table->candidate4(hash)),
                  FlowTable::no_direction);
        key.*field ^= 0x0100'0000;
    }
}

// ---- Against a model

class FlowTableModel : public testing::TestWithParam<std::uint64_t> {};

TEST_P(FlowTableModel, AgreesUnderRandomOperations) {
    std::mt19937_64 random(GetParam());
    SCOPED_TRACE("seed " + std::to_string(GetParam()));
    const auto max_flows = static_cast<std::uint32_t>(10 + random() % 4'000);
    const auto universe = static_cast<std::uint32_t>(max_flows + random() % max_flows);
    TableFixture fixture(max_flows, 2, GetParam());
    FlowTable& table = *fixture.table;
    std::map<std::uint32_t, FlowIndex> model;
    std::set<FlowIndex> waiting;  // removed since worker 0 was quiet
    table.online(0);              // worker 1 stays offline and must not matter
    for (int step = 0; step < 30'000; ++step) {
        const auto number = static_cast<std::uint32_t>(random() % universe);
        const bool ipv6 = number % 3 == 0;
        // Grows, shrinks, grows again.
        const bool growing = step / 6'000 % 2 == 0;
        if (random() % 8 < (growing ? 5U : 3U)) {
            const auto flow = table.install(flow_state(number, ipv6), now_ns);
            const bool possible =
                !model.contains(number) && model.size() + waiting.size() < max_flows;
            ASSERT_EQ(flow.has_value(), possible) << step;
            if (flow) {
                ASSERT_FALSE(waiting.contains(*flow)) << step;
                model[number] = *flow;
            }
        } else if (const auto known = model.find(number); known != model.end()) {
            table.remove(known->second);
            waiting.insert(known->second);
            model.erase(known);
        }
        if (random() % 64 == 0) {
            table.quiescent(0);
            ASSERT_EQ(table.collect(), waiting.size()) << step;
            waiting.clear();
        }
        const auto asked = static_cast<std::uint32_t>(random() % universe);
        const std::size_t leg = random() % 2;
        const FlowKey key = flow_state(asked, asked % 3 == 0).legs[leg].key;
        const auto found = table.find(key);
        const auto known = model.find(asked);
        ASSERT_EQ(found.has_value(), known != model.end()) << step;
        if (found) {
            ASSERT_EQ(*found, known->second * 2 + leg) << step;
        }
        if (key.is_v4()) {
            ASSERT_EQ(staged_look_up(table, key), found.value_or(FlowTable::no_direction)) << step;
        }
        ASSERT_EQ(table.size(), model.size());
    }
}
INSTANTIATE_TEST_SUITE_P(Seeds, FlowTableModel, testing::Range<std::uint64_t>(1, 13));

TEST(FlowTable, GrowsToManyFlowsAndStaysSmall) {
    constexpr std::uint32_t flow_count = 120'000;
    TableFixture fixture(flow_count);
    const std::size_t empty_bytes = fixture.table->committed_bytes();
    std::size_t worst_bytes = 0;
    for (std::uint32_t number = 0; number < flow_count; ++number) {
        ASSERT_EQ(fixture.install(number), number);
        if (number >= 1'000 && number % 500 == 0) {
            fixture.table->collect();
            worst_bytes = std::max(worst_bytes, fixture.table->committed_bytes() / number);
        }
    }
    EXPECT_GT(empty_bytes, 0U);
    EXPECT_LE(worst_bytes, 256U);
    for (std::uint32_t number = 0; number < flow_count; ++number) {
        ASSERT_EQ(staged_look_up(*fixture.table, flow_state(number).legs[1].key), number * 2 + 1);
        ASSERT_FALSE(fixture.table->find(flow_state(number + flow_count).legs[0].key));
    }
}

TEST(FlowTable, CrowdedBucketsLoseNobody) {
    // Without room to grow, buckets fill to 7/8: many directions stand in a later bucket.
    TableFixture fixture(20'000);
    fixture.memory.no_address_space = true;
    std::uint32_t crowded = 0;
    while (fixture.table->install(flow_state(crowded), now_ns)) {
        ++crowded;
    }
    EXPECT_GT(crowded, 100U);
    std::mt19937_64 random(7);
    EXPECT_GT(fixture.table->passed_count(), crowded / 20);
    std::vector<bool> present(crowded, true);
    for (int step = 0; step < 20'000; ++step) {
        const auto number = static_cast<std::uint32_t>(random() % crowded);
        const auto found = fixture.table->find(flow_state(number).legs[0].key);
        ASSERT_EQ(found.has_value(), present[number]) << step;
        if (found) {
            fixture.table->remove(flow_of(*found));
        } else {
            ASSERT_TRUE(fixture.table->install(flow_state(number), now_ns)) << step;
        }
        present[number] = !present[number];
    }
    // When all are gone nothing is left of the crowd, or misses would look further and further.
    for (std::uint32_t number = 0; number < crowded; ++number) {
        if (const auto found = fixture.table->find(flow_state(number).legs[1].key)) {
            fixture.table->remove(flow_of(*found));
        }
    }
    EXPECT_EQ(fixture.table->size(), 0U);
    EXPECT_EQ(fixture.table->passed_count(), 0U);
}

TEST(FlowTable, SpreadsNeighbouringKeysAndDependsOnTheSeed) {
    TableFixture fixture(16, 1, 1);
    TableFixture other(16, 1, 2);
    constexpr std::size_t key_count = 65'536;
    constexpr std::size_t cell_count = 1'024;
    std::array<unsigned, cell_count> by_top{};
    std::array<unsigned, cell_count> by_low{};
    std::size_t equal_count = 0;
    for (std::uint32_t number = 0; number < key_count; ++number) {
        const FlowTable::Key4 key = key4(flow_state(number).legs[0].key);
        const std::uint32_t hash = fixture.table->hash4(key);
        ++by_top[hash >> 22U];
        ++by_low[hash % cell_count];
        equal_count += hash == other.table->hash4(key);
    }
    // 64 expected, standard deviation 8: seven of them to either side.
    EXPECT_LT(*std::ranges::max_element(by_top), 120U);
    EXPECT_GT(*std::ranges::min_element(by_top), 20U);
    EXPECT_LT(*std::ranges::max_element(by_low), 120U);
    EXPECT_GT(*std::ranges::min_element(by_low), 20U);
    EXPECT_LT(equal_count, 8U);
}

}  // namespace
}  // namespace bore::packet
