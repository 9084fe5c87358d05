// The relay's configuration as a whole: precedence, accepted spellings, collected errors, rules
// between keys, printing and reloading.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/config/load_helper.hpp"

namespace bore::config::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(ServerConfig, CommandLineOverEnvironmentOverAliasOverFileOverDefault) {
    const std::string file = "control_port = 1001\nmax_tunnels = 1\nmin_port = 1500\n";
    const Environment environment = {{"BORE_CONTROL_PORT", "1002"},
                                     {"BORE_MIN_PORT", "1600"},
                                     {"MIN_PORT", "1700"},
                                     {"MAX_PORT", "9000"}};
    const auto loaded = load_file(file, {"--control-port", "1003"}, environment);
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_EQ(loaded->config.control_port, 1003);
    EXPECT_EQ(loaded->config.min_port, 1600);
    EXPECT_EQ(loaded->config.max_port, 9000);
    EXPECT_EQ(loaded->config.max_tunnels, 1U);
    EXPECT_EQ(loaded->config.max_pending_visitors, 1024U);
    EXPECT_EQ(origin_of(*loaded, "control-port"), "command line --control-port");
    EXPECT_EQ(origin_of(*loaded, "min-port"), "environment BORE_MIN_PORT");
    EXPECT_EQ(origin_of(*loaded, "max-port"), "environment MAX_PORT");
    EXPECT_EQ(origin_of(*loaded, "max-tunnels"), "bore.toml:2");
    EXPECT_EQ(origin_of(*loaded, "max-pending-visitors"), "default");
}

TEST(ServerConfig, FileCanBeNamedByVariableAndOptionWins) {
    const Files files = {{"a.toml", "max_tunnels = 1"}, {"b.toml", "max_tunnels = 2"}};
    const auto by_variable = load_server({}, {{"BORE_CONFIG", "a.toml"}}, files);
    ASSERT_TRUE(by_variable) << errors_of(by_variable);
    EXPECT_EQ(by_variable->config.max_tunnels, 1U);
    const auto by_option = load_server({"-c", "b.toml"}, {{"BORE_CONFIG", "a.toml"}}, files);
    ASSERT_TRUE(by_option) << errors_of(by_option);
    EXPECT_EQ(by_option->config.max_tunnels, 2U);
    EXPECT_EQ(by_option->config_file, "b.toml");
}

TEST(ServerConfig, UpstreamSpellingWithAndWithoutTheWordServer) {
    for (const Words& words :
         {Words{"server", "--min-port", "2000", "--max-port=3000", "-s", "abc"},
          Words{"--min-port=2000", "--max-port", "3000", "--secret", "abc"},
          Words{"--min-port=2000", "--max-port", "3000", "-sabc"},
          Words{"--min-port=2000", "--max-port", "3000", "-s=abc"}}) {
        const auto loaded = load_server(words);
        ASSERT_TRUE(loaded) << errors_of(loaded);
        EXPECT_EQ(loaded->config.min_port, 2000);
        EXPECT_EQ(loaded->config.max_port, 3000);
        EXPECT_EQ(loaded->config.secret, "abc");
    }
}

TEST(ServerConfig, LineOfTheDeploymentGuideParsesAndRefusesTheBackendOnly) {
    const auto loaded = load_server({"--backend-url", "https://api.yourdomain.com",
                                     "--backend-api-key", "YOUR_INTERNAL_API_KEY", "--server-id",
                                     "server-us-east-1", "--port-range", "10000:20000"});
    ASSERT_EQ(error_count(loaded), 2U) << errors_of(loaded);
    EXPECT_THAT(loaded.error()[0].value, HasSubstr("backend-url=https://api.yourdomain.com"));
    EXPECT_THAT(loaded.error()[1].value, HasSubstr("backend-api-key"));
    for (const ConfigError& error : loaded.error()) {
        EXPECT_THAT(error.rule, HasSubstr("no backend link"));
        EXPECT_THAT(error.remedy, HasSubstr("secret"));
    }
    EXPECT_THAT(errors_of(loaded), Not(HasSubstr("YOUR_INTERNAL_API_KEY")));

    const auto rest =
        load_server({"--server-id", "server-us-east-1", "--port-range", "10000:20000"});
    ASSERT_TRUE(rest) << errors_of(rest);
    EXPECT_EQ(rest->config.min_port, 10000);
    EXPECT_EQ(rest->config.max_port, 20000);
    EXPECT_EQ(rest->config.server_id, "server-us-east-1");
    EXPECT_FALSE(rest->config.port_range);
    EXPECT_EQ(origin_of(*rest, "min-port"), "command line --port-range");
}

