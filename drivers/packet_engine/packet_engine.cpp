// The control thread's half of the packet engine: pair slots, commands to the slow path, its
// events, the stream engine behind it; and the threads' start and end.
#include "drivers/packet_engine/packet_engine.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <deque>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "dataplane/abi/limits.hpp"
#include "drivers/kernel/socket.hpp"
#include "drivers/packet_engine/messages.hpp"
#include "drivers/packet_engine/packet_worker.hpp"
#include "drivers/packet_engine/slow_path_thread.hpp"

namespace bore::drivers {

namespace {

using abi::OpenError;
using abi::PairEnded;
using abi::PairHandle;
using abi::PairRequest;

constexpr std::size_t events_per_poll = 1'024;
// Hand-offs end within their own deadlines; the stream engine goes on taking their fall-backs until
// then, and is told of a drain after it.
constexpr base::Nanoseconds handoff_grace_ns = 3 * base::second_ns;
// At the end the kernel's last frames are waited for until none came for the first time, and no
// longer than the second. The peers' answers take a round trip, which the first allows for.
constexpr base::Nanoseconds farewell_quiet_ns = 50 * base::millisecond_ns;
constexpr base::Nanoseconds farewell_most_ns = 500 * base::millisecond_ns;

// A pair as the control thread sees it. Generations are odd while a pair is live in the slot.
struct Slot {
    enum class Where : std::uint8_t { nowhere, packet, stream };
    Where where{Where::nowhere};
    bool close_requested{false};
    std::uint32_t generation{0};
    std::uint32_t tunnel_index{0};
    std::uint64_t tag{0};
    PairHandle stream_handle;
    // Of a pair on the stream engine: what was delivered before it got there.
    std::uint64_t to_client_bytes_before{0};
    std::uint64_t to_visitor_bytes_before{0};
};

std::expected<void, std::string> pin(std::thread& thread, int cpu, const std::string& name) {
    ::pthread_setname_np(thread.native_handle(), name.c_str());
    if (cpu < 0) {
        return {};
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    const int error = ::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
    if (error != 0) {
        return std::unexpected("cpus: " + name + " cannot run on CPU " + std::to_string(cpu) +
                               " (" + std::strerror(error) + "); name CPUs of this machine's set");
    }
    return {};
}

class PacketEngine final : public abi::Engine {
  public:
    PacketEngine(const PacketEngineOptions& options, std::vector<EnginePort> ports,
                 abi::Statistics& statistics, abi::TunnelTable& tunnels)
        : options_(options), ports_(std::move(ports)), statistics_(statistics), tunnels_(tunnels) {}
    ~PacketEngine() override;

    [[nodiscard]] std::expected<void, std::string> start(std::unique_ptr<packet::FlowTable> table);

    void open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                     const abi::TunnelLimits& limits) override;
    void set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) override;
    void close_tunnel(std::uint32_t tunnel_index) override;
    std::expected<PairHandle, OpenError> open_pair(PairRequest&& request) override;
    [[nodiscard]] bool wants_addresses() const override { return true; }
    void close_pair(PairHandle handle) override;
    void close_pairs_of(std::optional<std::uint32_t> tunnel_index) override;
    void drain(base::Nanoseconds deadline) override;
    bool drained() const override { return draining_ && live_count_ == 0; }
    int event_descriptor() const override { return epoll_; }
    bool poll_events(std::vector<PairEnded>& events) override;
    void list_flows(std::uint32_t from, FlowsTold&& told) override;
    void wake_workers() override {
        stream_->wake_workers();
        slow_path_wake_.wake();
    }
    std::uint32_t worker_count() const override { return stream_->worker_count(); }
    std::string description() const override { return description_; }

