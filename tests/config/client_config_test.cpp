// The tunnel client's command line and environment: every form of the other clients, every key,
// every error at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "controlplane/config/client_keys.hpp"
#include "tests/config/load_helper.hpp"

namespace bore::config::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string value_of(const ClientConfig& loaded, std::string_view name) {
    ClientConfig config = loaded;
    for (const Row& row : bind(client_keys(), config)) {
        if (row.info->name == name) {
            return plain_text(row.field);
        }
    }
    return "no such key";
}

TEST(ClientConfig, FormsOfTheCommandLine) {
    for (const Words& words :
         {Words{"local", "3000", "--to", "host"}, Words{"3000", "--to", "host"},
          Words{"--to=host", "local", "3000"}, Words{"-t", "host", "3000", "-p", "0"},
          Words{"local", "3000", "-t=host"}}) {
        const auto loaded = load_client(words);
        ASSERT_TRUE(loaded) << errors_of(loaded);
        EXPECT_EQ(loaded->config.to, "host");
        EXPECT_THAT(loaded->config.tunnels, ElementsAre(TunnelRequest{3000, 0}));
    }
}

TEST(ClientConfig, SeveralLocalPorts) {
    const auto any = load_client({"3000", "3001", "--to=h", "-p", "0"});
    ASSERT_TRUE(any) << errors_of(any);
    EXPECT_THAT(any->config.tunnels, ElementsAre(TunnelRequest{3000, 0}, TunnelRequest{3001, 0}));
    const auto each = load_client({"3000", "3001", "--to=h", "-p", "5000", "-p", "0"});
    ASSERT_TRUE(each) << errors_of(each);
    EXPECT_THAT(each->config.tunnels,
                ElementsAre(TunnelRequest{3000, 5000}, TunnelRequest{3001, 0}));
    const auto by_variable =
        load_client({}, {{"BORE_LOCAL_PORT", "3000,3001"}, {"BORE_SERVER", "h"}});
    ASSERT_TRUE(by_variable) << errors_of(by_variable);
    EXPECT_EQ(by_variable->config.tunnels.size(), 2U);
    const auto uneven = load_client({"3000", "3001", "--to=h", "-p", "5000"});
    ASSERT_EQ(error_count(uneven), 1U);
    EXPECT_THAT(errors_of(uneven), HasSubstr("1 public ports for 2 local ports"));
}

TEST(ClientConfig, EveryKeyByOptionAndByVariable) {
    const struct {
        std::string_view name;
        std::string right;
        std::string wrong;
        std::string variable;
    } examples[] = {{"local-port", "3000", "0", "BORE_LOCAL_PORT"},
                    {"local-host", "10.0.0.7", "a b", "BORE_LOCAL_HOST"},
                    {"port", "5000", "70000", ""},
                    {"to", "relay.example.com", "relay:7835", "BORE_SERVER"},
                    {"control-port", "7000", "0", "BORE_CONTROL_PORT"},
                    {"no-reconnect", "true", "perhaps", "BORE_NO_RECONNECT"},
                    {"auth-dialect", "upstream", "both", "BORE_AUTH_DIALECT"},
                    {"stream-driver", "epoll", "dpdk", "BORE_STREAM_DRIVER"},
                    {"log-level", "error", "loud", "BORE_LOG_LEVEL"},
                    {"log-format", "json", "xml", "BORE_LOG_FORMAT"}};
    std::set<std::string_view> covered = {"secret"};
    for (const auto& [name, right, wrong, variable_name] : examples) {
        covered.insert(name);
        // What the key itself does not give, so that the rest is complete.
        Environment base = {{"BORE_SERVER", "h"}, {"BORE_LOCAL_PORT", "1"}};
        const std::string option = "--" + std::string(name) + "=";
        const auto by_option = load_client({option + right}, base);
        ASSERT_TRUE(by_option) << errors_of(by_option);
        EXPECT_EQ(value_of(by_option->config, name), right);
        const auto refused = load_client({option + wrong}, base);
        ASSERT_EQ(error_count(refused), 1U) << option << wrong << ": " << errors_of(refused);
        EXPECT_THAT(errors_of(refused), HasSubstr(wrong));
        if (!variable_name.empty()) {
            base[variable_name] = right;
            const auto by_variable = load_client({}, base);
            ASSERT_TRUE(by_variable) << errors_of(by_variable);
            EXPECT_EQ(value_of(by_variable->config, name), right);
            base[variable_name] = wrong;
            EXPECT_EQ(error_count(load_client({}, base)), 1U) << variable_name;
        }
    }
    for (const auto& key : client_keys()) {
        EXPECT_TRUE(covered.contains(key.name)) << key.name;
        EXPECT_THAT(client_help(), HasSubstr("--" + std::string(key.name)));
        EXPECT_THAT(client_help(), HasSubstr(environment_name(key)));
    }
}

