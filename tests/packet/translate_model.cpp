// The rules, one function each.
#include "tests/packet/translate_model.hpp"

#include <algorithm>
#include <utility>

namespace bore::packet::test::model {

namespace {

std::int64_t end_of(const Given& given) {
    return given.sequence + static_cast<std::int64_t>(given.payload.size()) +
           (given.has(tcp_fin) ? 1 : 0);
}

Bytes bytes_of(const Option& option, std::uint32_t base) {
    using Kind = Option::Kind;
    switch (option.kind) {
        case Kind::nop:
            return nops(1);
        case Kind::timestamps:
            return timestamps(option.value, option.echo);
        case Kind::unknown:
            return {std::byte{77}, std::byte{5}, std::byte{1}, std::byte{2}, std::byte{3}};
        case Kind::malformed:
            return {std::byte{8}, std::byte{1}};
        case Kind::sack:
            break;
    }
    Bytes bytes{std::byte{5}, static_cast<std::byte>(2 + option.blocks.size() * 8)};
    for (const auto& [left, right] : option.blocks) {
        for (const std::int64_t edge : {left, right}) {
            Bytes word(4);
            store32(word.data(), base + static_cast<std::uint32_t>(edge));
            bytes = join({bytes, word});
        }
    }
    return bytes;
}

// The block of 64 KiB that a position's number on the wire lies in, counted on where it wraps.
std::int64_t block_of(std::uint32_t base, std::int64_t position) {
    const std::int64_t number = std::int64_t{base} + position;
    return (number - (number % near + near) % near) / near;
}

}  // namespace

Segment Model::wire(const Given& given) const {
    Segment segment = pair_.from(given.in);
    segment.sequence += static_cast<std::uint32_t>(given.sequence);
    segment.acknowledgement += static_cast<std::uint32_t>(given.acknowledgement);
    segment.flags = given.flags;
    segment.reserved_flags = given.reserved_flags;
    segment.hop_limit = given.hop_limit;
    segment.traffic_class = given.traffic_class;
    segment.window = given.window;
    segment.payload = given.payload;
    segment.padding_bytes = given.padding_bytes;
    segment.checksum_error = given.checksum_error;
    for (const Option& option : given.options) {
        segment.options = join({segment.options, bytes_of(option, pair_.leg(given.in).snd_nxt)});
    }
    return segment;
}

PacketReason Model::judge_flags(const Given& given) {
    if (given.has(tcp_syn)) {
        return given.has(tcp_fin) || given.has(tcp_rst) ? PacketReason::bad_flags
                                                        : PacketReason::syn;
    }
    if (at(given.in).closed) {
        return PacketReason::flow_closed;
    }
    if (given.reserved_flags != 0 || (given.has(tcp_fin) && given.has(tcp_rst)) ||
        (!given.has(tcp_ack) && !given.has(tcp_rst))) {
        return PacketReason::bad_flags;
    }
    return given.hop_limit <= 1 ? PacketReason::hop_limit : PacketReason::spliced;
}

// What leaves the latest block must begin inside the receiver's window.
bool Model::may_come_next(const Given& given) {
    const Direction& own = at(given.in);
    const std::uint32_t base = pair_.leg(given.in).rcv_nxt;
    const std::int64_t end = end_of(given);
    const bool seen_before = end <= own.next && given.sequence <= own.next;
    const bool near_by = given.sequence >= own.next && given.sequence <= own.next + near &&
                         block_of(base, end) == block_of(base, own.next);
    return seen_before || near_by || given.sequence <= at(opposite(given.in)).edge;
}

PacketReason Model::judge_numbers(const Given& given) {
    const Direction& own = at(given.in);
    const Direction& other = at(opposite(given.in));
    const std::uint32_t base = pair_.leg(given.in).snd_nxt;
    bool good = true;
    if (given.has(tcp_rst)) {
        good = given.sequence == own.next ||
               (given.sequence >= other.acknowledged && given.sequence <= other.edge);
    } else {
        good = may_come_next(given) &&
               (given.acknowledgement <= own.acknowledged || given.acknowledgement <= other.next ||
                block_of(base, given.acknowledgement) == block_of(base, own.acknowledged));
    }
    return good ? PacketReason::spliced : PacketReason::out_of_window;
}

Bytes Model::sack_out(const Given& given, const Option& option, std::size_t most) const {
    // An acknowledged position on the in leg is the same position on the out leg.
    Option out = option;
    out.blocks.resize(std::min(out.blocks.size(), most));
    return bytes_of(out, pair_.leg(opposite(given.in)).rcv_nxt);
}

Bytes Model::options_out(const Given& given, std::uint64_t now_ns) {
    using Kind = Option::Kind;
    const LegState& in = pair_.leg(given.in);
    const LegState& out = pair_.leg(opposite(given.in));
    const bool sack = in.sack && out.sack;
    const auto elapsed = static_cast<std::uint32_t>(now_ns / 1'000'000 - start_ns / 1'000'000);
    const std::uint32_t own_value = out.own_timestamp + elapsed;
    const std::uint32_t own_echo = at(opposite(given.in)).peer_timestamp;
    const auto is_stamp = [](const Option& option) { return option.kind == Kind::timestamps; };
    if (out.timestamps && !in.timestamps && std::ranges::none_of(given.options, is_stamp)) {
        Bytes options = usual_timestamps(own_value, own_echo);
        for (const Option& option : given.options) {
            if (option.kind == Kind::sack && sack) {
                options = join({options, nops(2), sack_out(given, option, 3)});
            }
        }
        return options;
    }
    Bytes options;
    for (const Option& option : given.options) {
        Bytes part = bytes_of(option, 0);
        if (option.kind == Kind::timestamps && out.timestamps) {
            part = in.timestamps
                       ? timestamps(out.own_timestamp + (option.value - in.peer_timestamp),
                                    given.has(tcp_ack)
                                        ? out.peer_timestamp + (option.echo - in.own_timestamp)
                                        : 0)
                       : timestamps(own_value, own_echo);
        } else if (option.kind == Kind::sack && sack) {
            part = sack_out(given, option, 4);
        } else {
            part = nops(part.size());
        }
        if (option.kind == Kind::timestamps && in.timestamps && !out.timestamps) {
            std::uint32_t& latest = at(given.in).peer_timestamp;
            if (static_cast<std::int32_t>(option.value - latest) > 0) {
                latest = option.value;
            }
        }
        options = join({options, part});
    }
    return options;
}

void Model::remember(const Given& rest, Verdict& verdict) {
    Direction& own = at(rest.in);
    Direction& other = at(opposite(rest.in));
    if (rest.has(tcp_rst)) {
        if (rest.sequence == own.next || rest.sequence == other.acknowledged) {
            verdict.event = !own.reset;
            own.reset = true;
        }
        return;
    }
    own.reset = false;
    const std::int64_t end = end_of(rest);
    own.next = std::max(own.next, end);
    if (rest.has(tcp_fin) && !own.fin_acknowledged && end == own.next) {
        own.fin_end = end;
    }
    const std::int64_t before = own.acknowledged;
    own.acknowledged = std::max(own.acknowledged, rest.acknowledgement);
    if (rest.acknowledgement == own.acknowledged) {
        own.edge =
            std::max(own.edge, rest.acknowledgement + (std::int64_t{rest.window}
                                                       << pair_.leg(rest.in).peer_window_scale));
    }
    std::int64_t delivered = own.acknowledged - before;
    if (other.fin_end >= 0 && !other.fin_acknowledged && rest.acknowledgement >= other.fin_end) {
        if (other.next > other.fin_end) {
            other.fin_end = -1;  // somebody sent on
            verdict.taken_back = true;
        } else {
            delivered -= before < other.fin_end ? 1 : 0;
            other.fin_acknowledged = true;
            verdict.event = own.fin_acknowledged;
        }
    }
    verdict.delivered = static_cast<std::uint32_t>(delivered);
    own.delivered += static_cast<std::uint64_t>(delivered);
}

// Old bytes that are acknowledged already come again: the next bare acknowledgement to their sender
// gets a number that he takes.
Given Model::answered(const Given& arrived) {
    Given given = arrived;
    Direction& own = at(given.in);
    Direction& other = at(opposite(given.in));
    if (!given.payload.empty() && given.sequence < own.next &&
        given.sequence + static_cast<std::int64_t>(given.payload.size()) <= other.acknowledged) {
        other.unheard = true;
    }
    if (std::exchange(own.unheard, false) && given.payload.empty() && given.flags == tcp_ack &&
        (given.sequence < other.acknowledged || given.sequence >= other.edge)) {
        given.sequence = other.acknowledged;
    }
    return given;
}

Verdict Model::judge(const Given& arrived, std::uint64_t now_ns) {
    const Given given = answered(arrived);
    Verdict verdict;
    verdict.reason = judge_flags(given);
    if (verdict.reason == PacketReason::spliced) {
        verdict.reason = judge_numbers(given);
    }
    const auto is_malformed = [](const Option& option) {
        return option.kind == Option::Kind::malformed;
    };
    if (verdict.reason == PacketReason::spliced &&
        std::ranges::any_of(given.options, is_malformed)) {
        verdict.reason = PacketReason::bad_options;
    }
    if (verdict.reason != PacketReason::spliced) {
        return verdict;
    }
    // What is left of it.
    Given rest = given;
    rest.flags &= static_cast<std::uint8_t>(~(tcp_ece | tcp_cwr | tcp_urg));
    if (!given.has(tcp_rst)) {
        rest.acknowledgement = std::max<std::int64_t>(given.acknowledgement, 0);
        if (given.sequence < 0 && end_of(given) <= 0) {
            rest.sequence = -1;
            rest.payload.clear();
            rest.flags = tcp_ack;
        } else if (given.sequence < 0) {
            rest.payload.erase(rest.payload.begin(), rest.payload.begin() - given.sequence);
            rest.sequence = 0;
        }
    }
    Segment bare = wire(rest);
    bare.options.clear();
    const Direction before = at(given.in);
    verdict.out = pair_.mirrored(given.in, bare);
    verdict.out.checksum_error = 0;
    verdict.out.options = options_out(rest, now_ns);
    const std::size_t option_bytes = (verdict.out.options.size() + 3) / 4 * 4;
    const std::size_t mss = pair_.leg(opposite(given.in)).peer_mss;
    if (!rest.payload.empty() && rest.payload.size() + option_bytes > mss) {
        verdict.split_bytes = mss - option_bytes;
    }
    if (given.checksum_error != 0 &&
        (verdict.split_bytes != 0 || rest.payload.size() != given.payload.size())) {
        at(given.in) = before;
        verdict.reason = PacketReason::bad_checksum;
        return verdict;
    }
    if (given.has(tcp_rst)) {
        verdict.out.window = 0;
        verdict.out.acknowledgement = given.has(tcp_ack) ? verdict.out.acknowledgement : 0;
    } else if (at(given.in).hold) {
        if (rest.acknowledgement > 0 || now_ns / 1'000'000 >= pair_.state.ack_hold_until_ms) {
            at(given.in).hold = false;
        } else {
            verdict.out.acknowledgement -= pair_.state.ack_hold_back;
        }
    }
    remember(rest, verdict);
    return verdict;
}

}  // namespace bore::packet::test::model
