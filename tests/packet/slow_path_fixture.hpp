// For slow path tests: a host whose sockets are what the test says and which writes down what is
// asked of it, and a relay with one tunnel around a SlowPath.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/packet/slow_path.hpp"
#include "tests/packet/frames.hpp"

namespace bore::packet::test {

using base::millisecond_ns;
using base::Nanoseconds;
using base::second_ns;
using Counter = abi::SlowPathCounter;

inline constexpr std::uint16_t tunnel_port = 20'000;
inline constexpr std::uint16_t control_port = 7'835;
inline constexpr int visitor_socket = 10;
inline constexpr int client_socket = 11;
inline constexpr std::uint32_t pair_slot = 3;
inline constexpr std::uint32_t pair_generation = 8;
// Sequence numbers at the splice, as the relay sees them.
inline constexpr std::uint32_t visitor_next = 1'000;  // from the visitor
inline constexpr std::uint32_t to_visitor_next = 50'000;
inline constexpr std::uint32_t client_next = 0xffff'fff0;  // from the client
inline constexpr std::uint32_t to_client_next = 90'000;

struct SentFrame {
    std::uint8_t port_index{0};
    Bytes bytes;
    [[nodiscard]] Segment segment() const {
        std::string why;
        const auto parsed = read(bytes, &why);
        EXPECT_TRUE(parsed) << why;
        return parsed.value_or(Segment{});
    }
};

struct FakeSocket {
    FlowKey key;
    std::size_t unread{0};
    std::size_t moved{0};
    std::size_t unacknowledged{0};
    SocketSnapshot snapshot;
    std::optional<SocketOrigin> origin{};  // given with the latest snapshot
    bool gone{false};                      // key_of fails, where no facts tell it
    bool fails_snapshot{false};
    bool closed{false};
    // What arrives just behind each reading of rcv_nxt.
    std::deque<std::size_t> unread_after_snapshots{};
    Bytes sent{};
};

class FakeHost final : public SlowPathHost {
  public:
    bool to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) override {
        kernel.push_back({port_index, {frame.begin(), frame.end()}});
        return true;
    }
    bool to_wire(std::uint8_t port_index, std::span<const std::byte> frame) override {
        wire.push_back({port_index, {frame.begin(), frame.end()}});
        return true;
    }
    bool replay(std::uint32_t worker_index, std::uint8_t port_index,
                std::span<const std::byte> frame) override {
        calls.push_back("replay");
        replay_workers.push_back(worker_index);
        replayed.push_back({port_index, {frame.begin(), frame.end()}});
        return true;
    }
    std::expected<FlowKey, int> key_of(int socket, const abi::LegFacts& facts) override {
        if (facts.own_port != 0) {
            return key_told_by(facts);
        }
        return sockets[socket].gone ? std::expected<FlowKey, int>(std::unexpected(ENOTCONN))
                                    : sockets[socket].key;
    }
    std::size_t unread_bytes(int socket) override {
        calls.push_back("unread " + std::to_string(socket));
        return sockets[socket].unread;
    }
    std::size_t unacknowledged_bytes(int socket) override { return sockets[socket].unacknowledged; }
    std::expected<std::size_t, int> move_unread(int from, int to) override {
        calls.push_back("move " + std::to_string(from) + " " + std::to_string(to));
        const std::size_t size = std::min(sockets[from].unread, most_moved);
        sockets[from].unread -= size;
        sockets[from].moved += size;
        return size;
    }
    std::expected<std::size_t, int> send(int socket, std::span<const std::byte> bytes) override {
        calls.push_back("send " + std::to_string(socket));
        const std::size_t size = std::min(bytes.size(), most_moved);
        sockets[socket].sent.insert(sockets[socket].sent.end(), bytes.begin(),
                                    bytes.begin() + static_cast<std::ptrdiff_t>(size));
        return size;
    }
    std::expected<SocketSnapshot, int> snapshot(
        int socket, const std::optional<SocketOrigin>& origin) override {
        calls.push_back("snapshot " + std::to_string(socket));
        FakeSocket& known = sockets[socket];
        known.origin = origin;
        known.snapshot.unacknowledged = known.unacknowledged != 0;
        if (!known.unread_after_snapshots.empty()) {
            known.unread += known.unread_after_snapshots.front();
            known.unread_after_snapshots.pop_front();
        }
        known.snapshot.received_bytes = known.moved + known.unread;
        return known.fails_snapshot ? std::expected<SocketSnapshot, int>(std::unexpected(EPERM))
                                    : known.snapshot;
    }
    void close_silently(int socket) override {
        calls.push_back("close " + std::to_string(socket));
        sockets[socket].closed = true;
    }
    void close_now() override { calls.push_back("close now"); }
    void freezing() override { calls.push_back("freezing"); }
    void spliced() override { calls.push_back("spliced"); }
    void to_stream(std::uint32_t slot, abi::PairRequest&& request,
                   abi::StreamReason reason) override {
        EXPECT_NE(std::ranges::find(expected_slots, slot), expected_slots.end());
        to_stream_requests.push_back(std::move(request));
        to_stream_reasons.push_back(reason);
    }
    void ended(const abi::PairEnded& event) override { ends.push_back(event); }

