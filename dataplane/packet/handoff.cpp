// Steps of a hand-off in the order of their states; then what they are made of.
#include "dataplane/packet/handoff.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "dataplane/base/check.hpp"

namespace bore::packet {

using abi::StreamReason;

namespace {

std::size_t other(std::size_t leg) {
    return 1 - leg;
}

// By who had sent them.
auto& left_over_of(auto& request, std::size_t source) {
    return source == client_leg ? request.left_over_to_visitor : request.left_over_to_client;
}

// What the peer may be sent, in bytes. Its latest segment may not have reached the kernel when the
// state was read; it counts when it acknowledges all that the kernel had sent.
std::uint32_t peer_window_bytes(const Leg& leg, const SocketSnapshot& snapshot) {
    return leg.window_acknowledgement == snapshot.snd_nxt
               ? std::uint32_t{leg.window} << snapshot.peer_window_scale
               : snapshot.peer_window_bytes;
}

// Windows are rounded down to the other leg's unit, so a window below one is none to the sender,
// which then waits for the receiver to announce a larger one. A receiver does that at the latest
// when half of its buffer is free (RFC 9293, 3.8.6.2.2: or one segment, if that is less; Linux:
// when its window has doubled). So half of the window must hold a unit and a segment. Then the
// announcement opens a whole segment to the sender, and nobody depends on probes, which come up to
// two minutes apart.
bool too_small(std::uint32_t window_bytes, const SocketSnapshot& receiver,
               const SocketSnapshot& sender) {
    const std::uint32_t unit_bytes = 1U << sender.own_window_scale;
    return window_bytes / 2 < unit_bytes + receiver.peer_mss;
}

bool same_way(const Adjacency& left, const Adjacency& right) {
    return left.port_index == right.port_index && left.header_bytes == right.header_bytes &&
           std::ranges::equal(std::span(left.header).first(left.header_bytes),
                              std::span(right.header).first(right.header_bytes));
}

bool may_be_replayed(const HeldFrame& frame, const SocketSnapshot& snapshot) {
    return sequence_after(frame.end_sequence, snapshot.rcv_nxt);
}

// The oldest TSval that will still go through the packet path: it becomes the relay's latest, so
// that no replayed segment seems older than what the other peer has seen (PAWS, trap 5).
std::uint32_t oldest_timestamp(const Leg& leg, const SocketSnapshot& snapshot) {
    std::uint32_t oldest = leg.peer_timestamp;
    const auto consider = [&oldest](const HeldFrame& frame) {
        if (frame.timestamped && sequence_before(frame.timestamp, oldest)) {
            oldest = frame.timestamp;
        }
    };
    std::ranges::for_each(leg.held, consider);
    for (const HeldFrame& frame : leg.recent) {
        if (may_be_replayed(frame, snapshot)) {
            consider(frame);
        }
    }
    return oldest;
}

// Not before the latest that the peer has seen. When the leg's origin is known that one is known as
// well, and the kernel was not asked.
std::uint32_t own_timestamp(const Leg& leg, const SocketSnapshot& snapshot) {
    const bool asked = !leg.origin;
    return leg.own_timestamped &&
                   (!asked || sequence_before(snapshot.own_timestamp, leg.own_timestamp))
               ? leg.own_timestamp
               : snapshot.own_timestamp;
}

}  // namespace

// ---- Commands and events

void Handoffs::open(std::uint32_t pair_slot, std::uint32_t generation, abi::PairRequest&& request) {
    if (by_slot_.size() <= pair_slot) {
        by_slot_.resize(pair_slot + std::size_t{1}, nullptr);
    }
    BORE_CHECK(by_slot_[pair_slot] == nullptr, "a pair is opened twice");
    if (free_.empty()) {
        Handoff& fresh = slots_.emplace_back();
        fresh.index = static_cast<std::uint32_t>(slots_.size() - 1);
        free_.push_back(&fresh);
    }
    Handoff& handoff = *free_.back();
    free_.pop_back();
    handoff.kind = SlowTimer::Kind::handoff;
    handoff.state = HandoffState::hold;
    handoff.pair_slot = pair_slot;
    handoff.generation = generation;
    handoff.request = std::move(request);
    for (const std::size_t leg : leg_indices) {
        handoff.read_bytes[leg] = handoff.request.facts[leg].read_bytes;
    }
    handoff.opened_at = context_.now;
    handoff.deadline = context_.now + context_.options.drain_deadline_ns;
    handoff.back_off = first_back_off_ns;
    by_slot_[pair_slot] = &handoff;
    context_.counters.set(SlowCounter::handoffs_under_way, ++count_);
    advance(handoff);
}

void Handoffs::heard(Leg& leg) {
    if (leg.handoff != nullptr && !leg.handoff->heard) {
        leg.handoff->heard = true;
        heard_.push_back(leg.handoff);
    }
}

void Handoffs::run_heard() {
    // What is heard of while these are looked at waits for the next turn.
    std::vector<Handoff*> batch;
    batch.swap(heard_);
    for (Handoff* handoff : batch) {
        handoff->heard = false;
        if (handoff->state != HandoffState::over) {
            advance(*handoff);
        }
    }
    if (heard_.empty()) {
        batch.clear();
        heard_.swap(batch);  // keeps its memory
    }
}

void Handoffs::on_timer(std::uint32_t index) {
    if (slots_[index].state != HandoffState::over) {
        advance(slots_[index]);
    }
}

void Handoffs::abort(Handoff& handoff, StreamReason reason) {
    handoff.reason = reason;
    handoff.state = HandoffState::abort;
    advance(handoff);
}

void Handoffs::abort_all(StreamReason reason) {
    for (Handoff& handoff : slots_) {
        if (handoff.state != HandoffState::over) {
            abort(handoff, reason);
        }
    }
}

// ---- The machine

void Handoffs::advance(Handoff& handoff) {
    while (handoff.state != HandoffState::over) {
        const Next next = step(handoff);
        if (!next) {
            wait(handoff);
            return;
        }
        handoff.state = *next;
    }
    finish(handoff);
}

Handoffs::Next Handoffs::step(Handoff& handoff) {
    switch (handoff.state) {
        case HandoffState::hold:
            return hold(handoff);
        case HandoffState::drain:
            return drain(handoff);
        case HandoffState::freeze:
            return freeze(handoff);
        case HandoffState::read:
            return read(handoff);
        case HandoffState::install:
            return install(handoff);
        case HandoffState::replay:
            return replay(handoff);
        case HandoffState::abort:
            return give_up(handoff);
        case HandoffState::over:
            break;
    }
    return HandoffState::over;
}

Handoffs::Next Handoffs::abort_because(Handoff& handoff, StreamReason reason) {
    handoff.reason = reason;
    return HandoffState::abort;
}

Handoffs::Next Handoffs::hold(Handoff& handoff) {
    const abi::PathPolicy policy =
        context_.tunnels.limits(handoff.request.tunnel_index).path_policy;
    // Legs first: the stream engine's pairs must be known as well, or they would be held anew.
    const std::optional<StreamReason> missing = find_legs(handoff);
    if (policy == abi::PathPolicy::stream) {
        return abort_because(handoff, StreamReason::policy);
    }
    if (missing) {
        return abort_because(handoff, *missing);
    }
    if (context_.draining || count_ > context_.options.max_handoffs) {
        return abort_because(handoff, StreamReason::busy);
    }
    if (handoff.legs[visitor_leg]->overflowed || handoff.legs[client_leg]->overflowed) {
        return abort_because(handoff, StreamReason::hold_overflow);
    }
    if (handoff.legs[visitor_leg]->key.is_v4() != handoff.legs[client_leg]->key.is_v4()) {
        return abort_because(handoff, StreamReason::families_differ);
    }
    for (Leg* leg : handoff.legs) {
        leg->phase = LegPhase::hold;
        legs_.touch(*leg);
    }
    // Room for this one and all others under way, made early enough for the grace period.
    flows_.make_room(static_cast<std::uint32_t>(count_));
    return HandoffState::drain;
}

Handoffs::Next Handoffs::drain(Handoff& handoff) {
    // Most pairs have nothing to drain. READ looks whether that is so in any case, and asking
    // here, too, would be a seventh of what a hand-off costs.
    if (handoff.first_look) {
        handoff.first_look = false;
        handoff.drain_skipped = handoff.request.left_over_to_client.empty() &&
                                handoff.request.left_over_to_visitor.empty();
        if (handoff.drain_skipped) {
            return HandoffState::freeze;
        }
    }
    bool moved = false;
    for (const std::size_t source : leg_indices) {
        if (!send_left_over(handoff, source)) {
            return abort_because(handoff, StreamReason::not_established);
        }
        // Left-over bytes are older than what the socket still has.
        if (left_over_of(handoff.request, source).empty() && !move_unread(handoff, source, moved)) {
            return abort_because(handoff, StreamReason::not_established);
        }
    }
    if (quiet(handoff)) {
        return HandoffState::freeze;
    }
    if (context_.now >= handoff.deadline) {
        return abort_because(handoff, StreamReason::drain_timeout);
    }
    handoff.back_off = moved ? first_back_off_ns
                             : std::min(last_back_off_ns, handoff.back_off + first_back_off_ns);
    return std::nullopt;
}

Handoffs::Next Handoffs::freeze(Handoff& handoff) {
    context_.host.freezing();
    for (Leg* leg : handoff.legs) {
        legs_.freeze(*leg);
    }
    return HandoffState::read;
}

Handoffs::Next Handoffs::read(Handoff& handoff) {
    for (const std::size_t leg : leg_indices) {
        Leg& known = *handoff.legs[leg];
        auto snapshot = context_.host.snapshot(handoff.socket(leg), known.origin);
        if (snapshot && snapshot->timestamps && known.origin && !known.own_timestamped) {
            // No timestamp in the first segment, against RFC 7323, and none sent since.
            known.origin.reset();
            snapshot = context_.host.snapshot(handoff.socket(leg), std::nullopt);
        }
        if (!snapshot) {
            return abort_because(handoff, StreamReason::repair_failed);
        }
        handoff.snapshots[leg] = *snapshot;
    }
    // After rcv_nxt was read, never before: nothing stops the kernel from receiving what was on its
    // way, and bytes that rcv_nxt counts but nobody has read would be lost (trap 1). What comes
    // after this moment is not in rcv_nxt, and a copy of it is replayed (trap 2).
    if (!quiet_as_read(handoff)) {
        return thaw(handoff);
    }
    if (const auto reason = unfit(handoff)) {
        return abort_because(handoff, *reason);
    }
    return HandoffState::install;
}

// Published before the sockets are closed, so that a full table costs nothing. From here on workers
// translate what comes from the wire, while both sockets still exist: they have nothing to send but
// acknowledgements, which do not get out (frozen, then installed), and what still reaches them is
// either older than rcv_nxt or kept as a copy, so that nothing depends on when they are closed.
Handoffs::Next Handoffs::install(Handoff& handoff) {
    FlowState state;
    for (const std::size_t leg : leg_indices) {
        const auto leg_at_splice = leg_state(handoff, leg);
        if (!leg_at_splice) {
            return abort_because(handoff, StreamReason::unknown_neighbour);
        }
        state.legs[leg] = *leg_at_splice;
    }
    // With all adjacencies taken but one, the second leg may have been given the first one's.
    const auto& [visitor, client] = handoff.legs;
    if (state.legs[visitor_leg].adjacency == state.legs[client_leg].adjacency &&
        !same_way(visitor->adjacency, client->adjacency)) {
        return abort_because(handoff, StreamReason::table_full);
    }
    const abi::TunnelLimits& limits = context_.tunnels.limits(handoff.request.tunnel_index);
    state.tunnel_index = static_cast<std::uint16_t>(handoff.request.tunnel_index);
    state.limited_to_client = limits.to_client_bytes_per_second != 0;
    state.limited_to_visitor = limits.to_visitor_bytes_per_second != 0;
    state.tell_first_byte = handoff.drained_bytes == std::array<std::uint64_t, 2>{};
    const base::Nanoseconds hold_ns = acknowledgement_hold_ns(handoff);
    if (hold_ns != 0) {
        state.ack_hold_back = static_cast<std::uint16_t>(
            handoff.snapshots[client_leg].rcv_nxt - handoff.legs[client_leg]->own_acknowledged);
        // The answer to the probe (see replay) must find the hold over, if a little early.
        state.ack_hold_until_ms = timestamp_ms(context_.now + hold_ns / 4 * 3);
    }
    const std::optional<FlowIndex> flow = context_.table.install(state, context_.now);
    if (!flow) {
        return abort_because(handoff, StreamReason::table_full);
    }
    handoff.flow = *flow;
    return HandoffState::replay;
}

Handoffs::Next Handoffs::replay(Handoff& handoff) {
    const base::Nanoseconds hold_ns = acknowledgement_hold_ns(handoff);
    send_acknowledgement(handoff, visitor_leg, window_update(handoff, visitor_leg));
    if (hold_ns == 0) {
        send_acknowledgement(handoff, client_leg, window_update(handoff, client_leg));
    } else {
        // The acknowledgement of Accept shall come a visitor's round trip from now, so the visitor
        // is made to send it: one number before its own is what everybody answers at once (RFC
        // 9293, 3.10.7.4). Its timestamp is then as new as any; one of ours may be taken for old.
        SegmentFields probe = window_update(handoff, visitor_leg);
        --probe.sequence;
        send_acknowledgement(handoff, visitor_leg, probe);
        context_.counters.add(SlowCounter::acks_delayed_total);
    }
    for (const std::size_t leg : leg_indices) {
        replay_leg(handoff, leg);
    }
    for (const std::size_t leg : leg_indices) {
        context_.host.close_silently(handoff.socket(leg));
    }
    context_.host.spliced();
    abi::TunnelCounters& row = context_.row(handoff.request.tunnel_index);
    row.add(abi::TunnelCounter::tunnel_pairs_opened_total);
    row.add(abi::TunnelCounter::tunnel_pairs_live);
    context_.counters.add(SlowCounter::handoffs_total);
    flows_.begin({.flow = handoff.flow,
                  .pair_slot = handoff.pair_slot,
                  .generation = handoff.generation,
                  .tag = handoff.request.tag,
                  .opened_at = handoff.opened_at,
                  .drained_bytes = handoff.drained_bytes,
                  .update_client_at = hold_ns == 0 ? 0 : context_.now + hold_ns,
                  .client_update = window_update(handoff, client_leg)});
    // From now on the table knows the tuples.
    for (Leg* leg : handoff.legs) {
        legs_.forget(*leg);
    }
    return HandoffState::over;
}

Handoffs::Next Handoffs::give_up(Handoff& handoff) {
    for (const std::size_t index : leg_indices) {
        Leg* leg = handoff.legs[index];
        if (leg == nullptr) {
            continue;
        }
        legs_.release(*leg);
        legs_.end_acknowledgement_hold(*leg);
        leg->handoff = nullptr;
        // Facts find a leg even for a connection that is over. It may be that of the next one on
        // the tuple, and stays free for that, with the copies of what was given to the kernel.
        if (handoff.reason == StreamReason::not_established &&
            !context_.host.key_of(handoff.socket(index), {})) {
            legs_.touch(*leg);
        } else {
            legs_.pin(*leg, handoff.pair_slot);
        }
    }
    context_.counters.add(abi::counter_of(handoff.reason));
    handoff.request.delivered_to_client_bytes = handoff.drained_bytes[visitor_leg];
    handoff.request.delivered_to_visitor_bytes = handoff.drained_bytes[client_leg];
    context_.host.to_stream(handoff.pair_slot, std::move(handoff.request), handoff.reason);
    return HandoffState::over;
}

void Handoffs::finish(Handoff& handoff) {
    context_.wheel.cancel(handoff);
    by_slot_[handoff.pair_slot] = nullptr;
    const std::uint32_t index = handoff.index;
    const bool heard = handoff.heard;
    std::destroy_at(&handoff);
    std::construct_at(&handoff);
    handoff.index = index;
    if (heard) {
        std::erase(heard_, &handoff);
    }
    free_.push_back(&handoff);
    context_.counters.set(SlowCounter::handoffs_under_way, --count_);
}

void Handoffs::wait(Handoff& handoff) {
    context_.arm(handoff, std::min(handoff.deadline, context_.now + handoff.back_off));
}

// ---- HOLD

std::optional<StreamReason> Handoffs::find_legs(Handoff& handoff) {
    std::optional<StreamReason> missing;
    for (const std::size_t index : leg_indices) {
        const int socket = handoff.socket(index);
        auto key = context_.host.key_of(socket, handoff.request.facts[index]);
        Leg* leg = key ? legs_.find(*key) : nullptr;
        if (leg == nullptr || leg->handoff != nullptr || leg->pair_slot != no_pair) {
            // Nobody's so far, or another pair's: perhaps of a later connection on the tuple.
            // Without facts it tells whether this one still lives.
            key = context_.host.key_of(socket, {});
        }
        if (!key) {
            missing = StreamReason::not_established;
            continue;
        }
        if (leg != nullptr && leg->handoff != nullptr) {
            // The tuple is in use again, so its earlier connection is over, though nobody saw how.
            abort(*leg->handoff, StreamReason::not_established);
        }
        if (leg == nullptr || leg->pair_slot != no_pair) {
            missing = missing.value_or(StreamReason::not_on_port);
            // Known from now on all the same: a later frame of it must not be held. What was known
            // of an earlier connection on the tuple says nothing about this one.
            if (leg != nullptr) {
                legs_.forget(*leg);
            }
            leg = legs_.track(*key, true);
        }
        BORE_CHECK(leg->handoff == nullptr, "a connection is in two pairs");
        leg->handoff = &handoff;
        legs_.touch(*leg);
        handoff.legs[index] = leg;
    }
    return missing;
}

bool Handoffs::long_path(std::uint32_t visitor_us, std::uint32_t client_us) const {
    const std::uint32_t longer = std::max({visitor_us, client_us, 1U});
    const std::uint32_t shorter = std::max(std::min(visitor_us, client_us), 1U);
    return longer > context_.options.short_rtt_us && longer / alike_rtt_ratio > shorter;
}

// ---- DRAIN

bool Handoffs::send_left_over(Handoff& handoff, std::size_t source) {
    std::vector<std::byte>& bytes = left_over_of(handoff.request, source);
    if (bytes.empty()) {
        return true;
    }
    const auto sent = context_.host.send(handoff.socket(other(source)), bytes);
    if (!sent) {
        return false;
    }
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(*sent));
    count_drained(handoff, source, *sent);
    return true;
}

