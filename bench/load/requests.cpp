// rr: requests and responses on connections that stay, closed loop or at a rate (request_load.hpp).
#include <vector>

#include "bench/load/modes.hpp"
#include "bench/load/request_load.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {

int run_requests(const RequestsOptions& options) {
    require_descriptors(options.connections + 64UL);
    Run run("rr", options.common, options.warmup_seconds + options.seconds + 30);
    std::vector<RequestFigures> parts(options.common.threads);
    run.on_threads([&](Part& part, std::uint32_t index) {
        RequestLoad load(part, options, index);
        load.start();
        (void)part.run_until(part.deadline(), [&load] { return load.is_done(); });
        load.finish();
        parts[index] = load.figures();
    });
    RequestFigures all;
    for (const RequestFigures& one : parts) {
        all.add(one);
    }
    JsonLine line = run.result(all.seconds);
    line.add("connections", options.connections)
        .add("size_bytes", options.size_bytes)
        .add("response_bytes", options.response_size())
        .add("rate", options.rate)
        .add("requests", all.latency.count() - all.unanswered)
        .add("requests_total", all.total)
        .add("requests_per_s", static_cast<double>(all.in_window) / all.seconds);
    all.latency.add_to(line);
    if (options.rate > 0) {
        line.add("unanswered", all.unanswered)
            .add("service_p50_us", all.from_sending.percentile_us(50))
            .add("service_p99_us", all.from_sending.percentile_us(99))
            .add("late_p99_us", all.lateness.percentile_us(99))
            .add("late_max_us", all.lateness.percentile_us(100));
    }
    return run.finish(line, all.total > 0);
}

}  // namespace bore::bench
