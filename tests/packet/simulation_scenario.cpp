// Most seeds are ordinary; each kind of trouble has a share of its own.
#include "tests/packet/simulation_scenario.hpp"

namespace bore::packet::testing {

namespace {

using base::microsecond_ns;
using base::millisecond_ns;
using base::second_ns;

std::uint32_t draw_sequence(Chance& chance) {
    // Often just before the wrap.
    const auto any = static_cast<std::uint32_t>(chance.next());
    return chance.percent(40) ? 0U - chance.between<std::uint32_t>(1, 4'000) : any;
}

TcpSettings draw_tcp(Chance& chance) {
    TcpSettings settings;
    settings.timestamps = chance.percent(75);
    settings.sack = chance.percent(85);
    settings.scaling = chance.percent(85);
    settings.window_scale = chance.one_of<std::uint8_t>({0, 2, 7, 10});
    settings.mss = chance.one_of<std::uint16_t>({200, 300, 400, 536});
    settings.buffer_bytes = chance.percent(80) ? 65'536 : chance.between(1'200U, 6'000U);
    settings.initial_sequence = draw_sequence(chance);
    settings.clock_offset = draw_sequence(chance);
    settings.burst_segments = chance.between(2U, 20U);
    settings.acknowledgement_delay_ns = chance.percent(50) ? 0 : 40 * millisecond_ns;
    return settings;
}

std::size_t draw_size(Chance& chance) {
    return chance.percent(15) ? 0 : chance.between<std::size_t>(1, 6'000) >> chance.between(0, 4);
}

PeerScenario draw_peer(Chance& chance) {
    PeerScenario peer;
    peer.peer = draw_tcp(chance);
    peer.kernel = draw_tcp(chance);
    peer.kernel.timestamps = peer.kernel.sack = peer.kernel.scaling = true;
    peer.kernel.mss = 536;
    peer.kernel.buffer_bytes = 65'536;
    peer.stream_bytes = draw_size(chance);
    peer.early_bytes = chance.percent(50) ? 0 : chance.between<std::size_t>(0, peer.stream_bytes);
    peer.shuts_early = chance.percent(60);
    peer.shut_delay = chance.one_of<Nanoseconds>({0, 20 * millisecond_ns, 200 * millisecond_ns});
    peer.reads_slowly = chance.percent(15);
    peer.pause = chance.one_of<Nanoseconds>({0, 300 * microsecond_ns, 10 * millisecond_ns});
    peer.delay = chance.one_of<Nanoseconds>(
        {20 * microsecond_ns, 200 * microsecond_ns, 3 * millisecond_ns, 30 * millisecond_ns});
    peer.jitter = peer.delay / chance.between<Nanoseconds>(1, 8);
    if (chance.percent(40)) {
        peer.loss_mille = chance.one_of({0U, 5U, 30U, 120U});
        peer.repeat_mille = chance.one_of({0U, 30U, 100U});
        peer.reorder_mille = chance.one_of({0U, 50U, 200U});
    }
    peer.kernel_round_trip_us = static_cast<std::uint32_t>(2 * peer.delay / microsecond_ns);
    return peer;
}

// What undoes a freeze: the client's first bytes are in the kernel but for some that arrive while
// the visitor has acknowledged those before, between two of the slow path's questions.
void draw_late_frames(Chance& chance, Scenario& scenario) {
    auto& [visitor, client] = scenario.peers;
    scenario.limits.path_policy = abi::PathPolicy::splice;
    scenario.port_of = {0, 1};
    scenario.to_kernel_lag = {0, chance.between<Nanoseconds>(1'000'000, 10'000'000)};
    scenario.from_kernel_lag = scenario.divert_lag = scenario.inject_lag = 0;
    scenario.control_lag = 0;
    scenario.kernel_runs_percent = chance.one_of({0U, 5U});
    scenario.snapshot_runs_percent = chance.one_of({30U, 70U});
    scenario.reads_behind_accept = true;
    scenario.options.max_freezes = chance.one_of({1U, 2U, 64U});
    for (PeerScenario* peer : {&visitor, &client}) {
        peer->delay = 20 * microsecond_ns;
        peer->jitter = 0;
        peer->loss_mille = peer->reorder_mille = 0;
    }
    visitor.shuts_early = true;
    visitor.peer.acknowledgement_delay_ns = 0;
    client.stream_bytes = client.early_bytes = chance.between<std::size_t>(2'000, 6'000);
    client.shuts_early = false;
    client.peer.mss = client.kernel.mss = 200;
    client.peer.burst_segments = 20;
}

void draw_trouble(Chance& chance, Scenario& scenario) {
    switch (chance.between(0, 24)) {
        case 0:
            scenario.client_comes = false;
            scenario.options.hold_deadline_ns =
                chance.one_of<Nanoseconds>({100 * millisecond_ns, 15 * second_ns});
            break;
        case 1:
            draw_late_frames(chance, scenario);
            break;
        case 2:
            scenario.failed_snapshot = chance.between(0, 1);
            break;
        case 3:
            scenario.table_is_full = true;
            break;
        case 4:
            scenario.options.max_held_bytes_per_leg = chance.between<std::size_t>(300, 2'500);
            break;
        case 5:
            scenario.options.max_freezes = chance.between(1U, 2U);
            break;
        case 6:
            scenario.closes_at = chance.between<Nanoseconds>(0, 200 * millisecond_ns);
            break;
        case 7:
            scenario.drains_at = chance.between<Nanoseconds>(0, 200 * millisecond_ns);
            scenario.drain_time = chance.between<Nanoseconds>(0, 300 * millisecond_ns);
            break;
        case 8:
        case 9:
            scenario.peers[chance.between<std::size_t>(0, 1)].aborts_at =
                chance.between<Nanoseconds>(1, 300 * millisecond_ns);
            break;
        case 10:
            scenario.options.drain_deadline_ns = chance.between<Nanoseconds>(1, 5 * millisecond_ns);
            break;
        case 11:
            scenario.options.max_held_bytes = chance.between<std::size_t>(300, 1'500);
            break;
        case 12:
            scenario.unsupported_options = true;
            break;
        case 13:
            scenario.options.hold_deadline_ns = chance.between<Nanoseconds>(1, 20 * millisecond_ns);
            break;
        case 14:
            scenario.options.max_legs = 1;
            break;
        case 15:
            scenario.v6[0] = !scenario.v6[1];
            break;
        default:
            break;
    }
}

}  // namespace

Scenario draw_scenario(Chance& chance) {
    Scenario scenario;
    scenario.peers = {draw_peer(chance), draw_peer(chance)};
    // Somebody must end first.
    scenario.peers[chance.between<std::size_t>(0, 1)].shuts_early = true;
    if (chance.percent(85)) {  // parity, most of the time
        scenario.peers[1].peer.sack = scenario.peers[0].peer.sack;
    }
    scenario.v6.fill(chance.percent(20));
    scenario.port_of =
        chance.percent(20) ? std::array<std::uint8_t, 2>{0, 0} : std::array<std::uint8_t, 2>{0, 1};
    scenario.limits.path_policy = chance.percent(75)   ? abi::PathPolicy::splice
                                  : chance.percent(80) ? abi::PathPolicy::automatic
                                                       : abi::PathPolicy::stream;
    scenario.options.control_port = control_port;
    scenario.options.worker_count = 2;
    scenario.options.max_payload_with_options = 536;
    scenario.divert_lag = chance.one_of<Nanoseconds>({0, 5'000, 200'000});
    // Trap 1 and 2 live here: frames that are on their way to the kernel at the freeze.
    scenario.to_kernel_lag.fill(chance.one_of<Nanoseconds>({0, 20'000, 300'000, 3'000'000}));
    scenario.from_kernel_lag = chance.one_of<Nanoseconds>({0, 20'000, 300'000});
    scenario.kernel_runs_percent = chance.one_of({0U, 20U, 50U});
    scenario.snapshot_runs_percent = scenario.kernel_runs_percent;
    scenario.inject_lag = chance.one_of<Nanoseconds>({0, 5'000, 100'000});
    scenario.control_lag = chance.one_of<Nanoseconds>({0, 10'000, 500'000, 5'000'000});
    scenario.client_delay = chance.one_of<Nanoseconds>({0, 100'000, 10'000'000, 100'000'000});
    scenario.reads_behind_accept = chance.percent(10);
    scenario.tells_facts = chance.percent(80);
    scenario.short_moves_percent = chance.percent(20) ? 50 : 0;
    scenario.kernel_loss_mille = chance.percent(10) ? 50 : 0;
    scenario.replay_loss_mille = chance.percent(10) ? 100 : 0;
    draw_trouble(chance, scenario);
    return scenario;
}

}  // namespace bore::packet::testing