bool Handoffs::move_unread(Handoff& handoff, std::size_t source, bool& moved) {
    const int from = handoff.socket(source);
    if (context_.host.unread_bytes(from) == 0) {
        return true;
    }
    const auto bytes = context_.host.move_unread(from, handoff.socket(other(source)));
    if (!bytes) {
        return false;
    }
    moved |= *bytes != 0;
    handoff.read_bytes[source] += *bytes;
    count_drained(handoff, source, *bytes);
    return true;
}

void Handoffs::count_drained(Handoff& handoff, std::size_t source, std::uint64_t bytes) {
    if (bytes != 0 && handoff.drained_bytes[0] + handoff.drained_bytes[1] == 0) {
        context_.histograms.record(abi::SlowPathHistogram::flow_first_byte_ns,
                                   context_.now - handoff.opened_at);
    }
    handoff.drained_bytes[source] += bytes;
    context_.counters.add(SlowCounter::handoff_drained_bytes_total, bytes);
    context_.count_delivered(handoff.request.tunnel_index, source, bytes);
}

bool Handoffs::quiet(const Handoff& handoff) {
    return std::ranges::all_of(leg_indices, [&](std::size_t leg) {
        const int socket = handoff.socket(leg);
        return left_over_of(handoff.request, leg).empty() &&
               context_.host.unread_bytes(socket) == 0 &&
               context_.host.unacknowledged_bytes(socket) == 0;
    });
}

