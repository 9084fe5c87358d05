// Counters and histograms, as every step of the data plane writes them: one writer, no
// read-modify-write.

#include "bench/micro/conclude.hpp"
#include "dataplane/abi/histogram.hpp"
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

// Values of chance, so that neither the bucket nor a branch can be foreseen.
void record(benchmark::State& state) {
    abi::WorkerHistograms histograms;
    Chance chance;
    std::uint64_t sum = 0;
    for (auto _ : state) {
        const std::uint64_t value = chance.next();
        sum += value;
        histograms.record(abi::WorkerHistogram::first_byte_ns, value);
        benchmark::ClobberMemory();
    }
    const abi::Histogram& histogram =
        histograms.histograms[static_cast<std::size_t>(abi::WorkerHistogram::first_byte_ns)];
    std::uint64_t recorded = 0;
    for (const auto& count : histogram.counts) {
        recorded += count.load();
    }
    conclude(
        state, "value recorded in a histogram", 1,
        recorded == static_cast<std::uint64_t>(state.iterations()) && histogram.sum.load() == sum);
}
BENCHMARK(record)->Name("histogram/record");

}  // namespace

}  // namespace bore::bench
