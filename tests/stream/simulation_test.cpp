// Seeded simulation: random pairs, drivers, limits, faults and commands on one shard, in simulated
// time. What must hold whatever happens: every byte once and in order (checked where it arrives),
// no direction stands still that could move, every end has a true reason, every resource comes
// back, every counter is exact.
//
//   BORE_SIMULATION_SEED=n   runs that seed alone
//   BORE_SIMULATION_RUNS=n   so many seeds per kind of run instead of the built-in count
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <string>

#include "dataplane/abi/limits.hpp"
#include "tests/stream/peers.hpp"
#include "tests/stream/world.hpp"

namespace bore::stream::testing {
namespace {

using abi::EndReason;
using abi::WorkerCounter;
using base::millisecond_ns;
using base::Nanoseconds;
using base::second_ns;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr std::uint64_t runs_per_kind = 200;
#else
constexpr std::uint64_t runs_per_kind = 1'500;
#endif

struct Kind {
    const char* name;
    bool faults;    // resets, socket errors, commands in the middle
    bool limits;    // rates and timeouts, changed while pairs run
    bool bad_luck;  // short moves, EAGAIN, spurious readiness, few or odd pipes, a full event ring
};

struct Exchange {
    OpenedPair pair;
    std::array<Peer, 2> peers;
    std::uint32_t tunnel_index{0};
    std::array<Nanoseconds, 2> moved_at{};
    std::array<std::uint64_t, 2> progress{};
    Nanoseconds failed_at{0};
    bool close_commanded{false};
    int ends{0};

    [[nodiscard]] bool over() const { return pair.visitor->closed; }
};

class Simulation {
  public:
    Simulation(std::uint64_t seed, const Kind& kind)
        : kind_(kind),
          world_(seed, make_behaviour(seed, kind), kind.bad_luck ? std::size_t{2} << seed % 3 : 64),
          random_(world_.random) {}

    void run() {
        for (std::uint32_t index = 0; index < World::tunnel_count; ++index) {
            set_limits(index);
        }
        pairs_to_open_ = random_.chance(80) ? random_.between<std::size_t>(1, 4)
                                            : random_.between<std::size_t>(5, 40);
        close_all_at_ = kind_.faults ? world_.now + random_.between<Nanoseconds>(1, 20 * second_ns)
                                     : ~Nanoseconds{0};
        for (int turn = 0; turn < max_turns && !done(); ++turn) {
            command();
            for (Exchange& exchange : exchanges_) {
                act(exchange);
            }
            world_.turn(next_step());
            if (random_.chance(kind_.bad_luck ? 2 : 50)) {  // a control thread that is behind
                world_.poll();
                take_ends();
            }
            for (Exchange& exchange : exchanges_) {
                check(exchange);
            }
            if (::testing::Test::HasFailure()) {
                return;
            }
        }
        EXPECT_TRUE(done()) << "not over after " << max_turns << " turns";
        check_all_is_given_back();
    }

    // Adds what happened to `totals`.
    void add_counters(abi::WorkerCounters& totals) {
        for (std::size_t index = 0; index < abi::WorkerCounters::size; ++index) {
            const auto counter = static_cast<WorkerCounter>(index);
            totals.add(counter, world_.counter(counter));
        }
    }

  private:
    static constexpr int max_turns = 60'000;

    static Behaviour make_behaviour(std::uint64_t seed, const Kind& kind) {
        Random random(~seed);
        Behaviour behaviour{.asynchronous = random.chance(50)};
        behaviour.deliver_percent = random.between(60U, 100U);
        if (kind.bad_luck) {
            behaviour.short_percent = random.between(0U, 60U);
            behaviour.would_block_percent = random.between(0U, 30U);
            behaviour.spurious_percent = random.between(0U, 5U);
            behaviour.receive_ends_percent = random.between(0U, 20U);
            behaviour.pipe_count = random.between<std::size_t>(0, 6);
            behaviour.pipe_capacity_bytes = random.any_size(std::size_t{1} << 20U);
        }
        return behaviour;
    }

