// The control thread's half of the stream engine: slots and generations, commands to the workers,
// events from them; and the threads' start and end.
#include "drivers/stream_engine/stream_engine.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "dataplane/abi/limits.hpp"
#include "dataplane/stream/shard.hpp"
#include "drivers/epoll/epoll_worker.hpp"
#include "drivers/io_uring/io_uring_worker.hpp"
#include "drivers/kernel/stream_worker.hpp"
#include "drivers/kernel/wake_event.hpp"

namespace bore::drivers {

namespace {

using abi::OpenError;
using abi::PairEnded;
using abi::PairHandle;
using abi::PairRequest;
using stream::Command;

// A handle's slot names the worker, too:  worker (8 bits) | slot of that worker (24)
constexpr std::uint32_t slot_bits = 24;
constexpr std::uint32_t slots_per_worker = 1U << slot_bits;
constexpr std::size_t events_per_poll = 1'024;

// One worker as the control thread sees it.
struct Member {
    stream::WorkerQueues queues;
    WakeEvent wake;
    std::thread thread;
    std::atomic<bool> ended{false};          // the worker takes no more commands
    std::vector<std::uint32_t> generations;  // by slot, odd while a pair is live in it
    std::vector<std::uint32_t> tunnels;      // by slot, the index of the pair's tunnel
    std::vector<std::uint32_t> free_slots;
    std::uint32_t live_pairs{0};
};

class StreamEngine final : public abi::Engine {
  public:
    StreamEngine(const StreamEngineOptions& options, abi::Statistics& statistics,
                 abi::TunnelTable& tunnels)
        : options_(options),
          statistics_(statistics),
          tunnels_(tunnels),
          members_(options.worker_count) {}
    ~StreamEngine() override;

    [[nodiscard]] std::expected<void, std::string> start();

    void open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                     const abi::TunnelLimits& limits) override;
    void set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) override;
    void close_tunnel(std::uint32_t /*tunnel_index*/) override {}
    std::expected<PairHandle, OpenError> open_pair(PairRequest&& request) override;
    void close_pair(PairHandle handle) override;
    void close_pairs_of(std::optional<std::uint32_t> tunnel_index) override;
    void drain(base::Nanoseconds deadline) override;
    bool drained() const override;
    int event_descriptor() const override { return announcements_.descriptor(); }
    bool poll_events(std::vector<PairEnded>& events) override;
    void wake_workers() override {
        for (Member& member : members_) {
            member.wake.wake();
        }
    }
    std::uint32_t worker_count() const override { return options_.worker_count; }
    std::string description() const override { return description_; }

  private:
    using MakeWorker =
        std::expected<std::unique_ptr<StreamWorker>, std::string> (*)(const WorkerContext&);

    [[nodiscard]] std::expected<MakeWorker, std::string> choose_driver();
    [[nodiscard]] std::expected<void, std::string> start_member(std::uint32_t worker_index,
                                                                MakeWorker make_worker);
    [[nodiscard]] std::uint32_t choose_member() const;
    [[nodiscard]] static bool send(Member& member, Command&& command);
    static void send_surely(Member& member, Command&& command);

    StreamEngineOptions options_;
    abi::Statistics& statistics_;
    abi::TunnelTable& tunnels_;
    WakeEvent announcements_;
    std::vector<Member> members_;
    std::string description_;
    bool draining_{false};
};

// ---- Start and end

std::expected<StreamEngine::MakeWorker, std::string> StreamEngine::choose_driver() {
    std::string fallback;
    if (options_.driver != StreamDriver::epoll) {
        const auto probe = probe_io_uring();
        if (probe) {
            description_ = "stream engine on io_uring";
            return &make_io_uring_worker;
        }
        if (options_.driver == StreamDriver::io_uring) {
            return std::unexpected("stream-driver = io_uring: " + probe.error() +
                                   "; permit it, or use stream-driver auto or epoll");
        }
        fallback = " (io_uring not usable: " + probe.error() + ")";
    }
    description_ = "stream engine on epoll" + fallback;
    return &make_epoll_worker;
}

