// One function a command, in the order of bore-control(7).
#include "controlplane/relay/commands.hpp"

#include <unistd.h>

#include <utility>
#include <variant>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "controlplane/relay/server.hpp"

namespace bore::relay {

namespace {

namespace json = boost::json;

json::object accepted() {
    json::object answer;
    answer["ok"] = true;
    return answer;
}

json::string text(std::string_view value) {
    return json::string(value.data(), value.size());
}

json::array texts(const std::vector<std::string>& values) {
    json::array array;
    for (const std::string& value : values) {
        array.emplace_back(value);
    }
    return array;
}

std::string_view name_of(Admission admission) {
    switch (admission) {
        case Admission::open:
            return "serving";
        case Admission::drained:
            return "drained";
        case Admission::stopping:
            break;
    }
    return "stopping";
}

constexpr std::string_view stopping_text =
    "the relay is stopping (it got SIGTERM) and cannot be held up; start it anew";

// A flow's end as the log writes addresses: 192.0.2.1:443, [2001:db8::1]:443.
std::string text_of(const abi::FlowEnd& end) {
    const config::IpAddress address{.bytes = end.address};
    const std::string host =
        address.is_v4() ? address.to_string() : "[" + address.to_string() + "]";
    return host + ":" + std::to_string(end.port);
}

json::object flow_of(const abi::SplicedFlow& flow) {
    constexpr double second = base::second_ns;
    json::object object;
    object["flow"] = flow.flow_index;
    object["tunnel_port"] = flow.public_end.port;
    object["visitor"] = text_of(flow.visitor);
    object["public"] = text_of(flow.public_end);
    object["client"] = text_of(flow.client);
    object["data"] = text_of(flow.data_end);
    object["to_client_bytes"] = flow.to_client_bytes;
    object["to_visitor_bytes"] = flow.to_visitor_bytes;
    object["age_s"] = static_cast<double>(flow.age_ns) / second;
    object["idle_s"] = static_cast<double>(flow.idle_ns) / second;
    return object;
}

}  // namespace

void Commands::on_request(const command::Request& request, const ControlPeer& peer,
                          ControlSocket::Answer answer) {
    if (const auto* flows = std::get_if<command::ListFlows>(&request)) {
        list_flows(flows->from, std::move(answer));
        return;
    }
    if (!std::holds_alternative<command::Ping>(request)) {
        server_.log().info("operator's command",
                           {{"command", command::name_of(request)},
                            {"user", peer.user},
                            {"process", static_cast<std::uint64_t>(peer.process)}});
    }
    answer(carry_out(request));
}

std::string Commands::carry_out(const command::Request& request) {
    if (const auto* wanted = std::get_if<command::Kill>(&request)) {
        return kill(*wanted);
    }
    if (const auto* wanted = std::get_if<command::Drain>(&request)) {
        return drain(*wanted);
    }
    if (std::holds_alternative<command::Undrain>(request)) {
        return undrain();
    }
    if (std::holds_alternative<command::Reload>(request)) {
        return reload();
    }
    if (const auto* wanted = std::get_if<command::SetLogLevel>(&request)) {
        return set_log_level(wanted->level);
    }
    return ping();
}

std::string Commands::ping() const {
    json::object answer = accepted();
    answer["version"] = text(server_.version());
    answer["server_id"] = server_.config().server_id;
    answer["pid"] = ::getpid();
    answer["uptime_s"] = server_.uptime_ns() / base::second_ns;
    answer["state"] = text(name_of(server_.admission()));
    if (const auto left_ns = server_.drain_left_ns()) {
        answer["deadline_s"] = *left_ns / base::second_ns;
    }
    answer["engine"] = server_.engine().description();
    answer["log_level"] = text(command::name_of(server_.config().log_level));
    answer["tunnels"] = server_.tunnels().live_count();
    answer["pairs"] = server_.pairs().live_count();
    answer["visitors_waiting"] = server_.pairs().pending_count();
    return json::serialize(answer);
}

std::string Commands::kill(const command::Kill& wanted) {
    const auto tunnel = wanted.port ? server_.tunnels().holder_of(*wanted.port)
                                    : server_.tunnels().find(wanted.id->row, wanted.id->generation);
    if (!tunnel) {
        const std::string what = wanted.port ? "port " + std::to_string(*wanted.port)
                                             : "id " + command::text_of(*wanted.id);
        return refusal("kill: " + what +
                       ": no live tunnel has it; `borectl tunnels` lists those that live");
    }
    json::object answer = accepted();
    answer["port"] = tunnel->port();
    answer["id"] = command::text_of({tunnel->index(), tunnel->generation()});
    answer["client"] = tunnel->client().address.to_string();
    answer["pairs"] = tunnel->live_count();
    answer["visitors_waiting"] = tunnel->pending_count();
    tunnel->end(TunnelEnd::killed);
    server_.pairs().cut(*tunnel);
    return json::serialize(answer);
}

std::string Commands::drain(const command::Drain& wanted) {
    if (!server_.hold(wanted.deadline_s)) {
        return refusal("drain: " + std::string(stopping_text));
    }
    json::object answer = accepted();
    answer["state"] = text(name_of(server_.admission()));
    if (wanted.deadline_s) {
        answer["deadline_s"] = *wanted.deadline_s;
    }
    answer["tunnels"] = server_.tunnels().live_count();
    answer["pairs"] = server_.pairs().live_count();
    answer["visitors_waiting"] = server_.pairs().pending_count();
    return json::serialize(answer);
}

std::string Commands::undrain() {
    const auto lost = server_.unhold();
    if (!lost) {
        return refusal("undrain: " + std::string(stopping_text));
    }
    json::object answer = accepted();
    answer["state"] = text(name_of(server_.admission()));
    answer["tunnels"] = server_.tunnels().live_count();
    json::array ports;
    for (const std::uint16_t port : *lost) {
        ports.emplace_back(port);
    }
    answer["ports_lost"] = std::move(ports);
    return json::serialize(answer);
}

std::string Commands::reload() {
    const Reloaded reloaded = server_.reload();
    json::object answer;
    answer["ok"] = reloaded.config.has_value();
    if (!reloaded.config) {
        answer["error"] = "reload: the configuration has " +
                          std::to_string(reloaded.errors.size()) +
                          (reloaded.errors.size() == 1 ? " error" : " errors") +
                          " and stays as it was; mend it and reload again";
        answer["errors"] = texts(reloaded.errors);
    } else {
        answer["changed"] = texts(reloaded.changed);
        answer["needs_restart"] = texts(reloaded.needs_restart);
        answer["warnings"] = texts(reloaded.warnings);
    }
    return json::serialize(answer);
}

std::string Commands::set_log_level(config::LogLevel level) {
    json::object answer = accepted();
    answer["previous"] = text(command::name_of(server_.config().log_level));
    answer["level"] = text(command::name_of(level));
    server_.set_log_level(level);
    return json::serialize(answer);
}

void Commands::list_flows(std::uint32_t from, ControlSocket::Answer answer) {
    server_.engine().list_flows(from, [answer = std::move(answer)](abi::FlowPage&& page) {
        json::object object = accepted();
        object["splices"] = page.splices;
        json::array flows;
        for (const abi::SplicedFlow& flow : page.flows) {
            flows.emplace_back(flow_of(flow));
        }
        object["flows"] = std::move(flows);
        object["next"] = page.next ? json::value(*page.next) : json::value(nullptr);
        if (!page.splices) {
            object["note"] = "the stream engine runs; only the packet engine splices flows";
        }
        answer(json::serialize(object));
    });
}

}  // namespace bore::relay
