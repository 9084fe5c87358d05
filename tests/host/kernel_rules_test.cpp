// Who sees the frames of a NIC that stays with the kernel: packet sockets, and nobody else. `near`
// is the NIC, `far` the other end of its cable, in a namespace of its own.
#include "drivers/kernel/kernel_rules.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>

#include <csignal>

#include "drivers/kernel/ethernet_features.hpp"
#include "tests/host/namespaces.hpp"

namespace bore::drivers::testing {
namespace {

class KernelRulesTest : public HostTest {
  protected:
    void SetUp() override {
        HostTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        far_ = std::make_unique<Namespace>();
        must_run(
            "ip link add near address 02:00:00:00:00:01 type veth peer name far "
            "address 02:00:00:00:00:02 netns " +
            far_->path());
        far_->run([] {
            must_run(
                "sysctl -qw net.ipv6.conf.far.accept_dad=0; ip addr add 10.0.0.2/24 dev far; "
                "ip addr add fd00::2/64 dev far nodad; ip link set far up");
        });
        must_run(
            "sysctl -qw net.ipv6.conf.near.accept_dad=0; ip addr add 10.0.0.1/24 dev near; "
            "ip addr add fd00::1/64 dev near nodad; ip link set near up");
        wait_until_up("near");
        far_->run([] { wait_until_up("far"); });
    }

    static KernelRulesOptions options() {
        return {.exception_interface = "bore0", .kernel_device = "near", .frames_are_copies = true};
    }

    // Frames that `near` sends while `work` runs and for a moment after it.
    std::size_t frames_from_near(const std::function<void()>& work) {
        std::size_t count = 0;
        std::unique_ptr<Sniffer> sniffer;
        far_->run([&] { sniffer = std::make_unique<Sniffer>("far"); });
        work();
        for (const auto& frame : sniffer->frames(std::chrono::milliseconds(300))) {
            count += !frame.outgoing && frame.bytes[6] == 2 && frame.bytes[11] == 1 ? 1U : 0U;
        }
        return count;
    }