  private:
    [[nodiscard]] std::expected<void, std::string> start_workers();
    [[nodiscard]] std::uint32_t take_slot();
    void command(SlowPathCommand&& command);
    void hand_to_stream(std::uint32_t slot_index, PairRequest&& request,
                        std::vector<PairEnded>& events);
    void finish(std::uint32_t slot_index, PairEnded event, std::vector<PairEnded>& events);
    [[nodiscard]] bool take_slow_path_events(std::vector<PairEnded>& events);
    [[nodiscard]] bool take_stream_events(std::vector<PairEnded>& events);
    void drain_stream_when_due();
    void let_the_kernel_finish();

    PacketEngineOptions options_;
    std::vector<EnginePort> ports_;
    abi::Statistics& statistics_;
    abi::TunnelTable& tunnels_;
    std::unique_ptr<abi::Engine> stream_;
    std::unique_ptr<packet::FlowTable> table_;

    base::SpscRing<SlowPathCommand> commands_{abi::command_ring_capacity};
    base::SpscRing<SlowPathEvent> events_{abi::event_ring_capacity};
    WakeEvent slow_path_wake_;
    WakeEvent announcements_;
    int epoll_{-1};
    std::vector<std::unique_ptr<WorkerLink>> links_;
    std::vector<std::unique_ptr<PacketWorker>> workers_;
    std::unique_ptr<SlowPathThread> slow_path_;
    std::vector<std::thread> worker_threads_;
    std::thread slow_path_thread_;

    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_slots_;
    struct Waiting {
        std::uint32_t slot_index;
        PairRequest request;
    };
    std::deque<Waiting> waiting_for_stream_;  // the stream engine was busy
    std::vector<PairEnded> stream_events_;
    std::deque<FlowsTold> listeners_;  // who asked for flows, in order
    std::uint64_t live_count_{0};
    std::uint64_t packet_count_{0};  // slots that are the slow path's or the packet path's
    bool draining_{false};
    bool stream_draining_{false};
    base::Nanoseconds drain_deadline_{0};
    base::Nanoseconds stream_drain_at_{0};
    std::string description_;
};

// ---- Start and end

std::expected<void, std::string> PacketEngine::start(std::unique_ptr<packet::FlowTable> table) {
    auto stream = make_stream_engine(options_.stream, statistics_, tunnels_);
    if (!stream) {
        return std::unexpected(stream.error());
    }
    stream_ = std::move(*stream);
    table_ = std::move(table);
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    BORE_CHECK(epoll_ >= 0, "no descriptor for the engine's epoll");
    for (const int descriptor : {announcements_.descriptor(), stream_->event_descriptor()}) {
        epoll_event event{};
        event.events = EPOLLIN;
        BORE_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) == 0,
                   "the engine cannot watch its own events");
    }
    return start_workers();
}

std::expected<void, std::string> PacketEngine::start_workers() {
    for (std::uint32_t index = 0; index < options_.worker_count; ++index) {
        links_.push_back(std::make_unique<WorkerLink>());
        workers_.push_back(std::make_unique<PacketWorker>(
            PacketWorkerContext{.worker_index = index,
                                .ports = ports_,
                                .table = *table_,
                                .tunnels = tunnels_,
                                .statistics = statistics_,
                                .link = *links_.back(),
                                .slow_path_wake = slow_path_wake_,
                                .idle = options_.idle,
                                .power_pause = options_.power_pause}));
    }
    options_.slow_path.worker_count = options_.worker_count;
    slow_path_ = std::make_unique<SlowPathThread>(SlowPathContext{.ports = ports_,
                                                                  .table = *table_,
                                                                  .statistics = statistics_,
                                                                  .links = links_,
                                                                  .commands = commands_,
                                                                  .events = events_,
                                                                  .wake = slow_path_wake_,
                                                                  .announcements = announcements_,
                                                                  .options = options_.slow_path});
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before);  // signals are the control thread's
    const auto registered = [this](auto&& loop) {
        if (options_.on_thread_start) {
            options_.on_thread_start();
        }
        loop();
        if (options_.on_thread_end) {
            options_.on_thread_end();
        }
    };
    slow_path_thread_ =
        std::thread([this, registered] { registered([this] { slow_path_->run(); }); });
    std::expected<void, std::string> started = pin(slow_path_thread_, -1, "bore-slow-path");
    for (std::uint32_t index = 0; index < options_.worker_count && started; ++index) {
        worker_threads_.emplace_back(
            [this, registered, index] { registered([this, index] { workers_[index]->run(); }); });
        const int cpu = options_.cpus.empty() ? -1 : options_.cpus[index % options_.cpus.size()];
        started = pin(worker_threads_.back(), cpu, "bore-packet-" + std::to_string(index));
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    description_ = "packet engine on " + std::to_string(ports_.size()) +
                   (ports_.size() == 1 ? " port (" : " ports (");
    for (std::size_t index = 0; index < ports_.size(); ++index) {
        description_ += (index == 0 ? "" : ", ") + ports_[index].port->info().name + " by " +
                        ports_[index].port->info().driver;
    }
    description_ += "), " + std::to_string(options_.worker_count) +
                    (options_.worker_count == 1 ? " poll loop" : " poll loops") +
                    "; what it cannot splice: " + stream_->description();
    return started;
}

