// The exception interface as the rest of the machine and the wire see it.
#include "drivers/kernel/exception_interface.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/mount.h>

#include <csignal>

#include "drivers/kernel/ethernet_features.hpp"
#include "tests/host/namespaces.hpp"

namespace bore::drivers::testing {
namespace {

using ExceptionInterfaceTest = HostTest;

ExceptionInterfaceOptions sample() {
    return {.name = "bore0",
            .mac = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55},
            .mtu_bytes = 1400,
            .addresses = {"192.0.2.10/24", "2001:db8::10/64"},
            .gateways = {"192.0.2.1", "fe80::1"}};
}

// Frames of the kernel until none came for 100 ms.
std::vector<std::vector<std::uint8_t>> frames_of(ExceptionInterface& port) {
    std::vector<std::vector<std::uint8_t>> frames;
    pollfd waiting{.fd = port.descriptor(), .events = POLLIN, .revents = 0};
    while (::poll(&waiting, 1, 100) > 0) {
        std::vector<std::uint8_t> buffer(port.max_frame_bytes());
        buffer.resize(port.read(std::as_writable_bytes(std::span(buffer))));
        if (buffer.empty()) {
            break;
        }
        frames.push_back(std::move(buffer));
    }
    return frames;
}

std::string error_of(const ExceptionInterfaceOptions& options) {
    const auto made = make_exception_interface(options);
    return made ? "" : made.error();
}

TEST_F(ExceptionInterfaceTest, CarriesWhatItWasGiven) {
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    const std::string shown = output_of("ip -d addr show bore0");
    for (const char* part : {"UP", "mtu 1400", "02:11:22:33:44:55", "inet 192.0.2.10/24",
                             "inet6 2001:db8::10/64", "tun type tap", "qlen 4096"}) {
        EXPECT_NE(shown.find(part), std::string::npos) << part << "\n" << shown;
    }
    EXPECT_EQ(shown.find("persist on"), std::string::npos) << shown;
    EXPECT_EQ((*port)->name(), "bore0");
    EXPECT_EQ((*port)->index(), static_cast<int>(::if_nametoindex("bore0")));
    EXPECT_EQ((*port)->max_frame_bytes(), 1418U);
    for (const char* feature : {"tx-checksum-ip-generic", "tx-tcp-segmentation",
                                "tx-generic-segmentation", "rx-gro", "tx-scatter-gather"}) {
        EXPECT_FALSE(EthernetFeatures("bore0").is_on(feature)) << feature;
    }
}

TEST_F(ExceptionInterfaceTest, AnswersArp) {
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    (void)frames_of(**port);
    const auto question =
        hex("ffffffffffff 020000000009 0806 0001 0800 0604 0001 020000000009 c0000209 "
            "000000000000 c000020a");
    EXPECT_TRUE((*port)->write(std::as_bytes(std::span(question))));
    const auto answers = frames_of(**port);
    const auto expected =
        hex("020000000009 021122334455 0806 0001 0800 0604 0002 021122334455 c000020a "
            "020000000009 c0000209");
    EXPECT_NE(std::find(answers.begin(), answers.end(), expected), answers.end());
    EXPECT_EQ((*port)->counters().written_frames, 1U);
    EXPECT_GE((*port)->counters().read_frames, 1U);
    EXPECT_EQ((*port)->counters().write_errors, 0U);
}

// arp_ignore: a NIC of its own does not speak for the machine's other addresses.
TEST_F(ExceptionInterfaceTest, LeavesArpForOtherInterfacesUnanswered) {
    must_run("ip addr add 192.0.2.77/32 dev lo");
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    (void)frames_of(**port);
    const auto question =
        hex("ffffffffffff 020000000009 0806 0001 0800 0604 0001 020000000009 c0000209 "
            "000000000000 c000024d");
    EXPECT_TRUE((*port)->write(std::as_bytes(std::span(question))));
    for (const auto& frame : frames_of(**port)) {
        EXPECT_FALSE(frame[12] == 0x08 && frame[13] == 0x06) << "answered for 192.0.2.77";
    }
}

TEST_F(ExceptionInterfaceTest, Ipv6AddressIsUsableAtOnce) {
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    const int socket = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 own{};
    own.sin6_family = AF_INET6;
    ::inet_pton(AF_INET6, "2001:db8::10", &own.sin6_addr);
    // A tentative address cannot be bound to.
    EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&own), sizeof own), 0);
    ::close(socket);
}

