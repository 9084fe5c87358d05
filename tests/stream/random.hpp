// The one source of chance of a simulated run: everything follows from its seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace bore::stream::testing {

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    // Both ends included.
    template <typename Integer>
    Integer between(Integer least, Integer most) {
        const auto range = static_cast<std::uint64_t>(most - least) + 1;
        return static_cast<Integer>(least + static_cast<Integer>(engine_() % range));
    }
    bool chance(unsigned percent) { return engine_() % 100 < percent; }
    // From 1 to `most`, small values as likely as large ones.
    std::size_t any_size(std::size_t most) {
        const std::size_t limit = most >> between<unsigned>(0, 11);
        return between<std::size_t>(1, limit == 0 ? 1 : limit);
    }

  private:
    std::mt19937_64 engine_;
};

}  // namespace bore::stream::testing