    void set_limits(std::uint32_t tunnel_index) {
        if (!kind_.limits) {
            return;
        }
        constexpr std::array<std::uint64_t, 4> rates{125'000, 1'250'000, 12'500'000, 125'000'000};
        abi::TunnelLimits limits;
        if (random_.chance(50)) {
            limits.to_client_bytes_per_second = rates[random_.between<std::size_t>(0, 3)];
        }
        if (random_.chance(50)) {
            limits.to_visitor_bytes_per_second = rates[random_.between<std::size_t>(0, 3)];
        }
        if (random_.chance(20)) {
            limits.idle_timeout_ms = random_.between<std::uint64_t>(500, 5'000);
        }
        if (random_.chance(20)) {
            limits.half_closed_timeout_ms = random_.between<std::uint64_t>(100, 5'000);
        }
        world_.tunnels.change(tunnel_index, limits);
    }

    [[nodiscard]] bool done() const { return pairs_to_open_ == 0 && ended_ == exchanges_.size(); }

    // ---- What the control thread does

    void command() {
        if (pairs_to_open_ > 0 && world_.commands_fit() && random_.chance(20)) {
            --pairs_to_open_;
            open();
        }
        if (kind_.limits && random_.chance(1)) {
            set_limits(random_.between<std::uint32_t>(0, World::tunnel_count - 1));
        }
        if (!kind_.faults || exchanges_.empty() || !world_.commands_fit()) {
            return;
        }
        if (random_.chance(1)) {  // any handle, old ones as well
            const std::size_t index = random_.between<std::size_t>(0, exchanges_.size() - 1);
            close(exchanges_[index]);
        }
        if (world_.now > close_all_at_ && pairs_to_open_ == 0 && !drained_) {
            drained_ = true;
            world_.drain(world_.now + random_.between<Nanoseconds>(0, second_ns));
        }
    }

    void close(Exchange& exchange) {
        exchange.close_commanded = true;
        world_.close(exchange.pair.handle);
    }

    void open() {
        Exchange& exchange = exchanges_.emplace_back();
        exchange.tunnel_index = random_.between<std::uint32_t>(0, World::tunnel_count - 1);
        const std::size_t bulk_bytes = random_.chance(20) ? 2'000'000 : 100'000;
        auto plans = make_plans(random_, bulk_bytes, world_.now);
        std::array<std::size_t, 2> left_over{};
        for (std::size_t side = 0; side < 2; ++side) {
            PeerPlan& plan = plans[side];
            if (kind_.faults && random_.chance(30)) {
                plan.resets_after_bytes = random_.between<std::uint64_t>(0, plan.total_bytes());
                plan.reset_error = random_.chance(70) ? ECONNRESET : ETIMEDOUT;
            }
            plan.finishes = !kind_.faults || random_.chance(80);
            if (random_.chance(30) && (!plan.in_turns || plan.speaks_first) &&
                !plan.message_ends.empty()) {
                left_over[side] =
                    std::min<std::size_t>(random_.any_size(4'096), plan.message_ends[0]);
            }
        }
        exchange.pair =
            world_.open(exchange.tunnel_index, exchanges_.size() - 1, left_over[1], left_over[0]);
        for (const Leg leg : {Leg::visitor, Leg::client}) {
            Connection& connection = exchange.pair.leg(leg);
            connection.receive_capacity_bytes = 8'192 + random_.any_size(2'000'000);
            connection.send_capacity_bytes = 2'048 + random_.any_size(1'000'000);
            exchange.peers[index_of(leg)] = Peer(plans[index_of(leg)]);
            exchange.moved_at[index_of(leg)] = world_.now;
        }
    }

    void act(Exchange& exchange) {
        for (const Leg leg : {Leg::visitor, Leg::client}) {
            if (random_.chance(70)) {
                exchange.peers[index_of(leg)].act(exchange.pair.leg(leg),
                                                  exchange.peers[index_of(other(leg))].plan(),
                                                  world_.now, random_);
            }
            if (exchange.pair.leg(leg).failed && exchange.failed_at == 0) {
                exchange.failed_at = world_.now;
            }
        }
    }

    // A loop wakes up at its deadline, or earlier for an event, or late under load.
    Nanoseconds next_step() {
        if (random_.chance(3)) {
            return random_.between<Nanoseconds>(1, 40 * millisecond_ns);
        }
        Nanoseconds step = random_.between<Nanoseconds>(1, 300'000);
        if (random_.chance(20)) {
            step = 5 * millisecond_ns;
            if (const auto deadline = world_.shard.next_deadline()) {
                step = *deadline > world_.now ? std::min(step, *deadline - world_.now) : 1;
            }
        }
        return step;
    }

    // ---- What must hold

    // Longer than anything that may rightly delay a byte: a limit that was set while 512 KiB of
    // receives were under way on each pair of the tunnel.
    [[nodiscard]] Nanoseconds patience(const Exchange& exchange) {
        Nanoseconds bound = 2 * second_ns;
        if (kind_.limits) {
            constexpr std::uint64_t slowest = 125'000;
            bound += (exchanges_.size() + 1) * 600'000 * second_ns / slowest;
            (void)exchange;
        }
        return bound;
    }

    void check(Exchange& exchange) {
        if (exchange.over()) {
            return;
        }
        for (const Leg source : {Leg::visitor, Leg::client}) {
            check_progress(exchange, source);
        }
        if (exchange.failed_at != 0 && world_.now > exchange.failed_at + patience(exchange)) {
            ADD_FAILURE() << "a reset of pair " << name(exchange) << " went unnoticed";
        }
    }

    void check_progress(Exchange& exchange, Leg source) {
        const Connection& from = exchange.pair.leg(source);
        const Connection& to = exchange.pair.leg(other(source));
        const std::size_t index = index_of(source);
        const std::uint64_t in_pipe = from.pipe ? from.pipe->size() : 0;
        const std::uint64_t held = from.read_bytes - to.sent_bytes;
        EXPECT_LE(held - in_pipe, abi::max_buffered_bytes_per_direction);

        const std::uint64_t progress =
            from.read_bytes + to.sent_bytes + (to.fin_sent ? 1 : 0) + (from.fin_read ? 1 : 0);
        const bool waits =
            from.available_bytes() > 0 || held > 0 || (from.fin_arrived && !to.fin_sent);
        const bool could = !from.failed && !to.failed && to.writable();
        if (!waits || !could || progress != exchange.progress[index]) {
            exchange.progress[index] = progress;
            exchange.moved_at[index] = world_.now;
        } else if (world_.now > exchange.moved_at[index] + patience(exchange)) {
            ADD_FAILURE() << "stuck: pair " << name(exchange) << ", from the "
                          << (source == Leg::visitor ? "visitor" : "client") << ": "
                          << from.available_bytes() << " bytes wait in the socket (low water "
                          << from.low_water_bytes << "), " << held << " are held, " << in_pipe
                          << " of them in a pipe; " << to.send_room_bytes() << " have room";
        }
    }

    void take_ends() {
        for (; ended_ < world_.ended.size(); ++ended_) {
            const abi::PairEnded& end = world_.ended[ended_];
            Exchange& exchange = exchanges_[end.tag];
            EXPECT_EQ(++exchange.ends, 1) << "an end reported twice";
            EXPECT_EQ(end.handle, exchange.pair.handle);
            EXPECT_EQ(end.tunnel_index, exchange.tunnel_index);
            EXPECT_TRUE(exchange.over());
            EXPECT_EQ(end.to_client_bytes, exchange.pair.client->sent_bytes);
            EXPECT_EQ(end.to_visitor_bytes, exchange.pair.visitor->sent_bytes);
            check_reason(exchange, end);
        }
    }

    void check_reason(const Exchange& exchange, const abi::PairEnded& end) {
        const Connection& visitor = *exchange.pair.visitor;
        const Connection& client = *exchange.pair.client;
        EXPECT_EQ(visitor.closed_by_reset, end.reason != EndReason::fin);
        EXPECT_EQ(client.closed_by_reset, end.reason != EndReason::fin);
        switch (end.reason) {
            case EndReason::fin:
                EXPECT_EQ(client.sent_bytes, exchange.peers[0].plan().total_bytes());
                EXPECT_EQ(visitor.sent_bytes, exchange.peers[1].plan().total_bytes());
                EXPECT_TRUE(visitor.fin_sent && client.fin_sent);
                break;
            case EndReason::reset:
            case EndReason::error:
                EXPECT_TRUE(visitor.failed || client.failed)
                    << name(exchange) << ": errno " << end.error_number;
                EXPECT_NE(end.error_number, 0);
                break;
            case EndReason::closed:
                EXPECT_TRUE(exchange.close_commanded);
                break;
            case EndReason::drained:
                EXPECT_TRUE(drained_);
                break;
            case EndReason::idle:
            case EndReason::half_closed:
                EXPECT_TRUE(kind_.limits);
                break;
            case EndReason::count:
                ADD_FAILURE() << "no reason";
        }
    }

    void check_all_is_given_back() {
        world_.run(100 * millisecond_ns, 10 * millisecond_ns);
        world_.poll();
        EXPECT_EQ(world_.ended.size(), exchanges_.size());
        EXPECT_EQ(world_.io.lent_pipes(), 0U);
        EXPECT_EQ(world_.io.attached_pairs(), 0U);
        EXPECT_EQ(world_.counter(WorkerCounter::pairs_live), 0U);
        EXPECT_EQ(world_.counter(WorkerCounter::pairs_opened_total), exchanges_.size());
        EXPECT_EQ(world_.shard.finished(), drained_);
        const auto deadline = world_.shard.next_deadline();
        EXPECT_TRUE(drained_ || !deadline) << "a timer is armed for nobody";
        std::uint64_t bytes = 0;
        for (std::uint32_t index = 0; index < World::tunnel_count; ++index) {
            std::uint64_t to_client = 0;
            std::uint64_t to_visitor = 0;
            for (const Exchange& exchange : exchanges_) {
                if (exchange.tunnel_index == index) {
                    to_client += exchange.pair.client->sent_bytes;
                    to_visitor += exchange.pair.visitor->sent_bytes;
                }
            }
            const abi::TunnelTotals totals = world_.statistics.tunnel_totals(index);
            EXPECT_EQ(totals.to_client_bytes, to_client);
            EXPECT_EQ(totals.to_visitor_bytes, to_visitor);
            EXPECT_EQ(totals.pairs_live, 0U);
            bytes += to_client + to_visitor;
        }
        EXPECT_EQ(world_.counter(WorkerCounter::copied_bytes_total) +
                      world_.counter(WorkerCounter::spliced_bytes_total),
                  bytes);
    }

    static std::string name(const Exchange& exchange) {
        return std::to_string(exchange.pair.handle.slot_index) + "." +
               std::to_string(exchange.pair.handle.generation);
    }

    Kind kind_;
    World world_;
    Random& random_;
    std::deque<Exchange> exchanges_;
    std::size_t pairs_to_open_{0};
    std::size_t ended_{0};
    Nanoseconds close_all_at_{0};
    bool drained_{false};
};

class SimulationTest : public ::testing::TestWithParam<Kind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, SimulationTest,
                         ::testing::Values(Kind{"orderly", false, false, false},
                                           Kind{"bad_luck", false, false, true},
                                           Kind{"limits", false, true, true},
                                           Kind{"faults", true, false, true},
                                           Kind{"everything", true, true, true}),
                         [](const auto& kind) { return kind.param.name; });

// A simulation that never got to the places where mistakes hide would prove nothing.
void expect_coverage(const Kind& kind, const abi::WorkerCounters& totals) {
    std::vector<WorkerCounter> wanted{
        WorkerCounter::path_to_splice_total, WorkerCounter::path_to_copy_total,
        WorkerCounter::backpressure_total,   WorkerCounter::gather_deadlines_total,
        WorkerCounter::quick_acks_total,     WorkerCounter::pairs_ended_fin_total};
    if (kind.bad_luck) {
        wanted.insert(wanted.end(),
                      {WorkerCounter::pipes_exhausted_total, WorkerCounter::events_deferred_total});
    }
    if (kind.limits) {
        wanted.insert(wanted.end(),
                      {WorkerCounter::rate_limited_total, WorkerCounter::pairs_ended_idle_total,
                       WorkerCounter::pairs_ended_half_closed_total});
    }
    if (kind.faults) {
        wanted.insert(
            wanted.end(),
            {WorkerCounter::pairs_ended_reset_total, WorkerCounter::pairs_ended_error_total,
             WorkerCounter::pairs_ended_closed_total, WorkerCounter::pairs_ended_drained_total});
    }
    for (const WorkerCounter counter : wanted) {
        EXPECT_GT(totals.get(counter), 0U)
            << abi::worker_counter_infos[static_cast<std::size_t>(counter)].name;
    }
}

TEST_P(SimulationTest, HoldsItsInvariants) {
    std::uint64_t first = 1;
    std::uint64_t last = runs_per_kind;
    if (const char* runs = std::getenv("BORE_SIMULATION_RUNS")) {
        last = std::strtoull(runs, nullptr, 10);
    }
    if (const char* seed = std::getenv("BORE_SIMULATION_SEED")) {
        first = last = std::strtoull(seed, nullptr, 10);
    }
    abi::WorkerCounters totals;
    for (std::uint64_t seed = first; seed <= last; ++seed) {
        SCOPED_TRACE("BORE_SIMULATION_SEED=" + std::to_string(seed));
        Simulation simulation(seed, GetParam());
        simulation.run();
        simulation.add_counters(totals);
        if (HasFailure()) {
            std::fprintf(stderr, "failed: BORE_SIMULATION_SEED=%llu --gtest_filter=*/%s\n",
                         static_cast<unsigned long long>(seed), GetParam().name);
            return;
        }
    }
    if (last - first + 1 >= runs_per_kind) {
        expect_coverage(GetParam(), totals);
    }
}

}  // namespace
}  // namespace bore::stream::testing
