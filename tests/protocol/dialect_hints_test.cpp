// Wire-protocol §8.1: what the hint table says while tunnels live, for 60 s after them, and when it
// is full.
#include "controlplane/bore/dialect_hints.hpp"

#include <gtest/gtest.h>

namespace bore::protocol {
namespace {

using base::second_ns;

DialectHints::SourceAddress address(std::uint32_t number) {
    DialectHints::SourceAddress source{};
    source[10] = source[11] = 0xff;
    for (std::size_t i = 0; i < 4; ++i) {
        source[12 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
    }
    return source;
}

TEST(DialectHints, know_nothing_of_a_stranger) {
    const DialectHints hints;
    EXPECT_EQ(hints.hint(address(1), 0), DialectHint::unknown);
}

TEST(DialectHints, remember_a_tunnel_while_it_lives_and_60_s_longer) {
    for (const Dialect dialect : {Dialect::upstream, Dialect::fork}) {
        const DialectHint expected =
            dialect == Dialect::upstream ? DialectHint::only_upstream : DialectHint::any_fork;
        DialectHints hints;
        hints.tunnel_opened(address(1), dialect);
        EXPECT_EQ(hints.hint(address(1), 100'000 * second_ns), expected);
        EXPECT_EQ(hints.hint(address(2), 100'000 * second_ns), DialectHint::unknown);
        hints.tunnel_closed(address(1), dialect, 100'000 * second_ns);
        EXPECT_EQ(hints.hint(address(1), 100'060 * second_ns - 1), expected);
        EXPECT_EQ(hints.hint(address(1), 100'060 * second_ns), DialectHint::unknown);
    }
}

TEST(DialectHints, say_fork_when_both_live_behind_one_address) {
    DialectHints hints;
    hints.tunnel_opened(address(1), Dialect::upstream);
    hints.tunnel_opened(address(1), Dialect::fork);
    EXPECT_EQ(hints.hint(address(1), 0), DialectHint::any_fork);
    hints.tunnel_closed(address(1), Dialect::fork, 0);
    EXPECT_EQ(hints.hint(address(1), 59 * second_ns), DialectHint::any_fork);
    EXPECT_EQ(hints.hint(address(1), 60 * second_ns), DialectHint::only_upstream);
}

TEST(DialectHints, count_the_tunnels_of_an_address) {
    DialectHints hints;
    hints.tunnel_opened(address(1), Dialect::upstream);
    hints.tunnel_opened(address(1), Dialect::upstream);
    hints.tunnel_closed(address(1), Dialect::upstream, 0);
    EXPECT_EQ(hints.hint(address(1), 1'000 * second_ns), DialectHint::only_upstream);
    hints.tunnel_closed(address(1), Dialect::upstream, 1'000 * second_ns);
    EXPECT_EQ(hints.hint(address(1), 1'061 * second_ns), DialectHint::unknown);
}

TEST(DialectHints, remember_what_was_seen_for_60_s) {
    DialectHints hints;
    hints.seen(address(1), Dialect::fork, 5 * second_ns);
    EXPECT_EQ(hints.hint(address(1), 64 * second_ns), DialectHint::any_fork);
    EXPECT_EQ(hints.hint(address(1), 65 * second_ns), DialectHint::unknown);
    hints.seen(address(1), Dialect::upstream, 70 * second_ns);
    EXPECT_EQ(hints.hint(address(1), 71 * second_ns), DialectHint::only_upstream);
    hints.seen(address(1), Dialect::upstream, 120 * second_ns);
    EXPECT_EQ(hints.hint(address(1), 179 * second_ns), DialectHint::only_upstream);
}

TEST(DialectHints, stay_within_their_capacity_and_forget_the_expired) {
    DialectHints hints{100};
    for (std::uint32_t i = 0; i < 1'000; ++i) {
        hints.seen(address(i), Dialect::fork, 0);
        EXPECT_LE(hints.entry_count(), 100U);
    }
    EXPECT_EQ(hints.hint(address(0), 1), DialectHint::any_fork);
    EXPECT_EQ(hints.hint(address(999), 1), DialectHint::unknown) << "no room: costs one grace";
    hints.seen(address(999), Dialect::fork, 61 * second_ns);
    EXPECT_EQ(hints.hint(address(999), 61 * second_ns), DialectHint::any_fork);
    EXPECT_EQ(hints.entry_count(), 1U) << "the expired ones made room";
}

TEST(DialectHints, keep_live_tunnels_however_full_they_are) {
    DialectHints hints{1};
    hints.seen(address(1), Dialect::fork, 0);
    hints.tunnel_opened(address(2), Dialect::upstream);
    hints.tunnel_opened(address(3), Dialect::upstream);
    EXPECT_EQ(hints.hint(address(2), 0), DialectHint::only_upstream);
    EXPECT_EQ(hints.hint(address(3), 0), DialectHint::only_upstream);
    hints.tunnel_closed(address(2), Dialect::upstream, 0);
    hints.tunnel_closed(address(3), Dialect::upstream, 100 * second_ns);
    EXPECT_EQ(hints.entry_count(), 1U) << "1 and 2 expired, 3 lives on for a minute";
}

TEST(DialectHints, refuse_a_tunnel_that_closes_twice) {
    DialectHints hints;
    EXPECT_DEATH(hints.tunnel_closed(address(1), Dialect::fork, 0), "does not know");
    hints.tunnel_opened(address(1), Dialect::fork);
    hints.tunnel_closed(address(1), Dialect::fork, 0);
    EXPECT_DEATH(hints.tunnel_closed(address(1), Dialect::fork, 0), "closed twice");
}

}  // namespace
}  // namespace bore::protocol