TEST_F(ExceptionInterfaceTest, RefusesAFrameThatIsNone) {
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    const std::array<std::byte, 5> runt{};
    EXPECT_FALSE((*port)->write(runt));
    EXPECT_EQ((*port)->counters().write_errors, 1U);
    EXPECT_EQ((*port)->counters().latest_error, EINVAL);
}

TEST_F(ExceptionInterfaceTest, ReadFindsNothingWithoutWaiting) {
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    (void)frames_of(**port);
    std::vector<std::byte> buffer((*port)->max_frame_bytes());
    EXPECT_EQ((*port)->read(buffer), 0U);
    EXPECT_EQ((*port)->counters().read_errors, 0U);
}

// Two ports and a default route elsewhere: each address answers through its own port.
TEST_F(ExceptionInterfaceTest, AnswersLeaveWhereTheQuestionCame) {
    must_run(
        "ip link add other type veth peer name far && ip addr add 203.0.113.1/24 dev other && "
        "ip link set other up && ip link set far up && ip route add default via 203.0.113.2");
    const auto first = make_exception_interface(sample());
    auto options = sample();
    options.name = "bore1";
    options.mac[5] = 0x56;
    options.addresses = {"198.51.100.10/24", "2001:db8:1::10/64"};
    options.gateways = {"198.51.100.1", "2001:db8:1::1"};
    const auto second = make_exception_interface(options);
    ASSERT_TRUE(first) << first.error();
    ASSERT_TRUE(second) << second.error();
    const auto route = [](const std::string& what) { return output_of("ip route get " + what); };
    EXPECT_NE(route("100.64.0.1 from 192.0.2.10").find("via 192.0.2.1 dev bore0"),
              std::string::npos)
        << route("100.64.0.1 from 192.0.2.10");
    EXPECT_NE(route("100.64.0.1 from 198.51.100.10").find("via 198.51.100.1 dev bore1"),
              std::string::npos);
    EXPECT_NE(route("2001:4860::1 from 2001:db8::10").find("via fe80::1 dev bore0"),
              std::string::npos);
    EXPECT_NE(route("2001:4860::1 from 2001:db8:1::10").find("via 2001:db8:1::1 dev bore1"),
              std::string::npos);
    // A network of the other port, from this port's address: still out here.
    EXPECT_NE(route("198.51.100.9 from 192.0.2.10").find("dev bore0"), std::string::npos);
    // Everything else goes where it went before.
    EXPECT_NE(route("100.64.0.1").find("dev other"), std::string::npos);
}

// With the strictest filter a visitor from anywhere gets through to the address.
TEST_F(ExceptionInterfaceTest, StrictReversePathFilterTakesVisitorsIn) {
    must_run(
        "ip link add other type veth peer name far && ip addr add 203.0.113.1/24 dev other && "
        "ip link set other up && ip link set far up && ip route add default via 203.0.113.2 && "
        "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1");
    const auto port = make_exception_interface(sample());
    ASSERT_TRUE(port) << port.error();
    must_run("ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev bore0");
    (void)frames_of(**port);
    // ICMP echo request from 100.64.0.1.
    const auto ping =
        hex("021122334455 020000000001 0800 4500001c0000000040015496 64400001 c000020a "
            "0800f7fe00000001");
    const auto answered = [&] {
        EXPECT_TRUE((*port)->write(std::as_bytes(std::span(ping))));
        const auto frames = frames_of(**port);
        return std::any_of(frames.begin(), frames.end(), [](const auto& frame) {
            return frame.size() >= 42 && frame[12] == 0x08 && frame[13] == 0 && frame[23] == 1 &&
                   frame[34] == 0;
        });
    };
    EXPECT_TRUE(answered());
    must_run("ip rule del priority 30000");
    EXPECT_FALSE(answered()) << "the filter is off here, so this test shows nothing";
}

TEST_F(ExceptionInterfaceTest, LeavesNothingBehind) {
    {
        const auto port = make_exception_interface(sample());
        ASSERT_TRUE(port) << port.error();
        EXPECT_NE(output_of("ip rule").find("192.0.2.10"), std::string::npos);
        EXPECT_NE(output_of("ip -6 rule").find("2001:db8::10"), std::string::npos);
    }
    EXPECT_EQ(::if_nametoindex("bore0"), 0U);
    EXPECT_EQ(output_of("ip rule; ip -6 rule").find("30000:"), std::string::npos);
    EXPECT_EQ(output_of("ip route show table all").find("bore0"), std::string::npos);
}

