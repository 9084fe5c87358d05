// Any bytes as the options of a segment: the walker agrees with a naive one, and the rewriters of
// SYNs change what they should and nothing else, with right checksums before and after.
// Input: choices, flags, a word for the MSS, length of the payload, up to 40 bytes of options.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "dataplane/packet/segment.hpp"
#include "tests/fuzz/packet_input.hpp"

namespace {

using namespace bore::packet;
using bore::fuzz::Bytes;
using bore::fuzz::ExactFrame;

struct Option {
    std::uint8_t kind;
    std::size_t at, length;
};
struct Options {
    std::vector<Option> all;
    bool malformed{false};
};

Options model(const Bytes& options) {
    Options found;
    for (std::size_t at = 0; at < options.size();) {
        const auto kind = std::to_integer<std::uint8_t>(options[at]);
        if (kind == 0) {
            break;
        }
        std::size_t length = 1;
        if (kind != 1) {
            length = at + 1 < options.size() ? std::to_integer<std::size_t>(options[at + 1]) : 0;
            if (length < 2 || at + length > options.size()) {
                found.malformed = true;
                break;
            }
            found.all.push_back({kind, at, length});
        }
        at += length;
    }
    return found;
}

// What find_options() should say.
PacketReason judge(const Options& options) {
    int stamps = 0;
    int sacks = 0;
    for (const Option& option : options.all) {
        if (option.kind == 8) {
            ++stamps;
            if (option.length != 10) {
                return PacketReason::bad_options;
            }
        }
        if (option.kind == 5) {
            ++sacks;
            if (option.length < 10 || option.length > 34 || option.length % 8 != 2) {
                return PacketReason::bad_options;
            }
        }
    }
    const bool bad = options.malformed || stamps > 1 || sacks > 1;
    return bad ? PacketReason::bad_options : PacketReason::spliced;
}

void check_walker(std::span<const std::byte> frame, TcpView view, const Options& options) {
    const PacketReason reason = find_options(frame, view);
    BORE_CHECK(reason == judge(options), "the walker and the model disagree");
    if (reason != PacketReason::spliced) {
        return;
    }
    const std::size_t base = view.tcp_offset + tcp_header_bytes;
    std::size_t timestamp_offset = 0;
    std::size_t sack_offset = 0;
    std::size_t sack_blocks = 0;
    for (const Option& option : options.all) {
        if (option.kind == 8) {
            timestamp_offset = base + option.at + 2;
        } else if (option.kind == 5) {
            sack_offset = base + option.at + 2;
            sack_blocks = (option.length - 2) / 8;
        }
    }
    BORE_CHECK(view.timestamp_offset == timestamp_offset, "timestamps elsewhere");
    BORE_CHECK(view.sack_offset == sack_offset, "SACK elsewhere");
    BORE_CHECK(view.sack_blocks == sack_blocks, "another number of SACK blocks");
}

bool is_fast_open(const Option& option, const Bytes& bytes) {
    return option.kind == 34 || (option.kind == 254 && option.length >= 4 &&
                                 load16(bytes.data() + option.at + 2) == 0xf989);
}

void check_sanitizer(std::span<const std::byte> whole, const TcpView& view, const Options& options,
                     const Bytes& option_bytes) {
    const ExactFrame exact(whole, 0, 0);
    const SynReport report = sanitize_syn(exact.frame.bytes(), view);
    Bytes expected = option_bytes;
    bool is_signed = false;
    for (const Option& option : options.all) {
        is_signed = is_signed || option.kind == 19 || option.kind == 29;
        if (option.kind == 30 || is_fast_open(option, option_bytes)) {
            for (std::size_t at = option.at; at < option.at + option.length; ++at) {
                expected[at] = std::byte{1};
            }
        }
    }
    BORE_CHECK(report.is_signed == is_signed, "a signature overlooked or imagined");
    BORE_CHECK(report.has_malformed_options == options.malformed, "malformed options");
    const std::span<std::byte> after = exact.frame.bytes().first(report.length_bytes);
    if (is_signed) {
        BORE_CHECK(std::ranges::equal(after, whole), "a signed SYN was changed");
        return;
    }
    BORE_CHECK(report.length_bytes == view.payload_offset, "payload stays");
    BORE_CHECK(bore::packet::test::checksum_complaint(after).empty(), "sanitized: checksum");
    BORE_CHECK((load8(after.data() + view.tcp_offset + 13) & (tcp_ece | tcp_cwr)) == 0, "ECN");
    BORE_CHECK(std::ranges::equal(after.subspan(view.tcp_offset + tcp_header_bytes), expected),
               "other options than expected");
}

void check_clamp(std::span<const std::byte> whole, const TcpView& view, const Options& options,
                 const Bytes& option_bytes, std::uint16_t most) {
    const ExactFrame exact(whole, 0, 0);
    const bool lowered = clamp_mss(exact.frame.bytes(), view, most);
    Bytes expected = option_bytes;
    for (const Option& option : options.all) {
        std::byte* at = expected.data() + option.at;
        if (option.kind == 2 && option.length == 4 && load16(at + 2) > most) {
            store16(at + 2, most);
        }
    }
    BORE_CHECK(lowered == (expected != option_bytes), "lowered or not");
    BORE_CHECK(std::ranges::equal(exact.frame.bytes().subspan(view.tcp_offset + tcp_header_bytes,
                                                              option_bytes.size()),
                                  expected),
               "clamped: other options than expected");
    BORE_CHECK(bore::packet::test::checksum_complaint(exact.frame.bytes()).empty(),
               "clamped: checksum");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input{data, size};
    const std::uint8_t choices = input.byte();
    const bool v6 = (choices & 0x01U) != 0;
    bore::packet::test::Segment segment;
    segment.source = v6 ? bore::packet::test::ipv6(1, 2) : bore::packet::test::ipv4(192, 0, 2, 1);
    segment.destination =
        v6 ? bore::packet::test::ipv6(3, 4) : bore::packet::test::ipv4(192, 0, 2, 2);
    if ((choices & 0x02U) != 0) {
        segment.vlan = std::uint16_t{7};
    }
    segment.padding_bytes = choices >> 5U;
    segment.reserved_flags = static_cast<std::uint8_t>(choices >> 2U & 1U);
    segment.flags = input.byte();
    const auto most = static_cast<std::uint16_t>(input.byte() << 8U | input.byte());
    segment.payload = bore::packet::test::stream_bytes(0, input.byte());
    segment.options = bore::fuzz::bytes_of(input.text(max_tcp_option_bytes));
    const ExactFrame exact(bore::packet::test::build(segment), 0, 0);
    const std::span<const std::byte> frame = exact.frame.bytes();

    TcpView view;
    BORE_CHECK(parse(frame, view) == PacketReason::spliced, "a good frame does not parse");
    Bytes option_bytes = segment.options;
    option_bytes.resize((option_bytes.size() + 3) / 4 * 4);
    const Options options = model(option_bytes);
    check_walker(frame, view, options);
    check_sanitizer(frame, view, options, option_bytes);
    check_clamp(frame, view, options, option_bytes, most);

    const ExactFrame room(Bytes(view.payload_offset), 0, 0);
    const std::size_t stripped = strip_payload(frame, view, room.frame.bytes());
    BORE_CHECK(stripped == view.payload_offset, "stripped to another length");
    BORE_CHECK(bore::packet::test::checksum_complaint(room.frame.bytes()).empty(),
               "stripped: checksum");
    return 0;
}
