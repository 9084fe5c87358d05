// short: connect, one request, one response, close; as many at a time as asked for. The visitor
// closes first, as a browser would.
#include <memory>
#include <vector>

#include "bench/load/exchange.hpp"
#include "bench/load/json_line.hpp"
#include "bench/load/latency.hpp"
#include "bench/load/modes.hpp"

namespace bore::bench {
namespace {

class ShortConnections final : public ExchangeOwner {
  public:
    explicit ShortConnections(const ShortOptions& options)
        : endpoint_(resolve(options.to)), limit_(options.count) {
        const auto length =
            static_cast<base::Nanoseconds>(options.seconds * static_cast<double>(base::second_ns));
        const base::Nanoseconds started = base::monotonic_now();
        ends_at_ = limit_ > 0 ? ~base::Nanoseconds{0} : started + length;
        Opening opening;
        opening.set_request_sizes(options.size_bytes, options.size_bytes);
        for (std::uint32_t index = 0; index < options.concurrency; ++index) {
            visitors_.push_back(
                std::make_unique<ExchangeVisitor>(loop_, endpoint_, opening, *this));
            begin_next(*visitors_.back());
        }
        // 10 s without the last answers is a failure; a count has 10 minutes.
        const base::Nanoseconds patience_ns = (limit_ > 0 ? 600 : 10) * base::second_ns + length;
        if (!loop_.run_until(started + patience_ns, [this] { return running_ == 0; })) {
            failures_ += running_;
        }
        elapsed_seconds_ = static_cast<double>(base::monotonic_now() - started) /
                           static_cast<double>(base::second_ns);
    }

    void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) override {
        latencies_.record(base::monotonic_now() - began_at);
        visitor.close();
        --running_;
        begin_next(visitor);
    }

    void on_failure(ExchangeVisitor& visitor) override {
        --running_;
        ++failures_;
        // A relay that refuses everything would be hammered till the end otherwise.
        if (failures_ < 1000) {
            begin_next(visitor);
        }
    }

    int report(const ShortOptions& options) {
        JsonLine()
            .add("mode", "short")
            .add("concurrency", options.concurrency)
            .add("size_bytes", options.size_bytes)
            .add("seconds", elapsed_seconds_)
            .add("connections", latencies_.count())
            .add("connections_per_s", static_cast<double>(latencies_.count()) / elapsed_seconds_)
            .add("p50_us", latencies_.percentile_us(50))
            .add("p90_us", latencies_.percentile_us(90))
            .add("p99_us", latencies_.percentile_us(99))
            .add("p999_us", latencies_.percentile_us(99.9))
            .add("failures", failures_)
            .print();
        return failures_ == 0 ? 0 : 1;
    }

  private:
    void begin_next(ExchangeVisitor& visitor) {
        if ((limit_ > 0 && started_ == limit_) || base::monotonic_now() >= ends_at_) {
            return;
        }
        ++started_;
        ++running_;
        visitor.connect();
    }

    EventLoop loop_;
    const Endpoint endpoint_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    Latencies latencies_;
    base::Nanoseconds ends_at_ = 0;
    double elapsed_seconds_ = 0;
    std::uint64_t limit_;
    std::uint64_t started_ = 0;
    std::uint64_t running_ = 0;
    std::uint64_t failures_ = 0;
};

}  // namespace

int run_short(const ShortOptions& options) {
    require_descriptors(options.concurrency + 64UL);
    ShortConnections run(options);
    return run.report(options);
}

}  // namespace bore::bench
