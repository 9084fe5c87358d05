// bore-load: the load generator. Parses the command line and runs one mode (modes.hpp).
#include <CLI/CLI.hpp>

#include "bench/load/modes.hpp"

using namespace bore::bench;

namespace {

const CLI::IsMember service_names{{"asked", "sink", "source", "echo"}};

void add_target(CLI::App& mode, std::string& to) {
    mode.add_option("--to", to, "HOST:PORT that visitors connect to")->required();
}

void add_bulk(CLI::App& app, BulkOptions& options) {
    CLI::App& mode = *app.add_subcommand("bulk", "streams of bytes; Gbit/s");
    add_target(mode, options.to);
    mode.add_option("--direction", options.direction, "down (to the visitor), up or both")
        ->check(CLI::IsMember({"down", "up", "both"}));
    mode.add_option("--streams", options.streams)->check(CLI::Range(1, 100'000));
    CLI::Option* seconds =
        mode.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
    CLI::Option* bytes =
        mode.add_option("--bytes", options.bytes, "per stream and direction; 4GB, 512MiB")
            ->transform(CLI::AsSizeValue(true));
    seconds->excludes(bytes);
    mode.add_flag("--verify", options.verify, "compare every byte on both ends");
    mode.add_flag("--abrupt", options.abrupt,
                  "after --seconds close instead of sending FIN and waiting for the service's "
                  "count: for relays without half-close");
    mode.add_option("--patience", options.patience_seconds,
                    "seconds beyond --seconds, or for all --bytes, until streams count as stuck");
}

void add_requests(CLI::App& app, RequestsOptions& options) {
    CLI::App& mode = *app.add_subcommand("rr", "requests and responses; latency and rate");
    add_target(mode, options.to);
    mode.add_option("--connections", options.connections)->check(CLI::Range(1, 100'000));
    mode.add_option("--size", options.size_bytes, "of a request and of a response, bytes")
        ->check(CLI::Range(1, 64 << 20));
    mode.add_option("--response-size", options.response_bytes, "of a response, where it differs")
        ->check(CLI::Range(1, 64 << 20));
    mode.add_flag("--service-quickack", options.service_quickack,
                  "the service acknowledges every piece of a request at once");
    mode.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
    mode.add_option("--warmup", options.warmup_seconds)->check(CLI::NonNegativeNumber);
}

void add_short(CLI::App& app, ShortOptions& options) {
    CLI::App& mode = *app.add_subcommand("short", "connect, one exchange, close; connections/s");
    add_target(mode, options.to);
    mode.add_option("--concurrency", options.concurrency)->check(CLI::Range(1, 100'000));
    mode.add_option("--size", options.size_bytes, "of the request and the response, bytes")
        ->check(CLI::Range(1, 64 << 20));
    CLI::Option* seconds =
        mode.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
    mode.add_option("--count", options.count)->check(CLI::PositiveNumber)->excludes(seconds);
}

void add_idle(CLI::App& app, IdleOptions& options) {
    CLI::App& mode = *app.add_subcommand("idle", "many silent connections, each proven once");
    add_target(mode, options.to);
    mode.add_option("--connections", options.connections)->check(CLI::Range(1, 1'000'000));
    mode.add_option("--hold", options.hold_seconds, "seconds; 0: until standard input ends");
    mode.add_option("--patience", options.patience_seconds, "seconds until all must be up");
}

void add_services(CLI::App& app, ServeOptions& serve, PlainClientOptions& plain) {
    const char* as_text = "asked (each visitor says in its opening), sink, source or echo";
    CLI::App& mode = *app.add_subcommand("serve", "the local service behind a tunnel");
    mode.add_option("--listen", serve.listen, "HOST:PORT; port 0 takes a free one");
    mode.add_option("--as", serve.as, as_text)->check(service_names);
    CLI::App& client =
        *app.add_subcommand("plain-client", "a tunnel client that is its own service");
    client.add_option("--to", plain.to, "control address of the relay, HOST:PORT");
    client.add_option("--port", plain.port, "public port to ask for; 0 takes any");
    client.add_option("--as", plain.as, as_text)->check(service_names);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Load generator for TCP relays; prints one line of JSON per result.", "bore-load");
    app.require_subcommand(1);
    BulkOptions bulk;
    RequestsOptions requests;
    ShortOptions short_connections;
    IdleOptions idle;
    ServeOptions serve;
    PlainClientOptions plain;
    add_bulk(app, bulk);
    add_requests(app, requests);
    add_short(app, short_connections);
    add_idle(app, idle);
    add_services(app, serve, plain);
    CLI11_PARSE(app, argc, argv);

    if (app.got_subcommand("bulk")) {
        // Without a size or a time there would be no end.
        bulk.seconds = bulk.bytes == 0 && bulk.seconds == 0 ? 5 : bulk.seconds;
        return run_bulk(bulk);
    }
    if (app.got_subcommand("rr")) {
        return run_requests(requests);
    }
    if (app.got_subcommand("short")) {
        const bool endless = short_connections.count == 0 && short_connections.seconds == 0;
        short_connections.seconds = endless ? 5 : short_connections.seconds;
        return run_short(short_connections);
    }
    if (app.got_subcommand("idle")) {
        return run_idle(idle);
    }
    if (app.got_subcommand("plain-client")) {
        return run_plain_client(plain);
    }
    run_serve(serve);
}
