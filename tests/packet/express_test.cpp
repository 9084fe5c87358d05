// The shortest way against the general one: of the same segment of the same flow both must make the
// same bytes, the same frame and the same state, and what the shortest way refuses it leaves alone.
#include "dataplane/packet/express.hpp"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "dataplane/packet/parse.hpp"
#include "dataplane/packet/translate.hpp"

namespace bore::packet {
namespace {

constexpr std::uint64_t now_ns = 7'000'000'000'000;
constexpr std::size_t headroom_bytes = 64;
constexpr std::size_t buffer_bytes = 640;

// Everything that a segment may change.
struct World {
    std::array<DirectionEntry, 2> entries;
    DirectionEntry& entry{entries[0]};
    DirectionEntry& other{entries[1]};
    FlowCold cold;
    FlowAddresses addresses;
    Adjacency adjacency;
    std::vector<std::byte> buffer{buffer_bytes};
    Frame frame;

    void point_into_buffer(std::size_t length_bytes) {
        frame.data = buffer.data() + headroom_bytes;
        frame.length_bytes = static_cast<std::uint16_t>(length_bytes);
        frame.headroom_bytes = headroom_bytes;
    }
};

// Entries hold atomics: compared and copied as bytes.
template <typename Value>
void copy_bytes(Value& to, const Value& from) {
    std::memcpy(static_cast<void*>(&to), static_cast<const void*>(&from), sizeof to);
}
template <typename Value>
bool same_bytes(const Value& left, const Value& right) {
    return std::memcmp(static_cast<const void*>(&left), static_cast<const void*>(&right),
                       sizeof left) == 0;
}

void copy_world(World& to, const World& from) {
    copy_bytes(to.entry, from.entry);
    copy_bytes(to.other, from.other);
    copy_bytes(to.cold, from.cold);
    copy_bytes(to.adjacency, from.adjacency);
    to.buffer = from.buffer;
    to.frame = from.frame;
    to.frame.data = to.buffer.data() + (from.frame.data - from.buffer.data());
}

bool same_frame(const World& left, const World& right) {
    return left.frame.data - left.buffer.data() == right.frame.data - right.buffer.data() &&
           left.frame.length_bytes == right.frame.length_bytes &&
           left.frame.headroom_bytes == right.frame.headroom_bytes &&
           left.frame.port_index == right.frame.port_index &&
           std::memcmp(left.frame.data, right.frame.data, left.frame.length_bytes) == 0;
}

class Chance {
  public:
    explicit Chance(std::uint64_t seed) : engine_(seed) {}
    std::uint32_t word() { return static_cast<std::uint32_t>(engine_()); }
    bool one_in(std::uint32_t count) { return word() % count == 0; }
    std::byte byte() { return static_cast<std::byte>(word()); }

