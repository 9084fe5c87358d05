// Judges from the frames of a control connection whether silence means that the relay is dead. The
// relay chooses its heartbeat (500 ms in most, but it may be any or none), so silence says
// something only after a regular beat was seen; until then TCP keepalive is the only judge. Pure;
// used by Tunnel.
#pragma once

#include <cstdint>
#include <optional>

#include "dataplane/base/clock.hpp"

namespace bore::client {

class Liveness {
  public:
    // `silence_limit` is how long a regular relay may say nothing.
    explicit Liveness(base::Nanoseconds silence_limit) : silence_limit_(silence_limit) {}

    void on_heartbeat(base::Nanoseconds now) {
        // A beat slower than a third of the limit leaves no room for two lost ones.
        const bool soon = last_heartbeat_ != 0 && now - last_heartbeat_ <= silence_limit_ / 3;
        regular_count_ = soon ? regular_count_ + 1 : 0;
        last_heartbeat_ = now;
        on_bytes(now);
    }

    void on_bytes(base::Nanoseconds now) { last_bytes_ = now; }

    // When the relay is to be called dead; nothing while its beat is not known to be regular.
    [[nodiscard]] std::optional<base::Nanoseconds> deadline() const {
        if (regular_count_ < regular_after_count) {
            return std::nullopt;
        }
        return last_bytes_ + silence_limit_;
    }

  private:
    static constexpr std::uint32_t regular_after_count = 3;

    base::Nanoseconds silence_limit_;
    base::Nanoseconds last_heartbeat_{0};
    base::Nanoseconds last_bytes_{0};
    std::uint32_t regular_count_{0};
};

}  // namespace bore::client
