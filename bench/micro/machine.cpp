// Rows that have nothing of ours in them: how long this core takes to multiply, how much it gets
// done at once (less where it shares itself with another), and how long it waits for memory. When
// they differ between two runs, the machine has changed and not the program.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "bench/micro/conclude.hpp"

namespace bore::bench {

namespace {

void multiply(benchmark::State& state) {
    constexpr std::uint64_t factor = 6'364'136'223'846'793'005;
    constexpr int chain = 64;
    std::uint64_t value = 1;
    for (auto _ : state) {
        for (int step = 0; step < chain; ++step) {
            value *= factor;
            keep(value);
        }
    }
    // A product of odd numbers is odd.
    conclude(state, "multiplication that waits for the one before", chain, (value & 1U) == 1);
}
BENCHMARK(multiply)->Name("machine/multiply");

// Eight sequences that do not wait for each other.
void at_once(benchmark::State& state) {
    std::array<Chance, 8> sequences;
    std::uint32_t sum = 0;
    for (auto _ : state) {
        for (Chance& sequence : sequences) {
            sum += sequence.next();
        }
        keep(sum);
        benchmark::ClobberMemory();
    }
    // All eight are the same sequence.
    conclude(state, "turn of eight shift registers at once", 1,
             sum % 8 == 0 && sequences.front().next() == sequences.back().next());
}
BENCHMARK(at_once)->Name("machine/at_once");

// One cycle through all lines (Sattolo), so that every step is one miss and none can be foreseen.
void memory(benchmark::State& state) {
    struct alignas(64) Line {
        std::uint32_t next;
    };
    static const std::vector<Line> lines = [] {
        std::vector<Line> made(std::size_t{64} << 14U);  // 64 MiB
        std::vector<std::uint32_t> order(made.size());
        std::iota(order.begin(), order.end(), 0U);
        std::mt19937_64 random(1);
        for (std::size_t at = order.size() - 1; at > 0; --at) {
            std::swap(order[at], order[random() % at]);
        }
        for (std::size_t at = 0; at < order.size(); ++at) {
            made[at].next = order[at];
        }
        return made;
    }();
    constexpr int chain = 64;
    std::uint32_t at = 0;
    for (auto _ : state) {
        for (int step = 0; step < chain; ++step) {
            at = lines[at].next;
        }
        keep(at);
    }
    conclude(state, "read that misses every cache, 64 MiB", chain, at < lines.size());
}
BENCHMARK(memory)->Name("machine/memory");

}  // namespace

}  // namespace bore::bench