  private:
    std::mt19937_64 engine_;
};

void make_flow(World& world, Chance& chance, bool stamped) {
    DirectionEntry& entry = world.entry;
    std::uint32_t out_source = 0;
    for (std::uint32_t* field :
         {&entry.in_source, &entry.in_destination, &entry.in_ports, &out_source,
          &entry.out_destination, &entry.out_ports, &entry.sequence_delta,
          &entry.acknowledgement_delta, &entry.timestamp_delta, &entry.timestamp_echo_delta}) {
        *field = chance.one_in(16) ? 0 : chance.one_in(15) ? 0xffff'ffff : chance.word();
    }
    if (!stamped) {
        entry.timestamp_delta = entry.timestamp_echo_delta = 0;
    }
    std::memcpy(&world.adjacency.own_address[12], &out_source, sizeof out_source);
    set_changes(entry, change32(entry.in_source, out_source) +
                           change32(entry.in_destination, entry.out_destination));
    entry.out_mss = static_cast<std::uint16_t>(chance.one_in(8) ? 300 : 1'460);
    entry.window_scales = static_cast<std::uint8_t>(chance.word() % 15 | chance.word() % 15 << 4U);
    entry.flags = static_cast<std::uint8_t>((stamped ? both_timestamps : 0) |
                                            (chance.one_in(2) ? flag_sack : 0) |
                                            (chance.one_in(4) ? flag_no_window_scale : 0));
    if (chance.one_in(16)) {
        entry.flags |= static_cast<std::uint8_t>(1U << chance.word() % 6);
    }
    entry.state = static_cast<std::uint8_t>(chance.one_in(32) ? chance.word() % 64 : 0);
    entry.other_fin = static_cast<std::uint8_t>(chance.one_in(32));
    entry.next_sequence = chance.one_in(8) ? 0U - chance.word() % 2'000 : chance.word();
    entry.acknowledged = chance.one_in(8) ? 1'000U - chance.word() % 2'000 : chance.word();
    entry.window_edge = entry.acknowledged + chance.word() % 200'000;
    entry.last_seen = static_cast<std::uint16_t>(chance.word());
    entry.tunnel_index = 3;
    world.cold.first_sequence[0] = entry.next_sequence - 5'000;
    world.cold.first_acknowledgement[0] = entry.acknowledged - 5'000;
    // Without room, the general way lets nothing pass that leaves its block.
    const bool room = chance.one_in(2);
    world.other.window_edge = entry.next_sequence + entry.sequence_delta + (room ? 1'000'000 : 0);
    world.other.next_sequence =
        entry.acknowledged + entry.acknowledgement_delta + (room ? 100'000 : 0);
    world.other.acknowledged = entry.next_sequence + entry.sequence_delta;
    for (std::byte& byte : world.adjacency.header) {
        byte = chance.byte();
    }
    store16(&world.adjacency.header[12], ethertype_ipv4);
    if (chance.one_in(16)) {
        world.adjacency.header_bytes = 18;
        entry.flags |= flag_tagged;
    } else {
        world.adjacency.header_bytes = 14;
    }
    world.adjacency.port_index = static_cast<std::uint8_t>(chance.word() % 4);
}

// Often the latest number itself, else near it, about the end of its block, or beyond.
std::uint32_t number_about(std::uint32_t latest, Chance& chance) {
    switch (chance.word() % 16) {
        case 0:
            return latest - 1'000;
        case 1:
            return latest + chance.word() % 140'000;
        case 2:
            return (latest | (near_bytes - 1)) + chance.word() % 5 - 2;
        case 3:
        case 4:
        case 5:
            return latest + chance.word() % 6'000;
        default:
            return latest;
    }
}

void make_segment(World& world, Chance& chance, bool stamped) {
    const std::size_t tcp_bytes = stamped ? 32 : 20;
    const std::size_t payload_bytes = chance.one_in(2) ? 0 : chance.word() % 449;
    const std::size_t padding_bytes = chance.one_in(4) ? chance.word() % 30 : 0;
    world.point_into_buffer(34 + tcp_bytes + payload_bytes + padding_bytes);
    for (std::byte& byte : world.buffer) {
        byte = chance.byte();
    }
    std::byte* ip = world.frame.data + 14;
    store16(ip - 2, ethertype_ipv4);
    store8(ip, 0x45);
    if (!chance.one_in(8)) {
        store8(ip + 1, load8(ip + 1) & 0xfc);  // ECN is left to the general way
    }
    store16(ip + 2, static_cast<std::uint16_t>(20 + tcp_bytes + payload_bytes));
    store16(ip + 6, chance.one_in(2) ? 0x4000 : 0);
    store8(ip + 8, static_cast<std::uint8_t>(chance.one_in(32) ? 1 : 2 + chance.word() % 254));
    store8(ip + 9, protocol_tcp);
    put_word32(ip + 12, world.entry.in_source);
    put_word32(ip + 16, world.entry.in_destination);
    std::byte* tcp = ip + 20;
    put_word32(tcp, world.entry.in_ports);
    store32(tcp + 4, number_about(world.entry.next_sequence, chance));
    store32(tcp + 8, number_about(world.entry.acknowledged, chance));
    store8(tcp + 12, static_cast<std::uint8_t>(tcp_bytes / 4 << 4U));
    store8(tcp + 13, chance.one_in(2) ? tcp_ack : tcp_ack | tcp_psh);
    if (chance.one_in(16)) {
        store16(tcp + 14, static_cast<std::uint16_t>(chance.word() % 3));
    }
    for (const std::size_t checksum_at : {std::size_t{16}, std::size_t{0} - 10}) {
        if (chance.one_in(8)) {
            put_word16(tcp + checksum_at, chance.one_in(2) ? 0 : 0xffff);
        }
    }
    if (stamped) {
        put_word32(tcp + 20, usual_option_word);
    }
    if (chance.one_in(3)) {  // whatever else may be wrong with the headers
        const std::size_t at = 12 + chance.word() % (22 + tcp_bytes);
        world.frame.data[at] ^= static_cast<std::byte>(1U << chance.word() % 8);
    }
}

bool general_way(World& world, std::uint32_t& delivered_bytes) {
    TcpView view;
    if (parse(world.frame.bytes(), view) != PacketReason::spliced || view.v6) {
        return false;
    }
    const Passage passage{.entry = world.entry,
                          .adjacency = world.adjacency,
                          .other = world.other,
                          .cold = world.cold,
                          .addresses = world.addresses,
                          .in = abi::Leg::visitor};
    Tally tally;
    Outcome outcome;
    const Moment moment(now_ns);
    const bool passed =
        translate_usual<false>(world.frame, view, passage, moment, tally, outcome) ||
        translate_unusual(world.frame, view, passage, moment, tally, outcome) ==
            PacketReason::spliced;
    delivered_bytes = outcome.delivered_bytes;
    return passed;
}

class Express : public testing::TestWithParam<std::uint64_t> {};

TEST_P(Express, DoesWhatTheGeneralWayDoes) {
    SCOPED_TRACE("seed " + std::to_string(GetParam()));
    Chance chance(GetParam());
    std::size_t passed_count = 0;
    std::size_t refused_count = 0;
    for (int turn = 0; turn < 20'000; ++turn) {
        World given;
        const bool stamped = chance.one_in(2);
        make_flow(given, chance, stamped);
        make_segment(given, chance, chance.one_in(32) ? !stamped : stamped);
        World ours;
        copy_world(ours, given);
        const std::uint16_t tick = activity_tick(now_ns);
        std::uint32_t result = 0;
        DirectionEntry* const entries = ours.entries.data();
        const bool passed =
            express::recognize(ours.frame) &&
            (express::pass(ours.frame, entries, 0, &ours.adjacency, tick, result) ||
             express::pass_leaving(ours.frame, entries, 0, &ours.adjacency, tick, result));
        if (!passed) {
            ++refused_count;
            ASSERT_TRUE(same_frame(ours, given)) << turn;
            ASSERT_TRUE(same_bytes(ours.entry, given.entry)) << turn;
            continue;
        }
        ++passed_count;
        World general;
        copy_world(general, given);
        std::uint32_t delivered_bytes = 0;
        ASSERT_TRUE(general_way(general, delivered_bytes)) << turn;
        ASSERT_EQ(result, delivered_bytes) << turn;
        ASSERT_TRUE(same_frame(ours, general)) << turn;
        ASSERT_TRUE(same_bytes(ours.entry, general.entry)) << turn;
        ASSERT_TRUE(same_bytes(ours.other, general.other)) << turn;
        ASSERT_TRUE(same_bytes(ours.cold, general.cold)) << turn;
    }
    EXPECT_GT(passed_count, 4'000U);
    EXPECT_GT(refused_count, 2'000U);
}
INSTANTIATE_TEST_SUITE_P(Seeds, Express, testing::Range<std::uint64_t>(1, 9));

}  // namespace
}  // namespace bore::packet
