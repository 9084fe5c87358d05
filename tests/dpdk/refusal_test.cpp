// Ports that can not be opened: one sentence each, with value, rule and remedy, and nothing left
// behind.
#include <array>

#include "tests/dpdk/fixture.hpp"

namespace bore::dpdk_test {
namespace {

class Refusal : public PortTest {
  protected:
    void TearDown() override {
        // Whatever was refused, the next port can be opened.
        if (!IsSkipped()) {
            EXPECT_NE(open("null"), nullptr);
        }
    }
    static void expect_parts(const std::string& text, std::initializer_list<const char*> parts) {
        for (const char* part : parts) {
            EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
        }
        EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
};

TEST_F(Refusal, UnknownDevice) {
    expect_parts(refusal({.device = "af_paket:eth0"}), {"af_paket:eth0", "unknown", "af_packet:"});
}

TEST_F(Refusal, InterfaceThatDoesNotExist) {
    for (const char* device : {"af_packet:nosuch0", "af_xdp:nosuch0"}) {
        expect_parts(refusal({.device = device}), {device, "no interface nosuch0", "ip link"});
    }
}

TEST_F(Refusal, PciDeviceThatWasNotNamedAtTheStart) {
    expect_parts(refusal({.device = "0000:7f:1f.7"}), {"0000:7f:1f.7", "no driver"});
}

TEST_F(Refusal, MoreWorkersThanQueues) {
    expect_parts(refusal({.device = "ring:few", .queue_count = 17}),
                 {"ring:few", "16 queues for 17 workers", "net_ring", "--workers 16"});
    ASSERT_TRUE(make_veth("q1", 1));
    expect_parts(refusal({.device = "af_xdp:q1", .queue_count = 2}),
                 {"af_xdp:q1", "1 receive queue for 2 workers", "--workers 1", "af_packet:q1"});
    run("ip link del q1");
}

TEST_F(Refusal, QueuesThatNoWorkerWouldServe) {
    ASSERT_TRUE(make_veth("q3", 3));
    expect_parts(refusal({.device = "af_xdp:q3", .queue_count = 1}),
                 {"3 receive queues for 1 worker,", "ethtool -L q3 rx 1 tx 1"});
    run("ip link del q3");
}

TEST_F(Refusal, NoQueue) {
    expect_parts(refusal({.device = "null", .queue_count = 0}), {"0 queues", "--workers 1"});
}

TEST_F(Refusal, LargerMtuThanTheInterface) {
    ASSERT_TRUE(make_veth("m0", 1));
    expect_parts(refusal({.device = "af_packet:m0", .mtu_bytes = 1'501}),
                 {"mtu of 1501", "1500", "ip link set m0 mtu 1501"});
    ASSERT_TRUE(run("ip link set m0 mtu 9000"));
    expect_parts(refusal({.device = "af_xdp:m0"}), {"mtu of 9000", "af_packet:m0"});
    ASSERT_TRUE(run("ip link set m0 mtu 1771"));
    expect_parts(refusal({.device = "af_xdp:m0"}), {"mtu of 1771", "1770"});
    run("ip link del m0");
}

TEST_F(Refusal, XdpOnAnInterfaceThatIsDown) {
    ASSERT_TRUE(make_veth("d0", 1));
    ASSERT_TRUE(run("ip link set d0 down"));
    expect_parts(refusal({.device = "af_xdp:d0"}), {"af_xdp:d0", "down", "ip link set d0 up"});
    run("ip link del d0");
}

TEST_F(Refusal, TheSameDeviceTwice) {
    ASSERT_TRUE(make_veth("t0", 1));
    const std::array<drivers::PortOptions, 2> options{
        drivers::PortOptions{.device = "af_packet:t0"},
        drivers::PortOptions{.device = "af_xdp:t0"}};
    const auto ports = drivers::make_ports(eal(), options, {});
    ASSERT_FALSE(ports.has_value());
    expect_parts(ports.error(), {"af_xdp:t0", "twice"});
    run("ip link del t0");
}

TEST_F(Refusal, TheSecondPortTakesTheFirstWithIt) {
    ASSERT_TRUE(make_veth("s0", 1));
    const std::array<drivers::PortOptions, 2> options{
        drivers::PortOptions{.device = "af_xdp:s0"},
        drivers::PortOptions{.device = "pcap:/dev/zero"}};
    const auto ports = drivers::make_ports(eal(), options, {});
    ASSERT_FALSE(ports.has_value());
    expect_parts(ports.error(), {"pcap:/dev/zero", "net_pcap"});
    EXPECT_NE(open("af_xdp:s0"), nullptr);
    run("ip link del s0");
}

TEST_F(Refusal, MoreBuffersThanHugepages) {
    const auto port =
        drivers::make_port(eal(), {.device = "null"}, {.reserve_frames = 100'000'000});
    ASSERT_FALSE(port.has_value());
    expect_parts(port.error(), {"buffers", "MiB", "/proc/sys/vm/nr_hugepages"});
}

TEST_F(Refusal, DpdkTwice) {
    const auto second = drivers::make_eal({});
    ASSERT_FALSE(second.has_value());
    expect_parts(second.error(), {"once", "restart"});
}

}  // namespace
}  // namespace bore::dpdk_test