TEST(ServerConfig, PortRangeBesideItsEnds) {
    const auto same = load_server({"--port-range=10:20", "--min-port=10", "--max-port=20"});
    ASSERT_TRUE(same) << errors_of(same);
    EXPECT_EQ(same->config.max_port, 20);

    const auto differs = load_server({"--port-range=10:20", "--min-port=11", "--max-port=21"});
    ASSERT_EQ(error_count(differs), 2U) << errors_of(differs);
    EXPECT_THAT(differs.error()[0].value, HasSubstr("min-port=11"));
    EXPECT_THAT(differs.error()[1].value, HasSubstr("max-port=21"));

    const auto stronger_end = load_server({"--min-port=15"}, {{"BORE_PORT_RANGE", "10:20"}});
    ASSERT_TRUE(stronger_end) << errors_of(stronger_end);
    EXPECT_EQ(stronger_end->config.min_port, 15);
    EXPECT_EQ(stronger_end->config.max_port, 20);

    const auto stronger_range = load_file("min_port = 5", {"--port-range=10:20"});
    ASSERT_TRUE(stronger_range) << errors_of(stronger_range);
    EXPECT_EQ(stronger_range->config.min_port, 10);

    for (const std::string wrong : {"10", "10-20", "0:5", "5:70000", ":", "1:2:3"}) {
        const auto loaded = load_server({"--port-range", wrong});
        ASSERT_EQ(error_count(loaded), 1U) << wrong;
        EXPECT_THAT(errors_of(loaded), HasSubstr("10000:20000"));
    }
}

TEST(ServerConfig, EmptyAndFullyReservedRangesAreRefused) {
    const auto empty = load_server({"--port-range=20:10"});
    ASSERT_EQ(error_count(empty), 1U);
    EXPECT_EQ(empty.error()[0].rule, "port range is empty");
    const auto reserved = load_server({"--port-range=7834:7835", "--reserved-ports=7834"});
    ASSERT_EQ(error_count(reserved), 1U);
    EXPECT_THAT(reserved.error()[0].rule, HasSubstr("reserved"));
    EXPECT_TRUE(load_server({"--port-range=7834:7835", "--reserved-ports=none"}));
}

TEST(ServerConfig, AllErrorsOfAllSourcesAtOnce) {
    const auto loaded = load_file("max_prot = 5\nopen = \"yes\"\nmax_tunnels = 0\n",
                                  {"--min-port=70000", "--heartbeat=5", "stray", "--cpus=a"},
                                  {{"BORE_MAX_PORT", "abc"}, {"BACKEND_URL", "http://x"}});
    const std::string errors = errors_of(loaded);
    EXPECT_EQ(error_count(loaded), 9U) << errors;
    EXPECT_THAT(errors, HasSubstr("--min-port=70000 (command line): must be a whole number from 1 "
                                  "to 65535; "));
    EXPECT_THAT(errors, HasSubstr("BORE_MAX_PORT=abc (environment): must be"));
    EXPECT_THAT(errors, HasSubstr("bore.toml:1 max_prot: is not a key; did you mean max_port?"));
    EXPECT_THAT(errors, HasSubstr("bore.toml:2 open = \"yes\": must be true or false, not a "
                                  "string"));
    EXPECT_THAT(errors, HasSubstr("bore.toml:3 max_tunnels = 0: must be"));
    EXPECT_THAT(errors, HasSubstr("--heartbeat (command line): is not an option"));
    EXPECT_THAT(errors, HasSubstr("stray (command line)"));
    EXPECT_THAT(errors, HasSubstr("--cpus=a (command line)"));
    EXPECT_THAT(errors, HasSubstr("backend-url=http://x (environment BACKEND_URL)"));

    const auto finished = finish_early(loaded);
    ASSERT_TRUE(finished);
    EXPECT_EQ(finished->exit_code, 2);
    EXPECT_THAT(finished->standard_error, HasSubstr("9 errors"));
    EXPECT_THAT(finished->standard_output, IsEmpty());
}

