// The socket calls of a hand-off against a peer that is a real TCP in a namespace of its own, with
// a packet socket on the cable: what a snapshot says must be what the wire said.
#include "drivers/kernel/tcp_repair.hpp"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "dataplane/packet/frame.hpp"
#include "tests/host/namespaces.hpp"

namespace bore::drivers::testing {
namespace {

// One TCP segment as the sniffer saw it.
struct Segment {
    bool from_peer{false};
    std::uint8_t flags{0};
    std::uint32_t sequence{0};
    std::uint32_t acknowledgement{0};
    std::uint32_t payload_bytes{0};
    std::uint16_t window{0};
    std::optional<std::uint16_t> mss;
    std::optional<std::uint8_t> window_scale;
    std::optional<std::uint32_t> timestamp;
    bool sack_permitted{false};

    // The sequence number behind it.
    [[nodiscard]] std::uint32_t end() const {
        return sequence + payload_bytes + ((flags & packet::tcp_syn) != 0 ? 1U : 0U) +
               ((flags & packet::tcp_fin) != 0 ? 1U : 0U);
    }
};

void take_options(Segment& segment, const std::byte* at, const std::byte* end) {
    while (at < end && packet::load8(at) != 0) {
        const std::uint8_t kind = packet::load8(at);
        const std::uint8_t size = kind == 1 ? 1 : packet::load8(at + 1);
        if (kind == 2) {
            segment.mss = packet::load16(at + 2);
        } else if (kind == 3) {
            segment.window_scale = packet::load8(at + 2);
        } else if (kind == 4) {
            segment.sack_permitted = true;
        } else if (kind == 8) {
            segment.timestamp = packet::load32(at + 2);
        }
        at += std::max<std::uint8_t>(size, 1);
    }
}

std::optional<Segment> parse(const Sniffer::Seen& seen, std::uint16_t own_port) {
    const auto* frame = reinterpret_cast<const std::byte*>(seen.bytes.data());
    const std::uint16_t ethertype = packet::load16(frame + 12);
    const std::byte* ip = frame + 14;
    const bool v4 = ethertype == ETHERTYPE_IP && packet::load8(ip + 9) == IPPROTO_TCP;
    const bool v6 = ethertype == ETHERTYPE_IPV6 && packet::load8(ip + 6) == IPPROTO_TCP;
    if (!v4 && !v6) {
        return std::nullopt;
    }
    const std::uint32_t ip_bytes = v4 ? 20 : 40;
    const std::uint32_t all =
        v4 ? packet::load16(ip + 2) : packet::load16(ip + 4) + std::uint32_t{40};
    const std::byte* tcp = ip + ip_bytes;
    const std::uint32_t tcp_bytes = (packet::load8(tcp + 12) >> 4U) * 4U;
    Segment segment{.from_peer = packet::load16(tcp + 2) == own_port,
                    .flags = packet::load8(tcp + 13),
                    .sequence = packet::load32(tcp + 4),
                    .acknowledgement = packet::load32(tcp + 8),
                    .payload_bytes = all - ip_bytes - tcp_bytes,
                    .window = packet::load16(tcp + 14)};
    take_options(segment, tcp + 20, tcp + tcp_bytes);
    return segment;
}

class TcpRepairTest : public HostTest {
  protected:
    static constexpr std::uint16_t own_port = 7835;

    void SetUp() override {
        HostTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        far_ = std::make_unique<Namespace>();
        must_run("ip link add near type veth peer name far mtu 1400 netns " + far_->path());
        far_->run([] {
            must_run(
                "ip addr add 10.0.0.2/24 dev far; ip addr add fd00::2/64 dev far nodad; "
                "ethtool -K far tx off tso off gso off gro off >/dev/null; "
                "ip link set far up");
        });
        must_run(
            "ip addr add 10.0.0.1/24 dev near; ip addr add fd00::1/64 dev near nodad; "
            "ethtool -K near tx off tso off gso off gro off >/dev/null; ip link set near up");
        wait_until_up("near");
        far_->run([] { wait_until_up("far"); });
        sniffer_ = std::make_unique<Sniffer>("near");
    }

    void TearDown() override { disconnect(); }

