// Steps of a flow's end, in this order below: it begins; it is checked now and then; it ends or is
// cut; it lingers; it is removed.
#include "dataplane/packet/flow_end.hpp"

#include <algorithm>
#include <cerrno>

#include "dataplane/base/check.hpp"

namespace bore::packet {

using abi::EndReason;
using abi::Leg;

namespace {

constexpr base::Nanoseconds never = ~base::Nanoseconds{0};
constexpr std::array both_legs{Leg::visitor, Leg::client};

Leg other(Leg leg) {
    return leg == Leg::visitor ? Leg::client : Leg::visitor;
}

std::uint32_t tick_of(base::Nanoseconds now) {
    return static_cast<std::uint32_t>(now >> activity_tick_shift);
}

std::uint32_t load(const std::atomic<std::uint32_t>& value) {
    return value.load(std::memory_order_relaxed);
}

SlowCounter counter_of(EndReason reason) {
    switch (reason) {
        case EndReason::fin:
            return SlowCounter::flows_ended_fin_total;
        case EndReason::reset:
            return SlowCounter::flows_ended_reset_total;
        case EndReason::idle:
            return SlowCounter::flows_ended_idle_total;
        case EndReason::half_closed:
            return SlowCounter::flows_ended_half_closed_total;
        case EndReason::closed:
            return SlowCounter::flows_ended_closed_total;
        case EndReason::drained:
            return SlowCounter::flows_ended_drained_total;
        case EndReason::error:
        case EndReason::count:
            break;
    }
    return SlowCounter::flows_ended_error_total;
}

// The window that the peer of this direction has announced, as the other leg's peer is told it.
std::uint16_t window_of(const DirectionEntry& from_peer) {
    const std::uint32_t bytes = load(from_peer.window_edge) - load(from_peer.acknowledged);
    return static_cast<std::uint16_t>(std::min(bytes >> (from_peer.window_scales >> 4U), 0xffffU));
}

}  // namespace

FlowRecord& Flows::record(FlowIndex flow) {
    return chunks_[flow / chunk_records][flow % chunk_records];
}

const abi::TunnelLimits& Flows::limits_of(FlowIndex flow) const {
    return context_.tunnels.limits(
        context_.table.direction(direction_of(flow, Leg::visitor)).tunnel_index);
}

// ---- Begin

void Flows::begin(const NewFlow& flow) {
    while (chunks_.size() * chunk_records <= flow.flow) {
        chunks_.push_back(std::make_unique<FlowRecord[]>(chunk_records));
    }
    record_count_ = std::max(record_count_, flow.flow + 1);
    FlowRecord& live = record(flow.flow);
    BORE_CHECK(live.phase == FlowRecord::Phase::free, "a flow was installed in a slot in use");
    live.index = flow.flow;
    live.kind = SlowTimer::Kind::flow;
    live.phase = FlowRecord::Phase::live;
    live.pair_slot = flow.pair_slot;
    live.generation = flow.generation;
    live.tag = flow.tag;
    live.opened_at = flow.opened_at;
    live.first_byte_due = flow.drained_bytes[0] + flow.drained_bytes[1] == 0 ? 1 : 0;
    context_.histograms.record(abi::SlowPathHistogram::handoff_ns, context_.now - flow.opened_at);
    live.progress = progress_of(flow.flow);
    live.active_tick = tick_of(context_.now);
    live.challenged = static_cast<std::uint8_t>(live.active_tick - 1);
    if (flow.drained_bytes[0] + flow.drained_bytes[1] != 0 || flow.update_client_at != 0) {
        extras_[flow.flow] = Extra{.drained_bytes = flow.drained_bytes,
                                   .update_client_at = flow.update_client_at,
                                   .client_update = flow.client_update};
    }
    if (flow_of_pair_.size() <= flow.pair_slot) {
        flow_of_pair_.resize(flow.pair_slot + std::size_t{1}, no_flow);
    }
    flow_of_pair_[flow.pair_slot] = flow.flow;
    ++live_count_;
    context_.counters.set(SlowCounter::flows_live, live_count_);
    check(flow.flow);
}

// ---- Checks

// Changes when a byte moved: sequence numbers and acknowledgements only grow, each weighed by
// another odd number.
std::uint32_t Flows::progress_of(FlowIndex flow) const {
    const DirectionEntry& visitor = context_.table.direction(direction_of(flow, Leg::visitor));
    const DirectionEntry& client = context_.table.direction(direction_of(flow, Leg::client));
    return load(visitor.next_sequence) + load(visitor.acknowledged) * 0x9e37'79b1U +
           load(client.next_sequence) * 0x85eb'ca77U + load(client.acknowledged) * 0xc2b2'ae3dU;
}

std::uint32_t Flows::last_frame_tick(FlowIndex flow) const {
    const std::uint32_t now = tick_of(context_.now);
    std::uint16_t age = 0xffff;
    for (const Leg leg : both_legs) {
        const auto seen = context_.table.direction(direction_of(flow, leg))
                              .last_seen.load(std::memory_order_relaxed);
        age = std::min(age, static_cast<std::uint16_t>(activity_tick(context_.now) - seen));
    }
    return now - std::min<std::uint32_t>(age, now);
}

bool Flows::waits_for_acknowledgement(FlowIndex flow) const {
    return std::ranges::any_of(both_legs, [&](Leg leg) {
        const DirectionEntry& forth = context_.table.direction(direction_of(flow, leg));
        const DirectionEntry& back = context_.table.direction(direction_of(flow, other(leg)));
        return sequence_after(load(forth.next_sequence) + forth.sequence_delta,
                              load(back.acknowledged));
    });
}

// The rate of the tunnel may have come or gone since the flow began.
void Flows::follow_limits(FlowIndex flow, const abi::TunnelLimits& limits) {
    const std::array rates{limits.to_client_bytes_per_second, limits.to_visitor_bytes_per_second};
    for (const Leg leg : both_legs) {
        auto& state = context_.table.direction(direction_of(flow, leg)).state;
        const bool limited = rates[static_cast<std::size_t>(leg)] != 0;
        if (limited == ((state.load(std::memory_order_relaxed) & state_limited) != 0)) {
            continue;
        }
        if (limited) {
            state.fetch_or(state_limited);
        } else {
            state.fetch_and(static_cast<std::uint8_t>(~state_limited));
        }
    }
}

// A peer of which nothing was heard for the time after which the kernel asks its connections
// (tcp_keepalive_time) is asked in its way: 9 times, 75 s apart. False: it is gone.
bool Flows::keep_alive(FlowIndex flow) {
    FlowRecord& live = record(flow);
    bool silent = false;
    for (const Leg leg : both_legs) {
        const auto seen = context_.table.direction(direction_of(flow, leg))
                              .last_seen.load(std::memory_order_relaxed);
        const auto age = static_cast<std::uint16_t>(activity_tick(context_.now) - seen);
        if ((base::Nanoseconds{age} << activity_tick_shift) >= keepalive_idle_ns) {
            silent = true;
            probe(flow, leg);
        }
    }
    live.probes = (silent ? live.probes + 1 : 0) & 0x0fU;
    return live.probes <= keepalive_probes;
}

void Flows::check(FlowIndex flow) {
    FlowRecord& live = record(flow);
    // The packet path's word about an end may have been lost in a full ring.
    on_event(flow, context_.table.cold(flow).generation.load(std::memory_order_relaxed));
    if (live.phase != FlowRecord::Phase::live) {
        return;
    }
    follow_limits(flow, limits_of(flow));
    const std::uint32_t last_frame = last_frame_tick(flow);
    if (const std::uint32_t progress = progress_of(flow); progress != live.progress) {
        live.progress = progress;
        live.active_tick = last_frame;
    }
    // Ticks were rounded down; a timeout never comes early.
    const auto end_of_tick = [this](std::uint32_t tick) {
        return std::min(context_.now, (base::Nanoseconds{tick} + 1) << activity_tick_shift);
    };
    const FlowCold& cold = context_.table.cold(flow);
    const bool half_closed = cold.fin_seen[0].load(std::memory_order_relaxed) != 0 ||
                             cold.fin_seen[1].load(std::memory_order_relaxed) != 0;
    const abi::TunnelLimits& limits = limits_of(flow);
    const base::Nanoseconds active_at = end_of_tick(live.active_tick);
    base::Nanoseconds period = max_check_period_ns;
    base::Nanoseconds deadline = never;
    EndReason reason = EndReason::idle;
    const auto consider = [&](std::uint64_t timeout_ms, EndReason why) {
        const base::Nanoseconds timeout = timeout_ms * base::millisecond_ns;
        if (timeout_ms != 0 && active_at + timeout < deadline) {
            deadline = active_at + timeout;
            reason = why;
        }
        if (timeout_ms != 0) {
            period = std::min(period, std::max(timeout / 4, min_check_period_ns));
        }
    };
    consider(limits.idle_timeout_ms, EndReason::idle);
    if (half_closed) {
        consider(limits.half_closed_timeout_ms, EndReason::half_closed);
    } else if (limits.half_closed_timeout_ms != 0) {
        // A FIN must be noticed in time for its timeout.
        period = std::min(period, std::max(limits.half_closed_timeout_ms * base::millisecond_ns / 4,
                                           min_check_period_ns));
    }
    if (context_.now >= deadline) {
        cut(flow, reason);
        return;
    }
    if (context_.now >= end_of_tick(last_frame) + stalled_limit_ns &&
        waits_for_acknowledgement(flow)) {
        cut(flow, EndReason::error, ETIMEDOUT);
        return;
    }
    if (!keep_alive(flow)) {
        cut(flow, EndReason::error, ETIMEDOUT);
        return;
    }
    if (live.probes != 0) {
        period = std::min(period, keepalive_interval_ns);
    }
    arm(live, std::min(deadline, context_.now + period));
}

void Flows::arm(FlowRecord& flow_record, base::Nanoseconds due) {
    if (const auto extra = extras_.find(flow_record.index); extra != extras_.end()) {
        for (const base::Nanoseconds at :
             {extra->second.update_client_at, extra->second.reset_check_at}) {
            due = at != 0 ? std::min(due, at) : due;
        }
    }
    context_.arm(flow_record, due);
}

void Flows::recheck_all() {
    recheck_from_ = 0;
}

void Flows::tick() {
    (void)context_.table.collect();
    const std::uint32_t last = recheck_from_ < record_count_
                                   ? std::min(record_count_, recheck_from_ + rechecks_per_tick)
                                   : 0;
    for (; recheck_from_ < last; ++recheck_from_) {
        FlowRecord& looked_at = record(recheck_from_);
        if (looked_at.phase != FlowRecord::Phase::free && looked_at.first_byte_due != 0 &&
            context_.table.delivered_bytes(recheck_from_) != std::array<std::uint64_t, 2>{}) {
            measure_first_byte(looked_at, context_.now);
        }
        if (looked_at.phase == FlowRecord::Phase::live) {
            check(recheck_from_);
        }
    }
    // As many as the rings to the workers take the resets of, then the rest at the next tick.
    for (std::uint32_t count = 0; cut_from_ < record_count_ && count < cuts_per_tick; ++cut_from_) {
        if (record(cut_from_).phase == FlowRecord::Phase::live) {
            cut(cut_from_, cut_reason_);
            ++count;
        }
    }
}

void Flows::on_timer(FlowIndex flow) {
    FlowRecord& due = record(flow);
    if (due.phase == FlowRecord::Phase::lingering) {
        if (due.resets_to_repeat == 0) {
            remove(flow);
            return;
        }
        send_resets(flow);
        const std::size_t repeat = reset_repeats_ns.size() - due.resets_to_repeat;
        --due.resets_to_repeat;
        const base::Nanoseconds next =
            due.resets_to_repeat == 0 ? cut_linger_ns : reset_repeats_ns[repeat + 1];
        context_.arm(due, context_.now + next - reset_repeats_ns[repeat]);
        return;
    }
    if (const auto extra = extras_.find(flow); extra != extras_.end()) {
        if (extra->second.update_client_at != 0 && context_.now >= extra->second.update_client_at) {
            update_client(flow, extra->second);
        }
        if (extra->second.reset_check_at != 0 && context_.now >= extra->second.reset_check_at) {
            extra->second.reset_check_at = 0;
            check_reset(flow, extra->second);
        }
    }
    if (due.phase == FlowRecord::Phase::live) {
        check(flow);
    }
}

// The acknowledgement of Accept, unless one that says more went through the packet path meanwhile;
// for a visitor whose answer to the hand-off's probe is late, lost, or was so early that it passed
// without the acknowledgement. Its timestamp is that of the latest segment that passed while it was
// held back: an older one would make the client discard it (PAWS) and wait for its timer, one ahead
// of the visitor's clock would make it discard the visitor's next segments.
void Flows::update_client(FlowIndex flow, Extra& extra) {
    extra.update_client_at = 0;
    const DirectionEntry& visitor = context_.table.direction(direction_of(flow, Leg::visitor));
    const FlowCold& cold = context_.table.cold(flow);
    if (load(visitor.acknowledged) != cold.first_acknowledgement[visitor_leg]) {
        return;
    }
    SegmentFields fields = extra.client_update;
    fields.sequence = load(visitor.next_sequence) + visitor.sequence_delta;
    if (fields.timestamps) {
        fields.timestamps->value =
            (visitor.flags & flag_in_timestamps) != 0
                ? load(cold.peer_timestamp[visitor_leg]) + visitor.timestamp_delta
                : cold.own_timestamp[client_leg] + timestamp_ms(context_.now);
    }
    acknowledge(flow, Leg::client, fields);
}

// ---- Events

void Flows::measure_first_byte(FlowRecord& flow_record, base::Nanoseconds at) {
    flow_record.first_byte_due = 0;
    // A worker's clock may be older by some turns than that of the hand-off.
    const base::Nanoseconds opened_at = flow_record.opened_at;
    context_.histograms.record(abi::SlowPathHistogram::flow_first_byte_ns,
                               std::max(at, opened_at) - opened_at);
}

// The flow's end may have been heard of before, from another worker: its record is still there.
void Flows::on_first_byte(FlowIndex flow, std::uint32_t table_generation, base::Nanoseconds at) {
    if (flow < record_count_ && record(flow).phase != FlowRecord::Phase::free &&
        record(flow).first_byte_due != 0 &&
        context_.table.cold(flow).generation.load(std::memory_order_relaxed) == table_generation) {
        measure_first_byte(record(flow), at);
    }
}

void Flows::on_event(FlowIndex flow, std::uint32_t table_generation) {
    if (flow >= record_count_ || record(flow).phase != FlowRecord::Phase::live ||
        context_.table.cold(flow).generation.load(std::memory_order_relaxed) != table_generation) {
        return;
    }
    const FlowCold& cold = context_.table.cold(flow);
    if (cold.fin_acknowledged[0].load() != 0 && cold.fin_acknowledged[1].load() != 0) {
        end(flow, EndReason::fin, 0, context_.options.linger_ns);
        return;
    }
    if (cold.reset_seen[0].load() != 0 || cold.reset_seen[1].load() != 0) {
        Extra& extra = extras_[flow];
        if (extra.reset_check_at == 0) {
            extra.reset_check_at = context_.now + reset_grace_ns;
            extra.reset_progress = progress_of(flow);
            extra.reset_probes = 0;
            arm(record(flow), extra.reset_check_at);
        }
    }
}

void Flows::check_reset(FlowIndex flow, Extra& extra) {
    const FlowCold& cold = context_.table.cold(flow);
    if (cold.reset_seen[0].load() != 0 || cold.reset_seen[1].load() != 0) {
        end(flow, EndReason::reset, ECONNRESET, context_.options.linger_ns);
    } else if (progress_of(flow) != extra.reset_progress || extra.reset_probes == reset_probes) {
        context_.counters.add(SlowCounter::resets_refuted_total);
    } else {
        ++extra.reset_probes;
        extra.reset_check_at = context_.now + reset_grace_ns;
        for (const Leg leg : both_legs) {
            probe(flow, leg);
        }
    }
}

// One number before what the peer waits for: it acknowledges again if it lives, and resets with the
// number that the other one waits for if it does not.
void Flows::probe(FlowIndex flow, Leg leg) {
    const DirectionEntry& from_peer = context_.table.direction(direction_of(flow, leg));
    const DirectionEntry& back = context_.table.direction(direction_of(flow, other(leg)));
    acknowledge(flow, leg,
                {.sequence = load(from_peer.acknowledged) - 1,
                 .acknowledgement = load(back.acknowledged) + back.acknowledgement_delta,
                 .window = window_of(back),
                 .timestamps = std::nullopt});
}

void Flows::acknowledge(FlowIndex flow, Leg leg, const SegmentFields& fields) {
    std::array<std::byte, max_built_segment_bytes> out;
    const Adjacency& adjacency = adjacency_of_leg(flow, leg);
    const std::size_t length = build_acknowledgement(out, adjacency, key_of_leg(flow, leg), fields);
    (void)context_.host.to_wire(adjacency.port_index, std::span(out).first(length));
}

bool Flows::close(std::uint32_t pair_slot, std::uint32_t generation) {
    if (pair_slot >= flow_of_pair_.size() || flow_of_pair_[pair_slot] == no_flow ||
        record(flow_of_pair_[pair_slot]).generation != generation) {
        return false;
    }
    cut(flow_of_pair_[pair_slot], EndReason::closed);
    return true;
}

void Flows::cut_all(EndReason reason) {
    cut_reason_ = reason;
    cut_from_ = 0;
    tick();
}

bool Flows::on_syn(DirectionIndex direction) {
    const FlowIndex flow = flow_of(direction);
    FlowRecord& known = record(flow);
    if (known.phase == FlowRecord::Phase::lingering) {
        context_.counters.add(SlowCounter::flows_evicted_total);
        remove(flow);
        return true;
    }
    // Its peer has just reset it: this is the next connection from the same port.
    const FlowCold& cold = context_.table.cold(flow);
    if (cold.reset_seen[static_cast<std::size_t>(leg_of(direction))].load() != 0) {
        end(flow, EndReason::reset, ECONNRESET, context_.options.linger_ns);
        context_.counters.add(SlowCounter::flows_evicted_total);
        remove(flow);
        return true;
    }
    // One per flow and quarter of a second: the answer must not serve anybody as an amplifier or
    // as a counter (RFC 5961, 7).
    const auto low_tick = static_cast<std::uint8_t>(tick_of(context_.now));
    if (known.challenged == low_tick) {
        return false;
    }
    known.challenged = low_tick;
    const Leg leg = leg_of(direction);
    const DirectionEntry& back = context_.table.direction(direction_of(flow, other(leg)));
    // In this leg's numbering: what the peer has acknowledged, and what the other one has; a peer
    // that knows nothing of the connection resets with just the latter.
    const SegmentFields fields{
        .sequence = load(context_.table.direction(direction).acknowledged),
        .acknowledgement = load(back.acknowledged) + back.acknowledgement_delta,
        .window = window_of(back),
        .timestamps = std::nullopt};
    acknowledge(flow, leg, fields);
    context_.counters.add(SlowCounter::challenges_total);
    return false;
}

// ---- End

void Flows::end(FlowIndex flow, EndReason reason, int error_number, base::Nanoseconds linger_ns) {
    FlowRecord& ended = record(flow);
    const std::uint32_t tunnel_index =
        context_.table.direction(direction_of(flow, Leg::visitor)).tunnel_index;
    const std::array<std::uint64_t, 2> spliced = context_.table.delivered_bytes(flow);
    std::array<std::uint64_t, 2> drained{};
    if (const auto extra = extras_.find(flow); extra != extras_.end()) {
        drained = extra->second.drained_bytes;
        extras_.erase(extra);
    }
    flow_of_pair_[ended.pair_slot] = no_flow;
    ended.phase = FlowRecord::Phase::lingering;
    ended.resets_to_repeat = 0;
    --live_count_;
    ++lingering_count_;
    lingering_.push_back(
        {flow, context_.table.cold(flow).generation.load(std::memory_order_relaxed)});
    context_.arm(ended, context_.now + linger_ns);
    context_.counters.set(SlowCounter::flows_live, live_count_);
    context_.counters.set(SlowCounter::flows_lingering, lingering_count_);
    context_.counters.add(counter_of(reason));
    context_.histograms.record(abi::SlowPathHistogram::flow_lifetime_ns,
                               context_.now - ended.opened_at);
    context_.row(tunnel_index).subtract(abi::TunnelCounter::tunnel_pairs_live);
    context_.host.ended({
        .handle = {.slot_index = ended.pair_slot, .generation = ended.generation},
        .tag = ended.tag,
        .tunnel_index = tunnel_index,
        .reason = reason,
        .error_number = error_number,
        .to_client_bytes = spliced[visitor_leg] + drained[visitor_leg],
        .to_visitor_bytes = spliced[client_leg] + drained[client_leg],
        .spliced_bytes = spliced[0] + spliced[1],
        .duration_ns = context_.now - ended.opened_at,
    });
}

void Flows::cut(FlowIndex flow, EndReason reason, int error_number) {
    // Closed first: nothing is sent any more, so the numbers of the resets are final.
    for (const Leg leg : both_legs) {
        context_.table.direction(direction_of(flow, leg)).state.fetch_or(state_closed);
    }
    end(flow, reason, error_number, reset_repeats_ns[0]);
    record(flow).resets_to_repeat = reset_repeats_ns.size() & 0x07U;
    send_resets(flow);
}

// A peer takes a reset only with the very number that it waits for (RFC 5961, 3.2). That is what it
// acknowledged last, or, when its acknowledgement is still to come, the end of what was sent to it.
void Flows::send_resets(FlowIndex flow) {
    for (const Leg leg : both_legs) {
        const DirectionEntry& from_peer = context_.table.direction(direction_of(flow, leg));
        const DirectionEntry& to_peer = context_.table.direction(direction_of(flow, other(leg)));
        const std::uint32_t acknowledged = load(from_peer.acknowledged);
        const std::uint32_t sent = load(to_peer.next_sequence) + to_peer.sequence_delta;
        const Adjacency& adjacency = adjacency_of_leg(flow, leg);
        const FlowKey key = key_of_leg(flow, leg);
        SegmentFields fields{.sequence = acknowledged,
                             .acknowledgement = load(from_peer.next_sequence),
                             .window = 0,
                             .timestamps = std::nullopt};
        std::array<std::byte, max_built_segment_bytes> out;
        std::size_t length = build_reset(out, adjacency, key, fields);
        (void)context_.host.to_wire(adjacency.port_index, std::span(out).first(length));
        if (sent != acknowledged) {
            fields.sequence = sent;
            length = build_reset(out, adjacency, key, fields);
            (void)context_.host.to_wire(adjacency.port_index, std::span(out).first(length));
        }
    }
}

// ---- Removal

void Flows::remove(FlowIndex flow) {
    FlowRecord& gone = record(flow);
    // What comes next on its tuples is the kernel's, and must not find the old sockets there.
    context_.host.close_now();
    context_.wheel.cancel(gone);
    gone.phase = FlowRecord::Phase::free;
    context_.table.remove(flow);
    --lingering_count_;
    context_.counters.set(SlowCounter::flows_lingering, lingering_count_);
    // The oldest first; entries of flows that went out of turn are dropped when they come up.
    while (
        !lingering_.empty() &&
        context_.table.cold(lingering_.front().flow).generation.load(std::memory_order_relaxed) !=
            lingering_.front().generation) {
        lingering_.pop_front();
    }
}

bool Flows::evict_oldest() {
    if (lingering_.empty()) {
        return false;
    }
    context_.counters.add(SlowCounter::flows_evicted_total);
    remove(lingering_.front().flow);
    return true;
}

void Flows::make_room(std::uint32_t free_slots) {
    while (context_.table.size() + free_slots > context_.table.max_flows() && evict_oldest()) {
    }
    (void)context_.table.collect();
}

// ---- Legs of a flow

// What leads to a leg's peer is the way out of the other direction.
bool Flows::is_installed(FlowIndex flow) const {
    return chunks_[flow / chunk_records][flow % chunk_records].phase != FlowRecord::Phase::free;
}

const Adjacency& Flows::adjacency_of_leg(FlowIndex flow, Leg leg) const {
    return context_.table.adjacency_at(
        context_.table.direction(direction_of(flow, other(leg))).adjacency);
}

FlowKey Flows::key_of_leg(FlowIndex flow, Leg leg) const {
    const DirectionEntry& entry = context_.table.direction(direction_of(flow, leg));
    FlowKey key;
    std::array<std::byte, 4> ports;
    std::memcpy(ports.data(), &entry.in_ports, sizeof ports);
    key.peer_port = load16(ports.data());
    key.own_port = load16(ports.data() + 2);
    if ((entry.flags & flag_v6) != 0) {
        const FlowAddresses& addresses = context_.table.addresses(flow);
        key.peer_address = addresses.peer[static_cast<std::size_t>(leg)];
        key.own_address = context_.table.own_address6(direction_of(flow, leg));
        return key;
    }
    for (auto* address : {&key.peer_address, &key.own_address}) {
        (*address)[10] = (*address)[11] = 0xff;
    }
    std::memcpy(key.peer_address.data() + 12, &entry.in_source, 4);
    std::memcpy(key.own_address.data() + 12, &entry.in_destination, 4);
    return key;
}

}  // namespace bore::packet
