// Steps of a pair's state machine over sockets that take and give everything at once: what the
// stream engine's own code costs between two system calls.
#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "bench/micro/conclude.hpp"
#include "dataplane/stream/shard.hpp"

namespace bore::bench {

namespace {

using abi::Leg;
using abi::WorkerCounter;
using base::Nanoseconds;
using stream::IoResult;
using stream::Pair;

// Answers every verb at once with success. Counts bytes, for the verdict at the end.
class InstantIo final : public stream::Io {
  public:
    std::size_t readable_bytes{0};  // what fill_pipe() finds once
    bool has_pipes{false};
    std::uint64_t sent_bytes{0};
    std::uint64_t closed_pairs{0};

    Pair& attach(std::uint32_t slot_index, int /*visitor*/, int /*client*/) override {
        while (pairs_.size() <= slot_index) {
            pairs_.push_back(std::make_unique<Pair>());
        }
        return *pairs_[slot_index];
    }
    Pair* find(std::uint32_t slot_index) override {
        return slot_index < pairs_.size() ? pairs_[slot_index].get() : nullptr;
    }
    void receive(Pair& /*pair*/, Leg /*source*/) override {}
    bool stop_receive(Pair& /*pair*/, Leg /*source*/) override { return true; }
    void watch_readable(Pair& /*pair*/, Leg /*source*/) override {}
    void watch_writable(Pair& /*pair*/, Leg /*target*/) override {}
    IoResult read(Pair& /*pair*/, Leg /*source*/, std::size_t /*max*/,
                  std::span<const std::byte>& /*bytes*/) override {
        return IoResult::would_block();
    }
    IoResult send(Pair& /*pair*/, Leg /*target*/, std::span<const std::byte> bytes) override {
        keep(bytes.data());
        sent_bytes += bytes.size();
        return IoResult::moved(bytes.size());
    }
    IoResult fill_pipe(Pair& /*pair*/, Leg /*source*/, std::size_t max_bytes) override {
        const std::size_t bytes = std::min(readable_bytes, max_bytes);
        readable_bytes -= bytes;
        return bytes == 0 ? IoResult::would_block() : IoResult::moved(bytes);
    }
    IoResult drain_pipe(Pair& /*pair*/, Leg /*source*/, std::size_t max_bytes) override {
        sent_bytes += max_bytes;
        return IoResult::moved(max_bytes);
    }
    bool has_unread(Pair& /*pair*/, Leg /*source*/) override { return false; }
    int shutdown_write(Pair& /*pair*/, Leg /*target*/) override { return 0; }
    int pending_error(Pair& /*pair*/, Leg /*leg*/) override { return 0; }
    void set_low_water(Pair& /*pair*/, Leg /*source*/, std::size_t /*bytes*/) override {}
    void quick_ack(Pair& /*pair*/, Leg /*source*/) override {}
    bool lend_pipe(Pair& /*pair*/, Leg /*source*/) override { return has_pipes; }
    void return_pipe(Pair& /*pair*/, Leg /*source*/, bool /*empty*/) override {}
    void close(Pair& pair, bool /*reset*/) override {
        ++closed_pairs;
        pair.on_closed();
    }

