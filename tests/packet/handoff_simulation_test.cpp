// Seeds of the hand-off simulation (handoff_simulation.hpp says what a seed is and what must hold).
//
//   BORE_SIMULATION_SEED=n   runs that seed alone and prints every step
//   BORE_SIMULATION_RUNS=n   so many seeds, from 1 on, instead of 20,000; 1,000,000 take minutes
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/packet/handoff_simulation.hpp"

namespace bore::packet::testing {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr std::uint64_t built_in_runs = 1'000;
#else
constexpr std::uint64_t built_in_runs = 20'000;
#endif

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
    const char* text = std::getenv(variable);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void print_sums(const SimulationGround& ground, std::uint64_t runs) {
    std::printf("%llu seeds: %llu spliced, %llu never paired, %llu closed in the hand-off\n",
                static_cast<unsigned long long>(runs),
                static_cast<unsigned long long>(ground.spliced),
                static_cast<unsigned long long>(ground.unpaired),
                static_cast<unsigned long long>(ground.closed_in_handoff));
    std::printf("freezes undone %llu, bytes drained %llu, frames replayed %llu\n",
                static_cast<unsigned long long>(ground.retried_freezes),
                static_cast<unsigned long long>(ground.drained_bytes),
                static_cast<unsigned long long>(ground.replayed_frames));
    for (std::size_t reason = 0; reason < ground.to_stream.size(); ++reason) {
        std::printf("  to stream, %s: %llu\n",
                    std::string(to_string(static_cast<abi::StreamReason>(reason))).c_str(),
                    static_cast<unsigned long long>(ground.to_stream[reason]));
    }
    for (std::size_t reason = 0; reason < ground.ended.size(); ++reason) {
        std::printf("  ended here, %s: %llu\n",
                    std::string(to_string(static_cast<abi::EndReason>(reason))).c_str(),
                    static_cast<unsigned long long>(ground.ended[reason]));
    }
}

// The seeds must reach what they are for: every state, and every way out of one.
// The seeds must reach what they are for.
void expect_reached(const SimulationGround& ground, std::uint64_t runs) {
    EXPECT_GT(ground.spliced, runs / 4);
    EXPECT_GT(ground.drained_bytes, runs);
    EXPECT_GT(ground.replayed_frames, ground.spliced / 2);
    EXPECT_GT(ground.unpaired, 0U);
}

// What is rare as well; fewer seeds, as the sanitizers have, say nothing of that.
constexpr std::uint64_t least_runs_for_the_rare = 10'000;
void expect_the_rare_reached(const SimulationGround& ground, std::uint64_t runs) {
    EXPECT_GT(ground.unpaired, runs / 100);
    EXPECT_GE(ground.closed_in_handoff, runs / 1'000);
    EXPECT_GE(ground.retried_freezes, runs / 200);
    for (std::size_t index = 0; index < ground.to_stream.size(); ++index) {
        const auto reason = static_cast<abi::StreamReason>(index);
        // Memory does not run out here; handoff_test.cpp has that.
        if (reason != abi::StreamReason::unknown_neighbour) {
            EXPECT_GE(ground.to_stream[index], runs / 500) << abi::to_string(reason);
        }
    }
    for (const abi::EndReason reason : {abi::EndReason::fin, abi::EndReason::reset,
                                        abi::EndReason::closed, abi::EndReason::drained}) {
        EXPECT_GE(ground.ended[static_cast<std::size_t>(reason)], runs / 500)
            << abi::to_string(reason);
    }
}

TEST(HandoffSimulation, EveryByteOnceAndInOrderWhateverHappens) {
    SimulationGround ground;
    if (const std::uint64_t seed = number_from("BORE_SIMULATION_SEED", 0); seed != 0) {
        EXPECT_EQ(simulate(ground, seed, true), "") << "seed " << seed;
        return;
    }
    const std::uint64_t runs = number_from("BORE_SIMULATION_RUNS", built_in_runs);
    for (std::uint64_t seed = 1; seed <= runs; ++seed) {
        const std::string failure = simulate(ground, seed, false);
        if (!failure.empty()) {
            SimulationGround again;
            (void)simulate(again, seed, true);
            FAIL() << "seed " << seed << ": " << failure << "; BORE_SIMULATION_SEED=" << seed
                   << " shows its steps again";
        }
    }
    print_sums(ground, runs);
    expect_reached(ground, runs);
    if (runs >= least_runs_for_the_rare) {
        expect_the_rare_reached(ground, runs);
    }
}

}  // namespace
}  // namespace bore::packet::testing
