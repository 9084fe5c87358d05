// TCP senders in front of a shaper, in simulated time: windows with slow start, a cubic growth
// behind it, selective acknowledgements and a retransmission timeout; as hard on a queue as the
// real ones, because no sender here paces and none leaves slow start before a loss. For shaper
// tests.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <vector>

#include "dataplane/packet/shaper.hpp"

namespace bore::packet::test {

struct SimulatedTcpOptions {
    std::uint64_t bytes_per_second;
    std::uint32_t flow_count;
    std::uint32_t worker_count;
    base::Nanoseconds round_trip;  // without the queue
    base::Nanoseconds turn;        // of a worker's loop
};

// One sender: which segment goes next, and what an acknowledgement or a silence does to its window.
// Segments have numbers (their place in the stream) and orders (of sending, retransmissions too).
class SimulatedSender {
  public:
    [[nodiscard]] bool may_send() const {
        return static_cast<double>(in_flight_) < std::max(window_, 1.0);
    }

    struct Sent {
        std::uint64_t order, number;
    };
    Sent send(base::Nanoseconds now) {
        std::uint64_t number = next_number_;
        if (lost_.empty()) {
            ++next_number_;
        } else {
            number = lost_.front();
            lost_.pop_front();
        }
        outstanding_.push_back({number, false});
        ++in_flight_;
        if (in_flight_ == 1) {
            heard_at_ = now;
        }
        return {first_order_ + outstanding_.size() - 1, number};
    }

    void on_acknowledgement(std::uint64_t order, base::Nanoseconds now) {
        heard_at_ = now;
        if (order < first_order_ || outstanding_[order - first_order_].done) {
            return;  // was taken for lost
        }
        outstanding_[order - first_order_].done = true;
        --in_flight_;
        newest_ = std::max(newest_, order);
        grow(now);
        while (!outstanding_.empty() && (outstanding_.front().done || first_order_ + 3 < newest_)) {
            drop_front(now);
        }
    }

    void on_time(base::Nanoseconds now, base::Nanoseconds timeout) {
        if (in_flight_ == 0 || now < heard_at_ + timeout) {
            return;
        }
        heard_at_ = now;
        threshold_ = std::max(window_ * 0.7, 2.0);
        while (!outstanding_.empty()) {
            drop_front(now);
        }
        window_ = 1;
    }

  private:
    struct Outstanding {
        std::uint64_t number;
        bool done;
    };

    void drop_front(base::Nanoseconds now) {
        const Outstanding front = outstanding_.front();
        outstanding_.pop_front();
        const std::uint64_t order = first_order_++;
        if (front.done) {
            return;
        }
        lost_.push_back(front.number);
        --in_flight_;
        if (order >= recovery_until_) {  // once per window
            recovery_until_ = first_order_ + outstanding_.size();
            most_ = window_;
            window_ = threshold_ = std::max(window_ * 0.7, 2.0);
            reduced_at_ = now;
        }
    }

    void grow(base::Nanoseconds now) {
        if (window_ < threshold_) {
            window_ += 1;
            return;
        }
        // RFC 9438: back at the old window after K seconds, then beyond.
        const double since = static_cast<double>(now - reduced_at_) / 1e9;
        const double back = std::cbrt(most_ * 0.3 / 0.4);
        const double target = 0.4 * std::pow(since - back, 3) + most_;
        window_ +=
            std::max({(std::min(target, window_ * 1.5) - window_) / window_, 0.53 / window_, 0.0});
    }

    std::deque<Outstanding> outstanding_;
    std::deque<std::uint64_t> lost_;
    std::uint64_t first_order_{0};
    std::uint64_t newest_{0};
    std::uint64_t next_number_{0};
    std::uint64_t recovery_until_{0};
    std::uint64_t in_flight_{0};
    double window_{10};
    double threshold_{1e9};
    double most_{0};
    base::Nanoseconds reduced_at_{0};
    base::Nanoseconds heard_at_{0};
};

class SimulatedTcp {
  public:
    static constexpr std::uint32_t segment_bytes = 1'460;

