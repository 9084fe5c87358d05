#include "tests/dpdk/fixture.hpp"

#include <cstring>

// net_af_xdp of DPDK 22.11 does not free its socket's memory area when it closes (it counts the
// users of the area wrongly); for the leak check of a sanitizer build.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
    return "leak:xsk_umem__create";
}

namespace bore::dpdk_test {

namespace {

// Started at the first test and never ended: DPDK can not be started again.
struct Environment {
    std::string skip = enter_own_namespace();
    std::expected<std::unique_ptr<drivers::Eal>, std::string> eal = std::unexpected("not started");
    Environment() {
        if (skip.empty()) {
            eal =
                drivers::make_eal({.memory_mib = 64,
                                   .worker_cpus = {},
                                   .devices = {},
                                   .extra_arguments = {},
                                   .log = [](drivers::EalLogLevel level, std::string_view line) {
                                       if (level == drivers::EalLogLevel::error) {
                                           fprintf(stderr, "dpdk: %s\n", std::string{line}.c_str());
                                       }
                                   }});
        }
        if (skip.empty() && !eal) {
            skip = "SKIPPED: " + eal.error();
        }
    }
};

Environment& environment() {
    static Environment made;
    return made;
}

}  // namespace

void PortTest::SetUp() {
    if (!environment().skip.empty()) {
        GTEST_SKIP() << environment().skip;
    }
}

drivers::Eal& PortTest::eal() {
    return **environment().eal;
}

std::unique_ptr<packet::PacketPort> PortTest::open(const std::string& device,
                                                   std::uint16_t queue_count) {
    auto port = drivers::make_port(eal(), {.device = device, .queue_count = queue_count});
    EXPECT_TRUE(port.has_value()) << port.error();
    return port ? *std::move(port) : nullptr;
}

std::string PortTest::refusal(const drivers::PortOptions& options) {
    auto port = drivers::make_port(eal(), options);
    EXPECT_FALSE(port.has_value()) << options.device << " was opened";
    return port ? std::string{} : port.error();
}

std::vector<PortTest::Received> PortTest::receive(packet::PacketPort& port, std::size_t count) {
    std::vector<Received> all;
    const auto poll_once = [&] {
        for (std::uint16_t queue = 0; queue < port.info().queue_count; ++queue) {
            std::array<packet::Frame, packet::max_burst> burst;
            const std::size_t received = port.receive(queue, burst);
            for (packet::Frame& frame : std::span{burst}.first(received)) {
                if (is_test_frame(frame.bytes())) {
                    all.push_back({.queue = queue, .frame = frame});
                } else {
                    port.release({&frame, 1});
                }
            }
        }
        return all.size() >= count;
    };
    [[maybe_unused]] const bool enough = eventually(poll_once);
    return all;
}

std::optional<packet::Frame> PortTest::fill(packet::PacketPort& port,
                                            std::span<const std::byte> bytes) {
    packet::Frame frame;
    if (!port.allocate(frame)) {
        return std::nullopt;
    }
    std::memcpy(frame.data, bytes.data(), bytes.size());
    frame.length_bytes = static_cast<std::uint16_t>(bytes.size());
    return frame;
}

bool PortTest::send(packet::PacketPort& port, std::uint16_t queue,
                    std::span<const std::byte> bytes) {
    auto frame = fill(port, bytes);
    return frame && port.transmit(queue, {&*frame, 1}) == 1;
}

Bytes PortTest::bytes_of(const packet::Frame& frame) {
    return {frame.bytes().begin(), frame.bytes().end()};
}

}  // namespace bore::dpdk_test
