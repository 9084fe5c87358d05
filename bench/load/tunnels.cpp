// plain: one tunnel, until it ends or a stop signal comes. tunnels: many, registered some at a
// time, kept for a while, with what was refused and what was lost. Visitors of any of them are
// served.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/load/histogram.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"
#include "bench/load/service.hpp"
#include "bench/load/tunnel.hpp"

namespace bore::bench {
namespace {

class Tunnels {
  public:
    Tunnels(Part& part, const TunnelsOptions& options)
        : part_(part), options_(options), service_(part, fixed_work_of(options.as), 0) {
        client_options_.secret = options.secret;
        events_.registered = [this](std::uint16_t port, base::Nanoseconds took) {
            port_ = port;
            ++registered_;
            ++held_;
            part_.live.tunnels.add(1);
            register_time_.record(took);
            follow();
        };
        events_.ended = [this](bool was_registered, Reason reason, const std::string& what) {
            if (reason == Reason::rejected) {
                ++rejected_by_text_[what];
            }
            if (was_registered) {
                --held_;
                return;
            }
            ++failed_;
            // Not from here: with all of them refused that would be a deep recursion.
            part_.loop.call_at(base::monotonic_now(), [this] { follow(); });
        };
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& tunnel : tunnels_) {
                tunnel->sweep(now);
            }
        });
    }

    void register_all() {
        const base::Nanoseconds began = base::monotonic_now();
        tunnels_.reserve(options_.count);
        if (options_.rate > 0) {
            part_.loop.call_every(to_ns(1 / options_.rate), [this] { begin_next(); });
        } else {
            for (std::uint32_t index = 0; index < options_.concurrency; ++index) {
                begin_next();
            }
        }
        (void)part_.run_until(part_.deadline(),
                              [this] { return registered_ + failed_ == options_.count; });
        register_seconds_ = to_seconds(base::monotonic_now() - began);
    }

    // False when a stop signal ended it before its time.
    bool hold() {
        const base::Nanoseconds until = options_.hold_seconds > 0
                                            ? base::monotonic_now() + to_ns(options_.hold_seconds)
                                            : part_.deadline();
        (void)part_.run_until(until, [this] { return held_ == 0; });
        return options_.hold_seconds == 0 || !stop_requested();
    }

    [[nodiscard]] std::uint16_t port() const { return port_; }
    [[nodiscard]] std::uint64_t registered() const { return registered_; }
    [[nodiscard]] double register_seconds() const { return register_seconds_; }

    void add_to(JsonLine& line) const {
        JsonLine rejected;
        for (const auto& [text, count] : rejected_by_text_) {
            rejected.add(text, count);
        }
        line.add("wanted", options_.count)
            .add("registered", registered_)
            .add("held", held_)
            .add("lost", registered_ - held_)
            .add("register_s", register_seconds_)
            .add("registered_per_s", static_cast<double>(registered_) / register_seconds_)
            .add("register", register_time_.to_json())
            .add("heartbeats", events_.heartbeats)
            .add("visitors", events_.visitors)
            .add("rejected_by_text", rejected);
    }

  private:
    // One has been registered or refused; without a rate the next one takes its place.
    void follow() {
        if (options_.rate == 0) {
            begin_next();
        }
    }

    void begin_next() {
        const std::size_t index = tunnels_.size();
        if (index == options_.count) {
            return;
        }
        const auto port =
            static_cast<std::uint16_t>(options_.port == 0 ? 0 : options_.port + index);
        tunnels_.push_back(
            std::make_unique<Tunnel>(part_, client_options_, port, service_, events_));
        tunnels_.back()->connect();
    }

    Part& part_;
    const TunnelsOptions& options_;
    protocol::ClientOptions client_options_;
    Service service_;
    TunnelEvents events_;
    std::vector<std::unique_ptr<Tunnel>> tunnels_;
    Histogram register_time_;
    std::map<std::string, std::uint64_t> rejected_by_text_;
    std::uint16_t port_ = 0;
    std::uint64_t registered_ = 0;
    std::uint64_t failed_ = 0;
    std::uint64_t held_ = 0;
    double register_seconds_ = 0;
};

double default_deadline(const TunnelsOptions& options) {
    return options.hold_seconds > 0 ? options.hold_seconds + 600 : 1e9;
}

}  // namespace

int run_plain(const TunnelsOptions& options) {
    require_descriptors(64);
    Run run("plain", options.common, default_deadline(options));
    bool registered = false;
    run.on_threads([&](Part& part, std::uint32_t) {
        Tunnels tunnels(part, options);
        tunnels.register_all();
        registered = tunnels.registered() == 1;
        if (registered) {
            JsonLine ready = run.ready();
            ready.add("port", tunnels.port()).print();
            (void)tunnels.hold();
            run.stop_was_intended();
        }
    });
    JsonLine line = run.result(to_seconds(base::monotonic_now() - run.started()));
    add_service_fields(run, line);
    return run.finish(line, registered);
}

int run_tunnels(const TunnelsOptions& options) {
    require_descriptors(options.count + 64UL);
    Run run("tunnels", options.common, default_deadline(options));
    JsonLine fields;
    bool registered = false;
    double seconds = 0;
    std::unique_ptr<Tunnels> tunnels;
    run.on_threads([&](Part& part, std::uint32_t) {
        tunnels = std::make_unique<Tunnels>(part, options);
        tunnels->register_all();
        registered = tunnels->registered() > 0;
        seconds = tunnels->register_seconds();
        if (stop_requested()) {
            return;
        }
        JsonLine ready = run.ready();
        ready.add("registered", tunnels->registered())
            .add("failures", part.failures.total())
            .add("seconds", seconds)
            .print();
        if (tunnels->hold()) {
            run.stop_was_intended();
        }
    });
    JsonLine line = run.result(seconds);
    tunnels->add_to(line);
    return run.finish(line, registered);
}

}  // namespace bore::bench
