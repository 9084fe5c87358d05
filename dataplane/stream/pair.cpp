// A pair's life in the order in which it happens: open, read, forward, deliver, ask for more,
// change the path. Its end is in pair_end.cpp.
#include "dataplane/stream/pair.hpp"

#include <algorithm>
#include <utility>

#include "dataplane/abi/limits.hpp"
#include "dataplane/stream/shard.hpp"

namespace bore::stream {

using abi::EndReason;
using abi::WorkerCounter;

namespace {

// Reads per readiness before other pairs get their turn: 4 MiB at a time.
constexpr int pump_rounds = 4;

}  // namespace

Pair::Pair() {
    timer_.pair = this;
    timer_.kind = PairTimer::Kind::pair;
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        reading(leg).timer.pair = this;
        reading(leg).timer.leg = leg;
    }
}

Io& Pair::io() {
    return shard_->io();
}

abi::RateLimiter& Pair::limiter(Leg source) {
    return shard_->tunnel(tunnel_index_).limiters[index_of(source)];
}

// ---- Open

void Pair::open(Shard& shard, abi::PairRequest&& request, std::uint32_t slot_index,
                std::uint32_t generation) {
    BORE_CHECK(state_ == State::free, "a pair was opened in a slot in use");
    shard_ = &shard;
    slot_index_ = slot_index;
    generation_ = generation;
    tunnel_index_ = request.tunnel_index;
    tag_ = request.tag;
    opened_at_ = active_at_ = shard.now();
    half_closed_at_ = 0;
    error_number_ = 0;
    reason_ = EndReason::fin;
    supervised_ = false;
    // Another engine that delivered some has measured it.
    first_byte_due_ = request.delivered_to_client_bytes + request.delivered_to_visitor_bytes == 0;
    state_ = State::live;
    for (Direction& direction : directions_) {
        direction.meter = FlowMeter();
        direction.held.clear();
        direction.held_offset = 0;
        direction.pipe_bytes = 0;
        direction.low_water_bytes = 1;
        direction.delivered_bytes = direction.spliced_bytes = 0;
        direction.path = Path::copy;
        direction.source = Source::idle;
        direction.blocked = direction.waits_for_tokens = direction.has_pipe = false;
        direction.wants_splice = direction.finished = false;
    }
    const std::array<std::pair<Leg, std::span<const std::byte>>, 2> left_overs{{
        {Leg::client, request.left_over_to_visitor},
        {Leg::visitor, request.left_over_to_client},
    }};
    for (const auto& [source, bytes] : left_overs) {
        if (live() && !bytes.empty()) {
            note_read(source, bytes.size(), false);
            forward(source, bytes);
        }
    }
    for (const Leg source : {Leg::visitor, Leg::client}) {
        if (live() && !reading(source).blocked) {
            ask_for_more(source);
        }
    }
    if (live()) {
        arm_pair_timer();
    }
}

// ---- Read

void Pair::note_read(Leg source, std::size_t bytes, bool drained) {
    Direction& direction = reading(source);
    active_at_ = shard_->now();
    direction.meter.on_read(bytes, active_at_);
    reading(other(source)).meter.on_opposite_read();
    limiter(source).charge(active_at_, bytes, shard_->worker_index());
    if (drained && direction.meter.wants_quick_ack(bytes)) {
        io().quick_ack(*this, source);
        shard_->count(WorkerCounter::quick_acks_total);
    }
}

void Pair::on_data(Leg source, std::span<const std::byte> bytes, bool more_waits) {
    if (!live()) {
        return;
    }
    shard_->count(WorkerCounter::receives_total);
    forward(source, bytes);
    if (!live()) {
        return;
    }
    // After the forwarding: what we send back may carry the acknowledgement.
    note_read(source, bytes.size(), !more_waits);
    Direction& direction = reading(source);
    if (direction.source == Source::receiving && !direction.blocked) {
        if (limiter(source).limited()) {
            stop_receiving(source);
        } else {
            choose_path(source);
        }
    }
}

void Pair::on_end_of_stream(Leg source) {
    if (!live()) {
        return;
    }
    reading(source).source = Source::ended;
    shard_->timers().cancel(reading(source).timer);
    advance(source);
}

