// borectl: finds the relay, reads its statistics or asks its control socket, prints.
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "controlplane/config/load.hpp"
#include "controlplane/ctl/answers.hpp"
#include "controlplane/ctl/control_client.hpp"
#include "controlplane/ctl/options.hpp"
#include "controlplane/ctl/relays.hpp"
#include "controlplane/ctl/top.hpp"
#include "controlplane/ctl/views.hpp"
#include "dataplane/abi/segment_reader.hpp"

extern char** environ;

namespace {

using namespace bore;
using namespace bore::ctl;

// An engine of a million flows has 4,096 pages; this many are a relay gone mad.
constexpr std::size_t max_flow_pages = 8'192;

int fail(int status, const std::string& sentence) {
    std::fprintf(stderr, "borectl: %s\n", sentence.c_str());
    return status;
}

std::string no_socket(const Relay& relay) {
    return "relay " + relay.id +
           ": has no control socket (control-socket = off, or auto found no place for it); its log "
           "says why";
}

std::string no_segment(const Relay& relay) {
    return "relay " + relay.id + ": has no statistics segment; it was started with --stats off";
}

void print(const View& view, bool json) {
    const std::string text =
        json ? boost::json::serialize(boost::json::value(view.json)) + "\n" : render(view);
    std::fputs(text.c_str(), stdout);
}

int show_flows(const Relay& relay, bool json) {
    if (relay.socket.empty()) {
        return fail(exit_no_relay, no_socket(relay));
    }
    std::vector<boost::json::object> answers;
    std::optional<std::uint32_t> from = 0;
    while (from && answers.size() < max_flow_pages) {
        auto answer = ask(relay.socket, command::ListFlows{*from});
        if (!answer) {
            return fail(exit_no_relay, answer.error());
        }
        if (!is_ok(*answer)) {
            std::fputs(failure_text(*answer).c_str(), stderr);
            return exit_refused;
        }
        const boost::json::value* const next = answer->if_contains("next");
        boost::json::error_code error;
        from = next == nullptr || next->is_null()
                   ? std::nullopt
                   : std::optional(next->to_number<std::uint32_t>(error));
        if (error) {
            from.reset();
        }
        answers.push_back(std::move(*answer));
    }
    print(flows_view(answers), json);
    return exit_done;
}

View view_of(const ShowOptions& options, const abi::Snapshot& snapshot, const Relay& relay) {
    switch (options.what) {
        case Show::status: {
            std::optional<boost::json::object> ping;
            if (!relay.socket.empty()) {
                if (auto answer = ask(relay.socket, command::Ping{}); answer && is_ok(*answer)) {
                    ping = std::move(*answer);
                }
            }
            return status_view(snapshot, ping);
        }
        case Show::tunnels:
            return tunnels_view(snapshot, options.all);
        case Show::workers:
            return workers_view(snapshot);
        case Show::ports:
            return ports_view(snapshot);
        case Show::drops:
            return drops_view(snapshot, options.all);
        case Show::histograms:
        case Show::flows:
            break;
    }
    return histograms_view(snapshot);
}

int show(const ShowOptions& options, const Relay& relay, bool json) {
    if (options.what == Show::flows) {
        return show_flows(relay, json);
    }
    if (relay.segment.empty()) {
        return fail(exit_no_relay, no_segment(relay));
    }
    const auto snapshot = abi::SegmentReader(relay.segment, relay.owners).read();
    if (!snapshot) {
        return fail(exit_no_relay, snapshot.error().text);
    }
    print(view_of(options, *snapshot, relay), json);
    return snapshot->stale_since ? exit_stale : exit_done;
}

int send(const command::Request& request, const Relay& relay, bool json) {
    if (relay.socket.empty()) {
        return fail(exit_no_relay, no_socket(relay));
    }
    const auto answer = ask(relay.socket, request);
    if (!answer) {
        return fail(exit_no_relay, answer.error());
    }
    if (json) {
        std::fputs((boost::json::serialize(*answer) + "\n").c_str(), stdout);
    } else if (is_ok(*answer)) {
        std::fputs(success_text(request, *answer).c_str(), stdout);
    } else {
        std::fputs(failure_text(*answer).c_str(), stderr);
    }
    return is_ok(*answer) ? exit_done : exit_refused;
}

int run(const Options& options) {
    const auto relay =
        choose_relay(places_of_machine(config::environment_of_process(environ)), options.relay);
    if (!relay) {
        return fail(exit_no_relay, relay.error());
    }
    if (const auto* request = std::get_if<command::Request>(&options.action)) {
        return send(*request, *relay, options.json);
    }
    if (const auto* top = std::get_if<TopOptions>(&options.action)) {
        return relay->segment.empty()
                   ? fail(exit_no_relay, no_segment(*relay))
                   : run_top(abi::SegmentReader(relay->segment, relay->owners), *top);
    }
    return show(std::get<ShowOptions>(options.action), *relay, options.json);
}

}  // namespace

int main(int argument_count, char** arguments) {
    const auto options = read_options({arguments, static_cast<std::size_t>(argument_count)});
    if (!options) {
        std::fputs(options.error().output.c_str(), stdout);
        std::fputs(options.error().error.c_str(), stderr);
        return options.error().status;
    }
    const int status = run(*options);
    if (std::fflush(stdout) != 0) {
        return fail(exit_refused, "standard output: cannot be written; free some space");
    }
    return status;
}
