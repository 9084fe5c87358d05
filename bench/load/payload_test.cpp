// The opening, the report, and that the pattern tells every stream, direction and offset apart.
#include "bench/load/payload.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace bore::bench {
namespace {

TEST(Opening, comes_back_as_it_was) {
    for (const Work work :
         {Work::upload, Work::download, Work::both, Work::requests, Work::after_fin}) {
        Opening sent{.work = work, .verify = true, .acknowledge_at_once = true, .stream = 0xabcd};
        sent.set_halves(3'000'000'000, 7);
        const auto got = Opening::decode(sent.encode());
        ASSERT_TRUE(got.has_value());
        EXPECT_EQ(got->work, work);
        EXPECT_TRUE(got->verify);
        EXPECT_TRUE(got->acknowledge_at_once);
        EXPECT_EQ(got->stream, 0xabcd);
        EXPECT_EQ(got->lower(), 3'000'000'000);
        EXPECT_EQ(got->upper(), 7U);
    }
}

TEST(Opening, refuses_what_is_none) {
    Opening opening;
    opening.set_halves(64, 64);
    auto bytes = opening.encode();
    EXPECT_FALSE(Opening::decode(std::span(bytes).first(15)));
    bytes[4] = std::byte{'x'};
    EXPECT_FALSE(Opening::decode(bytes));
    bytes = opening.encode();
    bytes[0] = std::byte{'G'};
    EXPECT_FALSE(Opening::decode(bytes));
    opening.set_halves(0, 64);  // a request of nothing would never be answered
    EXPECT_FALSE(Opening::decode(opening.encode()));
}

TEST(UploadReport, comes_back_as_it_was) {
    for (const std::optional<std::uint64_t> at :
         {std::optional<std::uint64_t>(), std::optional<std::uint64_t>(0),
          std::optional<std::uint64_t>(77)}) {
        const auto got =
            UploadReport::decode(UploadReport{.received_bytes = 99, .first_mismatch = at}.encode());
        EXPECT_EQ(got.received_bytes, 99U);
        EXPECT_EQ(got.first_mismatch, at);
    }
}

TEST(Pattern, differs_by_offset_stream_and_direction) {
    constexpr std::size_t length = 64;
    const auto same = [](std::uint64_t one, std::uint64_t other) {
        return std::ranges::equal(pattern_at(one, length), pattern_at(other, length));
    };
    const Opening first{.stream = 0};
    for (std::uint64_t shift = 1; shift <= 4096; ++shift) {
        EXPECT_FALSE(same(0, shift)) << shift;
    }
    EXPECT_FALSE(same(first.begin(Direction::up), first.begin(Direction::down)));
    for (std::uint16_t stream = 1; stream < 1000; ++stream) {
        const Opening other{.stream = stream};
        EXPECT_FALSE(same(first.begin(Direction::up), other.begin(Direction::up))) << stream;
        EXPECT_FALSE(same(first.begin(Direction::down), other.begin(Direction::up))) << stream;
    }
}

// A pair of sockets with the pattern in between.
class Transfer : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends_), 0);
    }
    void TearDown() override {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }

    int ends_[2] = {-1, -1};
};

TEST_F(Transfer, opening_and_bytes_arrive_whole) {
    const Opening opening{.work = Work::upload, .verify = true, .stream = 9};
    const std::uint64_t begin = opening.begin(Direction::up);
    PatternSender sender(begin, 300'000);
    sender.open_with(opening.encode());
    PatternReceiver receiver(begin, 300'000, true);
    std::vector<std::byte> head(opening_size_bytes);
    bool has_head = false;
    while (!receiver.complete()) {
        if (!sender.complete()) {
            ASSERT_NE(sender.pump(ends_[0]), Pump::failed);
        }
        if (!has_head) {
            ASSERT_EQ(::read(ends_[1], head.data(), head.size()),
                      static_cast<ssize_t>(head.size()));
            has_head = true;
        }
        ASSERT_NE(receiver.pump(ends_[1]), Pump::failed);
    }
    EXPECT_TRUE(Opening::decode(head).has_value());
    EXPECT_TRUE(sender.complete());
    EXPECT_FALSE(receiver.first_mismatch());
    EXPECT_EQ(receiver.received_bytes(), 300'000U);
}

TEST_F(Transfer, one_wrong_byte_is_found_at_its_offset) {
    constexpr std::uint64_t begin = 12'345;
    PatternReceiver receiver(begin, endless, true);
    const auto pattern = pattern_at(begin, 5'000);
    std::vector<std::byte> bytes(pattern.begin(), pattern.end());
    bytes[4'321] ^= std::byte{1};
    ASSERT_EQ(::write(ends_[0], bytes.data(), bytes.size()), 5'000);
    while (receiver.received_bytes() < bytes.size()) {
        ASSERT_EQ(receiver.pump(ends_[1], 1'000), Pump::progress);
    }
    EXPECT_EQ(receiver.first_mismatch(), 4'321U);
}

TEST_F(Transfer, a_lost_byte_is_found) {
    PatternReceiver receiver(0, endless, true);
    const auto pattern = pattern_at(0, 2'000);
    ASSERT_EQ(::write(ends_[0], pattern.data(), 1'000), 1'000);
    ASSERT_EQ(::write(ends_[0], pattern.data() + 1'001, 999), 999);
    ASSERT_EQ(receiver.pump(ends_[1]), Pump::progress);
    EXPECT_EQ(receiver.first_mismatch(), 1'000U);
}

}  // namespace
}  // namespace bore::bench
