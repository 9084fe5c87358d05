// The command line: CLI11 takes it apart with the options that the rows name, without giving any
// of them a meaning; values are judged later, together with those of the other sources.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "controlplane/config/sources.hpp"

namespace bore::config {
namespace {

// An operator's line has a few dozen words; the bound keeps repeated options from piling up.
constexpr std::size_t max_argument_count = 4096;

std::string option_names(std::string_view name, char short_name) {
    const std::string dashes = "--" + std::string(name);
    return short_name == 0 ? dashes : std::string("-") + short_name + "," + dashes;
}

// CLI11 takes "--secret=" for an option without its value; as two words it is one with an empty
// value. "-s=x" is the way other parsers read it, too: the value is "x".
std::vector<std::string> normalised(const Rows& rows, const std::vector<std::string>& args) {
    std::vector<std::string> result;
    for (const std::string& arg : args) {
        const bool is_short = arg.size() > 2 && arg[0] == '-' && arg[2] == '=' &&
                              std::any_of(rows.begin(), rows.end(), [&arg](const Row& row) {
                                  return row.info->short_name == arg[1];
                              });
        if (arg.size() > 3 && arg.starts_with("--") && arg.find('=') == arg.size() - 1) {
            result.push_back(arg.substr(0, arg.size() - 1));
            result.emplace_back();
        } else if (is_short) {
            result.push_back(arg.substr(0, 2));
            result.push_back(arg.substr(3));
        } else {
            result.push_back(arg);
        }
    }
    return result;
}

std::vector<std::string> known_options(const Rows& rows, std::span<const CommandOption> commands) {
    std::vector<std::string> known;
    for (const Row& row : rows) {
        known.push_back("--" + std::string(row.info->name));
    }
    for (const CommandOption& command : commands) {
        known.push_back("--" + std::string(command.name));
    }
    return known;
}

// Shows the option without its value, which may be a secret behind a misspelt --secret.
ConfigError unknown_option(const std::string& option, const std::vector<std::string>& known) {
    const bool is_long = option.starts_with("--");
    std::string name = option.substr(0, is_long ? option.find('=') : 2);
    const std::string shown = printable(name) + " (command line)";
    std::replace(name.begin(), name.end(), '_', '-');
    const std::string meant = is_long ? nearest(name, known) : "";
    return {shown, "is not an option of this program",
            meant.empty() ? "see --help for the options" : "did you mean " + meant + "?"};
}

// What CLI11 left over: unknown options with the word behind them, and words.
void sort_leftovers(const Rows& rows, std::span<const CommandOption> commands,
                    const std::vector<std::string>& leftovers, CommandLine& line, Collected& into) {
    std::vector<std::string> known;
    bool may_be_a_value = false;
    for (const std::string& leftover : leftovers) {
        if (leftover.size() > 1 && leftover[0] == '-' && leftover != "--") {
            if (known.empty()) {
                known = known_options(rows, commands);
            }
            into.errors.push_back(unknown_option(leftover, known));
            may_be_a_value = leftover.find('=') == std::string::npos;
        } else if (leftover != "--" && !may_be_a_value) {
            line.words.push_back(leftover);
        } else {
            may_be_a_value = false;
        }
    }
}

std::string joined(const std::vector<std::string>& values) {
    std::string text;
    for (const std::string& value : values) {
        text += (text.empty() ? "" : ",") + value;
    }
    return text;
}

// Repeating a list makes it longer; repeating anything else must say the same again.
void collect_option(const Row& row, std::size_t key_index, const std::vector<std::string>& values,
                    Collected& into) {
    const std::string option = "--" + std::string(row.info->name);
    const bool list = is_list(row.field);
    const bool all_same =
        std::all_of(values.begin(), values.end(),
                    [&values](const std::string& value) { return value == values[0]; });
    if (!list && !all_same) {
        into.invalid.insert(key_index);
        into.errors.push_back({option + "=" + printable_value(*row.info, values[0]) + " and " +
                                   option + "=" + printable_value(*row.info, values.back()) +
                                   " (command line)",
                               "may be given once", "leave one of them out"});
        return;
    }
    const std::string text = list ? joined(values) : values[0];
    into.settings.push_back(
        {.key_index = key_index,
         .kind = SourceKind::command_line,
         .origin = "command line " + option,
         .shown = option + "=" + printable_value(*row.info, text) + " (command line)",
         .items = list ? split_list(text) : std::vector{text}});
}

// Whether a word may be this option.
bool mentioned(const std::vector<std::string>& args, std::string_view name, char short_name) {
    return std::any_of(args.begin(), args.end(), [name, short_name](std::string_view arg) {
        return (arg.starts_with("--") && arg.substr(2).starts_with(name)) ||
               (short_name != 0 && arg.starts_with('-') &&
                arg.find(short_name) != std::string_view::npos);
    });
}

// Null when the line does not mention it: CLI11 compares each new option with all others by their
// text, which for the relay's whole table costs more than the rest of loading together.
CLI::Option* add_option(CLI::App& app, const std::vector<std::string>& args, std::string_view name,
                        char short_name, bool takes_value) {
    if (!mentioned(args, name, short_name)) {
        return nullptr;
    }
    const std::string names = option_names(name, short_name);
    CLI::Option* option = takes_value ? app.add_option(names)->expected(1) : app.add_flag(names);
    return option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

std::vector<std::string> values_of(const CLI::Option* option) {
    return option == nullptr ? std::vector<std::string>{} : option->results();
}

// Fills the options of `app`; what it cannot place stays in app.remaining().
void parse(CLI::App& app, std::vector<std::string> args, Collected& into) {
    const std::string last_word = args.empty() ? "" : printable(args.back());
    std::reverse(args.begin(), args.end());  // CLI11 takes words from the back
    try {
        app.parse(std::move(args));
    } catch (const CLI::ArgumentMismatch&) {
        // Only the last word can be an option without its value; what stands before it counts.
        into.incomplete = true;
        into.errors.push_back({last_word + " (command line)", "needs a value",
                               "write the value behind it, as in --min-port 1024"});
    } catch (const CLI::ParseError& error) {
        into.incomplete = true;
        into.errors.push_back({"command line", printable(error.what()), "see --help"});
    }
}

void take_config_file(const std::vector<std::string>& files, CommandLine& line, Collected& into) {
    if (files.empty()) {
        return;
    }
    line.config_file = files.back();
    if (files.size() > 1) {
        into.errors.push_back({"--config=" + printable(files.back()) + " (command line)",
                               "may be given once", "put everything into one file"});
    }
}

}  // namespace

CommandLine read_command_line(const Rows& rows, std::span<const CommandOption> commands,
                              std::vector<std::string> args, Collected& into) {
    CommandLine line;
    if (args.size() > max_argument_count) {
        into.errors.push_back({std::to_string(args.size()) + " arguments (command line)",
                               "may be at most " + std::to_string(max_argument_count),
                               "put long lists into a configuration file"});
        return line;
    }
    args = normalised(rows, args);
    CLI::App app;
    app.set_help_flag();
    app.allow_extras();
    std::vector<CLI::Option*> row_options;
    for (const Row& row : rows) {
        const bool takes_value = !std::holds_alternative<bool*>(row.field);
        row_options.push_back(
            add_option(app, args, row.info->name, row.info->short_name, takes_value));
    }
    std::vector<CLI::Option*> command_options;
    for (const CommandOption& command : commands) {
        command_options.push_back(
            add_option(app, args, command.name, command.short_name, !command.placeholder.empty()));
    }
    parse(app, std::move(args), into);
    for (std::size_t index = 0; index < rows.size(); ++index) {
        if (const auto values = values_of(row_options[index]); !values.empty()) {
            collect_option(rows[index], index, values, into);
        }
    }
    for (std::size_t index = 0; index < commands.size(); ++index) {
        const auto values = values_of(command_options[index]);
        if (!commands[index].placeholder.empty()) {
            take_config_file(values, line, into);
        } else if (!values.empty() && line.action == Action::run) {
            line.action = commands[index].action;  // the table has the most telling one first
        }
    }
    sort_leftovers(rows, commands, app.remaining(), line, into);
    return line;
}

}  // namespace bore::config