std::expected<void, std::string> StreamEngine::start() {
    const auto make_worker = choose_driver();
    if (!make_worker) {
        return std::unexpected(make_worker.error());
    }
    for (std::uint32_t worker_index = 0; worker_index < options_.worker_count; ++worker_index) {
        auto started = start_member(worker_index, *make_worker);
        if (!started) {
            return started;
        }
    }
    description_ += ", " + std::to_string(options_.worker_count) +
                    (options_.worker_count == 1 ? " worker" : " workers");
    return {};
}

std::expected<void, std::string> StreamEngine::start_member(std::uint32_t worker_index,
                                                            MakeWorker make_worker) {
    Member& member = members_[worker_index];
    std::promise<std::string> started;
    std::future<std::string> start_error = started.get_future();
    int cpu = -1;
    if (!options_.cpus.empty()) {
        cpu = options_.cpus[worker_index % options_.cpus.size()];
    }
    // The promise moves into the thread: setting it may touch it after the future woke up.
    member.thread = std::thread(
        [this, &member, started = std::move(started), worker_index, cpu, make_worker]() mutable {
            sigset_t all;
            ::sigfillset(&all);
            ::pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the control thread's
            const std::string name = "bore-worker-" + std::to_string(worker_index);
            ::pthread_setname_np(::pthread_self(), name.c_str());
            if (cpu >= 0) {
                cpu_set_t set;
                CPU_ZERO(&set);
                CPU_SET(static_cast<std::size_t>(cpu), &set);
                const int pinned = ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
                if (pinned != 0) {
                    started.set_value("cpus: worker " + std::to_string(worker_index) +
                                      " cannot run on CPU " + std::to_string(cpu) + " (" +
                                      std::strerror(pinned) + "); name CPUs of this machine's set");
                    return;
                }
            }
            auto worker = make_worker(WorkerContext{.worker_index = worker_index,
                                                    .statistics = statistics_,
                                                    .tunnels = tunnels_,
                                                    .queues = member.queues,
                                                    .wake = member.wake,
                                                    .announcements = announcements_,
                                                    .busy_poll_us = options_.busy_poll_us});
            started.set_value(worker ? std::string() : worker.error());
            if (worker) {
                (*worker)->run();
            }
            member.ended.store(true);
        });
    std::string error = start_error.get();
    if (!error.empty()) {
        member.thread.join();
        return std::unexpected(std::move(error));
    }
    return {};
}

StreamEngine::~StreamEngine() {
    drain(0);
    for (Member& member : members_) {
        if (!member.thread.joinable()) {
            continue;
        }
        // A worker ends when its last event is in the ring; keep the rings from being full.
        std::vector<PairEnded> events;
        while (member.live_pairs > 0) {
            events.clear();
            (void)poll_events(events);
            if (events.empty()) {
                std::this_thread::yield();
            }
        }
        member.thread.join();
    }
}

// ---- The seam

void StreamEngine::open_tunnel(std::uint32_t tunnel_index, std::uint16_t /*public_port*/,
                               const abi::TunnelLimits& limits) {
    abi::TunnelEntry& entry = tunnels_.entry(tunnel_index);
    entry.set(limits);
    for (abi::RateLimiter& limiter : entry.limiters) {
        limiter.reset();
    }
}

void StreamEngine::set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) {
    tunnels_.change(tunnel_index, limits);
    for (Member& member : members_) {
        member.wake.wake();
    }
}

std::uint32_t StreamEngine::choose_member() const {
    std::uint32_t least = 0;
    for (std::uint32_t index = 1; index < options_.worker_count; ++index) {
        if (members_[index].live_pairs < members_[least].live_pairs) {
            least = index;
        }
    }
    return least;
}

bool StreamEngine::send(Member& member, Command&& command) {
    if (!member.queues.commands.push(std::move(command))) {
        return false;
    }
    member.wake.wake();
    return true;
}

// A full ring empties within one turn of the worker's loop, and takes nothing until then.
void StreamEngine::send_surely(Member& member, Command&& command) {
    // NOLINTNEXTLINE(bugprone-use-after-move)
    while (!member.ended.load() && !send(member, std::move(command))) {
        member.wake.wake();
        std::this_thread::yield();
    }
}

