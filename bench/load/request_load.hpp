// Requests and responses on connections that stay, on one thread; used by rr, and by soak beside
// other load. Without a rate every connection sends its next request when it has the response
// (closed loop). With one, requests are due at even times whatever the target does (schedule.hpp);
// each goes out on the next free connection, and its latency counts from the time at which it was
// due.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "bench/load/exchange.hpp"
#include "bench/load/histogram.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"
#include "bench/load/schedule.hpp"

namespace bore::bench {

struct RequestFigures {
    Histogram latency;       // open loop: from the intended time
    Histogram from_sending;  // open loop: what a tool without a schedule would report
    Histogram lateness;      // of this program, noticing that a request is due
    std::uint64_t total = 0;
    std::uint64_t in_window = 0;  // answered within the measured time
    std::uint64_t unanswered = 0;
    double seconds = 0;

    void add(const RequestFigures& other);
};

class RequestLoad final : public ExchangeOwner {
  public:
    // Of the connections and of the rate of `options` the share of one of several threads.
    RequestLoad(Part& part, const RequestsOptions& options, std::uint32_t index);

    // Connects; an open loop's schedule starts when all are there or have failed once, so this runs
    // the loop.
    void start();
    // The time is over, and nothing is under way, or it has been waited for long enough.
    [[nodiscard]] bool is_done() const;
    // No more requests; what is under way is unanswered or failed.
    void finish();

    [[nodiscard]] const RequestFigures& figures() const { return figures_; }

    void on_connected(ExchangeVisitor& visitor, base::Nanoseconds took) override;
    void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) override;
    void on_failure(ExchangeVisitor& visitor) override;

  private:
    [[nodiscard]] base::Nanoseconds last_moment() const;
    void connect_all();
    void become_free(ExchangeVisitor& visitor);
    void send_due();
    void arm();
    void count_unanswered(base::Nanoseconds intended, base::Nanoseconds now);

    Part& part_;
    const RequestsOptions& options_;
    const std::uint32_t index_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    std::vector<ExchangeVisitor*> free_;  // open loop: connected, without a request
    std::optional<OpenLoopSchedule> schedule_;
    bool armed_ = false;
    bool finished_ = false;
    base::Nanoseconds measure_from_ = ~base::Nanoseconds{0};
    base::Nanoseconds ends_at_ = ~base::Nanoseconds{0};
    RequestFigures figures_;
};

}  // namespace bore::bench