    std::vector<std::uint32_t> expected_slots{pair_slot};  // of pairs for the stream engine
    std::map<int, FakeSocket> sockets;
    std::vector<SentFrame> kernel, wire, replayed;
    std::vector<std::uint32_t> replay_workers;
    std::vector<std::string> calls;
    std::vector<abi::PairRequest> to_stream_requests;
    std::vector<abi::StreamReason> to_stream_reasons;
    std::vector<abi::PairEnded> ends;
    std::size_t most_moved{~std::size_t{0}};
};

class SlowPathTest : public ::testing::Test {
  protected:
    SlowPathTest() {
        visitor_key = {.peer_address = ipv4(192, 0, 2, 7),
                       .own_address = ipv4(10, 0, 0, 1),
                       .peer_port = 40'000,
                       .own_port = tunnel_port};
        client_key = {.peer_address = ipv4(198, 51, 100, 9),
                      .own_address = ipv4(10, 0, 1, 1),
                      .peer_port = 41'000,
                      .own_port = control_port};
        options.max_payload_with_options = 1'440;
        options.linger_ns = 15 * second_ns;
        limits.path_policy = abi::PathPolicy::automatic;
        host.sockets[visitor_socket] = {.key = visitor_key,
                                        .snapshot = snapshot(to_visitor_next, visitor_next)};
        host.sockets[client_socket] = {.key = client_key,
                                       .snapshot = snapshot(to_client_next, client_next)};
        start(64);
    }

    static SocketSnapshot snapshot(std::uint32_t snd_nxt, std::uint32_t rcv_nxt) {
        return {.established = true,
                .snd_nxt = snd_nxt,
                .rcv_nxt = rcv_nxt,
                .peer_window_bytes = 30'000,
                .peer_mss = 1'460,
                .peer_window_scale = 7,
                .own_window_scale = 7,
                .window_scaling = true,
                .timestamps = false,
                .sack = true,
                .unsupported_options = false,
                .own_timestamp = 0,
                .round_trip_us = 100};
    }

    void start(std::uint32_t max_flows) {
        slow.reset();
        table = FlowTable::make(*memory, max_flows, 1, 7).value();
        rows = std::make_unique<std::array<abi::TunnelCounters, 2>>();
        counters = std::make_unique<abi::SlowPathCounters>();
        histograms = std::make_unique<abi::SlowPathHistograms>();
        slow = std::make_unique<SlowPath>(host, *table, *counters, *histograms, *rows, options);
        slow->open_tunnel(1, tunnel_port, limits);
    }

