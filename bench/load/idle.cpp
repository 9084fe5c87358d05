// idle: many connections, each proven by one byte there and back, then held in silence. Prints one
// line when all are up or have failed, so that whoever measures memory knows when, and the result
// at the end.
#include <algorithm>
#include <memory>
#include <vector>

#include "bench/load/exchange.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {
namespace {

class IdleConnections final : public ExchangeOwner {
  public:
    IdleConnections(Part& part, const IdleOptions& options) : part_(part), options_(options) {
        visitors_.reserve(options.connections);
        for (std::uint32_t index = 0; index < options.connections; ++index) {
            Opening opening{.stream = static_cast<std::uint16_t>(index)};
            opening.set_halves(1, 1);
            visitors_.push_back(std::make_unique<ExchangeVisitor>(part, opening, *this));
        }
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& visitor : visitors_) {
                visitor->sweep(now);
            }
        });
    }

    void bring_up() {
        for (std::uint32_t index = 0; index < options_.concurrency; ++index) {
            begin_next();
        }
        (void)part_.run_until(part_.deadline(),
                              [this] { return up_ + failed_ == visitors_.size(); });
    }

    // False when a stop signal ended it before its time.
    bool hold() {
        const base::Nanoseconds until = options_.hold_seconds > 0
                                            ? base::monotonic_now() + to_ns(options_.hold_seconds)
                                            : part_.deadline();
        (void)part_.run_until(until, [this] { return open() == 0; });
        return options_.hold_seconds == 0 || !stop_requested();
    }

    // One more byte there and back on each that is still open.
    void prove() {
        up_ = 0;
        next_ = 0;
        proving_ = true;
        const std::uint64_t failed_before = failed_;
        const std::uint64_t wanted = open();
        for (std::uint32_t index = 0; index < options_.concurrency; ++index) {
            begin_next();
        }
        // One that does not answer fails by itself, so this ends.
        (void)part_.loop.run_until(
            base::monotonic_now() + to_ns(600),
            [this, wanted, failed_before] { return up_ + failed_ - failed_before == wanted; },
            false);
    }

    [[nodiscard]] std::uint64_t open() const { return part_.live.held.get(); }
    [[nodiscard]] std::uint64_t up() const { return up_; }

    void on_response(ExchangeVisitor&, base::Nanoseconds) override {
        ++up_;
        begin_next();
    }

    void on_failure(ExchangeVisitor&) override {
        ++failed_;
        // Not from here: with all of them dead that would be a deep recursion.
        part_.loop.call_at(base::monotonic_now(), [this] { begin_next(); });
    }

  private:
    void begin_next() {
        while (next_ < visitors_.size()) {
            ExchangeVisitor& visitor = *visitors_[next_++];
            if (!proving_) {
                return visitor.connect(true);
            }
            if (visitor.is_idle()) {
                return visitor.send_request();
            }
        }
    }

    Part& part_;
    const IdleOptions& options_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    std::size_t next_ = 0;
    bool proving_ = false;
    std::uint64_t up_ = 0;
    std::uint64_t failed_ = 0;
};

}  // namespace

int run_idle(const IdleOptions& options) {
    require_descriptors(options.connections + 64UL);
    // Endless holding has no deadline but the one that is given.
    Run run("idle", options.common, options.hold_seconds > 0 ? options.hold_seconds + 600 : 1e9);
    double connect_seconds = 0;
    std::uint64_t up = 0;
    std::uint64_t held = 0;
    run.on_threads([&](Part& part, std::uint32_t) {
        IdleConnections idle(part, options);
        idle.bring_up();
        connect_seconds = to_seconds(base::monotonic_now() - run.started());
        up = idle.up();
        if (stop_requested()) {
            held = idle.open();
            return;
        }
        JsonLine ready = run.ready();
        ready.add("up", up)
            .add("failures", part.failures.total())
            .add("seconds", connect_seconds)
            .print();
        if (idle.hold()) {
            run.stop_was_intended();
        }
        if (options.prove) {
            idle.prove();
        }
        held = options.prove ? idle.up() : idle.open();
    });
    JsonLine line = run.result(connect_seconds);
    line.add("wanted", options.connections)
        .add("up", up)
        .add("held", held)
        .add("lost", up - std::min(up, held))
        .add("connect_s", connect_seconds);
    return run.finish(line, up > 0);
}

}  // namespace bore::bench
