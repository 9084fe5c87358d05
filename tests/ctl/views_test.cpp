// Tables and JSON of the reading commands.
#include "controlplane/ctl/views.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "tests/ctl/snapshots.hpp"

namespace bore::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::snapshot;
using testing::tunnel;

constexpr base::Nanoseconds second = base::second_ns;

std::string json_of(const View& view) {
    return boost::json::serialize(boost::json::value(view.json));
}

template <typename Enum, typename Values>
void set(Values& values, Enum counter, std::uint64_t value) {
    values.values[static_cast<std::size_t>(counter)] = value;
}

abi::Snapshot with_packets() {
    abi::Snapshot taken = snapshot(5 * second, {tunnel(3, 8080, "198.51.100.7", 1500, 2'000'000)});
    taken.packet_workers.resize(2);
    taken.slow_path.emplace();
    taken.ports.push_back({.name = "0000:03:00.0", .counters = {}});
    set(taken.ports[0].counters, abi::PortCounter::port_link_up, 1);
    set(taken.ports[0].counters, abi::PortCounter::port_speed_mbps, 10'000);
    set(taken.ports[0].counters, abi::PortCounter::port_received_packets_total, 17);
    return taken;
}

TEST(Views, Tunnels) {
    const View view = tunnels_view(with_packets(), false);
    const std::string text = render(view);
    EXPECT_THAT(text, HasSubstr("8080  198.51.100.7"));
    EXPECT_THAT(text, AllOf(HasSubstr("1.50 kB"), HasSubstr("2.00 MB"), HasSubstr("stream")));
    EXPECT_THAT(text, HasSubstr("3.1\n")) << "the id that kill takes";
    const auto& told = view.json.at("tunnels").as_array().at(0).as_object();
    EXPECT_EQ(told.at("id").as_string(), "3.1");
    EXPECT_EQ(told.at("counters").as_object().at("to_visitor_bytes_total").to_number<int>(),
              2'000'000);
}

TEST(Views, EndedTunnelsOnlyWhenAskedFor) {
    auto taken = snapshot(second, {tunnel(0, 80, "a")});
    taken.tunnels[0].description.state = abi::TunnelState::ended;
    EXPECT_TRUE(tunnels_view(taken, false).table->rows.empty());
    EXPECT_EQ(tunnels_view(taken, true).table->rows.size(), 1U);
}

TEST(Views, StatusWithAndWithoutAControlSocket) {
    const auto ping = boost::json::parse(R"({"ok":true,"state":"drained","deadline_s":7})");
    const std::string text = render(status_view(with_packets(), ping.as_object()));
    EXPECT_THAT(text, HasSubstr("drained, pairs are cut in 7 s"));
    EXPECT_THAT(text, HasSubstr("2025-11-29T14:00:00Z (5.00 s)"));
    const View without = status_view(with_packets(), std::nullopt);
    EXPECT_THAT(render(without), HasSubstr("no control socket"));
    EXPECT_TRUE(without.json.at("state").is_null());
}

TEST(Views, ADeadRelayIsStaleEverywhere) {
    abi::Snapshot dead = with_packets();
    dead.writer_alive = false;
    dead.stale_since = testing::start_ns + 3 * second;
    for (const View& view :
         {status_view(dead, std::nullopt), tunnels_view(dead, false), workers_view(dead),
          ports_view(dead), drops_view(dead, true), histograms_view(dead)}) {
        EXPECT_THAT(render(view), HasSubstr("stale since 2025-11-29T14:00:03Z (2.00 s ago)"));
    }
    EXPECT_EQ(tunnels_view(dead, false).json.at("stale_for_s").as_double(), 2.0);
    EXPECT_FALSE(tunnels_view(dead, false).json.at("alive").as_bool());
}

TEST(Views, WorkersAndPorts) {
    const View workers = workers_view(with_packets());
    EXPECT_EQ(workers.table->rows.size(), 4U) << "a stream worker, two packet workers, slow path";
    const std::string ports = render(ports_view(with_packets()));
    EXPECT_THAT(ports, AllOf(HasSubstr("0000:03:00.0"), HasSubstr("up, 10000 Mbit/s"),
                             HasSubstr("17 (0 B)")));
    EXPECT_THAT(render(ports_view(snapshot(second))), HasSubstr("no ports"));
}

TEST(Views, WorkersAreBusyForAPartOfTheirTimeSinceTheStart) {
    abi::Snapshot taken = with_packets();
    set(taken.workers[0].counters, abi::WorkerCounter::heartbeat_ns,
        testing::start_ns + 4 * second);
    set(taken.workers[0].counters, abi::WorkerCounter::asleep_ns_total, 3 * second);
    auto& packet = taken.packet_workers[1].counters;
    set(packet, abi::PacketWorkerCounter::packet_heartbeat_ns, testing::start_ns + 4 * second);
    set(packet, abi::PacketWorkerCounter::packet_busy_ns_total, 2 * second);
    const View view = workers_view(taken);
    EXPECT_EQ(view.table->columns[2].title, "BUSY");
    EXPECT_EQ(view.table->rows[0][2], "25.0 %");
    EXPECT_EQ(view.table->rows[1][2], "0.0 %") << "no turn yet";
    EXPECT_EQ(view.table->rows[2][2], "50.0 %");
    EXPECT_EQ(view.table->rows[3][2], "-") << "the slow path keeps no such time";
    for (const auto& row : view.table->rows) {
        EXPECT_EQ(row.size(), view.table->columns.size());
    }
    const auto& loops = view.json.at("loops").as_array();
    EXPECT_EQ(loops.at(0).as_object().at("busy_share").as_double(), 0.25);
    EXPECT_EQ(loops.at(2).as_object().at("busy_share").as_double(), 0.5);
    EXPECT_FALSE(loops.at(3).as_object().contains("busy_share"));
    // A damaged segment: slept for longer than it lived.
    set(taken.workers[0].counters, abi::WorkerCounter::asleep_ns_total, 30 * second);
    EXPECT_EQ(workers_view(taken).table->rows[0][2], "0.0 %");
}

TEST(Views, StatusSumsWhatEitherEngineMovedAndSaysWhoseTheSegmentIs) {
    abi::Snapshot taken = with_packets();
    set(taken.workers[0].counters, abi::WorkerCounter::spliced_bytes_total, 4'000);
    set(taken.tunnels[0].packet, abi::TunnelCounter::to_client_bytes_total, 1'000);
    // Of tunnels that had the row before.
    taken.tunnels[0].description.packet_baseline[static_cast<std::size_t>(
        abi::TunnelCounter::to_visitor_bytes_total)] = 500;
    taken.owner_uid = 4'000'000'000;
    const View view = status_view(taken, std::nullopt);
    EXPECT_THAT(render(view), AllOf(HasSubstr("4.00 kB by the stream engine, 1.50 kB as packets"),
                                    HasSubstr("of uid 4000000000")));
    EXPECT_EQ(view.json.at("packet_bytes_total").to_number<int>(), 1'500);
    EXPECT_THAT(render(status_view(snapshot(second), std::nullopt)),
                HasSubstr("0 B by the stream engine\n"));
}

TEST(Views, DropsAreWhatCameUnlessAllAreAskedFor) {
    abi::Snapshot taken = with_packets();
    EXPECT_THAT(render(drops_view(taken, false)), HasSubstr("nothing was refused"));
    set(taken.control, abi::ControlCounter::visitors_refused_limit_total, 12);
    const View some = drops_view(taken, false);
    EXPECT_EQ(some.table->rows.size(), 1U);
    EXPECT_THAT(render(some), HasSubstr("12  control  visitors_refused_limit_total"));
    const std::string all = render(drops_view(taken, true));
    EXPECT_THAT(all, AllOf(HasSubstr("packet_out_of_window_total"), HasSubstr("port_missed_total"),
                           HasSubstr("stream_long_path_total")));
    EXPECT_THAT(all, Not(HasSubstr("pairs_opened_total")));
}

TEST(Views, HistogramsGiveBoundsOfQuantiles) {
    abi::Snapshot taken = snapshot(second);
    auto& pairing = taken.control_histograms
                        .histograms[static_cast<std::size_t>(abi::ControlHistogram::pairing_ns)];
    pairing.counts[0] = 90;  // up to 1.02 us
    pairing.counts[3] = 9;   // up to 8.19 us
    pairing.counts[abi::bucket_count - 1] = 1;
    pairing.sum = 200'000;
    const View view = histograms_view(taken);
    const std::string text = render(view);
    EXPECT_THAT(text, AllOf(HasSubstr("pairing_ns"), HasSubstr("2.00 us"), HasSubstr("<= 1.02 us"),
                            HasSubstr("<= 8.19 us")));
    EXPECT_THAT(json_of(view), HasSubstr(R"({"le":1024,"count":90})"));
    EXPECT_THAT(text, HasSubstr("handshake_ns          0        -")) << "an empty one has none";
}

TEST(Views, EveryCounterOfTheTablesIsInSomeJson) {
    const abi::Snapshot taken = with_packets();
    const std::string all = json_of(status_view(taken, std::nullopt)) +
                            json_of(tunnels_view(taken, true)) + json_of(workers_view(taken)) +
                            json_of(ports_view(taken));
    const auto expect = [&all](const auto& infos) {
        for (const abi::CounterInfo& info : infos) {
            EXPECT_THAT(all, HasSubstr("\"" + std::string(info.name) + "\":"));
        }
    };
    expect(abi::control_counter_infos);
    expect(abi::worker_counter_infos);
    expect(abi::tunnel_counter_infos);
    expect(abi::packet_worker_counter_infos);
    expect(abi::slow_path_counter_infos);
    expect(abi::port_counter_infos);
}

TEST(Views, FlowsOfSeveralPages) {
    const auto page = [](const char* text) { return boost::json::parse(text).as_object(); };
    const View view =
        flows_view({page(R"({"flows":[{"tunnel_port":80,"visitor":"192.0.2.1:5","client":"[::1]:6",
                            "to_client_bytes":1000,"to_visitor_bytes":2,"age_s":3.5,"idle_s":0}],
                  "next":9})"),
                    page(R"({"flows":[{}, 7],"next":null})")});
    const std::string text = render(view);
    EXPECT_THAT(text, AllOf(HasSubstr("192.0.2.1:5"), HasSubstr("1.00 kB"), HasSubstr("?")));
    EXPECT_EQ(view.table->rows.size(), 2U);
    EXPECT_THAT(render(flows_view({page(R"({"flows":[],"note":"stream engine"})")})),
                HasSubstr("stream engine"));
}

}  // namespace
}  // namespace bore::ctl
