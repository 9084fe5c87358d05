// The loop: submit what the last turn queued and wait, in one system call → hand completions to the
// pairs → the shard's turn. Receives are multishot into provided buffers and are forwarded from
// there at once, so that a buffer is back with the kernel before the next completion is looked at.
// Splices are inline system calls on readiness: IORING_OP_SPLICE always goes through a kernel
// worker thread.
#include "drivers/io_uring/io_uring_worker.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "dataplane/abi/limits.hpp"
#include "drivers/io_uring/ring.hpp"
#include "drivers/kernel/pipe_pool.hpp"
#include "drivers/kernel/slot_pool.hpp"
#include "drivers/kernel/socket.hpp"

namespace bore::drivers {

namespace {

using abi::WorkerCounter;
using stream::IoResult;
using stream::Leg;
using stream::Pair;

enum class Operation : std::uint8_t { wake, receive, watch_read, watch_write, cancel };

// What comes back in a completion:  operation (8 bits) | leg (8) | slot (32)
std::uint64_t user_data(Operation operation, Leg leg, std::uint32_t slot_index) {
    return (std::uint64_t{static_cast<std::uint8_t>(operation)} << 40U) |
           (std::uint64_t{static_cast<std::uint8_t>(leg)} << 32U) | slot_index;
}

struct UringLeg {
    int socket{-1};
    Pipe pipe;
    bool receive_armed{false};
    bool wants_receive{false};  // the pair has not been told yet that the receive stopped
    bool read_watch_armed{false};
    bool write_watch_armed{false};
};

struct UringPair : Pair {
    std::array<UringLeg, 2> legs;
    std::uint8_t in_flight{0};  // requests whose last completion is still to come
    bool closing{false};
    bool reset{false};
    UringLeg& leg(Leg which) { return legs[stream::index_of(which)]; }
};

constexpr RingSizes ring_sizes{
    .submission_entries = 1'024,
    .completion_entries = 8'192,
    .buffer_count = abi::receive_buffer_count,
    .buffer_bytes = abi::receive_buffer_bytes,
};

class IoUringWorker final : public StreamWorker, public stream::Io {
  public:
    IoUringWorker(const WorkerContext& context, std::unique_ptr<Ring> ring)
        : context_(context),
          ring_(std::move(ring)),
          pipes_(abi::max_pipes_per_worker),
          scratch_(abi::receive_buffer_bytes),
          shard_(context.worker_index, context.statistics, context.tunnels, context.queues, *this,
                 base::monotonic_now()) {}

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
    static UringLeg& leg(Pair& pair, Leg which) { return static_cast<UringPair&>(pair).leg(which); }

    void sleep_or_spin();
    void arm_wake();
    void dispatch(const io_uring_cqe& completion);
    void on_receive(UringPair& pair, Leg source, const io_uring_cqe& completion);
    void on_watch(UringPair& pair, Leg which, bool reads, int result);
    void watch(Pair& pair, Leg which, Operation operation, unsigned events);
    void cancel(Pair& pair, Leg which, Operation operation);
    void finish_close(UringPair& pair);

