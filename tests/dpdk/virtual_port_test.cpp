// Ports without an interface: ring, null and capture files. What is received is what was sent, and
// every buffer comes home.
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/dpdk/fixture.hpp"

namespace bore::dpdk_test {
namespace {

using packet::Frame;
using packet::max_burst;

class VirtualPort : public PortTest {
  protected:
    void SetUp() override {
        PortTest::SetUp();
        std::array<char, 32> pattern{"/tmp/bore-dpdk-XXXXXX"};
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern.data();
    }
    void TearDown() override {
        if (!folder_.empty()) {
            std::filesystem::remove_all(folder_);
        }
    }
    std::string folder_;
};

// libpcap's format: 24 bytes, then 16 before each frame.
void write_capture(const std::string& path, const std::vector<Bytes>& frames) {
    std::ofstream file{path, std::ios::binary};
    const std::array<std::uint32_t, 6> header{0xa1b2'c3d4, 0x0004'0002, 0, 0, 65'535, 1};
    file.write(reinterpret_cast<const char*>(header.data()), sizeof header);
    for (const Bytes& frame : frames) {
        const auto size = static_cast<std::uint32_t>(frame.size());
        const std::array<std::uint32_t, 4> record{0, 0, size, size};
        file.write(reinterpret_cast<const char*>(record.data()), sizeof record);
        file.write(reinterpret_cast<const char*>(frame.data()), size);
    }
}

std::vector<Bytes> read_capture(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    file.seekg(24);
    std::vector<Bytes> frames;
    std::array<std::uint32_t, 4> record{};
    while (file.read(reinterpret_cast<char*>(record.data()), sizeof record)) {
        Bytes frame(record[2]);
        file.read(reinterpret_cast<char*>(frame.data()), record[2]);
        frames.push_back(frame);
    }
    return frames;
}

TEST_F(VirtualPort, RingGivesBackWhatWasSentAndEveryBuffer) {
    auto port = open("ring:echo", 2);
    ASSERT_NE(port, nullptr);
    const std::uint32_t available = drivers::pool_state(*port).available;
    EXPECT_EQ(available, drivers::pool_state(*port).size);
    std::uint64_t bytes = 0;
    for (std::uint16_t number = 0; number < 1'000; ++number) {
        const auto queue = static_cast<std::uint16_t>(number % 2);
        const Bytes sent =
            make_frame({.source_port = number, .length_bytes = std::size_t{60} + number});
        ASSERT_TRUE(send(*port, queue, sent));
        auto received = receive(*port, 1);
        ASSERT_EQ(received.size(), 1U);
        EXPECT_EQ(received[0].queue, queue);
        EXPECT_EQ(received[0].frame.port_index, 0);
        EXPECT_EQ(received[0].frame.checksum, packet::ReceivedChecksum::unknown);
        ASSERT_EQ(bytes_of(received[0].frame), sent);
        port->release({&received[0].frame, 1});
        bytes += sent.size();
    }
    EXPECT_EQ(drivers::pool_state(*port).available, available);
    const packet::PortStatistics statistics = port->statistics();
    EXPECT_EQ(statistics.received_packets, 1'000U);
    EXPECT_EQ(statistics.sent_packets, 1'000U);
    EXPECT_EQ(statistics.received_bytes, bytes);
    EXPECT_EQ(statistics.sent_bytes, bytes);
    EXPECT_EQ(statistics.receive_errors, 0U);
    EXPECT_TRUE(port->link().up);
}

TEST_F(VirtualPort, AFrameMayGrowAtItsFrontAndShrink) {
    auto port = open("ring:moved");
    ASSERT_NE(port, nullptr);
    const Bytes whole = make_frame({.source_port = 9, .length_bytes = 500});
    auto frame = fill(*port, whole);
    ASSERT_TRUE(frame);
    EXPECT_GE(frame->headroom_bytes, 128);
    EXPECT_GE(frame->headroom_bytes + frame->length_bytes + frame->tailroom_bytes, 128 + 1'518);
    // Four bytes more in front, ten fewer behind.
    const std::uint16_t headroom_bytes = frame->headroom_bytes;
    frame->data -= 4;
    frame->headroom_bytes = static_cast<std::uint16_t>(headroom_bytes - 4);
    frame->length_bytes = static_cast<std::uint16_t>(frame->length_bytes + 4 - 10);
    std::memmove(frame->data, frame->data + 4, 12);
    packet::store32(frame->data + 12, 0x8100'0005);
    const Bytes expected = bytes_of(*frame);
    ASSERT_EQ(port->transmit(0, {&*frame, 1}), 1U);
    auto received = receive(*port, 1);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_EQ(bytes_of(received[0].frame), expected);
    EXPECT_EQ(received[0].frame.headroom_bytes, headroom_bytes - 4);
    port->release({&received[0].frame, 1});
    // A buffer given back and taken again starts anew.
    ASSERT_TRUE(port->allocate(*frame));
    EXPECT_EQ(frame->length_bytes, 0);
    EXPECT_GE(frame->headroom_bytes, 128);
    port->release({&*frame, 1});
}

TEST_F(VirtualPort, ABurstIsTakenInOrderAndTheRestStaysTheCallers) {
    auto port = open("ring:full");
    ASSERT_NE(port, nullptr);
    const std::uint32_t available = drivers::pool_state(*port).available;
    // The ring holds 1,023 frames; 40 bursts are 1,280.
    std::size_t taken = 0;
    for (std::uint16_t burst = 0; burst < 40; ++burst) {
        std::array<Frame, max_burst> frames;
        for (std::size_t index = 0; index < frames.size(); ++index) {
            auto frame = fill(
                *port,
                make_frame({.source_port = static_cast<std::uint16_t>(burst * max_burst + index)}));
            ASSERT_TRUE(frame);
            frames[index] = *frame;
        }
        const std::size_t sent = port->transmit(0, frames);
        port->release(std::span{frames}.subspan(sent));
        taken += sent;
    }
    EXPECT_EQ(taken, 1'023U);
    auto received = receive(*port, taken);
    ASSERT_EQ(received.size(), taken);
    for (std::size_t index = 0; index < taken; ++index) {
        ASSERT_EQ(source_port_of(received[index].frame.bytes()), index);
        port->release({&received[index].frame, 1});
    }
    EXPECT_EQ(drivers::pool_state(*port).available, available);
}

TEST_F(VirtualPort, AnEmptyPoolSaysSoAndRecovers) {
    auto port = open("null");
    ASSERT_NE(port, nullptr);
    std::vector<Frame> held;
    Frame frame;
    while (port->allocate(frame)) {
        held.push_back(frame);
        ASSERT_LE(held.size(), drivers::pool_state(*port).size);
    }
    EXPECT_EQ(held.size(), drivers::pool_state(*port).size);
    EXPECT_FALSE(port->allocate(frame));
    port->release(held);  // longer than a burst
    EXPECT_EQ(drivers::pool_state(*port).available, drivers::pool_state(*port).size);
    EXPECT_TRUE(port->allocate(frame));
    port->release({&frame, 1});
}

TEST_F(VirtualPort, NullSwallowsAndStaysSilent) {
    auto port = open("null");
    ASSERT_NE(port, nullptr);
    const std::uint32_t available = drivers::pool_state(*port).available;
    for (int number = 0; number < 100; ++number) {
        ASSERT_TRUE(send(*port, 0, make_frame({})));
    }
    EXPECT_EQ(drivers::pool_state(*port).available, available);
    std::array<Frame, max_burst> frames;
    EXPECT_EQ(port->receive(0, frames), 0U);
    EXPECT_EQ(port->statistics().sent_packets, 100U);
    EXPECT_EQ(port->statistics().sent_bytes, 6'000U);
}

TEST_F(VirtualPort, NullWithALengthReceivesWithoutEnd) {
    auto port = open("null:128");
    ASSERT_NE(port, nullptr);
    std::array<Frame, max_burst> frames;
    for (int number = 0; number < 1'000; ++number) {
        ASSERT_EQ(port->receive(0, frames), frames.size());
        ASSERT_EQ(frames[0].length_bytes, 128);
        port->release(frames);
    }
    EXPECT_EQ(port->statistics().received_bytes, 128U * max_burst * 1'000U);
}

TEST_F(VirtualPort, ACaptureFileComesOnceAndWhatIsSentIsWritten) {
    std::vector<Bytes> frames;
    for (std::uint16_t number = 0; number < 100; ++number) {
        frames.push_back(make_frame({.source_port = number, .length_bytes = 60U + number * 14U}));
    }
    write_capture(folder_ + "/in.pcap", frames);
    auto port = open("pcap:" + folder_ + "/in.pcap:" + folder_ + "/out.pcap");
    ASSERT_NE(port, nullptr);
    auto received = receive(*port, frames.size());
    ASSERT_EQ(received.size(), frames.size());
    for (std::size_t index = 0; index < received.size(); ++index) {
        EXPECT_EQ(bytes_of(received[index].frame), frames[index]);
        ASSERT_EQ(port->transmit(0, {&received[index].frame, 1}), 1U);
    }
    std::array<Frame, max_burst> more;
    EXPECT_EQ(port->receive(0, more), 0U);
    EXPECT_EQ(drivers::pool_state(*port).available, drivers::pool_state(*port).size);
    port.reset();  // closes the file
    EXPECT_EQ(read_capture(folder_ + "/out.pcap"), frames);
}

TEST_F(VirtualPort, AFrameInSeveralBuffersIsDroppedAndCounted) {
    // The driver of capture files splits what is longer than a buffer.
    const std::vector<Bytes> frames{make_frame({.source_port = 1}),
                                    make_frame({.source_port = 2, .length_bytes = 5'000}),
                                    make_frame({.source_port = 3})};
    write_capture(folder_ + "/long.pcap", frames);
    auto port = open("pcap:" + folder_ + "/long.pcap");
    ASSERT_NE(port, nullptr);
    auto received = receive(*port, 2);
    ASSERT_EQ(received.size(), 2U);
    EXPECT_EQ(bytes_of(received[0].frame), frames[0]);
    EXPECT_EQ(bytes_of(received[1].frame), frames[2]);
    for (Received& each : received) {
        port->release({&each.frame, 1});
    }
    EXPECT_EQ(port->statistics().receive_errors, 1U);
    EXPECT_EQ(drivers::pool_state(*port).available, drivers::pool_state(*port).size);
}

TEST_F(VirtualPort, ALoopingCaptureFileStartsOverOnEveryQueue) {
    std::vector<Bytes> frames;
    for (std::uint16_t number = 0; number < 50; ++number) {
        frames.push_back(make_frame({.source_port = number}));
    }
    write_capture(folder_ + "/loop.pcap", frames);
    auto port = open("pcap_loop:" + folder_ + "/loop.pcap", 2);
    ASSERT_NE(port, nullptr);
    const std::uint32_t available = drivers::pool_state(*port).available;
    EXPECT_LE(available + 100, drivers::pool_state(*port).size);  // it keeps the file's frames
    std::array<std::size_t, 2> counts{};
    for (int round = 0; round < 20; ++round) {
        for (std::uint16_t queue = 0; queue < 2; ++queue) {
            std::array<Frame, max_burst> burst;
            const std::size_t received = port->receive(queue, burst);
            for (Frame& frame : std::span{burst}.first(received)) {
                ASSERT_EQ(source_port_of(frame.bytes()), counts[queue]++ % frames.size());
            }
            ASSERT_EQ(port->transmit(queue, std::span{burst}.first(received)), received);
        }
    }
    EXPECT_GE(counts[0], 500U);
    EXPECT_GE(counts[1], 500U);
    EXPECT_EQ(drivers::pool_state(*port).available, available);
}

TEST_F(VirtualPort, PortsShareOnePoolAndSendEachOthersFrames) {
    const std::array<drivers::PortOptions, 2> options{drivers::PortOptions{.device = "ring:left"},
                                                      drivers::PortOptions{.device = "ring:right"}};
    auto ports = drivers::make_ports(eal(), options, {});
    ASSERT_TRUE(ports.has_value()) << ports.error();
    packet::PacketPort& left = *(*ports)[0];
    packet::PacketPort& right = *(*ports)[1];
    EXPECT_NE(left.info().mac, right.info().mac);
    const std::uint32_t available = drivers::pool_state(left).available;
    const Bytes sent = make_frame({.source_port = 5});
    ASSERT_TRUE(send(left, 0, sent));
    auto received = receive(left, 1);
    ASSERT_EQ(received.size(), 1U);
    ASSERT_EQ(right.transmit(0, {&received[0].frame, 1}), 1U);
    received = receive(right, 1);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_EQ(received[0].frame.port_index, 1);
    EXPECT_EQ(bytes_of(received[0].frame), sent);
    left.release({&received[0].frame, 1});
    EXPECT_EQ(drivers::pool_state(right).available, available);
}

TEST_F(VirtualPort, RegisteredThreadsLeaveNoBufferBehind) {
    auto port = open("ring:threads", 2);
    ASSERT_NE(port, nullptr);
    const std::uint32_t available = drivers::pool_state(*port).available;
    std::array<bool, 2> registered{};
    std::vector<std::thread> threads;
    for (std::uint16_t queue = 0; queue < 2; ++queue) {
        threads.emplace_back([&, queue] {
            registered[queue] = drivers::Eal::register_thread() && drivers::Eal::register_thread();
            for (std::uint16_t number = 0; number < 10'000; ++number) {
                if (!send(*port, queue, make_frame({.source_port = number}))) {
                    ADD_FAILURE() << "not sent";
                    break;
                }
                Frame frame;
                if (port->receive(queue, {&frame, 1}) == 1) {
                    port->release({&frame, 1});
                }
            }
            drivers::Eal::unregister_thread();
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_TRUE(registered[0] && registered[1]);
    EXPECT_EQ(drivers::pool_state(*port).available, available);
}

}  // namespace
}  // namespace bore::dpdk_test
