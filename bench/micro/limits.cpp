// Bandwidth limits: the token bucket that both engines share, and the packet engine's queue.
#include <array>
#include <cstddef>

#include "bench/micro/conclude.hpp"
#include "dataplane/abi/tunnel_limits.hpp"
#include "dataplane/packet/shaper.hpp"

namespace bore::bench {

namespace {

using base::Nanoseconds;

constexpr Nanoseconds start = 1'000 * base::second_ns;
constexpr std::size_t segment_bytes = 1'460;
constexpr std::uint64_t segments_per_second = 1'000'000;
constexpr Nanoseconds segment_ns = base::second_ns / segments_per_second;

// What a step of a pair asks its bucket: may I read, how much, and then it is charged.
void ask_and_charge(benchmark::State& state, std::uint64_t bytes_per_second, bool right) {
    abi::RateLimiter limiter;
    limiter.set_rate(bytes_per_second);
    Nanoseconds now = start;
    std::uint64_t ready = 0;
    for (auto _ : state) {
        now += segment_ns;
        ready += static_cast<std::uint64_t>(limiter.ready_at() <= now);
        std::size_t bytes = limiter.read_size_bytes(segment_bytes);
        keep(bytes);
        limiter.charge(now, bytes, 0);
    }
    keep(ready);
    conclude(state, "bucket asked and charged", 1,
             right && ready == static_cast<std::uint64_t>(state.iterations()));
}

void unlimited(benchmark::State& state) {
    ask_and_charge(state, 0, true);
}
BENCHMARK(unlimited)->Name("limits/bucket_unlimited");

void limited(benchmark::State& state) {
    ask_and_charge(state, 2 * segment_bytes * segments_per_second, true);
}
BENCHMARK(limited)->Name("limits/bucket_limited");

// Every segment waits for its time and leaves: half of the rate that comes in would be too much,
// so the clock goes as the rate has it.
void shape(benchmark::State& state) {
    const auto tunnel_count = static_cast<std::uint32_t>(state.range(0));
    abi::TunnelTable tunnels(tunnel_count);
    packet::Shaper shaper(tunnels, {.tunnel_count = tunnel_count, .slot_count = 8'192});
    for (std::uint32_t tunnel = 0; tunnel < tunnel_count; ++tunnel) {
        // All tunnels together: as many segments as come.
        tunnels.change(tunnel, {.to_client_bytes_per_second =
                                    segment_bytes * segments_per_second / tunnel_count});
    }
    std::array<packet::Frame, packet::max_burst> out;
    packet::Frame frame;
    frame.length_bytes = 1'514;
    Nanoseconds now = start;
    std::uint64_t sent = 0;
    std::uint64_t dropped = 0;
    std::uint32_t tunnel = 0;
    for (auto _ : state) {
        now += segment_ns;
        switch (shaper.admit(frame, tunnel, abi::Leg::visitor, segment_bytes, now)) {
            case packet::Shaper::Admit::send:
                ++sent;
                break;
            case packet::Shaper::Admit::drop:
                ++dropped;
                break;
            case packet::Shaper::Admit::held:
                break;
        }
        sent += shaper.release_due(now, out);
        tunnel = tunnel + 1 == tunnel_count ? 0 : tunnel + 1;
    }
    const std::uint64_t waiting = shaper.held_frames();
    while (shaper.abandon(out) != 0) {
    }
    conclude(
        state, "segment through the queues of so many limited tunnels", 1,
        sent + dropped + waiting == static_cast<std::uint64_t>(state.iterations()) && dropped == 0);
}
BENCHMARK(shape)->Name("limits/shape")->Arg(1)->Arg(1'000);

}  // namespace

}  // namespace bore::bench
