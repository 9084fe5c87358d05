// crr: connect, one request, one response, close; as many at a time as asked for. The visitor
// closes first, as a browser would.
#include <algorithm>
#include <memory>
#include <vector>

#include "bench/load/exchange.hpp"
#include "bench/load/histogram.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {
namespace {

// A target that refuses everything is not to be hammered.
constexpr base::Nanoseconds pause_after_failure = 10 * base::millisecond_ns;

struct Measured {
    Histogram latency;  // from the start of the connect to the end of the response
    Histogram connect;
    double seconds = 0;

    void add(const Measured& other) {
        latency.add(other.latency);
        connect.add(other.connect);
        seconds = std::max(seconds, other.seconds);
    }
};

class CrrPart final : public ExchangeOwner {
  public:
    CrrPart(Part& part, const CrrOptions& options, std::uint32_t index) : part_(part) {
        const std::uint32_t threads = options.common.threads;
        for (std::uint32_t number = index; number < options.concurrency; number += threads) {
            Opening opening{.stream = static_cast<std::uint16_t>(number)};
            opening.set_halves(options.size_bytes, options.response_size());
            visitors_.push_back(std::make_unique<ExchangeVisitor>(part, opening, *this));
        }
        // The first threads take one more where the count does not divide.
        limit_ = options.count == 0
                     ? endless
                     : options.count / threads + (index < options.count % threads ? 1 : 0);
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& visitor : visitors_) {
                visitor->sweep(now);
            }
        });
    }

    void run(const CrrOptions& options) {
        const base::Nanoseconds started = base::monotonic_now();
        ends_at_ = options.count > 0 ? part_.deadline() : started + to_ns(options.seconds);
        for (const auto& visitor : visitors_) {
            begin_next(*visitor);
        }
        const bool complete = part_.run_until(part_.deadline(), [this] { return running_ == 0; });
        measured_.seconds = to_seconds(base::monotonic_now() - started);
        if (!complete && !stop_requested()) {
            for (const auto& visitor : visitors_) {
                visitor->give_up();
            }
        }
    }

    void on_connected(ExchangeVisitor&, base::Nanoseconds took) override {
        measured_.connect.record(took);
    }

    void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) override {
        measured_.latency.record(base::monotonic_now() - began_at);
        visitor.close();
        --running_;
        begin_next(visitor);
    }

    void on_failure(ExchangeVisitor& visitor) override {
        part_.loop.call_at(base::monotonic_now() + pause_after_failure, [this, &visitor] {
            --running_;
            begin_next(visitor);
        });
    }

    [[nodiscard]] const Measured& measured() const { return measured_; }

  private:
    void begin_next(ExchangeVisitor& visitor) {
        if (started_ == limit_ || base::monotonic_now() >= ends_at_) {
            return;
        }
        ++started_;
        ++running_;
        visitor.connect(true);
    }

    Part& part_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    Measured measured_;
    base::Nanoseconds ends_at_ = 0;
    std::uint64_t limit_;
    std::uint64_t started_ = 0;
    std::uint64_t running_ = 0;
};

}  // namespace

int run_crr(const CrrOptions& options) {
    require_descriptors(options.concurrency + 64UL);
    Run run("crr", options.common, options.count > 0 ? 600 : options.seconds + 30);
    std::vector<Measured> parts(options.common.threads);
    run.on_threads([&](Part& part, std::uint32_t index) {
        CrrPart connections(part, options, index);
        connections.run(options);
        parts[index] = connections.measured();
    });
    Measured all;
    for (const Measured& one : parts) {
        all.add(one);
    }
    const std::uint64_t count = all.latency.count();
    JsonLine line = run.result(all.seconds);
    line.add("concurrency", options.concurrency)
        .add("size_bytes", options.size_bytes)
        .add("response_bytes", options.response_size())
        .add("connections", count)
        .add("connections_per_s", static_cast<double>(count) / all.seconds);
    all.latency.add_to(line);
    line.add("connect_p50_us", all.connect.percentile_us(50))
        .add("connect_p99_us", all.connect.percentile_us(99));
    return run.finish(line, count > 0);
}

}  // namespace bore::bench
