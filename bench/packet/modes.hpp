// What bore-packet-bench can do, one function a mode. Each prints one line of JSON and returns the
// exit status.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace bore::bench {

struct TableOptions {
    std::uint32_t flow_count{1'000};
    bool ipv6{false};
    double seconds{1};
    std::uint64_t seed{1};
};
// Look-ups without packets: bursts of keys in an order of chance, cycles by stage.
int run_look_up(const TableOptions& options);
// Bytes behind the table while flows come.
int run_memory(const TableOptions& options);

struct PcapOptions {
    std::uint32_t flow_count{1'000};
    std::uint16_t payload_bytes{0};  // 0: frames of 64 bytes
    std::uint8_t port{0};            // 0: what visitors send, 1: what clients send
    bool ipv6{false};
    std::uint64_t seed{1};
    std::string output;
};
int run_pcap(const PcapOptions& options);

enum class ForwardMode : std::uint8_t { io, parse, rounds, look_up, splice };

struct ForwardOptions {
    ForwardMode mode{ForwardMode::splice};
    std::array<std::string, 2> captures;  // of run_pcap, with the same flows, payload and seed
    std::uint32_t flow_count{1'000};
    std::uint16_t payload_bytes{0};
    std::uint16_t buffer_bytes{
        0};  // of a frame's buffer behind the headroom; 0: for an MTU of 1500
    bool ipv6{false};
    double seconds{3};
    int cpu{1};
    std::uint64_t seed{1};
};
int run_forward(const ForwardOptions& options);

struct HandoffCallsOptions {
    std::uint32_t pair_count{500};
    std::uint32_t at_once{64};  // pairs that go through each step together
};
// The system calls of hand-offs, without a relay around them.
int run_handoff_calls(const HandoffCallsOptions& options);

}  // namespace bore::bench