// The control plane has closed its sockets by now. What the kernel still has to tell their peers,
// the FINs of tunnels above all, must reach the wire before nobody carries it any more.
void PacketEngine::let_the_kernel_finish() {
    const auto sent = [this] {
        return statistics_.slow_path().get(abi::SlowPathCounter::frames_from_kernel_total);
    };
    const base::Nanoseconds end = base::monotonic_now() + farewell_most_ns;
    base::Nanoseconds quiet_since = base::monotonic_now();
    std::uint64_t before = sent();
    for (base::Nanoseconds now = quiet_since; now < end && now - quiet_since < farewell_quiet_ns;
         now = base::monotonic_now()) {
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
        if (const std::uint64_t now_sent = sent(); now_sent != before) {
            before = now_sent;
            quiet_since = now;
        }
    }
}

PacketEngine::~PacketEngine() {
    if (slow_path_thread_.joinable()) {
        drain(0);
        std::vector<PairEnded> events;
        while (live_count_ > 0) {
            events.clear();
            (void)poll_events(events);
            if (events.empty()) {
                std::this_thread::yield();
            }
        }
        let_the_kernel_finish();
        command({.kind = SlowPathCommand::Kind::stop});
        slow_path_thread_.join();
    }
    for (const auto& worker : workers_) {
        worker->stop();
    }
    for (std::thread& thread : worker_threads_) {
        thread.join();
    }
    // Frames that were still on their way.
    for (const auto& link : links_) {
        while (auto frame = link->diverted.pop()) {
            ports_[frame->port_index].port->release({&*frame, 1});
        }
        while (auto injected = link->injected.pop()) {
            ports_[injected->frame.port_index].port->release({&injected->frame, 1});
        }
    }
    if (epoll_ >= 0) {
        ::close(epoll_);
    }
}

// ---- The seam: tunnels

void PacketEngine::command(SlowPathCommand&& command) {
    // A full ring empties within one turn of the slow path's loop.
    // NOLINTNEXTLINE(bugprone-use-after-move)
    while (!commands_.push(std::move(command))) {
        slow_path_wake_.wake();
        std::this_thread::yield();
    }
    slow_path_wake_.wake();
}

void PacketEngine::open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                               const abi::TunnelLimits& limits) {
    stream_->open_tunnel(tunnel_index, public_port, limits);
    command({.kind = SlowPathCommand::Kind::open_tunnel,
             .tunnel_index = tunnel_index,
             .public_port = public_port,
             .limits = limits});
}

void PacketEngine::set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) {
    stream_->set_tunnel_limits(tunnel_index, limits);
    command({.kind = SlowPathCommand::Kind::set_tunnel_limits,
             .tunnel_index = tunnel_index,
             .limits = limits});
}