    explicit SimulatedTcp(const SimulatedTcpOptions& options)
        : options_(options), senders_(options.flow_count), received_(options.flow_count) {
        tunnels_.change(0, {.to_visitor_bytes_per_second = options.bytes_per_second});
        for (std::uint32_t worker = 0; worker < options.worker_count; ++worker) {
            shapers_.push_back(std::make_unique<Shaper>(
                tunnels_, ShaperOptions{.tunnel_count = 1, .slot_count = 16'384}));
        }
    }

    void run(base::Nanoseconds begin, base::Nanoseconds duration,
             const std::function<void(base::Nanoseconds)>& each_turn = {}) {
        for (base::Nanoseconds now = begin; now < begin + duration; now += options_.turn) {
            take_events(now);
            for (std::uint32_t flow = 0; flow < options_.flow_count; ++flow) {
                senders_[flow].on_time(now, timeout());
                while (senders_[flow].may_send()) {
                    const auto [order, number] = senders_[flow].send(now);
                    events_.push({now + options_.round_trip / 2, ++event_count_, false, flow, order,
                                  number});
                }
            }
            release(now);
            if (each_turn) {
                each_turn(now);
            }
        }
    }

    [[nodiscard]] std::uint64_t delivered_bytes() const { return delivered_ * segment_bytes; }
    [[nodiscard]] std::uint64_t delivered_bytes_of_worker(std::uint32_t worker) const {
        std::uint64_t segments = 0;
        for (std::uint32_t flow = worker; flow < options_.flow_count;
             flow += options_.worker_count) {
            segments += static_cast<std::uint64_t>(std::ranges::count(received_[flow], true));
        }
        return segments * segment_bytes;
    }
    [[nodiscard]] std::uint64_t dropped_segments() const { return dropped_; }
    [[nodiscard]] std::uint64_t sent_segments() const { return sent_; }
    [[nodiscard]] abi::RateLimiter& bucket() {
        return tunnels_.entry(0).limiters[static_cast<std::size_t>(abi::Leg::client)];
    }

  private:
    struct Event {  // a segment at the relay, or an acknowledgement at its sender
        base::Nanoseconds at;
        std::uint64_t rank;
        bool acknowledges;
        std::uint32_t flow;
        std::uint64_t order, number;
        bool operator>(const Event& other) const {
            return at != other.at ? at > other.at : rank > other.rank;
        }
    };

    // RTO of Linux: 200 ms and the queue's delay.
    [[nodiscard]] base::Nanoseconds timeout() const {
        return 200 * base::millisecond_ns + 4 * options_.round_trip +
               40 * segment_bytes * base::second_ns / options_.bytes_per_second;
    }

    void take_events(base::Nanoseconds now) {
        while (!events_.empty() && events_.top().at <= now) {
            const Event event = events_.top();
            events_.pop();
            if (event.acknowledges) {
                senders_[event.flow].on_acknowledgement(event.order, now);
            } else {
                arrive(event, now);
            }
        }
    }

    void arrive(const Event& event, base::Nanoseconds now) {
        ++sent_;
        Frame frame;
        held_.push_back(event);
        // NOLINTNEXTLINE(performance-no-int-to-ptr): a handle that nobody follows
        frame.buffer = reinterpret_cast<void*>(static_cast<std::uintptr_t>(held_.size() - 1));
        Shaper& shaper = *shapers_[event.flow % options_.worker_count];
        switch (shaper.admit(frame, 0, abi::Leg::client, segment_bytes, now)) {
            case Shaper::Admit::send:
                deliver(event, now);
                break;
            case Shaper::Admit::held:
                break;
            case Shaper::Admit::drop:
                ++dropped_;
                break;
        }
    }

    // The workers in turn, each with one burst.
    void release(base::Nanoseconds now) {
        std::array<Frame, max_burst> out;
        for (const auto& shaper : shapers_) {
            const std::size_t count = shaper->release_due(now, out);
            for (std::size_t index = 0; index < count; ++index) {
                deliver(held_[reinterpret_cast<std::uintptr_t>(out[index].buffer)], now);
            }
        }
    }

    void deliver(const Event& event, base::Nanoseconds now) {
        auto& received = received_[event.flow];
        if (received.size() <= event.number) {
            received.resize(event.number + 1);
        }
        delivered_ += static_cast<std::uint64_t>(!received[event.number]);
        received[event.number] = true;
        Event answer = event;
        answer.at = now + options_.round_trip / 2;
        answer.rank = ++event_count_;
        answer.acknowledges = true;
        events_.push(answer);
    }

    SimulatedTcpOptions options_;
    abi::TunnelTable tunnels_{1};
    std::vector<std::unique_ptr<Shaper>> shapers_;
    std::vector<SimulatedSender> senders_;
    std::vector<std::vector<bool>> received_;
    std::vector<Event> held_;  // by handle
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
    std::uint64_t event_count_{0};
    std::uint64_t delivered_{0};
    std::uint64_t dropped_{0};
    std::uint64_t sent_{0};
};

}  // namespace bore::packet::test