void Pair::on_receive_stopped(Leg source) {
    if (!live()) {
        return;
    }
    reading(source).source = Source::idle;
    advance(source);
}

void Pair::stop_receiving(Leg source) {
    reading(source).source = Source::stopping;
    if (io().stop_receive(*this, source)) {
        on_receive_stopped(source);
    }
}

void Pair::on_readable(Leg source) {
    Direction& direction = reading(source);
    if (!live() || direction.source != Source::watching) {
        return;  // ended while the watch was under way
    }
    direction.source = Source::idle;
    direction.waits_for_tokens = false;
    shard_->timers().cancel(direction.timer);
    if (direction.blocked) {
        return;  // on_writable goes on
    }
    read_now(source);
}

void Pair::read_now(Leg source) {
    if (limiter(source).ready_at() > shard_->now()) {
        wait_for_tokens(source);
    } else if (reading(source).path == Path::splice) {
        pump(source);
    } else if (limiter(source).limited()) {
        read_limited(source);
    } else {
        advance(source);
    }
}

// A limited direction reads just as much as its tokens allow and only then.
void Pair::read_limited(Leg source) {
    std::span<const std::byte> bytes;
    const IoResult result =
        io().read(*this, source, limiter(source).read_size_bytes(abi::receive_buffer_bytes), bytes);
    if (result.has_bytes()) {
        shard_->count(WorkerCounter::receives_total);
        forward(source, bytes);
        if (!live()) {
            return;
        }
        note_read(source, bytes.size(), true);
        const Direction& direction = reading(source);
        if (direction.meter.is_bulk() && !direction.meter.is_interactive() &&
            !holds_bytes(direction)) {
            start_splicing(source);
        }
        advance(source);
    } else if (result.is_zero()) {
        on_end_of_stream(source);
    } else if (result.is_would_block()) {
        advance(source);
    } else {
        fail(result.error_number());
    }
}

void Pair::pump(Leg source) {
    for (int round = 0; round < pump_rounds; ++round) {
        switch (fill_and_deliver(source)) {
            case Fill::again:
                break;
            case Fill::empty:
                if (round == 0 && io().has_unread(*this, source)) {
                    return_to_copying(source);
                    return;
                }
                [[fallthrough]];
            case Fill::wait:
                wait_readable(source);
                return;
            case Fill::done:
                return;
        }
    }
    wait_readable(source);
}

Pair::Fill Pair::fill_and_deliver(Leg source) {
    Direction& direction = reading(source);
    const IoResult result =
        io().fill_pipe(*this, source, limiter(source).read_size_bytes(abi::pipe_bytes));
    if (result.is_zero()) {
        if (io().has_unread(*this, source)) {
            return_to_copying(source);
        } else {
            on_end_of_stream(source);
        }
        return Fill::done;
    }
    if (result.is_would_block()) {
        return Fill::empty;
    }
    if (!result.has_bytes()) {
        fail(result.error_number());
        return Fill::done;
    }
    shard_->count(WorkerCounter::splices_total);
    direction.pipe_bytes += result.bytes();
    const bool delivered = deliver(source);
    if (!live()) {
        return Fill::done;
    }
    note_read(source, result.bytes(), true);
    if (!delivered) {
        return Fill::done;
    }
    if (limiter(source).ready_at() > shard_->now()) {
        wait_for_tokens(source);
        return Fill::done;
    }
    if (direction.meter.is_interactive() && !limiter(source).limited()) {
        return_to_copying(source);
        return Fill::done;
    }
    // A fast flow fills its next low-water mark by itself; reading on would undo the gathering.
    return direction.meter.low_water_bytes() > 1 ? Fill::wait : Fill::again;
}

// Because the flow has calmed down, or to get past an urgent mark, which only a receive does. A
// direction that is watched asks again when the watch fires.
void Pair::return_to_copying(Leg source) {
    stop_splicing(source);
    if (reading(source).source == Source::idle) {
        ask_for_more(source);
    }
}

// ---- Forward and deliver

void Pair::forward(Leg source, std::span<const std::byte> bytes) {
    if (holds_bytes(reading(source))) {
        hold(source, bytes);
        return;
    }
    const IoResult result = io().send(*this, other(source), bytes);
    if (result.has_bytes()) {
        note_delivered(source, result.bytes(), false);
        bytes = bytes.subspan(result.bytes());
    } else if (!result.is_would_block()) {
        fail(result.error_number());
        return;
    }
    if (!bytes.empty()) {
        hold(source, bytes);
        if (live()) {
            block(source);
        }
    }
}

