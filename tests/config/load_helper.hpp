// Loads configurations from literals: words, variables and files that exist in the test alone.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "controlplane/config/client_config.hpp"
#include "controlplane/config/server_config.hpp"
#include "controlplane/config/server_keys.hpp"

namespace bore::config::testing {

using Words = std::vector<std::string>;
using Files = std::map<std::string, std::string>;

// The pointers live as long as `words`.
inline std::vector<const char*> argv_of(const char* program, const Words& words) {
    std::vector<const char*> argv = {program};
    for (const std::string& word : words) {
        argv.push_back(word.c_str());
    }
    return argv;
}

inline FileReader reader_of(const Files& files) {
    return [files](const std::string& path) -> std::expected<std::string, std::error_code> {
        const auto file = files.find(path);
        if (file == files.end()) {
            return std::unexpected(std::make_error_code(std::errc::no_such_file_or_directory));
        }
        return file->second;
    };
}

inline ServerResult load_server(const Words& words, const Environment& environment = {},
                                const Files& files = {}) {
    return load_server_config(argv_of("bore-server", words), environment, reader_of(files));
}

inline ClientResult load_client(const Words& words, const Environment& environment = {}) {
    return load_client_config(argv_of("bore", words), environment);
}

// With the file in front of the other words.
inline ServerResult load_file(const std::string& toml, Words words = {},
                              const Environment& environment = {}) {
    words.insert(words.begin(), {"--config", "bore.toml"});
    return load_server(words, environment, {{"bore.toml", toml}});
}

// All errors in one text, one line each; empty when there are none.
template <class Result>
std::string errors_of(const Result& result) {
    std::string text;
    if (!result) {
        for (const ConfigError& error : result.error()) {
            text += error.to_string() + "\n";
        }
    }
    return text;
}

template <class Result>
std::size_t error_count(const Result& result) {
    return result ? 0 : result.error().size();
}

inline std::size_t row_index(std::string_view name) {
    const auto& keys = server_keys();
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [name](const auto& candidate) { return candidate.name == name; });
    return static_cast<std::size_t>(key - keys.begin());
}

// The value of a key as plain text, whatever its type.
inline std::string value_of(const LoadedServer& loaded, std::string_view name) {
    ServerConfig config = loaded.config;
    return plain_text(bind(server_keys(), config)[row_index(name)].field);
}

inline std::string origin_of(const LoadedServer& loaded, std::string_view name) {
    return loaded.origins[row_index(name)].text;
}

}  // namespace bore::config::testing
