// ICMP errors about spliced segments. The expectation is made the other way round: a peer's segment
// is written down as it was sent and as the relay sent it on; the complaint about the second must
// become, byte by byte, the complaint about the first.
#include "dataplane/packet/icmp.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>

#include "dataplane/packet/parse.hpp"
#include "tests/packet/frames.hpp"

namespace bore::packet::test {
namespace {

// A flow, and what has happened on it: each peer has sent 20,000 bytes and had 10,000 acknowledged.
struct World {
    bool v6;
    bool tagged;  // the client's leg is behind a VLAN tag
    bool visitor_timestamps{false};
    bool client_timestamps{false};

    std::unique_ptr<TableMemory> memory = make_ordinary_memory();
    std::unique_ptr<FlowTable> table;
    FlowState state;
    FlowIndex flow{0};

    explicit World(bool is_v6, bool is_tagged = false, bool visitor_stamps = false,
                   bool client_stamps = false)
        : v6(is_v6),
          tagged(is_tagged),
          visitor_timestamps(visitor_stamps),
          client_timestamps(client_stamps) {
        table = FlowTable::make(*memory, 16, 1, 42).value();
        fill(state.legs[0], 7, 0x1000'0000, 0xffff'f000, visitor_timestamps);
        fill(state.legs[1], 9, 0x8000'0000, 0x0000'0040, client_timestamps);
        const std::uint16_t ethertype = v6 ? ethertype_ipv6 : ethertype_ipv4;
        state.legs[0].adjacency = neighbour(ethertype, 0x77, false, 3);
        state.legs[1].adjacency = neighbour(ethertype, 0x88, tagged, 5);
        flow = table->install(state, 0).value();
        for (const abi::Leg leg : {abi::Leg::visitor, abi::Leg::client}) {
            const LegState& in = state.legs[static_cast<std::size_t>(leg)];
            DirectionEntry& entry = table->direction(direction_of(flow, leg));
            entry.next_sequence.store(in.rcv_nxt + 20'000);
            entry.acknowledged.store(in.snd_nxt + 10'000);
        }
    }

    void fill(LegState& leg, std::uint8_t peer, std::uint32_t snd_nxt, std::uint32_t rcv_nxt,
              bool timestamps) const {
        leg.key.peer_address = v6 ? ipv6(peer, peer) : ipv4(198, 51, 100, peer);
        leg.key.own_address = v6 ? ipv6(1, peer) : ipv4(192, 0, 2, peer);
        leg.key.peer_port = static_cast<std::uint16_t>(40'000 + peer);
        leg.key.own_port = static_cast<std::uint16_t>(20'000 + peer);
        leg.snd_nxt = snd_nxt;
        leg.rcv_nxt = rcv_nxt;
        leg.timestamps = timestamps;
        leg.sack = true;
    }

    std::uint16_t neighbour(std::uint16_t ethertype, std::uint8_t last, bool with_tag,
                            std::uint8_t port) const {
        Bytes header = text(std::string{2, 0, 0, 0, 0, static_cast<char>(last)});
        header = join({header, text("\x02relay")});
        if (with_tag) {
            header = join({header, text(std::string_view("\x81\x00\x00\x2a", 4))});
        }
        header.push_back(static_cast<std::byte>(ethertype >> 8U));
        header.push_back(static_cast<std::byte>(ethertype & 0xffU));
        return table->adjacency(header, port).value();
    }

    // The peer of `from` sends bytes from `offset` on, and acknowledges all it got.
    [[nodiscard]] Segment as_sent(abi::Leg from, std::uint32_t offset) const {
        const LegState& in = state.legs[static_cast<std::size_t>(from)];
        Segment segment = segment_from_peer(in.key);
        segment.sequence = in.rcv_nxt + offset;
        segment.acknowledgement = in.snd_nxt + 10'000;
        segment.payload = stream_bytes(offset, 1'400);
        return segment;
    }
    // The same segment on the other leg.
    [[nodiscard]] Segment as_sent_on(abi::Leg from, std::uint32_t offset) const {
        const LegState& in = state.legs[static_cast<std::size_t>(from)];
        const LegState& out = state.legs[1 - static_cast<std::size_t>(from)];
        Segment segment = as_sent(from, offset);
        const Segment ends = segment_to_peer(out.key);
        segment.source = ends.source;
        segment.destination = ends.destination;
        segment.source_port = ends.source_port;
        segment.destination_port = ends.destination_port;
        segment.sequence += out.snd_nxt - in.rcv_nxt;
        segment.acknowledgement += out.rcv_nxt - in.snd_nxt;
        return segment;
    }
};

struct Error {
    std::uint8_t type{3};
    std::uint8_t code{4};
    std::uint32_t size_bytes{1'400};  // in its place for "too big"
    std::uint8_t hop_limit{60};
    std::size_t tcp_bytes{20 + 1'400};  // of the embedded segment
    std::size_t padding_bytes{0};
};

void put(Bytes& to, std::span<const std::uint8_t> bytes) {
    for (const std::uint8_t byte : bytes) {
        to.push_back(static_cast<std::byte>(byte));
    }
}
void append(Bytes& to, std::uint64_t value, std::size_t count) {
    for (std::size_t shift = count; shift-- > 0;) {
        to.push_back(static_cast<std::byte>(value >> (8 * shift)));
    }
}

// The IP packet of an error about `segment`, with right checksums.
Bytes error_packet(const Segment& segment, const Error& error,
                   const std::array<std::uint8_t, 16>& source,
                   const std::array<std::uint8_t, 16>& destination) {
    const bool v6 = !FlowKey{.peer_address = source}.is_v4();
    Bytes icmp;
    append(icmp, error.type, 1);
    append(icmp, error.code, 1);
    append(icmp, 0, 2);
    append(icmp, error.size_bytes, 4);
    const Bytes frame = build(segment);
    const std::size_t most = (v6 ? 40 : 20) + error.tcp_bytes;
    const std::span<const std::byte> embedded = std::span(frame).subspan(14);
    icmp.insert(icmp.end(), embedded.begin(),
                embedded.begin() + static_cast<std::ptrdiff_t>(std::min(most, embedded.size())));
    Bytes pseudo;
    if (v6) {
        put(pseudo, source);
        put(pseudo, destination);
        append(pseudo, icmp.size(), 4);
        append(pseudo, 58, 4);
    }
    store16(icmp.data() + 2, full_checksum(join({pseudo, icmp})));
    Bytes packet;
    if (v6) {
        append(packet, 0x6000'0000, 4);
        append(packet, icmp.size(), 2);
        append(packet, 58, 1);
        append(packet, error.hop_limit, 1);
        put(packet, source);
        put(packet, destination);
    } else {
        append(packet, 0x4500, 2);
        append(packet, 20 + icmp.size(), 2);
        append(packet, 0, 4);
        append(packet, error.hop_limit, 1);
        append(packet, 1, 1);
        append(packet, 0, 2);
        put(packet, std::span(source).subspan(12));
        put(packet, std::span(destination).subspan(12));
        store16(packet.data() + 10, full_checksum(packet));
    }
    return join({packet, icmp});
}

std::array<std::uint8_t, 16> router(bool v6) {
    return v6 ? ipv6(0xff, 0xff) : ipv4(203, 0, 113, 1);
}

// The frame in which the relay hears about what it sent on.
Bytes error_frame(const World& world, const Segment& sent_on, const Error& error) {
    Bytes frame(12, std::byte{0x02});
    append(frame, world.v6 ? ethertype_ipv6 : ethertype_ipv4, 2);
    frame = join({frame, error_packet(sent_on, error, router(world.v6), sent_on.source)});
    frame.resize(frame.size() + error.padding_bytes);
    return frame;
}

struct Answer {
    IcmpResult result;
    Bytes frame;
};
Answer translate(const World& world, const Bytes& frame) {
    Answer answer;
    answer.frame.resize(frame.size() + max_icmp_growth_bytes);
    answer.result = translate_icmp(*world.table, frame, answer.frame);
    answer.frame.resize(answer.result.length_bytes);
    return answer;
}

Bytes expected_frame(const World& world, abi::Leg from, const Segment& sent, Error error,
                     std::uint32_t size_bytes) {
    const LegState& leg = world.state.legs[static_cast<std::size_t>(from)];
    const Adjacency& adjacency = world.table->adjacency_at(leg.adjacency);
    const Bytes header(adjacency.header.begin(), adjacency.header.begin() + adjacency.header_bytes);
    --error.hop_limit;
    error.size_bytes = size_bytes;
    return join({header, error_packet(sent, error, leg.key.own_address, leg.key.peer_address)});
}

// ---- What is translated

struct Kind {
    bool v6;
    std::uint8_t type, code;
    std::uint32_t size_bytes;
};
constexpr std::array kinds{
    Kind{false, 3, 4, 1'400}, Kind{false, 3, 0, 0},   Kind{false, 3, 1, 0},  Kind{false, 3, 3, 0},
    Kind{false, 3, 13, 0},    Kind{false, 11, 0, 0},  Kind{false, 11, 1, 0}, Kind{false, 12, 0, 0},
    Kind{true, 2, 0, 1'400},  Kind{true, 1, 0, 0},    Kind{true, 1, 4, 0},   Kind{true, 3, 0, 0},
    Kind{true, 3, 1, 0},      Kind{true, 4, 2, 0x28},
};

TEST(IcmpTest, AnErrorBecomesOneAboutTheSegmentAsItWasSent) {
    for (const Kind& kind : kinds) {
        for (const abi::Leg from : {abi::Leg::visitor, abi::Leg::client}) {
            for (const bool tagged : {false, true}) {
                const World world(kind.v6, tagged);
                const Error error{
                    .type = kind.type, .code = kind.code, .size_bytes = kind.size_bytes};
                const Bytes frame = error_frame(world, world.as_sent_on(from, 15'000), error);
                const Answer answer = translate(world, frame);
                SCOPED_TRACE("type " + std::to_string(kind.type) + " code " +
                             std::to_string(kind.code) + (kind.v6 ? " v6" : " v4"));
                ASSERT_EQ(answer.result.verdict, IcmpVerdict::translated)
                    << static_cast<int>(answer.result.reason);
                EXPECT_EQ(answer.result.port_index, from == abi::Leg::visitor ? 3 : 5);
                EXPECT_EQ(answer.frame, expected_frame(world, from, world.as_sent(from, 15'000),
                                                       error, kind.size_bytes));
            }
        }
    }
}

// Independent of the product's sums. Empty when right.
std::string icmp_complaint(const Bytes& frame, std::size_t ip, bool v6) {
    const Bytes packet(frame.begin() + static_cast<std::ptrdiff_t>(ip), frame.end());
    const std::ptrdiff_t header_bytes = v6 ? 40 : 20;
    const Bytes header(packet.begin(), packet.begin() + header_bytes);
    const Bytes icmp(packet.begin() + header_bytes, packet.end());
    if (!v6) {
        return full_checksum(header) != 0 ? "IPv4" : full_checksum(icmp) != 0 ? "ICMP" : "";
    }
    Bytes pseudo(header.begin() + 8, header.end());
    append(pseudo, icmp.size(), 4);
    append(pseudo, 58, 4);
    return full_checksum(join({pseudo, icmp})) != 0 ? "ICMPv6" : "";
}

// A number of which only a part is there cannot be translated and stays as it is.
constexpr std::array<std::size_t, 4> cut_through_a_field{9, 10, 11, 17};

TEST(IcmpTest, AsMuchOfTheSegmentAsThereIs) {
    for (const bool v6 : {false, true}) {
        const World world(v6);
        for (std::size_t tcp_bytes = 8; tcp_bytes <= 40; ++tcp_bytes) {
            SCOPED_TRACE(tcp_bytes);
            const Error error{.type = static_cast<std::uint8_t>(v6 ? 2 : 3),
                              .code = static_cast<std::uint8_t>(v6 ? 0 : 4),
                              .tcp_bytes = tcp_bytes,
                              .padding_bytes = tcp_bytes % 3};
            const Bytes frame =
                error_frame(world, world.as_sent_on(abi::Leg::client, 10'000), error);
            const Answer answer = translate(world, frame);
            ASSERT_EQ(answer.result.verdict, IcmpVerdict::translated);
            EXPECT_EQ(icmp_complaint(answer.frame, 14, v6), "");
            if (std::ranges::find(cut_through_a_field, tcp_bytes) == cut_through_a_field.end()) {
                EXPECT_EQ(answer.frame,
                          expected_frame(world, abi::Leg::client,
                                         world.as_sent(abi::Leg::client, 10'000), error, 1'400));
            }
        }
    }
}

TEST(IcmpTest, ThePacketSizeLeavesRoomForTimestampsThatTheRelayInserts) {
    struct Case {
        bool v6, visitor, client;
        std::uint32_t size_bytes, expected_bytes;
    };
    const std::array cases{
        Case{false, false, false, 1'400, 1'400}, Case{false, true, true, 1'400, 1'400},
        Case{false, false, true, 1'400, 1'388},  Case{false, true, false, 1'400, 1'400},
        Case{true, false, true, 1'400, 1'388},   Case{true, false, true, 1'280, 1'280},
    };
    for (const Case& one : cases) {  // the visitor sends, the client's leg has the narrow path
        const World world(one.v6, false, one.visitor, one.client);
        const Error error{.type = static_cast<std::uint8_t>(one.v6 ? 2 : 3),
                          .code = static_cast<std::uint8_t>(one.v6 ? 0 : 4),
                          .size_bytes = one.size_bytes};
        const Answer answer = translate(
            world, error_frame(world, world.as_sent_on(abi::Leg::visitor, 12'000), error));
        ASSERT_EQ(answer.result.verdict, IcmpVerdict::translated);
        EXPECT_EQ(answer.frame,
                  expected_frame(world, abi::Leg::visitor, world.as_sent(abi::Leg::visitor, 12'000),
                                 error, one.expected_bytes));
    }
}

// ---- What is not

IcmpReason reason_for(const World& world, const Bytes& frame, IcmpVerdict verdict) {
    const Answer answer = translate(world, frame);
    EXPECT_EQ(answer.result.verdict, verdict) << static_cast<int>(answer.result.reason);
    EXPECT_TRUE(answer.frame.empty());
    return answer.result.reason;
}

TEST(IcmpTest, OnlySegmentsUnderWayAreBelieved) {
    const World world(false);
    for (const auto& [offset, believed] :
         {std::pair{9'999U, false}, std::pair{10'000U, true}, std::pair{19'999U, true},
          std::pair{20'000U, false}, std::pair{0x8000'0000U, false}}) {
        SCOPED_TRACE(offset);
        const Bytes frame =
            error_frame(world, world.as_sent_on(abi::Leg::visitor, offset), Error{});
        const Answer answer = translate(world, frame);
        EXPECT_EQ(answer.result.verdict, believed ? IcmpVerdict::translated : IcmpVerdict::ignored);
        EXPECT_EQ(answer.result.reason, believed ? IcmpReason::none : IcmpReason::not_under_way);
    }
}

TEST(IcmpTest, SizesThatNoHonestPathHasAreIgnored) {
    for (const auto& [v6, size_bytes, believed] :
         {std::tuple{false, 551U, false}, std::tuple{false, 552U, true},
          std::tuple{false, 0U, false}, std::tuple{false, 68U, false},
          std::tuple{false, 1'439U, true}, std::tuple{false, 1'440U, false},
          std::tuple{false, 9'000U, false}, std::tuple{true, 1'279U, false},
          std::tuple{true, 1'280U, true}, std::tuple{true, 1'459U, true},
          std::tuple{true, 1'460U, false}, std::tuple{true, 0x1'0000U + 1'400U, false}}) {
        SCOPED_TRACE(size_bytes);
        const World world(v6);
        const Error error{.type = static_cast<std::uint8_t>(v6 ? 2 : 3),
                          .code = static_cast<std::uint8_t>(v6 ? 0 : 4),
                          .size_bytes = size_bytes};
        const Answer answer =
            translate(world, error_frame(world, world.as_sent_on(abi::Leg::client, 12'345), error));
        EXPECT_EQ(answer.result.verdict, believed ? IcmpVerdict::translated : IcmpVerdict::ignored);
        EXPECT_EQ(answer.result.reason, believed ? IcmpReason::none : IcmpReason::bad_size);
    }
}

TEST(IcmpTest, WhatIsNoneOfOursGoesToTheKernel) {
    const World world(false);
    const Segment sent_on = world.as_sent_on(abi::Leg::visitor, 12'000);
    Bytes ping = error_frame(world, sent_on, {.type = 8, .code = 0});
    EXPECT_EQ(reason_for(world, ping, IcmpVerdict::to_kernel), IcmpReason::not_an_error);
    const Bytes redirect = error_frame(world, sent_on, {.type = 5, .code = 1});
    EXPECT_EQ(reason_for(world, redirect, IcmpVerdict::to_kernel), IcmpReason::not_an_error);
    const Bytes segment = build(sent_on);
    EXPECT_EQ(reason_for(world, segment, IcmpVerdict::to_kernel), IcmpReason::not_an_error);
    Segment other = sent_on;
    ++other.source_port;
    const Bytes unknown = error_frame(world, other, Error{});
    EXPECT_EQ(reason_for(world, unknown, IcmpVerdict::to_kernel), IcmpReason::not_spliced);
    other = sent_on;
    other.protocol = 17;
    const Bytes udp = error_frame(world, other, Error{});
    EXPECT_EQ(reason_for(world, udp, IcmpVerdict::to_kernel), IcmpReason::not_spliced);
    // What the relay received is not what it sent.
    const Bytes reversed = error_frame(world, world.as_sent(abi::Leg::visitor, 12'000), Error{});
    EXPECT_EQ(reason_for(world, reversed, IcmpVerdict::to_kernel), IcmpReason::not_spliced);
}

TEST(IcmpTest, AMappedAddressInAnIpv6PacketFindsNoFlowOfIpv4) {
    const World world(false);
    const FlowKey& key = world.state.legs[0].key;
    const World v6(true);
    // An error with the IPv4 flow's addresses, spelled in IPv6.
    const Segment sent_on = v6.as_sent_on(abi::Leg::client, 12'000);
    Bytes frame = error_frame(v6, sent_on, {.type = 1, .code = 0});
    std::byte* embedded = frame.data() + 14 + 40 + 8;
    std::memcpy(frame.data() + 14 + 24, key.own_address.data(), 16);
    std::memcpy(embedded + 8, key.own_address.data(), 16);
    std::memcpy(embedded + 24, key.peer_address.data(), 16);
    store16(embedded + 40, key.own_port);
    store16(embedded + 42, key.peer_port);
    store16(frame.data() + 14 + 40 + 2, 0);
    Bytes pseudo(frame.begin() + 22, frame.begin() + 54);
    append(pseudo, frame.size() - 54, 4);
    append(pseudo, 58, 4);
    store16(frame.data() + 14 + 40 + 2,
            full_checksum(join({pseudo, Bytes(frame.begin() + 54, frame.end())})));
    EXPECT_EQ(reason_for(world, frame, IcmpVerdict::to_kernel), IcmpReason::not_spliced);
}

TEST(IcmpTest, DamagedAndMisdirectedErrorsAreIgnored) {
    const World world(false);
    const Segment sent_on = world.as_sent_on(abi::Leg::visitor, 12'000);
    const Bytes good = error_frame(world, sent_on, Error{});
    Bytes damaged = good;
    damaged.back() ^= std::byte{1};
    EXPECT_EQ(reason_for(world, damaged, IcmpVerdict::ignored), IcmpReason::bad_checksum);
    damaged = good;
    damaged[14 + 8] ^= std::byte{1};  // the TTL
    EXPECT_EQ(reason_for(world, damaged, IcmpVerdict::ignored), IcmpReason::bad_checksum);
    const Bytes cut(good.begin(), good.end() - 1);
    EXPECT_EQ(reason_for(world, cut, IcmpVerdict::ignored), IcmpReason::truncated);
    const Bytes seven = error_frame(world, sent_on, {.tcp_bytes = 7});
    EXPECT_EQ(reason_for(world, seven, IcmpVerdict::ignored), IcmpReason::truncated);
    const Bytes last_hop = error_frame(world, sent_on, {.hop_limit = 1});
    EXPECT_EQ(reason_for(world, last_hop, IcmpVerdict::ignored), IcmpReason::hop_limit);
    Bytes astray(12, std::byte{0x02});
    append(astray, ethertype_ipv4, 2);
    astray = join({astray, error_packet(sent_on, Error{}, router(false), ipv4(192, 0, 2, 200))});
    EXPECT_EQ(reason_for(world, astray, IcmpVerdict::ignored), IcmpReason::wrong_destination);
    Bytes small(good.size() - 1);
    EXPECT_EQ(translate_icmp(*world.table, good, small).reason, IcmpReason::no_room);
}

TEST(IcmpTest, NoBytesOutOfBoundsWhateverComes) {
    constexpr std::uint32_t seed = 5'927;
    std::mt19937 random(seed);
    const World v4(false);
    const World v6(true);
    std::uint32_t translated = 0;
    for (int round = 0; round < 30'000; ++round) {
        const World& world = round % 2 == 0 ? v4 : v6;
        Bytes frame = error_frame(world, world.as_sent_on(abi::Leg::visitor, 12'000),
                                  {.type = static_cast<std::uint8_t>(round % 2 == 0 ? 3 : 1),
                                   .code = 1,
                                   .tcp_bytes = 8 + random() % 60});
        for (std::size_t count = random() % 3; count > 0; --count) {
            frame[12 + random() % (frame.size() - 12)] = static_cast<std::byte>(random());
        }
        frame.resize(random() % 4 == 0 ? random() % frame.size() : frame.size());
        frame.shrink_to_fit();
        const Answer answer = translate(world, frame);
        translated += static_cast<std::uint32_t>(answer.result.verdict == IcmpVerdict::translated);
        ASSERT_EQ(answer.frame.empty(), answer.result.verdict != IcmpVerdict::translated)
            << "seed " << seed << " round " << round;
        ASSERT_TRUE(answer.frame.empty() || icmp_complaint(answer.frame, 14, world.v6).empty())
            << "seed " << seed << " round " << round;
    }
    EXPECT_GT(translated, 5'000U);
    EXPECT_LT(translated, 25'000U);
}

}  // namespace
}  // namespace bore::packet::test
