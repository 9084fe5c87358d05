// The man pages and the sample file must keep up with the key tables: every key, every variable,
// every default.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "controlplane/config/client_keys.hpp"
#include "controlplane/config/exporter_keys.hpp"
#include "tests/config/load_helper.hpp"

namespace bore::config::testing {
namespace {

using ::testing::HasSubstr;

// BORE_SOURCE_ROOT comes from the build.
std::string document(const std::string& name) {
    std::ifstream file(std::string(BORE_SOURCE_ROOT) + "/deploy/" + name);
    EXPECT_TRUE(file) << name;
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// A man page as a reader sees it, as far as dashes go.
std::string man_page(const std::string& name) {
    std::string text = document("man/" + name);
    for (std::size_t at = text.find("\\-"); at != std::string::npos; at = text.find("\\-", at)) {
        text.erase(at, 1);
    }
    return text;
}

TEST(Documents, ServerManPageNamesEveryOption) {
    const std::string page = man_page("bore-server.8");
    for (const auto& key : server_keys()) {
        EXPECT_THAT(page, HasSubstr("--" + std::string(key.name))) << key.name;
    }
    for (const CommandOption& command : server_commands()) {
        EXPECT_THAT(page, HasSubstr("--" + std::string(command.name)));
    }
}

TEST(Documents, FileManPageDescribesEveryKey) {
    const std::string page = man_page("bore-server.toml.5");
    ServerConfig defaults;
    for (const Row& row : bind(server_keys(), defaults)) {
        const std::string heading = ".B " + file_key(*row.info) + "\n";
        const std::size_t begin = page.find(heading);
        ASSERT_NE(begin, std::string::npos) << row.info->name;
        const std::string entry = page.substr(begin, page.find(".TP", begin) - begin);
        EXPECT_THAT(entry, HasSubstr(environment_name(*row.info)));
        for (const std::string_view alias : row.info->aliases) {
            EXPECT_THAT(entry, HasSubstr(std::string(alias))) << row.info->name;
        }
        const std::string value = toml_text(row.field);
        EXPECT_THAT(entry, HasSubstr(value.empty() ? "No default" : "Default " + value));
        if (row.info->highest != 0) {
            EXPECT_THAT(entry, HasSubstr(std::to_string(row.info->lowest) + " to " +
                                         std::to_string(row.info->highest)));
        }
        EXPECT_THAT(entry,
                    HasSubstr(row.info->reload == Reload::yes ? "Reload: yes" : "Reload: no"));
    }
}

TEST(Documents, ClientManPageNamesEveryOptionAndVariable) {
    const std::string page = man_page("bore.1");
    for (const auto& key : client_keys()) {
        EXPECT_THAT(page, HasSubstr("--" + std::string(key.name)));
        EXPECT_THAT(page, HasSubstr(environment_name(key)));
    }
    for (const CommandOption& command : client_commands()) {
        EXPECT_THAT(page, HasSubstr("--" + std::string(command.name)));
    }
}

TEST(Documents, ExporterManPageNamesEveryOptionVariableAndDefault) {
    const std::string page = man_page("bore-exporter.8");
    ExporterConfig defaults;
    for (const Row& row : bind(exporter_keys(), defaults)) {
        EXPECT_THAT(page, HasSubstr("--" + std::string(row.info->name)));
        EXPECT_THAT(page, HasSubstr("Variable: " + environment_name(*row.info)));
        const std::string value = plain_text(row.field);
        EXPECT_TRUE(value == "none" || page.find("Default " + value) != std::string::npos)
            << row.info->name;
    }
    for (const CommandOption& command : exporter_commands()) {
        EXPECT_THAT(page, HasSubstr("--" + std::string(command.name)));
    }
}

TEST(Documents, ExporterCompletionKnowsEveryOption) {
    const std::string completion = document("completions/bore-exporter");
    for (const auto& key : exporter_keys()) {
        EXPECT_THAT(completion, HasSubstr("--" + std::string(key.name)));
    }
}

TEST(Documents, SampleFileShowsEveryKeyWithItsDefault) {
    const std::string sample = document("bore-server.toml");
    ServerConfig defaults;
    for (const Row& row : bind(server_keys(), defaults)) {
        const std::string value = toml_text(row.field);
        const std::string line = "\n#" + file_key(*row.info) + " = " + value;
        EXPECT_THAT(sample, HasSubstr(value.empty() ? line : line + "\n"));
    }
}

TEST(Documents, SampleFileLoadsAsItIsAndWithItsDefaultsSwitchedOn) {
    const std::string sample = document("bore-server.toml");
    const auto as_it_is = load_file(sample);
    ASSERT_TRUE(as_it_is) << errors_of(as_it_is);
    EXPECT_EQ(as_it_is->config, ServerConfig{});
    // "#key = value" is a switched-off key, "# text" is prose.
    std::istringstream lines(sample);
    std::string line;
    std::string switched_on;
    std::size_t key_count = 0;
    ServerConfig defaults;
    const Rows rows = bind(server_keys(), defaults);
    while (std::getline(lines, line)) {
        for (const Row& row : rows) {
            if (!toml_text(row.field).empty() &&
                line.starts_with("#" + file_key(*row.info) + " ")) {
                switched_on += line.substr(1) + "\n";
                ++key_count;
            }
        }
    }
    EXPECT_GT(key_count, 30U);
    const auto loaded = load_file(switched_on);
    ASSERT_TRUE(loaded) << errors_of(loaded);
    EXPECT_EQ(loaded->config, ServerConfig{});
}

}  // namespace
}  // namespace bore::config::testing