TEST(ServerConfig, UnknownOptionsSuggestTheNearest) {
    const struct {
        std::string option;
        std::string meant;
    } cases[] = {{"--min-prot", "--min-port"},
                 {"--bindaddr", "--bind-addr"},
                 {"--max_tunnels", "--max-tunnels"},
                 {"--chekc-config", "--check-config"},
                 {"--secert=x", "--secret"}};
    for (const auto& [option, meant] : cases) {
        const auto loaded = load_server({option, "5"});
        ASSERT_GE(error_count(loaded), 1U) << option;
        EXPECT_EQ(loaded.error()[0].remedy, "did you mean " + meant + "?");
    }
    const auto far = load_server({"--frobnicate"});
    ASSERT_EQ(error_count(far), 1U);
    EXPECT_THAT(far.error()[0].remedy, HasSubstr("--help"));
}

TEST(ServerConfig, OptionWithoutValueAndOptionGivenTwice) {
    const auto missing = load_server({"--max-tunnels=0", "--min-port"});
    ASSERT_EQ(error_count(missing), 2U) << errors_of(missing);
    EXPECT_THAT(errors_of(missing), HasSubstr("--min-port (command line): needs a value"));
    const auto twice = load_server({"--min-port=5", "--min-port=6"});
    ASSERT_EQ(error_count(twice), 1U) << errors_of(twice);
    EXPECT_THAT(errors_of(twice), HasSubstr("--min-port=5 and --min-port=6"));
    EXPECT_TRUE(load_server({"--min-port=5", "--min-port=5"}));
    EXPECT_EQ(error_count(load_server({"--config=a", "--config=b"}, {}, {{"a", ""}, {"b", ""}})),
              1U);
}

TEST(ServerConfig, ListsByRepetitionByCommaAndNone) {
    const auto loaded = load_server({"--deny-clients", "10.0.0.0/8, 192.0.2.0/24",
                                     "--deny-clients=::1", "--reserved-ports", "none"});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_EQ(value_of(*loaded, "deny-clients"), "10.0.0.0/8,192.0.2.0/24,::1/128");
    EXPECT_THAT(loaded->config.reserved_ports, IsEmpty());
    EXPECT_FALSE(is_reserved_port(loaded->config, 3000));
    EXPECT_TRUE(is_reserved_port(loaded->config, 7835));
    EXPECT_TRUE(is_reserved_port(ServerConfig{}, 3000));
    EXPECT_EQ(error_count(load_server({"--reserved-ports=80", "--reserved-ports", "none"})), 1U)
        << "none stands alone";
    EXPECT_EQ(error_count(load_server({"--bind-addr=none"})), 1U);
    EXPECT_EQ(error_count(load_server({"--bind-addr=::1,::1"})), 1U);
}

TEST(ServerConfig, SyntaxErrorNamesLineAndColumn) {
    const auto loaded = load_file("min_port = 2000\nmax_port = = 3\n");
    ASSERT_EQ(error_count(loaded), 1U);
    EXPECT_THAT(errors_of(loaded), HasSubstr("bore.toml:2:12"));
    const auto table = load_file("[limits]\nmax_tunnels = 5\n");
    ASSERT_EQ(error_count(table), 1U);
    EXPECT_THAT(errors_of(table), HasSubstr("without a [limits]"));
    const auto missing = load_server({"--config", "nope.toml"});
    ASSERT_EQ(error_count(missing), 1U);
    EXPECT_THAT(errors_of(missing), HasSubstr("config=nope.toml: cannot be read"));
}

