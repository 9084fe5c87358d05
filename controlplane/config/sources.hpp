// The places values come from: command line, environment, TOML text. Each reader turns what it
// finds into settings of known keys and into errors for the rest; apply() then puts the settings
// into the bound rows in order of precedence. Everything wrong is collected, nothing is thrown.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/config/key.hpp"

namespace bore::config {

struct Collected {
    std::vector<Setting> settings;
    std::vector<ConfigError> errors;
    std::vector<std::string> warnings;
    std::set<std::size_t> invalid;  // rows that an error names: rules about them make no sense
    bool incomplete = false;        // a whole source could not be read: no rule makes sense
};

// An option that is no key: it picks an action, or names the file when it has a placeholder.
struct CommandOption {
    std::string_view name;
    char short_name = 0;
    Action action = Action::run;
    std::string_view placeholder;
    std::string_view help;
};

struct CommandLine {
    Action action = Action::run;
    std::optional<std::string> config_file;
    std::vector<std::string> words;  // what is neither an option nor an option's value
};

// `args` without the program's name.
[[nodiscard]] CommandLine read_command_line(const Rows& rows,
                                            std::span<const CommandOption> commands,
                                            std::vector<std::string> args, Collected& into);

void read_environment(const Rows& rows, const Environment& environment, Collected& into);

// `name` is how errors call the text, mostly the file's name.
void read_toml(const Rows& rows, const std::string& text, const std::string& name, Collected& into);

// Gives the origin of every row. `rows` must be bound to a default configuration.
[[nodiscard]] std::vector<Origin> apply(const Rows& rows, Collected& collected);

// The level that a RUST_LOG value means for this program; empty when it names none.
[[nodiscard]] std::optional<std::string> rust_log_level(std::string_view text);

// Value of a variable that is set to something; empty text counts as not set.
[[nodiscard]] std::optional<std::string> variable(const Environment& environment,
                                                  std::string_view name);

// "10.0.0.1, ::1" as its parts without blanks; "none" is the empty list.
[[nodiscard]] std::vector<std::string> split_list(std::string_view text);

// The nearest of `known` to `word`, or empty when none is near enough to be meant.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace bore::config
