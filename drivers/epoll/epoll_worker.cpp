// The loop: wait → hand readiness to the pairs → the shard's turn → sleep. A leg is registered with
// the events that its pair wants at the moment, level-triggered; the registration is brought up to
// date once per turn and leg, and not at all when the wish came back to what it was.
#include "drivers/epoll/epoll_worker.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "dataplane/abi/limits.hpp"
#include "drivers/kernel/pipe_pool.hpp"
#include "drivers/kernel/slot_pool.hpp"
#include "drivers/kernel/socket.hpp"

namespace bore::drivers {

namespace {

using abi::WorkerCounter;
using stream::IoResult;
using stream::Leg;
using stream::Pair;

struct EpollLeg {
    int socket{-1};
    Pipe pipe;
    bool receiving{false};        // until told otherwise
    bool watches_read{false};     // once
    bool watches_write{false};    // once
    bool dirty{false};            // waits in the list of registrations to bring up to date
    std::uint32_t registered{0};  // events known to the kernel; 0 = not registered
};

struct EpollPair : Pair {
    std::array<EpollLeg, 2> legs;
    EpollLeg& leg(Leg which) { return legs[stream::index_of(which)]; }
};

constexpr std::size_t events_per_wait = 256;
constexpr std::uint64_t wake_key = ~std::uint64_t{0};
// One receive buffer for the whole worker: it stays in the L1/L2 cache.
constexpr std::size_t scratch_bytes = 64 * 1024;
// Receives per readiness before other legs get their turn.
constexpr int receives_per_event = 4;

class EpollWorker final : public StreamWorker, public stream::Io {
  public:
    EpollWorker(const WorkerContext& context, int epoll)
        : context_(context),
          epoll_(epoll),
          pipes_(abi::max_pipes_per_worker),
          scratch_(scratch_bytes),
          shard_(context.worker_index, context.statistics, context.tunnels, context.queues, *this,
                 base::monotonic_now()) {}
    ~EpollWorker() override { ::close(epoll_); }

    void run() override;

    Pair& attach(std::uint32_t slot_index, int visitor_socket, int client_socket) override;
    Pair* find(std::uint32_t slot_index) override { return slots_.find(slot_index); }
    void receive(Pair& pair, Leg source) override;
    bool stop_receive(Pair& pair, Leg source) override;
    void watch_readable(Pair& pair, Leg source) override;
    void watch_writable(Pair& pair, Leg target) override;
    IoResult read(Pair& pair, Leg source, std::size_t max_bytes,
                  std::span<const std::byte>& bytes) override;
    IoResult send(Pair& pair, Leg target, std::span<const std::byte> bytes) override {
        return send_some(leg(pair, target).socket, bytes);
    }
    IoResult fill_pipe(Pair& pair, Leg source, std::size_t max_bytes) override {
        return splice_from_socket(leg(pair, source).socket, leg(pair, source).pipe, max_bytes);
    }
    IoResult drain_pipe(Pair& pair, Leg source, std::size_t max_bytes) override {
        return splice_to_socket(leg(pair, source).pipe, leg(pair, stream::other(source)).socket,
                                max_bytes);
    }
    bool has_unread(Pair& pair, Leg source) override {
        return drivers::has_unread(leg(pair, source).socket);
    }
    int shutdown_write(Pair& pair, Leg target) override {
        return drivers::shutdown_write(leg(pair, target).socket);
    }
    int pending_error(Pair& pair, Leg which) override {
        return socket_error(leg(pair, which).socket);
    }
    void set_low_water(Pair& pair, Leg source, std::size_t bytes) override {
        drivers::set_low_water(leg(pair, source).socket, bytes);
    }
    void quick_ack(Pair& pair, Leg source) override {
        drivers::quick_ack(leg(pair, source).socket);
    }
    bool lend_pipe(Pair& pair, Leg source) override;
    void return_pipe(Pair& pair, Leg source, bool empty) override;
    void close(Pair& pair, bool reset) override;

  private:
    static EpollLeg& leg(Pair& pair, Leg which) { return static_cast<EpollPair&>(pair).leg(which); }
    static std::uint64_t key_of(const Pair& pair, Leg which) {
        return (std::uint64_t{pair.slot_index()} << 1U) | stream::index_of(which);
    }

    void sleep(std::array<epoll_event, events_per_wait>& events, int& count);
    [[nodiscard]] int timeout_ms(base::Nanoseconds now) const;
    void dispatch(const epoll_event& event);
    void receive_from(EpollPair& pair, Leg source);
    void mark(Pair& pair, Leg which);
    void update_registrations();
    void update(EpollPair& pair, Leg which);