TEST(ServerConfig, AliasesThatDisagreeAreNamedAndTheNativeNameSettlesIt) {
    const Environment environment = {{"INTERNAL_API_KEY", "one"}, {"BACKEND_API_KEY", "two"}};
    const auto disagree = load_server({"--open"}, environment);
    ASSERT_GE(error_count(disagree), 1U);
    EXPECT_THAT(errors_of(disagree), HasSubstr("INTERNAL_API_KEY=(hidden) and "
                                               "BACKEND_API_KEY=(hidden)"));
    EXPECT_THAT(errors_of(disagree), HasSubstr("disagree"));
    Environment settled = environment;
    settled["BORE_BACKEND_API_KEY"] = "three";
    EXPECT_THAT(errors_of(load_server({"--open"}, settled)), Not(HasSubstr("disagree")));
    const Environment agree = {{"INTERNAL_API_KEY", "one"}, {"BACKEND_API_KEY", "one"}};
    EXPECT_THAT(errors_of(load_server({}, agree)), Not(HasSubstr("disagree")));
}

TEST(ServerConfig, EmptySecretCountsEmptyVariablesOtherwiseDoNot) {
    for (const Words& words : {Words{"--secret", ""}, Words{"--secret="}, Words{"-s", ""}}) {
        const auto loaded = load_server(words);
        ASSERT_TRUE(loaded) << errors_of(loaded);
        EXPECT_EQ(loaded->config.secret, "");
    }
    const auto by_variable = load_server({"--require-auth"}, {{"BORE_SECRET", ""}});
    ASSERT_TRUE(by_variable) << errors_of(by_variable);
    EXPECT_EQ(by_variable->config.secret, "");
    const auto by_file = load_file("secret = \"\"");
    ASSERT_TRUE(by_file) << errors_of(by_file);
    EXPECT_EQ(by_file->config.secret, "");
    EXPECT_TRUE(load_server({}, {{"BORE_MIN_PORT", ""}, {"BACKEND_URL", ""}, {"REDIS_HOST", ""}}));
}

TEST(ServerConfig, SecretFromFileAndCredential) {
    const Files files = {{"key", "abc\r\n"}, {"/cred/bore-secret", "xyz\n"}, {"empty", "\n"}};
    const auto from_file = load_server({"--secret-file=key"}, {}, files);
    ASSERT_TRUE(from_file) << errors_of(from_file);
    EXPECT_EQ(from_file->config.secret, "abc");
    EXPECT_THAT(from_file->warnings, IsEmpty());
    const Environment systemd = {{"CREDENTIALS_DIRECTORY", "/cred"}};
    const auto from_credential = load_server({}, systemd, files);
    ASSERT_TRUE(from_credential) << errors_of(from_credential);
    EXPECT_EQ(from_credential->config.secret, "xyz");
    EXPECT_EQ(from_credential->secret_origin.text, "systemd credential");
    EXPECT_EQ(load_server({"--secret-file=key"}, systemd, files)->config.secret, "abc");
    EXPECT_EQ(error_count(load_server({"--secret-file=nope"}, {}, files)), 1U);
    EXPECT_EQ(error_count(load_server({"--secret-file=empty"}, {}, files)), 1U);
    EXPECT_EQ(error_count(load_server({"--secret=a", "--secret-file=key"}, {}, files)), 1U);
    // The stronger source wins, whichever of the two keys it uses.
    EXPECT_EQ(load_server({"--secret=a"}, {{"BORE_SECRET_FILE", "key"}}, files)->config.secret,
              "a");
    EXPECT_EQ(load_server({"--secret-file=key"}, {{"BORE_SECRET", "a"}}, files)->config.secret,
              "abc");
    // A unit without the credential still has the directory.
    EXPECT_FALSE(load_server({}, {{"CREDENTIALS_DIRECTORY", "/other"}}, files)->config.secret);
}

TEST(ServerConfig, UnreadableCredentialDoesNotEndInAnOpenRelay) {
    const FileReader denied =
        [](const std::string&) -> std::expected<std::string, std::error_code> {
        return std::unexpected(std::make_error_code(std::errc::permission_denied));
    };
    const char* argv[] = {"bore-server"};
    const auto loaded = load_server_config(argv, {{"CREDENTIALS_DIRECTORY", "/cred"}}, denied);
    ASSERT_EQ(error_count(loaded), 1U);
    EXPECT_THAT(errors_of(loaded), HasSubstr("Permission denied"));
}

