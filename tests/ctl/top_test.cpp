// The model of `top` fed with snapshots, and its layout at all sizes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "controlplane/ctl/top_layout.hpp"
#include "tests/ctl/snapshots.hpp"

namespace bore::ctl {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::snapshot;
using testing::tunnel;

constexpr base::Nanoseconds second = base::second_ns;

std::vector<std::uint16_t> ports(const TopModel& model) {
    std::vector<std::uint16_t> ports;
    for (const TopRow* const row : model.rows()) {
        ports.push_back(row->port);
    }
    return ports;
}

TEST(TopModel, RatesAreBetweenTwoLooks) {
    TopModel model;
    model.add(snapshot(second, {tunnel(0, 80, "a", 5000, 0)}));
    ASSERT_EQ(model.rows().size(), 1U);
    EXPECT_EQ(model.rows()[0]->rate(), 0) << "what it moved before is no rate";
    model.add(snapshot(3 * second, {tunnel(0, 80, "a", 7000, 400), tunnel(1, 81, "b", 99, 99)}));
    const auto rows = model.rows();
    EXPECT_DOUBLE_EQ(rows[0]->to_client_rate, 1000);
    EXPECT_DOUBLE_EQ(rows[0]->to_visitor_rate, 200);
    EXPECT_EQ(rows[1]->rate(), 0) << "new, so its rate is unknown";
    EXPECT_DOUBLE_EQ(model.summary().to_client_rate, 1000);
    EXPECT_THAT(rows[0]->history, ElementsAre(1200));
}

TEST(TopModel, AnEndedTunnelGoesAndItsRowsNextTunnelBeginsAnew) {
    TopModel model;
    model.add(snapshot(second, {tunnel(0, 80, "a", 9000, 0)}));
    auto next = tunnel(0, 80, "a", 9500, 0);
    next.description.generation = 2;
    model.add(snapshot(2 * second, {next}));
    ASSERT_EQ(model.rows().size(), 1U);
    EXPECT_EQ(model.rows()[0]->id, "0.2");
    EXPECT_EQ(model.rows()[0]->rate(), 0);
    next.description.state = abi::TunnelState::ended;
    model.add(snapshot(3 * second, {next}));
    EXPECT_TRUE(model.rows().empty());
}

TEST(TopModel, ARelayThatWasStartedAgainHasNoNegativeOrHugeRates) {
    TopModel model;
    model.add(snapshot(second, {tunnel(0, 80, "a", 9000, 0)}));
    auto restarted = snapshot(2 * second, {tunnel(0, 80, "a", 100, 0)});
    restarted.instance_id = 8;
    model.add(restarted);
    EXPECT_EQ(model.rows()[0]->rate(), 0);
    EXPECT_TRUE(model.rows()[0]->history.empty());
}

TEST(TopModel, OrdersAndTurnsRound) {
    TopModel model;
    model.add(snapshot(second, {tunnel(0, 81, "b"), tunnel(1, 80, "c"), tunnel(2, 82, "a")}));
    model.add(snapshot(2 * second, {tunnel(0, 81, "b", 10, 0), tunnel(1, 80, "c", 0, 500),
                                    tunnel(2, 82, "a", 100, 0)}));
    EXPECT_THAT(ports(model), ElementsAre(80, 82, 81));
    model.reverse();
    EXPECT_THAT(ports(model), ElementsAre(81, 82, 80));
    model.reverse();
    model.set_sort(TopSort::client);
    EXPECT_THAT(ports(model), ElementsAre(82, 81, 80));
    model.set_sort(TopSort::port);
    EXPECT_THAT(ports(model), ElementsAre(80, 81, 82));
    model.set_sort(TopSort::pairs);
    EXPECT_THAT(ports(model), ElementsAre(80, 81, 82)) << "equals by port";
    for (const TopSort sort : top_sorts) {
        EXPECT_EQ(top_sort_of(name_of(sort)), sort);
        model.set_sort(sort);
        model.next_sort();
        EXPECT_NE(model.sort(), sort);
    }
}

TEST(TopModel, FilterAndPause) {
    TopModel model;
    model.add(snapshot(second, {tunnel(0, 8080, "10.0.0.1"), tunnel(1, 9090, "192.0.2.1")}));
    model.set_filter("10.0.");
    EXPECT_THAT(ports(model), ElementsAre(8080));
    model.set_filter("909");
    EXPECT_THAT(ports(model), ElementsAre(9090));
    model.set_filter("stream");
    EXPECT_EQ(ports(model).size(), 2U) << "by path";
    model.set_filter("");
    model.set_paused(true);
    model.add(snapshot(2 * second));
    EXPECT_EQ(ports(model).size(), 2U);
    model.set_paused(false);
    model.add(snapshot(3 * second));
    EXPECT_TRUE(ports(model).empty());
}

TEST(TopModel, TheBusiestWorkerBetweenTwoLooks) {
    TopModel model;
    const auto look = [&model](base::Nanoseconds at, base::Nanoseconds asleep_ns,
                               base::Nanoseconds packet_busy_ns) {
        abi::Snapshot taken = snapshot(at);
        taken.packet_workers.resize(1);
        auto& stream = taken.workers[0].counters.values;
        stream[static_cast<std::size_t>(abi::WorkerCounter::heartbeat_ns)] = taken.taken_at;
        stream[static_cast<std::size_t>(abi::WorkerCounter::asleep_ns_total)] = asleep_ns;
        auto& packet = taken.packet_workers[0].counters.values;
        packet[static_cast<std::size_t>(abi::PacketWorkerCounter::packet_heartbeat_ns)] =
            taken.taken_at;
        packet[static_cast<std::size_t>(abi::PacketWorkerCounter::packet_busy_ns_total)] =
            packet_busy_ns;
        model.add(taken);
    };
    look(10 * second, 9 * second, 0);
    EXPECT_DOUBLE_EQ(model.summary().busy_share, 0.1) << "since the start";
    look(12 * second, 10 * second, second / 2);
    EXPECT_DOUBLE_EQ(model.summary().busy_share, 0.5);
    EXPECT_THAT(lay_out(model, {})[1].text, HasSubstr("busy  50%"));
    look(14 * second, 12 * second, 2 * second);
    EXPECT_DOUBLE_EQ(model.summary().busy_share, 0.75) << "the packet worker";
    look(16 * second, 14 * second, 4 * second);
    EXPECT_THAT(lay_out(model, {})[1].text, HasSubstr("busy 100%"));
}

TEST(TopModel, HistoryIsBounded) {
    TopModel model;
    for (std::uint64_t look = 1; look < 3 * TopModel::max_history; ++look) {
        model.add(snapshot(look * second, {tunnel(0, 80, "a", look * 100, 0)}));
    }
    EXPECT_EQ(model.rows()[0]->history.size(), TopModel::max_history);
    EXPECT_EQ(model.summary().history.size(), TopModel::max_history);
}

// ---- Layout

std::size_t width_of(const std::string& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
        return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U;
    }));
}

