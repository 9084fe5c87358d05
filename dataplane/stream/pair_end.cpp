// How a pair ends: in order, by an error, by command, by a timeout; and how the reset of a leg that
// nothing watches is found.
#include <algorithm>
#include <utility>

#include "dataplane/stream/pair.hpp"
#include "dataplane/stream/shard.hpp"

namespace bore::stream {

using abi::EndReason;

namespace {

constexpr base::Nanoseconds never = ~base::Nanoseconds{0};

bool is_reset(int error_number) {
    return error_number == ECONNRESET || error_number == EPIPE || error_number == ENOTCONN;
}

}  // namespace

// ---- End

void Pair::finish(Leg source) {
    Direction& direction = reading(source);
    direction.finished = true;
    shard_->timers().cancel(direction.timer);
    if (direction.has_pipe) {
        direction.has_pipe = false;
        io().return_pipe(*this, source, true);
    }
    if (reading(other(source)).finished) {
        end(EndReason::fin, false);  // close(2) sends the FIN; nothing is left to read
        return;
    }
    const int error_number = io().shutdown_write(*this, other(source));
    if (error_number != 0) {
        fail(error_number);
    } else {
        half_closed_at_ = shard_->now();
        supervised_ = true;
        arm_pair_timer();
    }
}

void Pair::on_error(Leg leg, int error_number) {
    if (live()) {
        reading(leg).source = Source::ended;
        fail(error_number);
    }
}

void Pair::fail(int error_number) {
    if (live()) {
        error_number_ = error_number;
        end(is_reset(error_number) ? EndReason::reset : EndReason::error, true);
    }
}

void Pair::close(EndReason reason) {
    if (live()) {
        end(reason, true);
    }
}

void Pair::end(EndReason reason, bool reset) {
    state_ = State::closing;
    reason_ = reason;
    shard_->timers().cancel(timer_);
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        Direction& direction = reading(leg);
        shard_->timers().cancel(direction.timer);
        if (direction.has_pipe) {
            direction.has_pipe = false;
            io().return_pipe(*this, leg, direction.pipe_bytes == 0);
        }
        std::vector<std::byte>().swap(direction.held);
        direction.held_offset = direction.pipe_bytes = 0;
    }
    io().close(*this, reset);
}

void Pair::on_closed() {
    BORE_CHECK(state_ == State::closing, "a pair was closed twice");
    state_ = State::free;
    shard_->on_pair_closed(*this);
}

abi::PairEnded Pair::ended() const {
    return abi::PairEnded{
        .handle = {.slot_index = slot_index_, .generation = generation_},
        .tag = tag_,
        .tunnel_index = tunnel_index_,
        .reason = reason_,
        .error_number = error_number_,
        .to_client_bytes = reading(Leg::visitor).delivered_bytes,
        .to_visitor_bytes = reading(Leg::client).delivered_bytes,
        .spliced_bytes = directions_[0].spliced_bytes + directions_[1].spliced_bytes,
        .duration_ns = shard_->now() - opened_at_,
    };
}

// ---- Timeouts

void Pair::on_timer(const PairTimer& timer) {
    if (!live()) {
        return;
    }
    if (timer.kind == PairTimer::Kind::direction) {
        on_direction_timer(timer.leg);
    } else {
        on_pair_timer();
    }
}

void Pair::on_limits_changed() {
    for (const Leg source : {Leg::visitor, Leg::client}) {
        Direction& direction = reading(source);
        if (live() && direction.waits_for_tokens) {
            direction.waits_for_tokens = false;
            shard_->timers().cancel(direction.timer);
            advance(source);
        } else if (live() && direction.source == Source::receiving && limiter(source).limited()) {
            stop_receiving(source);  // from now on it reads what its tokens allow
        }
    }
    if (live()) {
        arm_pair_timer();
    }
}

// A leg whose reset would go unnoticed: it is neither read nor waited for.
bool Pair::unobserved(Leg leg) const {
    const Source source = reading(leg).source;
    const bool read = source == Source::receiving || source == Source::watching;
    return !read && !reading(other(leg)).blocked;
}

void Pair::supervise_from_now() {
    if (live() && !supervised_) {
        supervised_ = true;
        arm_pair_timer();
    }
}

// When no byte has moved for too long, and what that is called then.
Pair::Deadline Pair::quiet_deadline() {
    const abi::TunnelEntry& tunnel = shard_->tunnel(tunnel_index_);
    const std::uint64_t idle_ms = tunnel.idle_timeout_ms.load(std::memory_order_relaxed);
    const std::uint64_t half_closed_ms =
        tunnel.half_closed_timeout_ms.load(std::memory_order_relaxed);
    Deadline deadline{.at = never, .reason = EndReason::idle};
    if (idle_ms != 0) {
        deadline.at = active_at_ + idle_ms * base::millisecond_ns;
    }
    if (half_closed_ms != 0 && half_closed_at_ != 0) {
        // Not from the FIN alone: a long answer behind it goes on as long as it moves.
        const base::Nanoseconds at =
            std::max(active_at_, half_closed_at_) + half_closed_ms * base::millisecond_ns;
        if (at < deadline.at) {
            deadline = {.at = at, .reason = EndReason::half_closed};
        }
    }
    return deadline;
}

void Pair::arm_pair_timer() {
    base::Nanoseconds due = quiet_deadline().at;
    if (supervised_) {
        due = std::min(due, shard_->now() + supervision_ns);
    }
    if (due != never) {
        shard_->timers().arm(timer_, due);
    }
}

void Pair::on_pair_timer() {
    if (reading(Leg::visitor).waits_for_tokens || reading(Leg::client).waits_for_tokens) {
        active_at_ = shard_->now();  // not its silence: the relay holds it back
    }
    const Deadline quiet = quiet_deadline();
    if (shard_->now() >= quiet.at) {
        end(quiet.reason, true);
        return;
    }
    supervised_ = false;
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        if (!unobserved(leg)) {
            continue;
        }
        const int error_number = io().pending_error(*this, leg);
        if (error_number != 0) {
            fail(error_number);
            return;
        }
        supervised_ = true;
    }
    arm_pair_timer();
}

}  // namespace bore::stream
