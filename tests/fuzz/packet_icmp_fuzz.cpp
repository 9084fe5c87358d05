// Any bytes as an ICMP error about a spliced flow. Nothing may be read or written out of bounds;
// what is translated has right checksums, the other leg's addresses outside and inside, a sequence
// number that its peer has under way, and a size that is sane.
// Input: the flow's choices, choices, the frame.
#include <cstdint>
#include <optional>

#include "dataplane/packet/icmp.hpp"
#include "tests/fuzz/packet_input.hpp"

namespace {

using namespace bore::packet;
using bore::abi::Leg;
using bore::fuzz::Bytes;
using bore::fuzz::ExactFrame;

constexpr std::uint32_t under_way_bytes = 5'000;

struct Place {
    std::size_t ip, icmp, embedded_ip, embedded_tcp, end;
    bool v6;
};

// Where the headers of an error are when nothing stands between them. Nothing when the frame is too
// short for ports and sequence number.
std::optional<Place> place_of(std::span<const std::byte> frame) {
    if (frame.size() < 18) {
        return std::nullopt;
    }
    const bool tagged = load16(frame.data() + 12) == 0x8100 || load16(frame.data() + 12) == 0x88a8;
    Place place{};
    place.ip = tagged ? 18 : 14;
    place.v6 = load16(frame.data() + place.ip - 2) == 0x86dd;
    const std::size_t header_bytes = place.v6 ? 40 : 20;
    place.icmp = place.ip + header_bytes;
    place.embedded_ip = place.icmp + 8;
    place.embedded_tcp = place.embedded_ip + header_bytes;
    if (frame.size() < place.embedded_tcp + 8) {
        return std::nullopt;
    }
    place.end = place.ip + (place.v6 ? 40 + load16(frame.data() + place.ip + 4)
                                     : load16(frame.data() + place.ip + 2));
    return place;
}

// Addresses of `from`'s segments on the other leg, a number under way, right checksums.
void adopt(Bytes& bytes, Place& place, std::uint8_t choices,
           const bore::packet::test::SplicedPair& pair) {
    const Leg from = (choices & 0x01U) != 0 ? Leg::client : Leg::visitor;
    const LegState& out = pair.leg(bore::packet::test::opposite(from));
    std::byte* ip = bytes.data() + place.ip;
    std::byte* embedded = bytes.data() + place.embedded_ip;
    std::byte* tcp = bytes.data() + place.embedded_tcp;
    if ((choices & 0x02U) != 0) {
        bore::fuzz::put_ends(embedded, tcp, place.v6, out.key.own_address, out.key.peer_address,
                             out.key.own_port, out.key.peer_port);
        const std::size_t address_bytes = place.v6 ? 16 : 4;
        std::memcpy(ip + (place.v6 ? 24 : 16), out.key.own_address.data() + (16 - address_bytes),
                    address_bytes);
        store8(embedded + (place.v6 ? 6 : 9), protocol_tcp);
    }
    if ((choices & 0x04U) != 0) {
        store32(tcp + 4, out.snd_nxt + load32(tcp + 4) % (under_way_bytes + 100));
    }
    if ((choices & 0x08U) != 0) {  // the length that is there
        const std::size_t length = bytes.size() - place.ip;
        place.end = bytes.size();
        store16(ip + (place.v6 ? 4 : 2),
                static_cast<std::uint16_t>(place.v6 ? length - 40 : length));
    }
    if ((choices & 0x10U) != 0 && place.end <= bytes.size() && place.end >= place.icmp + 8) {
        const std::span<std::byte> packet(ip, place.end - place.ip);
        std::byte* icmp = bytes.data() + place.icmp;
        store16(icmp + 2, 0);
        store16(icmp + 2, place.v6 ? bore::fuzz::transport_checksum(packet, true, 40, 58)
                                   : bore::packet::test::full_checksum(packet.subspan(20)));
        if (!place.v6) {
            store16(ip + 10, 0);
            store16(ip + 10, bore::packet::test::full_checksum(packet.first(20)));
        }
    }
}

void check_translated(std::span<std::byte> frame, const IcmpResult& result,
                      const bore::packet::test::SplicedPair& pair) {
    const std::optional<Place> place = place_of(frame);
    BORE_CHECK(place.has_value() && place->end == frame.size(), "another length than it says");
    const bool to_visitor = result.port_index == bore::packet::test::visitor_port;
    const LegState& leg = pair.leg(to_visitor ? Leg::visitor : Leg::client);
    const std::size_t address_bytes = place->v6 ? 16 : 4;
    const auto is = [&](std::size_t at, const std::array<std::uint8_t, 16>& address) {
        return std::memcmp(frame.data() + at, address.data() + (16 - address_bytes),
                           address_bytes) == 0;
    };
    const std::size_t source = place->v6 ? 8 : 12;
    BORE_CHECK(is(place->ip + source, leg.key.own_address), "not from the relay");
    BORE_CHECK(is(place->ip + source + address_bytes, leg.key.peer_address), "not to the peer");
    BORE_CHECK(is(place->embedded_ip + source, leg.key.peer_address), "not about the peer");
    BORE_CHECK(is(place->embedded_ip + source + address_bytes, leg.key.own_address), "not to us");
    const std::byte* tcp = frame.data() + place->embedded_tcp;
    BORE_CHECK(load16(tcp) == leg.key.peer_port && load16(tcp + 2) == leg.key.own_port, "ports");
    BORE_CHECK(load32(tcp + 4) - leg.rcv_nxt < under_way_bytes, "not under way");
    const std::span<std::byte> packet = frame.subspan(place->ip);
    const std::byte* icmp = frame.data() + place->icmp;
    if (place->v6) {
        BORE_CHECK(bore::fuzz::transport_checksum(packet, true, 40, 58) == 0, "checksum");
        BORE_CHECK(load8(icmp) != 2 || load32(icmp + 4) >= 1'280, "a size too small");
    } else {
        BORE_CHECK(bore::packet::test::full_checksum(packet.first(20)) == 0, "header checksum");
        BORE_CHECK(bore::packet::test::full_checksum(packet.subspan(20)) == 0, "checksum");
        BORE_CHECK(load16(icmp) != 0x0304 || load16(icmp + 6) >= 540, "a size too small");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input{data, size};
    const std::uint8_t flow_choices = input.byte();
    const std::uint8_t choices = input.byte();
    Bytes bytes = bore::fuzz::bytes_of(input.text(2'048));
    std::optional<Place> place = place_of(bytes);

    const bool v6 = (place && place->v6) != ((choices & 0x20U) != 0);
    bore::packet::test::SplicedPair& pair = bore::fuzz::draw_pair(flow_choices, v6);
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        pair.entry(leg).next_sequence.store(pair.leg(leg).rcv_nxt + under_way_bytes);
    }
    if (place) {
        adopt(bytes, *place, choices, pair);
    }
    const ExactFrame in(bytes, 0, 0);
    const ExactFrame out(Bytes(bytes.size() + max_icmp_growth_bytes), 0, 0);
    const IcmpResult result = translate_icmp(*pair.table, in.frame.bytes(), out.frame.bytes());
    BORE_CHECK((result.verdict == IcmpVerdict::translated) == (result.length_bytes != 0),
               "a length without a frame");
    BORE_CHECK((result.verdict == IcmpVerdict::translated) == (result.reason == IcmpReason::none),
               "no reason");
    if (result.verdict == IcmpVerdict::translated) {
        check_translated(out.frame.bytes().first(result.length_bytes), result, pair);
    }
    return 0;
}
