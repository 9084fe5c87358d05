// What an operator may write as a device, and what is refused.
#include "drivers/dpdk/devices.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace bore::drivers {
namespace {

TEST(Devices, EveryFormIsUnderstood) {
    struct Case {
        const char* text;
        DeviceSpec expected;
    };
    using enum DeviceKind;
    const std::vector<Case> cases{
        {"0000:03:00.0", {.kind = pci, .text = "0000:03:00.0", .name = "0000:03:00.0"}},
        {"03:00.1", {.kind = pci, .text = "0000:03:00.1", .name = "0000:03:00.1"}},
        {"0000:AF:1E.7", {.kind = pci, .text = "0000:af:1e.7", .name = "0000:af:1e.7"}},
        {"af_packet:eth1", {.kind = af_packet, .text = "af_packet:eth1", .name = "eth1"}},
        {"af_xdp:enp3s0f0np0",
         {.kind = af_xdp, .text = "af_xdp:enp3s0f0np0", .name = "enp3s0f0np0"}},
        {"tap:bore-t.0", {.kind = tap, .text = "tap:bore-t.0", .name = "bore-t.0"}},
        {"ring:a_1", {.kind = ring, .text = "ring:a_1", .name = "a_1"}},
        {"null", {.kind = null, .text = "null", .name = ""}},
        {"null:64", {.kind = null, .text = "null:64", .name = "", .frame_bytes = 64}},
        {"pcap:/a/in", {.kind = pcap, .text = "pcap:/a/in", .name = "/a/in"}},
        {"pcap:in:out", {.kind = pcap, .text = "pcap:in:out", .name = "in", .output_file = "out"}},
        {"pcap_loop:in:out",
         {.kind = pcap_loop, .text = "pcap_loop:in:out", .name = "in", .output_file = "out"}},
    };
    for (const Case& each : cases) {
        const auto parsed = parse_device(each.text);
        ASSERT_TRUE(parsed.has_value()) << each.text << ": " << parsed.error();
        EXPECT_EQ(*parsed, each.expected) << each.text;
        EXPECT_EQ(parse_device(parsed->text), parsed) << each.text;
    }
}

TEST(Devices, EverythingElseIsRefusedInOneSentence) {
    for (const std::string text : {"",
                                   "eth1",
                                   "af_packet",
                                   "af_packet:",
                                   "af_packet:a b",
                                   "af_packet:a/b",
                                   "af_packet:a,b=1",
                                   "af_packet:sixteencharacter",
                                   "af_xdp:..",
                                   "ring:",
                                   "ring:a-b",
                                   "ring:a,b",
                                   "null:",
                                   "null:59",
                                   "null:1515",
                                   "null:64x",
                                   "null:-1",
                                   "pcap:",
                                   "pcap::out",
                                   "pcap:in:",
                                   "pcap:a:b:c",
                                   "pcap:a,rx_iface=eth0",
                                   "0000:03:00.8",
                                   "0000:03:00",
                                   "000:03:00.0",
                                   "0000:3:00.0",
                                   "0000:03:00.00",
                                   "g000:03:00.0",
                                   "virtio_user:x",
                                   "net_af_packet0"}) {
        const auto parsed = parse_device(text);
        ASSERT_FALSE(parsed.has_value()) << text;
        EXPECT_NE(parsed.error().find("\"" + text + "\""), std::string::npos) << parsed.error();
        EXPECT_EQ(parsed.error().find('\n'), std::string::npos);
    }
}

}  // namespace
}  // namespace bore::drivers
