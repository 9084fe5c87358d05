// Threads, progress and the common fields behind run.hpp.
#include "bench/load/run.hpp"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <thread>

namespace bore::bench {
namespace {

constexpr unsigned format = 1;  // of the result; README.md has its fields
constexpr double bottleneck_share = 0.9;

double process_cpu_seconds() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

}  // namespace

base::Nanoseconds to_ns(double seconds) {
    return static_cast<base::Nanoseconds>(seconds * static_cast<double>(base::second_ns));
}

double to_seconds(base::Nanoseconds length) {
    return static_cast<double>(length) / static_cast<double>(base::second_ns);
}

Part::Part(const CommonOptions& options, const Endpoint& target,
           const std::vector<Endpoint>& sources, base::Nanoseconds deadline)
    : dialer(target, sources), stall_ns_(to_ns(options.stall_seconds)), deadline_(deadline) {}

bool Part::run_until(base::Nanoseconds until, const std::function<bool()>& done, bool heed_stop) {
    const EventLoop::End end = loop.run_until(std::min(until, deadline_), done, heed_stop);
    deadline_passed_ |= end == EventLoop::End::deadline && until >= deadline_;
    return end == EventLoop::End::done;
}

void Part::sweep_with(std::function<void(base::Nanoseconds)> sweep) {
    const base::Nanoseconds interval =
        std::clamp<base::Nanoseconds>(stall_ns_ / 5, base::millisecond_ns, base::second_ns / 2);
    loop.call_every(interval, [sweep = std::move(sweep)] { sweep(base::monotonic_now()); });
}

void Part::fail(Reason reason, const std::string& what) {
    failures.count(reason, what);
    live.failures.add(1);
}

Run::Run(std::string_view mode, const CommonOptions& options, double default_deadline_seconds)
    : mode_(mode), options_(options), started_(base::monotonic_now()) {
    const double seconds =
        options.deadline_seconds > 0 ? options.deadline_seconds : default_deadline_seconds;
    const Endpoint target = options.to.empty() ? Endpoint{} : resolve(options.to);
    std::vector<Endpoint> sources;
    for (const std::string& text : options.sources) {
        sources.push_back(resolve_source(text));
        if (sources.back().address.ss_family != target.address.ss_family) {
            die("--source " + text + " and " + options.to +
                    " are not of one family; both IPv4 or both IPv6",
                status_usage);
        }
    }
    for (std::uint32_t index = 0; index < options.threads; ++index) {
        parts_.push_back(
            std::make_unique<Part>(options, target, sources, started_ + to_ns(seconds)));
    }
    busy_shares_.resize(options.threads);
}

void Run::on_threads(const Work& work) {
    const double cpu_before = process_cpu_seconds();
    const auto one = [&](std::uint32_t index) {
        const base::Nanoseconds began = base::monotonic_now();
        work(*parts_[index], index);
        const base::Nanoseconds length =
            std::max<base::Nanoseconds>(base::monotonic_now() - began, 1);
        const double waited = to_seconds(parts_[index]->loop.waited_ns()) / to_seconds(length);
        busy_shares_[index] = std::clamp(1 - waited, 0.0, 1.0);
    };
    if (options_.progress) {
        parts_[0]->loop.call_every(to_ns(options_.interval_seconds), [this] { report_progress(); });
    }
    {
        std::vector<std::jthread> others;
        for (std::uint32_t index = 1; index < options_.threads; ++index) {
            others.emplace_back(one, index);
        }
        one(0);
    }
    cpu_seconds_ = process_cpu_seconds() - cpu_before;
}

void Run::report_progress() const {
    JsonLine()
        .add("event", "progress")
        .add("mode", mode_)
        .add("at_s", to_seconds(base::monotonic_now() - started_))
        .add("bytes_down", total(&Live::bytes_down))
        .add("bytes_up", total(&Live::bytes_up))
        .add("requests", total(&Live::requests))
        .add("connections", total(&Live::connections))
        .add("tunnels", total(&Live::tunnels))
        .add("held", total(&Live::held))
        .add("failures", total(&Live::failures))
        .print(stderr);
}

std::uint64_t Run::total(Counter Live::* counter) const {
    std::uint64_t sum = 0;
    for (const auto& part : parts_) {
        sum += (part->live.*counter).get();
    }
    return sum;
}

Failures Run::failures() const {
    Failures all;
    for (const auto& part : parts_) {
        all.add(part->failures);
    }
    return all;
}

JsonLine Run::ready() const {
    JsonLine line;
    line.add("event", "ready").add("mode", mode_);
    return line;
}

JsonLine Run::result(double seconds) const {
    const double busy = std::ranges::max(busy_shares_);
    const bool late =
        std::ranges::any_of(parts_, [](const auto& part) { return part->deadline_passed(); });
    JsonLine line;
    line.add("event", "result")
        .add("format", format)
        .add("mode", mode_)
        .add("to", options_.to)
        .add("seconds", seconds)
        .add("interrupted", stop_requested() && !stop_was_intended_)
        .add("deadline_passed", late);
    failures().add_to(line);
    line.add("threads", options_.threads)
        .add("generator_cpu_s", cpu_seconds_)
        .add("generator_busy_share", busy)
        .add("generator_is_bottleneck", busy >= bottleneck_share);
    return line;
}

int Run::finish(const JsonLine& result, bool measured) const {
    result.print();
    if (!measured) {
        return status_nothing_measured;
    }
    return failures().total() == 0 ? status_ok : status_failures;
}

}  // namespace bore::bench