// ---- FREEZE and READ

// quiet() with what the snapshots have told already. Who has read all that was received need not
// ask what is unread; else the kernel is asked, and says 0 of what somebody read who did not tell.
bool Handoffs::quiet_as_read(const Handoff& handoff) {
    return std::ranges::all_of(leg_indices, [&](std::size_t leg) {
        const SocketSnapshot& snapshot = handoff.snapshots[leg];
        return left_over_of(handoff.request, leg).empty() && !snapshot.unacknowledged &&
               (snapshot.received_bytes == handoff.read_bytes[leg] ||
                context_.host.unread_bytes(handoff.socket(leg)) == 0);
    });
}

// Back to DRAIN: what the kernel received meanwhile must be moved first.
Handoffs::Next Handoffs::thaw(Handoff& handoff) {
    for (Leg* leg : handoff.legs) {
        legs_.unfreeze(*leg);
    }
    if (std::exchange(handoff.drain_skipped, false)) {
        return HandoffState::drain;  // it was only a look
    }
    context_.counters.add(SlowCounter::handoff_retries_total);
    ++handoff.freezes;
    if (handoff.freezes >= context_.options.max_freezes) {
        return abort_because(handoff, StreamReason::never_quiet);
    }
    return HandoffState::drain;
}

std::optional<StreamReason> Handoffs::unfit(const Handoff& handoff) const {
    const SocketSnapshot& visitor = handoff.snapshots[visitor_leg];
    const SocketSnapshot& client = handoff.snapshots[client_leg];
    if (!visitor.established || !client.established) {
        return StreamReason::not_established;
    }
    if (visitor.unsupported_options || client.unsupported_options) {
        return StreamReason::options_unsupported;
    }
    if (too_small(peer_window_bytes(*handoff.legs[visitor_leg], visitor), visitor, client) ||
        too_small(peer_window_bytes(*handoff.legs[client_leg], client), client, visitor)) {
        return StreamReason::window_small;
    }
    // `splice` is the operator's word: selective acknowledgements are then stripped on both legs,
    // and long paths are spliced.
    if (context_.tunnels.limits(handoff.request.tunnel_index).path_policy ==
        abi::PathPolicy::automatic) {
        if (visitor.sack != client.sack) {
            return StreamReason::sack_differs;
        }
        if (long_path(visitor.round_trip_us, client.round_trip_us)) {
            return StreamReason::long_path;
        }
    }
    return std::nullopt;
}

