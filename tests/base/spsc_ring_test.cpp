// The ring between two threads: its borders on one thread, its order and completeness on two. The
// thread sanitizer build runs the same tests.
#include "dataplane/base/spsc_ring.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>

namespace bore::base {
namespace {

TEST(SpscRing, TakesExactlyItsCapacity) {
    for (const std::size_t capacity : {std::size_t{1}, std::size_t{2}, std::size_t{64}}) {
        SpscRing<std::size_t> ring(capacity);
        EXPECT_TRUE(ring.empty());
        for (std::size_t value = 0; value < capacity; ++value) {
            EXPECT_FALSE(ring.full());
            EXPECT_TRUE(ring.push(std::size_t{value}));
        }
        EXPECT_TRUE(ring.full());
        EXPECT_FALSE(ring.push(std::size_t{99}));
        for (std::size_t value = 0; value < capacity; ++value) {
            EXPECT_EQ(ring.pop(), value);
        }
        EXPECT_EQ(ring.pop(), std::nullopt);
        EXPECT_TRUE(ring.empty());
    }
}

TEST(SpscRing, KeepsOrderOverManyWraps) {
    SpscRing<std::uint64_t> ring(4);
    std::uint64_t pushed = 0;
    std::uint64_t popped = 0;
    for (std::size_t round = 0; round < 1'000; ++round) {
        for (std::size_t count = 0; count < round % 5; ++count) {
            if (ring.push(std::uint64_t{pushed})) {
                ++pushed;
            }
        }
        for (std::size_t count = 0; count < (round * 7) % 4; ++count) {
            if (const auto value = ring.pop()) {
                EXPECT_EQ(*value, popped);
                ++popped;
            }
        }
        EXPECT_LE(pushed - popped, 4U);
    }
    EXPECT_GT(popped, 500U);
}

TEST(SpscRing, RefusedValueIsUntouched) {
    SpscRing<std::unique_ptr<int>> ring(1);
    EXPECT_TRUE(ring.push(std::make_unique<int>(1)));
    auto second = std::make_unique<int>(2);
    EXPECT_FALSE(ring.push(std::move(second)));
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(*second, 2);  // NOLINT(bugprone-use-after-move): a full ring takes nothing
    const auto first = ring.pop();
    ASSERT_TRUE(first.has_value());
    EXPECT_EQ(**first, 1);
    EXPECT_TRUE(ring.push(std::move(second)));
    EXPECT_EQ(second, nullptr);
}

TEST(SpscRing, PoppedSlotReleasesWhatItHeld) {
    SpscRing<std::shared_ptr<int>> ring(4);
    auto value = std::make_shared<int>(5);
    EXPECT_TRUE(ring.push(std::shared_ptr<int>(value)));
    EXPECT_EQ(value.use_count(), 2);
    EXPECT_TRUE(ring.pop().has_value());
    EXPECT_EQ(value.use_count(), 1);
}

TEST(SpscRing, TwoThreadsSeeEveryValueOnceAndInOrder) {
    constexpr std::uint64_t value_count = 200'000;
    SpscRing<std::uint64_t> ring(64);
    std::jthread producer([&ring] {
        for (std::uint64_t value = 0; value < value_count;) {
            if (ring.push(std::uint64_t{value})) {
                ++value;
            } else {
                std::this_thread::yield();
            }
        }
    });
    std::uint64_t expected = 0;
    std::uint64_t out_of_order = 0;
    while (expected < value_count) {
        if (const auto value = ring.pop()) {
            out_of_order += *value == expected ? 0U : 1U;
            ++expected;
        } else {
            std::this_thread::yield();
        }
    }
    EXPECT_EQ(out_of_order, 0U);
    EXPECT_TRUE(ring.empty());
}

TEST(SpscRingDeathTest, CapacityMustBeAPowerOfTwo) {
    EXPECT_DEATH(SpscRing<int>(3), "power of two");
    EXPECT_DEATH(SpscRing<int>(0), "power of two");
}

}  // namespace
}  // namespace bore::base
