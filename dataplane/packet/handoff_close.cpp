// A hand-off that is ended by command: both peers are reset, and the pair is reported.
#include <algorithm>

#include "dataplane/packet/handoff.hpp"

namespace bore::packet {

// Both peers get resets that they accept: with the number that the kernel would send next, and, for
// a peer that has not got everything yet, with the one that it acknowledged last.
bool Handoffs::close(std::uint32_t pair_slot, std::uint32_t generation) {
    if (pair_slot >= by_slot_.size() || by_slot_[pair_slot] == nullptr ||
        by_slot_[pair_slot]->generation != generation) {
        return false;
    }
    Handoff& handoff = *by_slot_[pair_slot];
    for (const std::size_t source : leg_indices) {  // what the resets will make the kernel forget
        const std::uint64_t lost = context_.host.unacknowledged_bytes(handoff.socket(1 - source));
        handoff.drained_bytes[source] -= std::min(handoff.drained_bytes[source], lost);
    }
    reset_peers(handoff);
    context_.counters.add(SlowCounter::flows_ended_closed_total);
    context_.host.ended({
        .handle = {.slot_index = pair_slot, .generation = generation},
        .tag = handoff.request.tag,
        .tunnel_index = handoff.request.tunnel_index,
        .reason = abi::EndReason::closed,
        .error_number = 0,
        .to_client_bytes = handoff.drained_bytes[visitor_leg],
        .to_visitor_bytes = handoff.drained_bytes[client_leg],
        .spliced_bytes = 0,
        .duration_ns = context_.now - handoff.opened_at,
    });
    for (const std::size_t leg : leg_indices) {
        if (handoff.legs[leg] != nullptr) {
            legs_.forget(*handoff.legs[leg]);
        }
    }
    finish(handoff);
    return true;
}

void Handoffs::reset_peers(Handoff& handoff) {
    for (const std::size_t index : leg_indices) {
        const int socket = handoff.socket(index);
        const Leg* leg = handoff.legs[index];
        const auto snapshot = context_.host.snapshot(socket, std::nullopt);
        if (snapshot && leg != nullptr) {
            send_reset(*leg, snapshot->snd_nxt, snapshot->rcv_nxt);
            if (leg->window_acknowledgement != snapshot->snd_nxt) {
                send_reset(*leg, leg->window_acknowledgement, snapshot->rcv_nxt);
            }
        }
        context_.host.close_silently(socket);
    }
    context_.host.close_now();  // stragglers on these tuples go to the kernel, and are reset there
}

void Handoffs::send_reset(const Leg& leg, std::uint32_t sequence, std::uint32_t acknowledgement) {
    std::array<std::byte, max_built_segment_bytes> out;
    const SegmentFields fields{.sequence = sequence,
                               .acknowledgement = acknowledgement,
                               .window = 0,
                               .timestamps = std::nullopt};
    const std::size_t length = build_reset(out, leg.adjacency, leg.key, fields);
    (void)context_.host.to_wire(leg.adjacency.port_index, std::span(out).first(length));
}

}  // namespace bore::packet
