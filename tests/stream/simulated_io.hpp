// Sockets and pipes that exist in memory only, behind stream::Io: what a driver does to the pairs,
// in the manner of io_uring (asynchronous ends, data after a cancel) or of epoll, with as much bad
// luck as the test asks for. It checks its callers: every misuse of the contract of Io and every
// wrong byte is a test failure where it happens. No clock, no thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/stream/io.hpp"
#include "dataplane/stream/pair.hpp"
#include "tests/stream/pattern.hpp"
#include "tests/stream/random.hpp"

namespace bore::stream::testing {

struct Behaviour {
    bool asynchronous{true};           // as io_uring; false: as epoll
    bool in_order{false};              // events by slot; false: in random order
    unsigned deliver_percent{100};     // events that are delivered in the turn they become true
    unsigned short_percent{0};         // moves of less than possible
    unsigned would_block_percent{0};   // moves refused though possible
    unsigned spurious_percent{0};      // readiness without a reason
    unsigned receive_ends_percent{0};  // receives that end by themselves (ENOBUFS)
    std::size_t pipe_count{64};
    std::size_t pipe_capacity_bytes{std::size_t{1} << 20U};
};

struct SimulatedPipe {
    std::vector<std::byte> bytes;
    std::size_t offset{0};
    [[nodiscard]] std::size_t size() const { return bytes.size() - offset; }
};

// One leg: our socket, the kernel's two queues and the peer at the far end.
struct Connection {
    // Peer → us. The stream's number makes its bytes.
    std::uint64_t stream{0};
    std::uint64_t arrived_bytes{0};  // sent by the peer so far, left-overs included
    std::uint64_t read_bytes{0};     // read by us so far, left-overs included
    std::size_t receive_capacity_bytes{256 * 1024};
    bool fin_arrived{false};
    bool fin_read{false};
    // Only a receive passes this byte of the stream (TCP's urgent mark).
    std::optional<std::uint64_t> urgent_at;
    int error_number{0};  // reported once, as SO_ERROR is
    bool failed{false};

    // Us → peer.
    std::uint64_t expected_stream{0};
    std::uint64_t sent_bytes{0};
    std::uint64_t taken_bytes{0};  // read by the peer
    std::size_t send_capacity_bytes{256 * 1024};
    bool fin_sent{false};

    bool closed{false};
    bool closed_by_reset{false};
    std::size_t low_water_bytes{1};
    std::uint64_t quick_acks{0};

    // The driver's requests.
    bool receiving{false};
    bool stop_requested{false};
    bool owes_stop{false};  // ended by itself inside on_data; the pair does not know yet
    unsigned chunks_after_stop{0};
    bool watching_read{false};
    bool watching_write{false};

    std::optional<SimulatedPipe> pipe;

    [[nodiscard]] std::size_t available_bytes() const { return arrived_bytes - read_bytes; }
    [[nodiscard]] std::size_t receive_room_bytes() const {
        return receive_capacity_bytes - std::min(receive_capacity_bytes, available_bytes());
    }
    [[nodiscard]] std::size_t send_room_bytes() const {
        return send_capacity_bytes - (sent_bytes - taken_bytes);
    }
    // As Linux has it: a third of the send buffer is free.
    [[nodiscard]] bool writable() const { return send_room_bytes() >= send_capacity_bytes / 3; }
    [[nodiscard]] bool readable() const {
        return available_bytes() >= low_water_bytes || fin_arrived || failed;
    }

    // The peer's verbs.
    void peer_sends(std::size_t bytes) { arrived_bytes += bytes; }
    void peer_sends_urgent(std::size_t bytes) {
        peer_sends(bytes);
        urgent_at = arrived_bytes - 1;
    }
    void peer_finishes() { fin_arrived = true; }
    void peer_takes(std::size_t most) {
        taken_bytes += std::min<std::uint64_t>(most, sent_bytes - taken_bytes);
    }
    void fails(int with) {
        if (!closed && !failed) {
            failed = true;
            error_number = with;
        }
    }
};

class SimulatedIo final : public Io {
  public:
    SimulatedIo(const Behaviour& behaviour, Random& random)
        : behaviour_(behaviour), random_(random) {}

    // A "socket" is a number of this table; connections stay where they are.
    int make_socket(std::uint64_t stream, std::uint64_t expected_stream);
    Connection& connection(int socket) { return connections_[static_cast<std::size_t>(socket)]; }

    // Hands over what has become true, in random order.
    void deliver_events();

    [[nodiscard]] std::size_t lent_pipes() const { return lent_pipes_; }
    [[nodiscard]] std::size_t attached_pairs() const { return attached_pairs_; }
    Behaviour& behaviour() { return behaviour_; }

    Pair& attach(std::uint32_t slot_index, int visitor_socket, int client_socket) override;
    Pair* find(std::uint32_t slot_index) override;
    void receive(Pair& pair, Leg source) override;
    bool stop_receive(Pair& pair, Leg source) override;
    void watch_readable(Pair& pair, Leg source) override;
    void watch_writable(Pair& pair, Leg target) override;
    IoResult read(Pair& pair, Leg source, std::size_t max_bytes,
                  std::span<const std::byte>& bytes) override;
    IoResult send(Pair& pair, Leg target, std::span<const std::byte> bytes) override;
    IoResult fill_pipe(Pair& pair, Leg source, std::size_t max_bytes) override;
    IoResult drain_pipe(Pair& pair, Leg source, std::size_t max_bytes) override;
    bool has_unread(Pair& pair, Leg source) override;
    int shutdown_write(Pair& pair, Leg target) override;
    int pending_error(Pair& pair, Leg leg) override;
    void set_low_water(Pair& pair, Leg source, std::size_t bytes) override;
    void quick_ack(Pair& pair, Leg source) override;
    bool lend_pipe(Pair& pair, Leg source) override;
    void return_pipe(Pair& pair, Leg source, bool empty) override;
    void close(Pair& pair, bool reset) override;

  private:
    struct SimulatedPair : Pair {
        std::array<Connection*, 2> legs{};
        bool attached{false};
        bool closing{false};
        bool reset{false};
    };
    struct Event {
        SimulatedPair* pair;
        Leg leg;
        enum class Kind : std::uint8_t { receive, readable, writable, closed } kind;
    };

    static Connection& leg_of(Pair& pair, Leg leg) {
        return *static_cast<SimulatedPair&>(pair).legs[index_of(leg)];
    }
    Connection& open_leg(Pair& pair, Leg leg);
    void collect_events();
    void deliver(const Event& event);
    void deliver_receive(SimulatedPair& pair, Leg leg);
    [[nodiscard]] bool deliver_chunk(SimulatedPair& pair, Leg leg);
    void finish_close(SimulatedPair& pair);
    static void send_fin(Connection& target, const Connection& source);
    [[nodiscard]] std::size_t cut(std::size_t bytes);
    // What a read of `max_bytes` yields; bytes only counts.
    [[nodiscard]] IoResult take_from(Connection& connection, std::size_t max_bytes);
    [[nodiscard]] IoResult put_into(Connection& connection, std::span<const std::byte> bytes);

    Behaviour behaviour_;
    Random& random_;
    std::deque<Connection> connections_;
    std::deque<SimulatedPair> pairs_;
    std::vector<Event> events_;
    std::vector<std::byte> scratch_;
    std::size_t lent_pipes_{0};
    std::size_t attached_pairs_{0};
};

}  // namespace bore::stream::testing
