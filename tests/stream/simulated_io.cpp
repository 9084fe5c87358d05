// The driver's side of the simulation: events in random order, moves with bad luck, and the checks
// of what the pairs ask for.
#include "tests/stream/simulated_io.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "dataplane/abi/limits.hpp"

namespace bore::stream::testing {

namespace {

// What a driver of either kind hands over at once.
constexpr std::size_t epoll_chunk_bytes = 64 * 1024;
constexpr unsigned epoll_burst_chunks = 4;
constexpr unsigned uring_burst_chunks = 32;

}  // namespace

int SimulatedIo::make_socket(std::uint64_t stream, std::uint64_t expected_stream) {
    Connection& made = connections_.emplace_back();
    made.stream = stream;
    made.expected_stream = expected_stream;
    return static_cast<int>(connections_.size()) - 1;
}

// ---- Events

void SimulatedIo::deliver_events() {
    collect_events();
    for (std::size_t left = behaviour_.in_order ? 0 : events_.size(); left > 1; --left) {
        std::swap(events_[left - 1], events_[random_.between<std::size_t>(0, left - 1)]);
    }
    for (const Event& event : events_) {
        if (random_.chance(behaviour_.deliver_percent)) {
            deliver(event);
        }
    }
}

void SimulatedIo::collect_events() {
    events_.clear();
    for (SimulatedPair& pair : pairs_) {
        if (!pair.attached) {
            continue;
        }
        if (pair.closing) {
            events_.push_back({&pair, Leg::visitor, Event::Kind::closed});
        }
        for (const Leg leg : {Leg::visitor, Leg::client}) {
            const Connection& connection = leg_of(pair, leg);
            const bool spurious = random_.chance(behaviour_.spurious_percent);
            // The low-water mark holds back receives as well as watches.
            if (connection.receiving &&
                (connection.readable() || connection.stop_requested || spurious)) {
                events_.push_back({&pair, leg, Event::Kind::receive});
            }
            if (connection.watching_read && (connection.readable() || spurious)) {
                events_.push_back({&pair, leg, Event::Kind::readable});
            }
            if (connection.watching_write &&
                (connection.writable() || connection.failed || spurious)) {
                events_.push_back({&pair, leg, Event::Kind::writable});
            }
        }
    }
}

void SimulatedIo::deliver(const Event& event) {
    SimulatedPair& pair = *event.pair;
    if (!pair.attached) {
        return;  // closed earlier in this turn
    }
    Connection& connection = leg_of(pair, event.leg);
    switch (event.kind) {
        case Event::Kind::closed:
            finish_close(pair);
            break;
        case Event::Kind::receive:
            if (connection.receiving) {
                deliver_receive(pair, event.leg);
            }
            break;
        case Event::Kind::readable:
            if (std::exchange(connection.watching_read, false)) {
                pair.on_readable(event.leg);
            }
            break;
        case Event::Kind::writable:
            if (std::exchange(connection.watching_write, false)) {
                pair.on_writable(event.leg);
            }
            break;
    }
}

void SimulatedIo::deliver_receive(SimulatedPair& pair, Leg leg) {
    Connection& connection = leg_of(pair, leg);
    const bool stops = connection.stop_requested;
    unsigned chunks =
        behaviour_.asynchronous ? random_.between(1U, uring_burst_chunks) : epoll_burst_chunks;
    while (chunks-- > 0 && connection.receiving && pair.attached) {
        if (!deliver_chunk(pair, leg)) {
            break;
        }
    }
    const bool ends = behaviour_.asynchronous && random_.chance(behaviour_.receive_ends_percent);
    if (pair.attached && connection.receiving && (stops || ends)) {
        connection.receiving = connection.stop_requested = false;
        pair.on_receive_stopped(leg);
    }
}

// One completion; false when there is none.
bool SimulatedIo::deliver_chunk(SimulatedPair& pair, Leg leg) {
    Connection& connection = leg_of(pair, leg);
    if (connection.available_bytes() == 0) {
        if (connection.failed) {
            connection.receiving = false;
            pair.on_error(leg, std::exchange(connection.error_number, 0));
        } else if (connection.fin_arrived) {
            connection.receiving = false;
            connection.fin_read = true;
            pair.on_end_of_stream(leg);
        }
        return false;
    }
    // The buffers of a ring are the bound of what comes behind a cancel.
    if (connection.stop_requested && ++connection.chunks_after_stop >= abi::receive_buffer_count) {
        return false;
    }
    const std::size_t chunk_bytes =
        behaviour_.asynchronous ? abi::receive_buffer_bytes : epoll_chunk_bytes;
    const std::size_t bytes = cut(std::min(chunk_bytes, connection.available_bytes()));
    std::vector<std::byte> buffer(bytes);
    Pattern::fill(connection.stream, connection.read_bytes, buffer);
    connection.read_bytes += bytes;
    if (behaviour_.asynchronous && random_.chance(behaviour_.receive_ends_percent)) {
        connection.receiving = connection.stop_requested = false;
        connection.owes_stop = true;
    }
    pair.on_data(leg, buffer, connection.available_bytes() > 0);
    if (pair.attached && std::exchange(connection.owes_stop, false)) {
        pair.on_receive_stopped(leg);
    }
    return true;
}

// ---- Slots

Pair& SimulatedIo::attach(std::uint32_t slot_index, int visitor_socket, int client_socket) {
    while (slot_index >= pairs_.size()) {
        pairs_.emplace_back();
    }
    SimulatedPair& pair = pairs_[slot_index];
    EXPECT_FALSE(pair.attached) << "slot " << slot_index << " was given out twice";
    pair.legs = {&connection(visitor_socket), &connection(client_socket)};
    pair.attached = true;
    pair.closing = pair.reset = false;
    ++attached_pairs_;
    return pair;
}

Pair* SimulatedIo::find(std::uint32_t slot_index) {
    return slot_index < pairs_.size() ? &pairs_[slot_index] : nullptr;
}

Connection& SimulatedIo::open_leg(Pair& pair, Leg leg) {
    Connection& connection = leg_of(pair, leg);
    EXPECT_TRUE(static_cast<SimulatedPair&>(pair).attached && !connection.closed)
        << "a verb on a closed leg";
    return connection;
}

// ---- Requests

void SimulatedIo::receive(Pair& pair, Leg source) {
    Connection& connection = open_leg(pair, source);
    EXPECT_FALSE(connection.receiving || connection.watching_read) << "a second read request";
    connection.receiving = true;
    connection.stop_requested = connection.owes_stop = false;
    connection.chunks_after_stop = 0;
}

bool SimulatedIo::stop_receive(Pair& pair, Leg source) {
    Connection& connection = open_leg(pair, source);
    EXPECT_TRUE(connection.receiving || connection.owes_stop) << "nothing to stop";
    EXPECT_FALSE(connection.stop_requested) << "stopped twice";
    if (behaviour_.asynchronous && connection.receiving) {
        connection.stop_requested = true;
        return false;
    }
    connection.receiving = connection.owes_stop = false;
    return true;
}

void SimulatedIo::watch_readable(Pair& pair, Leg source) {
    Connection& connection = open_leg(pair, source);
    EXPECT_FALSE(connection.receiving || connection.watching_read) << "a second read request";
    connection.watching_read = true;
}

void SimulatedIo::watch_writable(Pair& pair, Leg target) {
    Connection& connection = open_leg(pair, target);
    EXPECT_FALSE(connection.watching_write) << "a second watch for room";
    connection.watching_write = true;
}

// ---- Moves

std::size_t SimulatedIo::cut(std::size_t bytes) {
    return bytes > 1 && random_.chance(behaviour_.short_percent) ? random_.any_size(bytes) : bytes;
}

IoResult SimulatedIo::take_from(Connection& connection, std::size_t max_bytes) {
    EXPECT_GT(max_bytes, 0U);
    if (connection.available_bytes() > 0) {
        if (random_.chance(behaviour_.would_block_percent)) {
            return IoResult::would_block();
        }
        return IoResult::moved(cut(std::min(max_bytes, connection.available_bytes())));
    }
    if (connection.error_number != 0) {
        return IoResult::failed(std::exchange(connection.error_number, 0));
    }
    if (connection.fin_arrived || connection.failed) {
        connection.fin_read = connection.fin_arrived;
        return IoResult::moved(0);
    }
    return IoResult::would_block();
}

IoResult SimulatedIo::put_into(Connection& connection, std::span<const std::byte> bytes) {
    EXPECT_FALSE(bytes.empty());
    EXPECT_FALSE(connection.fin_sent) << "bytes behind a FIN";
    if (connection.failed) {
        const int error_number = std::exchange(connection.error_number, 0);
        return IoResult::failed(error_number != 0 ? error_number : EPIPE);
    }
    const std::size_t room_bytes = connection.send_room_bytes();
    if (room_bytes == 0 || random_.chance(behaviour_.would_block_percent)) {
        return IoResult::would_block();
    }
    const std::size_t moved_bytes = cut(std::min(bytes.size(), room_bytes));
    EXPECT_TRUE(Pattern::matches(connection.expected_stream, connection.sent_bytes,
                                 bytes.first(moved_bytes)))
        << "wrong bytes at " << connection.sent_bytes << " of stream "
        << connection.expected_stream;
    connection.sent_bytes += moved_bytes;
    return IoResult::moved(moved_bytes);
}

IoResult SimulatedIo::read(Pair& pair, Leg source, std::size_t max_bytes,
                           std::span<const std::byte>& bytes) {
    Connection& connection = open_leg(pair, source);
    EXPECT_FALSE(connection.receiving) << "a read beside a receive";
    const IoResult result = take_from(connection, std::min(max_bytes, epoll_chunk_bytes));
    scratch_.assign(result.has_bytes() ? result.bytes() : 0, std::byte{0});
    Pattern::fill(connection.stream, connection.read_bytes, scratch_);
    connection.read_bytes += scratch_.size();
    bytes = scratch_;
    return result;
}

IoResult SimulatedIo::send(Pair& pair, Leg target, std::span<const std::byte> bytes) {
    return put_into(open_leg(pair, target), bytes);
}

IoResult SimulatedIo::fill_pipe(Pair& pair, Leg source, std::size_t max_bytes) {
    Connection& connection = open_leg(pair, source);
    EXPECT_FALSE(connection.receiving) << "a splice beside a receive";
    if (!connection.pipe) {
        ADD_FAILURE() << "a splice without a pipe";
        return IoResult::failed(EBADF);
    }
    SimulatedPipe& pipe = *connection.pipe;
    const std::size_t room_bytes = behaviour_.pipe_capacity_bytes - pipe.size();
    if (room_bytes == 0) {
        return IoResult::would_block();
    }
    std::size_t most_bytes = std::min(max_bytes, room_bytes);
    if (connection.urgent_at && connection.available_bytes() > 0) {
        if (connection.read_bytes == *connection.urgent_at) {
            return connection.fin_arrived ? IoResult::moved(0) : IoResult::would_block();
        }
        if (connection.read_bytes < *connection.urgent_at) {
            most_bytes =
                std::min<std::size_t>(most_bytes, *connection.urgent_at - connection.read_bytes);
        }
    }
    const IoResult result = take_from(connection, most_bytes);
    if (result.has_bytes()) {
        const std::size_t before = pipe.bytes.size();
        pipe.bytes.resize(before + result.bytes());
        Pattern::fill(connection.stream, connection.read_bytes,
                      std::span(pipe.bytes).subspan(before));
        connection.read_bytes += result.bytes();
    }
    return result;
}

IoResult SimulatedIo::drain_pipe(Pair& pair, Leg source, std::size_t max_bytes) {
    Connection& connection = open_leg(pair, source);
    if (!connection.pipe || connection.pipe->size() == 0) {
        ADD_FAILURE() << "a splice out of nothing";
        return IoResult::would_block();
    }
    SimulatedPipe& pipe = *connection.pipe;
    const auto waiting = std::span(std::as_const(pipe.bytes)).subspan(pipe.offset);
    const IoResult result =
        put_into(open_leg(pair, other(source)), waiting.first(std::min(max_bytes, waiting.size())));
    if (result.has_bytes()) {
        pipe.offset += result.bytes();
        if (pipe.size() == 0) {
            pipe.bytes.clear();  // its memory stays for the next move
            pipe.offset = 0;
        }
    }
    return result;
}

bool SimulatedIo::has_unread(Pair& pair, Leg source) {
    return open_leg(pair, source).available_bytes() > 0;
}

int SimulatedIo::shutdown_write(Pair& pair, Leg target) {
    Connection& connection = open_leg(pair, target);
    if (connection.failed) {
        return ENOTCONN;
    }
    send_fin(connection, open_leg(pair, other(target)));
    return 0;
}

void SimulatedIo::send_fin(Connection& target, const Connection& source) {
    EXPECT_FALSE(target.fin_sent) << "two FINs";
    EXPECT_TRUE(source.fin_read || source.failed) << "a FIN that nobody sent";
    if (!target.failed) {
        EXPECT_EQ(target.sent_bytes, source.arrived_bytes) << "a FIN before the data";
    }
    target.fin_sent = true;
}

int SimulatedIo::pending_error(Pair& pair, Leg leg) {
    return std::exchange(open_leg(pair, leg).error_number, 0);
}

void SimulatedIo::set_low_water(Pair& pair, Leg source, std::size_t bytes) {
    Connection& connection = open_leg(pair, source);
    EXPECT_GT(bytes, 0U);
    connection.low_water_bytes = std::min(bytes, connection.receive_capacity_bytes / 2);
}

void SimulatedIo::quick_ack(Pair& pair, Leg source) {
    ++open_leg(pair, source).quick_acks;
}

// ---- Pipes and the end

bool SimulatedIo::lend_pipe(Pair& pair, Leg source) {
    Connection& connection = open_leg(pair, source);
    EXPECT_FALSE(connection.pipe.has_value()) << "a second pipe";
    if (lent_pipes_ >= behaviour_.pipe_count) {
        return false;
    }
    ++lent_pipes_;
    connection.pipe = SimulatedPipe{};
    return true;
}

void SimulatedIo::return_pipe(Pair& pair, Leg source, bool empty) {
    Connection& connection = open_leg(pair, source);
    if (!connection.pipe) {
        ADD_FAILURE() << "a pipe given back twice";
        return;
    }
    EXPECT_EQ(empty, connection.pipe->size() == 0) << "a pipe with bytes must not be lent again";
    connection.pipe.reset();
    --lent_pipes_;
}

void SimulatedIo::close(Pair& pair, bool reset) {
    auto& state = static_cast<SimulatedPair&>(pair);
    EXPECT_FALSE(state.closing) << "closed twice";
    state.closing = true;
    state.reset = reset;
    bool under_way = false;
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        Connection& connection = open_leg(pair, leg);
        EXPECT_FALSE(connection.pipe.has_value()) << "closed with a pipe lent";
        if (!reset && !connection.fin_sent) {
            send_fin(connection, open_leg(pair, other(leg)));  // close(2) sends it
        }
        under_way = under_way || connection.receiving || connection.watching_read ||
                    connection.watching_write;
    }
    if (!behaviour_.asynchronous || !under_way) {
        finish_close(state);
    }
}

void SimulatedIo::finish_close(SimulatedPair& pair) {
    for (Connection* connection : pair.legs) {
        connection->closed = true;
        connection->closed_by_reset = pair.reset;
        connection->receiving = connection->stop_requested = connection->owes_stop = false;
        connection->watching_read = connection->watching_write = false;
    }
    pair.attached = pair.closing = false;
    --attached_pairs_;
    pair.on_closed();
}

}  // namespace bore::stream::testing