void PacketEngine::close_tunnel(std::uint32_t tunnel_index) {
    stream_->close_tunnel(tunnel_index);
    command({.kind = SlowPathCommand::Kind::close_tunnel, .tunnel_index = tunnel_index});
}

// ---- The seam: pairs

std::uint32_t PacketEngine::take_slot() {
    if (free_slots_.empty()) {
        slots_.emplace_back();
        return static_cast<std::uint32_t>(slots_.size() - 1);
    }
    const std::uint32_t slot_index = free_slots_.back();
    free_slots_.pop_back();
    return slot_index;
}

std::expected<PairHandle, OpenError> PacketEngine::open_pair(PairRequest&& request) {
    if (draining_) {
        return std::unexpected(OpenError::draining);
    }
    if (commands_.full()) {
        return std::unexpected(OpenError::busy);
    }
    const std::uint32_t slot_index = take_slot();
    Slot& slot = slots_[slot_index];
    slot.where = Slot::Where::packet;
    slot.close_requested = false;
    slot.tunnel_index = request.tunnel_index;
    slot.tag = request.tag;
    ++slot.generation;
    ++live_count_;
    ++packet_count_;
    command({.kind = SlowPathCommand::Kind::open_pair,
             .pair_slot = slot_index,
             .generation = slot.generation,
             .request = std::move(request)});
    return PairHandle{.slot_index = slot_index, .generation = slot.generation};
}

void PacketEngine::close_pair(PairHandle handle) {
    if (handle.slot_index >= slots_.size() ||
        slots_[handle.slot_index].generation != handle.generation) {
        return;  // its end was polled already
    }
    Slot& slot = slots_[handle.slot_index];
    slot.close_requested = true;
    if (slot.where == Slot::Where::stream) {
        stream_->close_pair(slot.stream_handle);
    } else {
        command({.kind = SlowPathCommand::Kind::close_pair,
                 .pair_slot = handle.slot_index,
                 .generation = handle.generation});
    }
}

void PacketEngine::close_pairs_of(std::optional<std::uint32_t> tunnel_index) {
    for (std::uint32_t slot_index = 0; slot_index < slots_.size(); ++slot_index) {
        const Slot& slot = slots_[slot_index];
        if (slot.where != Slot::Where::nowhere &&
            slot.tunnel_index == tunnel_index.value_or(slot.tunnel_index)) {
            close_pair({.slot_index = slot_index, .generation = slot.generation});
        }
    }
}

void PacketEngine::list_flows(std::uint32_t from, FlowsTold&& told) {
    listeners_.push_back(std::move(told));
    command({.kind = SlowPathCommand::Kind::list_flows, .flows_from = from});
}

void PacketEngine::hand_to_stream(std::uint32_t slot_index, PairRequest&& request,
                                  std::vector<PairEnded>& events) {
    Slot& slot = slots_[slot_index];
    request.tag = slot_index;
    request.tunnel_index = slot.tunnel_index;
    slot.to_client_bytes_before = request.delivered_to_client_bytes;
    slot.to_visitor_bytes_before = request.delivered_to_visitor_bytes;
    auto handle = stream_->open_pair(std::move(request));
    if (handle) {
        slot.where = Slot::Where::stream;
        slot.stream_handle = *handle;
        --packet_count_;
        if (slot.close_requested) {
            stream_->close_pair(*handle);
        }
    } else if (handle.error() == OpenError::busy) {
        // open_pair() leaves the request alone when it fails.
        // NOLINTNEXTLINE(bugprone-use-after-move)
        waiting_for_stream_.push_back({slot_index, std::move(request)});
    } else {
        close_socket(request.visitor_socket, true);
        close_socket(request.client_socket, true);
        --packet_count_;
        finish(slot_index, {.reason = abi::EndReason::drained}, events);
    }
}

