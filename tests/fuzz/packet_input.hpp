// What the packet targets share: a spliced flow drawn from the input, frames in buffers of exactly
// their size, so that a byte too far is one that the address sanitizer sees, and checksums made
// right, which a fuzzer would never find.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "dataplane/base/check.hpp"
#include "dataplane/packet/parse.hpp"
#include "tests/fuzz/fuzz_input.hpp"
#include "tests/packet/frames.hpp"
#include "tests/packet/spliced_pair.hpp"

namespace bore::fuzz {

using packet::test::Bytes;

inline Bytes bytes_of(const std::string& text) {
    return packet::test::text(text);
}

inline std::unique_ptr<packet::test::SplicedPair> make_pair_of(std::uint8_t choices, bool v6) {
    packet::test::Variant variant{.name = "drawn", .v6 = v6};
    variant.tagged_in = (choices & 0x01U) != 0;
    variant.tagged_out = (choices & 0x02U) != 0;
    if ((choices & 0x80U) != 0) {  // near the wrap
        variant.visitor_snd_nxt = 0xffff'fff0;
        variant.client_rcv_nxt = 0xffff'ff00;
    }
    packet::FlowState state = packet::test::usual_state(variant);
    state.legs[0].timestamps = (choices & 0x04U) != 0;
    state.legs[1].timestamps = (choices & 0x08U) != 0;
    for (packet::LegState& leg : state.legs) {
        leg.sack = (choices & 0x10U) != 0;
    }
    if ((choices & 0x20U) != 0) {  // segments of the visitor may have to be split
        state.legs[1].peer_mss = 536;
    }
    if ((choices & 0x40U) != 0) {
        state.ack_hold_back = 40;
        state.ack_hold_until_ms = 0x7fff'ffff;
    }
    return std::make_unique<packet::test::SplicedPair>(variant, state);
}

// A flow as if it had just been installed. Tables are made once, for that takes longer than a run.
inline packet::test::SplicedPair& draw_pair(std::uint8_t choices, bool v6) {
    static std::map<std::pair<std::uint8_t, bool>, std::unique_ptr<packet::test::SplicedPair>>
        pairs;
    auto& pair = pairs[{choices, v6}];
    if (!pair) {
        pair = make_pair_of(choices, v6);
    } else {
        pair->table->remove(pair->flow);
        pair->table->collect();
        pair->flow = pair->install_in(*pair->table);
    }
    return *pair;
}

// A frame between bytes that are not its own by as much as a port promises, and not by one more.
class ExactFrame {
  public:
    ExactFrame(std::span<const std::byte> bytes, std::size_t headroom_bytes,
               std::size_t tailroom_bytes)
        : size_(headroom_bytes + bytes.size() + tailroom_bytes),
          buffer_(std::make_unique<std::byte[]>(size_)) {
        if (!bytes.empty()) {
            std::memcpy(buffer_.get() + headroom_bytes, bytes.data(), bytes.size());
        }
        frame.data = buffer_.get() + headroom_bytes;
        frame.length_bytes = static_cast<std::uint16_t>(bytes.size());
        frame.headroom_bytes = static_cast<std::uint16_t>(headroom_bytes);
        frame.tailroom_bytes = static_cast<std::uint16_t>(tailroom_bytes);
        frame.buffer = buffer_.get();
    }

    // What a frame says of its place in this buffer is true.
    void check(const packet::Frame& what) const {
        BORE_CHECK(what.buffer == buffer_.get(), "a frame of another buffer");
        BORE_CHECK(what.data == buffer_.get() + what.headroom_bytes, "headroom miscounted");
        // The room behind a frame is told of fresh buffers only.
        BORE_CHECK(std::size_t{what.headroom_bytes} + what.length_bytes <= size_,
                   "a frame that ends behind its buffer");
    }

    packet::Frame frame;

  private:
    std::size_t size_;
    std::unique_ptr<std::byte[]> buffer_;
};

// The sum that IPv6 and TCP, UDP or ICMPv6 put in front of their own.
inline std::uint16_t transport_checksum(std::span<const std::byte> ip_packet, bool v6,
                                        std::size_t header_bytes, std::uint8_t protocol) {
    const std::size_t bytes = ip_packet.size() - header_bytes;
    const std::size_t addresses_at = v6 ? 8 : 12;
    Bytes whole(ip_packet.begin() + static_cast<std::ptrdiff_t>(addresses_at),
                ip_packet.begin() + static_cast<std::ptrdiff_t>(addresses_at + (v6 ? 32 : 8)));
    whole.resize(whole.size() + 4);
    packet::store16(whole.data() + whole.size() - 4, protocol);
    packet::store16(whole.data() + whole.size() - 2, static_cast<std::uint16_t>(bytes));
    whole.insert(whole.end(), ip_packet.begin() + static_cast<std::ptrdiff_t>(header_bytes),
                 ip_packet.end());
    return packet::test::full_checksum(whole);
}

inline void fix_checksums(std::span<std::byte> frame, const packet::TcpView& view) {
    using packet::store16;
    std::byte* ip = frame.data() + view.ip_offset;
    std::byte* tcp = frame.data() + view.tcp_offset;
    const std::size_t header_bytes = std::size_t{view.tcp_offset} - view.ip_offset;
    if (!view.v6) {
        store16(ip + 10, 0);
        store16(ip + 10, packet::test::full_checksum({ip, header_bytes}));
    }
    store16(tcp + 16, 0);
    store16(tcp + 16, transport_checksum({ip, view.end_offset() - view.ip_offset}, view.v6,
                                         header_bytes, packet::protocol_tcp));
}

// The addresses and ports of a packet from `source` to `destination`.
inline void put_ends(std::byte* ip, std::byte* ports, bool v6,
                     const std::array<std::uint8_t, 16>& source,
                     const std::array<std::uint8_t, 16>& destination, std::uint16_t source_port,
                     std::uint16_t destination_port) {
    const std::size_t bytes = v6 ? 16 : 4;
    std::byte* at = ip + (v6 ? 8 : 12);
    std::memcpy(at, source.data() + (16 - bytes), bytes);
    std::memcpy(at + bytes, destination.data() + (16 - bytes), bytes);
    packet::store16(ports, source_port);
    packet::store16(ports + 2, destination_port);
}

}  // namespace bore::fuzz
