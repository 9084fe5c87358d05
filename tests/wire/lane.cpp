#include "tests/wire/lane.hpp"

#include <algorithm>
#include <cstddef>

namespace bore::wire {

namespace {

constexpr std::size_t ethernet_bytes = 14;
constexpr std::size_t vlan_bytes = 4;
constexpr std::uint16_t type_ipv4 = 0x0800, type_ipv6 = 0x86dd, type_vlan = 0x8100;
constexpr std::uint8_t protocol_tcp = 6;
constexpr std::uint8_t flag_fin = 1, flag_syn = 2, flag_reset = 4, flag_ack = 16;

// Connections in a handshake at once that are remembered; beyond it their ACKs pass.
constexpr std::size_t max_handshakes = 65'536;

std::size_t be16(std::span<const std::uint8_t> bytes, std::size_t at) {
    return static_cast<std::size_t>(bytes[at]) << 8U | bytes[at + 1];
}

std::uint64_t hash(std::span<const std::uint8_t> bytes, std::uint64_t value) {
    for (const std::uint8_t byte : bytes) {
        value = (value ^ byte) * 0x100000001b3U;  // FNV-1a
    }
    return value;
}

// `ip_end`: offset behind the IP packet; a short frame is padded behind it.
Parsed parse_tcp(std::span<const std::uint8_t> frame, std::size_t tcp, std::size_t ip_end,
                 std::span<const std::uint8_t> addresses) {
    Parsed parsed{Kind::tcp, 0};
    if (tcp + 20 > ip_end || ip_end > frame.size()) {
        return parsed;
    }
    parsed.connection = hash(frame.subspan(tcp, 4), hash(addresses, 0xcbf29ce484222325U));
    const std::uint8_t flags = frame[tcp + 13];
    const std::size_t payload_at = tcp + (static_cast<std::size_t>(frame[tcp + 12]) >> 4U) * 4;
    if ((flags & flag_syn) != 0 && (flags & flag_ack) == 0) {
        parsed.kind = Kind::tcp_syn;
    } else if ((flags & (flag_fin | flag_syn | flag_reset | flag_ack)) == flag_ack &&
               payload_at >= ip_end) {
        parsed.kind = Kind::tcp_bare_ack;
    }
    return parsed;
}

}  // namespace

Parsed parse(std::span<const std::uint8_t> frame) {
    if (frame.size() < ethernet_bytes + 20) {
        return {};
    }
    std::size_t ip = ethernet_bytes;
    std::size_t type = be16(frame, 12);
    if (type == type_vlan) {
        type = be16(frame, 16);
        ip += vlan_bytes;
    }
    if (type == type_ipv4 && ip + 20 <= frame.size() && frame[ip + 9] == protocol_tcp) {
        const std::size_t header = static_cast<std::size_t>(frame[ip] & 15U) * 4;
        return parse_tcp(frame, ip + header, ip + be16(frame, ip + 2), frame.subspan(ip + 12, 8));
    }
    if (type == type_ipv6 && ip + 40 <= frame.size() && frame[ip + 6] == protocol_tcp) {
        return parse_tcp(frame, ip + 40, ip + 40 + be16(frame, ip + 4), frame.subspan(ip + 8, 32));
    }
    return {};
}

Lane::Lane(const Impairments& impairments, std::uint64_t lane_number)
    : impairments_(impairments),
      random_state_(impairments.seed * 0x9e3779b97f4a7c15U + lane_number * 0xd1342543de82ef95U) {}

// SplitMix64: one word of state, good enough for dice.
std::uint64_t Lane::random() {
    random_state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t value = random_state_;
    value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9U;
    value = (value ^ (value >> 27U)) * 0x94d049bb133111ebU;
    return value ^ (value >> 31U);
}

bool Lane::chance(double percent) {
    return percent > 0 && static_cast<double>(random() >> 11U) * 0x1p-53 * 100 < percent;
}

Lane::Fate Lane::push(BufferIndex buffer, const Parsed& parsed, Nanoseconds now) {
    // Address resolution is not what is tested, and losing it costs seconds: it passes unharmed.
    const bool exposed = parsed.kind != Kind::other;
    if (impairments_.drop_handshake_ack && exposed && is_handshake_ack(parsed)) {
        ++counters_.handshake_acks_dropped;
        return Fate::dropped;
    }
    if (exposed && chance(impairments_.loss_percent)) {
        ++counters_.lost;
        return Fate::dropped;
    }
    const bool twice = exposed && chance(impairments_.duplicate_percent);
    if (exposed && chance(impairments_.reorder_percent)) {
        ++counters_.reordered;
        const auto range = std::uint64_t{max_overtakers - min_overtakers + 1};
        const auto overtakers = static_cast<std::uint32_t>(min_overtakers + random() % range);
        overtaken_.push_back({buffer, overtakers, now + max_overtaken_ns});
    } else {
        enqueue(buffer, now);
        count_overtaker(now);
    }
    if (twice) {
        ++counters_.duplicated;
        enqueue(buffer, now);
    }
    return twice ? Fate::sent_twice : Fate::sent;
}

// True for the first bare ACK after a SYN of the same side. Data that comes before it ends the
// wait: then the ACK was in it.
bool Lane::is_handshake_ack(const Parsed& parsed) {
    if (parsed.kind == Kind::tcp_syn) {
        if (handshakes_.size() < max_handshakes) {
            handshakes_.insert(parsed.connection);
        }
        return false;
    }
    return handshakes_.erase(parsed.connection) != 0 && parsed.kind == Kind::tcp_bare_ack;
}

void Lane::enqueue(BufferIndex buffer, Nanoseconds now) {
    line_.push_back({buffer, now + impairments_.delay_ns});
}

void Lane::count_overtaker(Nanoseconds now) {
    for (auto each = overtaken_.begin(); each != overtaken_.end();) {
        if (--each->overtakers_left == 0) {
            enqueue(each->buffer, now);
            each = overtaken_.erase(each);
        } else {
            ++each;
        }
    }
}

void Lane::release_late(Nanoseconds now) {
    while (!overtaken_.empty() && overtaken_.front().deadline <= now) {
        enqueue(overtaken_.front().buffer, now);
        overtaken_.pop_front();
    }
}

void Lane::take_due(Nanoseconds now, std::size_t limit, std::vector<BufferIndex>& due) {
    release_late(now);
    while (limit > 0 && !line_.empty() && line_.front().due <= now) {
        due.push_back(line_.front().buffer);
        line_.pop_front();
        --limit;
    }
}

void Lane::give_back(std::span<const BufferIndex> unsent, Nanoseconds now) {
    for (auto each = unsent.rbegin(); each != unsent.rend(); ++each) {
        line_.push_front({*each, now});
    }
}

Nanoseconds Lane::next_due() const {
    const Nanoseconds line = line_.empty() ? -1 : line_.front().due;
    const Nanoseconds late = overtaken_.empty() ? -1 : overtaken_.front().deadline;
    return line < 0 || (late >= 0 && late < line) ? late : line;
}

}  // namespace bore::wire