    WorkerContext context_;
    int epoll_;
    SlotPool<EpollPair> slots_;
    PipePool pipes_;
    std::vector<std::byte> scratch_;
    struct Dirty {
        EpollPair* pair;
        Leg leg;
    };
    std::vector<Dirty> dirty_;
    base::Nanoseconds active_at_{0};
    stream::Shard shard_;
};

// ---- The loop

void EpollWorker::run() {
    std::array<epoll_event, events_per_wait> events;
    while (!shard_.finished()) {
        int count = 0;
        sleep(events, count);
        const base::Nanoseconds now = base::monotonic_now();
        if (count > 0) {
            active_at_ = now;
        }
        shard_.begin_turn(now, static_cast<std::size_t>(count));
        for (int index = 0; index < count; ++index) {
            dispatch(events[static_cast<std::size_t>(index)]);
        }
        shard_.end_turn();
        update_registrations();
        if (shard_.take_announcement()) {
            context_.announcements.signal();
        }
    }
}

void EpollWorker::sleep(std::array<epoll_event, events_per_wait>& events, int& count) {
    const base::Nanoseconds now = shard_.now();
    int wait_ms = 0;
    const bool spins = context_.busy_poll_us > 0 &&
                       now - active_at_ < context_.busy_poll_us * base::microsecond_ns;
    if (!spins) {
        context_.wake.will_sleep();
        if (!shard_.commands_wait()) {
            const base::Nanoseconds asleep_at = base::monotonic_now();  // the turn took its time
            wait_ms = timeout_ms(asleep_at);
            shard_.will_sleep(asleep_at);
        }
    }
    count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait_ms);
    context_.wake.is_awake();
    BORE_CHECK(count >= 0 || errno == EINTR, "epoll_wait failed");
    count = std::max(count, 0);
}

int EpollWorker::timeout_ms(base::Nanoseconds now) const {
    const auto deadline = shard_.next_deadline();
    if (!deadline) {
        return -1;
    }
    if (*deadline <= now) {
        return 0;
    }
    const base::Nanoseconds wait_ms =
        (*deadline - now + base::millisecond_ns - 1) / base::millisecond_ns;
    return static_cast<int>(std::min<base::Nanoseconds>(wait_ms, 60'000));
}

void EpollWorker::dispatch(const epoll_event& event) {
    if (event.data.u64 == wake_key) {
        context_.wake.clear();
        return;
    }
    const auto which = static_cast<Leg>(event.data.u64 & 1U);
    EpollPair* pair = slots_.find(static_cast<std::uint32_t>(event.data.u64 >> 1U));
    if (pair == nullptr || !pair->live() || pair->leg(which).registered == 0) {
        return;  // closed earlier in this turn
    }
    const bool failed = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
    EpollLeg& state = pair->leg(which);
    if (state.watches_write && (failed || (event.events & EPOLLOUT) != 0)) {
        state.watches_write = false;
        mark(*pair, which);
        pair->on_writable(which);
    }
    if (!pair->live() || (!failed && (event.events & (EPOLLIN | EPOLLRDHUP)) == 0)) {
        return;
    }
    if (state.receiving) {
        receive_from(*pair, which);
    } else if (state.watches_read) {
        state.watches_read = false;
        mark(*pair, which);
        pair->on_readable(which);
    }
}

void EpollWorker::receive_from(EpollPair& pair, Leg source) {
    EpollLeg& state = pair.leg(source);
    for (int round = 0; round < receives_per_event && pair.live() && state.receiving; ++round) {
        const IoResult result = receive_some(state.socket, scratch_);
        if (result.has_bytes()) {
            const bool full = result.bytes() == scratch_.size();
            pair.on_data(source, std::span(scratch_).first(result.bytes()), full);
            if (!full) {
                return;
            }
        } else if (result.is_zero()) {
            state.receiving = false;
            mark(pair, source);
            pair.on_end_of_stream(source);
        } else if (result.is_would_block()) {
            return;
        } else {
            state.receiving = false;
            mark(pair, source);
            pair.on_error(source, result.error_number());
        }
    }
}

// ---- Registrations

void EpollWorker::mark(Pair& pair, Leg which) {
    EpollLeg& state = leg(pair, which);
    if (!state.dirty) {
        state.dirty = true;
        dirty_.push_back({static_cast<EpollPair*>(&pair), which});
    }
}

void EpollWorker::update_registrations() {
    for (const Dirty& entry : dirty_) {
        entry.pair->leg(entry.leg).dirty = false;
        if (entry.pair->live()) {
            update(*entry.pair, entry.leg);
        }
    }
    dirty_.clear();
}

void EpollWorker::update(EpollPair& pair, Leg which) {
    EpollLeg& state = pair.leg(which);
    std::uint32_t wanted = 0;
    if (state.receiving || state.watches_read) {
        wanted |= EPOLLIN | EPOLLRDHUP;
    }
    if (state.watches_write) {
        wanted |= EPOLLOUT;
    }
    if (wanted == state.registered) {
        return;
    }
    // A leg that wants nothing is taken out: a level-triggered hang-up would spin otherwise.
    const int operation = wanted == 0             ? EPOLL_CTL_DEL
                          : state.registered == 0 ? EPOLL_CTL_ADD
                                                  : EPOLL_CTL_MOD;
    epoll_event event{.events = wanted, .data = {.u64 = key_of(pair, which)}};
    if (::epoll_ctl(epoll_, operation, state.socket, &event) != 0) {
        pair.on_error(which, errno);  // ENOMEM, ENOSPC of fs.epoll.max_user_watches
        return;
    }
    state.registered = wanted;
}

// ---- Io

Pair& EpollWorker::attach(std::uint32_t slot_index, int visitor_socket, int client_socket) {
    EpollPair& pair = slots_.get(slot_index);
    const std::array<int, 2> sockets{visitor_socket, client_socket};
    for (std::size_t index = 0; index < sockets.size(); ++index) {
        const bool dirty = pair.legs[index].dirty;
        pair.legs[index] = EpollLeg{.socket = sockets[index], .pipe = {}, .dirty = dirty};
    }
    return pair;
}

void EpollWorker::receive(Pair& pair, Leg source) {
    leg(pair, source).receiving = true;
    mark(pair, source);
}

bool EpollWorker::stop_receive(Pair& pair, Leg source) {
    leg(pair, source).receiving = false;
    mark(pair, source);
    return true;
}

void EpollWorker::watch_readable(Pair& pair, Leg source) {
    leg(pair, source).watches_read = true;
    mark(pair, source);
}

void EpollWorker::watch_writable(Pair& pair, Leg target) {
    leg(pair, target).watches_write = true;
    mark(pair, target);
}

IoResult EpollWorker::read(Pair& pair, Leg source, std::size_t max_bytes,
                           std::span<const std::byte>& bytes) {
    const std::span<std::byte> buffer =
        std::span(scratch_).first(std::min(max_bytes, scratch_.size()));
    const IoResult result = receive_some(leg(pair, source).socket, buffer);
    bytes = buffer.first(result.has_bytes() ? result.bytes() : 0);
    return result;
}

bool EpollWorker::lend_pipe(Pair& pair, Leg source) {
    const auto pipe = pipes_.lend();
    if (pipe) {
        leg(pair, source).pipe = *pipe;
        stop_local_pacing(leg(pair, stream::other(source)).socket);
        shard_.counters().set(WorkerCounter::pipes_lent, pipes_.lent_count());
    }
    return pipe.has_value();
}

void EpollWorker::return_pipe(Pair& pair, Leg source, bool empty) {
    pipes_.give_back(leg(pair, source).pipe, empty);
    shard_.counters().set(WorkerCounter::pipes_lent, pipes_.lent_count());
}

void EpollWorker::close(Pair& pair, bool reset) {
    for (EpollLeg& state : static_cast<EpollPair&>(pair).legs) {
        close_socket(state.socket, reset);  // leaves the epoll set by itself
        state.socket = -1;
        state.registered = 0;
        state.receiving = state.watches_read = state.watches_write = false;
    }
    pair.on_closed();
}

}  // namespace

std::expected<std::unique_ptr<StreamWorker>, std::string> make_epoll_worker(
    const WorkerContext& context) {
    const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        return std::unexpected(std::string("epoll_create1: ") + std::strerror(errno) +
                               "; raise the descriptor limit (max-open-files)");
    }
    epoll_event event{.events = EPOLLIN, .data = {.u64 = wake_key}};
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, context.wake.descriptor(), &event) != 0) {
        const std::string reason = std::strerror(errno);
        ::close(epoll);
        return std::unexpected("epoll_ctl: " + reason);
    }
    return std::make_unique<EpollWorker>(context, epoll);
}

}  // namespace bore::drivers
