// The exporter's command line and environment: addresses, choices of series, every error at once.
#include "controlplane/config/exporter_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "controlplane/config/exporter_keys.hpp"
#include "tests/config/load_helper.hpp"

namespace bore::config::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ExporterResult load_exporter(const Words& words, const Environment& environment = {}) {
    return load_exporter_config(argv_of("bore-exporter", words), environment);
}

TEST(ExporterConfig, Defaults) {
    const auto loaded = load_exporter({});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    ASSERT_EQ(loaded->config.addresses.size(), 1U);
    EXPECT_EQ(loaded->config.addresses[0].to_string(), "127.0.0.1:7836");
    EXPECT_EQ(loaded->config.series, TunnelSeries{100});
    EXPECT_TRUE(loaded->config.relays.empty());
    EXPECT_EQ(loaded->config.segment_directory, "/dev/shm");
    EXPECT_EQ(loaded->config.link_mbit, 1'000U);
    EXPECT_EQ(loaded->config.max_relays, 32U);
}

TEST(ExporterConfig, EveryKeyByOptionAndByVariable) {
    const auto by_option =
        load_exporter({"--listen", "0.0.0.0:1", "--listen=[::1]:2", "--relay", "a",
                       "--relay=/x/bore-b", "--segment-directory=/tmp", "--link-mbit", "10000",
                       "--max-relays", "3", "--tunnel-series", "top:7", "--log-level", "error"});
    const auto by_variable = load_exporter({}, {{"BORE_EXPORTER_LISTEN", "0.0.0.0:1,[::1]:2"},
                                                {"BORE_EXPORTER_RELAY", "a, /x/bore-b"},
                                                {"BORE_EXPORTER_SEGMENT_DIRECTORY", "/tmp"},
                                                {"BORE_EXPORTER_LINK_MBIT", "10000"},
                                                {"BORE_EXPORTER_MAX_RELAYS", "3"},
                                                {"BORE_EXPORTER_TUNNEL_SERIES", "top:7"},
                                                {"BORE_EXPORTER_LOG_LEVEL", "error"}});
    ASSERT_TRUE(by_option) << errors_of(by_option);
    ASSERT_TRUE(by_variable) << errors_of(by_variable);
    EXPECT_EQ(by_option->config, by_variable->config);
    EXPECT_THAT(by_option->config.relays, ElementsAre("a", "/x/bore-b"));
    EXPECT_EQ(by_option->config.addresses[1].to_string(), "[::1]:2");
    EXPECT_EQ(by_option->config.series, TunnelSeries{7});
    EXPECT_EQ(by_option->config.max_relays, 3U);
}

TEST(ExporterConfig, VariablesOfTheRelayAreNotItsOwn) {
    const auto loaded = load_exporter({}, {{"BORE_LISTEN", "x"}, {"BORE_LOG_LEVEL", "x"}});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_EQ(loaded->config, load_exporter({})->config);
}

TEST(ExporterConfig, Addresses) {
    for (const char* right :
         {"127.0.0.1:0", "0.0.0.0:65535", "[::]:1", "[2001:db8::1]:7836", "[::ffff:10.0.0.1]:1"}) {
        EXPECT_TRUE(ListenAddress::parse(right)) << right;
    }
    for (const char* wrong : {"", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1",
                              "1.2.3.4: 1", "::1:7836", "[::1]", "[::1]7836", "[1.2.3.4]:1", "[]:1",
                              "localhost:1", "7836", "[::1]:7836x", "1.2.3.4:0x1"}) {
        EXPECT_FALSE(ListenAddress::parse(wrong)) << wrong;
    }
    EXPECT_EQ(ListenAddress::parse("[0:0::1]:80")->to_string(), "[::1]:80");
}

TEST(ExporterConfig, TunnelSeries) {
    EXPECT_EQ(TunnelSeries::parse("all"), TunnelSeries{});
    EXPECT_EQ(TunnelSeries::parse("none"), TunnelSeries{0});
    EXPECT_EQ(TunnelSeries::parse("top:65536"), TunnelSeries{65'536});
    for (const char* wrong :
         {"", "top", "top:", "top:0", "top:65537", "top:-1", "top:1x", "ALL", "100"}) {
        EXPECT_FALSE(TunnelSeries::parse(wrong)) << wrong;
    }
}

TEST(ExporterConfig, ErrorsAreReportedTogether) {
    const auto wrong = load_exporter({"--listen", "x", "--listen", "1.2.3.4:5", "--listen",
                                      "1.2.3.4:5", "--tunnel-series=some", "--relay=a",
                                      "--relay=/y/bore-a", "--link-mbit=0", "word"});
    ASSERT_EQ(error_count(wrong), 6U) << errors_of(wrong);
    EXPECT_THAT(errors_of(wrong), HasSubstr("listen=x: must be an IP address and a port"));
    EXPECT_THAT(errors_of(wrong), HasSubstr("listen=1.2.3.4:5: is there twice"));
    EXPECT_THAT(errors_of(wrong), HasSubstr("tunnel-series=some: must be all, none or top:N"));
    EXPECT_THAT(errors_of(wrong), HasSubstr("relay=/y/bore-a: has the name of another relay"));
    EXPECT_THAT(errors_of(wrong), HasSubstr("a whole number of Mbit/s from 1 to 10000000"));
    EXPECT_THAT(errors_of(wrong), HasSubstr("word (command line): is not an option"));
}

TEST(ExporterConfig, AnEmptyListOfAddressesIsRefused) {
    EXPECT_THAT(errors_of(load_exporter({"--listen=none"})), HasSubstr("listen is empty"));
}

}  // namespace
}  // namespace bore::config::testing
