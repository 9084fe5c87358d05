// A shard on simulated sockets with a clock of its own and the control thread's half of the engine
// (slots, generations, rings): what the simulation and the tests of single cases drive.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "dataplane/abi/statistics.hpp"
#include "dataplane/stream/shard.hpp"
#include "tests/stream/simulated_io.hpp"

namespace bore::stream::testing {

// A pair as the test knows it. `visitor` and `client` stay valid.
struct OpenedPair {
    abi::PairHandle handle;
    Connection* visitor;
    Connection* client;
    Connection& leg(Leg which) { return which == Leg::visitor ? *visitor : *client; }
};

class World {
  public:
    static constexpr std::uint32_t tunnel_count = 8;

    explicit World(std::uint64_t seed, const Behaviour& behaviour = {},
                   std::size_t event_ring_capacity = 64)
        : random(seed),
          io(behaviour, random),
          statistics(1, tunnel_count),
          tunnels(tunnel_count),
          queues{.commands = base::SpscRing<Command>(64),
                 .events = base::SpscRing<abi::PairEnded>(event_ring_capacity)},
          shard(0, statistics, tunnels, queues, io, now) {}

    // Two fresh connections; the left-overs are the first bytes of their streams.
    OpenedPair open(std::uint32_t tunnel_index, std::uint64_t tag,
                    std::size_t left_over_to_visitor_bytes = 0,
                    std::size_t left_over_to_client_bytes = 0) {
        const std::uint64_t stream = 2 * tag;
        const int visitor = io.make_socket(stream, stream + 1);
        const int client = io.make_socket(stream + 1, stream);
        abi::PairRequest request{.visitor_socket = visitor,
                                 .client_socket = client,
                                 .tunnel_index = tunnel_index,
                                 .tag = tag,
                                 .delivered_to_client_bytes = delivered_before_bytes};
        request.left_over_to_visitor = hand_over(io.connection(client), left_over_to_visitor_bytes);
        request.left_over_to_client = hand_over(io.connection(visitor), left_over_to_client_bytes);
        std::uint32_t slot_index = static_cast<std::uint32_t>(generations_.size());
        if (free_slots_.empty()) {
            generations_.push_back(0);
        } else {
            slot_index = free_slots_.back();
            free_slots_.pop_back();
        }
        const abi::PairHandle handle{.slot_index = slot_index,
                                     .generation = ++generations_[slot_index]};
        command({.kind = Command::Kind::open,
                 .slot_index = handle.slot_index,
                 .generation = handle.generation,
                 .request = std::move(request)});
        return {
            .handle = handle, .visitor = &io.connection(visitor), .client = &io.connection(client)};
    }

    void close(abi::PairHandle handle) {
        command({.kind = Command::Kind::close,
                 .slot_index = handle.slot_index,
                 .generation = handle.generation});
    }
    void drain(base::Nanoseconds deadline) {
        command({.kind = Command::Kind::drain, .deadline = deadline});
    }
    [[nodiscard]] bool commands_fit() const { return !queues.commands.full(); }

    // One turn of the worker's loop, `step` after the previous one.
    void turn(base::Nanoseconds step = 100 * base::microsecond_ns) {
        now += step;
        shard.begin_turn(now, 0);
        io.deliver_events();
        shard.end_turn();
        announced = shard.take_announcement() || announced;
    }
    // Turns until `duration` has passed, none later than the shard asked for.
    void run(base::Nanoseconds duration, base::Nanoseconds step = 100 * base::microsecond_ns) {
        const base::Nanoseconds end = now + duration;
        while (now < end) {
            base::Nanoseconds next = std::min(now + step, end);
            if (const auto deadline = shard.next_deadline()) {
                next = std::min(next, std::max(*deadline, now + 1));
            }
            turn(next - now);
        }
    }

    // The control thread: takes the events of ended pairs when it was told that there are some.
    void poll() {
        if (!announced) {
            return;
        }
        announced = false;
        while (auto event = queues.events.pop()) {
            free_slots_.push_back(event->handle.slot_index);
            ended.push_back(*event);
        }
    }

    [[nodiscard]] std::uint64_t counter(abi::WorkerCounter which) {
        return statistics.worker(0).get(which);
    }

    Random random;
    SimulatedIo io;
    abi::Statistics statistics;
    abi::TunnelTable tunnels;
    WorkerQueues queues;
    base::Nanoseconds now{base::second_ns};
    Shard shard;
    std::uint64_t delivered_before_bytes{0};  // of pairs opened from now on, by another engine
    bool announced{false};
    std::vector<abi::PairEnded> ended;

  private:
    static std::vector<std::byte> hand_over(Connection& connection, std::size_t bytes) {
        std::vector<std::byte> left_over(bytes);
        Pattern::fill(connection.stream, 0, left_over);
        connection.arrived_bytes = connection.read_bytes = bytes;
        return left_over;
    }
    void command(Command&& command) {
        const bool pushed = queues.commands.push(std::move(command));
        BORE_CHECK(pushed, "the test filled the command ring");
    }

    std::vector<std::uint32_t> generations_;
    std::vector<std::uint32_t> free_slots_;
};

}  // namespace bore::stream::testing