    WorkerContext context_;
    std::unique_ptr<Ring> ring_;
    SlotPool<UringPair> slots_;
    PipePool pipes_;
    std::vector<std::byte> scratch_;
    base::Nanoseconds active_at_{0};
    stream::Shard shard_;
};

// ---- The loop

void IoUringWorker::run() {
    arm_wake();
    while (!shard_.finished()) {
        sleep_or_spin();
        const base::Nanoseconds now = base::monotonic_now();
        const unsigned count = ring_->ready();
        if (count > 0) {
            active_at_ = now;
        }
        shard_.begin_turn(now, count);
        ring_->reap([this](const io_uring_cqe& completion) { dispatch(completion); });
        shard_.end_turn();
        if (shard_.take_announcement()) {
            context_.announcements.signal();
        }
    }
}

void IoUringWorker::sleep_or_spin() {
    const base::Nanoseconds now = shard_.now();
    if (context_.busy_poll_us > 0 &&
        now - active_at_ < context_.busy_poll_us * base::microsecond_ns) {
        ring_->submit();
        return;
    }
    context_.wake.will_sleep();
    if (shard_.commands_wait()) {
        ring_->submit();
    } else {
        const base::Nanoseconds asleep_at = base::monotonic_now();  // the turn took its time
        const auto deadline = shard_.next_deadline();
        std::optional<base::Nanoseconds> timeout_ns;
        if (deadline) {
            timeout_ns = *deadline > asleep_at ? *deadline - asleep_at : 0;
        }
        shard_.will_sleep(asleep_at);
        ring_->submit_and_wait(timeout_ns);
    }
    context_.wake.is_awake();
}

void IoUringWorker::arm_wake() {
    io_uring_sqe& entry = ring_->entry();
    io_uring_prep_poll_multishot(&entry, context_.wake.descriptor(), POLLIN);
    io_uring_sqe_set_data64(&entry, user_data(Operation::wake, Leg::visitor, 0));
}

void IoUringWorker::dispatch(const io_uring_cqe& completion) {
    const auto operation = static_cast<Operation>((completion.user_data >> 40U) & 0xffU);
    const auto which = static_cast<Leg>((completion.user_data >> 32U) & 0xffU);
    if (operation == Operation::cancel) {
        return;
    }
    if (operation == Operation::wake) {
        context_.wake.clear();
        if ((completion.flags & IORING_CQE_F_MORE) == 0) {
            arm_wake();
        }
        return;
    }
    UringPair* pair = slots_.find(static_cast<std::uint32_t>(completion.user_data));
    BORE_CHECK(pair != nullptr, "a completion for a slot that never was");
    if ((completion.flags & IORING_CQE_F_MORE) == 0) {
        --pair->in_flight;
    }
    if (operation == Operation::receive) {
        on_receive(*pair, which, completion);
    } else {
        on_watch(*pair, which, operation == Operation::watch_read, completion.res);
    }
    if (pair->closing && pair->in_flight == 0) {
        finish_close(*pair);
    }
}

void IoUringWorker::on_receive(UringPair& pair, Leg source, const io_uring_cqe& completion) {
    UringLeg& state = pair.leg(source);
    const bool last = (completion.flags & IORING_CQE_F_MORE) == 0;
    if (last) {
        state.receive_armed = false;
    }
    const bool has_buffer = (completion.flags & IORING_CQE_F_BUFFER) != 0;
    const unsigned buffer_id = completion.flags >> IORING_CQE_BUFFER_SHIFT;
    if (pair.live()) {
        if (completion.res > 0) {
            pair.on_data(source, ring_->buffer(buffer_id, static_cast<std::size_t>(completion.res)),
                         (completion.flags & IORING_CQE_F_SOCK_NONEMPTY) != 0);
        } else if (completion.res == 0) {
            state.wants_receive = false;
            pair.on_end_of_stream(source);
        } else if (completion.res == -ENOBUFS) {
            shard_.count(WorkerCounter::buffers_exhausted_total);
        } else if (completion.res != -ECANCELED && completion.res != -EAGAIN &&
                   completion.res != -EINTR) {
            state.wants_receive = false;
            pair.on_error(source, -completion.res);
        }
    }
    if (has_buffer) {
        ring_->recycle(buffer_id);
    }
    // on_data may have asked for the next receive already.
    if (last && state.wants_receive && !state.receive_armed && pair.live()) {
        state.wants_receive = false;
        pair.on_receive_stopped(source);
    }
}

void IoUringWorker::on_watch(UringPair& pair, Leg which, bool reads, int result) {
    UringLeg& state = pair.leg(which);
    (reads ? state.read_watch_armed : state.write_watch_armed) = false;
    if (!pair.live()) {
        return;
    }
    if (result < 0 && result != -ECANCELED) {
        pair.on_error(which, -result);
    } else if (reads) {
        pair.on_readable(which);
    } else {
        pair.on_writable(which);
    }
}

// ---- Io

Pair& IoUringWorker::attach(std::uint32_t slot_index, int visitor_socket, int client_socket) {
    UringPair& pair = slots_.get(slot_index);
    BORE_CHECK(pair.in_flight == 0, "a slot was reused with requests in flight");
    const std::array<int, 2> sockets{visitor_socket, client_socket};
    for (std::size_t index = 0; index < sockets.size(); ++index) {
        pair.legs[index] = UringLeg{.socket = sockets[index], .pipe = {}};
    }
    pair.closing = pair.reset = false;
    return pair;
}

void IoUringWorker::receive(Pair& pair, Leg source) {
    UringLeg& state = leg(pair, source);
    BORE_CHECK(!state.receive_armed, "a second receive on one leg");
    io_uring_sqe& entry = ring_->entry();
    io_uring_prep_recv_multishot(&entry, state.socket, nullptr, 0, 0);
    entry.flags |= IOSQE_BUFFER_SELECT;
    entry.buf_group = Ring::buffer_group;
    io_uring_sqe_set_data64(&entry, user_data(Operation::receive, source, pair.slot_index()));
    state.receive_armed = state.wants_receive = true;
    ++static_cast<UringPair&>(pair).in_flight;
}

bool IoUringWorker::stop_receive(Pair& pair, Leg source) {
    UringLeg& state = leg(pair, source);
    if (!state.receive_armed) {
        state.wants_receive = false;
        return true;
    }
    cancel(pair, source, Operation::receive);
    return false;
}

void IoUringWorker::watch(Pair& pair, Leg which, Operation operation, unsigned events) {
    io_uring_sqe& entry = ring_->entry();
    io_uring_prep_poll_add(&entry, leg(pair, which).socket, events);
    io_uring_sqe_set_data64(&entry, user_data(operation, which, pair.slot_index()));
    ++static_cast<UringPair&>(pair).in_flight;
}

void IoUringWorker::watch_readable(Pair& pair, Leg source) {
    leg(pair, source).read_watch_armed = true;
    watch(pair, source, Operation::watch_read, POLLIN | POLLRDHUP);
}

void IoUringWorker::watch_writable(Pair& pair, Leg target) {
    leg(pair, target).write_watch_armed = true;
    watch(pair, target, Operation::watch_write, POLLOUT);
}

void IoUringWorker::cancel(Pair& pair, Leg which, Operation operation) {
    io_uring_sqe& entry = ring_->entry();
    io_uring_prep_cancel64(&entry, user_data(operation, which, pair.slot_index()), 0);
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(&entry, user_data(Operation::cancel, which, 0));
}

IoResult IoUringWorker::read(Pair& pair, Leg source, std::size_t max_bytes,
                             std::span<const std::byte>& bytes) {
    const std::span<std::byte> buffer =
        std::span(scratch_).first(std::min(max_bytes, scratch_.size()));
    const IoResult result = receive_some(leg(pair, source).socket, buffer);
    bytes = buffer.first(result.has_bytes() ? result.bytes() : 0);
    return result;
}

bool IoUringWorker::lend_pipe(Pair& pair, Leg source) {
    const auto pipe = pipes_.lend();
    if (pipe) {
        leg(pair, source).pipe = *pipe;
        stop_local_pacing(leg(pair, stream::other(source)).socket);
        shard_.counters().set(WorkerCounter::pipes_lent, pipes_.lent_count());
    }
    return pipe.has_value();
}

void IoUringWorker::return_pipe(Pair& pair, Leg source, bool empty) {
    pipes_.give_back(leg(pair, source).pipe, empty);
    shard_.counters().set(WorkerCounter::pipes_lent, pipes_.lent_count());
}

// A request in flight keeps its socket open whatever close(2) says: cancel, wait, then close.
void IoUringWorker::close(Pair& pair, bool reset) {
    auto& state = static_cast<UringPair&>(pair);
    state.closing = true;
    state.reset = reset;
    for (const Leg which : {Leg::visitor, Leg::client}) {
        const UringLeg& leg_state = state.leg(which);
        if (leg_state.receive_armed) {
            cancel(pair, which, Operation::receive);
        }
        if (leg_state.read_watch_armed) {
            cancel(pair, which, Operation::watch_read);
        }
        if (leg_state.write_watch_armed) {
            cancel(pair, which, Operation::watch_write);
        }
    }
    if (state.in_flight == 0) {
        finish_close(state);
    }
}

void IoUringWorker::finish_close(UringPair& pair) {
    pair.closing = false;
    for (UringLeg& state : pair.legs) {
        close_socket(state.socket, pair.reset);
        state.socket = -1;
    }
    pair.on_closed();
}

constexpr RingSizes probe_sizes{
    .submission_entries = 8, .completion_entries = 16, .buffer_count = 2, .buffer_bytes = 64};

}  // namespace

std::expected<void, std::string> probe_io_uring() {
    auto ring = Ring::make(probe_sizes);
    if (!ring) {
        return std::unexpected(ring.error());
    }
    std::array<int, 2> sockets{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
        return std::unexpected(std::string("no descriptor to try io_uring with"));
    }
    io_uring_sqe& entry = (*ring)->entry();
    io_uring_prep_recv_multishot(&entry, sockets[0], nullptr, 0, 0);
    entry.flags |= IOSQE_BUFFER_SELECT;
    entry.buf_group = Ring::buffer_group;
    const char byte = 'x';
    const bool sent = ::send(sockets[1], &byte, 1, MSG_NOSIGNAL) == 1;
    (*ring)->submit_and_wait(base::second_ns);
    bool works = false;
    (*ring)->reap([&works](const io_uring_cqe& completion) {
        works = completion.res == 1 && (completion.flags & IORING_CQE_F_MORE) != 0 &&
                (completion.flags & IORING_CQE_F_BUFFER) != 0;
    });
    ::close(sockets[0]);
    ::close(sockets[1]);
    if (!sent || !works) {
        return std::unexpected(
            std::string("multishot receive into provided buffers does not work here "
                        "(needs Linux 6.1)"));
    }
    return {};
}

std::expected<std::unique_ptr<StreamWorker>, std::string> make_io_uring_worker(
    const WorkerContext& context) {
    auto ring = Ring::make(ring_sizes);
    if (!ring) {
        return std::unexpected(ring.error());
    }
    return std::make_unique<IoUringWorker>(context, std::move(*ring));
}

}  // namespace bore::drivers