    void disconnect() {
        for (int* socket : {&peer_, &own_}) {  // so that TIME-WAIT is there
            if (*socket >= 0) {
                ::close(*socket);
                *socket = -1;
                ::usleep(20'000);
            }
        }
    }

    // Fills own_ (accepted here) and peer_ (connected there).
    void connect(bool v6 = false) {
        const int listener = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int no = 0;
        ::setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        any.sin6_port = htons(own_port);
        const int yes = 1;
        ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        ::setsockopt(listener, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof yes);  // as the relay's
        ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
        ASSERT_EQ(::listen(listener, 1), 0);
        far_->run([&] {
            sockaddr_in6 to = any;
            ::inet_pton(AF_INET6, v6 ? "fd00::1" : "::ffff:10.0.0.1", &to.sin6_addr);
            peer_ = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
            ASSERT_EQ(::connect(peer_, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
        });
        own_ = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        ASSERT_GE(own_, 0);
        ::close(listener);
        ::setsockopt(own_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }

    [[nodiscard]] std::vector<Segment> segments(int quiet_ms = 100) const {
        std::vector<Segment> found;
        for (const auto& frame : sniffer_->frames(std::chrono::milliseconds(quiet_ms))) {
            if (const auto segment = parse(frame, own_port)) {
                found.push_back(*segment);
            }
        }
        return found;
    }

    static void say(int socket, std::size_t bytes) {
        const std::vector<char> text(bytes, 'x');
        ASSERT_EQ(::send(socket, text.data(), bytes, 0), static_cast<ssize_t>(bytes));
    }

    // Until that many bytes wait, or a second has passed.
    static void wait_unread(int socket, std::size_t bytes) {
        for (int turn = 0; turn < 1000 && unread_bytes(socket) < bytes; ++turn) {
            ::usleep(1000);
        }
        ASSERT_GE(unread_bytes(socket), bytes);
    }

    static void wait_acknowledged(int socket) {
        for (int turn = 0; turn < 1000 && unacknowledged_bytes(socket) > 0; ++turn) {
            ::usleep(1000);
        }
        ASSERT_EQ(unacknowledged_bytes(socket), 0U);
    }

    static std::string hear(int socket, std::size_t bytes) {
        std::string text(bytes, '\0');
        const ssize_t size = ::recv(socket, text.data(), bytes, MSG_WAITALL);
        text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return text;
    }

    // Some bytes each way, all of them read.
    void converse() {
        say(peer_, 1234);
        wait_unread(own_, 1234);
        ASSERT_EQ(hear(own_, 1234).size(), 1234U);
        say(own_, 777);
        ASSERT_EQ(hear(peer_, 777).size(), 777U);
        wait_acknowledged(own_);
    }

    std::unique_ptr<Namespace> far_;
    std::unique_ptr<Sniffer> sniffer_;
    int own_{-1};
    int peer_{-1};
};

TEST_F(TcpRepairTest, KeyNamesBothEnds) {
    for (const bool v6 : {false, true}) {
        connect(v6);
        const auto key = key_of(own_);
        ASSERT_TRUE(key);
        std::array<std::uint8_t, 16> peer{};
        std::array<std::uint8_t, 16> own{};
        ::inet_pton(AF_INET6, v6 ? "fd00::2" : "::ffff:10.0.0.2", peer.data());
        ::inet_pton(AF_INET6, v6 ? "fd00::1" : "::ffff:10.0.0.1", own.data());
        EXPECT_EQ(key->peer_address, peer);
        EXPECT_EQ(key->own_address, own);
        EXPECT_EQ(key->own_port, own_port);
        EXPECT_NE(key->peer_port, 0);
        EXPECT_EQ(key->is_v4(), !v6);
        EXPECT_EQ(key_of(-1, {.peer_address = peer,
                              .own_address = own,
                              .peer_port = key->peer_port,
                              .own_port = own_port}),
                  *key);
        disconnect();
    }
    const int unconnected = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(key_of(unconnected), std::unexpected(ENOTCONN));
    ::close(unconnected);
}

TEST_F(TcpRepairTest, CountsWhatTheKernelHolds) {
    connect();
    EXPECT_EQ(unread_bytes(own_), 0U);
    say(peer_, 500);
    wait_unread(own_, 500);
    EXPECT_EQ(unread_bytes(own_), 500U);
    far_->run([] { must_run("ip link set far down"); });
    say(own_, 300);
    EXPECT_EQ(unacknowledged_bytes(own_), 300U);
    far_->run([] { must_run("ip link set far up"); });
    EXPECT_EQ(hear(peer_, 300).size(), 300U);
    wait_acknowledged(own_);
    EXPECT_GT(round_trip_us(own_), 0U);
}

void expect_snapshot(const packet::SocketSnapshot& snapshot, const std::vector<Segment>& wire) {
    std::optional<Segment> syn;
    std::optional<Segment> syn_ack;
    std::uint32_t peer_end = 0;
    std::uint32_t own_end = 0;
    std::uint32_t own_timestamp = 0;
    std::uint16_t peer_window = 0;
    for (const Segment& segment : wire) {
        if ((segment.flags & packet::tcp_syn) != 0) {
            (segment.from_peer ? syn : syn_ack) = segment;
        }
        (segment.from_peer ? peer_end : own_end) = segment.end();
        if (segment.from_peer) {
            peer_window = segment.window;
        } else {
            own_timestamp = segment.timestamp.value_or(0);
        }
    }
    ASSERT_TRUE(syn && syn_ack);
    EXPECT_TRUE(snapshot.established);
    EXPECT_EQ(snapshot.rcv_nxt, peer_end);
    EXPECT_EQ(snapshot.snd_nxt, own_end);
    EXPECT_EQ(snapshot.peer_mss, syn->mss);
    EXPECT_EQ(snapshot.sack, syn->sack_permitted && syn_ack->sack_permitted);
    EXPECT_EQ(snapshot.window_scaling, syn->window_scale && syn_ack->window_scale);
    EXPECT_EQ(snapshot.peer_window_scale,
              syn_ack->window_scale ? syn->window_scale.value_or(0) : 0);
    EXPECT_EQ(snapshot.own_window_scale, syn_ack->window_scale.value_or(0));
    EXPECT_EQ(snapshot.peer_window_bytes, std::uint32_t{peer_window} << snapshot.peer_window_scale);
    EXPECT_EQ(snapshot.timestamps, syn->timestamp && syn_ack->timestamp);
    if (snapshot.timestamps) {
        // Not before the last one sent, and of the same clock.
        EXPECT_FALSE(packet::sequence_before(snapshot.own_timestamp, own_timestamp));
        EXPECT_LT(snapshot.own_timestamp - own_timestamp, 2000U);
    }
    EXPECT_FALSE(snapshot.unsupported_options);
}

packet::SocketOrigin origin_of(const std::vector<Segment>& wire) {
    const auto syn_ack = std::ranges::find_if(wire, [](const Segment& segment) {
        return !segment.from_peer && (segment.flags & packet::tcp_syn) != 0;
    });
    EXPECT_NE(syn_ack, wire.end());
    return {.first_sequence = syn_ack->sequence + 1,
            .first_acknowledgement = syn_ack->acknowledgement};
}

TEST_F(TcpRepairTest, SnapshotIsWhatTheWireSaid) {
    const std::array settings{
        "net.ipv4.tcp_timestamps=1 net.ipv4.tcp_sack=1 net.ipv4.tcp_window_scaling=1",
        "net.ipv4.tcp_timestamps=0 net.ipv4.tcp_sack=1 net.ipv4.tcp_window_scaling=1",
        "net.ipv4.tcp_timestamps=1 net.ipv4.tcp_sack=0 net.ipv4.tcp_window_scaling=0"};
    for (const char* setting : settings) {
        for (const bool v6 : {false, true}) {
            SCOPED_TRACE(std::string(setting) + (v6 ? " IPv6" : " IPv4"));
            far_->run([&] { must_run(std::string("sysctl -qw ") + setting); });
            (void)segments();
            connect(v6);
            converse();
            const auto wire = segments();
            const auto state = snapshot(own_);
            ASSERT_TRUE(state) << state.error();
            EXPECT_EQ(unread_bytes(own_), 0U);
            expect_snapshot(*state, wire);
            // Counted from the SYN-ACK on: the same, but nobody is asked for the clock.
            auto counted = snapshot(own_, origin_of(wire));
            ASSERT_TRUE(counted) << counted.error();
            EXPECT_EQ(counted->own_timestamp, 0U);
            counted->own_timestamp = state->own_timestamp;
            expect_snapshot(*counted, wire);
            close_silently(std::exchange(own_, -1));
            disconnect();
        }
    }
}

// The peer would take 1360 bytes; the way to it does not.
TEST_F(TcpRepairTest, SegmentsFitTheWayToThePeer) {
    must_run("ip link set near mtu 1300");
    connect();
    converse();
    const auto state = snapshot(own_);
    ASSERT_TRUE(state);
    ASSERT_TRUE(state->timestamps);
    EXPECT_EQ(state->peer_mss, 1260);
}

TEST_F(TcpRepairTest, PeerHearsNothingOfASilentClose) {
    connect();
    converse();
    (void)segments();
    ASSERT_TRUE(snapshot(own_));
    close_silently(own_);
    own_ = -1;
    EXPECT_TRUE(segments(300).empty());
    // Nor is the connection left anywhere: neither FIN-WAIT nor TIME-WAIT.
    EXPECT_EQ(output_of("ss -tanH state all sport = :7835"), "");
    tcp_info info{};
    socklen_t size = sizeof info;
    ::getsockopt(peer_, IPPROTO_TCP, TCP_INFO, &info, &size);
    EXPECT_EQ(info.tcpi_state, TCP_ESTABLISHED);
}

TEST_F(TcpRepairTest, AnOrdinaryCloseIsHeard) {  // so that silence above means something
    connect();
    converse();
    (void)segments();
    ::close(own_);
    own_ = -1;
    EXPECT_FALSE(segments(300).empty());
}

TEST_F(TcpRepairTest, UnreadBytesDoNotMakeTheCloseLoud) {
    connect();
    converse();
    say(peer_, 10);
    wait_unread(own_, 10);
    (void)segments();
    close_silently(own_);
    own_ = -1;
    EXPECT_TRUE(segments(300).empty());
}

TEST_F(TcpRepairTest, ASnapshotLeavesTheConnectionAsItWas) {
    connect();
    converse();
    (void)segments();
    ASSERT_TRUE(snapshot(own_));
    EXPECT_TRUE(segments(300).empty()) << "a window probe was sent";
    converse();
    converse();
    ::shutdown(own_, SHUT_WR);
    EXPECT_EQ(hear(peer_, 1), "");
}

// A pair that goes back to the stream engine must not keep its tunnel's next listener away.
TEST_F(TcpRepairTest, ASnapshotLeavesThePortToTheNextListener) {
    connect();
    ASSERT_TRUE(snapshot(own_));
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int yes = 1;
    ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(own_port);
    EXPECT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any), 0)
        << std::strerror(errno);
    ::close(listener);
}

// Nothing stops the kernel from receiving; asking again afterwards finds it.
TEST_F(TcpRepairTest, DataBehindASnapshotIsSeenAfterwards) {
    connect();
    converse();
    const auto before = snapshot(own_);
    say(peer_, 50);
    wait_unread(own_, 50);
    const auto after = snapshot(own_);
    ASSERT_TRUE(before && after);
    EXPECT_EQ(after->rcv_nxt, before->rcv_nxt + 50);
    EXPECT_EQ(hear(own_, 50).size(), 50U);
}

// The counts of TCP_INFO lead to the sequence numbers whatever has happened to the connection:
// losses, segments out of order, many bytes. Retransmissions count once.
TEST_F(TcpRepairTest, CountedNumbersAreThoseOfTheQueues) {
    far_->run([] { must_run("sysctl -qw net.ipv4.tcp_wmem='4096 65536 4194304'"); });
    (void)segments();
    connect();
    const auto handshake = segments();
    for (const int lost_packets : {0, 1, 2}) {
        for (int turn = 0; turn < 20; ++turn) {
            if (turn % 5 < lost_packets) {  // the cable is pulled for a moment
                far_->run([] { must_run("ip link set far down"); });
                say(own_, 5'000);
                far_->run([] { must_run("ip link set far up"); });
            } else {
                say(own_, 5'000);
            }
            say(peer_, 7'000);
            ASSERT_EQ(hear(peer_, 5'000).size(), 5'000U);
            wait_unread(own_, 7'000);
            ASSERT_EQ(hear(own_, 7'000).size(), 7'000U);
        }
        wait_acknowledged(own_);
        const auto asked = snapshot(own_);
        const auto counted = snapshot(own_, origin_of(handshake));
        ASSERT_TRUE(asked && counted);
        EXPECT_EQ(counted->snd_nxt, asked->snd_nxt);
        EXPECT_EQ(counted->rcv_nxt, asked->rcv_nxt);
        EXPECT_FALSE(counted->unacknowledged);
        EXPECT_EQ(counted->received_bytes,
                  counted->rcv_nxt - origin_of(handshake).first_acknowledgement);
    }
    far_->run([] { must_run("ip link set far down"); });
    say(own_, 300);
    EXPECT_TRUE(snapshot(own_)->unacknowledged);
}

// At the urgent mark SIOCINQ counts 0 although bytes wait behind it, unless urgent bytes are in
// line.
TEST_F(TcpRepairTest, UrgentBytesAreNotOverlooked) {
    connect();
    say(peer_, 3);
    ASSERT_EQ(::send(peer_, "!", 1, MSG_OOB), 1);
    say(peer_, 5);
    wait_unread(own_, 3);
    ::usleep(50'000);
    ASSERT_EQ(hear(own_, 3).size(), 3U);
    EXPECT_EQ(unread_bytes(own_), 6U);
}

TEST_F(TcpRepairTest, AFinIsSeen) {
    connect();
    converse();
    ::shutdown(peer_, SHUT_WR);
    ::usleep(50'000);
    const auto state = snapshot(own_);
    ASSERT_TRUE(state);
    EXPECT_FALSE(state->established);
}

TEST_F(TcpRepairTest, EcnIsUnsupported) {
    must_run("sysctl -qw net.ipv4.tcp_ecn=1");
    far_->run([] { must_run("sysctl -qw net.ipv4.tcp_ecn=1"); });
    connect();
    converse();
    const auto state = snapshot(own_);
    ASSERT_TRUE(state);
    EXPECT_TRUE(state->unsupported_options);
}

TEST_F(TcpRepairTest, RepairNeedsTheCapability) {
    connect();
    EXPECT_EQ(exit_code_of([this] {
                  give_up_everything();
                  return set_repair(own_, RepairMode::on) || snapshot(own_) ? 1 : 0;
              }),
              0);
}

// Bytes of one connection into another that takes little at a time: none lost, none doubled.
TEST_F(TcpRepairTest, MovedBytesAreNeitherLostNorDoubled) {
    connect();
    const int small = 4096;
    std::array<int, 2> target{};
    // A TCP pair on loopback, with little room.
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in local{};
    local.sin_family = AF_INET;
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof local;
    ::setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ::setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&local), sizeof local), 0);
    ASSERT_EQ(::listen(listener, 1), 0);
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&local), &size);
    target[0] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::setsockopt(target[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ASSERT_EQ(::connect(target[0], reinterpret_cast<sockaddr*>(&local), sizeof local), 0);
    target[1] = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);

    std::string sent(100'000, '\0');
    for (std::size_t index = 0; index < sent.size(); ++index) {
        sent[index] = static_cast<char>(index * 131 + index / 251);
    }
    std::size_t written = 0;
    std::size_t moved = 0;
    std::size_t stuck = 0;
    std::string received;
    while (received.size() < sent.size()) {
        const ssize_t more =
            ::send(peer_, sent.data() + written, sent.size() - written, MSG_DONTWAIT);
        written += more > 0 ? static_cast<std::size_t>(more) : 0;
        const std::size_t unread = unread_bytes(own_);
        const auto result = move_unread(own_, target[1]);
        ASSERT_TRUE(result) << result.error();
        moved += *result;
        stuck += unread > 0 && *result < std::min<std::size_t>(unread, 65'536) ? 1U : 0U;
        std::array<char, 1500> buffer{};
        const ssize_t heard = ::recv(target[0], buffer.data(), buffer.size(), MSG_DONTWAIT);
        received.append(buffer.data(), heard > 0 ? static_cast<std::size_t>(heard) : 0);
        if (heard <= 0 && *result == 0) {
            ::usleep(200);
        }
    }
    EXPECT_EQ(moved, sent.size());
    EXPECT_TRUE(received == sent);
    EXPECT_GT(stuck, 0U) << "the other side always took all";
    for (const int socket : {listener, target[0], target[1]}) {
        ::close(socket);
    }
}

TEST_F(TcpRepairTest, MovingIntoABrokenSocketLosesNothing) {
    connect();
    say(peer_, 100);
    wait_unread(own_, 100);
    const int unconnected = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    EXPECT_FALSE(move_unread(own_, unconnected));
    EXPECT_EQ(unread_bytes(own_), 100U);
    ::close(unconnected);
    ::shutdown(peer_, SHUT_WR);
    EXPECT_EQ(hear(own_, 100).size(), 100U);
    EXPECT_EQ(move_unread(own_, own_).value_or(99), 0U) << "nothing but the end";
}

}  // namespace
}  // namespace bore::drivers::testing
