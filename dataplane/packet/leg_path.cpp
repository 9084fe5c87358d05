// From the wire first, then from the kernel.
#include "dataplane/packet/leg_path.hpp"

#include <algorithm>
#include <optional>
#include <string_view>

#include "dataplane/packet/icmp.hpp"
#include "dataplane/packet/segment.hpp"

namespace bore::packet {

namespace {

// A message has at most 256 bytes (docs of the wire protocol, framing), and at most two stand
// before Accept. What lies further behind is not worth a search.
constexpr std::size_t searched_bytes = 1'024;

bool is_blank(char symbol) {
    return symbol == ' ' || symbol == '\t' || symbol == '\n' || symbol == '\r';
}

bool starts_with_accept(std::string_view message) {
    const auto skip_blanks = [&message] {
        while (!message.empty() && is_blank(message.front())) {
            message.remove_prefix(1);
        }
    };
    for (const std::string_view part : {"{", "\"Accept\"", ":"}) {
        skip_blanks();
        if (!message.starts_with(part)) {
            return false;
        }
        message.remove_prefix(part.size());
    }
    return true;
}

bool is_bare_acknowledgement(const TcpView& view) {
    return view.payload_bytes == 0 &&
           (view.flags & (tcp_syn | tcp_fin | tcp_rst | tcp_ack)) == tcp_ack;
}

bool has(const TcpView& view, std::uint8_t flag) {
    return (view.flags & flag) != 0;
}

std::optional<SegmentTimestamps> timestamps_of(std::span<const std::byte> frame,
                                               const TcpView& view) {
    TcpView with_options = view;
    if (find_options(frame, with_options) != PacketReason::spliced ||
        with_options.timestamp_offset == 0) {
        return std::nullopt;
    }
    const std::byte* at = frame.data() + with_options.timestamp_offset;
    return SegmentTimestamps{.value = load32(at), .echo = load32(at + sizeof(std::uint32_t))};
}

// Any that the kernel gave away: the peer has seen it or never will, and is told none before it.
void learn_own_timestamp(Leg& leg, std::uint32_t value) {
    if (!leg.own_timestamped || sequence_after(value, leg.own_timestamp)) {
        leg.own_timestamped = true;
        leg.own_timestamp = value;
    }
}

}  // namespace

bool contains_accept(std::span<const std::byte> payload) {
    std::string_view text(reinterpret_cast<const char*>(payload.data()),
                          std::min(payload.size(), searched_bytes));
    while (true) {
        if (starts_with_accept(text)) {
            return true;
        }
        const std::size_t end = text.find('\0');
        if (end == std::string_view::npos) {
            return false;
        }
        text.remove_prefix(end + 1);
    }
}

bool LegPath::is_ours(std::uint16_t own_port) const {
    return own_port == context_.options.control_port || context_.tunnels.is_open(own_port);
}

// ---- From the wire

void LegPath::from_wire(std::uint32_t worker_index, std::uint8_t port_index,
                        std::span<const std::byte> frame) {
    Arrival arrival{frame, {}, worker_index, port_index};
    if (parse(frame, arrival.view) != PacketReason::spliced) {
        not_tcp_from_wire(port_index, frame);
        return;
    }
    const FlowKey key = key_of(arrival.view, frame);
    if (has(arrival.view, tcp_syn)) {
        syn_from_wire(arrival, key);
        return;
    }
    if (context_.table.find(key)) {
        // It was on its way here when the flow was installed.
        (void)context_.host.replay(worker_index, port_index, frame);
        return;
    }
    Leg* leg = legs_.find(key);
    if (leg == nullptr) {
        leg = follow(key, arrival);
    }
    if (leg == nullptr) {
        pass(arrival);
    } else {
        arrive(*leg, arrival);
    }
}

void LegPath::not_tcp_from_wire(std::uint8_t port_index, std::span<const std::byte> frame) {
    scratch_.resize(frame.size() + max_icmp_growth_bytes);
    const IcmpResult result = translate_icmp(context_.table, frame, scratch_);
    switch (result.verdict) {
        case IcmpVerdict::translated:
            context_.counters.add(SlowCounter::icmp_translated_total);
            (void)context_.host.to_wire(result.port_index,
                                        std::span(scratch_).first(result.length_bytes));
            return;
        case IcmpVerdict::ignored:
            context_.counters.add(SlowCounter::icmp_ignored_total);
            return;
        case IcmpVerdict::to_kernel:
            context_.to_kernel(port_index, frame);
            return;
    }
}

// A SYN makes no state here: floods and cookies are the kernel's business.
void LegPath::syn_from_wire(const Arrival& arrival, const FlowKey& key) {
    if (const auto direction = context_.table.find(key)) {
        const bool may_pass = !has(arrival.view, tcp_ack) && flows_.on_syn(*direction);
        if (!may_pass) {
            return;
        }
    }
    if (!is_ours(key.own_port)) {
        pass(arrival);
        return;
    }
    scratch_.assign(arrival.frame.begin(), arrival.frame.end());
    const SynReport report = sanitize_syn(scratch_, arrival.view);
    context_.to_kernel(arrival.port_index, std::span(scratch_).first(report.length_bytes));
}

Leg* LegPath::follow(const FlowKey& key, const Arrival& arrival) {
    const bool tunnel = context_.tunnels.holds(key.own_port);
    // Without ACK no handshake ends; the kernel would drop it without a word, and the leg would
    // stay.
    if ((!tunnel && key.own_port != context_.options.control_port) || has(arrival.view, tcp_rst) ||
        !has(arrival.view, tcp_ack)) {
        return nullptr;
    }
    Leg* leg = legs_.track(key, false);
    if (leg == nullptr) {
        return nullptr;
    }
    leg->port_index = arrival.port_index;
    leg->first_acknowledgement = arrival.view.acknowledgement;
    leg->own_acknowledged = arrival.view.sequence;
    leg->window_sequence = arrival.view.sequence;
    leg->window_acknowledgement = arrival.view.acknowledgement;
    const Adjacency* neighbour = legs_.neighbour(key);
    leg->adjacency = neighbour != nullptr
                         ? *neighbour
                         : reverse_adjacency(arrival.frame, arrival.view, arrival.port_index);
    legs_.recall_origin(*leg);
    if (const auto timestamps = timestamps_of(arrival.frame, arrival.view);
        timestamps && leg->origin) {
        learn_own_timestamp(*leg, timestamps->echo);
    }
    if (tunnel) {
        legs_.start_hold(*leg);
    }
    return leg;
}

void LegPath::learn(Leg& leg, const Arrival& arrival) {
    const TcpView& view = arrival.view;
    leg.worker_index = arrival.worker_index;
    leg.port_index = arrival.port_index;
    // Somebody who guesses must not set the clock or the window that the splice begins with.
    constexpr std::uint32_t near = Legs::max_ahead_bytes;
    if (view.sequence - (leg.own_acknowledged - near) > 2 * near) {
        return;
    }
    if (view.timestamp_offset != 0) {
        const std::uint32_t value = load32(arrival.frame.data() + view.timestamp_offset);
        if (!leg.peer_timestamped || sequence_after(value, leg.peer_timestamp)) {
            leg.peer_timestamped = true;
            leg.peer_timestamp = value;
        }
    }
    const bool newer = sequence_after(view.sequence, leg.window_sequence) ||
                       (view.sequence == leg.window_sequence &&
                        !sequence_before(view.acknowledgement, leg.window_acknowledgement));
    if (newer && has(view, tcp_ack) && !has(view, tcp_rst)) {
        leg.window_sequence = view.sequence;
        leg.window_acknowledgement = view.acknowledgement;
        leg.window = view.window;
    }
}

void LegPath::arrive(Leg& leg, const Arrival& arrival) {
    Arrival complete = arrival;
    // Malformed options: the kernel's to judge, and dropped by the packet path.
    (void)find_options(complete.frame, complete.view);
    learn(leg, complete);
    legs_.touch(leg);
    handoffs_.heard(leg);
    switch (leg.phase) {
        case LegPhase::pass:
            arrive_passing(leg, complete);
            return;
        case LegPhase::hold:
            arrive_holding(leg, complete);
            return;
        case LegPhase::frozen:
            arrive_frozen(leg, complete);
            return;
    }
}

void LegPath::arrive_passing(Leg& leg, const Arrival& arrival) {
    const TcpView& view = arrival.view;
    if (leg.pair_slot == no_pair && has(view, tcp_rst)) {
        pass(arrival);
        legs_.end_acknowledgement_hold(leg);
        legs_.forget(leg);
        return;
    }
    if (leg.pair_slot == no_pair && !leg.ended && view.sequence_bytes() != 0) {
        const auto payload = arrival.frame.subspan(view.payload_offset, view.payload_bytes);
        if (leg.acknowledgement_hold == Leg::AcknowledgementHold::not_yet &&
            leg.key.own_port == context_.options.control_port && contains_accept(payload)) {
            legs_.start_acknowledgement_hold(leg, view.sequence);
        }
        legs_.remember(leg, arrival.frame, view, arrival.worker_index);
    }
    pass(arrival);
    if (has(view, tcp_fin)) {
        leg.peer_finished = true;
        end_if_finished(leg);
    }
}

void LegPath::arrive_holding(Leg& leg, const Arrival& arrival) {
    if (has(arrival.view, tcp_rst)) {
        // The kernel decides whether it counts, and for that it must have what came before.
        if (leg.handoff != nullptr) {
            handoffs_.abort(*leg.handoff, abi::StreamReason::not_established);
        } else {
            legs_.release(leg);
        }
        arrive_passing(leg, arrival);
        return;
    }
    if (arrival.view.sequence_bytes() == 0) {
        pass(arrival);
        return;
    }
    if (legs_.hold(leg, arrival.frame, arrival.view, arrival.worker_index)) {
        pass_stripped(arrival);
        return;
    }
    if (leg.handoff != nullptr) {
        handoffs_.abort(*leg.handoff, abi::StreamReason::hold_overflow);
    } else {
        leg.overflowed = true;
        legs_.release(leg);
    }
    arrive_passing(leg, arrival);
}

// Bounds hold here, too; what is beyond them is lost like any frame on a wire.
void LegPath::arrive_frozen(Leg& leg, const Arrival& arrival) {
    (void)legs_.hold(leg, arrival.frame, arrival.view, arrival.worker_index);
}

void LegPath::pass_stripped(const Arrival& arrival) {
    scratch_.resize(arrival.view.payload_offset);
    const std::size_t length = strip_payload(arrival.frame, arrival.view, scratch_);
    context_.to_kernel(arrival.port_index, std::span(scratch_).first(length));
}

void LegPath::end_if_finished(Leg& leg) {
    if (leg.peer_finished && leg.kernel_finished && leg.pair_slot == no_pair &&
        leg.handoff == nullptr) {
        legs_.end(leg);
    }
}

// ---- From the kernel

void LegPath::from_kernel(std::uint8_t port_index, std::span<const std::byte> frame) {
    TcpView view;
    if (parse(frame, view) != PacketReason::spliced) {
        to_wire(port_index, frame);
        return;
    }
    const FlowKey key = reversed_key_of(view, frame);
    if (context_.table.find(key)) {
        // The kernel knows nothing of this connection any more; what it says is wrong (trap 7).
        context_.counters.add(SlowCounter::frames_from_kernel_dropped_total);
        return;
    }
    if (has(view, tcp_syn)) {
        syn_from_kernel(port_index, frame, view, key);
        return;
    }
    Leg* leg = legs_.find(key);
    if (leg == nullptr || leave(*leg, port_index, frame, view)) {
        to_wire(port_index, frame);
    }
}

void LegPath::to_wire(std::uint8_t port_index, std::span<const std::byte> frame) {
    (void)context_.host.to_wire(port_index, frame);
    context_.counters.add(SlowCounter::frames_from_kernel_total);
}

void LegPath::syn_from_kernel(std::uint8_t port_index, std::span<const std::byte> frame,
                              const TcpView& view, const FlowKey& key) {
    if (!is_ours(key.own_port)) {
        to_wire(port_index, frame);
        return;
    }
    // A repeated SYN-ACK belongs to the connection that is followed, any other to a new one.
    Leg* leg = legs_.find(key);
    if (leg != nullptr && view.sequence + 1 != leg->first_acknowledgement) {
        if (leg->handoff != nullptr) {
            handoffs_.abort(*leg->handoff, abi::StreamReason::not_established);
        }
        legs_.forget(*leg);
        leg = nullptr;
    }
    legs_.learn_neighbour(key, adjacency_from(frame, view, port_index));
    if (has(view, tcp_ack)) {
        legs_.learn_origin(key, {view.sequence + 1, view.acknowledgement});
    }
    if (const auto timestamps = timestamps_of(frame, view); timestamps && leg != nullptr) {
        learn_own_timestamp(*leg, timestamps->value);
    }
    scratch_.assign(frame.begin(), frame.end());
    (void)clamp_mss(scratch_, view, context_.options.max_payload_with_options);
    to_wire(port_index, scratch_);
}

bool LegPath::leave(Leg& leg, std::uint8_t port_index, std::span<const std::byte> frame,
                    const TcpView& view) {
    if (leg.phase == LegPhase::frozen) {
        context_.counters.add(SlowCounter::frames_from_kernel_dropped_total);
        return false;
    }
    const bool free = leg.handoff == nullptr && leg.pair_slot == no_pair;
    if (const auto timestamps = timestamps_of(frame, view)) {
        learn_own_timestamp(leg, timestamps->value);
    }
    if (has(view, tcp_rst)) {
        if (free) {
            legs_.forget(leg);
        }
        handoffs_.heard(leg);
        return true;
    }
    leg.adjacency = adjacency_from(frame, view, port_index);
    leg.answered = true;
    legs_.touch(leg);
    handoffs_.heard(leg);
    if (has(view, tcp_fin)) {
        leg.kernel_finished = true;
        if (free && leg.phase == LegPhase::hold) {
            legs_.release(leg);  // the control plane closed it unpaired (trap 6)
        }
        end_if_finished(leg);
    }
    if (has(view, tcp_ack)) {
        legs_.forget_acknowledged(leg, view.acknowledgement);
    }
    if (leg.acknowledgement_hold == Leg::AcknowledgementHold::active &&
        is_bare_acknowledgement(view) &&
        sequence_after(view.acknowledgement, leg.accept_sequence)) {
        leg.held_acknowledgement.assign(frame.begin(), frame.end());
        return false;
    }
    if (has(view, tcp_ack) && sequence_after(view.acknowledgement, leg.own_acknowledged)) {
        leg.own_acknowledged = view.acknowledgement;
    }
    return true;
}

}  // namespace bore::packet
