// What loading a configuration takes and gives, for either program: where values come from, how an
// error reads, what main.cpp does with the result. Nothing here touches process state; main.cpp
// passes argv, the environment and a file reader in, and tests and fuzzers pass their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace bore::config {

// Cap on a configuration or secret file, far above any sensible one.
inline constexpr std::size_t max_file_size_bytes = 1024 * 1024;

using Environment = std::map<std::string, std::string, std::less<>>;

// Gives the whole text of a file, or the reason why not.
using FileReader =
    std::function<std::expected<std::string, std::error_code>(const std::string& path)>;

// One thing that is wrong. All of them are reported together.
struct ConfigError {
    std::string value;   // "--min-port=70000 (command line)", "bore.toml:12 max_port = 0"
    std::string rule;    // "must be a whole number from 1 to 65535"
    std::string remedy;  // "use a port of that range, as in --min-port=1024"

    [[nodiscard]] std::string to_string() const;
};

// In rising order of precedence. `credential` is systemd's $CREDENTIALS_DIRECTORY; an alias is a
// variable name of other set-ups (MIN_PORT) beside the native one (BORE_MIN_PORT).
enum class SourceKind : std::uint8_t {
    built_in,
    credential,
    file,
    environment_alias,
    environment,
    command_line
};

// Where the value of a key came from; `text` reads "default", "bore.toml:12",
// "environment BORE_MIN_PORT", "command line --min-port".
struct Origin {
    SourceKind kind = SourceKind::built_in;
    std::string text = "default";
};

// What the command line asked for.
enum class Action : std::uint8_t { run, help, version, check_config, print_config };

// What to print before ending, and the exit code: 0 normal, 2 usage error.
struct Finished {
    int exit_code = 0;
    std::string standard_output;
    std::string standard_error;
};

// Every error with its number, and a line that counts them; exit code 2.
[[nodiscard]] Finished usage_errors(std::string_view program,
                                    const std::vector<ConfigError>& errors);
// "bore-server 1.2.3"
[[nodiscard]] std::string version_line(std::string_view program);

// A pipe, such as a shell's <(command), can be read at the start; at a reload it would be empty, or
// wait for its writer.
enum class Pipes : std::uint8_t { read, refuse };

// The process' own environment and files, for main.cpp. The reader refuses files over
// max_file_size_bytes and anything that is not a regular file or a pipe that may be read.
[[nodiscard]] Environment environment_of_process(char** environment);
[[nodiscard]] FileReader file_reader_of_process(Pipes pipes);

}  // namespace bore::config
