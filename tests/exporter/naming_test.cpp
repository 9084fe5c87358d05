// Names against the rules that Prometheus has for them, for every line of every table: a counter
// that is added later is held to them as well.
#include "controlplane/exporter/naming.hpp"

#include <gtest/gtest.h>
#include <prometheus/check_names.h>

#include <algorithm>
#include <set>

#include "dataplane/abi/snapshot.hpp"

namespace bore::exporter {
namespace {

struct Table {
    std::string name;
    std::span<const abi::CounterInfo> infos;
};

std::vector<Table> all_tables() {
    return {
        {"control", abi::control_counter_infos},      {"worker", abi::worker_counter_infos},
        {"tunnel", abi::tunnel_counter_infos},        {"port", abi::port_counter_infos},
        {"packet", abi::packet_worker_counter_infos}, {"slow path", abi::slow_path_counter_infos}};
}

std::vector<abi::HistogramInfo> all_histograms() {
    std::vector<abi::HistogramInfo> all;
    for (const std::span<const abi::HistogramInfo> table :
         {std::span<const abi::HistogramInfo>(abi::control_histogram_infos),
          std::span<const abi::HistogramInfo>(abi::worker_histogram_infos),
          std::span<const abi::HistogramInfo>(abi::packet_worker_histogram_infos),
          std::span<const abi::HistogramInfo>(abi::slow_path_histogram_infos)}) {
        all.insert(all.end(), table.begin(), table.end());
    }
    return all;
}

const PlannedFamily* find(const std::vector<PlannedFamily>& plan, const std::string& name) {
    const auto family = std::ranges::find(plan, name, &PlannedFamily::name);
    return family == plan.end() ? nullptr : &*family;
}

TEST(Naming, EveryCounterIsInOneFamilyAndHeartbeatsInNone) {
    for (const Table& table : all_tables()) {
        std::vector<int> seen(table.infos.size(), 0);
        for (const PlannedFamily& family : plan(table.infos)) {
            for (const PlannedFamily::Member& member : family.members) {
                ++seen[member.counter_index];
            }
        }
        for (std::size_t index = 0; index < seen.size(); ++index) {
            const bool is_heartbeat = table.infos[index].name.ends_with("heartbeat_ns");
            EXPECT_EQ(seen[index], is_heartbeat ? 0 : 1) << table.infos[index].name;
        }
    }
}

TEST(Naming, NamesKeepToTheRules) {
    std::set<std::string> names;
    for (const Table& table : all_tables()) {
        for (const PlannedFamily& family : plan(table.infos)) {
            EXPECT_TRUE(prometheus::CheckMetricName(family.name)) << family.name;
            EXPECT_TRUE(family.name.starts_with("bore_")) << family.name;
            EXPECT_EQ(family.name.ends_with("_total"), family.kind == abi::CounterKind::counter)
                << family.name;
            EXPECT_FALSE(family.help.empty()) << family.name;
            EXPECT_TRUE(names.insert(family.name).second) << family.name << " is in two tables";
            for (const char* unit : {"_ns", "_us", "_ms", "_mbps", "_mbit", "_kb", "_mb"}) {
                EXPECT_FALSE(family.name.ends_with(unit) ||
                             family.name.ends_with(std::string(unit) + "_total"))
                    << family.name;
            }
        }
    }
    for (const abi::HistogramInfo& info : all_histograms()) {
        const PlannedHistogram planned = plan(info);
        EXPECT_TRUE(prometheus::CheckMetricName(planned.name)) << planned.name;
        EXPECT_TRUE(names.insert(planned.name).second) << planned.name;
        EXPECT_EQ(planned.name.ends_with("_seconds"), info.unit == abi::HistogramUnit::nanoseconds);
    }
}

TEST(Naming, MembersOfAFamilyDifferByTheirLabel) {
    for (const Table& table : all_tables()) {
        for (const PlannedFamily& family : plan(table.infos)) {
            std::set<std::string> values;
            for (const PlannedFamily::Member& member : family.members) {
                EXPECT_TRUE(values.insert(member.label_value).second) << family.name;
                EXPECT_EQ(member.label_value.empty(), family.label.empty()) << family.name;
                EXPECT_EQ(table.infos[member.counter_index].kind, family.kind) << family.name;
            }
            EXPECT_TRUE(family.label.empty() || prometheus::CheckLabelName(family.label));
        }
    }
}

TEST(Naming, ReasonsBecomeALabelWithTheTablesSentences) {
    const auto workers = plan(abi::worker_counter_infos);
    const PlannedFamily* ended = find(workers, "bore_pairs_ended_total");
    ASSERT_NE(ended, nullptr);
    EXPECT_EQ(ended->label, "reason");
    EXPECT_TRUE(std::ranges::any_of(
        ended->members, [](const auto& member) { return member.label_value == "half_closed"; }));
    EXPECT_NE(ended->help.find("fin: Pairs that ended in order"), std::string::npos) << ended->help;
    EXPECT_EQ(find(workers, "bore_pairs_ended_fin_total"), nullptr);
    EXPECT_NE(find(workers, "bore_pairs_opened_total"), nullptr);
}

TEST(Naming, FramesAreDroppedOrGoToTheKernel) {
    const auto packets = plan(abi::packet_worker_counter_infos);
    const PlannedFamily* dropped = find(packets, "bore_packets_dropped_total");
    const PlannedFamily* to_kernel = find(packets, "bore_packets_to_kernel_total");
    ASSERT_NE(dropped, nullptr);
    ASSERT_NE(to_kernel, nullptr);
    EXPECT_EQ(dropped->members.size() + to_kernel->members.size(),
              static_cast<std::size_t>(abi::PacketReason::count) - 2);
    EXPECT_NE(find(packets, "bore_packet_spliced_total"), nullptr);
    EXPECT_NE(find(packets, "bore_packet_held_total"), nullptr);
}

TEST(Naming, UnitsAreBaseUnits) {
    constexpr std::array infos{
        abi::CounterInfo{"work_ns_total", abi::CounterKind::counter, "Work."},
        abi::CounterInfo{"speed_mbps", abi::CounterKind::gauge, "Speed in Mbit/s."}};
    const auto families = plan(infos);
    ASSERT_EQ(families.size(), 2U);
    EXPECT_EQ(families[0].name, "bore_work_seconds_total");
    EXPECT_DOUBLE_EQ(families[0].scale, 1e-9);
    EXPECT_EQ(families[1].name, "bore_speed_bytes_per_second");
    EXPECT_DOUBLE_EQ(families[1].scale, 125'000);
}

}  // namespace
}  // namespace bore::exporter
