// The program bore-micro-bench: Google Benchmark's own command line, with what its JSON should say
// of this build besides. `run` starts it; README.md says what is measured.
#include <benchmark/benchmark.h>

#include "bench/micro/conclude.hpp"

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 2;
    }
    benchmark::AddCustomContext("compiler", __VERSION__);
#if defined(__OPTIMIZE__)
    benchmark::AddCustomContext("optimized", "yes");
#else
    benchmark::AddCustomContext("optimized", "no");
#endif
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return bore::bench::any_result_was_wrong.load() ? 1 : 0;
}
