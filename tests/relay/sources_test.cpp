// Limits per source and in total: rate, caps, allowances for visitors that wait, and a bounded
// table.
#include "controlplane/relay/sources.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bore::relay {
namespace {

using base::second_ns;

config::IpAddress address(const std::string& text) {
    return config::IpAddress::parse(text).value();
}

class SourcesTest : public ::testing::Test {
  protected:
    // Connections admitted out of `count`, which stay unauthenticated.
    std::uint32_t admitted(const std::string& from, std::uint32_t count) {
        std::uint32_t admitted_count = 0;
        for (std::uint32_t i = 0; i < count; ++i) {
            if (auto hold = sources.admit(address(from), now)) {
                holds.push_back(std::move(*hold));
                ++admitted_count;
            }
        }
        return admitted_count;
    }
    void settle_all() {
        for (const SourceHold& hold : holds) {
            sources.settle(*hold);
        }
        holds.clear();
    }

    config::ServerConfig limits;
    Sources sources{limits, 100};
    std::vector<SourceHold> holds;
    base::Nanoseconds now{100 * second_ns};
};

TEST_F(SourcesTest, TheRateAllowsItsBurstAndRefillsWithTime) {
    limits.handshake_rate_per_source = 10;
    EXPECT_EQ(admitted("10.0.0.1", 20), 10U);
    settle_all();
    EXPECT_EQ(admitted("10.0.0.1", 20), 0U) << "the tokens are spent, though nothing is open";
    EXPECT_EQ(admitted("10.0.0.2", 20), 10U) << "another source has its own";
    now += second_ns / 2;
    EXPECT_EQ(admitted("10.0.0.1", 20), 5U);
    now += 100 * second_ns;
    settle_all();
    EXPECT_EQ(admitted("10.0.0.1", 20), 10U) << "the bucket does not overflow";
}

TEST_F(SourcesTest, RateZeroIsNoRate) {
    limits.handshake_rate_per_source = 0;
    limits.max_unauthenticated_per_source = 100'000;
    limits.max_unauthenticated = 100'000;
    EXPECT_EQ(admitted("10.0.0.1", 5000), 5000U);
}

TEST_F(SourcesTest, AClaimGivesItsTokenBack) {
    limits.handshake_rate_per_source = 10;
    for (int i = 0; i < 1000; ++i) {
        auto hold = sources.admit(address("10.0.0.1"), now);
        ASSERT_TRUE(hold.has_value()) << i;
        sources.refund(**hold);
        sources.settle(**hold);
    }
}

TEST_F(SourcesTest, WaitingVisitorsRaiseAllAllowancesOfTheirSource) {
    limits.handshake_rate_per_source = 10;
    limits.max_unauthenticated_per_source = 8;
    limits.max_unauthenticated = 20;
    auto tunnel = sources.admit(address("10.0.0.1"), now);
    ASSERT_TRUE(tunnel.has_value());
    sources.settle(**tunnel);
    for (int i = 0; i < 500; ++i) {
        sources.add_pending(**tunnel);
    }
    EXPECT_EQ(admitted("10.0.0.1", 1000), 508U) << "cap per source 8 and one for each visitor";
    settle_all();
    for (int i = 0; i < 500; ++i) {
        sources.remove_pending(**tunnel);
    }
    now += second_ns;
    EXPECT_EQ(admitted("10.0.0.1", 1000), 0U) << "credit that led to no claim is spent";
    now += second_ns / 2;
    EXPECT_EQ(admitted("10.0.0.1", 1000), 5U) << "but it is no debt for minutes";
}

TEST_F(SourcesTest, TheCapPerSourceCountsWhatIsOpen) {
    limits.max_unauthenticated_per_source = 5;
    EXPECT_EQ(admitted("10.0.0.1", 9), 5U);
    sources.settle(*holds.back());
    holds.pop_back();
    EXPECT_EQ(admitted("10.0.0.1", 9), 1U);
    EXPECT_EQ(sources.unauthenticated_count(), 5U);
}

TEST_F(SourcesTest, AtTheGlobalCapThoseWhoHoldTheMostAreRefused) {
    limits.max_unauthenticated = 80;
    limits.max_unauthenticated_per_source = 100;
    EXPECT_EQ(admitted("10.0.0.1", 100), 80U) << "alone it may have everything";
    EXPECT_EQ(admitted("10.0.0.1", 1), 0U);
    std::uint32_t newcomers = 0;
    for (int i = 2; i < 60; ++i) {
        newcomers += admitted("10.0.0." + std::to_string(i), 1);
    }
    EXPECT_EQ(newcomers, 10U) << "an eighth above the cap is for them, and there it ends";
}

TEST_F(SourcesTest, AnIPv6NetworkOf64BitsIsOneSource) {
    limits.max_unauthenticated_per_source = 2;
    EXPECT_EQ(
        admitted("2001:db8::1", 1) + admitted("2001:db8::2", 1) + admitted("2001:db8::ffff:3", 1),
        2U);
    EXPECT_EQ(admitted("2001:db8:0:1::1", 1), 1U);
    EXPECT_EQ(admitted("::ffff:10.0.0.1", 1) + admitted("10.0.0.2", 1) + admitted("10.0.0.3", 1),
              3U)
        << "IPv4 addresses are sources of their own";
}

TEST_F(SourcesTest, TheTableIsBoundedAndForgetsWhoHoldsNothing) {
    for (int i = 0; i < 1000; ++i) {
        const std::string from = "10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250);
        auto hold = sources.admit(address(from), now);
        ASSERT_TRUE(hold.has_value()) << "whoever holds nothing makes room";
        sources.settle(**hold);
        ASSERT_LE(sources.size(), 100U);
    }
    now += 10 * second_ns;
    for (int i = 0; i < 60; ++i) {
        EXPECT_EQ(admitted("10.2.0." + std::to_string(i), 1), 1U);
    }
    EXPECT_EQ(sources.size(), 60U) << "the old ones went, two for each new one";
    for (int i = 0; i < 40; ++i) {
        EXPECT_EQ(admitted("10.3.0." + std::to_string(i), 1), 1U);
    }
    EXPECT_EQ(admitted("10.4.0.1", 1), 0U) << "full of sources that hold something";
}

}  // namespace
}  // namespace bore::relay