void Pair::hold(Leg source, std::span<const std::byte> bytes) {
    Direction& direction = reading(source);
    if (direction.held.size() - direction.held_offset + bytes.size() >
        abi::max_buffered_bytes_per_direction) {
        fail(ENOBUFS);
        return;
    }
    direction.held.insert(direction.held.end(), bytes.begin(), bytes.end());
}

// True when nothing is held any more. Otherwise the target is watched, or the pair has ended.
bool Pair::deliver(Leg source) {
    Direction& direction = reading(source);
    while (holds_bytes(direction)) {
        if (direction.blocked) {
            return false;
        }
        const bool spliced = direction.pipe_bytes > 0;
        const IoResult result =
            spliced ? io().drain_pipe(*this, source, direction.pipe_bytes)
                    : io().send(*this, other(source),
                                std::span(direction.held).subspan(direction.held_offset));
        if (result.is_would_block()) {
            block(source);
            return false;
        }
        if (!result.has_bytes()) {
            fail(result.is_zero() ? EIO : result.error_number());
            return false;
        }
        if (spliced) {
            direction.pipe_bytes -= result.bytes();
        } else {
            direction.held_offset += result.bytes();
        }
        note_delivered(source, result.bytes(), spliced);
    }
    if (direction.held_offset > 0) {
        std::vector<std::byte>().swap(direction.held);  // a stall is over: give its memory back
        direction.held_offset = 0;
    }
    return true;
}

void Pair::note_delivered(Leg source, std::size_t bytes, bool spliced) {
    Direction& direction = reading(source);
    active_at_ = shard_->now();
    if (std::exchange(first_byte_due_, false)) {
        shard_->histograms().record(abi::WorkerHistogram::first_byte_ns, active_at_ - opened_at_);
    }
    direction.delivered_bytes += bytes;
    shard_->tunnel_row(tunnel_index_)
        .add(source == Leg::visitor ? abi::TunnelCounter::to_client_bytes_total
                                    : abi::TunnelCounter::to_visitor_bytes_total,
             bytes);
    if (spliced) {
        direction.spliced_bytes += bytes;
        shard_->count(WorkerCounter::spliced_bytes_total, bytes);
    } else {
        shard_->count(WorkerCounter::sends_total);
        shard_->count(WorkerCounter::copied_bytes_total, bytes);
    }
}

void Pair::block(Leg source) {
    Direction& direction = reading(source);
    direction.blocked = true;
    shard_->count(WorkerCounter::backpressure_total);
    io().watch_writable(*this, other(source));
    if (direction.source == Source::receiving) {
        stop_receiving(source);
    }
    supervise_from_now();
}

void Pair::on_writable(Leg target) {
    const Leg source = other(target);
    if (!live() || !reading(source).blocked) {
        return;
    }
    reading(source).blocked = false;
    advance(source);
}

// Whatever comes next for a direction: deliver, then end it or read on.
void Pair::advance(Leg source) {
    if (!live() || !deliver(source)) {
        return;
    }
    Direction& direction = reading(source);
    if (direction.finished) {
        return;
    }
    if (direction.source == Source::ended) {
        finish(source);
    } else if (direction.source == Source::idle) {
        if (direction.wants_splice) {  // now that what came by the copy path has left by it
            direction.wants_splice = false;
            start_splicing(source);
        }
        ask_for_more(source);
    } else if (direction.source == Source::watching) {
        // Blocked by a read at a gathering deadline: the watch is still there, its deadline is not.
        wait_readable(source);
    }
}

// ---- Ask for more

void Pair::ask_for_more(Leg source) {
    Direction& direction = reading(source);
    if (limiter(source).ready_at() > shard_->now()) {
        wait_for_tokens(source);
    } else if (direction.path == Path::splice || limiter(source).limited()) {
        wait_readable(source);
    } else {
        direction.source = Source::receiving;
        io().receive(*this, source);
    }
}