TEST(ClientConfig, SecretAndItsHint) {
    const Words words = {"3000", "--to=h"};
    EXPECT_FALSE(load_client(words)->config.secret);
    EXPECT_EQ(load_client(words, {{"BORE_SECRET", ""}})->config.secret, "");
    EXPECT_TRUE(load_client(words, {{"BORE_SECRET", "x"}})->warnings.empty());
    const auto shown = load_client({"3000", "--to=h", "-s", "-dash"});
    ASSERT_TRUE(shown) << errors_of(shown);
    EXPECT_EQ(shown->config.secret, "-dash");
    EXPECT_THAT(shown->warnings, ElementsAre(HasSubstr("ps")));
}

TEST(ClientConfig, AllErrorsAtOnce) {
    const auto loaded = load_client({"x", "--tto", "h", "--log-level=loud", "--secret=hush"},
                                    {{"BORE_CONTROL_PORT", "99999"}});
    EXPECT_EQ(error_count(loaded), 5U) << errors_of(loaded);
    EXPECT_THAT(errors_of(loaded), HasSubstr("local port x (command line)"));
    EXPECT_THAT(errors_of(loaded), HasSubstr("did you mean --to?"));
    EXPECT_THAT(errors_of(loaded), HasSubstr("BORE_CONTROL_PORT=99999 (environment)"));
    EXPECT_THAT(errors_of(loaded), HasSubstr("must name the relay"));
    EXPECT_THAT(errors_of(loaded), Not(HasSubstr("hush")));
    EXPECT_EQ(finish_early(loaded)->exit_code, 2);
    EXPECT_EQ(error_count(load_client({"--to=h"})), 1U);
}

TEST(ClientConfig, CommandsOfOtherClients) {
    const auto server = load_client({"server", "--min-port", "2000"});
    ASSERT_EQ(error_count(server), 1U);
    EXPECT_THAT(errors_of(server), HasSubstr("bore-server"));
    EXPECT_EQ(finish_early(server)->exit_code, 2);
    for (const std::string command : {"login", "logout", "list", "start", "stop"}) {
        const auto refused = load_client({command});
        ASSERT_EQ(error_count(refused), 1U);
        EXPECT_THAT(errors_of(refused), HasSubstr("backend"));
    }
}

TEST(ClientConfig, HelpVersionAndLogVariables) {
    EXPECT_EQ(finish_early(load_client({"--help"}))->standard_output, client_help());
    EXPECT_THAT(finish_early(load_client({"--version"}))->standard_output, HasSubstr("bore "));
    EXPECT_FALSE(finish_early(load_client({"3000", "--to=h"})));
    const auto loaded =
        load_client({"3000", "--to=h"}, {{"RUST_LOG", "DEBUG"}, {"NO_COLOR", "yes"}});
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->config.log_level, LogLevel::debug);
    EXPECT_FALSE(loaded->config.color);
}

}  // namespace
}  // namespace bore::config::testing
