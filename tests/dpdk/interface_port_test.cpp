// Ports on interfaces of the kernel: af_packet and af_xdp on veth pairs, and tap. The far end of
// the wire is a packet socket, which sees and sends bytes as they are.
#include <algorithm>
#include <array>
#include <map>
#include <ostream>
#include <set>
#include <vector>

#include "tests/dpdk/fixture.hpp"

namespace bore::dpdk_test {
namespace {

using packet::Frame;

struct WireCase {
    std::string type;  // af_packet or af_xdp
    std::uint16_t queues{1};
};

void PrintTo(const WireCase& each, std::ostream* stream) {
    *stream << each.type << ", " << each.queues << " queues";
}

class WirePort : public PortTest, public testing::WithParamInterface<WireCase> {
  protected:
    void SetUp() override {
        PortTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        static int made = 0;
        name_ = "w" + std::to_string(made++);
        ASSERT_TRUE(make_veth(name_, GetParam().queues));
        device_ = GetParam().type + ":" + name_;
        port_ = open(device_, GetParam().queues);
        ASSERT_NE(port_, nullptr);
        far_.emplace(name_ + "p");
        available_ = drivers::pool_state(*port_).available;
    }
    void TearDown() override {
        far_.reset();
        port_.reset();
        if (!name_.empty()) {
            run("ip link del " + name_);
        }
    }
    // Once, and again until it arrives: an interface that has just come up drops frames.
    [[nodiscard]] bool arrives(const Bytes& bytes) {
        for (int attempt = 0; attempt < 5; ++attempt) {
            if (!far_->send(bytes)) {
                continue;
            }
            auto received = receive(*port_, 1);
            const bool equal = !received.empty() && bytes_of(received[0].frame) == bytes;
            for (Received& each : received) {
                port_->release({&each.frame, 1});
            }
            if (equal) {
                return true;
            }
        }
        return false;
    }