TEST(ServerConfig, OpenMustBeSaidWhereAuthenticationWasMeant) {
    EXPECT_EQ(error_count(load_server({"--require-auth"})), 1U);
    EXPECT_TRUE(load_server({"--require-auth", "--secret=x"}));
    const auto open = load_server({});
    ASSERT_TRUE(open);
    ASSERT_EQ(open->warnings.size(), 1U);
    EXPECT_THAT(open->warnings[0], HasSubstr("everybody"));
    EXPECT_THAT(load_server({"--open"})->warnings, IsEmpty());
    for (const std::string name : {"REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_URL"}) {
        const auto refused = load_server({}, {{name, "s3cret-value"}});
        ASSERT_EQ(error_count(refused), 1U) << name;
        EXPECT_THAT(errors_of(refused), HasSubstr(name));
        EXPECT_THAT(errors_of(refused), HasSubstr("--open"));
        EXPECT_THAT(errors_of(refused), Not(HasSubstr("s3cret-value")));
        EXPECT_TRUE(load_server({"--open"}, {{name, "x"}})) << name;
        EXPECT_TRUE(load_server({"--secret=x"}, {{name, "x"}})) << name;
    }
    for (const std::string name : {"BACKEND_URL", "INTERNAL_API_KEY", "BACKEND_API_KEY"}) {
        EXPECT_EQ(error_count(load_server({}, {{name, "x"}})), 1U) << name;
        EXPECT_EQ(error_count(load_server({"--secret=x"}, {{name, "x"}})), 1U) << name;
        const auto said = load_server({"--open"}, {{name, "x"}});
        ASSERT_TRUE(said) << name << errors_of(said);
        EXPECT_THAT(said->warnings, ElementsAre(HasSubstr(name)));
        EXPECT_FALSE(said->config.backend_url);
        EXPECT_FALSE(said->config.backend_api_key);
    }
    // Said to us by name, it is refused whatever else is said.
    EXPECT_EQ(error_count(load_server({"--open", "--backend-url=http://x"})), 1U);
    EXPECT_EQ(error_count(load_server({"--open"}, {{"BORE_BACKEND_URL", "http://x"}})), 1U);
    EXPECT_EQ(error_count(load_server({"--open", "--secret=x"})), 1U);
    EXPECT_EQ(error_count(load_server({"--open", "--require-auth"})), 1U);
}

TEST(ServerConfig, RulesBetweenTimes) {
    EXPECT_EQ(
        error_count(load_server({"--first-byte-timeout-ms=5000", "--handshake-timeout-ms=4000"})),
        1U);
    EXPECT_EQ(
        error_count(load_server({"--heartbeat-interval-ms=2000", "--client-dead-timeout-ms=1500"})),
        1U);
    EXPECT_EQ(error_count(load_server({"--challenge-grace-ms=200", "--first-byte-timeout-ms=150"})),
              1U);
}

TEST(ServerConfig, SecretsAreNeverShown) {
    const Environment environment = {{"BORE_SECRET", "hush"}};
    const auto loaded = load_server({}, environment);
    ASSERT_TRUE(loaded);
    EXPECT_THAT(print_server_config(*loaded), Not(HasSubstr("hush")));
    EXPECT_THAT(print_server_config(*loaded), HasSubstr("environment BORE_SECRET"));
    EXPECT_THAT(errors_of(load_server({"--open"}, environment)), Not(HasSubstr("hush")));
    EXPECT_THAT(errors_of(load_server({"-s", "hush1", "-s", "hush2"})), Not(HasSubstr("hush")));
    EXPECT_THAT(errors_of(load_server({"--secert=hush", "--secert", "hush"})),
                Not(HasSubstr("hush")));
    EXPECT_THAT(errors_of(load_file("secret = [\"hush\"]")), Not(HasSubstr("hush")));
    EXPECT_THAT(load_server({"--secret=hush"})->warnings, ElementsAre(HasSubstr("ps")));
}

