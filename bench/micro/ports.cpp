// A free port found, taken and given back, while so many of a hundred are taken already.
#include <cstdint>

#include "bench/micro/conclude.hpp"
#include "controlplane/relay/port_allocator.hpp"

namespace bore::bench {

namespace {

using relay::PortAllocator;

constexpr std::uint16_t min_port = 1'024;
constexpr std::uint16_t max_port = 65'535;
constexpr std::uint32_t port_count = max_port - min_port + 1;

int bind_nothing(std::uint16_t /*port*/) {
    return 0;
}

// `taken` ports are in use, chosen by chance.
PortAllocator filled(std::uint32_t taken) {
    PortAllocator ports(min_port, max_port, {});
    Chance chance;
    const PortAllocator::Bind bind = bind_nothing;
    for (std::uint32_t port = 0; port < taken; ++port) {
        (void)ports.allocate(0, chance.next(), bind);
    }
    return ports;
}

void take_any_of(benchmark::State& state, std::uint32_t taken) {
    PortAllocator ports = filled(taken);
    const PortAllocator::Bind bind = bind_nothing;
    Chance chance;
    bool right = ports.free_count() == port_count - taken;
    for (auto _ : state) {
        const auto port = ports.allocate(0, chance.next(), bind);
        right &= port.has_value();
        ports.give_back(port.value_or(min_port));
    }
    conclude(state, "any port taken and given back, so many of 100 in use", 1,
             right && ports.free_count() == port_count - taken);
}

void take_any(benchmark::State& state) {
    take_any_of(state, static_cast<std::uint32_t>(state.range(0)) * port_count / 100);
}
BENCHMARK(take_any)->Name("ports/any")->Arg(0)->Arg(50)->Arg(99);

void take_last(benchmark::State& state) {
    take_any_of(state, port_count - 1);
}
BENCHMARK(take_last)->Name("ports/last_free");

void take_by_number(benchmark::State& state) {
    PortAllocator ports = filled(0);
    const PortAllocator::Bind bind = bind_nothing;
    bool right = true;
    for (auto _ : state) {
        const auto port = ports.allocate(8'080, 0, bind);
        right &= port == 8'080;
        ports.give_back(8'080);
    }
    conclude(state, "port of a number taken and given back", 1,
             right && ports.free_count() == port_count);
}
BENCHMARK(take_by_number)->Name("ports/by_number");

}  // namespace

}  // namespace bore::bench