std::expected<PairHandle, OpenError> StreamEngine::open_pair(PairRequest&& request) {
    if (draining_) {
        return std::unexpected(OpenError::draining);
    }
    const std::uint32_t worker_index = choose_member();
    Member& member = members_[worker_index];
    if (member.queues.commands.full()) {
        return std::unexpected(OpenError::busy);
    }
    std::uint32_t slot_index = 0;
    if (!member.free_slots.empty()) {
        slot_index = member.free_slots.back();
        member.free_slots.pop_back();
    } else {
        slot_index = static_cast<std::uint32_t>(member.generations.size());
        BORE_CHECK(slot_index < slots_per_worker, "more pairs than descriptors exist");
        member.generations.push_back(0);
        member.tunnels.push_back(0);
    }
    member.tunnels[slot_index] = request.tunnel_index;
    const std::uint32_t generation = ++member.generations[slot_index];
    Command command{.kind = Command::Kind::open,
                    .slot_index = slot_index,
                    .generation = generation,
                    .request = std::move(request)};
    const bool sent = send(member, std::move(command));
    BORE_CHECK(sent, "the command ring was not full a moment ago");
    ++member.live_pairs;
    return PairHandle{.slot_index = (worker_index << slot_bits) | slot_index,
                      .generation = generation};
}

void StreamEngine::close_pair(PairHandle handle) {
    const std::uint32_t worker_index = handle.slot_index >> slot_bits;
    const std::uint32_t slot_index = handle.slot_index & (slots_per_worker - 1);
    if (worker_index >= members_.size() ||
        slot_index >= members_[worker_index].generations.size() ||
        members_[worker_index].generations[slot_index] != handle.generation) {
        return;  // its end was polled already
    }
    send_surely(members_[worker_index], Command{.kind = Command::Kind::close,
                                                .slot_index = slot_index,
                                                .generation = handle.generation});
}

void StreamEngine::close_pairs_of(std::optional<std::uint32_t> tunnel_index) {
    for (Member& member : members_) {
        for (std::uint32_t slot_index = 0; slot_index < member.generations.size(); ++slot_index) {
            const std::uint32_t generation = member.generations[slot_index];
            const std::uint32_t tunnel = member.tunnels[slot_index];
            if (generation % 2 == 1 && tunnel == tunnel_index.value_or(tunnel)) {
                send_surely(member, Command{.kind = Command::Kind::close,
                                            .slot_index = slot_index,
                                            .generation = generation});
            }
        }
    }
}

void StreamEngine::drain(base::Nanoseconds deadline) {
    draining_ = true;
    for (Member& member : members_) {
        if (member.thread.joinable()) {
            send_surely(member, Command{.kind = Command::Kind::drain, .deadline = deadline});
        }
    }
}

bool StreamEngine::drained() const {
    if (!draining_) {
        return false;
    }
    for (const Member& member : members_) {
        if (member.live_pairs > 0) {
            return false;
        }
    }
    return true;
}

bool StreamEngine::poll_events(std::vector<PairEnded>& events) {
    announcements_.clear();
    bool more = false;
    for (std::uint32_t worker_index = 0; worker_index < options_.worker_count; ++worker_index) {
        Member& member = members_[worker_index];
        for (std::size_t count = 0; count < events_per_poll; ++count) {
            auto event = member.queues.events.pop();
            if (!event) {
                break;
            }
            ++member.generations[event->handle.slot_index];  // the handle is void from now on
            member.free_slots.push_back(event->handle.slot_index);
            --member.live_pairs;
            event->handle.slot_index |= worker_index << slot_bits;
            events.push_back(*event);
        }
        more = more || !member.queues.events.empty();
    }
    return more;
}

}  // namespace

std::expected<std::unique_ptr<abi::Engine>, std::string> make_stream_engine(
    const StreamEngineOptions& options, abi::Statistics& statistics, abi::TunnelTable& tunnels) {
    BORE_CHECK(options.worker_count == statistics.worker_count(),
               "one block of statistics per worker");
    auto engine = std::make_unique<StreamEngine>(options, statistics, tunnels);
    auto started = engine->start();
    if (!started) {
        return std::unexpected(started.error());
    }
    return engine;
}

}  // namespace bore::drivers