TopModel busy_model() {
    TopModel model;
    std::vector<abi::TunnelSnapshot> tunnels;
    for (std::uint32_t row = 0; row < 40; ++row) {
        tunnels.push_back(tunnel(row, static_cast<std::uint16_t>(10000 + row),
                                 "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"));
    }
    model.add(snapshot(second, tunnels));
    for (auto& known : tunnels) {
        known = tunnel(known.row_index, known.description.port, "198.51.100.17", 123'456'789'012,
                       5'000);
    }
    model.add(snapshot(2 * second, tunnels));
    return model;
}

TEST(TopLayout, FitsEverySize) {
    TopModel model = busy_model();
    for (std::size_t lines = 0; lines < 40; ++lines) {
        for (std::size_t columns = 0; columns < 130; columns += lines < 6 ? 1 : 7) {
            for (const bool help : {false, true}) {
                const auto shown = lay_out(
                    model, {.lines = lines, .columns = columns, .scroll = 38, .help = help});
                ASSERT_EQ(shown.size(), lines);
                for (const ScreenLine& line : shown) {
                    ASSERT_LE(width_of(line.text), columns) << lines << "x" << columns;
                }
            }
        }
    }
}

TEST(TopLayout, At80x24EverythingThatMattersIsThere) {
    const TopModel model = busy_model();
    const TopView view{.lines = 24, .columns = 80};
    const auto shown = lay_out(model, view);
    EXPECT_THAT(shown[0].text, HasSubstr("bore one 1.2.3"));
    EXPECT_THAT(shown[0].text, HasSubstr("40 tunnels"));
    EXPECT_THAT(shown[1].text, AllOf(HasSubstr("busy"), HasSubstr("█")));
    for (const char* const title :
         {"PORT", "CLIENT", "PAIRS", "TO CLIENT", "TO VISITOR", "HISTORY"}) {
        EXPECT_THAT(shown[3].text, HasSubstr(title));
    }
    EXPECT_THAT(shown[4].text, HasSubstr("10000 198.51.100.17"));
    EXPECT_THAT(shown[4].text, HasSubstr("123 GB/s"));
    EXPECT_THAT(shown[4].text, HasSubstr("█"));
    EXPECT_THAT(shown[23].text, HasSubstr("q quit"));
    EXPECT_EQ(rows_that_fit(model, view), 19U);
}

TEST(TopLayout, ATinyScreenShowsPortsAndTheWayOut) {
    const auto shown = lay_out(busy_model(), {.lines = 5, .columns = 20});
    EXPECT_THAT(shown[0].text, HasSubstr("PORT"));
    EXPECT_THAT(shown[1].text, HasSubstr("10000"));
    EXPECT_THAT(shown[4].text, HasSubstr("q quit"));
}

TEST(TopLayout, ScrollsAndSaysWhatIsOn) {
    TopModel model = busy_model();
    model.set_sort(TopSort::port);
    const auto scrolled = lay_out(model, {.lines = 24, .columns = 80, .scroll = 3});
    EXPECT_THAT(scrolled[4].text, HasSubstr("10003"));
    model.set_filter("1000");
    model.set_paused(true);
    EXPECT_EQ(lay_out(model, {})[2].text, "paused, filter: 1000");
    EXPECT_EQ(lay_out(model, {.editing_filter = true})[2].text, "filter: 1000_");
    auto dead = snapshot(9 * second);
    dead.writer_alive = false;
    dead.stale_since = testing::start_ns + 4 * second;
    model.set_paused(false);
    model.add(dead);
    const auto stale = lay_out(model, {})[2];
    EXPECT_THAT(stale.text, HasSubstr("stale since 2025-11-29T14:00:04Z (5.00 s ago)"));
    EXPECT_EQ(stale.style, LineStyle::warning);
}

TEST(TopLayout, APipeGetsEveryRowAndNoHelp) {
    const std::string text = print_once(busy_model(), 100, true);
    EXPECT_THAT(text, HasSubstr("10039"));
    EXPECT_THAT(text, Not(HasSubstr("q quit")));
    EXPECT_THAT(text, Not(HasSubstr("█")));
}

}  // namespace
}  // namespace bore::ctl
