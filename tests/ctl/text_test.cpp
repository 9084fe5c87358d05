// Numbers, columns and bars.
#include <gtest/gtest.h>

#include "controlplane/ctl/format.hpp"
#include "controlplane/ctl/table.hpp"
#include "controlplane/ctl/top_model.hpp"

namespace bore::ctl {
namespace {

TEST(Format, BytesInThreeDigits) {
    EXPECT_EQ(bytes_text(0), "0 B");
    EXPECT_EQ(bytes_text(999), "999 B");
    EXPECT_EQ(bytes_text(1000), "1.00 kB");
    EXPECT_EQ(bytes_text(12'345), "12.3 kB");
    EXPECT_EQ(bytes_text(999'999), "1.00 MB");
    EXPECT_EQ(bytes_text(1'234'567'890), "1.23 GB");
    EXPECT_EQ(bytes_text(~std::uint64_t{0}), "18.4 EB");
    EXPECT_EQ(rate_text(0), "-");
    EXPECT_EQ(rate_text(12'345'678), "12.3 MB/s");
}

TEST(Format, DurationsInTwoUnits) {
    EXPECT_EQ(duration_text(0), "0 ns");
    EXPECT_EQ(duration_text(1'500), "1.50 us");
    EXPECT_EQ(duration_text(25 * base::millisecond_ns), "25.0 ms");
    EXPECT_EQ(duration_text(2 * base::second_ns), "2.00 s");
    EXPECT_EQ(duration_text(59 * base::second_ns), "59 s");
    EXPECT_EQ(duration_text(200 * base::second_ns), "3m 20s");
    EXPECT_EQ(duration_text(7'260 * base::second_ns), "2h 1m");
    EXPECT_EQ(duration_text(90'000 * base::second_ns), "1d 1h");
    EXPECT_EQ(time_text(1'764'424'800 * base::second_ns), "2025-11-29T14:00:00Z");
    EXPECT_EQ(percent_text(0.1234), "12.3 %");
}

TEST(Table, ColumnsLineUpAndLinesEndWithoutBlanks) {
    const Table table{.columns = {{"NAME"}, {"BYTES", Align::right}, {"MORE"}},
                      .rows = {{"a", "1", "x"}, {"longer", "123456", ""}}};
    EXPECT_EQ(render(table),
              "NAME     BYTES  MORE\n"
              "a            1  x\n"
              "longer  123456\n");
    EXPECT_EQ(render(Table{.columns = {{"A"}, {"B"}}, .rows = {}}), "A  B\n");
    EXPECT_EQ(render_facts({{"a", "1"}, {"bcd", "2"}}), "a    1\nbcd  2\n");
}

TEST(Sparkline, ScalesToItsHighest) {
    EXPECT_EQ(sparkline({}, 3, true), "   ");
    EXPECT_EQ(sparkline({0, 0}, 3, true), "   ");
    EXPECT_EQ(sparkline({0, 50, 100}, 4, true), "  =@");
    EXPECT_EQ(sparkline({1, 0, 1}, 2, true), " @") << "the latest ones";
    EXPECT_EQ(sparkline({0.001, 1e9}, 2, true), ".@") << "anything that moved shows";
    EXPECT_EQ(sparkline({0, 100}, 2, false), " █");
    EXPECT_EQ(sparkline({5}, 0, true), "");
}

}  // namespace
}  // namespace bore::ctl
