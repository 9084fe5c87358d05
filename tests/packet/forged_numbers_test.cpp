// Segments of somebody off the path who guesses numbers: they may pass, for their receiver to
// judge, but what the flow remembers stays with the truth, and the honest peers go on as if nothing
// had been. The guesses here are better than real ones: each starts from what the last one reached.
#include <gtest/gtest.h>

#include "dataplane/packet/translate.hpp"
#include "tests/packet/translate_fixture.hpp"

namespace bore::packet {
namespace {

using abi::Leg;
using test::Segment;

class ForgedNumbers : public test::TranslateTest {
  protected:
    static constexpr std::uint32_t segment_bytes = 1'000;

    // The next honest segment of a leg's peer, who has seen all that the other one sent.
    Segment honest(Leg peer) {
        Segment segment = pair().from(peer);
        segment.sequence += sent(peer);
        segment.acknowledgement += sent(test::opposite(peer));
        return segment;
    }
    // One honest peer sends data, the other one acknowledges and keeps its window open.
    void transfer(Leg sender, std::uint32_t size_bytes) {
        const Leg receiver = test::opposite(sender);
        expect_passed(receiver, honest(receiver));
        for (std::uint32_t done = 0; done < size_bytes; done += segment_bytes) {
            Segment data = honest(sender);
            data.payload = test::stream_bytes(data.sequence, segment_bytes);
            expect_passed(sender, data);
            sent(sender) += segment_bytes;
            if (done / segment_bytes % 8 == 7) {
                expect_passed(receiver, honest(receiver));
            }
        }
        expect_passed(receiver, honest(receiver));
        EXPECT_EQ(pair().entry(sender).next_sequence, honest(sender).sequence);
        EXPECT_EQ(pair().entry(receiver).acknowledged, honest(receiver).acknowledgement);
    }
    void transfer_both_ways() {
        transfer(in(), 300'000);
        transfer(out(), 300'000);
    }
    // Both peers end in order, and that is an event once.
    void expect_end() {
        for (const Leg peer : {in(), out()}) {
            Segment fin = honest(peer);
            fin.flags = tcp_ack | tcp_fin;
            expect_passed(peer, fin);
            EXPECT_FALSE(pair().outcome.flow_event);
            EXPECT_EQ(fin_seen(peer), 1);
            sent(peer) += 1;
            const Leg other = test::opposite(peer);
            expect_passed(other, honest(other));
            EXPECT_EQ(pair().outcome.flow_event, peer == out());
        }
        const auto delivered = pair().table->delivered_bytes(pair().flow);
        EXPECT_EQ(delivered[static_cast<std::size_t>(in())], sent(in()) - 1);
        EXPECT_EQ(delivered[static_cast<std::size_t>(out())], sent(out()) - 1);
    }
    void expect_passed(Leg peer, const Segment& given) {
        ASSERT_EQ(pair().pass(peer, given), PacketReason::spliced);
        ASSERT_EQ(pair().out, test::build(pair().mirrored(peer, given)));
    }
    void expect_no_end_noted() {
        for (const Leg peer : {in(), out()}) {
            const auto index = static_cast<std::size_t>(peer);
            EXPECT_EQ(fin_seen(peer), 0);
            EXPECT_EQ(pair().cold().fin_acknowledged[index], 0);
            EXPECT_EQ(pair().cold().reset_seen[index], 0);
            EXPECT_EQ(pair().entry(peer).other_fin, 0);
            EXPECT_EQ(pair().entry(peer).state & ~state_unheard, 0);
        }
    }
    std::uint8_t fin_seen(Leg peer) {
        return pair().cold().fin_seen[static_cast<std::size_t>(peer)];
    }
    std::uint32_t& sent(Leg peer) { return sent_[static_cast<std::size_t>(peer)]; }

  private:
    std::array<std::uint32_t, 2> sent_{};
};

INSTANTIATE_TEST_SUITE_P(Flows, ForgedNumbers,
                         ::testing::Combine(::testing::ValuesIn(test::variants()),
                                            ::testing::Values(Leg::visitor, Leg::client)),
                         [](const auto& param_info) { return test::name_of(param_info.param); });

constexpr std::uint32_t steps[] = {65'536, 65'535, 65'537, 40'000, 1'000};

// ---- Answers that are not heard

TEST_P(ForgedNumbers, WhoSendsAgainWhatIsAcknowledgedIsAnsweredAcceptably) {
    transfer_both_ways();
    Segment again = honest(in());
    again.sequence -= segment_bytes;
    again.payload = test::stream_bytes(again.sequence, segment_bytes);
    const std::uint32_t expected = honest(out()).sequence;
    const std::uint32_t edge = pair().entry(in()).window_edge - pair().entry(out()).sequence_delta;
    // Behind the window, before it, and inside it, where a number stays what it is.
    for (const std::uint32_t number : {edge, edge + 1'000, expected - 1'000, edge - 1, expected}) {
        expect_passed(in(), again);
        EXPECT_EQ(pair().entry(out()).state & state_unheard, state_unheard);
        Segment answer = honest(out());
        answer.sequence = number;
        ASSERT_EQ(pair().pass(out(), answer), PacketReason::spliced);
        const bool inside = number - expected < edge - expected;
        answer.sequence = inside ? number : expected;
        EXPECT_EQ(pair().out, test::build(pair().mirrored(out(), answer))) << number - expected;
        EXPECT_EQ(pair().entry(out()).state, 0) << "once";
    }
}

// ---- Numbers that walk

TEST_P(ForgedNumbers, AcknowledgementsDoNotWalk) {
    transfer_both_ways();
    const DirectionEntry& entry = pair().entry(in());
    const std::uint32_t truth = entry.acknowledged;
    for (const std::uint32_t step : steps) {
        for (int count = 0; count < 50; ++count) {
            Segment forged = honest(in());
            forged.acknowledgement = entry.acknowledged + step;
            forged.window = static_cast<std::uint16_t>(count % 2 == 0 ? 0 : 0xffff);
            const PacketReason reason = pair().pass(in(), forged);
            const bool in_block = (forged.acknowledgement ^ truth) < near_bytes;
            ASSERT_EQ(reason, in_block ? PacketReason::spliced : PacketReason::out_of_window);
            ASSERT_LT(entry.acknowledged ^ truth, near_bytes);
        }
    }
    transfer_both_ways();
    expect_end();
}

TEST_P(ForgedNumbers, SequencesDoNotWalk) {
    transfer_both_ways();
    const DirectionEntry& entry = pair().entry(in());
    const std::uint32_t truth = entry.next_sequence;
    const std::uint32_t edge =
        pair().entry(out()).window_edge - entry.sequence_delta;  // of the honest receiver
    for (const std::uint32_t step : steps) {
        for (int count = 0; count < 50; ++count) {
            Segment forged = honest(in());
            forged.sequence = entry.next_sequence + step;
            forged.payload = test::stream_bytes(0, 10);
            const PacketReason reason = pair().pass(in(), forged);
            if (forged.sequence - truth > edge - truth) {
                const bool in_block = (entry.next_sequence - edge) < near_bytes;
                ASSERT_TRUE(reason == PacketReason::out_of_window || in_block);
            }
            ASSERT_LT(entry.next_sequence - truth, edge - truth + near_bytes);
        }
    }
    transfer_both_ways();
    expect_end();
}

TEST_P(ForgedNumbers, SequencesDoNotWalkBeforeAClosedWindow) {
    out_leg().peer_window_bytes = 0;
    const DirectionEntry& entry = pair().entry(in());
    const std::uint32_t truth = entry.next_sequence;
    for (const std::uint32_t step : steps) {
        for (int count = 0; count < 50; ++count) {
            Segment forged = segment(10);
            forged.sequence = entry.next_sequence + step;
            const bool in_block = ((forged.sequence + 10) ^ truth) < near_bytes;
            ASSERT_EQ(pair().pass(in(), forged),
                      in_block ? PacketReason::spliced : PacketReason::out_of_window);
            ASSERT_LT(entry.next_sequence ^ truth, near_bytes);
        }
    }
    transfer_both_ways();
    expect_end();
}

// Both at once: a forged acknowledgement must not make room for a forged sequence beyond the block
// that it reached and the window that it names, nor the other way round.
TEST_P(ForgedNumbers, BothDirectionsTogetherDoNotWalk) {
    transfer_both_ways();
    const std::array<std::uint32_t, 2> truth{pair().entry(in()).next_sequence,
                                             pair().entry(out()).acknowledged};
    const std::uint32_t delta = pair().entry(in()).sequence_delta;
    const std::uint32_t window = pair().entry(out()).window_edge - delta - truth[0];
    for (const std::uint32_t step : steps) {
        for (int count = 0; count < 50; ++count) {
            Segment data = honest(in());
            data.sequence = pair().entry(in()).next_sequence + step;
            data.payload = test::stream_bytes(0, 10);
            (void)pair().pass(in(), data);
            Segment acknowledgement = honest(out());
            acknowledgement.acknowledgement = pair().entry(out()).acknowledged + step;
            acknowledgement.window = 0;
            (void)pair().pass(out(), acknowledgement);
        }
    }
    EXPECT_LT(pair().entry(in()).next_sequence - truth[0], window + 2 * near_bytes);
    EXPECT_LT(pair().entry(out()).acknowledged - truth[1], window + 2 * near_bytes);
    transfer(in(), 900'000);
    transfer(out(), 300'000);
    expect_end();
}

// ---- The end of the flow

TEST_P(ForgedNumbers, AnOldFinIsNone) {
    transfer_both_ways();
    for (const std::uint32_t back : {2U, 1'000U, 65'536U, 299'999U, 0x4000'0000U}) {
        for (const std::size_t size : {std::size_t{0}, std::size_t{1}}) {
            Segment fin = honest(in());
            fin.sequence -= back + static_cast<std::uint32_t>(size);
            fin.payload = test::stream_bytes(0, size);
            fin.flags = tcp_ack | tcp_fin;
            ASSERT_EQ(pair().pass(in(), fin), PacketReason::spliced);
            expect_no_end_noted();
            expect_passed(out(), honest(out()));
            EXPECT_FALSE(pair().outcome.flow_event);
        }
    }
    transfer_both_ways();
    expect_no_end_noted();
    expect_end();
}

TEST_P(ForgedNumbers, AFinAheadIsTakenBack) {
    transfer_both_ways();
    for (const std::uint32_t ahead : {0U, 1U, 5'000U, 60'000U, 65'536U, 100'000U}) {
        Segment fin = honest(in());
        fin.sequence += ahead;
        fin.flags = tcp_ack | tcp_fin;
        ASSERT_EQ(pair().pass(in(), fin), PacketReason::spliced);
        EXPECT_EQ(fin_seen(in()), 1);
        EXPECT_EQ(pair().entry(out()).other_fin, 1);
        expect_passed(out(), honest(out()));
        EXPECT_FALSE(pair().outcome.flow_event);
        transfer_both_ways();
        expect_no_end_noted();
    }
    expect_end();
}

// The number of a byte under way once more, as FIN: the best guess that there is.
TEST_P(ForgedNumbers, AFinInPlaceOfTheLastByteIsTakenBack) {
    transfer_both_ways();
    for (int count = 0; count < 2; ++count) {
        Segment data = honest(in());
        data.payload = test::stream_bytes(0, 500);
        expect_passed(in(), data);
        sent(in()) += 500;
        Segment fin = honest(in());
        fin.sequence -= 1;
        fin.flags = tcp_ack | tcp_fin;
        ASSERT_EQ(pair().pass(in(), fin), PacketReason::spliced);
        EXPECT_EQ(fin_seen(in()), 1);
    }
    Segment data = honest(in());
    data.payload = test::stream_bytes(0, 500);
    expect_passed(in(), data);
    sent(in()) += 500;
    transfer_both_ways();
    expect_no_end_noted();
    expect_end();
}

TEST_P(ForgedNumbers, AFinBeyondTheWindowIsDropped) {
    transfer_both_ways();
    Segment fin = honest(in());
    fin.sequence = pair().entry(out()).window_edge - pair().entry(in()).sequence_delta + 1;
    fin.flags = tcp_ack | tcp_fin;
    expect_dropped(fin, PacketReason::out_of_window);
    expect_no_end_noted();
    expect_end();
}

// ---- Resets

TEST_P(ForgedNumbers, OnlyTwoNumbersOfTheWindowAreAReset) {
    transfer_both_ways();
    Segment data = honest(in());
    data.payload = test::stream_bytes(0, 500);
    expect_passed(in(), data);  // under way: the two numbers differ
    const std::uint32_t acknowledged = data.sequence;
    const std::uint32_t next = data.sequence + 500;
    const std::uint32_t edge = pair().entry(out()).window_edge - pair().entry(in()).sequence_delta;
    Segment reset = data;
    reset.payload.clear();
    reset.flags = tcp_rst;
    for (const std::uint32_t at : {acknowledged + 1, acknowledged + 250, next - 1, next + 1,
                                   next + 65'536, edge - 1, edge}) {
        reset.sequence = at;
        EXPECT_EQ(pair().pass(in(), reset), PacketReason::spliced);
        EXPECT_FALSE(pair().outcome.flow_event);
        expect_no_end_noted();
    }
    for (const std::uint32_t at : {acknowledged - 1, edge + 1}) {
        reset.sequence = at;
        expect_dropped(reset, PacketReason::out_of_window);
        expect_no_end_noted();
    }
    const auto& seen = pair().cold().reset_seen[static_cast<std::size_t>(in())];
    for (const std::uint32_t at : {acknowledged, next}) {
        reset.sequence = at;
        EXPECT_EQ(pair().pass(in(), reset), PacketReason::spliced);
        EXPECT_TRUE(pair().outcome.flow_event);
        EXPECT_EQ(seen, 1);
        // Another number of the window neither repeats nor refutes it.
        reset.sequence = next + 1;
        EXPECT_EQ(pair().pass(in(), reset), PacketReason::spliced);
        EXPECT_FALSE(pair().outcome.flow_event);
        EXPECT_EQ(seen, 1);
        expect_passed(in(), data);
        EXPECT_EQ(seen, 0);
    }
    sent(in()) += 500;
    transfer_both_ways();
    expect_end();
}

// A forged acknowledgement of what was never sent does not keep a genuine reset from passing.
TEST_P(ForgedNumbers, AResetPassesBeforeAForgedAcknowledgement) {
    transfer_both_ways();
    Segment forged = honest(out());
    forged.acknowledgement |= near_bytes - 1;
    ASSERT_GT(forged.acknowledgement, pair().entry(out()).acknowledged);
    expect_passed(out(), forged);
    Segment reset = honest(in());
    reset.flags = tcp_rst;
    EXPECT_EQ(pair().pass(in(), reset), PacketReason::spliced);
    EXPECT_TRUE(pair().outcome.flow_event);
}

}  // namespace
}  // namespace bore::packet