TEST(ServerConfig, PrintedConfigurationLoadsToTheSame) {
    const Words words = {"--print-config",      "--port-range=10000:20000",
                         "--bind-addr=::,::1",  "--deny-visitors=10.0.0.0/8,2001:db8::/32",
                         "--cpus=0-3",          "--secret-file=dir/\"quoted\" \\ key",
                         "--server-id=a.b-c_d", "--reserved-ports=none",
                         "--require-auth",      "--stream-driver=epoll",
                         "--log-level=error"};
    const Files files = {{"dir/\"quoted\" \\ key", "abc"}};
    const auto loaded = load_server(words, {{"BORE_IDLE_TIMEOUT_S", "7"}}, files);
    ASSERT_TRUE(loaded) << errors_of(loaded);
    const auto finished = finish_early(loaded);
    ASSERT_TRUE(finished);
    EXPECT_EQ(finished->exit_code, 0);
    Files again = files;
    again["printed.toml"] = finished->standard_output;
    const auto reloaded = load_server({"--config=printed.toml"}, {}, again);
    ASSERT_TRUE(reloaded) << errors_of(reloaded) << finished->standard_output;
    EXPECT_EQ(reloaded->config, loaded->config);
    EXPECT_THAT(finished->standard_output,
                HasSubstr("idle_timeout_s = 7  # environment BORE_IDLE_TIMEOUT_S"));
    EXPECT_THAT(finished->standard_output, HasSubstr("min_port = 10000  # command line"));
}

TEST(ServerConfig, ActionsAndExitCodes) {
    const auto help = finish_early(load_server({"--help", "--min-port=0"}));
    ASSERT_TRUE(help);
    EXPECT_EQ(help->exit_code, 0);
    EXPECT_EQ(help->standard_output, server_help());
    EXPECT_THAT(finish_early(load_server({"-V"}))->standard_output, HasSubstr("bore-server "));
    const auto check =
        finish_early(load_server({"--check-config", "--secret-file=k"}, {}, {{"k", "abc"}}));
    ASSERT_TRUE(check);
    EXPECT_EQ(check->exit_code, 0);
    EXPECT_THAT(check->standard_output, HasSubstr("configuration is ok"));
    EXPECT_EQ(finish_early(load_server({"--check-config", "--min-port=0"}))->exit_code, 2);
    EXPECT_FALSE(finish_early(load_server({})));
}

TEST(ServerConfig, VariablesOfOtherProgramsAndMisspeltOnes) {
    const auto loaded = load_server({"--open"}, {{"BORE_MINPORT", "5"},
                                                 {"BORE_SERVER_SERVICE_HOST", "10.0.0.1"},
                                                 {"RUST_LOG", "hyper=trace,bore_cli=debug"},
                                                 {"NO_COLOR", "1"}});
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_THAT(loaded->warnings, ElementsAre(HasSubstr("did you mean BORE_MIN_PORT?")));
    EXPECT_EQ(loaded->config.log_level, LogLevel::debug);
    EXPECT_FALSE(loaded->config.color);
    EXPECT_EQ(
        load_server({}, {{"RUST_LOG", "warn"}, {"BORE_LOG_LEVEL", "trace"}})->config.log_level,
        LogLevel::trace);
    EXPECT_EQ(load_server({}, {{"RUST_LOG", "hyper=trace,nonsense"}})->config.log_level,
              LogLevel::info);
    EXPECT_TRUE(load_server({}, {{"NO_COLOR", ""}})->config.color);
}

TEST(ServerConfig, DerivedValues) {
    ServerConfig config;
    EXPECT_EQ(tunnel_addresses(config), config.bind_addr);
    config.bind_tunnels = {IpAddress::parse("::1").value()};
    EXPECT_EQ(tunnel_addresses(config), config.bind_tunnels);
    EXPECT_EQ(worker_count(config, 1), 1U);
    EXPECT_EQ(worker_count(config, 8), 7U);
    EXPECT_EQ(worker_count(config, 256), max_workers);
    config.cpus = {2, 3};
    EXPECT_EQ(worker_count(config, 8), 2U);
    config.workers = 5;
    EXPECT_EQ(worker_count(config, 8), 5U);
}

