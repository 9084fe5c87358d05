// The table of spliced flows: what install() writes, what a look-up finds against a naive model,
// growth, the grace period, and readers that look up while another thread installs and removes.
#include "dataplane/packet/flow_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <thread>

namespace bore::packet {
namespace {

using abi::Leg;

constexpr std::uint64_t now_ns = 5'000'000'000'000;

std::array<std::uint8_t, 16> v4(std::uint32_t address) {
    std::array<std::uint8_t, 16> bytes{};
    bytes[10] = bytes[11] = 0xff;
    for (std::size_t index = 0; index < 4; ++index) {
        bytes[12 + index] = static_cast<std::uint8_t>(address >> (24 - 8 * index));
    }
    return bytes;
}

std::array<std::uint8_t, 16> v6(std::uint64_t low) {
    std::array<std::uint8_t, 16> bytes{0x20, 0x01, 0x0d, 0xb8};
    for (std::size_t index = 0; index < 8; ++index) {
        bytes[8 + index] = static_cast<std::uint8_t>(low >> (56 - 8 * index));
    }
    return bytes;
}

// Flow number n: the visitor 10.x.x.x, the client 11.x.x.x, the relay 192.0.2.1.
FlowState flow_state(std::uint32_t number, bool ipv6 = false) {
    FlowState state;
    const auto address = [ipv6](std::uint32_t value) { return ipv6 ? v6(value) : v4(value); };
    state.legs[0].key = {address(0x0a00'0000 + number / 50'000), address(0xc000'0201),
                         static_cast<std::uint16_t>(1'024 + number % 50'000), 20'000};
    state.legs[1].key = {address(0x0b00'0000 + number / 50'000), address(0xc000'0201),
                         static_cast<std::uint16_t>(1'024 + number % 50'000), 7'835};
    state.legs[0].snd_nxt = number * 3;
    state.legs[0].rcv_nxt = number * 5;
    state.legs[1].snd_nxt = number * 7;
    state.legs[1].rcv_nxt = number * 11;
    state.tunnel_index = static_cast<std::uint16_t>(number);
    return state;
}

// Ordinary memory that counts what is reserved and may be made to refuse.
class CountingMemory final : public TableMemory {
  public:
    std::byte* reserve(std::size_t size_bytes) override {
        std::byte* at = ordinary_->reserve(size_bytes);
        reserved_[at] = size_bytes;
        return at;
    }
    bool commit(std::byte* at, std::size_t size_bytes) override {
        EXPECT_EQ(size_bytes % granule_bytes(), 0U);
        if (committed_bytes + size_bytes > limit_bytes) {
            return false;
        }
        committed_bytes += size_bytes;
        return ordinary_->commit(at, size_bytes);
    }
    void release(std::byte* at, std::size_t size_bytes) override {
        ASSERT_TRUE(reserved_.contains(at));
        EXPECT_EQ(reserved_[at], size_bytes);
        reserved_.erase(at);
        ordinary_->release(at, size_bytes);
    }
    std::size_t granule_bytes() const override { return ordinary_->granule_bytes(); }
    std::size_t held_count() const { return reserved_.size(); }

    std::size_t committed_bytes{0};
    std::size_t limit_bytes{std::size_t{1} << 40U};

  private:
    std::unique_ptr<TableMemory> ordinary_{make_ordinary_memory()};
    std::map<std::byte*, std::size_t> reserved_;
};

struct TableFixture {
    explicit TableFixture(std::uint32_t max_flows, std::uint32_t worker_count = 1,
                          std::uint64_t seed = 1)
        : table(FlowTable::make(memory, max_flows, worker_count, seed).value()) {
        const auto index = table->adjacency(std::array<std::byte, 14>{}, 0);
        EXPECT_EQ(index, 0);
    }
    FlowIndex install(std::uint32_t number, bool ipv6 = false) {
        const auto flow = table->install(flow_state(number, ipv6), now_ns);
        EXPECT_TRUE(flow) << number;
        return flow.value_or(no_flow);
    }
    CountingMemory memory;
    std::unique_ptr<FlowTable> table;
};

FlowTable::Key4 key4(const FlowKey& key) {
    FlowTable::Key4 packed{};
    std::memcpy(&packed.source, key.peer_address.data() + 12, 4);
    std::memcpy(&packed.destination, key.own_address.data() + 12, 4);
    packed.ports =
        __builtin_bswap32(static_cast<std::uint32_t>(key.peer_port) << 16U | key.own_port);
    return packed;
}

DirectionIndex staged_look_up(const FlowTable& table, const FlowKey& key) {
    const FlowTable::Key4 packed = key4(key);
    const std::uint32_t hash = table.hash4(packed);
    table.prefetch_bucket(hash);
    return table.confirm4(packed, hash, table.candidate4(hash));
}

// ---- What install() writes

FlowState detailed_state() {
    FlowState state;
    LegState& visitor = state.legs[0];
    visitor.key = {v4(0x0102'0304), v4(0xc000'0201), 0x1234, 20'000};
    visitor.snd_nxt = 1'000;
    visitor.rcv_nxt = 4'000'000'000;
    visitor.peer_window_bytes = 65'000;
    visitor.peer_mss = 1'448;
    visitor.peer_window_scale = 7;
    visitor.own_window_scale = 9;
    visitor.window_scaling = visitor.timestamps = visitor.sack = true;
    visitor.own_timestamp = 90'000;
    visitor.peer_timestamp = 7'000;
    LegState& client = state.legs[1];
    client.key = {v4(0x0506'0708), v4(0xc000'0202), 0x4567, 7'835};
    client.snd_nxt = 50'000;
    client.rcv_nxt = 60'000;
    client.peer_window_bytes = 30'000;
    client.peer_mss = 1'400;
    client.peer_window_scale = 2;
    client.own_window_scale = 14;
    client.window_scaling = client.timestamps = client.sack = true;
    client.own_timestamp = 500;
    client.peer_timestamp = 4'294'967'000;
    state.tunnel_index = 77;
    return state;
}

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
    EXPECT_EQ(entry.out_source, back.destination);
    EXPECT_EQ(entry.out_destination, back.source);
    EXPECT_EQ(__builtin_bswap32(entry.out_ports), 7'835U << 16U | 0x4567U);
    EXPECT_EQ(entry.sequence_delta, 50'000U - 4'000'000'000U);
    EXPECT_EQ(entry.acknowledgement_delta, 60'000U - 1'000U);
    EXPECT_EQ(entry.timestamp_delta, 500U - 7'000U);
    EXPECT_EQ(entry.timestamp_echo_delta, 4'294'967'000U - 90'000U);
    EXPECT_EQ(entry.adjacency, state.legs[1].adjacency);
    EXPECT_EQ(table.adjacency_at(entry.adjacency).port_index, 3);
    EXPECT_EQ(table.adjacency_at(entry.adjacency).header_bytes, 18);
    EXPECT_EQ(table.adjacency_at(entry.adjacency).header, header);
    EXPECT_EQ(entry.out_mss, 1'400);
    EXPECT_EQ(entry.window_scales, 7 | 14 << 4);
    EXPECT_EQ(entry.flags, flag_in_timestamps | flag_out_timestamps | flag_sack);
    EXPECT_EQ(entry.state, 0);
    EXPECT_EQ(entry.other_fin, 0);
    EXPECT_EQ(entry.next_sequence, 4'000'000'000U);
    EXPECT_EQ(entry.acknowledged, 1'000U);
    EXPECT_EQ(entry.window_edge, 66'000U);
    EXPECT_EQ(entry.last_seen, activity_tick(now_ns));
    EXPECT_EQ(entry.tunnel_index, 77);
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
    EXPECT_EQ(to_visitor.flags, flag_in_timestamps | flag_limited);
    EXPECT_EQ(to_client.timestamp_delta, 0U);
    EXPECT_EQ(to_visitor.timestamp_echo_delta, 0U);
}

TEST(FlowTable, ReusedSlotCarriesNothingOfItsFormerFlow) {
    TableFixture fixture(1);
    FlowTable& table = *fixture.table;
    FlowState limited = detailed_state();
    limited.ack_hold_back = 9;
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
    // Without memory to grow, buckets fill to 7/8: many directions stand in a later bucket.
    TableFixture fixture(20'000);
    std::uint32_t count = 0;
    for (; count < 400; ++count) {
        fixture.install(count);
    }
    fixture.memory.limit_bytes = 0;
    std::uint32_t crowded = count;
    while (fixture.table->install(flow_state(crowded), now_ns)) {
        ++crowded;
    }
    std::mt19937_64 random(7);
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
