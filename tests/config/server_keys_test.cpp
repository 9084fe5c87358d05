// Every key of the relay, from every source, with a right and a wrong value.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/config/load_helper.hpp"

namespace bore::config::testing {
namespace {

using ::testing::HasSubstr;

struct Example {
    std::string_view name;
    std::string right;       // as on a command line
    std::string right_toml;  // the same in a file
    std::string shown;       // how plain_text() gives it back
    std::string wrong;
    std::string wrong_toml;
};

// secret, secret-file, port-range and the backend keys are folded or refused: their own tests.
const std::vector<Example>& examples() {
    static const std::vector<Example> table = {
        {"min-port", "2000", "2000", "2000", "0", "0"},
        {"max-port", "3000", "3000", "3000", "70000", "70000"},
        {"reserved-ports", "80,8000-8002", "[80, \"8000-8002\"]", "80,8000,8001,8002", "9-8",
         "[65536]"},
        {"bind-addr", "127.0.0.1,::1", "[\"127.0.0.1\", \"::1\"]", "127.0.0.1,::1", "localhost",
         "[\"1.2.3\"]"},
        {"bind-tunnels", "10.0.0.1", "[\"10.0.0.1\"]", "10.0.0.1", "10.0.0.1/8", "[\"\"]"},
        {"control-port", "7836", "7836", "7836", "-1", "-1"},
        {"open", "true", "true", "true", "maybe", "1"},
        {"require-auth", "off", "false", "false", "2", "\"true\""},
        {"auth-dialect", "fork", "\"fork\"", "fork", "both", "\"Fork\""},
        {"challenge-grace-ms", "1000", "1000", "1000", "1001", "1001"},
        {"accept-from-tunnel-address", "yes", "true", "true", "y", "\"yes\""},
        {"allow-clients", "10.0.0.0/8,::1", "[\"10.0.0.0/8\", \"::1\"]", "10.0.0.0/8,::1/128",
         "10.0.0.1/8", "[\"10.0.0.0/33\"]"},
        {"deny-clients", "0.0.0.0/0", "[\"0.0.0.0/0\"]", "0.0.0.0/0", "all", "[1]"},
        {"allow-visitors", "::/0", "[\"::/0\"]", "::/0", "::/129", "\"::/0\""},
        {"deny-visitors", "192.0.2.7", "[\"192.0.2.7\"]", "192.0.2.7/32", "192.0.2.7/", "[[]]"},
        {"max-tunnels", "65535", "65535", "65535", "0", "0"},
        {"max-tunnels-per-source", "16000", "16_000", "16000", "65536", "65536"},
        {"max-unauthenticated", "10", "10", "10", "0", "0"},
        {"max-unauthenticated-per-source", "9", "9", "9", "many", "\"9\""},
        {"handshake-rate-per-source", "0", "0", "0", "1e3", "1e3"},
        {"max-pending-visitors", "5", "5", "5", "0x5", "99999"},
        {"max-visitors-per-tunnel", "1000000", "1000000", "1000000", "1000001", "1000001"},
        {"tunnel-bandwidth-mbit", "100", "100", "100", "100Mbps", "1.5"},
        {"max-open-files", "1024", "1024", "1024", " 1024", "true"},
        {"first-byte-timeout-ms", "200", "200", "200", "99", "99"},
        {"handshake-timeout-ms", "20000", "20000", "20000", "120001", "120001"},
        {"heartbeat-interval-ms", "1000", "1000", "1000", "49", "49"},
        {"client-dead-timeout-ms", "15000", "15000", "15000", "15001", "15001"},
        {"visitor-claim-timeout-ms", "100", "100", "100", "", "99"},
        {"idle-timeout-s", "60", "60", "60", "1m", "1979-05-27"},
        {"half-closed-timeout-s", "0", "0", "0", "-0", "-1"},
        {"drain-timeout-s", "86400", "86400", "86400", "86401", "86401"},
        {"workers", "4", "4", "4", "0", "\"four\""},
        {"cpus", "0-2,5", "[\"0-2\", 5]", "0,1,2,5", "1024", "[0.5]"},
        {"busy-poll-us", "50", "50", "50", "10001", "10001"},
        {"stream-driver", "epoll", "\"epoll\"", "epoll", "uring", "\"uring\""},
        {"engine", "stream", "\"stream\"", "stream", "dpdk", "\"dpdk\""},
        {"packet-port", "af_xdp:eth1,address=192.0.2.10/24,gateway=192.0.2.1,mtu=1400",
         "[\"af_xdp:eth1,address=192.0.2.10/24,gateway=192.0.2.1,mtu=1400\"]",
         "af_xdp:eth1,address=192.0.2.10/24,gateway=192.0.2.1,mtu=1400", "eth1,address=192.0.2.10",
         "[\"eth1\"]"},
        {"packet-path", "splice", "\"splice\"", "splice", "fast", "\"fast\""},
        {"packet-path-rules", "20000-20099=stream,20100=splice",
         "[\"20000-20099=stream\", \"20100=splice\"]", "20000-20099=stream,20100=splice",
         "20000=fast", "[\"=stream\"]"},
        {"packet-max-flows", "1048576", "1048576", "1048576", "1048577", "0"},
        {"packet-idle", "sleep", "\"sleep\"", "sleep", "nap", "\"nap\""},
        {"packet-memory-mib", "64", "64", "64", "31", "65537"},
        {"packet-linger-s", "60", "60", "60", "0", "601"},
        {"packet-user", "bore", "\"bore\"", "bore", "", "7"},
        {"packet-eal", "--no-huge -m 256", "\"--no-huge -m 256\"", "--no-huge -m 256", "", "7"},
        {"stats", "off", "\"off\"", "off", "maybe", "true"},
        {"stats-group", "bore", "\"bore\"", "bore", "", "7"},
        {"log-level", "warn", "\"warn\"", "warning", "loud", "\"loud\""},
        {"log-format", "json", "\"json\"", "json", "xml", "[\"json\"]"},
        {"visitor-log-rate", "0", "0", "0", "1000001", "1000001"},
        {"control-socket", "/run/bore/eu-1.sock", "\"/run/bore/eu-1.sock\"", "/run/bore/eu-1.sock",
         "relay.sock", "\"relay.sock\""},
        {"control-socket-group", "bore", "\"bore\"", "bore", "", "7"},
        {"server-id", "eu-1", "\"eu-1\"", "eu-1", "eu 1", "\"eu 1\""},
    };
    return table;
}

std::string dotted_toml(std::string_view name, const std::string& value) {
    return file_key(server_keys()[row_index(name)]) + " = " + value + "\n";
}

// Values come from the environment as they would from a command line, but empty means "not set".
TEST(ServerKeys, EveryKeyHasAnExampleOrATestOfItsOwn) {
    std::set<std::string_view> expected = {"secret", "secret-file", "port-range", "backend-url",
                                           "backend-api-key"};
    for (const Example& example : examples()) {
        expected.insert(example.name);
    }
    std::set<std::string_view> found;
    for (const auto& key : server_keys()) {
        EXPECT_TRUE(found.insert(key.name).second) << key.name << " is in the table twice";
    }
    EXPECT_EQ(found, expected);
}

TEST(ServerKeys, DefaultsAreThoseOfTheStruct) {
    const auto loaded = load_server({});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_EQ(loaded->config, ServerConfig{});
    for (const Origin& origin : loaded->origins) {
        EXPECT_EQ(origin.kind, SourceKind::built_in);
    }
}

TEST(ServerKeys, RightValueOnTheCommandLine) {
    for (const Example& example : examples()) {
        const auto loaded = load_server({"--" + std::string(example.name) + "=" + example.right});
        ASSERT_TRUE(loaded) << example.name << ": " << errors_of(loaded);
        EXPECT_EQ(value_of(*loaded, example.name), example.shown);
        EXPECT_EQ(origin_of(*loaded, example.name), "command line --" + std::string(example.name));
    }
}

TEST(ServerKeys, RightValueInTheEnvironmentByEveryName) {
    for (const Example& example : examples()) {
        const KeyInfo& key = server_keys()[row_index(example.name)];
        std::vector<std::string> names = {environment_name(key)};
        names.insert(names.end(), key.aliases.begin(), key.aliases.end());
        for (const std::string& name : names) {
            const auto loaded = load_server({}, {{name, example.right}});
            ASSERT_TRUE(loaded) << name << ": " << errors_of(loaded);
            EXPECT_EQ(value_of(*loaded, example.name), example.shown) << name;
            EXPECT_EQ(origin_of(*loaded, example.name), "environment " + name);
        }
    }
}

TEST(ServerKeys, RightValueInTheFile) {
    for (const Example& example : examples()) {
        const auto loaded = load_file("\n" + dotted_toml(example.name, example.right_toml));
        ASSERT_TRUE(loaded) << example.name << ": " << errors_of(loaded);
        EXPECT_EQ(value_of(*loaded, example.name), example.shown);
        EXPECT_EQ(origin_of(*loaded, example.name), "bore.toml:2");
    }
}

TEST(ServerKeys, WrongValueOnTheCommandLineIsOneErrorThatShowsIt) {
    for (const Example& example : examples()) {
        const std::string option = "--" + std::string(example.name) + "=" + example.wrong;
        const auto loaded = load_server({option});
        ASSERT_EQ(error_count(loaded), 1U) << option << ": " << errors_of(loaded);
        const ConfigError& error = loaded.error()[0];
        // A rule of its own speaks of the key, not of the option.
        const std::string bare = std::string(example.name) + "=" + example.wrong;
        EXPECT_THAT(error.value, HasSubstr(bare));
        EXPECT_THAT(error.value, HasSubstr("(command line"));
        EXPECT_FALSE(error.rule.empty()) << option;
        EXPECT_FALSE(error.remedy.empty()) << option;
    }
}

TEST(ServerKeys, WrongValueInTheEnvironmentNamesTheVariable) {
    for (const Example& example : examples()) {
        const std::string name = environment_name(server_keys()[row_index(example.name)]);
        const auto loaded = load_server({}, {{name, example.wrong}});
        if (example.wrong.empty()) {
            EXPECT_TRUE(loaded) << name << " set but empty counts as not set";
            continue;
        }
        ASSERT_EQ(error_count(loaded), 1U) << name << ": " << errors_of(loaded);
        EXPECT_THAT(errors_of(loaded), HasSubstr(example.wrong));
        EXPECT_THAT(errors_of(loaded), HasSubstr("environment"));
    }
}

TEST(ServerKeys, WrongValueInTheFileNamesTheLine) {
    for (const Example& example : examples()) {
        const auto loaded = load_file("\n\n" + dotted_toml(example.name, example.wrong_toml));
        ASSERT_EQ(error_count(loaded), 1U) << example.name << ": " << errors_of(loaded);
        EXPECT_THAT(loaded.error()[0].value, HasSubstr("bore.toml:3"));
    }
}

TEST(ServerKeys, HelpNamesEveryOptionWithItsVariablesAndDefault) {
    const std::string help = server_help();
    ServerConfig defaults;
    for (const Row& row : bind(server_keys(), defaults)) {
        EXPECT_THAT(help, HasSubstr("--" + std::string(row.info->name)));
        EXPECT_THAT(help, HasSubstr(environment_name(*row.info)));
        for (const std::string_view alias : row.info->aliases) {
            EXPECT_THAT(help, HasSubstr(std::string(alias)));
        }
        EXPECT_FALSE(row.info->help.empty()) << row.info->name;
        EXPECT_EQ(row.info->help.back(), '.') << row.info->name;
    }
    for (const CommandOption& command : server_commands()) {
        EXPECT_THAT(help, HasSubstr("--" + std::string(command.name)));
    }
}

}  // namespace
}  // namespace bore::config::testing