void Pair::wait_readable(Leg source) {
    Direction& direction = reading(source);
    // Tokens already make a limited direction read in large pieces.
    const std::size_t low_water_bytes =
        limiter(source).limited() || !direction.has_pipe ? 1 : direction.meter.low_water_bytes();
    if (low_water_bytes != direction.low_water_bytes) {
        direction.low_water_bytes = low_water_bytes;
        io().set_low_water(*this, source, low_water_bytes);
    }
    if (direction.source != Source::watching) {
        direction.source = Source::watching;
        io().watch_readable(*this, source);
    }
    if (low_water_bytes > 1) {
        shard_->timers().arm(direction.timer, shard_->now() + FlowMeter::gather_deadline_ns);
    } else if (direction.has_pipe) {
        shard_->timers().arm(direction.timer, shard_->now() + FlowMeter::pipe_idle_ns);
    }
}

void Pair::wait_for_tokens(Leg source) {
    Direction& direction = reading(source);
    direction.waits_for_tokens = true;
    shard_->count(WorkerCounter::rate_limited_total);
    shard_->tunnel_row(tunnel_index_).add(abi::TunnelCounter::tunnel_rate_limited_total);
    // Who has just read goes behind those of its tunnel that wait already, and the worker that read
    // last behind the others, or the same ones would be first in every round and starve the rest.
    base::Nanoseconds at = limiter(source).ready_at();
    at += direction.meter.last_read_at() == shard_->now() ? Shard::tick_ns : 0;
    at += limiter(source).last_reader() == shard_->worker_index() ? Shard::tick_ns : 0;
    shard_->timers().arm(direction.timer, at);
    if (at > shard_->now() + supervision_ns) {
        supervise_from_now();
    }
}

void Pair::on_direction_timer(Leg source) {
    Direction& direction = reading(source);
    if (direction.waits_for_tokens) {
        direction.waits_for_tokens = false;
        // Read in the order of the timers, which is fair, not in that of the kernel's readiness.
        if (direction.source == Source::idle && !holds_bytes(direction)) {
            read_now(source);
        } else {
            advance(source);
        }
        return;
    }
    if (direction.source != Source::watching || !direction.has_pipe || direction.blocked) {
        return;
    }
    if (direction.low_water_bytes == 1) {
        stop_splicing(source);  // idle; the watch goes on and on_readable starts a receive
        return;
    }
    shard_->count(WorkerCounter::gather_deadlines_total);
    const std::uint64_t before = direction.delivered_bytes + direction.pipe_bytes;
    const Fill next = fill_and_deliver(source);
    if (next == Fill::done) {
        return;
    }
    if (direction.delivered_bytes + direction.pipe_bytes - before < FlowMeter::trickle_bytes) {
        direction.meter.on_pause();
    }
    wait_readable(source);
}

// ---- Change the path

void Pair::choose_path(Leg source) {
    Direction& direction = reading(source);
    if (!direction.meter.is_bulk() || direction.meter.is_interactive() || direction.has_pipe) {
        return;
    }
    if (!io().lend_pipe(*this, source)) {
        shard_->count(WorkerCounter::pipes_exhausted_total);
        direction.meter.on_pause();  // ask again one streak later
        return;
    }
    direction.has_pipe = true;
    direction.wants_splice = true;
    stop_receiving(source);
}

void Pair::start_splicing(Leg source) {
    Direction& direction = reading(source);
    if (!direction.has_pipe) {
        if (!io().lend_pipe(*this, source)) {
            shard_->count(WorkerCounter::pipes_exhausted_total);
            direction.meter.on_pause();  // ask again one streak later
            return;
        }
        direction.has_pipe = true;
    }
    direction.path = Path::splice;
    shard_->count(WorkerCounter::path_to_splice_total);
}

void Pair::stop_splicing(Leg source) {
    Direction& direction = reading(source);
    if (direction.path == Path::splice) {
        direction.path = Path::copy;
        direction.meter.on_pause();
        shard_->count(WorkerCounter::path_to_copy_total);
    }
    if (direction.low_water_bytes != 1) {
        direction.low_water_bytes = 1;
        io().set_low_water(*this, source, 1);
    }
    if (direction.has_pipe) {
        direction.has_pipe = false;
        io().return_pipe(*this, source, direction.pipe_bytes == 0);
    }
}

}  // namespace bore::stream
