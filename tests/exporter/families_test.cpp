// Snapshots of a segment that the relay's own writer made, into families.
#include "controlplane/exporter/families.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "controlplane/exporter/relays.hpp"
#include "tests/exporter/segment_of_test.hpp"

namespace bore::exporter::testing {
namespace {

struct Scrape {
    Samples samples;
    std::vector<std::string> names;

    [[nodiscard]] double at(const std::string& name) const {
        const auto sample = samples.find(name);
        EXPECT_NE(sample, samples.end()) << name << " is not there";
        return sample == samples.end() ? -1 : sample->second;
    }
    [[nodiscard]] bool has(const std::string& name) const { return samples.contains(name); }
};

Scrape scrape(const std::vector<RelayView>& relays) {
    Scrape result;
    write_relays(relays, [&](const prometheus::MetricFamily& family) {
        result.names.push_back(family.name);
        add_samples(family, result.samples);
    });
    return result;
}

struct Looked {
    explicit Looked(const TestRelay& relay, std::optional<std::uint32_t> most = std::nullopt)
        : snapshot(relay.read()), accounts(most, 0) {
        accounts.update(snapshot);
    }
    [[nodiscard]] RelayView view(const std::string& name = "edge") const {
        return {.name = name,
                .snapshot = &snapshot,
                .accounts = &accounts,
                .limits = {.max_tunnels = 8, .link_bytes_per_second = 125'000'000},
                .read_errors = 3};
    }
    abi::Snapshot snapshot;
    TunnelAccounts accounts;
};

TEST(Families, OfARelayWithoutPacketEngine) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 2, .tunnel_capacity = 16});
    relay.statistics.control().add(abi::ControlCounter::tunnels_live, 6);
    relay.statistics.control().add(abi::ControlCounter::visitors_refused_limit_total, 9);
    relay.statistics.worker(0).add(abi::WorkerCounter::spliced_bytes_total, 1'000);
    relay.statistics.worker(1).add(abi::WorkerCounter::spliced_bytes_total, 24);
    relay.statistics.worker(1).add(abi::WorkerCounter::pairs_ended_fin_total, 5);
    const Looked looked(relay);
    const std::vector<RelayView> views{looked.view()};
    const Scrape found = scrape(views);

    EXPECT_EQ(found.at(R"(bore_up{relay="edge"})"), 1);
    EXPECT_EQ(found.at(R"(bore_stale_seconds{relay="edge"})"), 0);
    EXPECT_EQ(found.at(R"(bore_segment_errors_total{relay="edge"})"), 3);
    EXPECT_EQ(found.at(R"(bore_relay_start_time_seconds{relay="edge"})"), 1'700'000'000);
    EXPECT_EQ(found.at(R"(bore_relay_info{relay="edge",server_id="edge",version="1.2.3",)"
                       R"(control_port="7835",engine="an engine",user=")" +
                       std::to_string(::geteuid()) + "\"}"),
              1);
    EXPECT_EQ(found.at(R"(bore_capacity_utilization_percent{relay="edge"})"), 75);
    EXPECT_EQ(found.at(R"(bore_bandwidth_utilization_percent{relay="edge"})"), 0);
    EXPECT_EQ(found.at(R"(bore_visitors_refused_total{relay="edge",reason="limit"})"), 9);
    EXPECT_EQ(found.at(R"(bore_spliced_bytes_total{relay="edge",worker="0"})"), 1'000);
    EXPECT_EQ(found.at(R"(bore_spliced_bytes_total{relay="edge",worker="1"})"), 24);
    EXPECT_EQ(found.at(R"(bore_pairs_ended_total{relay="edge",worker="1",reason="fin"})"), 5);
    EXPECT_TRUE(found.has(R"(bore_loop_age_seconds{relay="edge",loop="control"})"));
    EXPECT_TRUE(found.has(R"(bore_loop_age_seconds{relay="edge",loop="worker_1"})"));
    EXPECT_FALSE(found.has(R"(bore_loop_age_seconds{relay="edge",loop="slow_path"})"));
    // Nothing of an engine that is not there.
    for (const std::string& name : found.names) {
        EXPECT_FALSE(name.starts_with("bore_packet")) << name;
        EXPECT_FALSE(name.starts_with("bore_port_")) << name;
    }
    // Each family once, however many relays.
    EXPECT_EQ(std::set(found.names.begin(), found.names.end()).size(), found.names.size());
}

TEST(Families, OfTheTunnels) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 2, .tunnel_capacity = 16});
    relay.open_tunnel(0, 5'000);
    relay.open_tunnel(1, 5'001);
    relay.statistics.tunnel(0, 0).add(abi::TunnelCounter::to_client_bytes_total, 100);
    relay.statistics.tunnel(1, 0).add(abi::TunnelCounter::to_client_bytes_total, 11);
    relay.statistics.tunnel(1, 0).add(abi::TunnelCounter::tunnel_pairs_opened_total, 2);
    relay.statistics.tunnel(1, 0).add(abi::TunnelCounter::tunnel_pairs_live, 1);
    relay.statistics.tunnel(1, 1).add(abi::TunnelCounter::to_visitor_bytes_total, 7);
    const Looked looked(relay);
    const Scrape found = scrape({looked.view()});

    const std::string own = R"(relay="edge",port="5000",path="stream")";
    EXPECT_EQ(found.at("bore_tunnel_bytes_total{" + own + R"(,to="client"})"), 111);
    EXPECT_EQ(found.at("bore_tunnel_bytes_total{" + own + R"(,to="visitor"})"), 0);
    EXPECT_EQ(found.at("bore_tunnel_pairs_opened_total{" + own + "}"), 2);
    EXPECT_EQ(found.at("bore_tunnel_pairs_live{" + own + "}"), 1);
    EXPECT_EQ(found.at(R"(bore_tunnel_bytes_total{relay="edge",port="5001",path="stream",)"
                       R"(to="visitor"})"),
              7);
    EXPECT_EQ(found.at(R"(bore_tunnel_info{relay="edge",port="5000",client="192.0.2.7",)"
                       R"(dialect="upstream",authenticated="yes",policy="auto"})"),
              1);
    EXPECT_EQ(found.at(R"(bore_tunnel_start_time_seconds{relay="edge",port="5001"})"),
              1'700'000'001);
    EXPECT_EQ(found.at(R"(bore_tunnel_visitors_pending{relay="edge",port="other"})"), 0);
    EXPECT_EQ(found.at(R"(bore_tunnels_in_other{relay="edge"})"), 0);
}

TEST(Families, OfThePacketEngine) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 1, .tunnel_capacity = 4, .packet = {2, 1}});
    relay.open_tunnel(0, 5'000);
    relay.statistics.packet_worker(1).add(abi::PacketWorkerCounter::packet_bad_flags_total, 4);
    relay.statistics.packet_worker(0).add(abi::PacketWorkerCounter::packet_no_flow_total, 6);
    relay.statistics.slow_path().add(abi::SlowPathCounter::stream_policy_total, 8);
    relay.statistics.port(0).set(abi::PortCounter::port_speed_mbps, 10'000);
    relay.statistics.packet_worker_rows(0)[0].add(abi::TunnelCounter::to_client_bytes_total, 50);
    const Looked looked(relay);
    const Scrape found = scrape({looked.view()});

    EXPECT_EQ(found.at(R"(bore_packets_dropped_total{relay="edge",worker="1",reason="bad_flags"})"),
              4);
    EXPECT_EQ(found.at(R"(bore_packets_to_kernel_total{relay="edge",worker="0",reason="no_flow"})"),
              6);
    EXPECT_EQ(found.at(R"(bore_pairs_kept_on_stream_total{relay="edge",reason="policy"})"), 8);
    EXPECT_EQ(found.at(R"(bore_port_speed_bytes_per_second{relay="edge",nic="nic0"})"),
              1'250'000'000);
    EXPECT_EQ(found.at(R"(bore_tunnel_bytes_total{relay="edge",port="5000",path="packet",)"
                       R"(to="client"})"),
              50);
    EXPECT_TRUE(found.has(R"(bore_loop_age_seconds{relay="edge",loop="slow_path"})"));
    EXPECT_EQ(found.at(R"(bore_handoff_seconds{relay="edge"})"), 0);
}

TEST(Families, HistogramsAreCumulativeAndInSeconds) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 2, .tunnel_capacity = 4});
    relay.statistics.control_histograms().record(abi::ControlHistogram::handshake_ns, 1'000);
    relay.statistics.control_histograms().record(abi::ControlHistogram::handshake_ns, 3'000);
    relay.statistics.worker_histograms(0).record(abi::WorkerHistogram::first_byte_ns, 5'000);
    relay.statistics.worker_histograms(1).record(abi::WorkerHistogram::first_byte_ns,
                                                 ~std::uint64_t{0});
    const Looked looked(relay);
    std::map<std::string, prometheus::MetricFamily> families;
    const std::vector<RelayView> views{looked.view()};
    write_relays(views, [&](const auto& family) { families[family.name] = family; });

    const auto& handshake = families.at("bore_handshake_seconds").metric.at(0).histogram;
    EXPECT_EQ(handshake.sample_count, 2U);
    EXPECT_DOUBLE_EQ(handshake.sample_sum, 4e-6);
    EXPECT_EQ(handshake.bucket[0].cumulative_count, 1U);
    EXPECT_DOUBLE_EQ(handshake.bucket[0].upper_bound, 1.024e-6);
    EXPECT_EQ(handshake.bucket[1].cumulative_count, 1U);
    EXPECT_EQ(handshake.bucket[2].cumulative_count, 2U);
    EXPECT_EQ(handshake.bucket.back().cumulative_count, 2U);
    // Both workers in one; what is above the last bound is in the count only.
    const auto& first_byte = families.at("bore_first_byte_seconds").metric;
    ASSERT_EQ(first_byte.size(), 1U);
    EXPECT_EQ(first_byte[0].histogram.sample_count, 2U);
    EXPECT_EQ(first_byte[0].histogram.bucket.back().cumulative_count, 1U);
}

TEST(Families, OfADeadRelayOnlyThatIsTold) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 1, .tunnel_capacity = 4});
    Looked looked(relay);
    looked.snapshot.writer_alive = false;
    looked.snapshot.stale_since = looked.snapshot.taken_at - 90 * base::second_ns;
    const Scrape found = scrape({looked.view()});
    EXPECT_EQ(found.at(R"(bore_up{relay="edge"})"), 0);
    EXPECT_EQ(found.at(R"(bore_stale_seconds{relay="edge"})"), 90);
    EXPECT_FALSE(found.has(R"(bore_tunnels_live{relay="edge"})"));
    EXPECT_FALSE(found.has(R"(bore_capacity_utilization_percent{relay="edge"})"));
}

