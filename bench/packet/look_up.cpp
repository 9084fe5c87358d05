// The flow table alone: what a look-up costs when nothing else touches the caches, what the table
// takes per flow, and how long it stops the installing thread to grow.
#include <array>
#include <cstdio>
#include <vector>

#include "bench/load/json_line.hpp"
#include "bench/packet/cycles.hpp"
#include "bench/packet/flows.hpp"
#include "bench/packet/modes.hpp"
#include "dataplane/packet/frame.hpp"
#include "drivers/dpdk/memory.hpp"

namespace bore::bench {

namespace {

using packet::DirectionIndex;
using packet::FlowTable;
using packet::max_burst;

struct StageCycles {
    std::uint64_t hash{0};
    std::uint64_t candidate{0};
    std::uint64_t confirm{0};
    std::uint64_t whole{0};
    std::uint64_t look_ups{0};
};

std::vector<FlowTable::Key4> keys_of(const TableOptions& options) {
    std::vector<FlowTable::Key4> keys;
    keys.reserve(std::size_t{2} * options.flow_count);
    const FrameShape shape{};
    std::vector<std::byte> frame(shape.frame_bytes());
    for (const std::uint32_t direction : shuffled(2 * options.flow_count, options.seed + 1)) {
        write_frame(direction / 2, packet::leg_of(direction), shape, frame);
        FlowTable::Key4 key{};
        std::memcpy(&key, frame.data() + 26, sizeof key);
        keys.push_back(key);
    }
    keys.resize(keys.size() / max_burst * max_burst);
    return keys;
}

// One burst. `timed`: the counter is read between the stages, which costs some 20 cycles each.
template <bool timed>
DirectionIndex look_up_burst(const FlowTable& table, const FlowTable::Key4* keys,
                             StageCycles& spent) {
    std::array<std::uint32_t, max_burst> hashes;
    std::array<DirectionIndex, max_burst> found;
    const std::uint64_t start = timed ? cycles() : 0;
    for (std::size_t index = 0; index < max_burst; ++index) {
        hashes[index] = table.hash4(keys[index]);
        table.prefetch_bucket(hashes[index]);
    }
    const std::uint64_t hashed = timed ? cycles() : 0;
    for (std::size_t index = 0; index < max_burst; ++index) {
        found[index] = table.candidate4(hashes[index]);
    }
    const std::uint64_t chosen = timed ? cycles() : 0;
    DirectionIndex missing = 0;
    for (std::size_t index = 0; index < max_burst; ++index) {
        const DirectionIndex direction = table.confirm4(keys[index], hashes[index], found[index]);
        missing |= static_cast<DirectionIndex>(direction == FlowTable::no_direction);
    }
    if constexpr (timed) {
        spent.hash += hashed - start;
        spent.candidate += chosen - hashed;
        spent.confirm += cycles() - chosen;
    }
    return missing;
}

template <bool timed>
DirectionIndex run_for(const FlowTable& table, const std::vector<FlowTable::Key4>& keys,
                       double seconds, StageCycles& spent) {
    DirectionIndex missing = 0;
    const auto end = cycles() + static_cast<std::uint64_t>(seconds * cycles_per_second());
    const std::uint64_t start = cycles();
    while (cycles() < end) {
        const std::size_t part = std::min(keys.size(), std::size_t{64} * max_burst);
        static std::size_t at = 0;
        for (std::size_t done = 0; done < part; done += max_burst) {
            at = at + max_burst > keys.size() ? 0 : at;
            missing |= look_up_burst<timed>(table, keys.data() + at, spent);
            at += max_burst;
        }
        spent.look_ups += part;
    }
    spent.whole = cycles() - start;
    return missing;
}

}  // namespace

int run_look_up(const TableOptions& options) {
    const auto memory = drivers::make_hugepage_memory();
    auto table = FlowTable::make(*memory, options.flow_count, 1, options.seed);
    if (!table || !install_flows(**table, options.flow_count, false, options.seed)) {
        std::fprintf(stderr, "bore-packet-bench: no memory for %u flows in hugepages\n",
                     options.flow_count);
        return 1;
    }
    const std::vector<FlowTable::Key4> keys = keys_of(options);
    StageCycles warm;
    StageCycles plain;
    StageCycles staged;
    DirectionIndex missing = run_for<false>(**table, keys, options.seconds / 4, warm);
    missing |= run_for<false>(**table, keys, options.seconds, plain);
    missing |= run_for<true>(**table, keys, options.seconds, staged);
    if (missing != 0) {
        std::fprintf(stderr, "bore-packet-bench: an installed direction was not found\n");
        return 1;
    }
    const auto each = [](std::uint64_t spent, std::uint64_t count) {
        return static_cast<double>(spent) / static_cast<double>(count);
    };
    JsonLine()
        .add("flows", options.flow_count)
        .add("cycles_per_look_up", each(plain.whole, plain.look_ups))
        .add("hash_cycles", each(staged.hash, staged.look_ups))
        .add("candidate_cycles", each(staged.candidate, staged.look_ups))
        .add("confirm_cycles", each(staged.confirm, staged.look_ups))
        .print();
    return 0;
}

int run_memory(const TableOptions& options) {
    const auto memory = drivers::make_hugepage_memory();
    auto table = FlowTable::make(*memory, options.flow_count, 1, options.seed);
    if (!table || !install_flows(**table, 0, options.ipv6, options.seed)) {
        std::fprintf(stderr, "bore-packet-bench: no hugepages\n");
        return 1;
    }
    const double frequency = cycles_per_second();
    std::uint64_t slowest = 0;
    // Hugepages are whole, so few flows have many bytes each: the bound is one from here on.
    constexpr std::uint32_t many_flows = 500'000;
    double most_bytes_per_flow = 0;
    std::uint32_t worst_flows = 0;
    const std::uint64_t start = cycles();
    for (std::uint32_t flow = 0; flow < options.flow_count; ++flow) {
        const packet::FlowState state = flow_state(flow, options.ipv6);
        const std::uint64_t before = cycles();
        if (!(*table)->install(state, 0)) {
            std::fprintf(stderr, "bore-packet-bench: no hugepages for flow %u\n", flow);
            return 1;
        }
        slowest = std::max(slowest, cycles() - before);
        (*table)->collect();  // no worker is online: what growth replaced goes at once
        const double bytes_per_flow = static_cast<double>((*table)->committed_bytes()) / (flow + 1);
        if (flow + 1 >= std::min(many_flows, options.flow_count) &&
            bytes_per_flow > most_bytes_per_flow) {
            most_bytes_per_flow = bytes_per_flow;
            worst_flows = flow + 1;
        }
    }
    const auto spent = static_cast<double>(cycles() - start);
    JsonLine()
        .add("flows", options.flow_count)
        .add("ipv6", options.ipv6)
        .add("committed_bytes", (*table)->committed_bytes())
        .add("bytes_per_flow",
             static_cast<double>((*table)->committed_bytes()) / options.flow_count)
        .add("most_bytes_per_flow", most_bytes_per_flow)
        .add("worst_flows", worst_flows)
        .add("install_us", spent / options.flow_count / frequency * 1e6)
        .add("slowest_install_ms", static_cast<double>(slowest) / frequency * 1e3)
        .print();
    return 0;
}

}  // namespace bore::bench
