// Hugepages for the flow table: zeroed, in place, and a lack of them is an answer.
#include "drivers/dpdk/memory.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace bore::drivers {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20U;

std::size_t free_pages() {
    std::ifstream file{"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"};
    std::size_t count = 0;
    file >> count;
    return count;
}

class Hugepages : public testing::Test {
  protected:
    void SetUp() override {
        if (free_pages() < 8) {
            GTEST_SKIP() << "SKIPPED: fewer than 8 free hugepages of 2 MiB; echo 8 > "
                            "/proc/sys/vm/nr_hugepages";
        }
    }
};

TEST_F(Hugepages, ComePieceByPieceAndGoBack) {
    const std::size_t before = free_pages();
    auto memory = make_hugepage_memory();
    EXPECT_EQ(memory->granule_bytes(), 2 * mib);
    std::byte* at = memory->reserve(4'096 * mib);
    ASSERT_NE(at, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at) % (2 * mib), 0U);
    EXPECT_EQ(free_pages(), before);
    ASSERT_TRUE(memory->commit(at, 4 * mib));
    ASSERT_TRUE(memory->commit(at + 6 * mib, 2 * mib));
    EXPECT_EQ(free_pages(), before - 3);
    for (std::byte* piece : {at, at + 2 * mib, at + 6 * mib}) {
        EXPECT_TRUE(
            std::all_of(piece, piece + 2 * mib, [](std::byte b) { return b == std::byte{}; }));
        std::fill(piece, piece + 2 * mib, std::byte{0xa5});
    }
    memory->release(at, 4'096 * mib);
    EXPECT_EQ(free_pages(), before);
}

TEST_F(Hugepages, MoreThanThereAreIsRefusedAndNothingIsLost) {
    const std::size_t before = free_pages();
    auto memory = make_hugepage_memory();
    const std::size_t too_much = (before + 16) * 2 * mib;
    std::byte* at = memory->reserve(too_much);
    ASSERT_NE(at, nullptr);
    ASSERT_TRUE(memory->commit(at, 2 * mib));
    at[0] = std::byte{42};
    EXPECT_FALSE(memory->commit(at + 2 * mib, too_much - 2 * mib));
    EXPECT_EQ(at[0], std::byte{42});
    EXPECT_EQ(free_pages(), before - 1);
    ASSERT_TRUE(memory->commit(at + 2 * mib, 2 * mib));
    memory.reset();  // without release
    EXPECT_EQ(free_pages(), before);
}

}  // namespace
}  // namespace bore::drivers
