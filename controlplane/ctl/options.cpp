// The words by CLI11; what they mean is checked here, so that every refusal names value, rule and
// remedy.
#include "controlplane/ctl/options.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <utility>
#include <vector>

#include "controlplane/config/key.hpp"
#include "controlplane/config/load.hpp"

namespace bore::ctl {

namespace {

using config::printable;
using Result = std::expected<Options, EarlyEnd>;

constexpr double min_interval_s = 0.1;
constexpr double max_interval_s = 3600;

// Everything that CLI11 fills in.
struct Words {
    std::string relay;
    bool json{false};
    bool all{false};
    std::string tunnel;
    std::string deadline;
    std::string level;
    std::string interval{"1"};
    std::string sort{"rate"};
    std::string filter;
    bool once{false};
    bool ascii{false};
};

std::unexpected<EarlyEnd> usage(const std::string& sentence) {
    return std::unexpected(
        EarlyEnd{.status = exit_usage, .output = {}, .error = "borectl: " + sentence + "\n"});
}

CLI::App* add(CLI::App& app, const char* name, const char* description) {
    CLI::App* const command = app.add_subcommand(name, description);
    command->fallthrough();  // --relay and --json may stand behind the command
    return command;
}

void describe(CLI::App& app, Words& words) {
    app.require_subcommand(0, 1);  // that there is one is checked below, after misspelt ones
    app.add_option("--relay", words.relay,
                   "Server id of the relay, or the path of its statistics or control socket; "
                   "needed where several run")
        ->type_name("ID|PATH");
    app.add_flag("--json", words.json, "JSON instead of text");
    app.set_version_flag("-V,--version", config::version_line("borectl"));

    add(app, "status", "The relay as a whole");
    add(app, "tunnels", "Tunnels, their clients and what they moved")
        ->add_flag("--all", words.all, "Ended ones, too, as long as their rows are there");
    add(app, "workers", "Poll loops, their heartbeats and counters");
    add(app, "ports", "NICs of the packet engine");
    add(app, "flows", "Connections that pass as packets (asks the relay)");
    add(app, "drops", "What was refused, dropped, cut or failed, and how often")
        ->add_flag("--all", words.all, "Reasons that never came, too");
    add(app, "histograms", "Times and sizes: count, mean, quantiles");
    CLI::App* const top = add(app, "top", "Live view; h shows the keys");
    top->add_option("--interval", words.interval, "Seconds between two looks, 0.1 to 3600")
        ->type_name("SECONDS");
    top->add_option("--sort", words.sort, "rate, total, pairs, visits, port or client")
        ->type_name("KEY");
    top->add_option("--filter", words.filter,
                    "Only tunnels whose port, client, state or path has it")
        ->type_name("TEXT");
    top->add_flag("--once", words.once, "Print one view after an interval and end");
    top->add_flag("--ascii", words.ascii, "No block characters");
    add(app, "kill", "End a tunnel and its pairs")
        ->add_option("TUNNEL", words.tunnel, "Its public port, or its id as `tunnels` shows it")
        ->required();
    add(app, "drain", "No new tunnels and visitors; what runs goes on")
        ->add_option("--deadline", words.deadline, "Cut pairs that are left after so many seconds")
        ->type_name("SECONDS");
    add(app, "undrain", "Undo drain");
    add(app, "reload", "Read the configuration again, as SIGHUP does");
    add(app, "loglevel", "Change the level of the log until the next reload")
        ->add_option("LEVEL", words.level, "trace, debug, info, warning, error or off")
        ->required();
}

template <typename Number>
std::optional<Number> number(const std::string& text) {
    Number value{};
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    return parsed.ec == std::errc() && parsed.ptr == end && !text.empty()
               ? std::optional<Number>(value)
               : std::nullopt;
}

Result kill(Options options, const Words& words) {
    if (const auto port = number<std::uint16_t>(words.tunnel); port && *port != 0) {
        options.action = command::Request(command::Kill{.port = *port, .id = {}});
    } else if (const auto id = command::parse_tunnel_id(words.tunnel)) {
        options.action = command::Request(command::Kill{.port = {}, .id = *id});
    } else {
        return usage("kill " + printable(words.tunnel) +
                     ": is neither a port from 1 to 65535 nor an id such as 3.1; `borectl tunnels` "
                     "lists both");
    }
    return options;
}

Result drain(Options options, const Words& words) {
    command::Drain drain;
    if (!words.deadline.empty()) {
        drain.deadline_s = number<std::uint32_t>(words.deadline);
        if (!drain.deadline_s || *drain.deadline_s > command::max_drain_deadline_s) {
            return usage("--deadline " + printable(words.deadline) +
                         ": must be a whole number of seconds from 0 to " +
                         std::to_string(command::max_drain_deadline_s) +
                         "; leave it out to cut nothing");
        }
    }
    options.action = command::Request(drain);
    return options;
}

Result log_level(Options options, const Words& words) {
    const auto level = command::log_level_of(words.level);
    if (!level) {
        return usage("loglevel " + printable(words.level) +
                     ": is no level; the levels are trace, debug, info, warning, error and off");
    }
    options.action = command::Request(command::SetLogLevel{*level});
    return options;
}

Result top(Options options, const Words& words) {
    const auto interval = number<double>(words.interval);
    if (!interval || !(*interval >= min_interval_s && *interval <= max_interval_s)) {
        return usage("--interval " + printable(words.interval) +
                     ": must be a number of seconds from 0.1 to 3600, as in --interval 0.5");
    }
    const auto sort = top_sort_of(words.sort);
    if (!sort) {
        return usage("--sort " + printable(words.sort) +
                     ": is no order; take rate, total, pairs, visits, port or client");
    }
    if (options.json) {
        return usage("--json: top has no JSON; take `borectl tunnels --json`, twice for rates");
    }
    options.action = TopOptions{
        .interval_ns = static_cast<base::Nanoseconds>(*interval * double{base::second_ns}),
        .once = words.once,
        .sort = *sort,
        .filter = words.filter,
        .ascii = words.ascii};
    return options;
}

Result meaning_of(const std::string& command, const Words& words) {
    constexpr std::array<std::pair<std::string_view, Show>, 7> shows{{
        {"status", Show::status},
        {"tunnels", Show::tunnels},
        {"workers", Show::workers},
        {"ports", Show::ports},
        {"drops", Show::drops},
        {"histograms", Show::histograms},
        {"flows", Show::flows},
    }};
    Options options{.relay = words.relay, .json = words.json, .action = {}};
    for (const auto& [name, what] : shows) {
        if (name == command) {
            options.action = ShowOptions{.what = what, .all = words.all};
            return options;
        }
    }
    if (command == "top") {
        return top(std::move(options), words);
    }
    if (command == "kill") {
        return kill(std::move(options), words);
    }
    if (command == "drain") {
        return drain(std::move(options), words);
    }
    if (command == "loglevel") {
        return log_level(std::move(options), words);
    }
    options.action = command == "reload" ? command::Request(command::Reload{})
                                         : command::Request(command::Undrain{});
    return options;
}

}  // namespace

Result read_options(std::span<const char* const> arguments) {
    Words words;
    CLI::App app("Looks into a running bore relay and commands it.", "borectl");
    describe(app, words);
    try {
        app.parse(static_cast<int>(arguments.size()), arguments.data());
    } catch (const CLI::CallForHelp&) {
        return std::unexpected(EarlyEnd{.status = exit_done, .output = app.help(), .error = {}});
    } catch (const CLI::CallForAllHelp&) {
        return std::unexpected(EarlyEnd{.status = exit_done, .output = app.help(), .error = {}});
    } catch (const CLI::CallForVersion& version) {
        return std::unexpected(EarlyEnd{
            .status = exit_done, .output = std::string(version.what()) + "\n", .error = {}});
    } catch (const CLI::ParseError& error) {
        return usage(printable(error.what()) + "; see borectl --help");
    }
    if (app.get_subcommands().empty()) {
        return usage("needs a command, as in `borectl status`; see borectl --help");
    }
    return meaning_of(app.get_subcommands().front()->get_name(), words);
}

}  // namespace bore::ctl
