// bore-exporter: relays' segments in, Prometheus' text format out. Exit codes: 0 normal end, 1 it
// could not start, 2 usage error.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <span>
#include <string_view>

#include "controlplane/config/exporter_config.hpp"
#include "controlplane/config/spdlog_level.hpp"
#include "controlplane/exporter/exposition.hpp"
#include "controlplane/exporter/http_server.hpp"

extern char** environ;

namespace {

using namespace bore;
using exporter::Answer;

void set_up_logging(config::LogLevel level) {
    auto logger = std::make_shared<spdlog::logger>(
        "bore-exporter", std::make_shared<spdlog::sinks::stderr_sink_st>());
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    logger->set_level(config::spdlog_level(level));
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(std::move(logger));
}

Answer answer(exporter::Exposition& exposition, std::string_view path) {
    constexpr auto plain = "text/plain; charset=utf-8";
    if (path == "/metrics") {
        return {200, exporter::Exposition::content_type, exposition.metrics()};
    }
    if (path == "/health") {
        exporter::Health health = exposition.health();
        return {health.healthy ? 200U : 503U, "application/json", std::move(health.json)};
    }
    if (path == "/") {
        return {200, plain, "bore-exporter: /metrics, /health\n"};
    }
    return {404, plain, "not here; there are /metrics and /health\n"};
}

int run(const config::ExporterConfig& config) {
    set_up_logging(config.log_level);
    exporter::Exposition exposition(config);
    exposition.look();

    boost::asio::io_context io(1);  // one thread: Asio leaves its locks out
    boost::asio::signal_set signals(io, SIGTERM, SIGINT);
    signals.async_wait([&io](const auto&, int) { io.stop(); });
    exporter::HttpServer server(
        io, [&exposition](std::string_view path) { return answer(exposition, path); });
    const auto listening = server.listen(config.addresses);
    if (!listening) {
        spdlog::error("{}", listening.error());
        return 1;
    }
    for (const config::ListenAddress& address : *listening) {
        spdlog::info("serving http://{}/metrics", address.to_string());
    }
    io.run();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const auto loaded = config::load_exporter_config(
        std::span<const char* const>(argv, static_cast<std::size_t>(argc)),
        config::environment_of_process(environ));
    if (const auto finished = config::finish_early(loaded)) {
        std::fputs(finished->standard_output.c_str(), stdout);
        std::fputs(finished->standard_error.c_str(), stderr);
        return finished->exit_code;
    }
    std::signal(SIGPIPE, SIG_IGN);
    return run(loaded->config);
}
