// Building: Ethernet, IP, TCP, then the checksums. Rewriting: the sum of what changes before, the
// change, the sum after, and the checksum moved by the difference.
#include "dataplane/packet/segment.hpp"

#include <algorithm>
#include <cstring>

#include "dataplane/base/check.hpp"
#include "dataplane/packet/checksum.hpp"

namespace bore::packet {

namespace {

constexpr std::uint8_t option_mss = 2;
constexpr std::uint8_t option_md5_signature = 19;   // RFC 2385
constexpr std::uint8_t option_authentication = 29;  // RFC 5925
constexpr std::uint8_t option_multipath = 30;       // RFC 8684
constexpr std::uint8_t option_fast_open = 34;       // RFC 7413
constexpr std::uint8_t option_experiment = 254;     // RFC 6994
constexpr std::uint16_t experiment_fast_open = 0xf989;
constexpr std::uint8_t accurate_ecn_flag = 0x01;  // of the bits in front of the flags, once NS

constexpr std::uint8_t hop_limit = 64;
constexpr std::uint16_t dont_fragment = 0x4000;

constexpr std::size_t tcp_flags_at = 13;
constexpr std::size_t tcp_checksum_at = 16;
constexpr std::size_t tcp_urgent_at = 18;

// ---- Building

// The field for bytes of that sum, itself counted as zero.
std::uint16_t checksum_of(std::uint64_t sum) {
    return static_cast<std::uint16_t>(~fold(sum));
}

std::size_t put_ip(std::byte* at, const FlowKey& leg, std::size_t tcp_bytes) {
    if (leg.is_v4()) {
        std::memset(at, 0, ipv4_header_bytes);
        store8(at, 0x45);
        store16(at + 2, static_cast<std::uint16_t>(ipv4_header_bytes + tcp_bytes));
        store16(at + 6, dont_fragment);
        store8(at + 8, hop_limit);
        store8(at + 9, protocol_tcp);
        std::memcpy(at + 12, leg.own_address.data() + 12, 4);
        std::memcpy(at + 16, leg.peer_address.data() + 12, 4);
        put_word16(at + 10, checksum_of(sum_of(at, ipv4_header_bytes)));
        return ipv4_header_bytes;
    }
    store32(at, 0x6000'0000);
    store16(at + 4, static_cast<std::uint16_t>(tcp_bytes));
    store8(at + 6, protocol_tcp);
    store8(at + 7, hop_limit);
    std::memcpy(at + 8, leg.own_address.data(), 16);
    std::memcpy(at + 24, leg.peer_address.data(), 16);
    return ipv6_header_bytes;
}

std::size_t put_tcp(std::byte* at, const FlowKey& leg, std::uint8_t flags,
                    const SegmentFields& fields) {
    const std::size_t option_bytes = fields.timestamps ? 2 + timestamps_option_bytes : 0;
    const std::size_t tcp_bytes = tcp_header_bytes + option_bytes;
    store16(at, leg.own_port);
    store16(at + 2, leg.peer_port);
    store32(at + 4, fields.sequence);
    store32(at + 8, fields.acknowledgement);
    store8(at + 12, static_cast<std::uint8_t>(tcp_bytes / 4 << 4U));
    store8(at + tcp_flags_at, flags);
    store16(at + 14, fields.window);
    store32(at + tcp_checksum_at, 0);  // and the urgent pointer
    if (fields.timestamps) {
        std::byte* option = at + tcp_header_bytes;
        store8(option, option_nop);
        store8(option + 1, option_nop);
        store8(option + 2, option_timestamps);
        store8(option + 3, timestamps_option_bytes);
        store32(option + 4, fields.timestamps->value);
        store32(option + 8, fields.timestamps->echo);
    }
    return tcp_bytes;
}

std::size_t build(std::span<std::byte> out, const Adjacency& adjacency, const FlowKey& leg,
                  std::uint8_t flags, const SegmentFields& fields) {
    BORE_CHECK(out.size() >= max_built_segment_bytes, "no room for a segment");
    std::byte* ip = out.data() + adjacency.header_bytes;
    std::memcpy(out.data(), adjacency.header.data(), adjacency.header_bytes);
    const bool v6 = !leg.is_v4();
    std::byte* tcp = ip + (v6 ? ipv6_header_bytes : ipv4_header_bytes);
    const std::size_t tcp_bytes = put_tcp(tcp, leg, flags, fields);
    const std::size_t ip_bytes = put_ip(ip, leg, tcp_bytes);
    const std::uint64_t addresses_sum = v6 ? sum_of(ip + 8, 32) : sum_of(ip + 12, 8);
    put_word16(tcp + tcp_checksum_at,
               checksum_of(addresses_sum + pseudo_sum(tcp_bytes) + sum_of(tcp, tcp_bytes)));
    return adjacency.header_bytes + ip_bytes + tcp_bytes;
}

// ---- Rewriting

// The TCP checksum of a frame while its TCP header or its length is changed. Both headers must
// still be as received when this is made; settle() comes last.
class ChecksumUpdate {
  public:
    ChecksumUpdate(std::span<const std::byte> frame, const TcpView& view)
        : before_(header_sum(frame, view)) {}

    // The payload is cut off; it began at an even offset, as the header's length is in words.
    void removes_payload(std::span<const std::byte> frame, const TcpView& view) {
        before_ += sum_of(frame.data() + view.payload_offset, view.payload_bytes) +
                   pseudo_sum(view.tcp_bytes() + view.payload_bytes);
        after_ += pseudo_sum(view.tcp_bytes());
    }

    void settle(std::span<std::byte> frame, const TcpView& view) {
        std::byte* field = frame.data() + view.tcp_offset + tcp_checksum_at;
        after_ += header_sum(frame, view);
        const std::uint64_t change = change16(fold(before_), fold(after_));
        put_word16(field, changed_checksum(word16(field), change));
    }

  private:
    static std::uint64_t header_sum(std::span<const std::byte> frame, const TcpView& view) {
        return sum_of(frame.data() + view.tcp_offset, view.tcp_bytes());
    }

    std::uint64_t before_;
    std::uint64_t after_{0};
};

// The IP header's length field for a packet that ends with its TCP header.
void end_behind_header(std::span<std::byte> frame, const TcpView& view) {
    std::byte* ip = frame.data() + view.ip_offset;
    if (view.v6) {
        store16(ip + 4, static_cast<std::uint16_t>(view.tcp_bytes()));
        return;
    }
    const std::uint16_t before = word16(ip + 2);
    store16(ip + 2, static_cast<std::uint16_t>(ipv4_header_bytes + view.tcp_bytes()));
    put_word16(ip + 10, changed_checksum(word16(ip + 10), change16(before, word16(ip + 2))));
}

void clear_flags(std::span<std::byte> frame, const TcpView& view, std::uint8_t flags) {
    std::byte* at = frame.data() + view.tcp_offset + tcp_flags_at;
    store8(at, static_cast<std::uint8_t>(load8(at) & ~flags));
}

// Calls `visit(kind, option)` for each option but NOP, with its kind and length bytes. False when
// the list is malformed, after the options before that place.
template <typename Visit>
bool for_each_option(std::span<std::byte> options, const Visit& visit) {
    while (!options.empty()) {
        const std::uint8_t kind = load8(options.data());
        if (kind == option_end) {
            return true;
        }
        if (kind == option_nop) {
            options = options.subspan(1);
            continue;
        }
        const std::size_t length = options.size() < 2 ? 0 : load8(options.data() + 1);
        if (length < 2 || length > options.size()) {
            return false;
        }
        visit(kind, options.first(length));
        options = options.subspan(length);
    }
    return true;
}

std::span<std::byte> options_of(std::span<std::byte> frame, const TcpView& view) {
    return frame.subspan(view.tcp_offset + tcp_header_bytes, view.option_bytes());
}

bool is_fast_open(std::uint8_t kind, std::span<const std::byte> option) {
    return kind == option_fast_open || (kind == option_experiment && option.size() >= 4 &&
                                        load16(option.data() + 2) == experiment_fast_open);
}

}  // namespace

std::size_t build_acknowledgement(std::span<std::byte> out, const Adjacency& adjacency,
                                  const FlowKey& leg, const SegmentFields& fields) {
    return build(out, adjacency, leg, tcp_ack, fields);
}

std::size_t build_reset(std::span<std::byte> out, const Adjacency& adjacency, const FlowKey& leg,
                        const SegmentFields& fields) {
    return build(out, adjacency, leg, tcp_rst | tcp_ack, fields);
}

std::size_t strip_payload(std::span<const std::byte> frame, const TcpView& view,
                          std::span<std::byte> out) {
    BORE_CHECK(out.size() >= view.payload_offset, "no room for the headers");
    const std::span<std::byte> copy = out.first(view.payload_offset);
    std::memcpy(copy.data(), frame.data(), copy.size());
    ChecksumUpdate checksum(copy, view);
    checksum.removes_payload(frame, view);
    clear_flags(copy, view, tcp_fin | tcp_psh | tcp_urg);
    store16(copy.data() + view.tcp_offset + tcp_urgent_at, 0);
    checksum.settle(copy, view);
    end_behind_header(copy, view);
    return copy.size();
}

SynReport sanitize_syn(std::span<std::byte> frame, const TcpView& view) {
    SynReport report{.length_bytes = static_cast<std::uint16_t>(frame.size())};
    const std::span<std::byte> options = options_of(frame, view);
    report.has_malformed_options = !for_each_option(options, [&](std::uint8_t kind, auto option) {
        report.is_signed |= kind == option_authentication || kind == option_md5_signature;
        report.asked_for_multipath |= kind == option_multipath;
        report.asked_for_fast_open |= is_fast_open(kind, option);
    });
    std::byte* offset_and_reserved = frame.data() + view.tcp_offset + tcp_flags_at - 1;
    report.asked_for_ecn = (view.flags & (tcp_ece | tcp_cwr)) != 0 ||
                           (load8(offset_and_reserved) & accurate_ecn_flag) != 0;
    if (report.is_signed) {
        return report;
    }
    ChecksumUpdate checksum(frame, view);
    checksum.removes_payload(frame, view);
    clear_flags(frame, view, tcp_ece | tcp_cwr);
    store8(offset_and_reserved,
           static_cast<std::uint8_t>(load8(offset_and_reserved) & ~accurate_ecn_flag));
    for_each_option(options, [](std::uint8_t kind, auto option) {
        if (kind == option_multipath || is_fast_open(kind, option)) {
            std::ranges::fill(option, std::byte{option_nop});
        }
    });
    checksum.settle(frame, view);
    end_behind_header(frame, view);
    report.length_bytes = view.payload_offset;
    return report;
}

bool clamp_mss(std::span<std::byte> frame, const TcpView& view, std::uint16_t most) {
    ChecksumUpdate checksum(frame, view);
    bool lowered = false;
    // What stands behind a malformed option is not read by the peer either.
    (void)for_each_option(options_of(frame, view), [&](std::uint8_t kind, auto option) {
        if (kind == option_mss && option.size() == 4 && load16(option.data() + 2) > most) {
            store16(option.data() + 2, most);
            lowered = true;
        }
    });
    if (lowered) {
        checksum.settle(frame, view);
    }
    return lowered;
}

}  // namespace bore::packet
