// What the two ends of a simulated pair do: messages of random size, in turns or all at once, read
// fast, slowly or not at all for a while, and an end in order, by reset, or never.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/base/clock.hpp"
#include "tests/stream/random.hpp"
#include "tests/stream/simulated_io.hpp"

namespace bore::stream::testing {

struct PeerPlan {
    std::vector<std::uint64_t> message_ends;  // positions in the stream
    bool in_turns{false};  // message i waits for the other side's message i (or i - 1)
    bool speaks_first{false};
    std::size_t write_bytes{64 * 1024};  // per turn at most
    std::size_t read_bytes{~std::size_t{0}};
    base::Nanoseconds stall_from{0};
    base::Nanoseconds stall_until{0};
    bool finishes{true};
    unsigned urgent_percent{0};                           // of its writes end with an urgent byte
    std::uint64_t resets_after_bytes{~std::uint64_t{0}};  // of its own stream
    int reset_error{0};

    [[nodiscard]] std::uint64_t total_bytes() const {
        return message_ends.empty() ? 0 : message_ends.back();
    }
};

class Peer {
  public:
    Peer() = default;
    explicit Peer(PeerPlan plan) : plan_(std::move(plan)) {}
    [[nodiscard]] const PeerPlan& plan() const { return plan_; }

    // Where the stream may be written to by now.
    [[nodiscard]] std::uint64_t allowed_bytes(const Connection& connection,
                                              const PeerPlan& opposite) const {
        if (!plan_.in_turns) {
            return plan_.total_bytes();
        }
        std::uint64_t allowed = 0;
        for (std::size_t index = 0; index < plan_.message_ends.size(); ++index) {
            const std::size_t awaited = plan_.speaks_first ? index : index + 1;
            const std::uint64_t answer =
                awaited == 0
                    ? 0
                    : opposite.message_ends[std::min(awaited, opposite.message_ends.size()) - 1];
            if (connection.taken_bytes < answer) {
                break;
            }
            allowed = plan_.message_ends[index];
        }
        return allowed;
    }

    void act(Connection& connection, const PeerPlan& opposite, base::Nanoseconds now,
             Random& random) {
        if (connection.failed || connection.closed) {
            return;
        }
        if (connection.arrived_bytes >= plan_.resets_after_bytes && random.chance(10)) {
            connection.fails(plan_.reset_error);
            return;
        }
        const std::uint64_t allowed = allowed_bytes(connection, opposite);
        if (connection.arrived_bytes < allowed) {
            const std::size_t most =
                std::min<std::uint64_t>({allowed - connection.arrived_bytes,
                                         connection.receive_room_bytes(), plan_.write_bytes});
            if (most > 0 && random.chance(plan_.urgent_percent)) {
                connection.peer_sends_urgent(most);
            } else {
                connection.peer_sends(most);
            }
        } else if (plan_.finishes && connection.arrived_bytes == plan_.total_bytes()) {
            connection.peer_finishes();
        }
        if (now < plan_.stall_from || now >= plan_.stall_until) {
            connection.peer_takes(plan_.read_bytes);
        }
    }

  private:
    PeerPlan plan_;
};

// Plans that can come to an end together: what one awaits the other sends.
inline std::array<PeerPlan, 2> make_plans(Random& random, std::size_t bulk_bytes,
                                          base::Nanoseconds now) {
    std::array<PeerPlan, 2> plans;
    const bool in_turns = random.chance(50);
    const std::size_t messages = random.between<std::size_t>(in_turns ? 1 : 0, in_turns ? 20 : 3);
    for (std::size_t side = 0; side < 2; ++side) {
        PeerPlan& plan = plans[side];
        const bool bulk = random.chance(40);
        std::uint64_t position = 0;
        for (std::size_t index = 0; index < messages; ++index) {
            // A few large messages, or many small ones.
            const bool large = bulk && position < bulk_bytes;
            position +=
                large ? random.between(bulk_bytes / 4, bulk_bytes) : random.any_size(30'000);
            plan.message_ends.push_back(position);
        }
        plan.urgent_percent = random.chance(20) ? 5 : 0;
        plan.in_turns = in_turns;
        plan.speaks_first = side == 0;
        plan.write_bytes =
            random.chance(30) ? random.any_size(8'192) + 500 : random.any_size(400'000) + 4'000;
        if (random.chance(30)) {
            plan.read_bytes = random.any_size(100'000) + 2'000;
        }
        if (random.chance(20)) {
            plan.stall_from = now + random.between<base::Nanoseconds>(0, 50 * base::millisecond_ns);
            plan.stall_until =
                plan.stall_from + random.between<base::Nanoseconds>(1, 3 * base::second_ns);
        }
    }
    return plans;
}

}  // namespace bore::stream::testing
