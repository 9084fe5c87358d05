// The packet path against a naive model (translate_model.hpp) under random segments: the
// translation alone, and whole bursts through the pipeline.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "dataplane/packet/pipeline.hpp"
#include "dataplane/packet/translate.hpp"
#include "tests/packet/spliced_pair.hpp"
#include "tests/packet/translate_model.hpp"

namespace bore::packet {
namespace {

using abi::Leg;
using test::Bytes;
using test::Segment;
using test::SplicedPair;
using namespace test::model;

// ---- Random flows and segments

class Random {
  public:
    explicit Random(std::uint32_t seed) : engine_(seed) {}
    std::int64_t between(std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
    }
    bool one_in(std::int64_t count) { return between(1, count) == 1; }
    std::uint32_t word() { return static_cast<std::uint32_t>(between(0, 0xffff'ffff)); }

  private:
    std::mt19937_64 engine_;
};

FlowState random_state(Random& random, const test::Variant& variant) {
    FlowState state = test::usual_state(variant);
    const bool stamps_differ = random.one_in(3);
    const bool stamps = random.one_in(2);
    for (LegState& leg : state.legs) {
        leg.timestamps = stamps_differ ? random.one_in(2) : stamps;
        leg.sack = !random.one_in(4);
        leg.peer_window_scale = static_cast<std::uint8_t>(random.between(0, 14));
        leg.own_window_scale = static_cast<std::uint8_t>(random.between(0, 14));
        leg.peer_window_bytes = static_cast<std::uint32_t>(random.between(0, 1'000'000));
        leg.peer_mss = random.one_in(3) ? 700 : 1'460;
        leg.own_timestamp = random.word();
        leg.peer_timestamp = random.word();
    }
    if (random.one_in(3)) {
        state.ack_hold_back = static_cast<std::uint16_t>(random.between(1, 80));
        state.ack_hold_until_ms =
            timestamp_ms(test::start_ns) + static_cast<std::uint32_t>(random.between(1, 500));
    }
    state.tell_first_byte = random.one_in(2);
    return state;
}

std::vector<Option> random_options(Random& random, const SplicedPair& pair, Leg in,
                                   std::int64_t acknowledgement) {
    using Kind = Option::Kind;
    std::vector<Option> options;
    const auto nops = [&options](std::int64_t count) {
        for (; count > 0; --count) {
            options.push_back({});
        }
    };
    const LegState& leg = pair.leg(in);
    if (random.one_in(200)) {
        options.push_back({.kind = Kind::malformed});
        return options;
    }
    if (random.one_in(20)) {
        options.push_back({.kind = Kind::unknown});
        nops(3);
    }
    if (leg.timestamps != random.one_in(20)) {
        const std::int64_t front = random.one_in(10) ? random.between(0, 2) : 2;
        nops(front);
        const auto recent = static_cast<std::uint32_t>(random.between(0, 10'000));
        options.push_back({.kind = Kind::timestamps,
                           .value = leg.peer_timestamp + recent,
                           .echo = leg.own_timestamp + recent});
        nops(2 - front);
    }
    if (leg.sack && random.one_in(8)) {
        const bool crowded = !options.empty();
        nops(2);
        Option sack{.kind = Kind::sack};
        for (std::int64_t blocks = random.between(1, crowded ? 1 : 4); blocks > 0; --blocks) {
            const std::int64_t left = acknowledgement + random.between(-100, 100'000);
            sack.blocks.emplace_back(left, left + random.between(1, 50'000));
        }
        options.push_back(sack);
    }
    return options;
}

// `border`: a position, below 2^16, that a block begins at.
std::int64_t random_sequence(Random& random, const Direction& own, const Direction& other,
                             std::int64_t border) {
    const std::int64_t oldest = own.next - max_flight + 1;
    switch (random.between(0, 12)) {
        case 0:
            return own.next + random.between(0, 3'000);
        case 1:
            return own.next - random.between(0, 3'000);
        case 2:
            return std::max(oldest, random.between(-200, 50));  // about the splice
        case 3:
            return random.between(own.next, std::max(own.next, other.edge));
        case 4:
            return std::max({other.edge, own.next}) + random.between(-2, 2);
        case 5:
            return own.next + random.between(near - 2, near + 2);
        case 8:  // where a block ends
            return own.next + (border - own.next % near + near) % near + random.between(-3, 3);
        case 6:
            return own.next + random.between(near, max_flight);
        case 7:
            return random.between(oldest, own.next);
        default:
            return own.next;
    }
}

std::int64_t random_acknowledgement(Random& random, const Direction& own, const Direction& other,
                                    std::int64_t border) {
    const std::int64_t highest = std::max(other.next, own.acknowledged);
    switch (random.between(0, 10)) {
        case 0:
            return own.acknowledged;
        case 1:
            return std::max(own.acknowledged - max_flight, random.between(-100, 10));
        case 2:
            return own.acknowledged - random.between(0, max_flight);
        case 3:
            return std::max(highest, own.acknowledged + near) + random.between(1, max_flight);
        case 4:
            return highest;
        case 5:  // where a block ends, whether it was sent or not
            return own.acknowledged + (border - own.acknowledged % near + near) % near +
                   random.between(-3, 3);
        default:
            return random.between(own.acknowledged, highest);
    }
}

Given random_segment(Random& random, Model& model, const SplicedPair& pair) {
    Given given;
    given.in = random.one_in(2) ? Leg::visitor : Leg::client;
    const Direction& own = model.at(given.in);
    const Direction& other = model.at(test::opposite(given.in));
    const auto border = [](std::uint32_t base) { return near - std::int64_t{base % near}; };
    given.sequence = random_sequence(random, own, other, border(pair.leg(given.in).rcv_nxt));
    given.acknowledgement =
        random_acknowledgement(random, own, other, border(pair.leg(given.in).snd_nxt));
    given.window = static_cast<std::uint16_t>(random.one_in(3) ? random.between(0, 3)
                                                               : random.between(0, 0xffff));
    given.traffic_class = static_cast<std::uint8_t>(random.between(0, 255));
    given.padding_bytes = static_cast<std::size_t>(random.between(0, 6));
    if (random.one_in(2)) {
        given.payload = test::stream_bytes(
            random.word(), static_cast<std::size_t>(random.one_in(2) ? random.between(1, 300)
                                                                     : random.between(1, 1'460)));
        given.flags |= random.one_in(2) ? tcp_psh : std::uint8_t{0};
    }
    if (random.one_in(200)) {
        given.flags |= tcp_fin;
    }
    if (own.fin_end == own.next && !random.one_in(3)) {  // mostly nothing behind a FIN
        given.sequence = own.next;
        given.payload.clear();
        given.flags = tcp_ack;
    }
    if (random.one_in(60)) {
        given.flags = random.one_in(2) ? tcp_rst : tcp_rst | tcp_ack;
        if (!random.one_in(3)) {
            const std::int64_t exact = random.one_in(2) ? other.acknowledged : own.next;
            given.sequence = random.between(exact - 2, exact + 2);
        }
    }
    if (random.one_in(40)) {
        given.flags ^= static_cast<std::uint8_t>(1U << random.between(0, 7));
    }
    given.reserved_flags = random.one_in(300) ? 4 : 0;
    given.hop_limit = random.one_in(100) ? static_cast<std::uint8_t>(random.between(0, 2)) : 64;
    given.checksum_error = random.one_in(20) ? static_cast<std::uint16_t>(0x0080) : 0;
    given.options = random_options(random, pair, given.in, given.acknowledgement);
    return given;
}

void erase_checksum(Bytes& frame, std::size_t payload_and_options_bytes) {
    const std::size_t tcp = frame.size() - payload_and_options_bytes - 20;
    store16(frame.data() + tcp + 16, 0);
}

// ---- The two ways through the packet path

// What became of a segment.
struct Seen {
    PacketReason reason{};
    Bytes out;
    std::uint64_t delivered{0};
    std::size_t split_bytes{0};
    bool event{false};
};

class Way {
  public:
    virtual ~Way() = default;
    virtual Seen pass(SplicedPair& pair, Leg in, const Segment& segment) = 0;
};

class ByTranslation final : public Way {
  public:
    Seen pass(SplicedPair& pair, Leg in, const Segment& segment) override {
        const PacketReason reason = pair.pass(in, segment);
        return {.reason = reason,
                .out = pair.out,
                .delivered = pair.outcome.delivered_bytes,
                .split_bytes = pair.outcome.split_bytes,
                .event = pair.outcome.flow_event};
    }
};

// Whole bursts of one frame, the shortest way included. There are no buffers to split into.
class ByPipeline final : public Way, private Outlet {
  public:
    Seen pass(SplicedPair& pair, Leg /*in*/, const Segment& segment) override {
        Pipeline pipeline(0, *pair.table, counters_, rows_, *this);
        const std::uint64_t delivered_before = delivered();
        std::array<std::uint64_t, reason_count> before{};
        for (std::size_t reason = 0; reason < reason_count; ++reason) {
            before[reason] = counters_.get(counter(reason));
        }
        seen_ = {};
        test::BufferedFrame buffered(test::build(segment));
        pipeline.process({&buffered.frame, 1}, pair.now_ns);
        seen_.delivered = delivered() - delivered_before;
        std::size_t verdicts = 0;
        for (std::size_t reason = 0; reason < reason_count; ++reason) {
            if (counters_.get(counter(reason)) != before[reason]) {
                seen_.reason = static_cast<PacketReason>(reason);
                ++verdicts;
            }
        }
        EXPECT_EQ(verdicts, 1U);
        EXPECT_EQ(taken_, ++given_);
        return seen_;
    }

  private:
    static constexpr auto reason_count = static_cast<std::size_t>(PacketReason::count);
    static abi::PacketWorkerCounter counter(std::size_t reason) {
        return abi::counter_of(static_cast<PacketReason>(reason));
    }
    std::uint64_t delivered() const {
        return rows_[3].get(abi::TunnelCounter::to_client_bytes_total) +
               rows_[3].get(abi::TunnelCounter::to_visitor_bytes_total);
    }
    void take(std::span<Frame> frames) {
        taken_ += frames.size();
        seen_.out.assign(frames[0].data, frames[0].data + frames[0].length_bytes);
    }
    void send(std::span<Frame> frames) override { take(frames); }
    void divert(std::span<Frame> frames) override { take(frames); }
    void drop(std::span<Frame> frames) override { take(frames); }
    bool allocate(std::uint8_t, Frame&) override { return false; }
    void flow_event(const FlowEvent& event) override {
        seen_.event |= event.kind == FlowEvent::Kind::end;
    }

    abi::PacketWorkerCounters counters_;
    std::vector<abi::TunnelCounters> rows_{8};
    Seen seen_;
    std::size_t given_{0};
    std::size_t taken_{0};
};

// What the random segments have brought up, so that a generator gone dull is noticed.
struct Coverage {
    std::map<PacketReason, int> verdicts;
    std::int64_t longest{0};
    int trimmed{0};
    int split{0};
    int events{0};
    int taken_back{0};
    int ends{0};  // both FINs acknowledged
};

void compare(const Given& given, const Verdict& verdict, Seen& seen, bool can_split) {
    if (verdict.reason == PacketReason::spliced && verdict.split_bytes != 0 && !can_split) {
        ASSERT_EQ(seen.reason, PacketReason::no_buffer);
        return;
    }
    ASSERT_EQ(seen.reason, verdict.reason);
    if (verdict.reason != PacketReason::spliced) {
        return;
    }
    Bytes expected = test::build(verdict.out);
    if (given.checksum_error != 0) {
        ASSERT_NE(test::checksum_complaint(seen.out), "");
        const std::size_t behind =
            verdict.out.payload.size() + (verdict.out.options.size() + 3) / 4 * 4;
        erase_checksum(expected, behind);
        erase_checksum(seen.out, behind);
    }
    ASSERT_EQ(seen.out, expected);
    ASSERT_EQ(seen.delivered, verdict.delivered);
    ASSERT_EQ(seen.split_bytes, can_split ? verdict.split_bytes : 0);
    ASSERT_EQ(seen.event, verdict.event);
}

void compare_state(const SplicedPair& pair, Model& model) {
    const auto delivered = pair.table->delivered_bytes(pair.flow);
    for (const Leg leg : {Leg::visitor, Leg::client}) {
        const auto index = static_cast<std::size_t>(leg);
        const Direction& own = model.at(leg);
        const LegState& state = pair.leg(leg);
        ASSERT_EQ(pair.entry(leg).next_sequence - state.rcv_nxt,
                  static_cast<std::uint32_t>(own.next));
        ASSERT_EQ(pair.entry(leg).acknowledged - state.snd_nxt,
                  static_cast<std::uint32_t>(own.acknowledged));
        ASSERT_EQ(pair.entry(leg).window_edge - state.snd_nxt,
                  static_cast<std::uint32_t>(own.edge));
        ASSERT_EQ(pair.cold().fin_seen[index], own.fin_end >= 0 ? 1 : 0);
        ASSERT_EQ(pair.cold().fin_acknowledged[index], own.fin_acknowledged ? 1 : 0);
        ASSERT_EQ(pair.cold().reset_seen[index], own.reset ? 1 : 0);
        // What the client acknowledged was delivered from the visitor. Nobody sends anything
        // behind his FIN; where the random peer did, the two may count differently.
        const std::int64_t fin_end = model.at(test::opposite(leg)).fin_end;
        if (fin_end < 0 || own.acknowledged <= fin_end) {
            ASSERT_EQ(delivered[1 - index], own.delivered);
        }
    }
}

void run(std::uint32_t seed, Way& way, bool can_split, Coverage& coverage) {
    Random random(seed);
    const test::Variant variant{.name = "random",
                                .v6 = random.one_in(3),
                                .tagged_in = random.one_in(4),
                                .tagged_out = random.one_in(4),
                                .visitor_snd_nxt = random.word(),
                                .visitor_rcv_nxt = random.word(),
                                .client_snd_nxt = random.word(),
                                .client_rcv_nxt = random.word()};
    SplicedPair pair(variant, random_state(random, variant));
    Model model(pair);
    for (int step = 0; step < 1'500 && !::testing::Test::HasFatalFailure(); ++step) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " step " + std::to_string(step));
        pair.now_ns += static_cast<std::uint64_t>(random.between(0, 3'000'000));
        const Given given = random_segment(random, model, pair);
        const Verdict verdict = model.judge(given, pair.now_ns);
        Seen seen = way.pass(pair, given.in, model.wire(given));
        compare(given, verdict, seen, can_split);
        compare_state(pair, model);
        if (verdict.reason == PacketReason::spliced) {
            ASSERT_EQ(pair.entry(given.in).last_seen, activity_tick(pair.now_ns));
        }
        ++coverage.verdicts[verdict.reason];
        coverage.longest = std::max(coverage.longest, model.at(given.in).acknowledged);
        coverage.split += verdict.split_bytes != 0 ? 1 : 0;
        coverage.events += verdict.event ? 1 : 0;
        coverage.taken_back += verdict.taken_back ? 1 : 0;
        coverage.ends += verdict.event && !given.has(tcp_rst) ? 1 : 0;
        const bool cut = given.sequence < 0 && !given.payload.empty();
        coverage.trimmed += cut && verdict.reason == PacketReason::spliced ? 1 : 0;
    }
}

void run_all(Way& way, bool can_split) {
    // BORE_SEED=n runs one flow again, BORE_SEEDS=n many.
    const auto number = [](const char* name, std::uint32_t otherwise) {
        const char* text = std::getenv(name);
        return text == nullptr ? otherwise : static_cast<std::uint32_t>(std::atol(text));
    };
    const std::uint32_t first = number("BORE_SEED", 1);
    const std::uint32_t count = first != 1 ? 1 : number("BORE_SEEDS", 100);
    Coverage coverage;
    for (std::uint32_t seed = first; seed < first + count; ++seed) {
        run(seed, way, can_split, coverage);
        if (::testing::Test::HasFailure()) {
            return;
        }
    }
    if (count < 100) {
        return;
    }
    for (const PacketReason reason :
         {PacketReason::spliced, PacketReason::syn, PacketReason::bad_options,
          PacketReason::bad_checksum, PacketReason::bad_flags, PacketReason::out_of_window,
          PacketReason::hop_limit}) {
        EXPECT_GT(coverage.verdicts[reason], 20) << static_cast<int>(reason);
    }
    EXPECT_GT(coverage.longest, std::int64_t{1} << 33);
    EXPECT_GT(coverage.trimmed, 100);
    EXPECT_GT(coverage.split, 100);
    EXPECT_GT(coverage.events, 20);
    EXPECT_GT(coverage.taken_back, 20);
    EXPECT_GT(coverage.ends, 20);
}

TEST(TranslateModel, AgreesWithTheTranslation) {
    ByTranslation way;
    run_all(way, true);
}

TEST(TranslateModel, AgreesWithThePipeline) {
    ByPipeline way;
    run_all(way, false);
}

}  // namespace
}  // namespace bore::packet
