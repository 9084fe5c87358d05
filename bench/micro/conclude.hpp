// How every benchmark of this folder ends: it says what one item is and how many one turn of its
// loop had, so that all rows of the table are nanoseconds per item, and it shows that the work was
// done. A result that is wrong makes the row an error and the program's exit status 1.
#pragma once

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>

namespace bore::bench {

inline std::atomic<bool> any_result_was_wrong{false};

// `item` names one unit of work. `right` is the verdict on what the loop has left behind.
inline void conclude(benchmark::State& state, const char* item, std::int64_t items_per_turn,
                     bool right) {
    state.SetItemsProcessed(state.iterations() * items_per_turn);
    state.SetLabel(item);
    if (!right) {
        any_result_was_wrong.store(true, std::memory_order_relaxed);
        state.SkipWithError("the work was not done: its result is wrong");
    }
}

// The compiler must make `value`, and may not know what became of memory. Google Benchmark 1.7's
// DoNotOptimize() of a variable is an in-out constraint with alternatives, by which GCC 12 changes
// the variable now and then (seen: an amount of 1,460 charged as another one); as a constant it is
// an input alone.
template <typename T>
void keep(const T& value) {
    benchmark::DoNotOptimize(value);
}

// A cheap sequence of chance for loops, the same in every run (xorshift, Marsaglia 2003).
class Chance {
  public:
    std::uint32_t next() {
        word_ ^= word_ << 13U;
        word_ ^= word_ >> 17U;
        word_ ^= word_ << 5U;
        return word_;
    }

  private:
    std::uint32_t word_{2'463'534'242};
};

}  // namespace bore::bench