    std::string name_, device_;
    std::unique_ptr<packet::PacketPort> port_;
    std::optional<WireEnd> far_;
    std::uint32_t available_{0};
};

TEST_P(WirePort, FramesCrossUnchangedBothWays) {
    std::uint64_t bytes = 0;
    for (std::uint16_t number = 1; number <= 300; ++number) {
        const Bytes in =
            make_frame({.source_port = number, .length_bytes = 60U + number * 4U + number % 14U});
        ASSERT_TRUE(far_->send(in));
        auto received = receive(*port_, 1);
        ASSERT_EQ(received.size(), 1U) << "frame " << number;
        ASSERT_EQ(bytes_of(received[0].frame), in);
        // Out again from the buffer it came in, from the queue it came from.
        packet::store16(received[0].frame.data + 34, 7'777);
        const Bytes out = bytes_of(received[0].frame);
        ASSERT_EQ(port_->transmit(received[0].queue, {&received[0].frame, 1}), 1U);
        const auto arrived = far_->receive();
        ASSERT_TRUE(arrived) << "frame " << number;
        ASSERT_EQ(*arrived, out);
        bytes += in.size();
    }
    const packet::PortStatistics statistics = port_->statistics();
    EXPECT_GE(statistics.received_packets, 300U);
    EXPECT_GE(statistics.received_bytes, bytes);
    EXPECT_EQ(statistics.sent_packets, 300U);
    EXPECT_EQ(statistics.sent_bytes, bytes);
    EXPECT_EQ(statistics.receive_errors + statistics.send_errors + statistics.no_buffer, 0U);
}

TEST_P(WirePort, NoBufferIsLost) {
    // XDP sockets keep buffers of what they sent until more is sent: the first round fills that.
    for (int round = 0; round < 2; ++round) {
        available_ = round == 0 ? available_ : drivers::pool_state(*port_).available;
        for (std::uint16_t number = 0; number < 4'000; ++number) {
            ASSERT_TRUE(far_->send(make_frame({.source_port = number})));
            for (Received& each : receive(*port_, 1)) {
                if (number % 2 == 0) {
                    port_->release({&each.frame, 1});
                } else if (port_->transmit(each.queue, {&each.frame, 1}) != 1) {
                    port_->release({&each.frame, 1});
                }
            }
        }
    }
    const std::uint32_t now = drivers::pool_state(*port_).available;
    if (GetParam().type == "af_packet") {
        EXPECT_EQ(now, available_);
    } else {
        EXPECT_GE(now + 2'048U * GetParam().queues, available_);
    }
}

TEST_P(WirePort, AllocatedFramesGoOutOnEveryQueue) {
    for (std::uint16_t queue = 0; queue < GetParam().queues; ++queue) {
        for (std::uint16_t number = 0; number < 100; ++number) {
            const Bytes out = make_frame({.source_port = number, .length_bytes = 1'514});
            ASSERT_TRUE(send(*port_, queue, out));
            const auto arrived = far_->receive();
            ASSERT_TRUE(arrived);
            ASSERT_EQ(*arrived, out);
        }
    }
}

TEST_P(WirePort, VlanTagsStayInTheFrame) {
    const Bytes tagged = make_frame({.source_port = 4, .length_bytes = 200, .vlan = 42});
    EXPECT_TRUE(arrives(tagged));
    ASSERT_TRUE(send(*port_, 0, tagged));
    const auto arrived = far_->receive();
    ASSERT_TRUE(arrived);
    EXPECT_EQ(*arrived, tagged);
}

TEST_P(WirePort, AFlowStaysOnItsQueueAndFlowsUseAllQueues) {
    std::map<std::uint16_t, std::set<std::uint16_t>> queues_of;
    std::set<std::uint16_t> used;
    for (int round = 0; round < 3; ++round) {
        for (std::uint16_t flow = 1'000; flow < 1'064; ++flow) {
            ASSERT_TRUE(far_->send(make_frame({.source_port = flow})));
        }
        auto received = receive(*port_, 64);
        ASSERT_EQ(received.size(), 64U);
        for (Received& each : received) {
            queues_of[source_port_of(each.frame.bytes())].insert(each.queue);
            used.insert(each.queue);
            port_->release({&each.frame, 1});
        }
    }
    EXPECT_EQ(used.size(), GetParam().queues);
    for (const auto& [flow, queues] : queues_of) {
        EXPECT_EQ(queues.size(), 1U) << "flow " << flow;
    }
}

TEST_P(WirePort, GoesOnAfterTheLinkWasDown) {
    EXPECT_TRUE(port_->link().up);
    EXPECT_TRUE(arrives(make_frame({.source_port = 1})));
    ASSERT_TRUE(run("ip link set " + name_ + "p down"));
    EXPECT_TRUE(eventually([&] { return !port_->link().up; }));
    std::array<Frame, packet::max_burst> frames;
    EXPECT_EQ(port_->receive(0, frames), 0U);
    if (auto frame = fill(*port_, make_frame({})); frame) {  // not taken, or lost: both are right
        port_->release(std::span{&*frame, 1}.subspan(port_->transmit(0, {&*frame, 1})));
    }
    ASSERT_TRUE(run("ip link set " + name_ + "p up"));
    EXPECT_TRUE(eventually([&] { return port_->link().up; }));
    EXPECT_TRUE(arrives(make_frame({.source_port = 2})));
    // Its own side as well.
    ASSERT_TRUE(run("ip link set " + name_ + " down"));
    EXPECT_TRUE(eventually([&] { return !port_->link().up; }));
    EXPECT_EQ(port_->receive(0, frames), 0U);
    ASSERT_TRUE(run("ip link set " + name_ + " up"));
    EXPECT_TRUE(eventually([&] { return port_->link().up; }));
    EXPECT_TRUE(arrives(make_frame({.source_port = 3})));
    // A packet socket keeps one frame that it could not send and sends it with the next; and the
    // first call after its interface was down only tells of that.
    for (std::uint16_t number = 4; number <= 5; ++number) {
        ASSERT_TRUE(send(*port_, 0, make_frame({.source_port = number})));
    }
    std::vector<std::uint16_t> arrived;
    while (arrived.empty() || arrived.back() != 5) {
        const auto frame = far_->receive();
        ASSERT_TRUE(frame);
        arrived.push_back(source_port_of(*frame));
    }
    EXPECT_EQ(std::ranges::count(arrived, 4), 1);
    EXPECT_LE(arrived.size(), 3U);
}

TEST_P(WirePort, FramesOfTheOwnKernelAreNotReceived) {
    // The kernel's side of the port's interface sends: a frame with the port's MAC as its source.
    WireEnd near{name_};
    Bytes own = make_frame({.source_port = 11});
    std::ranges::transform(port_->info().mac, own.begin() + 6,
                           [](std::uint8_t byte) { return static_cast<std::byte>(byte); });
    ASSERT_TRUE(near.send(own));
    ASSERT_TRUE(far_->receive()) << "it did not even leave";
    ASSERT_TRUE(far_->send(make_frame({.source_port = 12})));
    auto received = receive(*port_, 1);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_EQ(source_port_of(received[0].frame.bytes()), 12);
    port_->release({&received[0].frame, 1});
}

std::string name_of(const testing::TestParamInfo<WireCase>& chosen) {
    return chosen.param.type + "_" + std::to_string(chosen.param.queues);
}

INSTANTIATE_TEST_SUITE_P(Wires, WirePort,
                         testing::Values(WireCase{"af_packet", 1}, WireCase{"af_packet", 2},
                                         WireCase{"af_xdp", 1}),
                         name_of);

class TapPort : public PortTest {};

TEST_F(TapPort, TheKernelIsTheOtherSide) {
    if (!run("test -c /dev/net/tun")) {
        GTEST_SKIP() << "SKIPPED: no /dev/net/tun";
    }
    auto port = open("tap:bt0");
    ASSERT_NE(port, nullptr);
    WireEnd kernel{"bt0"};
    const Bytes frame = make_frame({.source_port = 3, .length_bytes = 900});
    ASSERT_TRUE(kernel.send(frame));
    auto received = receive(*port, 1);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_EQ(bytes_of(received[0].frame), frame);
    ASSERT_EQ(port->transmit(0, {&received[0].frame, 1}), 1U);
    const auto arrived = kernel.receive();
    ASSERT_TRUE(arrived);
    EXPECT_EQ(*arrived, frame);
}

}  // namespace
}  // namespace bore::dpdk_test