TEST_F(ExceptionInterfaceTest, ReplacesWhatAKilledRelayLeft) {
    EXPECT_EQ(exit_code_of([] {
                  const auto port = make_exception_interface(sample());
                  if (port) {
                      ::raise(SIGKILL);
                  }
                  return 1;
              }),
              128 + SIGKILL);
    EXPECT_EQ(::if_nametoindex("bore0"), 0U);
    EXPECT_NE(output_of("ip rule").find("192.0.2.10"), std::string::npos) << "nothing to replace";
    {
        const auto port = make_exception_interface(sample());
        ASSERT_TRUE(port) << port.error();
        const std::string rules = output_of("ip rule");
        const std::size_t at = rules.find("from 192.0.2.10");
        ASSERT_NE(at, std::string::npos) << rules;
        EXPECT_EQ(rules.find("from 192.0.2.10", at + 1), std::string::npos) << rules;
    }
    EXPECT_EQ(output_of("ip rule; ip -6 rule").find("30000:"), std::string::npos);
}

TEST_F(ExceptionInterfaceTest, ErrorsNameValueAndRemedy) {
    const auto with = [](auto&& change) {
        auto options = sample();
        change(options);
        return error_of(options);
    };
    const auto expect = [](const std::string& error, std::initializer_list<const char*> parts) {
        for (const char* part : parts) {
            EXPECT_NE(error.find(part), std::string::npos) << part << " is not in: " << error;
        }
    };
    for (const char* bad : {"192.0.2.10", "192.0.2.10/33", "192.0.2.10/0", "192.0.2.10/x", "/24",
                            "192.0.2.10/24 ", "2001:db8::10/129", "host/24", ""}) {
        expect(with([bad](auto& options) { options.addresses = {bad}; }),
               {("\"" + std::string(bad) + "\"").c_str(), "as in 192.0.2.10/24"});
    }
    expect(with([](auto& options) { options.addresses.clear(); }), {"bore0", "address="});
    expect(with([](auto& options) { options.name = "much-too-long-name"; }),
           {"much-too-long-name", "1 to 15"});
    expect(with([](auto& options) { options.name = "a/b"; }), {"a/b", "without /"});
    expect(with([](auto& options) { options.mac = {}; }), {"bore0", "MAC"});
    expect(with([](auto& options) { options.mtu_bytes = 1200; }), {"1200", "1280"});
    expect(with([](auto& options) { options.gateways = {"192.0.3.1"}; }),
           {"192.0.3.1", "bore0", "correct"});
    expect(with([](auto& options) { options.gateways = {"192.0.2.1", "192.0.2.2"}; }),
           {"192.0.2.2", "second"});
    expect(with([](auto& options) { options.gateways = {"router"}; }), {"router", "192.0.2.1"});
    expect(with([](auto& options) { options.name = "lo"; }), {"lo", "exists", "interface=NAME"});
    must_run("ip addr add 192.0.2.10/32 dev lo");
    expect(error_of(sample()), {"192.0.2.10/24", "lo", "ip address del"});
    must_run("ip addr del 192.0.2.10/32 dev lo; sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    expect(error_of(sample()), {"2001:db8::10/64", "disable_ipv6"});
    EXPECT_EQ(::if_nametoindex("bore0"), 0U) << "a failure left the device";
    EXPECT_EQ(output_of("ip rule").find("30000:"), std::string::npos);
}

// The sentence of a child goes to stderr where it is not the expected one.
int expect_in_child(std::initializer_list<const char*> parts) {
    const std::string error = error_of(sample());
    for (const char* part : parts) {
        if (error.find(part) == std::string::npos) {
            std::fprintf(stderr, "%s is not in: %s\n", part, error.c_str());
            return 1;
        }
    }
    return 0;
}

TEST_F(ExceptionInterfaceTest, SaysWhatIsMissing) {
    EXPECT_EQ(exit_code_of([] {
                  give_up_everything();
                  return expect_in_child({"bore0", "CAP_NET_ADMIN"});
              }),
              0);
    EXPECT_EQ(exit_code_of([] {
                  if (::unshare(CLONE_NEWNS) != 0 ||
                      ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                      ::mount("none", "/dev/net", "tmpfs", 0, nullptr) != 0) {
                      return 2;
                  }
                  return expect_in_child({"/dev/net/tun", "modprobe tun"});
              }),
              0);
}

}  // namespace
}  // namespace bore::drivers::testing
