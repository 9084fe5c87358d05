// What every test of ports needs: DPDK started once for the process, in a network namespace of its
// own; frames from and to ports.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/packet/port.hpp"
#include "drivers/dpdk/eal.hpp"
#include "drivers/dpdk/port.hpp"
#include "tests/dpdk/wire.hpp"

namespace bore::dpdk_test {

class PortTest : public testing::Test {
  protected:
    void SetUp() override;

    [[nodiscard]] drivers::Eal& eal();
    [[nodiscard]] std::unique_ptr<packet::PacketPort> open(const std::string& device,
                                                           std::uint16_t queue_count = 1);
    // The sentence of a port that can not be opened; empty and a failure when it can.
    [[nodiscard]] std::string refusal(const drivers::PortOptions& options);

    struct Received {
        std::uint16_t queue{0};
        packet::Frame frame;
    };
    // Test frames of all queues until `count` came or a second has passed; others are released.
    [[nodiscard]] std::vector<Received> receive(packet::PacketPort& port, std::size_t count);
    [[nodiscard]] static std::optional<packet::Frame> fill(packet::PacketPort& port,
                                                           std::span<const std::byte> bytes);
    // Whether it was taken.
    static bool send(packet::PacketPort& port, std::uint16_t queue,
                     std::span<const std::byte> bytes);
    static Bytes bytes_of(const packet::Frame& frame);
};

// Waits up to two seconds for a condition.
template <typename Condition>
[[nodiscard]] bool eventually(Condition&& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{2};
    while (std::chrono::steady_clock::now() < deadline) {
        if (condition()) {
            return true;
        }
    }
    return condition();
}

}  // namespace bore::dpdk_test
