// The tables of counters, of end reasons and of limits: what readers in other processes and people
// rely on.
#include "dataplane/abi/counters.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/limits.hpp"

namespace bore::abi {
namespace {

std::vector<CounterInfo> all_counters() {
    std::vector<CounterInfo> all(worker_counter_infos.begin(), worker_counter_infos.end());
    all.insert(all.end(), tunnel_counter_infos.begin(), tunnel_counter_infos.end());
    all.insert(all.end(), control_counter_infos.begin(), control_counter_infos.end());
    return all;
}

TEST(Counters, NamesAreUniqueOverAllTables) {
    std::set<std::string_view> names;
    for (const CounterInfo& info : all_counters()) {
        EXPECT_TRUE(names.insert(info.name).second) << info.name;
    }
}

TEST(Counters, NamesFollowThePrometheusRules) {
    for (const CounterInfo& info : all_counters()) {
        EXPECT_TRUE(std::all_of(info.name.begin(), info.name.end(), [](unsigned char character) {
            return std::islower(character) != 0 || std::isdigit(character) != 0 || character == '_';
        })) << info.name;
        EXPECT_EQ(info.name.ends_with("_total"), info.kind == CounterKind::counter) << info.name;
    }
}

TEST(Counters, EveryHelpIsOneSentence) {
    for (const CounterInfo& info : all_counters()) {
        ASSERT_GT(info.help.size(), 10U) << info.name;
        EXPECT_TRUE(info.help.ends_with('.')) << info.name;
        EXPECT_TRUE(std::isupper(static_cast<unsigned char>(info.help.front())) != 0 ||
                    info.help.starts_with("splice(2)") || info.help.starts_with("accept(2)"))
            << info.name;
        EXPECT_EQ(info.help.find('\n'), std::string_view::npos) << info.name;
    }
}

TEST(Counters, TablesMatchTheirEnumerators) {
    EXPECT_EQ(worker_counter_infos.size(), WorkerCounters::size);
    EXPECT_EQ(tunnel_counter_infos.size(), TunnelCounters::size);
    EXPECT_EQ(control_counter_infos.size(), ControlCounters::size);
    EXPECT_EQ(worker_counter_infos[static_cast<std::size_t>(WorkerCounter::pairs_live)].name,
              "pairs_live");
    EXPECT_EQ(control_counter_infos[static_cast<std::size_t>(ControlCounter::reloads_total)].name,
              "reloads_total");
}

TEST(Counters, BlocksFillWholeCacheLines) {
    // Two writers on one line would cost a cache miss per count.
    EXPECT_EQ(sizeof(WorkerCounters) % base::cache_line_bytes, 0U);
    EXPECT_EQ(sizeof(ControlCounters) % base::cache_line_bytes, 0U);
    EXPECT_EQ(sizeof(TunnelCounters), base::cache_line_bytes);
    EXPECT_EQ(alignof(WorkerCounters), base::cache_line_bytes);
    EXPECT_EQ(alignof(TunnelCounters), base::cache_line_bytes);
}

TEST(Counters, AddSubtractAndSetTouchOneValueOnly) {
    WorkerCounters block;
    block.add(WorkerCounter::pairs_opened_total);
    block.add(WorkerCounter::pairs_opened_total, 41);
    block.add(WorkerCounter::pairs_live, 3);
    block.subtract(WorkerCounter::pairs_live);
    block.set(WorkerCounter::heartbeat_ns, 77);
    EXPECT_EQ(block.get(WorkerCounter::pairs_opened_total), 42U);
    EXPECT_EQ(block.get(WorkerCounter::pairs_live), 2U);
    EXPECT_EQ(block.get(WorkerCounter::heartbeat_ns), 77U);
    EXPECT_EQ(std::count_if(block.values.begin(), block.values.end(),
                            [](const auto& value) { return value.load() != 0; }),
              3);
}

TEST(EndReasons, EveryReasonHasItsOwnName) {
    std::set<std::string_view> names;
    for (std::size_t index = 0; index < static_cast<std::size_t>(EndReason::count); ++index) {
        const std::string_view name = to_string(static_cast<EndReason>(index));
        EXPECT_NE(name, "unknown");
        EXPECT_TRUE(names.insert(name).second) << name;
    }
    EXPECT_EQ(to_string(EndReason::half_closed), "half_closed");
    EXPECT_EQ(to_string(EndReason::count), "unknown");
}

TEST(EndReasons, EveryReasonHasItsWorkerCounter) {
    for (std::size_t index = 0; index < static_cast<std::size_t>(EndReason::count); ++index) {
        const std::string name =
            "pairs_ended_" + std::string(to_string(static_cast<EndReason>(index))) + "_total";
        EXPECT_TRUE(std::any_of(worker_counter_infos.begin(), worker_counter_infos.end(),
                                [&](const CounterInfo& info) { return info.name == name; }))
            << name;
    }
}

}  // namespace
}  // namespace bore::abi
