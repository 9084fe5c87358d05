// chaos: visitors that misbehave (chaos_peer.hpp), beside two that do not: one exchange after the
// other on a connection that stays, and on a fresh one each time. These must work all the while,
// and once more when the chaos is over. A peer that vanishes without any packet is not among the
// kinds: that takes a firewall or a cable; `silent` and `deaf` are what the target sees of it.
#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <vector>

#include "bench/load/chaos_peer.hpp"
#include "bench/load/exchange.hpp"
#include "bench/load/histogram.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {
namespace {

constexpr base::Nanoseconds exchange_interval = 10 * base::millisecond_ns;
constexpr base::Nanoseconds shortest_life = 5 * base::millisecond_ns;
constexpr base::Nanoseconds longest_life = 300 * base::millisecond_ns;

// The well-behaved one. Its failures are the failures of the run.
class Witness final : public ExchangeOwner {
  public:
    Witness(Part& part, std::uint16_t stream, bool keeps_connection)
        : part_(part), keeps_connection_(keeps_connection) {
        Opening opening{.stream = stream};
        opening.set_halves(64, 1'000);
        visitor_ = std::make_unique<ExchangeVisitor>(part, opening, *this);
    }

    void begin() {
        if (stopped_) {
            return;
        }
        visitor_->is_idle() ? visitor_->send_request() : visitor_->connect(true);
    }
    void stop() { stopped_ = true; }
    void sweep(base::Nanoseconds now) { visitor_->sweep(now); }

    void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) override {
        latency_.record(base::monotonic_now() - began_at);
        if (!keeps_connection_) {
            visitor.close();
        }
        begin_later();
    }
    void on_failure(ExchangeVisitor&) override { begin_later(); }

    [[nodiscard]] bool is_busy() const { return visitor_->is_open() && !visitor_->is_idle(); }
    [[nodiscard]] const Histogram& latency() const { return latency_; }

  private:
    void begin_later() {
        part_.loop.call_at(base::monotonic_now() + exchange_interval, [this] { begin(); });
    }

    Part& part_;
    const bool keeps_connection_;
    std::unique_ptr<ExchangeVisitor> visitor_;
    Histogram latency_;
    bool stopped_ = false;
};

class Chaos {
  public:
    Chaos(Part& part, const ChaosOptions& options)
        : part_(part),
          options_(options),
          fresh_(part, 1, false),
          lasting_(part, 2, true),
          last_(part, 3, false) {
        for (std::size_t kind = 0; kind < chaos_kind_count; ++kind) {
            const std::string& name = chaos_kinds()[kind];
            if (options.kinds.empty() ||
                std::ranges::find(options.kinds, name) != options.kinds.end()) {
                kinds_.push_back(static_cast<ChaosKind>(kind));
            }
        }
        for (std::uint32_t index = 0; index < options.peers; ++index) {
            peers_.push_back(
                std::make_unique<ChaosPeer>(part, [this](ChaosPeer& peer) { on_end(peer); }));
        }
        part_.sweep_with([this](base::Nanoseconds now) {
            fresh_.sweep(now);
            lasting_.sweep(now);
            last_.sweep(now);
        });
    }

    void run() {
        const base::Nanoseconds began = base::monotonic_now();
        fresh_.begin();
        lasting_.begin();
        for (const auto& peer : peers_) {
            begin_life(*peer);
        }
        (void)part_.run_until(began + to_ns(options_.seconds), [] { return false; });
        over_ = true;
        for (const auto& peer : peers_) {
            peer->leave();
        }
        seconds_ = to_seconds(base::monotonic_now() - began);
        recover();
        // A stop signal leaves the two as they are; nobody waits for them.
        fresh_.stop();
        lasting_.stop();
        (void)part_.run_until(part_.deadline(), [this] {
            return !fresh_.is_busy() && !lasting_.is_busy() && !last_.is_busy();
        });
    }

    [[nodiscard]] double seconds() const { return seconds_; }
    [[nodiscard]] bool measured() const { return exchanges() > 0; }

    void add_to(JsonLine& line) const {
        JsonLine by_kind;
        for (std::size_t kind = 0; kind < chaos_kind_count; ++kind) {
            by_kind.add(chaos_kinds()[kind], lives_[kind]);
        }
        Histogram latency = fresh_.latency();
        latency.add(lasting_.latency());
        line.add("peers", by_kind)
            .add("peers_not_connected", not_connected_)
            .add("exchanges", exchanges())
            .add("exchanges_failed", part_.failures.total())
            .add("recovered", recovered_)
            .add("recovery_s", recovery_seconds_)
            .add("exchange", latency.to_json());
    }

  private:
    void begin_life(ChaosPeer& peer) {
        std::uniform_int_distribution<std::size_t> kind(0, kinds_.size() - 1);
        std::uniform_int_distribution<base::Nanoseconds> length(shortest_life, longest_life);
        peer.live(kinds_[kind(random_)], length(random_));
    }

    void on_end(ChaosPeer& peer) {
        ++lives_[static_cast<std::size_t>(peer.kind())];
        not_connected_ += peer.was_connected() ? 0U : 1U;
        if (!over_) {
            begin_life(peer);
        }
    }

    // Until an exchange on a fresh connection has worked that began after the end.
    void recover() {
        const base::Nanoseconds began = base::monotonic_now();
        last_.begin();
        recovered_ = part_.run_until(began + to_ns(options_.common.stall_seconds),
                                     [this] { return last_.latency().count() > 0; });
        recovery_seconds_ = to_seconds(base::monotonic_now() - began);
        last_.stop();
    }

    [[nodiscard]] std::uint64_t exchanges() const {
        return fresh_.latency().count() + lasting_.latency().count();
    }

    Part& part_;
    const ChaosOptions& options_;
    Witness fresh_;
    Witness lasting_;
    Witness last_;  // of the recovery
    std::vector<ChaosKind> kinds_;
    std::vector<std::unique_ptr<ChaosPeer>> peers_;
    std::array<std::uint64_t, chaos_kind_count> lives_{};
    std::uint64_t not_connected_ = 0;
    std::mt19937_64 random_{20'261'129};  // the same chaos in every run
    double seconds_ = 0;
    double recovery_seconds_ = 0;
    bool recovered_ = false;
    bool over_ = false;
};

}  // namespace

int run_chaos(const ChaosOptions& options) {
    require_descriptors(options.peers + 64UL);
    Run run("chaos", options.common, options.seconds + 30);
    std::unique_ptr<Chaos> chaos;
    run.on_threads([&](Part& part, std::uint32_t) {
        chaos = std::make_unique<Chaos>(part, options);
        chaos->run();
    });
    JsonLine line = run.result(chaos->seconds());
    chaos->add_to(line);
    return run.finish(line, chaos->measured());
}

}  // namespace bore::bench
