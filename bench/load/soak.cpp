// soak: steady mixed load for a time, every byte accounted for: transfers up, down and both ways
// one after the other, requests at a rate on connections that stay, and short connections. Nothing
// grows here with the time, so hours are as good as seconds; what grows is the target's.
#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "bench/load/bulk_visitor.hpp"
#include "bench/load/exchange.hpp"
#include "bench/load/histogram.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/request_load.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {
namespace {

constexpr base::Nanoseconds pause_after_failure = 100 * base::millisecond_ns;

// Verified transfers on one stream after the other, no faster than the rate on the average.
class Transfers {
  public:
    Transfers(Part& part, const SoakOptions& options) : part_(part), options_(options) {
        for (std::uint32_t slot = 0; slot < options.streams; ++slot) {
            visitors_.push_back(std::make_unique<BulkVisitor>(
                part, [this](BulkVisitor& visitor) { on_end(visitor); }));
        }
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& visitor : visitors_) {
                visitor->sweep(now);
            }
            start_connected();
        });
        // What has connected starts soon, without a call for each event.
        part_.loop.call_every(5 * base::millisecond_ns, [this] { start_connected(); });
    }

    void begin() {
        for (const auto& visitor : visitors_) {
            begin_next(*visitor);
        }
    }
    void stop() { stopped_ = true; }
    [[nodiscard]] bool is_done() const {
        return std::ranges::all_of(visitors_, [](const auto& one) { return one->has_ended(); });
    }
    void give_up() {
        for (const auto& visitor : visitors_) {
            visitor->give_up();
        }
    }

    void add_to(JsonLine& line) const {
        line.add("transfers", intact_)
            .add("bytes_down", down_bytes_)
            .add("bytes_up", up_bytes_)
            .add("lost_bytes", lost_bytes_)
            .add("corrupt_streams", corrupt_streams_)
            .add("first_corrupt_offset", first_corrupt_offset_
                                             ? static_cast<std::int64_t>(*first_corrupt_offset_)
                                             : std::int64_t{-1});
    }

  private:
    static constexpr Work works[] = {Work::download, Work::upload, Work::both};

    void start_connected() {
        for (const auto& visitor : visitors_) {
            if (visitor->is_connected()) {
                visitor->start();
            }
        }
    }

    void begin_next(BulkVisitor& visitor) {
        if (!stopped_) {
            visitor.connect({.work = works[started_ % 3],
                             .verify = true,
                             .stream = static_cast<std::uint16_t>(started_),
                             .size_bytes = options_.bytes});
            ++started_;
        }
    }

    void on_end(BulkVisitor& visitor) {
        intact_ += visitor.is_intact() ? 1U : 0U;
        down_bytes_ += visitor.down_bytes();
        up_bytes_ += visitor.up_bytes();
        lost_bytes_ += visitor.lost_bytes();
        if (const auto offset = visitor.first_corrupt_offset()) {
            ++corrupt_streams_;
            first_corrupt_offset_ = std::min(first_corrupt_offset_.value_or(*offset), *offset);
        }
        // At the rate, the transfer would have taken this long from its start.
        const double pause_seconds = static_cast<double>(options_.bytes) * 8 / 1e6 / options_.mbit;
        const base::Nanoseconds now = base::monotonic_now();
        const base::Nanoseconds earliest = visitor.began_at() + to_ns(pause_seconds);
        part_.loop.call_at(
            std::max(earliest, visitor.is_intact() ? now : now + pause_after_failure),
            [this, &visitor] { begin_next(visitor); });
    }

    Part& part_;
    const SoakOptions& options_;
    std::vector<std::unique_ptr<BulkVisitor>> visitors_;
    bool stopped_ = false;
    std::uint64_t started_ = 0;
    std::uint64_t intact_ = 0;
    std::uint64_t down_bytes_ = 0;
    std::uint64_t up_bytes_ = 0;
    std::uint64_t lost_bytes_ = 0;
    std::uint64_t corrupt_streams_ = 0;
    std::optional<std::uint64_t> first_corrupt_offset_;
};

// Connect, one exchange, close, at a rate; some may overlap where the target is slow.
class ShortVisitors final : public ExchangeOwner {
  public:
    ShortVisitors(Part& part, const SoakOptions& options) : part_(part) {
        for (std::uint16_t slot = 0; slot < slots; ++slot) {
            Opening opening{.stream = slot};
            opening.set_halves(64, 64);
            visitors_.push_back(std::make_unique<ExchangeVisitor>(part, opening, *this));
            free_.push_back(visitors_.back().get());
        }
        if (options.short_rate > 0) {
            part_.loop.call_every(to_ns(1 / options.short_rate), [this] { begin_one(); });
        }
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& visitor : visitors_) {
                visitor->sweep(now);
            }
        });
    }

    void stop() { stopped_ = true; }
    [[nodiscard]] bool is_done() const { return free_.size() == slots; }
    void give_up() {
        for (const auto& visitor : visitors_) {
            visitor->give_up();
        }
    }
    [[nodiscard]] const Histogram& latency() const { return latency_; }

    void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) override {
        latency_.record(base::monotonic_now() - began_at);
        visitor.close();
        free_.push_back(&visitor);
    }
    void on_failure(ExchangeVisitor& visitor) override { free_.push_back(&visitor); }

  private:
    static constexpr std::uint16_t slots = 256;

    void begin_one() {
        if (!stopped_ && !free_.empty()) {
            ExchangeVisitor& visitor = *free_.back();
            free_.pop_back();
            visitor.connect(true);
        }
    }

    Part& part_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    std::vector<ExchangeVisitor*> free_;
    Histogram latency_;
    bool stopped_ = false;
};

RequestsOptions requests_of(const SoakOptions& options) {
    RequestsOptions requests;
    requests.common = options.common;
    requests.connections = options.connections;
    requests.rate = options.rate;
    requests.seconds = options.seconds;
    requests.warmup_seconds = 0;
    return requests;
}

}  // namespace

int run_soak(const SoakOptions& options) {
    require_descriptors(options.streams + options.connections + 512UL);
    Run run("soak", options.common, options.seconds + 60);
    JsonLine transferred;
    RequestFigures requested;
    Histogram connections;
    double seconds = 0;
    const RequestsOptions requests_options = requests_of(options);
    run.on_threads([&](Part& part, std::uint32_t) {
        const base::Nanoseconds began = base::monotonic_now();
        RequestLoad requests(part, requests_options, 0);
        Transfers transfers(part, options);
        ShortVisitors shorts(part, options);
        transfers.begin();
        requests.start();
        (void)part.run_until(base::monotonic_now() + to_ns(options.seconds), [] { return false; });
        seconds = to_seconds(base::monotonic_now() - began);
        transfers.stop();
        shorts.stop();
        // What is under way may arrive; after a stop signal it is neither lost nor awaited.
        (void)part.run_until(part.deadline(), [&] {
            return transfers.is_done() && shorts.is_done() && requests.is_done();
        });
        if (!stop_requested()) {
            transfers.give_up();
            shorts.give_up();
        }
        requests.finish();
        transfers.add_to(transferred);
        requested = requests.figures();
        connections = shorts.latency();
    });
    JsonLine line = run.result(seconds);
    line.merge(transferred)
        .add("requests", requested.total)
        .add("unanswered", requested.unanswered)
        .add("connections", connections.count())
        .add("request", requested.latency.to_json())
        .add("connection", connections.to_json());
    return run.finish(line, requested.total + connections.count() > 0);
}

}  // namespace bore::bench