// ---- INSTALL and REPLAY

std::optional<LegState> Handoffs::leg_state(const Handoff& handoff, std::size_t index) const {
    const Leg& leg = *handoff.legs[index];
    const SocketSnapshot& snapshot = handoff.snapshots[index];
    const auto adjacency =
        context_.table.adjacency(std::span(leg.adjacency.header).first(leg.adjacency.header_bytes),
                                 leg.adjacency.port_index);
    if (!adjacency) {
        return std::nullopt;
    }
    return LegState{
        .key = leg.key,
        .adjacency = *adjacency,
        .snd_nxt = snapshot.snd_nxt,
        .rcv_nxt = snapshot.rcv_nxt,
        .peer_window_bytes = peer_window_bytes(leg, snapshot),
        .peer_mss = snapshot.peer_mss,
        .peer_window_scale = snapshot.peer_window_scale,
        .own_window_scale = snapshot.own_window_scale,
        .window_scaling = snapshot.window_scaling,
        .timestamps = snapshot.timestamps,
        .sack = snapshot.sack,
        .own_timestamp = own_timestamp(leg, snapshot),
        .peer_timestamp = oldest_timestamp(leg, snapshot),
    };
}

// How long the client's first acknowledgement is still held back (trap 3): so long that its round
// trip looks like that of the whole way, but not so long that its timer runs out.
base::Nanoseconds Handoffs::acknowledgement_hold_ns(const Handoff& handoff) const {
    const Leg& client = *handoff.legs[client_leg];
    const std::uint32_t round_trip_us = handoff.snapshots[visitor_leg].round_trip_us;
    const std::uint32_t held_back = handoff.snapshots[client_leg].rcv_nxt - client.own_acknowledged;
    const base::Nanoseconds last = client.accept_seen_at + Legs::max_acknowledgement_hold_ns;
    if (client.acknowledgement_hold != Leg::AcknowledgementHold::active ||
        round_trip_us <= context_.options.short_rtt_us || held_back == 0 ||
        held_back > std::numeric_limits<std::uint16_t>::max() || last <= context_.now) {
        return 0;
    }
    return std::min(round_trip_us * base::microsecond_ns, last - context_.now);
}

