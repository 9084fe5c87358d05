// Ports and path rules of the packet engine as a person writes them.
#include "controlplane/config/packet_port.hpp"

#include <gtest/gtest.h>

#include "tests/config/load_helper.hpp"

namespace bore::config::testing {
namespace {

std::string error_of(const std::vector<std::string>& items) {
    const auto ports = parse_packet_ports(items);
    return ports ? "no error" : ports.error();
}

TEST(PacketPorts, APortHasADeviceAndItsSettings) {
    const auto ports = parse_packet_ports(
        {"0000:03:00.0", "address=192.0.2.10/24", "address=2001:db8::10/64", "gateway=192.0.2.1",
         "interface=uplink", "mtu=9000", "af_xdp:eth1", "address=198.51.100.7/32"});
    ASSERT_TRUE(ports) << ports.error();
    ASSERT_EQ(ports->size(), 2U);
    const PacketPort& first = (*ports)[0];
    EXPECT_EQ(first.device, "0000:03:00.0");
    ASSERT_EQ(first.addresses.size(), 2U);
    EXPECT_EQ(first.addresses[1].address.to_string(), "2001:db8::10");
    EXPECT_EQ(first.addresses[1].prefix_bits, 64);
    ASSERT_EQ(first.gateways.size(), 1U);
    EXPECT_EQ(first.interface, "uplink");
    EXPECT_EQ(first.mtu, 9000);
    EXPECT_EQ((*ports)[1].device, "af_xdp:eth1");
    EXPECT_EQ((*ports)[1].interface, "");
}

TEST(PacketPorts, OneItemMayHoldAWholePortAndTextComesBackAsItWas) {
    const std::string text = "af_packet:nic0,address=10.0.0.1/8,gateway=10.0.0.2,mtu=1400";
    const auto ports = parse_packet_ports({text});
    ASSERT_TRUE(ports) << ports.error();
    ASSERT_EQ(ports->size(), 1U);
    EXPECT_EQ(ports->front().to_string(), text);
}

TEST(PacketPorts, EveryErrorNamesThePieceAndTheRule) {
    EXPECT_NE(error_of({"address=10.0.0.1/8"}).find("begins with its device"), std::string::npos);
    EXPECT_NE(error_of({"af_packet:a"}).find("no address for af_packet:a"), std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1"}).find("192.0.2.10/24"), std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1/33"}).find("10.0.0.1/33"), std::string::npos);
    EXPECT_NE(error_of({"a", "address=::1/129"}).find("::1/129"), std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1/8", "gateway=x"}).find("gateway=x"),
              std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1/8", "mtu=575"}).find("576 to 9600"),
              std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1/8", "interface=a/b"}).find("interface=a/b"),
              std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1/8", "interface=sixteen-letters-"}).find("1 to 15"),
              std::string::npos);
    EXPECT_NE(error_of({"a", "address=10.0.0.1/8", "queues=4"}).find("only address"),
              std::string::npos);
    EXPECT_NE(error_of({"a,address=10.0.0.1/8", "a,address=10.0.0.2/8"}).find("twice"),
              std::string::npos);
    EXPECT_NE(error_of({"a,,address=10.0.0.1/8"}).find("begins with its device"),
              std::string::npos);
    std::vector<std::string> many;
    for (std::size_t index = 0; index <= max_packet_ports; ++index) {
        many.push_back("ring:" + std::to_string(index) + ",address=10.0.0.1/8");
    }
    EXPECT_NE(error_of(many).find("at most 16"), std::string::npos);
}

TEST(PathRules, TakePortsAndRanges) {
    const auto range = PathRule::parse("20000-20099=stream");
    ASSERT_TRUE(range) << range.error();
    EXPECT_EQ(range->first, 20000);
    EXPECT_EQ(range->last, 20099);
    EXPECT_EQ(range->path, PacketPath::stream);
    EXPECT_EQ(range->to_string(), "20000-20099=stream");
    EXPECT_EQ(PathRule::parse("7=auto")->to_string(), "7=auto");
    for (const char* text : {"", "=stream", "1", "1=", "0=stream", "2-1=stream", "65536=stream",
                             "1-65536=splice", "1=fast", "a=stream", "1-=stream"}) {
        const auto rule = PathRule::parse(text);
        ASSERT_FALSE(rule) << text;
        EXPECT_NE(rule.error().find("PORTS=PATH"), std::string::npos) << rule.error();
    }
}

TEST(PathRules, TheFirstRuleThatFitsWins) {
    const auto loaded =
        load_server({"--packet-path=splice", "--packet-path-rules=10-20=stream,15-30=auto"});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_EQ(packet_path(loaded->config, 9), PacketPath::splice);
    EXPECT_EQ(packet_path(loaded->config, 10), PacketPath::stream);
    EXPECT_EQ(packet_path(loaded->config, 20), PacketPath::stream);
    EXPECT_EQ(packet_path(loaded->config, 21), PacketPath::automatic);
    EXPECT_EQ(packet_path(loaded->config, 31), PacketPath::splice);
}

TEST(PacketEngine, NeedsAPort) {
    const auto loaded = load_server({"--engine=packet", "--open"});
    ASSERT_FALSE(loaded);
    EXPECT_NE(errors_of(loaded).find("packet-port"), std::string::npos) << errors_of(loaded);
    EXPECT_NE(errors_of(loaded).find("tools/nic"), std::string::npos) << errors_of(loaded);
}

TEST(PacketEngine, APortWithTheStreamEngineIsAWarning) {
    const auto loaded =
        load_server({"--engine=stream", "--open", "--packet-port=null,address=192.0.2.1/24"});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    ASSERT_EQ(loaded->warnings.size(), 1U);
    EXPECT_NE(loaded->warnings[0].find("packet-port"), std::string::npos);
}

}  // namespace
}  // namespace bore::config::testing