    // A SYN to a closed port of `near`, by IPv4 and IPv6, from `far`.
    void knock() {
        far_->run([] {
            must_run(
                "ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev far; "
                "ip neigh replace fd00::1 lladdr 02:00:00:00:00:01 dev far");
            sockaddr_in v4{};
            v4.sin_family = AF_INET;
            v4.sin_port = htons(9);
            ::inet_pton(AF_INET, "10.0.0.1", &v4.sin_addr);
            sockaddr_in6 v6{};
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(9);
            ::inet_pton(AF_INET6, "fd00::1", &v6.sin6_addr);
            const int first = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            const int second = ::socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            EXPECT_NE(::connect(first, reinterpret_cast<sockaddr*>(&v4), sizeof v4), 0);
            EXPECT_NE(::connect(second, reinterpret_cast<sockaddr*>(&v6), sizeof v6), 0);
            ::usleep(50'000);
            ::close(first);
            ::close(second);
        });
    }

    // ARP request, neighbour solicitation and router advertisement for `near`.
    void ask() {
        std::unique_ptr<Sniffer> mouth;
        far_->run([&] { mouth = std::make_unique<Sniffer>("far"); });
        EXPECT_TRUE(mouth->send(
            hex("ffffffffffff 020000000002 0806 0001 0800 0604 0001 020000000002 0a000002 "
                "000000000000 0a000001")));
        far_->run([] {
            must_run("ip neigh flush dev far");
            const int socket = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
            sockaddr_in6 to{};
            to.sin6_family = AF_INET6;
            to.sin6_port = htons(9);
            ::inet_pton(AF_INET6, "fd00::1", &to.sin6_addr);
            ::sendto(socket, "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
            ::close(socket);
        });
        ::usleep(50'000);
    }

    std::unique_ptr<Namespace> far_;
};

// Without the rules the kernel answers: what the next test forbids does happen.
TEST_F(KernelRulesTest, WithoutRulesTheKernelAnswers) {
    EXPECT_GE(frames_from_near([this] { knock(); }), 2U);
    EXPECT_GE(frames_from_near([this] { ask(); }), 2U);
    EXPECT_GE(frames_from_near([] {
                  must_run("ip link set near down && ip link set near up");
                  ::sleep(2);
              }),
              1U);
}

TEST_F(KernelRulesTest, PacketSocketsSeeFramesTheKernelDoesNot) {
    const auto rules = make_kernel_rules(options());
    ASSERT_TRUE(rules) << rules.error();
    EXPECT_TRUE((*rules)->warnings().empty()) << (*rules)->warnings().front();
    const Sniffer port("near");
    EXPECT_EQ(frames_from_near([this] { knock(); }), 0U);
    std::size_t v4 = 0;
    std::size_t v6 = 0;
    for (const auto& frame : port.frames()) {
        EXPECT_FALSE(frame.outgoing) << "the port would take it for a received frame";
        v4 += frame.bytes[12] == 0x08 && frame.bytes[13] == 0x00 && frame.bytes[23] == 6 ? 1U : 0U;
        v6 += frame.bytes[12] == 0x86 && frame.bytes[20] == 6 ? 1U : 0U;
    }
    EXPECT_GE(v4, 1U);
    EXPECT_GE(v6, 1U);
    EXPECT_EQ(frames_from_near([this] { ask(); }), 0U);
    EXPECT_GE(port.frames().size(), 2U);
}

TEST_F(KernelRulesTest, TheKernelSaysNothingByItself) {
    const auto rules = make_kernel_rules(options());
    ASSERT_TRUE(rules) << rules.error();
    const Sniffer port("near");
    EXPECT_EQ(frames_from_near([] {
                  must_run(
                      "ip link set near down && ip link set near up && "
                      "ip neigh flush dev near");
                  ::sleep(2);
              }),
              0U);
    for (const auto& frame : port.frames()) {
        EXPECT_FALSE(frame.outgoing);
    }
}

TEST_F(KernelRulesTest, ThePortItselfMaySend) {
    const auto rules = make_kernel_rules(options());
    ASSERT_TRUE(rules) << rules.error();
    const Sniffer port("near");
    EXPECT_EQ(frames_from_near([&] {
                  EXPECT_TRUE(port.send(hex("020000000002 020000000001 88b5 0001")));
                  EXPECT_TRUE(port.send(hex("020000000002 020000000001 88b5 0002")));
              }),
              2U);
}

TEST_F(KernelRulesTest, OffloadsAreOffAndPutBack) {
    EthernetFeatures near("near");
    must_run("ethtool -K near gro on");
    ASSERT_TRUE(near.is_on("rx-gro"));
    ASSERT_TRUE(near.is_on("tx-tcp-segmentation"));
    {
        const auto rules = make_kernel_rules(options());
        ASSERT_TRUE(rules) << rules.error();
        EXPECT_FALSE(near.is_on("rx-gro"));
        EXPECT_FALSE(near.is_on("rx-vlan-hw-parse"));
        EXPECT_TRUE(near.is_on("tx-tcp-segmentation")) << "not ours to change";
    }
    EXPECT_TRUE(near.is_on("rx-gro"));
    EXPECT_TRUE(near.is_on("rx-vlan-hw-parse"));
}

TEST_F(KernelRulesTest, GoesAwayAndLeavesOthersAlone) {
    must_run("nft add table inet others");
    {
        const auto rules = make_kernel_rules(options());
        ASSERT_TRUE(rules) << rules.error();
        EXPECT_NE(output_of("nft list tables").find("table netdev bore_bore0"), std::string::npos);
    }
    EXPECT_EQ(output_of("nft list tables"), "table inet others\n");
    EXPECT_GE(frames_from_near([this] { ask(); }), 1U);
}

TEST_F(KernelRulesTest, AKilledRelayLeavesNoTable) {
    EXPECT_EQ(exit_code_of([] {
                  const auto rules = make_kernel_rules(options());
                  if (rules && !output_of("nft list ruleset").empty()) {
                      ::raise(SIGKILL);
                  }
                  return 1;
              }),
              128 + SIGKILL);
    EXPECT_EQ(output_of("nft list tables"), "");
}

TEST_F(KernelRulesTest, ReplacesATableOfItsNameThatIsThere) {
    must_run("nft add table netdev bore_bore0 && nft add table inet bore_bore0");
    {
        const auto rules = make_kernel_rules(options());
        ASSERT_TRUE(rules) << rules.error();
        EXPECT_NE(output_of("nft list ruleset").find("flags owner"), std::string::npos);
    }
    EXPECT_EQ(output_of("nft list tables"), "");
}

TEST_F(KernelRulesTest, NamesOfInterfacesMakeNamesOfTables) {
    auto strange = options();
    strange.exception_interface = "we+i:r.d-0";
    const auto rules = make_kernel_rules(strange);
    ASSERT_TRUE(rules) << rules.error();
    EXPECT_NE(output_of("nft list tables").find("table netdev bore_we_i_r.d-0\n"),
              std::string::npos)
        << output_of("nft list tables");
}

// Another table makes the kernel track connections; the port's are left out.
TEST_F(KernelRulesTest, ConnectionsOfThePortAreNotTracked) {
    if (::access("/proc/sys/net/netfilter/nf_conntrack_count", R_OK) != 0) {
        GTEST_SKIP() << "this kernel has no connection tracking";
    }
    must_run(
        "nft add table inet firewall && "
        "nft 'add chain inet firewall input { type filter hook input priority 0; }' && "
        "nft add rule inet firewall input ct state invalid drop");
    const auto tracked = [this] {
        ask();
        return std::stoi(output_of("cat /proc/sys/net/netfilter/nf_conntrack_count"));
    };
    {
        // `near` in the place of the exception interface.
        const auto rules = make_kernel_rules({.exception_interface = "near", .kernel_device = {}});
        ASSERT_TRUE(rules) << rules.error();
        EXPECT_TRUE((*rules)->warnings().empty());
        EXPECT_EQ(tracked(), 0);
    }
    EXPECT_GE(tracked(), 1) << "nothing is tracked here anyway";
}

TEST_F(KernelRulesTest, ErrorsNameValueAndRemedy) {
    auto wrong = options();
    wrong.kernel_device = "nowhere0";
    const auto none = make_kernel_rules(wrong);
    ASSERT_FALSE(none);
    EXPECT_NE(none.error().find("no interface nowhere0"), std::string::npos) << none.error();
    wrong.kernel_device = "a\"; b";
    EXPECT_FALSE(make_kernel_rules(wrong));
    const auto said_in_child = [](bool copies) {
        return exit_code_of([copies] {
            give_up_everything();
            auto powerless = options();
            powerless.frames_are_copies = copies;
            const auto rules = make_kernel_rules(powerless);
            const std::string said = rules ? "" : rules.error();
            const bool named = said.find("near") != std::string::npos &&
                               said.find("CAP_NET_ADMIN") != std::string::npos;
            // af_xdp can live without, and says so.
            return copies ? (named ? 0 : 1) : (rules && (*rules)->warnings().size() >= 2 ? 0 : 1);
        });
    };
    EXPECT_EQ(said_in_child(true), 0);
    EXPECT_EQ(said_in_child(false), 0);
}

}  // namespace
}  // namespace bore::drivers::testing