    // ---- Frames
    [[nodiscard]] Bytes from_visitor(std::uint32_t sequence, std::string_view payload,
                                     std::uint8_t flags = tcp_ack, const Bytes& opts = {}) const {
        return frame(segment_from_peer(visitor_key), sequence, to_visitor_next, payload, flags,
                     opts);
    }
    [[nodiscard]] Bytes from_client(std::uint32_t sequence, std::string_view payload,
                                    std::uint8_t flags = tcp_ack, const Bytes& opts = {}) const {
        return frame(segment_from_peer(client_key), sequence, to_client_next, payload, flags, opts);
    }
    [[nodiscard]] Bytes to_visitor(std::uint32_t acknowledgement, std::uint8_t flags = tcp_ack,
                                   std::string_view payload = {}) const {
        return frame(segment_to_peer(visitor_key), to_visitor_next, acknowledgement, payload, flags,
                     {});
    }
    [[nodiscard]] Bytes to_client(std::uint32_t acknowledgement, std::uint8_t flags = tcp_ack,
                                  std::string_view payload = {}) const {
        return frame(segment_to_peer(client_key), to_client_next, acknowledgement, payload, flags,
                     {});
    }
    static Bytes frame(Segment segment, std::uint32_t sequence, std::uint32_t acknowledgement,
                       std::string_view payload, std::uint8_t flags, const Bytes& opts) {
        segment.sequence = sequence;
        segment.acknowledgement = acknowledgement;
        segment.payload = text(payload);
        segment.flags = flags;
        segment.options = opts;
        return build(segment);
    }
    void wire_in(const Bytes& bytes, std::uint8_t port_index = 0) {
        slow->from_wire(0, port_index, bytes, now);
    }
    void kernel_in(const Bytes& bytes, std::uint8_t port_index = 0) {
        slow->from_kernel(port_index, bytes, now);
    }

    // ---- The usual course
    void make_legs() {
        wire_in(from_visitor(visitor_next, ""));
        wire_in(from_client(client_next - 50, ""), 1);
    }
    void open(abi::PairRequest request = {}) {
        request.visitor_socket = visitor_socket;
        request.client_socket = client_socket;
        request.tunnel_index = 1;
        request.tag = 77;
        slow->open_pair(pair_slot, pair_generation, std::move(request), now);
    }
    FlowIndex splice() {
        make_legs();
        open();
        EXPECT_TRUE(host.to_stream_reasons.empty());
        const auto direction = table->find(visitor_key);
        EXPECT_TRUE(direction.has_value());
        host.kernel.clear();
        host.wire.clear();
        return direction ? flow_of(*direction) : no_flow;
    }
    void pass_time(Nanoseconds time) {
        const Nanoseconds end = now + time;
        for (int turn = 0; turn < 100'000; ++turn) {
            const Nanoseconds due = slow->next_deadline(now);
            if (due > end) {
                break;
            }
            now = std::max(now + 1, due);
            slow->tick(now);
        }
        now = end;
        slow->tick(now);
    }
    [[nodiscard]] std::uint64_t count(Counter counter) const { return counters->get(counter); }
    [[nodiscard]] std::vector<std::string> payloads(const std::vector<SentFrame>& frames) const {
        std::vector<std::string> found;
        for (const SentFrame& sent : frames) {
            const Bytes payload = sent.segment().payload;
            found.emplace_back(reinterpret_cast<const char*>(payload.data()), payload.size());
        }
        return found;
    }

    FlowKey visitor_key;
    FlowKey client_key;
    SlowPathOptions options;
    abi::TunnelLimits limits;
    FakeHost host;
    std::unique_ptr<TableMemory> memory{make_ordinary_memory()};
    std::unique_ptr<FlowTable> table;
    std::unique_ptr<std::array<abi::TunnelCounters, 2>> rows;
    std::unique_ptr<abi::SlowPathCounters> counters;
    std::unique_ptr<abi::SlowPathHistograms> histograms;
    std::unique_ptr<SlowPath> slow;
    Nanoseconds now{5'000 * second_ns};
};

}  // namespace bore::packet::test
