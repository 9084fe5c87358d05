// The ring between two threads: by one thread alone, which is its instructions, and by two, which
// is the way of a cache line between cores.
#include <thread>

#include "bench/micro/conclude.hpp"
#include "dataplane/abi/engine.hpp"
#include "dataplane/base/spsc_ring.hpp"

namespace bore::bench {

namespace {

using base::SpscRing;

template <typename Element>
void one_thread(benchmark::State& state) {
    SpscRing<Element> ring(1'024);
    bool right = true;
    for (auto _ : state) {
        Element element{};
        right &= ring.push(std::move(element));
        auto popped = ring.pop();
        right &= popped.has_value();
        keep(popped);
    }
    conclude(state, "element pushed and popped by one thread", 1, right && ring.empty());
}
BENCHMARK(one_thread<std::uint64_t>)->Name("ring/one_thread/8_bytes");
BENCHMARK(one_thread<abi::PairEnded>)->Name("ring/one_thread/pair_ended");

// Waits without burning the core that the other side may need.
class Patience {
  public:
    void wait() {
        if (++turns_ % 64 == 0) {
            std::this_thread::yield();
        }
    }

  private:
    unsigned turns_{0};
};

// Thread 0 pushes numbers, thread 1 pops them and sees that none is lost or doubled. Both have the
// same count of turns.
void two_threads(benchmark::State& state) {
    static SpscRing<std::uint64_t> ring(1'024);
    Patience patience;
    bool right = true;
    std::uint64_t number = 0;
    if (state.thread_index() == 0) {
        for (auto _ : state) {
            while (!ring.push(std::uint64_t{number})) {
                patience.wait();
            }
            ++number;
        }
    } else {
        for (auto _ : state) {
            auto popped = ring.pop();
            while (!popped) {
                patience.wait();
                popped = ring.pop();
            }
            right &= *popped == number++;
        }
        right &= ring.empty();
    }
    // The library adds up what the threads say.
    const std::int64_t items_per_turn = state.thread_index() == 0 ? 1 : 0;
    conclude(state, "element from thread to thread, wall time", items_per_turn, right);
}
BENCHMARK(two_threads)->Name("ring/two_threads")->Threads(2)->UseRealTime();

}  // namespace

}  // namespace bore::bench
