// Command line of bore-packet-bench, the program that `run` starts; README.md says what it
// measures.
#include <CLI/CLI.hpp>

#include <map>
#include <string>

#include "bench/packet/modes.hpp"

namespace {

using namespace bore::bench;

void add_table(CLI::App& mode, TableOptions& options) {
    mode.add_option("--flows", options.flow_count)->check(CLI::Range(1, 1 << 20));
    mode.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
    mode.add_option("--seed", options.seed);
    mode.add_flag("--ipv6", options.ipv6);
}

void add_pcap(CLI::App& app, PcapOptions& options) {
    CLI::App& mode = *app.add_subcommand("pcap", "writes a file of packets, each flow once");
    mode.add_option("--flows", options.flow_count)->check(CLI::Range(1, 1 << 20));
    mode.add_option("--payload", options.payload_bytes, "bytes")->check(CLI::Range(0, 1'460));
    mode.add_option("--port", options.port, "0: from visitors, 1: from clients")
        ->check(CLI::Range(0, 1));
    mode.add_option("--seed", options.seed);
    mode.add_flag("--ipv6", options.ipv6);
    mode.add_option("--output", options.output)->required();
}

void add_forward(CLI::App& app, ForwardOptions& options) {
    CLI::App& mode = *app.add_subcommand("forward", "one core, two ports of captures without end");
    const std::map<std::string, ForwardMode> modes{{"io", ForwardMode::io},
                                                   {"parse", ForwardMode::parse},
                                                   {"rounds", ForwardMode::rounds},
                                                   {"look-up", ForwardMode::look_up},
                                                   {"splice", ForwardMode::splice}};
    mode.add_option("--mode", options.mode)->transform(CLI::CheckedTransformer(modes));
    mode.add_option("--visitors", options.captures[0], "capture of port 0")->required();
    mode.add_option("--clients", options.captures[1], "capture of port 1")->required();
    mode.add_option("--flows", options.flow_count)->check(CLI::Range(1, 1 << 20));
    mode.add_option("--payload", options.payload_bytes)->check(CLI::Range(0, 1'460));
    mode.add_option("--buffer", options.buffer_bytes, "bytes of a frame's buffer");
    mode.add_flag("--ipv6", options.ipv6);
    mode.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
    mode.add_option("--cpu", options.cpu)->check(CLI::NonNegativeNumber);
    mode.add_option("--seed", options.seed);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Measures the packet path in cycles per packet.", "bore-packet-bench");
    app.require_subcommand(1);
    TableOptions table;
    CLI::App& look_up = *app.add_subcommand("look-up", "look-ups in the flow table alone");
    CLI::App& memory = *app.add_subcommand("memory", "bytes per flow, duration of installs");
    add_table(look_up, table);
    add_table(memory, table);
    CLI::App& calls = *app.add_subcommand("handoff-calls", "the system calls of hand-offs");
    HandoffCallsOptions handoff_calls;
    calls.add_option("--pairs", handoff_calls.pair_count)->check(CLI::Range(1, 100'000));
    calls.add_option("--at-once", handoff_calls.at_once)->check(CLI::Range(1, 4'096));
    PcapOptions pcap;
    ForwardOptions forward;
    add_forward(app, forward);
    add_pcap(app, pcap);
    CLI11_PARSE(app, argc, argv);
    if (app.got_subcommand(&look_up)) {
        return run_look_up(table);
    }
    if (app.got_subcommand(&memory)) {
        return run_memory(table);
    }
    if (app.got_subcommand(&calls)) {
        return run_handoff_calls(handoff_calls);
    }
    if (app.got_subcommand("forward")) {
        return run_forward(forward);
    }
    return run_pcap(pcap);
}
