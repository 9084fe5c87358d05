// The memory of the counters: rows apart from one another, totals over workers, and the promise
// that untouched rows cost nothing.
#include "dataplane/abi/statistics.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <set>

#include "dataplane/abi/limits.hpp"

namespace bore::abi {
namespace {

// Resident bytes of this process, by /proc/self/statm.
std::size_t resident_bytes() {
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    if (file == nullptr) {
        return 0;
    }
    unsigned long total_pages = 0;
    unsigned long resident_pages = 0;
    const int field_count = std::fscanf(file, "%lu %lu", &total_pages, &resident_pages);
    std::fclose(file);
    return field_count == 2 ? resident_pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))
                            : 0;
}

TEST(Statistics, StartsAtZeroEverywhere) {
    Statistics statistics(2, 16);
    for (std::uint32_t tunnel = 0; tunnel < 16; ++tunnel) {
        const TunnelTotals totals = statistics.tunnel_totals(tunnel);
        EXPECT_EQ(totals.to_client_bytes, 0U);
        EXPECT_EQ(totals.to_visitor_bytes, 0U);
        EXPECT_EQ(totals.pairs_opened, 0U);
        EXPECT_EQ(totals.pairs_live, 0U);
    }
    EXPECT_EQ(statistics.worker_total(WorkerCounter::loops_total), 0U);
    EXPECT_EQ(statistics.control().get(ControlCounter::reloads_total), 0U);
}

TEST(Statistics, EveryBlockIsApartAndAligned) {
    Statistics statistics(3, 8);
    std::set<std::uintptr_t> begins{reinterpret_cast<std::uintptr_t>(&statistics.control())};
    for (std::uint32_t worker = 0; worker < 3; ++worker) {
        begins.insert(reinterpret_cast<std::uintptr_t>(&statistics.worker(worker)));
        for (std::uint32_t tunnel = 0; tunnel < 8; ++tunnel) {
            begins.insert(reinterpret_cast<std::uintptr_t>(&statistics.tunnel(worker, tunnel)));
        }
    }
    EXPECT_EQ(begins.size(), 1U + 3U + 3U * 8U);
    std::uintptr_t previous = 0;
    for (const std::uintptr_t begin : begins) {
        EXPECT_EQ(begin % base::cache_line_bytes, 0U);
        EXPECT_GE(begin - previous, base::cache_line_bytes);
        previous = begin;
    }
}