  private:
    std::vector<std::unique_ptr<Pair>> pairs_;
};

// A worker with everything but a loop.
struct Worker {
    abi::Statistics statistics{1, 16};
    abi::TunnelTable tunnels{16};
    std::unique_ptr<stream::WorkerQueues> queues{std::make_unique<stream::WorkerQueues>()};
    InstantIo io;
    Nanoseconds now{1'000 * base::second_ns};
    stream::Shard shard{0, statistics, tunnels, *queues, io, now};

    // A turn of the loop in which nothing but commands and timers happens.
    void turn() {
        shard.begin_turn(now, 0);
        shard.end_turn();
    }
    bool open(std::uint32_t slot_index) {
        stream::Command command;
        command.kind = stream::Command::Kind::open;
        command.slot_index = slot_index;
        return queues->commands.push(std::move(command));
    }
    Pair& opened_pair() {
        (void)open(0);
        turn();
        return *io.find(0);
    }
};

// Request and answer: a message comes from either leg in turn and goes out at the other.
void exchange(benchmark::State& state) {
    const std::vector<std::byte> message(static_cast<std::size_t>(state.range(0)));
    Worker worker;
    Pair& pair = worker.opened_pair();
    for (auto _ : state) {
        pair.on_data(Leg::visitor, message, false);
        pair.on_data(Leg::client, message, false);
    }
    const std::uint64_t moved = worker.statistics.worker_total(WorkerCounter::copied_bytes_total);
    conclude(state, "message of so many bytes from leg to leg by the copy path", 2,
             pair.live() && moved == worker.io.sent_bytes &&
                 moved == 2 * message.size() * static_cast<std::uint64_t>(state.iterations()));
}
BENCHMARK(exchange)->Name("pair/exchange")->Arg(64)->Arg(8'192);

// A bulk direction: readable, a megabyte into the pipe, out of it, watched again.
void splice(benchmark::State& state) {
    constexpr std::size_t step_bytes = std::size_t{256} << 10U;
    const std::vector<std::byte> piece(abi::receive_buffer_bytes);
    Worker worker;
    worker.io.has_pipes = true;
    Pair& pair = worker.opened_pair();
    while (worker.statistics.worker_total(WorkerCounter::path_to_splice_total) == 0 &&
           worker.io.sent_bytes < step_bytes) {
        pair.on_data(Leg::visitor, piece, true);
    }
    const std::uint64_t before = worker.statistics.worker_total(WorkerCounter::spliced_bytes_total);
    for (auto _ : state) {
        worker.io.readable_bytes = step_bytes;
        pair.on_readable(Leg::visitor);
    }
    const std::uint64_t moved =
        worker.statistics.worker_total(WorkerCounter::spliced_bytes_total) - before;
    conclude(state, "256 KiB from leg to leg by the splice path", 1,
             pair.live() && moved == step_bytes * static_cast<std::uint64_t>(state.iterations()));
}
BENCHMARK(splice)->Name("pair/splice");

// From the command to the report of the end, both directions ended in order, a turn of the loop for
// each: what a short connection costs beside its bytes.
void open_and_end(benchmark::State& state) {
    Worker worker;
    bool right = true;
    std::uint64_t reported = 0;
    for (auto _ : state) {
        worker.now += base::millisecond_ns;
        right &= worker.open(0);
        worker.turn();
        Pair& pair = *worker.io.find(0);
        worker.shard.begin_turn(worker.now, 2);
        pair.on_end_of_stream(Leg::visitor);
        pair.on_end_of_stream(Leg::client);
        worker.shard.end_turn();
        const auto ended = worker.queues->events.pop();
        right &= ended && ended->reason == abi::EndReason::fin;
        ++reported;
    }
    conclude(state, "pair opened, ended in order and reported", 1,
             right && worker.io.closed_pairs == reported);
}
BENCHMARK(open_and_end)->Name("pair/open_and_end");

// A turn without any event while so many pairs are idle: only timers may cost.
void idle_turn(benchmark::State& state) {
    const auto pair_count = static_cast<std::uint32_t>(state.range(0));
    Worker worker;
    worker.tunnels.change(0, {.idle_timeout_ms = 60'000});
    bool right = true;
    for (std::uint32_t slot_index = 0; slot_index < pair_count; ++slot_index) {
        right &= worker.open(slot_index);
        worker.turn();
    }
    for (auto _ : state) {
        worker.turn();
    }
    conclude(state, "turn of the loop in which nothing happens, beside so many idle pairs", 1,
             right && worker.statistics.worker_total(WorkerCounter::pairs_live) == pair_count);
}
BENCHMARK(idle_turn)->Name("pair/idle_turn")->Arg(1)->Arg(10'000);

}  // namespace

}  // namespace bore::bench
