// Frames for tests: builders with every field open, and a second implementation of the Internet
// checksum, kept apart from the product's so that one can judge the other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dataplane/packet/flow_entry.hpp"
#include "dataplane/packet/frame.hpp"

namespace bore::packet::test {

using Bytes = std::vector<std::byte>;

// A TCP segment in an Ethernet frame. Addresses as FlowKey has them: IPv4 ones mapped. Both must be
// of one family.
struct Segment {
    std::array<std::uint8_t, 6> destination_mac{2, 0, 0, 0, 0, 1};
    std::array<std::uint8_t, 6> source_mac{2, 0, 0, 0, 0, 2};
    std::optional<std::uint16_t> vlan;     // tag control information
    std::uint16_t vlan_ethertype{0x8100};  // or 0x88a8
    std::array<std::uint8_t, 16> source{};
    std::array<std::uint8_t, 16> destination{};
    std::uint16_t source_port{0};
    std::uint16_t destination_port{0};
    std::uint8_t traffic_class{0};  // DSCP << 2 | ECN
    std::uint32_t flow_label{0};    // IPv6
    std::uint16_t identification{0};
    std::uint16_t fragment{0x4000};  // flags and offset: don't fragment
    std::uint8_t hop_limit{64};
    std::uint8_t protocol{6};
    std::uint32_t sequence{0};
    std::uint32_t acknowledgement{0};
    std::uint8_t flags{tcp_ack};
    std::uint8_t reserved_flags{0};
    std::uint16_t window{1000};
    std::uint16_t urgent_pointer{0};
    Bytes options;  // padded to words with option_end by build()
    Bytes payload;
    Bytes ip_options;                 // IPv4; a multiple of four bytes
    std::size_t padding_bytes{0};     // behind the IP packet
    std::uint16_t checksum_error{0};  // XORed into the right TCP checksum
};

[[nodiscard]] std::array<std::uint8_t, 16> ipv4(std::uint8_t a, std::uint8_t b, std::uint8_t c,
                                                std::uint8_t d);
[[nodiscard]] std::array<std::uint8_t, 16> ipv6(std::uint16_t network, std::uint16_t host);
// From the peer of a leg to the relay, and back.
[[nodiscard]] Segment segment_from_peer(const FlowKey& key);
[[nodiscard]] Segment segment_to_peer(const FlowKey& key);

[[nodiscard]] Bytes build(const Segment& segment);
// What build() was given, read again from the bytes. Nothing when it is not a well-formed segment
// of whole length with right checksums (IPv4 header and TCP); `why` then says what is wrong.
[[nodiscard]] std::optional<Segment> read(std::span<const std::byte> frame, std::string* why);

// Options, to be strung together with join().
[[nodiscard]] Bytes join(std::initializer_list<Bytes> parts);
[[nodiscard]] Bytes nops(std::size_t count);
[[nodiscard]] Bytes timestamps(std::uint32_t value, std::uint32_t echo);  // 10 bytes
[[nodiscard]] Bytes sack(std::initializer_list<std::pair<std::uint32_t, std::uint32_t>> blocks);
[[nodiscard]] Bytes usual_timestamps(std::uint32_t value, std::uint32_t echo);  // 2 NOPs before

[[nodiscard]] Bytes text(std::string_view characters);
// Bytes that differ from their neighbours, by position in a stream.
[[nodiscard]] Bytes stream_bytes(std::uint32_t position, std::size_t count);

// The sum over 16-bit words that RFC 1071 describes, word by word, folded and complemented.
[[nodiscard]] std::uint16_t full_checksum(std::span<const std::byte> bytes,
                                          std::uint64_t initial_sum = 0);
// Empty when the checksums of IPv4 and TCP are right by the full sum, else what is wrong.
[[nodiscard]] std::string checksum_complaint(std::span<const std::byte> frame);

// A frame in a buffer of its own with room on both sides, as a port would show it.
class BufferedFrame {
  public:
    explicit BufferedFrame(std::span<const std::byte> bytes, std::size_t headroom_bytes = 128,
                           std::size_t tailroom_bytes = 64);

    Frame frame;
    [[nodiscard]] Bytes bytes() const { return {frame.data, frame.data + frame.length_bytes}; }

  private:
    std::vector<std::byte> buffer_;
};

}  // namespace bore::packet::test