// All that the kernel has taken, acknowledged, with the other peer's window.
SegmentFields Handoffs::window_update(const Handoff& handoff, std::size_t index) const {
    const Leg& leg = *handoff.legs[index];
    const SocketSnapshot& snapshot = handoff.snapshots[index];
    const std::uint32_t bytes =
        peer_window_bytes(*handoff.legs[other(index)], handoff.snapshots[other(index)]);
    const std::uint32_t window = bytes >> snapshot.own_window_scale;
    SegmentFields fields{.sequence = snapshot.snd_nxt,
                         .acknowledgement = snapshot.rcv_nxt,
                         .window = static_cast<std::uint16_t>(std::min(window, 0xffffU)),
                         .timestamps = std::nullopt};
    if (snapshot.timestamps) {
        fields.timestamps =
            SegmentTimestamps{.value = own_timestamp(leg, snapshot), .echo = leg.peer_timestamp};
    }
    return fields;
}

void Handoffs::send_acknowledgement(const Handoff& handoff, std::size_t index,
                                    const SegmentFields& fields) {
    const Leg& leg = *handoff.legs[index];
    std::array<std::byte, max_built_segment_bytes> out;
    const std::size_t length = build_acknowledgement(out, leg.adjacency, leg.key, fields);
    (void)context_.host.to_wire(leg.adjacency.port_index, std::span(out).first(length));
}

void Handoffs::replay_leg(const Handoff& handoff, std::size_t index) {
    const Leg& leg = *handoff.legs[index];
    const auto replay = [&](const HeldFrame& frame) {
        (void)context_.host.replay(frame.worker_index, leg.port_index, frame.bytes);
        context_.counters.add(SlowCounter::handoff_replayed_frames_total);
    };
    for (const HeldFrame& frame : leg.recent) {
        if (may_be_replayed(frame, handoff.snapshots[index])) {
            replay(frame);
        }
    }
    std::ranges::for_each(leg.held, replay);
}

}  // namespace bore::packet
