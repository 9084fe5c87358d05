// Counters, as every step of the data plane writes them: one writer, no read-modify-write.
#include <memory>

#include "bench/micro/conclude.hpp"
#include "dataplane/abi/statistics.hpp"

namespace bore::bench {

namespace {

using abi::TunnelCounter;
using abi::WorkerCounter;

void add(benchmark::State& state) {
    abi::WorkerCounters counters;
    for (auto _ : state) {
        counters.add(WorkerCounter::sends_total);
        benchmark::ClobberMemory();
    }
    conclude(
        state, "counter of a worker increased", 1,
        counters.get(WorkerCounter::sends_total) == static_cast<std::uint64_t>(state.iterations()));
}
BENCHMARK(add)->Name("counters/add");

// Rows of tunnels chosen by chance: the cost is the cache line.
void add_row(benchmark::State& state) {
    const auto tunnels = static_cast<std::uint32_t>(state.range(0));
    abi::Statistics statistics(1, tunnels);
    Chance chance;
    for (auto _ : state) {
        statistics.tunnel(0, chance.next() % tunnels)
            .add(TunnelCounter::to_client_bytes_total, 100);
    }
    std::uint64_t sum = 0;
    for (std::uint32_t tunnel = 0; tunnel < tunnels; ++tunnel) {
        sum += statistics.tunnel_totals(tunnel).to_client_bytes;
    }
    conclude(state, "counter of any of so many tunnels increased", 1,
             sum == 100 * static_cast<std::uint64_t>(state.iterations()));
}
BENCHMARK(add_row)->Name("counters/add_row")->Arg(100)->Arg(16'384);

}  // namespace

}  // namespace bore::bench
