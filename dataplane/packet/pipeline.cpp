#include "dataplane/packet/pipeline.hpp"

#include <algorithm>
#include <array>

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
    parse_all(frames);
    find_candidates(frames.size());
    Burst burst{.frames = frames, .now = now, .moment = Moment(now)};
    translate_all(burst);
    flush_send(burst);
    if (burst.divert_count != 0) {
        outlet_.divert(std::span(divert_).first(burst.divert_count));
    }
    if (burst.drop_count != 0) {
        outlet_.drop(std::span(drop_).first(burst.drop_count));
    }
    flush_delivered(burst);
    count(burst);
}

void Pipeline::parse_all(std::span<const Frame> frames) {
    for (std::size_t index = 0; index < frames.size(); ++index) {
        const Frame& frame = frames[index];
        const express::Shape shape = express::recognize(frame);
        if (frame.checksum == ReceivedChecksum::bad || shape == express::Shape::other)
            [[unlikely]] {
            parse_general(frame, index);
            continue;
        }
        ways_[index] = shape == express::Shape::plain ? Way::plain : Way::stamped;
        hashes_[index] = table_.hash4(express::key_of(frame.data));
        table_.prefetch_bucket(hashes_[index]);
    }
}

void Pipeline::parse_general(const Frame& frame, std::size_t index) {
    Slot& slot = slots_[index];
    slot.reason = frame.checksum == ReceivedChecksum::bad ? PacketReason::bad_checksum
                                                          : parse_usual(frame.bytes(), slot.view);
    ways_[index] = Way::refused;
    if (slot.reason == PacketReason::spliced) {
        ways_[index] = slot.view.v6 ? Way::general6 : Way::general4;
        hashes_[index] = slot.view.v6 ? table_.hash6(key6_of(slot.view, frame.data))
                                      : table_.hash4(key4_of(slot.view, frame.data));
        table_.prefetch_bucket(hashes_[index]);
    }
}

void Pipeline::find_candidates(std::size_t frame_count) {
    for (std::size_t index = 0; index < frame_count; ++index) {
        const Way way = ways_[index];
        if (way <= Way::general4) [[likely]] {
            directions_[index] = table_.candidate4(hashes_[index]);
        } else if (way == Way::general6) {
            directions_[index] = table_.candidate6(hashes_[index]);
        }
    }
}

// What does not go the shortest way, and what that refused.
PacketReason Pipeline::confirm(const Frame& frame, std::size_t index) {
    Slot& slot = slots_[index];
    if (ways_[index] == Way::refused) {
        return slot.reason;
    }
    if (goes_express(ways_[index])) {
        view_usual(frame.bytes(), slot.view);
    }
    slot.direction =
        slot.view.v6
            ? table_.confirm6(key6_of(slot.view, frame.data), hashes_[index], directions_[index])
            : table_.confirm4(key4_of(slot.view, frame.data), hashes_[index], directions_[index]);
    return slot.direction == FlowTable::no_direction ? PacketReason::no_flow
                                                     : PacketReason::spliced;
}

void Pipeline::translate_all(Burst& burst) {
    // In local variables: the bytes of a frame might be anything else's as far as the compiler
    // knows, and it would load these again after each store.
    DirectionEntry* const entries = &table_.direction(0);
    const Adjacency* const adjacencies = &table_.adjacency_at(0);
    const std::span<Frame> frames = burst.frames;
    const std::uint16_t tick = burst.moment.tick;
    for (std::size_t index = 0; index < frames.size(); ++index) {
        Frame& frame = frames[index];
        const DirectionIndex direction = directions_[index];
        const Way way = ways_[index];
        std::uint32_t delivered_bytes = express::refused;
        if (goes_express(way) && direction != FlowTable::no_direction) [[likely]] {
            DirectionEntry& entry = entries[direction];
            delivered_bytes = way == Way::plain
                                  ? express::pass<false>(frame, entry, adjacencies, tick)
                                  : express::pass<true>(frame, entry, adjacencies, tick);
        }
        if (delivered_bytes == express::refused) [[unlikely]] {
            translate_general(burst, index);
            continue;
        }
        if (burst.send_count != index) [[unlikely]] {
            frames[burst.send_count] = frame;
        }
        ++burst.send_count;
        ++burst.spliced_count;
        if (delivered_bytes != 0) {
            deliver(burst, direction, delivered_bytes);
        }
    }
}

void Pipeline::translate_general(Burst& burst, std::size_t index) {
    Frame& frame = burst.frames[index];
    const PacketReason reason = confirm(frame, index);
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
        deliver(burst, slot.direction, outcome.delivered_bytes);
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
        deliver(burst, slot.direction, outcome.delivered_bytes);
    }
    if (outcome.flow_event) {
        const FlowIndex flow = flow_of(slot.direction);
        outlet_.flow_ended({.flow = flow, .generation = table_.cold(flow).generation});
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

void Pipeline::deliver(Burst& burst, DirectionIndex direction, std::uint32_t bytes) {
    const std::uint16_t tunnel = table_.direction(direction).tunnel_index;
    // What the client acknowledges was delivered to it.
    const abi::TunnelCounter counter = leg_of(direction) == abi::Leg::client
                                           ? abi::TunnelCounter::to_client_bytes_total
                                           : abi::TunnelCounter::to_visitor_bytes_total;
    if (tunnel != burst.delivered_tunnel || counter != burst.delivered_counter) {
        flush_delivered(burst);
        burst.delivered_tunnel = tunnel;
        burst.delivered_counter = counter;
    }
    burst.delivered_bytes += bytes;
}

void Pipeline::flush_delivered(Burst& burst) {
    if (burst.delivered_bytes != 0) {
        BORE_CHECK(burst.delivered_tunnel < tunnel_rows_.size(), "a flow of no tunnel");
        tunnel_rows_[burst.delivered_tunnel].add(burst.delivered_counter, burst.delivered_bytes);
        burst.delivered_bytes = 0;
    }
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
