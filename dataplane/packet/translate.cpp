// Segments that are not usual. Those that only have unusual numbers are rewritten in place like the
// others. Steps for the rest:
//   1. SYN goes to the kernel, untouched: it is the slow path's to judge. Impossible flags, URG, a
//      closed flow and a TTL that has run out are dropped.
//   2. Numbers: a reset must lie inside the window, others must not cross into another block ahead
//      of it (near_bytes); what lies before the splice is cut off.
//   3. Options: found, then what the other leg's option block will be.
//   4. Room: for the headers in front of the payload, and in the other leg's MSS.
//   5. Bookkeeping: only now, so that a segment that is dropped has changed nothing.
//   6. Headers are copied out, changed, and written in front of the payload.
#include "dataplane/packet/translate.hpp"

#include <algorithm>
#include <array>

namespace bore::packet {

namespace {

// ---- Numbers

enum class Position : std::uint8_t {
    usual,
    early,          // wholly or partly before what may pass: cut or raise it
    out_of_window,  // far ahead of anything that its receiver can have allowed
};

bool in_one_block(std::uint32_t left, std::uint32_t right) {
    return (left ^ right) < near_bytes;
}

// Old numbers pass: late retransmissions and keepalive probes carry them. What moves next_sequence
// must begin inside the receiver's window.
Position judge_sequence(const TcpView& view, const Passage& passage) {
    const std::uint32_t next = passage.entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t end = view.sequence + view.sequence_bytes();
    const bool moves = sequence_after(end, next) || sequence_after(view.sequence, next);
    if (moves && !(in_one_block(end, next) && view.sequence - next <= near_bytes)) {
        const std::uint32_t edge = passage.other.window_edge.load(std::memory_order_relaxed) -
                                   passage.entry.sequence_delta;
        if (sequence_after(view.sequence, edge)) {
            return Position::out_of_window;
        }
    }
    if (!sequence_before(view.sequence, next)) {
        return Position::usual;
    }
    const std::uint32_t first =
        passage.cold.first_sequence[passage.in_index()].load(std::memory_order_relaxed);
    return sequence_before(view.sequence, first) ? Position::early : Position::usual;
}

Position judge_acknowledgement(const TcpView& view, const Passage& passage) {
    const std::uint32_t highest = passage.entry.acknowledged.load(std::memory_order_relaxed);
    if (!sequence_before(view.acknowledgement, highest)) {
        if (in_one_block(view.acknowledgement, highest)) {
            return Position::usual;
        }
        const std::uint32_t sent = passage.other.next_sequence.load(std::memory_order_relaxed) -
                                   passage.entry.acknowledgement_delta;
        return sequence_after(view.acknowledgement, sent) ? Position::out_of_window
                                                          : Position::usual;
    }
    const std::size_t in = passage.in_index();
    const std::uint64_t wraps = passage.cold.acknowledged_wraps[in].load(std::memory_order_relaxed);
    const std::uint64_t acknowledged_bytes =
        (wraps << 32U | highest) - passage.cold.first_acknowledgement[in];
    return highest - view.acknowledgement > acknowledged_bytes ? Position::early : Position::usual;
}

// The segment moves next_sequence, or counts as seen before.
void note_sequence(const TcpView& view, const Passage& passage, Tally& tally) {
    DirectionEntry& entry = passage.entry;
    const std::uint32_t next = entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t end = view.sequence + view.sequence_bytes();
    if (sequence_after(end, next)) {
        entry.next_sequence.store(end, std::memory_order_relaxed);
        // Keeps first_sequence within reach, once in a quarter of the number space.
        auto& first = passage.cold.first_sequence[passage.in_index()];
        const std::uint32_t moved = end - max_flight_bytes;
        if (((end ^ next) & ~(max_flight_bytes - 1)) != 0 &&
            sequence_after(moved, first.load(std::memory_order_relaxed))) {
            first.store(moved, std::memory_order_relaxed);
        }
    }
    if (sequence_before(view.sequence, next) && view.payload_bytes != 0) {
        tally.retransmitted_packets += 1;
        tally.retransmitted_bytes +=
            std::min(next - view.sequence, std::uint32_t{view.payload_bytes});
    }
}

// The acknowledgement moves `acknowledged`. Returns by how much.
std::uint32_t note_acknowledgement(std::uint32_t acknowledgement, const Passage& passage) {
    DirectionEntry& entry = passage.entry;
    const std::uint32_t highest = entry.acknowledged.load(std::memory_order_relaxed);
    if (!sequence_after(acknowledgement, highest)) {
        return 0;
    }
    if (acknowledgement < highest) {
        auto& wraps = passage.cold.acknowledged_wraps[passage.in_index()];
        wraps.store(wraps.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    entry.acknowledged.store(acknowledgement, std::memory_order_relaxed);
    return acknowledgement - highest;
}

// A segment that would be usual if it were not for its numbers. False when they lie before the
// splice, for then it must be built anew.
template <bool is_v6>
bool translate_in_place(Frame& frame, const TcpView& view, const Passage& passage,
                        const Moment& moment, Tally& tally, Outcome& outcome,
                        PacketReason& reason) {
    const Position sequence = judge_sequence(view, passage);
    const Position acknowledgement = judge_acknowledgement(view, passage);
    if (sequence == Position::early || acknowledgement == Position::early) {
        return false;
    }
    if (sequence == Position::out_of_window || acknowledgement == Position::out_of_window) {
        reason = PacketReason::out_of_window;
        return true;
    }
    note_sequence(view, passage, tally);
    outcome.delivered_bytes = note_acknowledgement(view.acknowledgement, passage);
    outcome.payload_bytes = view.payload_bytes;
    note_activity(passage.entry, moment);
    rewrite_usual<is_v6>(frame, view, passage,
                         translate_window(view.window, view.acknowledgement, passage.entry, tally));
    reason = PacketReason::spliced;
    return true;
}

// ---- Judgement

// A segment being rebuilt.
struct Draft {
    std::uint32_t sequence{0};         // numbering of the in leg
    std::uint32_t acknowledgement{0};  // numbering of the in leg
    std::uint32_t hold_back{0};        // what the acknowledgement says less
    std::uint8_t flags{0};
    std::size_t cut_bytes{0};      // from the front of the payload
    std::size_t payload_bytes{0};  // behind that
    std::size_t tcp_bytes{0};      // of the new header
    bool stamp{false};             // timestamps of the relay's own, see insert_timestamps()
    bool insert{false};            // a new option block for them
    bool renew_checksum{false};    // payload was cut
    std::array<std::byte, max_tcp_header_bytes> tcp{};
    std::array<std::byte, ipv6_header_bytes> ip{};
};

bool has(std::uint8_t flags, std::uint8_t flag) {
    return (flags & flag) != 0;
}

PacketReason judge_flags(const TcpView& view, std::uint8_t state) {
    if (has(view.flags, tcp_syn)) {
        return has(view.flags, tcp_fin | tcp_rst) ? PacketReason::bad_flags : PacketReason::syn;
    }
    if (has(state, state_closed)) {
        return PacketReason::flow_closed;
    }
    if (view.reserved_flags != 0 || (has(view.flags, tcp_fin) && has(view.flags, tcp_rst)) ||
        !has(view.flags, tcp_ack | tcp_rst)) {
        return PacketReason::bad_flags;
    }
    // URG passes without its flag and pointer: the urgent byte is a byte in its place, as it is on
    // the stream engine (SO_OOBINLINE).
    return PacketReason::spliced;
}

// A reset must name a number that its receiver still waits for: from what it has acknowledged up to
// the edge of its window. Anything else is a guess. The receiver is stricter still (RFC 5961). The
// number behind all that was sent passes in any case: a forged acknowledgement may lie beyond it.
bool reset_in_window(const TcpView& view, const Passage& passage) {
    if (view.sequence == passage.entry.next_sequence.load(std::memory_order_relaxed)) {
        return true;
    }
    const std::uint32_t delta = passage.entry.sequence_delta;
    const std::uint32_t lowest = passage.other.acknowledged.load(std::memory_order_relaxed) - delta;
    const std::uint32_t highest = passage.other.window_edge.load(std::memory_order_relaxed) - delta;
    return !sequence_before(view.sequence, lowest) && !sequence_after(view.sequence, highest);
}

// Cuts what lies before first_sequence. A segment of which nothing is left becomes a bare
// acknowledgement one byte before, as a keepalive probe has it: its receiver acknowledges again,
// and the sender learns that its old bytes were taken.
void cut_old_bytes(const TcpView& view, const Passage& passage, Draft& draft) {
    const std::uint32_t first =
        passage.cold.first_sequence[passage.in_index()].load(std::memory_order_relaxed);
    const std::uint32_t cut = first - view.sequence;
    if (cut > view.payload_bytes || (cut == view.payload_bytes && !has(view.flags, tcp_fin))) {
        draft.sequence = first - 1;
        draft.flags = tcp_ack;
        draft.payload_bytes = 0;
    } else {
        draft.sequence = first;
        draft.cut_bytes = cut;
        draft.payload_bytes = view.payload_bytes - cut;
    }
    draft.renew_checksum = view.payload_bytes != 0;
}

PacketReason draft_numbers(const TcpView& view, const Passage& passage, Draft& draft) {
    draft.sequence = view.sequence;
    draft.acknowledgement = view.acknowledgement;
    draft.flags = view.flags & (tcp_fin | tcp_rst | tcp_psh | tcp_ack);  // no ECE, CWR, URG
    draft.payload_bytes = view.payload_bytes;
    if (has(view.flags, tcp_rst)) {
        return reset_in_window(view, passage) ? PacketReason::spliced : PacketReason::out_of_window;
    }
    const Position sequence = judge_sequence(view, passage);
    const Position acknowledgement = judge_acknowledgement(view, passage);
    if (sequence == Position::out_of_window || acknowledgement == Position::out_of_window) {
        return PacketReason::out_of_window;
    }
    if (sequence == Position::early) {
        cut_old_bytes(view, passage, draft);
    }
    if (acknowledgement == Position::early) {
        draft.acknowledgement = passage.cold.first_acknowledgement[passage.in_index()];
    }
    return PacketReason::spliced;
}

// ---- Options

void store_own_timestamps(std::byte* at, const Passage& passage, const Moment& moment) {
    const std::size_t out = passage.out_index();
    store32(at, passage.cold.own_timestamp[out] + moment.milliseconds);
    store32(at + 4, passage.cold.peer_timestamp[out].load(std::memory_order_relaxed));
}

void translate_timestamps(std::byte* at, const DirectionEntry& entry, bool acknowledges) {
    store32(at, load32(at) + entry.timestamp_delta);
    // RFC 7323, 3.2: the echo means something only beside an acknowledgement.
    store32(at + 4, acknowledges ? load32(at + 4) + entry.timestamp_echo_delta : 0);
}

void translate_sack(std::byte* blocks, std::size_t block_count, const DirectionEntry& entry) {
    for (std::size_t edge = 0; edge < block_count * 2; ++edge) {
        std::byte* at = blocks + edge * 4;
        store32(at, load32(at) + entry.acknowledgement_delta);
    }
}

void blank(std::byte* option, std::size_t size_bytes) {
    std::memset(option, option_nop, size_bytes);
}

// The options stay where they are: values change, and what the other leg has not negotiated is
// overwritten with NOPs, options of unknown kinds included. find_options() has checked lengths.
void translate_options_in_place(const Passage& passage, const Moment& moment, Draft& draft) {
    const DirectionEntry& entry = passage.entry;
    std::size_t at = tcp_header_bytes;
    while (at < draft.tcp_bytes) {
        std::byte* option = draft.tcp.data() + at;
        const std::uint8_t kind = load8(option);
        if (kind == option_end) {
            return;
        }
        if (kind == option_nop) {
            ++at;
            continue;
        }
        const std::size_t length = load8(option + 1);
        if (kind == option_timestamps && (entry.flags & both_timestamps) == both_timestamps) {
            translate_timestamps(option + 2, entry, has(draft.flags, tcp_ack));
        } else if (kind == option_timestamps && has(entry.flags, flag_out_timestamps)) {
            store_own_timestamps(option + 2, passage, moment);
        } else if (kind == option_sack && has(entry.flags, flag_sack)) {
            translate_sack(option + 2, (length - 2) / sack_block_bytes, entry);
        } else {
            blank(option, length);
        }
        at += length;
    }
}

// A new option block: the relay's timestamps, then as many SACK blocks as the 40 bytes leave.
std::size_t sack_blocks_beside_timestamps(const TcpView& view, const DirectionEntry& entry) {
    constexpr std::size_t room = (max_tcp_option_bytes - 12 - 4) / sack_block_bytes;
    return has(entry.flags, flag_sack) ? std::min<std::size_t>(view.sack_blocks, room) : 0;
}

void insert_timestamps(const std::byte* frame, const TcpView& view, const Passage& passage,
                       const Moment& moment, Draft& draft) {
    std::byte* options = draft.tcp.data() + tcp_header_bytes;
    put_word32(options, usual_option_word);
    store_own_timestamps(options + 4, passage, moment);
    const std::size_t blocks = sack_blocks_beside_timestamps(view, passage.entry);
    if (blocks != 0) {
        std::byte* sack = options + 12;
        blank(sack, 2);
        store8(sack + 2, option_sack);
        store8(sack + 3, static_cast<std::uint8_t>(2 + blocks * sack_block_bytes));
        std::memcpy(sack + 4, frame + view.sack_offset, blocks * sack_block_bytes);
        translate_sack(sack + 4, blocks, passage.entry);
    }
}

// How long the new header will be, and where its timestamps come from.
void draft_options(const TcpView& view, const Passage& passage, Draft& draft) {
    const DirectionEntry& entry = passage.entry;
    const bool in_stamps = has(entry.flags, flag_in_timestamps);
    const bool out_stamps = has(entry.flags, flag_out_timestamps);
    draft.tcp_bytes = view.tcp_bytes();
    draft.stamp = out_stamps && !in_stamps;
    draft.insert = draft.stamp && view.timestamp_offset == 0;
    if (draft.insert) {
        const std::size_t blocks = sack_blocks_beside_timestamps(view, entry);
        draft.tcp_bytes = stamped_header_bytes + (blocks == 0 ? 0 : 4 + blocks * sack_block_bytes);
    }
}

void note_timestamps(const std::byte* frame, const TcpView& view, const Passage& passage,
                     const Draft& draft, Tally& tally) {
    tally.timestamps_inserted += static_cast<std::uint32_t>(draft.stamp);
    const std::uint8_t flags = passage.entry.flags;
    if (view.timestamp_offset == 0) {
        return;
    }
    const bool removed = !has(flags, flag_out_timestamps);
    tally.timestamps_removed += static_cast<std::uint32_t>(removed);
    // What passes while the acknowledgement of Accept is held back dates it, see Flows.
    const bool dates = has(passage.entry.state.load(std::memory_order_relaxed), state_ack_hold);
    auto& latest = passage.cold.peer_timestamp[passage.in_index()];
    const std::uint32_t value = load32(frame + view.timestamp_offset);
    if (has(flags, flag_in_timestamps) && (removed || dates) &&
        sequence_after(value, latest.load(std::memory_order_relaxed))) {
        latest.store(value, std::memory_order_relaxed);
    }
}

// ---- Room

bool checksum_is_right(const Frame& frame, const TcpView& view) {
    const std::byte* ip = frame.data + view.ip_offset;
    const std::size_t tcp_bytes = view.tcp_bytes() + view.payload_bytes;
    const std::uint64_t sum = (view.v6 ? sum_of(ip + 8, 32) : sum_of(ip + 12, 8)) +
                              pseudo_sum(tcp_bytes) +
                              sum_of(frame.data + view.tcp_offset, tcp_bytes);
    return fold(sum) == 0xffff;
}

PacketReason judge_size(const Frame& frame, const TcpView& view, const Passage& passage,
                        const Draft& draft, Outcome& outcome) {
    const std::size_t ip_bytes = static_cast<std::size_t>(view.tcp_offset) - view.ip_offset;
    const std::size_t headers = passage.adjacency.header_bytes + ip_bytes + draft.tcp_bytes;
    if (headers > frame.headroom_bytes + view.payload_offset + draft.cut_bytes ||
        ip_bytes + draft.tcp_bytes + draft.payload_bytes > 0xffff) {
        return PacketReason::too_big;
    }
    const std::size_t option_bytes = draft.tcp_bytes - tcp_header_bytes;
    const std::size_t mss = passage.entry.out_mss;
    if (draft.payload_bytes != 0 && option_bytes + draft.payload_bytes > mss) {
        if (mss <= option_bytes) {
            return PacketReason::too_big;
        }
        outcome.split_bytes = static_cast<std::uint16_t>(mss - option_bytes);
    }
    const bool anew = draft.renew_checksum || outcome.split_bytes != 0;
    if (anew && frame.checksum != ReceivedChecksum::good && !checksum_is_right(frame, view)) {
        return PacketReason::bad_checksum;
    }
    return PacketReason::spliced;
}

// ---- Bookkeeping

// The FIN of the other direction is acknowledged, or not yet. Returns the payload bytes among those
// newly acknowledged.
std::uint32_t note_other_fin(std::uint32_t acknowledgement, std::uint32_t advance,
                             const Passage& passage, Outcome& outcome) {
    FlowCold& cold = passage.cold;
    const std::size_t out = passage.out_index();
    const std::uint32_t fin_end =
        cold.fin_end[out].load(std::memory_order_relaxed) - passage.entry.acknowledgement_delta;
    if (cold.fin_acknowledged[out].load(std::memory_order_relaxed) != 0 ||
        sequence_before(acknowledgement, fin_end)) {
        return advance;
    }
    // Who has sent FIN sends nothing behind it. If something came, it was somebody else's.
    const std::uint32_t sent = passage.other.next_sequence.load(std::memory_order_relaxed) -
                               passage.entry.acknowledgement_delta;
    if (sequence_after(sent, fin_end)) {
        cold.fin_seen[out].store(0, std::memory_order_relaxed);
        passage.entry.other_fin.store(0, std::memory_order_relaxed);
        return advance;
    }
    // Store and load in one order for both workers, so that the later one sees both flags.
    cold.fin_acknowledged[out].store(1);
    outcome.flow_event = cold.fin_acknowledged[passage.in_index()].load() != 0;
    return sequence_before(acknowledgement - advance, fin_end) ? advance - 1 : advance;
}

// Only a FIN behind everything seen so far counts: an old number is that of a retransmission, which
// was noted before, or a guess.
void note_fin(const TcpView& view, const Passage& passage) {
    const std::size_t in = passage.in_index();
    const std::uint32_t end = view.sequence + view.sequence_bytes();
    FlowCold& cold = passage.cold;
    if (cold.fin_acknowledged[in].load(std::memory_order_relaxed) != 0 ||
        end != passage.entry.next_sequence.load(std::memory_order_relaxed)) {
        return;
    }
    cold.fin_end[in].store(end, std::memory_order_relaxed);
    cold.fin_seen[in].store(1, std::memory_order_relaxed);
    passage.other.other_fin.store(1, std::memory_order_release);
}

// A receiver ends its connection by the one number that it waits for (RFC 5961, 3.2): behind all
// that its peer has sent, or what it acknowledged last. Another number of its window makes it ask
// back, and a genuine sender then answers with the right one. So only these two count; the others
// pass, for the receiver to judge.
void note_reset(const TcpView& view, const Passage& passage, Outcome& outcome) {
    const std::uint32_t next = passage.entry.next_sequence.load(std::memory_order_relaxed);
    const std::uint32_t acknowledged =
        passage.other.acknowledged.load(std::memory_order_relaxed) - passage.entry.sequence_delta;
    if (view.sequence != next && view.sequence != acknowledged) {
        return;
    }
    if (passage.cold.reset_seen[passage.in_index()].exchange(1) == 0) {
        outcome.flow_event = true;
    }
    passage.entry.state.fetch_or(state_reset, std::memory_order_relaxed);
}

// Whoever sent a reset sends nothing else afterwards. If something comes, it was somebody else's.
void refute_reset(const Passage& passage) {
    passage.cold.reset_seen[passage.in_index()].store(0);
    passage.entry.state.fetch_and(static_cast<std::uint8_t>(~state_reset),
                                  std::memory_order_relaxed);
}

// Acknowledgements that cover no more than the client's own hand-shake bytes say less for a while:
// a sender that sees a short round trip here takes it for that of the whole way (trap 3).
void hold_back_acknowledgement(const Passage& passage, const Moment& moment, Draft& draft) {
    const FlowCold& cold = passage.cold;
    const std::uint32_t first =
        cold.first_sequence[passage.out_index()].load(std::memory_order_relaxed);
    const std::uint32_t out = draft.acknowledgement + passage.entry.acknowledgement_delta;
    const bool over = static_cast<std::int32_t>(cold.ack_hold_until_ms - moment.milliseconds) <= 0;
    if (over || sequence_after(out, first)) {
        passage.entry.state.fetch_and(static_cast<std::uint8_t>(~state_ack_hold),
                                      std::memory_order_relaxed);
    } else if (out == first) {
        draft.hold_back = cold.ack_hold_back;
    }
}

// Everything that the flow remembers of this segment. `view` is what is left of it after cutting.
void note(const TcpView& view, const Passage& passage, const Moment& moment, Tally& tally,
          Draft& draft, Outcome& outcome) {
    DirectionEntry& entry = passage.entry;
    note_activity(entry, moment);
    tally.trimmed += static_cast<std::uint32_t>(draft.renew_checksum);
    outcome.payload_bytes = view.payload_bytes;
    if (has(view.flags, tcp_rst)) {
        note_reset(view, passage, outcome);
        return;
    }
    const std::uint8_t state = entry.state.load(std::memory_order_relaxed);
    if (has(state, state_reset)) {
        refute_reset(passage);
    }
    note_sequence(view, passage, tally);
    if (has(view.flags, tcp_fin)) {
        note_fin(view, passage);
    }
    outcome.delivered_bytes = note_acknowledgement(view.acknowledgement, passage);
    if (entry.other_fin.load(std::memory_order_acquire) != 0) {
        outcome.delivered_bytes =
            note_other_fin(view.acknowledgement, outcome.delivered_bytes, passage, outcome);
    }
    if (has(state, state_ack_hold)) {
        hold_back_acknowledgement(passage, moment, draft);
    }
}

// ---- Headers

void write_tcp(const Frame& frame, const TcpView& view, const Passage& passage,
               const Moment& moment, std::uint16_t window, Draft& draft) {
    const DirectionEntry& entry = passage.entry;
    std::byte* tcp = draft.tcp.data();
    const bool acknowledges = has(draft.flags, tcp_ack);
    std::memcpy(tcp, frame.data + view.tcp_offset, tcp_header_bytes);
    put_word32(tcp, entry.out_ports);
    store32(tcp + 4, draft.sequence + entry.sequence_delta);
    store32(tcp + 8, acknowledges
                         ? draft.acknowledgement + entry.acknowledgement_delta - draft.hold_back
                         : 0);
    store8(tcp + 12, static_cast<std::uint8_t>(draft.tcp_bytes / 4 << 4U));
    store8(tcp + 13, draft.flags);
    store16(tcp + 14, window);
    store16(tcp + 18, 0);  // no URG: the pointer means nothing
    if (draft.insert) {
        insert_timestamps(frame.data, view, passage, moment, draft);
    } else {
        std::memcpy(tcp + tcp_header_bytes, frame.data + view.tcp_offset + tcp_header_bytes,
                    draft.tcp_bytes - tcp_header_bytes);
        translate_options_in_place(passage, moment, draft);
    }
}

// What the checksum of the whole changes by when the header and the pseudo header change.
std::uint64_t header_change(const Frame& frame, const TcpView& view, const Draft& draft) {
    const std::byte* before = frame.data + view.tcp_offset;
    const std::uint64_t sum_before = sum_of(before, view.tcp_bytes()) - word16(before + 16) +
                                     pseudo_sum(view.tcp_bytes() + view.payload_bytes);
    const std::uint64_t sum_after = sum_of(draft.tcp.data(), draft.tcp_bytes) -
                                    word16(draft.tcp.data() + 16) +
                                    pseudo_sum(draft.tcp_bytes + draft.payload_bytes);
    return change16(fold(sum_before), fold(sum_after));
}

template <bool is_v6>
void write_ip(const Frame& frame, const TcpView& view, const Passage& passage,
              std::uint64_t addresses, Draft& draft) {
    constexpr std::size_t ip_bytes = is_v6 ? ipv6_header_bytes : ipv4_header_bytes;
    constexpr std::size_t length_offset = is_v6 ? 4 : 2;
    std::byte* ip = draft.ip.data();
    std::memcpy(ip, frame.data + view.ip_offset, ip_bytes);
    const std::uint16_t length_before = word16(ip + length_offset);
    store16(ip + length_offset, static_cast<std::uint16_t>((is_v6 ? 0 : ip_bytes) +
                                                           draft.tcp_bytes + draft.payload_bytes));
    rewrite_ip<is_v6>(ip, passage, addresses + change16(length_before, word16(ip + length_offset)));
}

// Headers in front of the payload, and the frame's ends where they belong.
void put_together(Frame& frame, const TcpView& view, const Passage& passage, const Draft& draft) {
    const std::size_t ip_bytes = static_cast<std::size_t>(view.tcp_offset) - view.ip_offset;
    // Relative to frame.data, which may move into the headroom: build with pointers.
    std::byte* payload = frame.data + view.payload_offset + draft.cut_bytes;
    std::byte* tcp = payload - draft.tcp_bytes;
    std::byte* ip = tcp - ip_bytes;
    const std::ptrdiff_t moved = ip - (frame.data + view.ip_offset);
    // Let the frame begin where its IP header shall be, in terms that place_header() takes.
    frame.data += moved;
    frame.headroom_bytes = static_cast<std::uint16_t>(frame.headroom_bytes + moved);
    frame.length_bytes = static_cast<std::uint16_t>(frame.length_bytes - moved);
    place_header(frame, view.ip_offset,
                 view.ip_offset + ip_bytes + draft.tcp_bytes + draft.payload_bytes,
                 passage.adjacency);
    std::memcpy(ip, draft.ip.data(), ip_bytes);
    std::memcpy(tcp, draft.tcp.data(), draft.tcp_bytes);
}

template <bool is_v6>
void rebuild(Frame& frame, const TcpView& view, const Passage& passage, const Moment& moment,
             std::uint16_t window, Draft& draft) {
    const std::uint64_t addresses = passage.entry.address_change;
    write_tcp(frame, view, passage, moment, window, draft);
    write_ip<is_v6>(frame, view, passage, addresses, draft);
    std::byte* tcp = draft.tcp.data();
    if (draft.renew_checksum) {
        put_word16(tcp + 16, 0);
        const std::uint64_t sum =
            sum_of(draft.ip.data() + (is_v6 ? 8 : 12), is_v6 ? 32 : 8) +
            pseudo_sum(draft.tcp_bytes + draft.payload_bytes) + sum_of(tcp, draft.tcp_bytes) +
            sum_of(frame.data + view.payload_offset + draft.cut_bytes, draft.payload_bytes);
        put_word16(tcp + 16, static_cast<std::uint16_t>(~fold(sum)));
    } else {
        put_word16(tcp + 16, changed_checksum(word16(tcp + 16),
                                              addresses + header_change(frame, view, draft)));
    }
    put_together(frame, view, passage, draft);
}

PacketReason translate_anew(Frame& frame, TcpView& view, const Passage& passage,
                            const Moment& moment, Tally& tally, Outcome& outcome) {
    DirectionEntry& entry = passage.entry;
    PacketReason reason = judge_flags(view, entry.state.load(std::memory_order_relaxed));
    if (reason != PacketReason::spliced) {
        return reason;
    }
    const std::size_t hops = view.ip_offset + (view.v6 ? std::size_t{7} : std::size_t{8});
    if (load8(frame.data + hops) <= 1) {
        return PacketReason::hop_limit;
    }
    Draft draft;
    reason = draft_numbers(view, passage, draft);
    if (reason == PacketReason::spliced) {
        reason = find_options(frame.bytes(), view);
    }
    if (reason != PacketReason::spliced) {
        return reason;
    }
    draft_options(view, passage, draft);
    reason = judge_size(frame, view, passage, draft, outcome);
    if (reason != PacketReason::spliced) {
        return reason;
    }
    // What is left of the segment, for the books.
    TcpView rest = view;
    rest.sequence = draft.sequence;
    rest.acknowledgement = draft.acknowledgement;
    rest.flags = draft.flags;
    rest.payload_bytes = static_cast<std::uint16_t>(draft.payload_bytes);
    note(rest, passage, moment, tally, draft, outcome);
    note_timestamps(frame.data, view, passage, draft, tally);
    std::uint16_t window = 0;
    if (!has(view.flags, tcp_rst)) {
        window = translate_window(view.window, draft.acknowledgement, entry, tally);
    }
    if (view.v6) {
        rebuild<true>(frame, view, passage, moment, window, draft);
    } else {
        rebuild<false>(frame, view, passage, moment, window, draft);
    }
    return PacketReason::spliced;
}

}  // namespace

namespace {

// Nobody sends again what he knows to be acknowledged. So the acknowledgements are lost, or he
// refuses them, because they carry a number outside his window: until the splice the other peer
// sent into the relay's window, which may have been larger than his.
void note_unheard(const TcpView& view, const Passage& passage) {
    const std::uint32_t acknowledged =
        passage.other.acknowledged.load(std::memory_order_relaxed) - passage.entry.sequence_delta;
    const std::uint32_t next = passage.entry.next_sequence.load(std::memory_order_relaxed);
    if (view.payload_bytes != 0 && sequence_before(view.sequence, next) &&
        !sequence_after(view.sequence + view.payload_bytes, acknowledged)) {
        passage.other.state.fetch_or(state_unheard, std::memory_order_relaxed);
    }
}

// The next bare acknowledgement to whoever is marked gets the number that he expects, if he would
// refuse its own.
void make_heard(TcpView& view, const Passage& passage) {
    DirectionEntry& entry = passage.entry;
    if ((entry.state.load(std::memory_order_relaxed) & state_unheard) == 0) [[likely]] {
        return;
    }
    entry.state.fetch_and(static_cast<std::uint8_t>(~state_unheard), std::memory_order_relaxed);
    const std::uint32_t expected =
        passage.other.acknowledged.load(std::memory_order_relaxed) - entry.sequence_delta;
    const std::uint32_t edge =
        passage.other.window_edge.load(std::memory_order_relaxed) - entry.sequence_delta;
    if (view.payload_bytes == 0 && view.flags == tcp_ack &&
        (sequence_before(view.sequence, expected) || !sequence_before(view.sequence, edge))) {
        view.sequence = expected;
    }
}

}  // namespace

PacketReason translate_unusual(Frame& frame, TcpView& view, const Passage& passage,
                               const Moment& moment, Tally& tally, Outcome& outcome) {
    note_unheard(view, passage);
    make_heard(view, passage);
    PacketReason reason = PacketReason::spliced;
    if (view.v6
            ? looks_usual<true>(frame, view, passage) &&
                  translate_in_place<true>(frame, view, passage, moment, tally, outcome, reason)
            : looks_usual<false>(frame, view, passage) &&
                  translate_in_place<false>(frame, view, passage, moment, tally, outcome, reason)) {
        return reason;
    }
    return translate_anew(frame, view, passage, moment, tally, outcome);
}

}  // namespace bore::packet