TEST(Statistics, TotalsAddTheWorkersRowsOfOneTunnel) {
    Statistics statistics(3, 4);
    for (std::uint32_t worker = 0; worker < 3; ++worker) {
        TunnelCounters& row = statistics.tunnel(worker, 2);
        row.add(TunnelCounter::to_client_bytes_total, 100 + worker);
        row.add(TunnelCounter::to_visitor_bytes_total, 1'000 * (worker + 1));
        row.add(TunnelCounter::tunnel_pairs_opened_total, 5);
        row.add(TunnelCounter::tunnel_pairs_live, worker);
        statistics.worker(worker).add(WorkerCounter::loops_total, 10 + worker);
    }
    statistics.tunnel(0, 3).add(TunnelCounter::to_client_bytes_total, 9);
    const TunnelTotals totals = statistics.tunnel_totals(2);
    EXPECT_EQ(totals.to_client_bytes, 303U);
    EXPECT_EQ(totals.to_visitor_bytes, 6'000U);
    EXPECT_EQ(totals.pairs_opened, 15U);
    EXPECT_EQ(totals.pairs_live, 3U);
    EXPECT_EQ(statistics.tunnel_totals(3).to_client_bytes, 9U);
    EXPECT_EQ(statistics.tunnel_totals(1).to_client_bytes, 0U);
    EXPECT_EQ(statistics.worker_total(WorkerCounter::loops_total), 33U);
}

TEST(Statistics, UntouchedRowsCostNoMemory) {
    const std::size_t before = resident_bytes();
    ASSERT_GT(before, 0U);
    Statistics statistics(max_workers, max_tunnels);  // 256 MiB of address space
    statistics.tunnel(max_workers - 1, max_tunnels - 1).add(TunnelCounter::to_client_bytes_total);
    EXPECT_EQ(statistics.tunnel_totals(max_tunnels - 1).to_client_bytes, 1U);
    EXPECT_LT(resident_bytes() - before, 4U << 20U);
}

TEST(StatisticsDeathTest, IndexesOutOfRangeAbort) {
    Statistics statistics(1, 4);
    EXPECT_DEATH((void)statistics.worker(1), "no such worker");
    EXPECT_DEATH((void)statistics.tunnel(0, 4), "no such tunnel row");
    EXPECT_DEATH(Statistics(0, 4), "worker count out of range");
    EXPECT_DEATH(Statistics(1, max_tunnels + 1), "tunnel capacity out of range");
}

TEST(Statistics, PacketRowsAreApartAndCountIntoTheTotals) {
    Statistics statistics(2, 8, {.worker_count = 3, .port_count = 2});
    std::set<std::uintptr_t> begins{reinterpret_cast<std::uintptr_t>(&statistics.control()),
                                    reinterpret_cast<std::uintptr_t>(&statistics.slow_path())};
    for (std::uint32_t port = 0; port < 2; ++port) {
        begins.insert(reinterpret_cast<std::uintptr_t>(&statistics.port(port)));
    }
    std::uint64_t amount = 1;
    std::uint64_t sum = 0;
    const auto count_into = [&](TunnelCounters& row) {
        begins.insert(reinterpret_cast<std::uintptr_t>(&row));
        row.add(TunnelCounter::to_client_bytes_total, amount);
        sum += amount;
        amount *= 10;
    };
    for (std::uint32_t worker = 0; worker < 2; ++worker) {
        begins.insert(reinterpret_cast<std::uintptr_t>(&statistics.worker(worker)));
        count_into(statistics.tunnel(worker, 5));
    }
    for (std::uint32_t worker = 0; worker < 3; ++worker) {
        begins.insert(reinterpret_cast<std::uintptr_t>(&statistics.packet_worker(worker)));
        ASSERT_EQ(statistics.packet_worker_rows(worker).size(), 8U);
        count_into(statistics.packet_worker_rows(worker)[5]);
    }
    count_into(statistics.slow_path_rows()[5]);
    EXPECT_EQ(begins.size(), 1U + 1U + 2U + 2U * 2U + 3U * 2U + 1U);
    EXPECT_EQ(statistics.tunnel_totals(5).to_client_bytes, sum);
    EXPECT_EQ(sum, 111'111U);
    EXPECT_EQ(statistics.tunnel_totals(4).to_client_bytes, 0U);
    EXPECT_EQ(statistics.tunnel_totals(6).to_client_bytes, 0U);
}

TEST(Statistics, TheOldestHeartbeatIsThatOfEveryLoop) {
    Statistics stream_only(2, 1);
    stream_only.worker(0).set(WorkerCounter::heartbeat_ns, 7);
    stream_only.worker(1).set(WorkerCounter::heartbeat_ns, 5);
    EXPECT_EQ(stream_only.oldest_heartbeat_ns(), 5U);

    Statistics statistics(1, 1, {.worker_count = 2, .port_count = 1});
    statistics.worker(0).set(WorkerCounter::heartbeat_ns, 9);
    statistics.packet_worker(0).set(PacketWorkerCounter::packet_heartbeat_ns, 8);
    statistics.packet_worker(1).set(PacketWorkerCounter::packet_heartbeat_ns, 6);
    statistics.slow_path().set(SlowPathCounter::slow_path_heartbeat_ns, 7);
    EXPECT_EQ(statistics.oldest_heartbeat_ns(), 6U);
    statistics.packet_worker(1).set(PacketWorkerCounter::packet_heartbeat_ns, 10);
    EXPECT_EQ(statistics.oldest_heartbeat_ns(), 7U);
}

}  // namespace
}  // namespace bore::abi