TEST(Families, OfARelayThatHangsAreAll) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 1, .tunnel_capacity = 4});
    Looked looked(relay);
    looked.snapshot.stale_since = looked.snapshot.taken_at - 20 * base::second_ns;
    const Scrape found = scrape({looked.view()});
    EXPECT_EQ(found.at(R"(bore_up{relay="edge"})"), 0);
    EXPECT_TRUE(found.has(R"(bore_tunnels_live{relay="edge"})"));
}

TEST(Families, ARelayThatCannotBeReadIsDown) {
    const Folder folder;
    TestRelay relay(folder, "edge", {.worker_count = 1, .tunnel_capacity = 4});
    const Looked looked(relay);
    const std::vector<RelayView> views{looked.view(), {.name = "gone", .read_errors = 5}};
    const Scrape found = scrape(views);
    EXPECT_EQ(found.at(R"(bore_up{relay="edge"})"), 1);
    EXPECT_EQ(found.at(R"(bore_up{relay="gone"})"), 0);
    EXPECT_EQ(found.at(R"(bore_segment_errors_total{relay="gone"})"), 5);
    EXPECT_FALSE(found.has(R"(bore_stale_seconds{relay="gone"})"));
}

TEST(Families, TextsOfOthersCannotSpoilTheScrape) {
    EXPECT_EQ(label_text("edge-1"), "edge-1");
    EXPECT_EQ(label_text("\xff\xfe\n"), "???");
    EXPECT_EQ(label_text("K\xc3\xb6ln"), "K\xc3\xb6ln");
}

