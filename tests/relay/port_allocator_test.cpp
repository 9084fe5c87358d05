// The port allocator against its rules, and against a naive model under random operations.
#include "controlplane/relay/port_allocator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <set>
#include <vector>

namespace bore::relay {
namespace {

int bind_works(std::uint16_t /*port*/) {
    return 0;
}

TEST(PortAllocator, RefusesWhatIsOutsideOfTheRangeOrReserved) {
    const std::vector<std::uint16_t> reserved{105};
    PortAllocator ports(100, 110, reserved);
    EXPECT_EQ(ports.free_count(), 10U);
    for (const auto port : std::vector<std::uint16_t>{99, 111, 105, 65535}) {
        EXPECT_EQ(ports.allocate(port, 0, bind_works).error(), PortError::not_allowed) << port;
    }
    EXPECT_EQ(ports.allocate(104, 0, bind_works).value(), 104);
    EXPECT_EQ(ports.allocate(104, 0, bind_works).error(), PortError::in_use);
    ports.give_back(104);
    EXPECT_EQ(ports.allocate(104, 0, bind_works).value(), 104);
}

TEST(PortAllocator, TellsWhyAPortCannotBeBound) {
    PortAllocator ports(100, 110, {});
    const auto fails_with = [](int error) { return [error](std::uint16_t) { return error; }; };
    EXPECT_EQ(ports.allocate(100, 0, fails_with(EADDRINUSE)).error(), PortError::in_use);
    EXPECT_EQ(ports.allocate(100, 0, fails_with(EACCES)).error(), PortError::permission_denied);
    EXPECT_EQ(ports.allocate(100, 0, fails_with(EADDRNOTAVAIL)).error(), PortError::bind_failed);
    EXPECT_EQ(ports.allocate(0, 0, fails_with(EMFILE)).error(), PortError::bind_failed);
    EXPECT_EQ(ports.free_count(), 11U) << "a failure takes nothing";
}

TEST(PortAllocator, FindsTheOneFreePortAmongForeignOnes) {
    // All but one port of the whole range belong to other programs.
    for (const auto last : std::vector<std::uint16_t>{1024, 30000, 30015, 65535}) {
        PortAllocator ports(1024, 65535, {});
        const auto bind = [last](std::uint16_t port) { return port == last ? 0 : EADDRINUSE; };
        for (const std::uint32_t random : {0U, 30001U, 0xffffffffU}) {
            ASSERT_EQ(ports.allocate(0, random, bind).value(), last);
            ports.give_back(last);
        }
    }
    PortAllocator none(5, 6, {});
    EXPECT_EQ(none.allocate(0, 1, [](std::uint16_t) { return EADDRINUSE; }).error(),
              PortError::none_left);
}

TEST(PortAllocator, StartsWhereTheRandomNumberSays) {
    PortAllocator ports(1000, 1999, {});
    EXPECT_EQ(ports.allocate(0, 500, bind_works).value(), 1500);
    EXPECT_EQ(ports.allocate(0, 500, bind_works).value(), 1501);
    EXPECT_EQ(ports.allocate(0, 999, bind_works).value(), 1999);
    EXPECT_EQ(ports.allocate(0, 999, bind_works).value(), 1000) << "wraps around";
}

TEST(PortAllocator, AgreesWithASetUnderRandomOperations) {
    const std::uint32_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    PortAllocator ports(60, 200, {});
    std::set<std::uint16_t> taken;
    for (int i = 0; i < 20'000; ++i) {
        if (random() % 2 == 0 && !taken.empty()) {
            const std::uint16_t port =
                *std::next(taken.begin(), static_cast<std::ptrdiff_t>(random() % taken.size()));
            ports.give_back(port);
            taken.erase(port);
        } else {
            const auto port = ports.allocate(0, static_cast<std::uint32_t>(random()), bind_works);
            ASSERT_EQ(port.has_value(), taken.size() < 141);
            if (port) {
                ASSERT_TRUE(*port >= 60 && *port <= 200);
                ASSERT_TRUE(taken.insert(*port).second) << *port << " was given out twice";
            }
        }
        ASSERT_EQ(ports.free_count() + taken.size(), 141U);
    }
}

}  // namespace
}  // namespace bore::relay