TEST(ServerReload, ChangesNowAndChangesThatNeedARestart) {
    const Words words = {"--config", "bore.toml", "--secret-file=k"};
    const auto start =
        load_server(words, {}, {{"bore.toml", "max_tunnels = 5\nmin_port = 2000\n"}, {"k", "old"}});
    ASSERT_TRUE(start) << errors_of(start);
    const auto argv = argv_of("bore-server", words);
    const Files changed = {{"bore.toml", "max_tunnels = 9\nmin_port = 3000\nlog_level=\"debug\"\n"},
                           {"k", "new"}};
    const auto reloaded = reload_server_config(*start, argv, {}, reader_of(changed));
    ASSERT_TRUE(reloaded) << errors_of(reloaded);
    EXPECT_THAT(reloaded->changed, ElementsAre("secret", "max-tunnels", "log-level"));
    EXPECT_THAT(reloaded->needs_restart, ElementsAre("min-port"));
    EXPECT_EQ(reloaded->next.config.max_tunnels, 9U);
    EXPECT_EQ(reloaded->next.config.secret, "new");
    EXPECT_EQ(reloaded->next.config.min_port, 2000) << "a restart is needed for it";

    const auto same = reload_server_config(reloaded->next, argv, {}, reader_of(changed));
    ASSERT_TRUE(same);
    EXPECT_THAT(same->changed, IsEmpty());
    EXPECT_THAT(same->needs_restart, ElementsAre("min-port")) << "still not applied";

    const auto broken =
        reload_server_config(*start, argv, {}, reader_of({{"bore.toml", "x = 1"}, {"k", "new"}}));
    EXPECT_EQ(error_count(broken), 1U);
}

TEST(ServerConfig, NoMoreWorkersThanTheDataPlaneHas) {
    EXPECT_EQ(error_count(load_server({"--workers", "64"})), 0U);
    EXPECT_EQ(error_count(load_server({"--workers", "65"})), 1U);
    EXPECT_EQ(error_count(load_server({"--cpus", "0-63"})), 0U);
    EXPECT_EQ(error_count(load_server({"--cpus", "0-95"})), 1U);
    EXPECT_EQ(error_count(load_server({"--cpus", "0-95", "--workers", "64"})), 0U);
}

TEST(ServerReload, ASecretDoesNotGoUnnoticed) {
    const Words words = {"--config", "bore.toml"};
    const auto start = load_server(words, {}, {{"bore.toml", "secret = \"s\"\n"}});
    ASSERT_TRUE(start) << errors_of(start);
    const auto argv = argv_of("bore-server", words);
    const auto gone = reload_server_config(*start, argv, {}, reader_of({{"bore.toml", ""}}));
    EXPECT_EQ(error_count(gone), 1U) << "the relay would be open";
    const auto meant =
        reload_server_config(*start, argv, {}, reader_of({{"bore.toml", "open = true\n"}}));
    EXPECT_TRUE(meant) << errors_of(meant);
}

TEST(ServerReload, EveryKeyKeepsItsPromise) {
    const auto defaults = load_server({});
    ASSERT_TRUE(defaults);
    const auto argv = argv_of("bore-server", {});
    for (const auto& key : server_keys()) {
        // A running relay that differs from the sources in this one key.
        LoadedServer running = *defaults;
        const Field field = key.field(running.config);
        if (auto* const* number = std::get_if<std::uint32_t*>(&field)) {
            **number += 1;
        } else if (auto* const* port = std::get_if<std::uint16_t*>(&field)) {
            **port = static_cast<std::uint16_t>(**port - 1);
        } else if (auto* const* flag = std::get_if<bool*>(&field)) {
            **flag = !**flag;
        } else {
            continue;
        }
        auto reloaded = reload_server_config(running, argv, {}, reader_of({}));
        ASSERT_TRUE(reloaded) << key.name;
        const bool at_once = key.reload == Reload::yes;
        EXPECT_EQ(reloaded->changed.size(), at_once ? 1U : 0U) << key.name;
        EXPECT_EQ(reloaded->needs_restart.size(), at_once ? 0U : 1U) << key.name;
        const LoadedServer& expected = at_once ? *defaults : running;
        EXPECT_EQ(value_of(reloaded->next, key.name), value_of(expected, key.name));
    }
}

}  // namespace
}  // namespace bore::config::testing
