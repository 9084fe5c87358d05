// The flow table: bursts of look-ups in an order of chance, and installations.
#include <array>
#include <map>
#include <vector>

#include "bench/micro/conclude.hpp"
#include "bench/micro/segments.hpp"
#include "dataplane/packet/express.hpp"

namespace bore::bench {

namespace {

using packet::DirectionIndex;
using packet::FlowTable;
using packet::max_burst;

// Tables are kept: a million flows take a second to install, and a row runs many times.
struct Ground {
    Installed installed;
    std::vector<FlowTable::Key4> keys;
    std::vector<DirectionIndex> expected;  // of each key, to be found
};

const Ground& ground(std::uint32_t flow_count) {
    static std::map<std::uint32_t, Ground> made;
    Ground& one = made[flow_count];
    if (one.installed.table == nullptr) {
        one.installed = install(flow_count, {});
        for (const std::uint32_t number : shuffled(2 * flow_count, 2)) {
            const packet::FlowState state = flow_state(number / 2, false);
            const auto buffer = make_buffer(number / 2, packet::leg_of(number), {});
            one.keys.push_back(packet::express::key_of(buffer.data() + headroom_bytes));
            const auto found =
                one.installed.table->find(state.legs[static_cast<std::size_t>(number & 1U)].key);
            one.expected.push_back(found.value_or(FlowTable::no_direction));
        }
        // Whole bursts.
        one.keys.resize(one.keys.size() / max_burst * max_burst);
    }
    return one;
}

void look_up(benchmark::State& state) {
    const Ground& field = ground(static_cast<std::uint32_t>(state.range(0)));
    const FlowTable& table = *field.installed.table;
    std::array<std::uint32_t, max_burst> hashes{};
    std::array<DirectionIndex, max_burst> found{};
    std::size_t at = 0;
    bool right = true;
    for (auto _ : state) {
        const FlowTable::Key4* keys = field.keys.data() + at;
        for (std::size_t index = 0; index < max_burst; ++index) {
            hashes[index] = table.hash4(keys[index]);
            table.prefetch_bucket(hashes[index]);
        }
        for (std::size_t index = 0; index < max_burst; ++index) {
            found[index] = table.candidate4(hashes[index]);
        }
        for (std::size_t index = 0; index < max_burst; ++index) {
            found[index] = table.confirm4(keys[index], hashes[index], found[index]);
        }
        keep(found);
        right &= found[0] == field.expected[at] &&
                 found[max_burst - 1] == field.expected[at + max_burst - 1];
        at = at + 2 * max_burst > field.keys.size() ? 0 : at + max_burst;
    }
    conclude(state, "look-up among so many flows, in bursts of 64", max_burst,
             right && found[0] != FlowTable::no_direction);
}
BENCHMARK(look_up)->Name("look_up/burst")->Arg(1'000)->Arg(100'000)->Arg(1'000'000);

void miss(benchmark::State& state) {
    const Ground& field = ground(static_cast<std::uint32_t>(state.range(0)));
    const FlowTable& table = *field.installed.table;
    std::size_t at = 0;
    bool right = true;
    for (auto _ : state) {
        FlowTable::Key4 key = field.keys[at];
        key.ports ^= 0x8000'0000U;  // a port of the relay that nobody has
        right &= table.look_up4(key, table.hash4(key)) == FlowTable::no_direction;
        at = at + 1 == field.keys.size() ? 0 : at + 1;
    }
    conclude(state, "look-up of a flow that is none of so many, one by one", 1, right);
}
BENCHMARK(miss)->Name("look_up/miss")->Arg(1'000)->Arg(100'000);

void install_and_remove(benchmark::State& state) {
    Installed installed = install(1'000, {});
    FlowTable& table = *installed.table;
    table.remove(0);  // makes room for one
    bool right = true;
    for (auto _ : state) {
        table.quiescent(0);
        table.collect();
        const auto flow = table.install(flow_state(5'000, false), 0);
        right &= flow.has_value();
        table.remove(flow.value_or(0));
    }
    conclude(state, "flow installed, removed and its slot freed", 1, right && table.size() == 999);
}
BENCHMARK(install_and_remove)->Name("look_up/install_and_remove");

}  // namespace

}  // namespace bore::bench
