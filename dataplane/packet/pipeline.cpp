#include "dataplane/packet/pipeline.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "dataplane/base/check.hpp"
#include "dataplane/packet/express.hpp"
#include "dataplane/packet/shaper.hpp"
#include "dataplane/packet/split.hpp"

namespace bore::packet {

namespace {

FlowTable::Key4 key4_of(const TcpView& view, const std::byte* frame) {
    return {.source = word32(frame + view.ip_offset + 12),
            .destination = word32(frame + view.ip_offset + 16),
            .ports = word32(frame + view.tcp_offset)};
}

FlowTable::Key6 key6_of(const TcpView& view, const std::byte* frame) {
    return {.addresses = frame + view.ip_offset + 8, .ports = word32(frame + view.tcp_offset)};
}

Passage passage_of(const FlowTable& table, DirectionIndex direction) {
    const FlowIndex flow = flow_of(direction);
    DirectionEntry& entry = table.direction(direction);
    return {.entry = entry,
            .adjacency = table.adjacency_at(entry.adjacency.load(std::memory_order_acquire)),
            .other = table.direction(direction ^ 1U),
            .cold = table.cold(flow),
            .addresses = table.addresses(flow),
            .in = leg_of(direction)};
}

}  // namespace

Pipeline::Pipeline(std::uint32_t worker_index, FlowTable& table,
                   abi::PacketWorkerCounters& counters, std::span<abi::TunnelCounters> tunnel_rows,
                   Outlet& outlet)
    : worker_index_(worker_index),
      table_(table),
      counters_(counters),
      tunnel_rows_(tunnel_rows),
      outlet_(outlet) {}

void Pipeline::process(std::span<Frame> frames, base::Nanoseconds now) {
    while (!frames.empty()) {
        const std::size_t count = std::min(frames.size(), max_burst);
        process_burst(frames.first(count), now);
        frames = frames.subspan(count);
    }
}

void Pipeline::process_burst(std::span<Frame> frames, base::Nanoseconds now) {
    const FlowTable::Reader reader = table_.reader();
    const std::uint64_t general = parse_all(frames, reader);
    find_candidates(frames.size(), reader);
    prefetch_addresses(general);
    Burst burst{.frames = frames, .now = now, .moment = Moment(now), .general = general};
    translate_all(burst);
    flush_send(burst);
    if (burst.divert_count != 0) {
        outlet_.divert(std::span(divert_).first(burst.divert_count));
    }
    if (burst.drop_count != 0) {
        outlet_.drop(std::span(drop_).first(burst.drop_count));
    }
    flush_delivered(burst.delivery);
    count(burst);
}

std::uint64_t Pipeline::parse_all(std::span<const Frame> frames, const FlowTable::Reader& reader) {
    std::uint64_t general = 0;
#pragma GCC unroll 2
    for (std::size_t index = 0; index < frames.size(); ++index) {
        const Frame& frame = frames[index];
        if (frame.checksum == ReceivedChecksum::bad || !express::recognize(frame)) [[unlikely]] {
            general |= std::uint64_t{1} << index;
            parse_general(frame, index, reader);
            continue;
        }
        const std::uint32_t hash = reader.hash4(express::key_of(frame.data));
        hashes_[index] = hash;
        buckets_[index] = reader.prefetch_bucket(hash);
    }
    return general;
}

void Pipeline::parse_general(const Frame& frame, std::size_t index,
                             const FlowTable::Reader& reader) {
    static const FlowBucket nobody{};
    Slot& slot = slots_[index];
    slot.reason = frame.checksum == ReceivedChecksum::bad ? PacketReason::bad_checksum
                                                          : parse_usual(frame.bytes(), slot.view);
    if (slot.reason != PacketReason::spliced) {
        buckets_[index] = &nobody;
        return;
    }
    hashes_[index] = slot.view.v6 ? table_.hash6(key6_of(slot.view, frame.data))
                                  : table_.hash4(key4_of(slot.view, frame.data));
    buckets_[index] = reader.prefetch_bucket(hashes_[index]);
}

void Pipeline::find_candidates(std::size_t frame_count, const FlowTable::Reader& reader) {
#pragma GCC unroll 2
    for (std::size_t index = 0; index < frame_count; ++index) {
        directions_[index] = reader.candidate(*buckets_[index], hashes_[index]);
    }
}

// Those of IPv6 are not in the entry.
void Pipeline::prefetch_addresses(std::uint64_t general) const {
    for (; general != 0; general &= general - 1) {
        const auto index = static_cast<std::size_t>(std::countr_zero(general));
        if (slots_[index].view.v6 && directions_[index] != FlowTable::no_direction) {
            __builtin_prefetch(&table_.addresses(flow_of(directions_[index])));
        }
    }
}

// What does not go the shortest way, and what that refused.
PacketReason Pipeline::confirm(const Burst& burst, std::size_t index) {
    const Frame& frame = burst.frames[index];
    Slot& slot = slots_[index];
    if ((burst.general >> index & 1U) == 0) {
        slot.reason = parse_usual(frame.bytes(), slot.view);
    }
    if (slot.reason != PacketReason::spliced) {
        return slot.reason;
    }
    slot.direction =
        slot.view.v6
            ? table_.confirm6(key6_of(slot.view, frame.data), hashes_[index], directions_[index])
            : table_.confirm4(key4_of(slot.view, frame.data), hashes_[index], directions_[index]);
    return slot.direction == FlowTable::no_direction ? PacketReason::no_flow
                                                     : PacketReason::spliced;
}

void Pipeline::translate_all(Burst& burst) {
    const std::size_t frame_count = burst.frames.size();
    for (std::size_t index = 0; index < frame_count;) {
        // What is ready lies in front; frames move up once something else was between them.
        index = index == burst.send_count ? pass_run<false>(burst, index)
                                          : pass_run<true>(burst, index);
        if (index < frame_count) {
            translate_general(burst, index++);
        }
    }
}

// Frames from `first` on, as long as they go the shortest way; returns the first that does not.
template <bool moves>
std::size_t Pipeline::pass_run(Burst& burst, std::size_t first) {
    // In local variables: the bytes of a frame might be anything else's as far as the compiler
    // knows, and it would load these again after each store.
    DirectionEntry* const entries = &table_.direction(0);
    const Adjacency* const adjacencies = &table_.adjacency_at(0);
    Frame* const frames = burst.frames.data();
    const DirectionIndex* const directions = directions_.data();
    const std::uint32_t tick = burst.moment.tick;
    const std::size_t end =
        std::min(burst.frames.size(),
                 first + static_cast<std::size_t>(std::countr_zero(burst.general >> first)));
    Delivery delivery = burst.delivery;
    std::size_t send_count = burst.send_count;
    std::size_t index = first;
    for (; index < end; ++index) {
        Frame& frame = frames[index];
        const DirectionIndex direction = directions[index];
        if (direction == FlowTable::no_direction) [[unlikely]] {
            break;
        }
        std::uint32_t bytes = 0;
        if (!express::pass(frame, entries, direction, adjacencies, tick, bytes)) [[unlikely]] {
            std::uint32_t others = 0;  // not `bytes`, which stays in its register
            if (!express::pass_leaving(frame, entries, direction, adjacencies, tick, others)) {
                break;
            }
            bytes = others;
        }
        if (bytes != 0) {
            deliver(delivery, place_of(entries[direction].tunnel_index, direction), bytes);
        }
        if constexpr (moves) {
            frames[send_count++] = frame;
        }
    }
    burst.delivery = delivery;
    burst.send_count = moves ? send_count : index;
    burst.spliced_count += static_cast<std::uint32_t>(index - first);
    return index;
}

void Pipeline::translate_general(Burst& burst, std::size_t index) {
    Frame& frame = burst.frames[index];
    const PacketReason reason = confirm(burst, index);
    if (reason != PacketReason::spliced) {
        divert_or_drop(burst, frame, reason);
        return;
    }
    const Slot& slot = slots_[index];
    const Passage passage = passage_of(table_, slot.direction);
    Outcome outcome;
    const bool usual =
        slot.view.v6
            ? translate_usual<true>(frame, slot.view, passage, burst.moment, burst.tally, outcome)
            : translate_usual<false>(frame, slot.view, passage, burst.moment, burst.tally, outcome);
    if (!usual) {
        translate_rest(burst, index);
        return;
    }
    if (outcome.delivered_bytes != 0) {
        deliver(burst.delivery, place_of(passage.entry.tunnel_index, slot.direction),
                outcome.delivered_bytes);
        tell_first_byte(burst, slot.direction);
    }
    if ((passage.entry.state.load(std::memory_order_relaxed) & state_limited) != 0) {
        emit_limited(burst, frame, slot, outcome.payload_bytes);
        return;
    }
    if (burst.send_count != index) {
        burst.frames[burst.send_count] = frame;
    }
    ++burst.send_count;
    ++burst.spliced_count;
}

void Pipeline::translate_rest(Burst& burst, std::size_t index) {
    Slot& slot = slots_[index];
    Frame& frame = burst.frames[index];
    Outcome outcome;
    const PacketReason reason = translate_unusual(
        frame, slot.view, passage_of(table_, slot.direction), burst.moment, burst.tally, outcome);
    if (reason != PacketReason::spliced) {
        divert_or_drop(burst, frame, reason);
        return;
    }
    if (outcome.delivered_bytes != 0) {
        const std::uint16_t tunnel_index = table_.direction(slot.direction).tunnel_index;
        deliver(burst.delivery, place_of(tunnel_index, slot.direction), outcome.delivered_bytes);
        tell_first_byte(burst, slot.direction);
    }
    if (outcome.flow_event) {
        const FlowIndex flow = flow_of(slot.direction);
        outlet_.flow_event({.flow = flow,
                            .generation = table_.cold(flow).generation,
                            .kind = FlowEvent::Kind::end,
                            .at = burst.now});
    }
    if (outcome.split_bytes != 0) {
        emit_split(burst, frame, slot, outcome);
    } else {
        emit_limited(burst, frame, slot, outcome.payload_bytes);
    }
}

void Pipeline::divert_or_drop(Burst& burst, const Frame& frame, PacketReason reason) {
    counters_.add(abi::counter_of(reason));
    if (abi::goes_to_kernel(reason)) {
        divert_[burst.divert_count++] = frame;
    } else {
        drop_[burst.drop_count++] = frame;
    }
}

// Segments with payload, FIN or RST of a limited direction keep their order behind those that
// wait; bare acknowledgements belong to the other direction's rate. A reset is not sent again, so
// it is never dropped for the rate.
PacketReason Pipeline::admit(const Burst& burst, const Frame& frame, const Slot& slot,
                             std::uint32_t payload_bytes) {
    const DirectionEntry& entry = table_.direction(slot.direction);
    const bool takes_its_turn = payload_bytes != 0 || (slot.view.flags & (tcp_fin | tcp_rst)) != 0;
    if (shaper_ == nullptr || (entry.state.load(std::memory_order_relaxed) & state_limited) == 0 ||
        !takes_its_turn) {
        return PacketReason::spliced;
    }
    switch (shaper_->admit(frame, entry.tunnel_index, leg_of(slot.direction), payload_bytes,
                           burst.now)) {
        case Shaper::Admit::send:
            return PacketReason::spliced;
        case Shaper::Admit::held:
            return PacketReason::held;
        case Shaper::Admit::drop:
            break;
    }
    return (slot.view.flags & tcp_rst) != 0 ? PacketReason::spliced : PacketReason::rate_limited;
}

void Pipeline::emit_limited(Burst& burst, const Frame& frame, const Slot& slot,
                            std::uint32_t payload_bytes) {
    const PacketReason reason = admit(burst, frame, slot, payload_bytes);
    if (reason == PacketReason::spliced) {
        burst.frames[burst.send_count++] = frame;
        ++burst.spliced_count;
    } else if (reason == PacketReason::held) {
        counters_.add(abi::counter_of(reason));
    } else {
        divert_or_drop(burst, frame, reason);
    }
}

void Pipeline::emit_split(Burst& burst, const Frame& frame, const Slot& slot,
                          const Outcome& outcome) {
    std::array<Frame, max_pieces> pieces;
    const auto piece_count = split(frame, outcome.split_bytes, outlet_, pieces);
    if (!piece_count.has_value()) {
        divert_or_drop(burst, frame, piece_count.error());
        return;
    }
    counters_.add(abi::PacketWorkerCounter::packets_split_total);
    ++burst.spliced_count;
    flush_send(burst);  // what came before goes first
    std::size_t ready = 0;
    for (std::size_t index = 0; index < *piece_count; ++index) {
        const auto offset = static_cast<std::uint32_t>(index * outcome.split_bytes);
        const std::uint32_t payload_bytes =
            std::min<std::uint32_t>(outcome.payload_bytes - offset, outcome.split_bytes);
        const PacketReason reason = admit(burst, pieces[index], slot, payload_bytes);
        if (reason == PacketReason::spliced) {
            pieces[ready++] = pieces[index];
            continue;
        }
        counters_.add(abi::counter_of(reason));
        if (reason != PacketReason::held) {
            outlet_.drop(std::span(pieces).subspan(index, 1));
        }
    }
    for (std::size_t sent = 0; sent < ready; sent += max_burst) {
        outlet_.send(std::span(pieces).subspan(sent, std::min(ready - sent, max_burst)));
    }
}

void Pipeline::flush_send(Burst& burst) {
    if (burst.send_count != 0) {
        outlet_.send(burst.frames.first(burst.send_count));
        burst.send_count = 0;
    }
}

inline void Pipeline::deliver(Delivery& delivery, std::uint32_t place, std::uint32_t bytes) {
    if (place != delivery.place) [[unlikely]] {
        flush_delivered(delivery);
        delivery = {.place = place};
    }
    delivery.bytes += bytes;
}

// Until its first byte a flow stays off the shortest way, so that only the others ask.
void Pipeline::tell_first_byte(const Burst& burst, DirectionIndex direction) {
    if ((table_.direction(direction).state.load(std::memory_order_relaxed) & state_first) == 0) {
        return;
    }
    for (const DirectionIndex each : {direction, direction ^ 1U}) {
        table_.direction(each).state.fetch_and(static_cast<std::uint8_t>(~state_first),
                                               std::memory_order_relaxed);
    }
    const FlowIndex flow = flow_of(direction);
    outlet_.flow_event({.flow = flow,
                        .generation = table_.cold(flow).generation,
                        .kind = FlowEvent::Kind::first_byte,
                        .at = burst.now});
}

void Pipeline::flush_delivered(const Delivery& delivery) {
    if (delivery.bytes == 0) {
        return;
    }
    const std::uint32_t tunnel_index = delivery.place >> 1U;
    BORE_CHECK(tunnel_index < tunnel_rows_.size(), "a flow of no tunnel");
    // What the client acknowledges was delivered to it.
    const auto leg = static_cast<abi::Leg>(delivery.place & 1U);
    tunnel_rows_[tunnel_index].add(leg == abi::Leg::client
                                       ? abi::TunnelCounter::to_client_bytes_total
                                       : abi::TunnelCounter::to_visitor_bytes_total,
                                   delivery.bytes);
}

void Pipeline::count(const Burst& burst) {
    using Counter = abi::PacketWorkerCounter;
    const auto add = [this](Counter counter, std::uint64_t amount) {
        if (amount != 0) {
            counters_.add(counter, amount);
        }
    };
    const Tally& tally = burst.tally;
    add(Counter::packets_received_total, burst.frames.size());
    add(Counter::packet_spliced_total, burst.spliced_count);
    add(Counter::packets_trimmed_total, tally.trimmed);
    add(Counter::timestamps_inserted_total, tally.timestamps_inserted);
    add(Counter::timestamps_removed_total, tally.timestamps_removed);
    add(Counter::windows_clamped_total, tally.windows_clamped);
    add(Counter::retransmitted_packets_total, tally.retransmitted_packets);
    add(Counter::retransmitted_bytes_total, tally.retransmitted_bytes);
}

}  // namespace bore::packet