TEST(Relays, MaxTunnelsOfAConfiguration) {
    EXPECT_EQ(max_tunnels_in("# text\nmin_port = 1\nmax_tunnels = 250  # default\n"), 250U);
    EXPECT_EQ(max_tunnels_in("max_tunnels = -1\n"), 0U);
    EXPECT_EQ(max_tunnels_in("max_tunnels = "), 0U);
    EXPECT_EQ(max_tunnels_in(""), 0U);
}

TEST(Relays, AreFollowedAsTheyComeAndGo) {
    const Folder folder;
    config::ExporterConfig config;
    config.segment_directory = folder.path();
    Relays relays(config);
    relays.refresh();
    EXPECT_TRUE(relays.views().empty());
    {
        TestRelay second(folder, "second", {.worker_count = 1, .tunnel_capacity = 4});
        TestRelay first(folder, "first", {.worker_count = 1, .tunnel_capacity = 4});
        relays.refresh();
        ASSERT_EQ(relays.views().size(), 2U);
        EXPECT_EQ(relays.views()[0].name, "first");
        EXPECT_TRUE(is_up(relays.views()[0]));
        EXPECT_EQ(relays.views()[0].limits.max_tunnels, 8U);
        EXPECT_EQ(relays.health()[1].reason, "");
    }
    relays.refresh();
    EXPECT_TRUE(relays.views().empty());
}

TEST(Relays, NamedOnesAreDownWhileTheyAreNotThere) {
    const Folder folder;
    config::ExporterConfig config;
    config.segment_directory = folder.path();
    config.relays = {"edge", folder.path() + "/bore-other"};
    Relays relays(config);
    relays.refresh();
    ASSERT_EQ(relays.views().size(), 2U);
    EXPECT_FALSE(is_up(relays.views()[0]));
    EXPECT_EQ(relays.views()[1].name, "other");
    EXPECT_EQ(relays.views()[1].read_errors, 1U);
    EXPECT_NE(relays.health()[0].reason.find("does not exist"), std::string::npos);
    const TestRelay edge(folder, "edge", {.worker_count = 1, .tunnel_capacity = 4});
    relays.refresh();
    EXPECT_TRUE(is_up(relays.views()[0]));
    EXPECT_EQ(relays.health()[0].reason, "");
}

}  // namespace
}  // namespace bore::exporter::testing
