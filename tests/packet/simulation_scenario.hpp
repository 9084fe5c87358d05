// What happens in one seed of the hand-off simulation, drawn before it starts.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/abi/engine.hpp"
#include "dataplane/packet/slow_path.hpp"
#include "tests/packet/simulation_base.hpp"
#include "tests/packet/tcp_model.hpp"

namespace bore::packet::testing {

inline constexpr std::uint16_t tunnel_port = 20'000;
inline constexpr std::uint16_t control_port = 7'835;
inline constexpr std::uint32_t pair_slot = 5;
inline constexpr std::uint32_t pair_generation = 9;
inline constexpr Nanoseconds never = ~Nanoseconds{0};

// One peer's network and habits; [visitor], [client].
struct PeerScenario {
    TcpSettings peer;
    TcpSettings kernel;
    std::size_t stream_bytes{0};
    std::size_t early_bytes{0};  // written at once: with Accept, or before any pairing
    bool shuts_early{false};     // FIN behind its last byte, not behind the other's
    Nanoseconds shut_delay{0};
    bool reads_slowly{false};
    Nanoseconds pause{0};  // between writes, at most
    Nanoseconds delay{0};  // of the wire
    Nanoseconds jitter{0};
    unsigned loss_mille{0};
    unsigned repeat_mille{0};
    unsigned reorder_mille{0};
    std::uint32_t kernel_round_trip_us{0};
    Nanoseconds aborts_at{never};

    [[nodiscard]] bool is_smooth() const {
        return loss_mille == 0 && reorder_mille == 0 && !reads_slowly &&
               peer.buffer_bytes == 65'536;
    }
};

struct Scenario {
    std::array<PeerScenario, 2> peers;
    std::array<std::uint8_t, 2> port_of{0, 1};
    std::array<bool, 2> v6{};  // by peer
    abi::TunnelLimits limits;
    SlowPathOptions options;
    Nanoseconds divert_lag{0};
    std::array<Nanoseconds, 2> to_kernel_lag{};  // by port
    Nanoseconds from_kernel_lag{0};
    Nanoseconds inject_lag{0};
    Nanoseconds control_lag{0};
    Nanoseconds client_delay{0};
    bool client_comes{true};
    bool reads_behind_accept{false};
    bool tells_facts{true};
    // Refusals
    int failed_snapshot{-1};  // leg
    bool unsupported_options{false};
    bool table_is_full{false};
    unsigned kernel_runs_percent{0};    // beside any call that asks it about a socket
    unsigned snapshot_runs_percent{0};  // beside the one that reads its state
    unsigned short_moves_percent{0};
    unsigned kernel_loss_mille{0};
    unsigned replay_loss_mille{0};
    // Commands
    Nanoseconds closes_at{never};
    Nanoseconds drains_at{never};
    Nanoseconds drain_time{0};

    // Whether both streams must arrive whole.
    [[nodiscard]] bool is_whole() const {
        return client_comes && closes_at == never && drains_at == never &&
               peers[0].aborts_at == never && peers[1].aborts_at == never;
    }
    // Nothing is lost on the way, and nobody is slow: then nobody may have to send anything again
    // because of the hand-off (traps 2, 5 and 7 cost a retransmission timeout, not data).
    [[nodiscard]] bool is_smooth() const {
        return is_whole() && kernel_loss_mille == 0 && replay_loss_mille == 0 &&
               options.max_held_bytes == SlowPathOptions{}.max_held_bytes && peers[0].is_smooth() &&
               peers[1].is_smooth();
    }
    // What a segment and its acknowledgement need from end to end, at most.
    [[nodiscard]] Nanoseconds round_trip() const {
        Nanoseconds sum = 45 * base::millisecond_ns + 2 * inject_lag + 2 * divert_lag +
                          2 * std::max(to_kernel_lag[0], to_kernel_lag[1]) + 2 * from_kernel_lag;
        for (const PeerScenario& peer : peers) {
            sum += 2 * (peer.delay + peer.jitter) + peer.kernel_round_trip_us * 1'000;
        }
        return sum;
    }
};

[[nodiscard]] Scenario draw_scenario(Chance& chance);

}  // namespace bore::packet::testing
