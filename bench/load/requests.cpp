// rr: a closed loop of requests and responses on every connection. Latencies count after the
// warm-up (the first 16 segments of a connection are acknowledged at once by Linux, which hides
// what delayed acknowledgements cost); all requests are reported, for CPU per request.
#include <memory>
#include <vector>

#include "bench/load/exchange.hpp"
#include "bench/load/json_line.hpp"
#include "bench/load/latency.hpp"
#include "bench/load/modes.hpp"

namespace bore::bench {
namespace {

class Requests final : public ExchangeOwner {
  public:
    explicit Requests(const RequestsOptions& options) : endpoint_(resolve(options.to)) {
        response_bytes_ = options.response_bytes > 0 ? options.response_bytes : options.size_bytes;
        Opening opening{.acknowledge_at_once = options.service_quickack};
        opening.set_request_sizes(options.size_bytes, response_bytes_);
        const base::Nanoseconds started = base::monotonic_now();
        measure_from_ = started + to_ns(options.warmup_seconds);
        ends_at_ = measure_from_ + to_ns(options.seconds);
        for (std::uint32_t index = 0; index < options.connections; ++index) {
            visitors_.push_back(
                std::make_unique<ExchangeVisitor>(loop_, endpoint_, opening, *this));
            visitors_.back()->connect();
        }
        // Past the end a response may still be under way; 10 s without it is a failure.
        const bool finished = loop_.run_until(ends_at_ + to_ns(10), [this] {
            return failures_ > 0 || finished_ == visitors_.size();
        });
        failures_ += finished ? 0U : 1U;
    }

    void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) override {
        const base::Nanoseconds now = base::monotonic_now();
        ++total_;
        if (now >= ends_at_) {
            ++finished_;
            return visitor.close();
        }
        if (began_at >= measure_from_) {
            latencies_.record(now - began_at);
        }
        visitor.send_request();
    }

    void on_failure(ExchangeVisitor&) override { ++failures_; }

    int report(const RequestsOptions& options) {
        JsonLine()
            .add("mode", "rr")
            .add("connections", options.connections)
            .add("size_bytes", options.size_bytes)
            .add("response_bytes", response_bytes_)
            .add("seconds", options.seconds)
            .add("requests", latencies_.count())
            .add("requests_total", total_)
            .add("requests_per_s", static_cast<double>(latencies_.count()) / options.seconds)
            .add("p50_us", latencies_.percentile_us(50))
            .add("p90_us", latencies_.percentile_us(90))
            .add("p99_us", latencies_.percentile_us(99))
            .add("p999_us", latencies_.percentile_us(99.9))
            .add("max_us", latencies_.percentile_us(100))
            .add("failures", failures_)
            .print();
        return failures_ == 0 ? 0 : 1;
    }

  private:
    static base::Nanoseconds to_ns(double seconds) {
        return static_cast<base::Nanoseconds>(seconds * static_cast<double>(base::second_ns));
    }

    EventLoop loop_;
    const Endpoint endpoint_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    Latencies latencies_;
    std::uint32_t response_bytes_ = 0;
    base::Nanoseconds measure_from_ = 0;
    base::Nanoseconds ends_at_ = 0;
    std::uint64_t total_ = 0;
    std::uint64_t finished_ = 0;
    std::uint64_t failures_ = 0;
};

}  // namespace

int run_requests(const RequestsOptions& options) {
    require_descriptors(options.connections + 64UL);
    Requests run(options);
    return run.report(options);
}

}  // namespace bore::bench
