// The loops behind request_load.hpp.
//
// Latencies count after the warm-up: the first 16 segments of a connection are acknowledged at once
// by Linux, which hides what delayed acknowledgements cost. All requests are counted, for CPU per
// request.
#include "bench/load/request_load.hpp"

#include <algorithm>

namespace bore::bench {
namespace {

constexpr base::Nanoseconds reconnect_pause = 50 * base::millisecond_ns;

bool is_busy(const std::unique_ptr<ExchangeVisitor>& visitor) {
    return visitor->is_open() && !visitor->is_idle();
}

}  // namespace

void RequestFigures::add(const RequestFigures& other) {
    latency.add(other.latency);
    from_sending.add(other.from_sending);
    lateness.add(other.lateness);
    total += other.total;
    in_window += other.in_window;
    unanswered += other.unanswered;
    seconds = std::max(seconds, other.seconds);
}

RequestLoad::RequestLoad(Part& part, const RequestsOptions& options, std::uint32_t index)
    : part_(part), options_(options), index_(index) {
    for (std::uint32_t number = index; number < options.connections;
         number += options.common.threads) {
        Opening opening{.acknowledge_at_once = options.service_quickack,
                        .stream = static_cast<std::uint16_t>(number)};
        opening.set_halves(options.size_bytes, options.response_size());
        visitors_.push_back(std::make_unique<ExchangeVisitor>(part, opening, *this));
    }
    part_.sweep_with([this](base::Nanoseconds now) {
        for (const auto& visitor : visitors_) {
            visitor->sweep(now);
        }
    });
}

void RequestLoad::start() {
    if (options_.rate > 0) {
        connect_all();
    }
    const base::Nanoseconds started = base::monotonic_now();
    measure_from_ = started + to_ns(options_.warmup_seconds);
    ends_at_ = measure_from_ + to_ns(options_.seconds);
    if (options_.rate > 0) {
        schedule_.emplace(started, ends_at_, options_.rate, index_, options_.common.threads);
        send_due();
    } else {
        for (const auto& visitor : visitors_) {
            visitor->connect(true);
        }
    }
}

void RequestLoad::connect_all() {
    for (const auto& visitor : visitors_) {
        visitor->connect(false);
    }
    (void)part_.run_until(part_.deadline(), [this] {
        return free_.size() + part_.failures.total() >= visitors_.size();
    });
}

bool RequestLoad::is_done() const {
    const base::Nanoseconds now = base::monotonic_now();
    if (now < ends_at_ || std::ranges::any_of(visitors_, is_busy)) {
        return now >= last_moment();
    }
    // What is still due needs somebody who could send it.
    return !schedule_ || schedule_->ended() ||
           std::ranges::none_of(visitors_, [](const auto& visitor) { return visitor->is_open(); });
}

// Requests that were due and have found no free connection are not waited for for ever.
base::Nanoseconds RequestLoad::last_moment() const {
    return schedule_ ? ends_at_ + to_ns(options_.common.stall_seconds) : part_.deadline();
}

void RequestLoad::on_connected(ExchangeVisitor& visitor, base::Nanoseconds) {
    if (schedule_) {
        become_free(visitor);
    } else if (options_.rate > 0) {
        free_.push_back(&visitor);
    }
}

void RequestLoad::on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) {
    const base::Nanoseconds now = base::monotonic_now();
    const base::Nanoseconds since = schedule_ ? visitor.intended_at : began_at;
    ++figures_.total;
    if (since >= measure_from_ && (schedule_ || now < ends_at_)) {
        figures_.latency.record(now - since);
        figures_.in_window += now < ends_at_ ? 1U : 0U;
        if (schedule_) {
            figures_.from_sending.record(now - began_at);
        }
    }
    if (schedule_) {
        become_free(visitor);
    } else if (now < ends_at_) {
        visitor.send_request();
    }
}

void RequestLoad::on_failure(ExchangeVisitor& visitor) {
    std::erase(free_, &visitor);
    part_.loop.call_at(base::monotonic_now() + reconnect_pause, [this, &visitor] {
        const bool over = !schedule_ && base::monotonic_now() >= ends_at_;
        if (!over && !finished_ && !visitor.is_open()) {
            visitor.connect(options_.rate == 0);
        }
    });
}

void RequestLoad::become_free(ExchangeVisitor& visitor) {
    if (schedule_->is_due(base::monotonic_now())) {
        visitor.intended_at = schedule_->take();
        visitor.send_request();
    } else {
        free_.push_back(&visitor);
        arm();
    }
}

void RequestLoad::send_due() {
    while (!free_.empty() && schedule_->is_due(base::monotonic_now())) {
        ExchangeVisitor& visitor = *free_.back();
        free_.pop_back();
        visitor.intended_at = schedule_->take();
        visitor.send_request();
    }
    arm();
}

// One timer, for the next request, while there is somebody to send it.
void RequestLoad::arm() {
    if (armed_ || free_.empty() || schedule_->ended()) {
        return;
    }
    armed_ = true;
    const base::Nanoseconds at = schedule_->next_at();
    part_.loop.call_at(at, [this, at] {
        armed_ = false;
        if (at >= measure_from_) {
            figures_.lateness.record(base::monotonic_now() - at);
        }
        send_due();
    });
}

void RequestLoad::finish() {
    finished_ = true;
    const base::Nanoseconds now = base::monotonic_now();
    figures_.seconds = to_seconds(std::clamp(now, measure_from_, ends_at_) - measure_from_);
    if (schedule_) {
        for (const auto& visitor : visitors_) {
            if (is_busy(visitor)) {
                count_unanswered(visitor->intended_at, now);
            }
        }
        while (schedule_->is_due(now)) {
            count_unanswered(schedule_->take(), now);
        }
    } else if (!stop_requested()) {
        for (const auto& visitor : visitors_) {
            visitor->give_up();
        }
    }
}

void RequestLoad::count_unanswered(base::Nanoseconds intended, base::Nanoseconds now) {
    if (intended >= measure_from_) {
        ++figures_.unanswered;
        figures_.latency.record(now - intended);
    }
}

}  // namespace bore::bench
