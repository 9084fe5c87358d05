// What the port layer itself costs: frames of two ports are sent out of the other one, as testpmd's
// `io` does, and cycles per packet are printed. Not a test: tools and people run it. With capture
// files as ports the driver's own work is the same in both programs:
//
//   dpdk_forward_cost pcap_loop:64.pcap pcap_loop:64.pcap [SECONDS [EAL ARGUMENT]…]
//   dpdk_forward_cost --write 64.pcap FRAME_BYTES FLOWS
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/dpdk/eal.hpp"
#include "drivers/dpdk/port.hpp"
#include "tests/dpdk/wire.hpp"

namespace {

using bore::packet::Frame;
using bore::packet::max_burst;
using bore::packet::PacketPort;

int write_capture(const std::string& path, std::size_t frame_bytes, unsigned flows) {
    std::ofstream file{path, std::ios::binary};
    const std::array<std::uint32_t, 6> header{0xa1b2'c3d4, 0x0004'0002, 0, 0, 65'535, 1};
    file.write(reinterpret_cast<const char*>(header.data()), sizeof header);
    for (unsigned flow = 0; flow < flows; ++flow) {
        const auto frame = bore::dpdk_test::make_frame(
            {.source_port = static_cast<std::uint16_t>(flow), .length_bytes = frame_bytes});
        const auto size = static_cast<std::uint32_t>(frame.size());
        const std::array<std::uint32_t, 4> record{0, 0, size, size};
        file.write(reinterpret_cast<const char*>(record.data()), sizeof record);
        file.write(reinterpret_cast<const char*>(frame.data()), size);
    }
    return file.good() ? 0 : 1;
}

std::size_t forward(PacketPort& from, PacketPort& to) {
    static std::array<Frame, max_burst> frames;  // made once, as a worker's is
    const std::size_t received = from.receive(0, frames);
    const std::span<Frame> burst = std::span{frames}.first(received);
    const std::size_t sent = to.transmit(0, burst);
    if (sent != received) {
        to.release(burst.subspan(sent));
    }
    return received;
}

// In pieces of about a millisecond, of which the fast ones ran undisturbed by whoever else has work
// for the processor.
void measure(PacketPort& left, PacketPort& right, double seconds) {
    using clock = std::chrono::steady_clock;
    constexpr int warm_up_rounds = 10'000;
    constexpr int piece_rounds = 300;
    for (int round = 0; round < warm_up_rounds; ++round) {
        forward(left, right);
        forward(right, left);
    }
    std::vector<double> costs;
    std::uint64_t all_packets = 0;
    const auto begin = clock::now();
    const auto end = begin + std::chrono::duration<double>(seconds);
    const std::uint64_t first_cycle = __rdtsc();
    while (clock::now() < end) {
        std::uint64_t packets = 0;
        const std::uint64_t cycle = __rdtsc();
        for (int round = 0; round < piece_rounds; ++round) {
            packets += forward(left, right) + forward(right, left);
        }
        costs.push_back(static_cast<double>(__rdtsc() - cycle) / static_cast<double>(packets));
        all_packets += packets;
    }
    const double elapsed = std::chrono::duration<double>(clock::now() - begin).count();
    std::ranges::sort(costs);
    std::printf(
        "cycles per packet: fastest 5 %% below %.1f, quarter %.1f, median %.1f; %.2f Mpps per "
        "port, TSC %.2f GHz\n",
        costs[costs.size() / 20], costs[costs.size() / 4], costs[costs.size() / 2],
        static_cast<double>(all_packets) / elapsed / 2e6,
        static_cast<double>(__rdtsc() - first_cycle) / elapsed / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
    const std::span<char*> arguments{argv, static_cast<std::size_t>(argc)};
    if (argc == 5 && std::string_view{argv[1]} == "--write") {
        return write_capture(argv[2], std::strtoul(argv[3], nullptr, 10),
                             static_cast<unsigned>(std::strtoul(argv[4], nullptr, 10)));
    }
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s DEVICE DEVICE [SECONDS [EAL ARGUMENT]…]\n", argv[0]);
        return 2;
    }
    std::string extra;
    for (const char* argument : arguments.subspan(static_cast<std::size_t>(argc > 4 ? 4 : argc))) {
        extra += std::string{argument} + " ";
    }
    auto eal = bore::drivers::make_eal({.devices = {argv[1], argv[2]}, .extra_arguments = extra});
    if (!eal) {
        std::fprintf(stderr, "%s\n", eal.error().c_str());
        return 1;
    }
    const std::array<bore::drivers::PortOptions, 2> options{
        bore::drivers::PortOptions{.device = argv[1]},
        bore::drivers::PortOptions{.device = argv[2]}};
    auto ports = bore::drivers::make_ports(**eal, options, {});
    if (!ports) {
        std::fprintf(stderr, "%s\n", ports.error().c_str());
        return 1;
    }
    measure(*(*ports)[0], *(*ports)[1], argc > 3 ? std::strtod(argv[3], nullptr) : 3.0);
    return 0;
}
