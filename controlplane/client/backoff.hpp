// How long to wait before the next attempt to reach the relay: doubling from a first delay to a
// greatest one, each drawn at random from its upper half, so that the clients of a relay that
// restarted do not come back in step. Pure; used by Tunnel.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace bore::client {

class Backoff {
  public:
    Backoff(std::chrono::milliseconds first, std::chrono::milliseconds greatest, unsigned seed)
        : first_(first), greatest_(greatest), next_(first), random_(seed) {}

    // In [d/2, d], where d is first, 2·first, 4·first ... greatest.
    [[nodiscard]] std::chrono::milliseconds next() {
        const auto full = next_;
        next_ = std::min(next_ * 2, greatest_);
        std::uniform_int_distribution<std::chrono::milliseconds::rep> draw(full.count() / 2,
                                                                           full.count());
        return std::chrono::milliseconds(draw(random_));
    }

    void reset() { next_ = first_; }

  private:
    std::chrono::milliseconds first_;
    std::chrono::milliseconds greatest_;
    std::chrono::milliseconds next_;
    std::minstd_rand random_;
};

}  // namespace bore::client