void PacketEngine::finish(std::uint32_t slot_index, PairEnded event,
                          std::vector<PairEnded>& events) {
    Slot& slot = slots_[slot_index];
    event.handle = {.slot_index = slot_index, .generation = slot.generation};
    event.tag = slot.tag;
    event.tunnel_index = slot.tunnel_index;
    ++slot.generation;  // the handle is void from now on
    slot.where = Slot::Where::nowhere;
    free_slots_.push_back(slot_index);
    --live_count_;
    events.push_back(event);
}

bool PacketEngine::take_slow_path_events(std::vector<PairEnded>& events) {
    std::deque<Waiting> waiting;
    waiting.swap(waiting_for_stream_);
    for (Waiting& pair : waiting) {
        hand_to_stream(pair.slot_index, std::move(pair.request), events);
    }
    for (std::size_t count = 0; count < events_per_poll; ++count) {
        auto event = events_.pop();
        if (!event) {
            break;
        }
        switch (event->kind) {
            case SlowPathEvent::Kind::to_stream:
                hand_to_stream(event->pair_slot, std::move(event->request), events);
                break;
            case SlowPathEvent::Kind::ended:
                --packet_count_;
                finish(event->pair_slot, event->end, events);
                break;
            case SlowPathEvent::Kind::flows: {
                const FlowsTold told = std::move(listeners_.front());
                listeners_.pop_front();
                told(std::move(*event->flows));
                break;
            }
        }
    }
    return !events_.empty();
}

bool PacketEngine::take_stream_events(std::vector<PairEnded>& events) {
    stream_events_.clear();
    const bool more = stream_->poll_events(stream_events_);
    for (PairEnded& event : stream_events_) {
        const auto slot_index = static_cast<std::uint32_t>(event.tag);
        event.to_client_bytes += slots_[slot_index].to_client_bytes_before;
        event.to_visitor_bytes += slots_[slot_index].to_visitor_bytes_before;
        command({.kind = SlowPathCommand::Kind::stream_ended, .pair_slot = slot_index});
        finish(slot_index, event, events);
    }
    return more;
}

bool PacketEngine::poll_events(std::vector<PairEnded>& events) {
    announcements_.clear();
    const bool more_of_slow_path = take_slow_path_events(events);
    const bool more_of_stream = take_stream_events(events);
    drain_stream_when_due();
    if (!waiting_for_stream_.empty()) {
        announcements_.signal();  // look again soon: a worker's ring was full
    }
    return more_of_slow_path || more_of_stream;
}

// ---- The seam: drain

void PacketEngine::drain(base::Nanoseconds deadline) {
    if (!draining_) {
        stream_drain_at_ = base::monotonic_now() + handoff_grace_ns;
    }
    draining_ = true;
    drain_deadline_ = deadline;
    command({.kind = SlowPathCommand::Kind::drain, .deadline = deadline});
    if (stream_draining_) {
        stream_->drain(deadline);
    }
    drain_stream_when_due();
}

void PacketEngine::drain_stream_when_due() {
    if (!draining_ || stream_draining_) {
        return;
    }
    const base::Nanoseconds now = base::monotonic_now();
    if (packet_count_ == 0 || now >= stream_drain_at_ || now >= drain_deadline_) {
        stream_draining_ = true;
        stream_->drain(drain_deadline_);
    }
}

}  // namespace

std::expected<std::unique_ptr<abi::Engine>, std::string> make_packet_engine(
    const PacketEngineOptions& options, std::vector<EnginePort> ports,
    std::unique_ptr<packet::FlowTable> table, abi::Statistics& statistics,
    abi::TunnelTable& tunnels) {
    BORE_CHECK(options.worker_count == statistics.packet_shape().worker_count &&
                   ports.size() == statistics.packet_shape().port_count,
               "one block of statistics per packet worker and port");
    auto engine = std::make_unique<PacketEngine>(options, std::move(ports), statistics, tunnels);
    auto started = engine->start(std::move(table));
    if (!started) {
        return std::unexpected(started.error());
    }
    return engine;
}

}  // namespace bore::drivers
