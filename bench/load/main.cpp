// bore-load: the load generator. Parses the command line and runs one mode (modes.hpp); README.md
// has the whole of it.
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "bench/load/chaos_peer.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/sockets.hpp"

using namespace bore::bench;

namespace {

const CLI::IsMember service_names{{"asked", "sink", "source", "echo"}};
const CLI::Range sizes(1, 64 << 20);

// CLI::Range takes "nan" for in range, and a time must fit into 64 bits of nanoseconds.
CLI::Validator number_between(double low, double high) {
    return {[low, high](std::string& text) {
                double value = 0;
                const bool in_range =
                    CLI::detail::lexical_cast(text, value) && value >= low && value <= high;
                return in_range
                           ? std::string()
                           : "'" + text + "' is not a number from " + CLI::detail::to_string(low) +
                                 " to " + CLI::detail::to_string(high);
            },
            "NUMBER"};
}
const CLI::Validator above_zero = number_between(1e-3, 1e8);
const CLI::Validator zero_or_more = number_between(0, 1e8);

CLI::App& add_mode(CLI::App& app, const std::string& name, const std::string& text,
                   CommonOptions& common) {
    CLI::App& mode = *app.add_subcommand(name, text);
    mode.add_flag("--progress", common.progress, "a line of JSON on standard error every second");
    mode.add_option("--interval-s", common.interval_seconds, "of these lines")->check(above_zero);
    return mode;
}

void add_limits(CLI::App& mode, CommonOptions& common) {
    mode.add_option("--source", common.sources, "local address; repeatable, they take turns")
        ->default_str("");
    mode.add_option("--stall-s", common.stall_seconds,
                    "a connection without progress for so long has failed")
        ->check(above_zero);
    mode.add_option("--deadline-s", common.deadline_seconds,
                    "of the whole run; default: its time + 30, for sizes and counts 600")
        ->check(above_zero)
        ->default_str("");
}

CLI::App& add_visitors(CLI::App& app, const std::string& name, const std::string& text,
                       CommonOptions& common) {
    CLI::App& mode = add_mode(app, name, text, common);
    mode.add_option("--to", common.to, "HOST:PORT that visitors connect to")->required();
    add_limits(mode, common);
    return mode;
}

void add_threads(CLI::App& mode, CommonOptions& common) {
    mode.add_option("--threads", common.threads, "of this program")->check(CLI::Range(1, 64));
}

void add_exchange(CLI::App& mode, ExchangeSizes& sizes_of) {
    mode.add_option("--size", sizes_of.size_bytes, "of a request and of a response, bytes")
        ->check(sizes);
    mode.add_option("--response-size", sizes_of.response_bytes, "of a response, where it differs")
        ->check(sizes)
        ->default_str("");
}

void add_seconds(CLI::App& mode, double& seconds) {
    mode.add_option("--seconds", seconds, "of load")->check(above_zero);
}

CLI::Option* add_bytes(CLI::App& mode, std::uint64_t& bytes) {
    return mode.add_option("--bytes", bytes, "per stream and direction; 4GB, 512MiB")
        ->transform(CLI::AsSizeValue(true))
        ->check(CLI::PositiveNumber)
        ->default_str("");
}

void add_bulk(CLI::App& app, BulkOptions& options) {
    CLI::App& mode =
        add_visitors(app, "bulk", "streams of bytes, for a time or a size; Gbit/s", options.common);
    mode.add_option("--direction", options.direction, "down (to the visitor), up or both")
        ->check(CLI::IsMember({"down", "up", "both"}));
    mode.add_option("--streams", options.streams, "at once")->check(CLI::Range(1, 100'000));
    add_seconds(mode, options.seconds);
    add_bytes(mode, options.bytes)->excludes("--seconds");
    mode.add_flag("--verify", options.verify, "compare every byte on both ends");
    mode.add_option("--read-mbit", options.read_mbit, "slow visitors: each reads no more a second")
        ->check(above_zero)
        ->default_str("");
    mode.add_flag("--abrupt", options.abrupt,
                  "after --seconds close instead of sending FIN and waiting for the service's "
                  "count: for relays without half-close");
    add_threads(mode, options.common);
}

void add_requests(CLI::App& app, RequestsOptions& options) {
    CLI::App& mode =
        add_visitors(app, "rr", "requests and responses; latency and rate", options.common);
    mode.add_option("--connections", options.connections, "at once")->check(CLI::Range(1, 100'000));
    add_exchange(mode, options);
    mode.add_option("--rate", options.rate,
                    "requests a second of all connections, due at even times (open loop); without "
                    "it each response asks for the next request (closed loop)")
        ->check(above_zero)
        ->default_str("");
    add_seconds(mode, options.seconds);
    mode.add_option("--warmup-s", options.warmup_seconds, "before latencies count")
        ->check(zero_or_more);
    mode.add_flag("--service-quickack", options.service_quickack,
                  "the service acknowledges every piece of a request at once");
    add_threads(mode, options.common);
}

void add_crr(CLI::App& app, CrrOptions& options) {
    CLI::App& mode =
        add_visitors(app, "crr", "connect, one request, close; connections/s", options.common);
    mode.alias("short");
    mode.add_option("--concurrency", options.concurrency, "at once")->check(CLI::Range(1, 100'000));
    add_exchange(mode, options);
    add_seconds(mode, options.seconds);
    mode.add_option("--count", options.count, "of connections")
        ->check(CLI::PositiveNumber)
        ->excludes("--seconds")
        ->default_str("");
    add_threads(mode, options.common);
}

void add_idle(CLI::App& app, IdleOptions& options) {
    CLI::App& mode =
        add_visitors(app, "idle", "many silent connections, each proven once", options.common);
    mode.add_option("--connections", options.connections, "wanted")
        ->check(CLI::Range(1, 1'000'000));
    mode.add_option("--concurrency", options.concurrency, "coming up at once")
        ->check(CLI::Range(1, 10'000));
    mode.add_option("--hold-s", options.hold_seconds, "then ends; 0: by a stop signal")
        ->check(zero_or_more);
    mode.add_flag("--prove", options.prove, "a byte there and back on each at the end, too");
}

void add_halfclose(CLI::App& app, HalfcloseOptions& options) {
    CLI::App& mode =
        add_visitors(app, "halfclose", "answers that follow the visitor's FIN: how many are lost",
                     options.common);
    mode.add_option("--count", options.count, "of tries")->check(CLI::Range(1, 10'000'000));
    mode.add_option("--concurrency", options.concurrency, "at once")->check(CLI::Range(1, 10'000));
    mode.add_option("--size", options.size_bytes, "of a request, bytes")->check(sizes);
    mode.add_option("--response-size", options.response_bytes, "of an answer, bytes")->check(sizes);
    mode.add_option("--delay-ms", options.delay_ms, "between FIN and answer")
        ->check(CLI::Range(0, 60'000));
}

void add_chaos(CLI::App& app, ChaosOptions& options) {
    CLI::App& mode = add_visitors(app, "chaos", "visitors that misbehave, beside two that do not",
                                  options.common);
    add_seconds(mode, options.seconds);
    mode.add_option("--peers", options.peers, "misbehaving at once")->check(CLI::Range(1, 10'000));
    mode.add_option("--kinds", options.kinds, "only these, separated by commas")
        ->delimiter(',')
        ->check(CLI::IsMember(chaos_kinds()))
        ->default_str("");
}

void add_soak(CLI::App& app, SoakOptions& options) {
    options.common.interval_seconds = 10;
    CLI::App& mode =
        add_visitors(app, "soak", "steady mixed load, every byte accounted for", options.common);
    add_seconds(mode, options.seconds);
    mode.add_option("--streams", options.streams, "of transfers at once")
        ->check(CLI::Range(1, 10'000));
    add_bytes(mode, options.bytes);
    mode.add_option("--mbit", options.mbit, "of each stream on the average")->check(above_zero);
    mode.add_option("--connections", options.connections, "with requests")
        ->check(CLI::Range(1, 100'000));
    mode.add_option("--rate", options.rate, "of requests a second")->check(above_zero);
    mode.add_option("--short-rate", options.short_rate, "of short connections a second")
        ->check(zero_or_more);
}

const char* as_text = "asked (each visitor says in its opening), sink, source or echo";

void add_serve(CLI::App& app, ServeOptions& options) {
    CLI::App& mode = add_mode(app, "serve", "the local service behind a tunnel", options.common);
    mode.add_option("--listen", options.listen, "HOST:PORT; port 0 takes a free one");
    mode.add_option("--as", options.as, as_text)->check(service_names);
    mode.add_option("--opening-timeout-s", options.opening_timeout_seconds,
                    "a visitor that says nothing is closed; 0: never")
        ->check(zero_or_more);
    add_threads(mode, options.common);
}

void add_relay(CLI::App& mode, TunnelsOptions& options, std::string& secret_file) {
    options.common.to = "127.0.0.1:7835";
    mode.add_option("--to", options.common.to, "control address of the relay, HOST:PORT");
    mode.add_option("--secret-file", secret_file, "the relay's secret is its first line")
        ->check(CLI::ExistingFile)
        ->default_str("");
    mode.add_option("--as", options.as, as_text)->check(service_names);
    add_limits(mode, options.common);
}

void add_plain(CLI::App& app, TunnelsOptions& options, std::string& secret_file) {
    CLI::App& mode =
        add_mode(app, "plain", "a tunnel client that is its own service", options.common);
    mode.alias("plain-client");
    add_relay(mode, options, secret_file);
    mode.add_option("--port", options.port, "public port to ask for; 0 takes any");
}

void add_tunnels(CLI::App& app, TunnelsOptions& options, std::string& secret_file) {
    options.count = 100;
    CLI::App& mode = add_mode(app, "tunnels", "registers many tunnels on a relay and keeps them",
                              options.common);
    add_relay(mode, options, secret_file);
    mode.add_option("--count", options.count, "of tunnels")->check(CLI::Range(1, 65'535));
    mode.add_option("--port", options.port,
                    "of the first; the others follow; 0: the relay chooses all");
    CLI::Option* concurrency =
        mode.add_option("--concurrency", options.concurrency, "registering at once")
            ->check(CLI::Range(1, 10'000));
    mode.add_option("--rate", options.rate, "registrations a second, instead of --concurrency")
        ->check(above_zero)
        ->default_str("")
        ->excludes(concurrency);
    mode.add_option("--hold-s", options.hold_seconds, "then ends; 0: by a stop signal")
        ->check(zero_or_more);
}

std::optional<std::string> read_secret(const std::string& file) {
    if (file.empty()) {
        const char* secret = std::getenv("BORE_SECRET");
        return secret == nullptr ? std::nullopt : std::optional<std::string>(secret);
    }
    std::ifstream input(file);
    std::string line;
    if (!std::getline(input, line)) {
        die("cannot read a secret from " + file, status_usage);
    }
    return line;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Load generator for TCP relays; the result is the last line of standard output, as JSON.\n"
        "Exit status: 0 all well, 1 measured with failures, 2 wrong command line, 3 nothing could "
        "be measured.",
        "bore-load");
    app.require_subcommand(1);
    app.option_defaults()->always_capture_default();
    BulkOptions bulk;
    RequestsOptions requests;
    CrrOptions crr;
    IdleOptions idle;
    HalfcloseOptions halfclose;
    ChaosOptions chaos;
    SoakOptions soak;
    ServeOptions serve;
    TunnelsOptions plain;
    TunnelsOptions tunnels;
    std::string secret_file;
    add_serve(app, serve);
    add_plain(app, plain, secret_file);
    add_bulk(app, bulk);
    add_requests(app, requests);
    add_crr(app, crr);
    add_idle(app, idle);
    add_tunnels(app, tunnels, secret_file);
    add_halfclose(app, halfclose);
    add_chaos(app, chaos);
    add_soak(app, soak);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? status_ok : status_usage;
    }

    // An open loop's requests are due to the microsecond; by default the kernel rounds to 50.
    ::prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    catch_stop_signals();
    plain.secret = tunnels.secret = read_secret(secret_file);
    soak.common.progress = true;
    const std::pair<const char*, std::function<int()>> modes[] = {
        {"serve", [&] { return run_serve(serve); }},
        {"plain", [&] { return run_plain(plain); }},
        {"bulk", [&] { return run_bulk(bulk); }},
        {"rr", [&] { return run_requests(requests); }},
        {"crr", [&] { return run_crr(crr); }},
        {"idle", [&] { return run_idle(idle); }},
        {"tunnels", [&] { return run_tunnels(tunnels); }},
        {"halfclose", [&] { return run_halfclose(halfclose); }},
        {"chaos", [&] { return run_chaos(chaos); }},
        {"soak", [&] { return run_soak(soak); }},
    };
    for (const auto& [name, run] : modes) {
        if (app.got_subcommand(name)) {
            return run();
        }
    }
    return status_usage;
}
