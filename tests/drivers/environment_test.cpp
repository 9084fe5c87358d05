// The stream engine where the machine does not give what it wants: io_uring forbidden, no
// descriptors for pipes, fewer buffers than senders, CPUs that do not exist; and where it spins.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "tests/drivers/harness.hpp"

namespace bore::drivers::testing {
namespace {

using abi::WorkerCounter;

// From here on this process gets EPERM from io_uring_setup(2), as in a container.
bool forbid_io_uring() {
    std::array<sock_filter, 4> program{{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    }};
    const sock_fprog filter{.len = program.size(), .filter = program.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Exits with the number of the first thing that is not as it should be.
[[noreturn]] void use_engine_without_io_uring() {
    if (!forbid_io_uring()) {
        std::exit(1);
    }
    abi::Statistics statistics(1, 1);
    abi::TunnelTable tunnels(1);
    const auto forced = make_stream_engine(
        {.driver = StreamDriver::io_uring, .worker_count = 1, .cpus = {}}, statistics, tunnels);
    if (forced || forced.error().find("stream-driver") == std::string::npos ||
        forced.error().find("seccomp") == std::string::npos) {
        std::exit(2);
    }
    const auto automatic = make_stream_engine({.worker_count = 1, .cpus = {}}, statistics, tunnels);
    if (!automatic) {
        std::exit(3);
    }
    const std::string description = (*automatic)->description();
    std::exit(description.find("epoll") != std::string::npos &&
                      description.find("seccomp") != std::string::npos
                  ? 0
                  : 4);
}

TEST(EnvironmentDeathTest, WithoutIoUringTheEngineSaysSoAndUsesEpoll) {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(use_engine_without_io_uring(), ::testing::ExitedWithCode(0), "");
}

TEST(Environment, ACpuThatDoesNotExistIsNamed) {
    const std::size_t before = open_descriptors();
    {
        abi::Statistics statistics(2, 1);
        abi::TunnelTable tunnels(1);
        const auto made = make_stream_engine(
            {.driver = StreamDriver::epoll, .worker_count = 2, .cpus = {0, 1'023}}, statistics,
            tunnels);
        ASSERT_FALSE(made.has_value());
        EXPECT_NE(made.error().find("CPU 1023"), std::string::npos) << made.error();
        EXPECT_NE(made.error().find("cpus"), std::string::npos) << made.error();
    }
    EXPECT_EQ(open_descriptors(), before);
}

class ScarcityTest : public EngineTest {};
INSTANTIATE_TEST_SUITE_P(Drivers, ScarcityTest, both_drivers, driver_name);

TEST_P(ScarcityTest, WithoutDescriptorsForPipesBulkIsCopied) {
    if (sanitized) {
        GTEST_SKIP() << "the sanitizer needs descriptors for its own checks of memory";
    }
    constexpr std::uint64_t bytes = 20'000'000;
    Ends ends = open();
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit none{.rlim_cur = open_descriptors() - 1, .rlim_max = limit.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    std::jthread sender([&ends] { (void)ends.client.send_pattern(1, 0, bytes); });
    const bool whole = ends.visitor.receive_pattern(1, 0, bytes);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    EXPECT_TRUE(whole);
    ends.visitor.reset();
    wait_for_ends(1);
    EXPECT_EQ(counter(WorkerCounter::spliced_bytes_total), 0U);
    EXPECT_EQ(counter(WorkerCounter::copied_bytes_total), bytes);
    EXPECT_GT(counter(WorkerCounter::pipes_exhausted_total), 0U);
}

// io_uring has 64 receive buffers for all.
TEST_P(ScarcityTest, MoreSendersThanReceiveBuffers) {
    constexpr std::size_t pairs = 300;
    constexpr std::uint64_t bytes = 40'000;  // fits into the socket buffers: one thread suffices
    std::vector<Ends> all;
    for (std::size_t index = 0; index < pairs; ++index) {
        all.push_back(open());
    }
    for (std::uint64_t round = 0; round < 5; ++round) {
        for (std::size_t index = 0; index < pairs; ++index) {
            ASSERT_TRUE(all[index].visitor.send_pattern(index, round * bytes, bytes));
        }
        for (std::size_t index = 0; index < pairs; ++index) {
            ASSERT_TRUE(all[index].client.receive_pattern(index, round * bytes, bytes)) << index;
        }
    }
    for (Ends& ends : all) {
        ends.visitor.close();
        ends.client.close();
    }
    wait_for_ends(pairs);
    EXPECT_EQ(statistics_->tunnel_totals(0).to_client_bytes, pairs * bytes * 5);
}

TEST_P(ScarcityTest, BusyPollingLosesNoCommandAndSleepsInTheEnd) {
    start(1, 200);
    if (engine_ == nullptr) {
        return;
    }
    for (std::uint64_t round = 0; round < 20; ++round) {
        Ends ends = open();
        for (std::uint64_t message = 0; message < 20; ++message) {
            ASSERT_TRUE(ends.visitor.send_pattern(1, message * 64, 64));
            ASSERT_TRUE(ends.client.receive_pattern(1, message * 64, 64));
        }
        ends.client.close();
        ends.visitor.close();
        wait_for_ends(round + 1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const std::uint64_t loops = counter(WorkerCounter::loops_total);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_LT(counter(WorkerCounter::loops_total) - loops, 20U) << "an idle worker spins";
}

}  // namespace
}  // namespace bore::drivers::testing
