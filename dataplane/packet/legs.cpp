// The store of followed connections: three lists by last use (eviction takes the front of the
// cheapest), copies with bounds, one timer per leg.
#include "dataplane/packet/legs.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dataplane/base/check.hpp"

namespace bore::packet {

namespace {

constexpr base::Nanoseconds never = ~base::Nanoseconds{0};

std::uint64_t mix(std::uint64_t value) {
    value ^= value >> 32U;
    value *= 0xd6e8'feb8'6659'fd93;
    value ^= value >> 32U;
    value *= 0xd6e8'feb8'6659'fd93;
    return value ^ (value >> 32U);
}

std::uint64_t word_at(const std::array<std::uint8_t, 16>& address, std::size_t offset) {
    std::uint64_t word;
    std::memcpy(&word, address.data() + offset, sizeof word);
    return word;
}

std::uint32_t end_of(const TcpView& view) {
    return view.sequence + view.sequence_bytes();
}

HeldFrame copy_of(std::span<const std::byte> frame, const TcpView& view,
                  std::uint32_t worker_index) {
    HeldFrame copy;
    const auto packet = frame.first(view.end_offset());  // without padding
    copy.bytes.assign(packet.begin(), packet.end());
    copy.sequence = view.sequence;
    copy.end_sequence = end_of(view);
    copy.worker_index = worker_index;
    if (view.timestamp_offset != 0) {
        copy.timestamped = true;
        copy.timestamp = load32(frame.data() + view.timestamp_offset);
    }
    return copy;
}

std::size_t cost_of(const HeldFrame& frame) {
    return frame.bytes.size() + Legs::held_frame_overhead_bytes;
}

// Everything that the segment says is in `frame` already.
bool covers(const HeldFrame& frame, std::uint32_t sequence, std::uint32_t end_sequence) {
    return !sequence_after(frame.sequence, sequence) &&
           !sequence_before(frame.end_sequence, end_sequence);
}

}  // namespace

std::size_t Legs::Hash::operator()(const FlowKey& flow_key) const {
    std::uint64_t value = mix(key ^ word_at(flow_key.peer_address, 0));
    value = mix(value ^ word_at(flow_key.peer_address, 8));
    value = mix(value ^ word_at(flow_key.own_address, 8) ^ word_at(flow_key.own_address, 0));
    return mix(value ^ (std::uint64_t{flow_key.peer_port} << 16U) ^ flow_key.own_port);
}

Legs::Legs(SlowPathContext& context)
    // Where the loader put this object is as random as a seed needs to be.
    : context_(context), by_key_(16, Hash{mix(reinterpret_cast<std::uintptr_t>(this))}) {}

Legs::~Legs() = default;

// ---- Life

Leg* Legs::find(const FlowKey& key) {
    const auto found = by_key_.find(key);
    return found == by_key_.end() ? nullptr : found->second;
}

Leg* Legs::track(const FlowKey& key, bool always) {
    BORE_CHECK(!by_key_.contains(key), "a leg is tracked twice");
    if (by_key_.size() >= context_.options.max_legs && !evict_one() && !always) {
        return nullptr;
    }
    Leg* leg = nullptr;
    if (free_.empty()) {
        leg = &slots_.emplace_back();
        leg->index = static_cast<std::uint32_t>(slots_.size() - 1);
        leg->kind = SlowTimer::Kind::leg;
    } else {
        leg = free_.back();
        free_.pop_back();
    }
    leg->key = key;
    leg->last_seen = context_.now;
    by_key_.emplace(key, leg);
    enlist(*leg, Leg::List::unanswered);
    context_.counters.set(SlowCounter::legs_tracked, by_key_.size());
    return leg;
}

void Legs::forget(Leg& leg) {
    drop_held(leg);
    drop_recent(leg);
    delist(leg);
    context_.wheel.cancel(leg);
    by_key_.erase(leg.key);
    if (leg.pair_slot != no_pair) {
        const auto pair = pinned_.find(leg.pair_slot);
        std::ranges::replace(pair->second, &leg, nullptr);
        if (pair->second[0] == nullptr && pair->second[1] == nullptr) {
            pinned_.erase(pair);
        }
    }
    const std::uint32_t index = leg.index;
    std::destroy_at(&leg);
    Leg* fresh = std::construct_at(&leg);
    fresh->index = index;
    free_.push_back(fresh);
    context_.counters.set(SlowCounter::legs_tracked, by_key_.size());
}

void Legs::touch(Leg& leg) {
    leg.last_seen = context_.now;
    const Leg::List list = home_list(leg);
    if (list != leg.list || newest(list) != &leg) {
        delist(leg);
        enlist(leg, list);
    }
}

void Legs::end(Leg& leg) {
    leg.ended = true;
    touch(leg);
}

Leg::List Legs::home_list(const Leg& leg) {
    if (leg.handoff != nullptr || leg.pair_slot != no_pair) {
        return Leg::List::none;  // never evicted
    }
    if (leg.ended) {
        return Leg::List::ended;
    }
    return leg.answered ? Leg::List::answered : Leg::List::unanswered;
}

void Legs::enlist(Leg& leg, Leg::List list) {
    leg.list = list;
    if (list == Leg::List::none) {
        return;
    }
    leg.older = newest(list);
    leg.newer = nullptr;
    (leg.older != nullptr ? leg.older->newer : oldest(list)) = &leg;
    newest(list) = &leg;
}

void Legs::delist(Leg& leg) {
    if (leg.list != Leg::List::none) {
        (leg.older != nullptr ? leg.older->newer : oldest(leg.list)) = leg.newer;
        (leg.newer != nullptr ? leg.newer->older : newest(leg.list)) = leg.older;
    }
    leg.list = Leg::List::none;
    leg.older = leg.newer = nullptr;
}

bool Legs::evict_one() {
    // Ended ones first; then those on which the kernel never said a word, for that is what a
    // flood of made-up segments leaves behind.
    for (const Leg::List list : {Leg::List::ended, Leg::List::unanswered, Leg::List::answered}) {
        if (oldest(list) != nullptr) {
            Leg& leg = *oldest(list);
            release(leg);
            end_acknowledgement_hold(leg);
            forget(leg);
            context_.counters.add(SlowCounter::legs_evicted_total);
            return true;
        }
    }
    return false;
}

base::Nanoseconds Legs::limit_of(Leg::List list) const {
    return list == Leg::List::ended ? context_.options.linger_ns : idle_limit_ns;
}

void Legs::sweep() {
    for (const Leg::List list : {Leg::List::ended, Leg::List::unanswered, Leg::List::answered}) {
        while (oldest(list) != nullptr &&
               oldest(list)->last_seen + limit_of(list) <= context_.now) {
            Leg& leg = *oldest(list);
            release(leg);
            forget(leg);
        }
    }
}

base::Nanoseconds Legs::next_sweep() const {
    base::Nanoseconds due = never;
    for (const Leg::List list : {Leg::List::ended, Leg::List::unanswered, Leg::List::answered}) {
        const Leg* leg = oldest_[static_cast<std::size_t>(list)];
        if (leg != nullptr) {
            due = std::min(due, leg->last_seen + limit_of(list));
        }
    }
    return due;
}

// ---- Held frames

void Legs::start_hold(Leg& leg) {
    leg.phase = LegPhase::hold;
    leg.hold_until = context_.now + context_.options.hold_deadline_ns;
    arm(leg);
}

bool Legs::hold(Leg& leg, std::span<const std::byte> frame, const TcpView& view,
                std::uint32_t worker_index) {
    const std::uint32_t end_sequence = end_of(view);
    if (end_sequence != view.sequence) {
        for (const HeldFrame& held : leg.held) {
            if (held.sequence != held.end_sequence && covers(held, view.sequence, end_sequence)) {
                return true;
            }
        }
    }
    // Beyond any window that the kernel has opened: nobody's segment, and lost like one.
    if (sequence_after(end_sequence, leg.own_acknowledged + max_ahead_bytes)) {
        context_.counters.add(SlowCounter::held_dropped_total);
        return true;
    }
    const std::size_t cost = view.end_offset() + held_frame_overhead_bytes;
    if (leg.held.size() >= max_held_frames_per_leg ||
        leg.held_bytes + cost > context_.options.max_held_bytes_per_leg ||
        total_held_bytes_ + cost > context_.options.max_held_bytes) {
        context_.counters.add(SlowCounter::held_dropped_total);
        return false;
    }
    leg.held.push_back(copy_of(frame, view, worker_index));
    leg.held_bytes += cost;
    total_held_bytes_ += cost;
    context_.counters.add(SlowCounter::held_frames);
    context_.counters.add(SlowCounter::held_bytes, leg.held.back().bytes.size());
    return true;
}

// They are on their way to the kernel then, like any other payload.
void Legs::release(Leg& leg) {
    leg.phase = LegPhase::pass;
    leg.hold_until = 0;
    for (HeldFrame& frame : take_held(leg)) {
        context_.to_kernel(leg.port_index, frame.bytes);
        keep_copy(leg, std::move(frame));
    }
}

void Legs::drop_held(Leg& leg) {
    (void)take_held(leg);
}

std::vector<HeldFrame> Legs::take_held(Leg& leg) {
    for (const HeldFrame& frame : leg.held) {
        context_.counters.subtract(SlowCounter::held_bytes, frame.bytes.size());
    }
    context_.counters.subtract(SlowCounter::held_frames, leg.held.size());
    total_held_bytes_ -= leg.held_bytes;
    leg.held_bytes = 0;
    return std::exchange(leg.held, {});
}

// ---- Copies of what the kernel has not acknowledged

void Legs::remember(Leg& leg, std::span<const std::byte> frame, const TcpView& view,
                    std::uint32_t worker_index) {
    keep_copy(leg, copy_of(frame, view, worker_index));
}

void Legs::keep_copy(Leg& leg, HeldFrame&& copy) {
    forget_recent(leg, [&](const HeldFrame& older) {
        return covers(copy, older.sequence, older.end_sequence);
    });
    const std::size_t cost = cost_of(copy);
    if (leg.recent_bytes + cost > max_recent_bytes_per_leg) {
        // The older half at once, so that a stream of tiny segments does not move the rest each
        // time.
        const HeldFrame* half = leg.recent.data() + leg.recent.size() / 2;
        forget_recent(leg, [half](const HeldFrame& older) { return &older <= half; });
    }
    if (total_recent_bytes_ + cost > context_.options.max_held_bytes) {
        return;  // a lost copy costs a retransmission, should the frame be lost as well
    }
    leg.recent_bytes += cost;
    total_recent_bytes_ += cost;
    leg.recent.push_back(std::move(copy));
}

void Legs::forget_acknowledged(Leg& leg, std::uint32_t acknowledgement) {
    forget_recent(leg, [&](const HeldFrame& frame) {
        return !sequence_after(frame.end_sequence, acknowledgement);
    });
}

void Legs::drop_recent(Leg& leg) {
    forget_recent(leg, [](const HeldFrame&) { return true; });
    std::vector<HeldFrame>().swap(leg.recent);
}

template <typename Which>
void Legs::forget_recent(Leg& leg, const Which& which) {
    std::size_t freed = 0;
    for (const HeldFrame& frame : leg.recent) {
        freed += which(frame) ? cost_of(frame) : 0;
    }
    if (freed == 0) {
        return;
    }
    std::vector<HeldFrame> kept;
    for (HeldFrame& frame : leg.recent) {
        if (!which(frame)) {
            kept.push_back(std::move(frame));
        }
    }
    leg.recent.swap(kept);
    leg.recent_bytes -= freed;
    total_recent_bytes_ -= freed;
}

// ---- The acknowledgement of Accept

void Legs::start_acknowledgement_hold(Leg& leg, std::uint32_t accept_sequence) {
    leg.acknowledgement_hold = Leg::AcknowledgementHold::active;
    leg.accept_sequence = accept_sequence;
    leg.accept_seen_at = context_.now;
    arm(leg);
}

void Legs::end_acknowledgement_hold(Leg& leg) {
    if (leg.acknowledgement_hold != Leg::AcknowledgementHold::active) {
        return;
    }
    leg.acknowledgement_hold = Leg::AcknowledgementHold::over;
    if (!leg.held_acknowledgement.empty()) {
        (void)context_.host.to_wire(leg.port_index, leg.held_acknowledgement);
        context_.counters.add(SlowCounter::frames_from_kernel_total);
        std::vector<std::byte>().swap(leg.held_acknowledgement);
    }
}

// ---- Time

void Legs::arm(Leg& leg) {
    base::Nanoseconds due = never;
    if (leg.hold_until != 0) {
        due = leg.hold_until;
    }
    if (leg.acknowledgement_hold == Leg::AcknowledgementHold::active) {
        due = std::min(due, leg.accept_seen_at + max_acknowledgement_hold_ns);
    }
    if (due != never) {
        context_.arm(leg, due);
    }
}

void Legs::on_timer(std::uint32_t leg_index) {
    Leg& leg = slots_[leg_index];
    if (context_.now >= leg.accept_seen_at + max_acknowledgement_hold_ns) {
        end_acknowledgement_hold(leg);
    }
    // A leg whose hand-off is under way is held by that, which has its own deadline.
    if (leg.hold_until != 0 && context_.now >= leg.hold_until && leg.handoff == nullptr) {
        release(leg);
    }
    if (leg.hold_until != 0 && leg.handoff != nullptr) {
        leg.hold_until = 0;
    }
    arm(leg);
}

// ---- Pairs on the stream engine

void Legs::pin(Leg& leg, std::uint32_t pair_slot) {
    leg.pair_slot = pair_slot;
    auto& legs = pinned_[pair_slot];
    legs[legs[0] == nullptr ? 0 : 1] = &leg;
    drop_recent(leg);
    touch(leg);
}

void Legs::unpin(std::uint32_t pair_slot) {
    const auto pair = pinned_.find(pair_slot);
    if (pair == pinned_.end()) {
        return;
    }
    const std::array<Leg*, 2> legs = pair->second;
    pinned_.erase(pair);
    for (Leg* leg : legs) {
        if (leg != nullptr) {
            leg->pair_slot = no_pair;
            end(*leg);
        }
    }
}

// ---- Next hops

std::size_t Legs::neighbour_index(const FlowKey& key) const {
    return mix(by_key_.hash_function().key ^ word_at(key.peer_address, 0) ^
               mix(word_at(key.peer_address, 8))) %
           neighbour_count;
}

void Legs::learn_neighbour(const FlowKey& key, const Adjacency& adjacency) {
    neighbours_[neighbour_index(key)] = {key.peer_address, adjacency};
}

const Adjacency* Legs::neighbour(const FlowKey& key) const {
    const Neighbour& entry = neighbours_[neighbour_index(key)];
    return entry.adjacency.header_bytes != 0 && entry.peer_address == key.peer_address
               ? &entry.adjacency
               : nullptr;
}

// ---- Origins

void Legs::learn_origin(const FlowKey& key, const SocketOrigin& origin) {
    const std::uint64_t digest = by_key_.hash_function()(key);
    greetings_[digest % greeting_count] = {.key_digest = digest, .origin = origin};
}

void Legs::recall_origin(Leg& leg) const {
    const std::uint64_t digest = by_key_.hash_function()(leg.key);
    const Greeting& greeting = greetings_[digest % greeting_count];
    if (greeting.key_digest == digest &&
        greeting.origin.first_sequence == leg.first_acknowledgement &&
        greeting.origin.first_acknowledgement == leg.window_sequence) {
        leg.origin = greeting.origin;
    }
}

Adjacency adjacency_from(std::span<const std::byte> frame, const TcpView& view,
                         std::uint8_t port_index) {
    Adjacency adjacency;
    adjacency.header_bytes = view.ip_offset;
    adjacency.port_index = port_index;
    std::memcpy(adjacency.header.data(), frame.data(), view.ip_offset);
    return adjacency;
}

Adjacency reverse_adjacency(std::span<const std::byte> frame, const TcpView& view,
                            std::uint8_t port_index) {
    Adjacency adjacency = adjacency_from(frame, view, port_index);
    std::memcpy(adjacency.header.data(), frame.data() + 6, 6);
    std::memcpy(adjacency.header.data() + 6, frame.data(), 6);
    return adjacency;
}

}  // namespace bore::packet
