// bulk: streams in one or both directions, for a time or for a number of bytes.
//   down  the visitor receives; after the time it closes, or the size is complete
//   up    the visitor sends; after the time it sends FIN; the service reports what arrived
//   both  the two at once on one connection; sizes are exact, and a FIN ends it
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <vector>

#include "bench/load/json_line.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/sockets.hpp"
#include "dataplane/base/check.hpp"

namespace bore::bench {
namespace {

Work work_of(const std::string& direction) {
    if (direction == "down") {
        return Work::download;
    }
    if (direction == "up") {
        return Work::upload;
    }
    BORE_CHECK(direction == "both", "a direction is down, up or both");
    return Work::both;
}

class BulkVisitor final : public Handler {
  public:
    BulkVisitor(EventLoop& loop, const Endpoint& endpoint, const Opening& opening)
        : loop_(loop),
          connection_(connect_now(endpoint)),
          opening_(opening),
          sender_(opening.size_bytes),
          receiver_(opening.size_bytes, opening.verify) {}

    // Says what is wanted; separate from connecting, so that all streams start together.
    void start() {
        const auto bytes = opening_.encode();
        if (::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(bytes.size())) {
            die_errno("send the opening");
        }
        sending_ = opening_.work != Work::download;
        loop_.add(connection_.get(), sending_ ? EPOLLIN | EPOLLOUT : EPOLLIN, *this);
    }

    // The time is over.
    void stop(bool abrupt) {
        if (ended_) {
            return;
        }
        stopped_ = true;
        if (abrupt || opening_.work == Work::download) {
            return end(!receiver_.mismatched());
        }
        finish_sending();
        ::shutdown(connection_.get(), SHUT_WR);
    }

    void give_up() {
        if (!ended_) {
            end(false);
        }
    }

    void on_ready(std::uint32_t events) override {
        if (sending_ && (events & EPOLLOUT) != 0) {
            send_some();
        }
        if (!ended_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
            receive();
        }
    }

    [[nodiscard]] bool ended() const { return ended_; }
    [[nodiscard]] bool intact() const { return intact_; }
    [[nodiscard]] std::uint64_t down_bytes() const {
        return opening_.work == Work::upload ? 0 : receiver_.received_bytes();
    }
    [[nodiscard]] std::uint64_t up_bytes() const {
        return reported_bytes_ > 0 ? reported_bytes_ : sender_.sent_bytes();
    }

  private:
    static constexpr int pumps_per_event = 8;  // then the other streams have their turn

    void send_some() {
        for (int turn = 0; turn < pumps_per_event; ++turn) {
            switch (sender_.pump(connection_.get())) {
                case Pump::progress:
                    break;
                case Pump::blocked:
                    return;
                case Pump::complete:
                    return finish_sending();
                default:
                    return end(false);
            }
        }
    }

    void finish_sending() {
        sending_ = false;
        loop_.modify(connection_.get(), EPOLLIN, *this);
    }

    void receive() {
        if (opening_.work == Work::upload) {
            receive_report();
        } else if (received_all_) {
            expect_fin();
        } else {
            receive_some();
        }
    }

    void receive_some() {
        for (int turn = 0; turn < pumps_per_event; ++turn) {
            switch (receiver_.pump(connection_.get())) {
                case Pump::progress:
                    break;
                case Pump::blocked:
                    return;
                case Pump::complete:
                    if (opening_.work == Work::download) {
                        return end(!receiver_.mismatched());
                    }
                    received_all_ = true;
                    return expect_fin();
                case Pump::ended:
                    return end(stopped_ && !receiver_.mismatched());
                case Pump::failed:
                    return end(false);
            }
        }
    }

    // Both ways: the service sends FIN when it has got everything, and a reset otherwise.
    void expect_fin() {
        std::byte surplus{};
        const ssize_t count = ::recv(connection_.get(), &surplus, 1, 0);
        if (count >= 0 || errno != EAGAIN) {
            end(count == 0 && !sending_ && !receiver_.mismatched());
        }
    }

    void receive_report() {
        const ssize_t count = ::recv(connection_.get(), report_.data() + report_filled_,
                                     report_.size() - report_filled_, 0);
        if (count <= 0) {
            return count < 0 && errno == EAGAIN ? void() : end(false);
        }
        report_filled_ += static_cast<std::size_t>(count);
        if (report_filled_ == report_.size()) {
            const UploadReport report = UploadReport::decode(report_);
            reported_bytes_ = report.received_bytes;
            end(report.received_bytes == sender_.sent_bytes() && !report.mismatched);
        }
    }

    void end(bool intact) {
        connection_.reset();
        sending_ = false;
        ended_ = true;
        intact_ = intact;
    }

    EventLoop& loop_;
    Descriptor connection_;
    const Opening opening_;
    PatternSender sender_;
    PatternReceiver receiver_;
    std::array<std::byte, report_size_bytes> report_{};
    std::size_t report_filled_ = 0;
    std::uint64_t reported_bytes_ = 0;
    bool received_all_ = false;
    bool sending_ = false;
    bool stopped_ = false;
    bool ended_ = false;
    bool intact_ = false;
};

class Bulk {
  public:
    explicit Bulk(const BulkOptions& options) {
        const Endpoint endpoint = resolve(options.to);
        const Opening opening{.work = work_of(options.direction),
                              .verify = options.verify,
                              .size_bytes = options.bytes};
        for (std::uint32_t index = 0; index < options.streams; ++index) {
            visitors_.push_back(std::make_unique<BulkVisitor>(loop_, endpoint, opening));
        }
    }

    void run(const BulkOptions& options) {
        const auto all_ended = [this] {
            return std::ranges::all_of(visitors_, [](const auto& one) { return one->ended(); });
        };
        const base::Nanoseconds started = base::monotonic_now();
        for (const auto& visitor : visitors_) {
            visitor->start();
        }
        if (options.bytes == 0 && !loop_.run_until(started + to_ns(options.seconds), all_ended)) {
            for (const auto& visitor : visitors_) {
                visitor->stop(options.abrupt);
            }
        }
        // What is under way must still arrive, or the whole size must.
        (void)loop_.run_until(base::monotonic_now() + to_ns(options.patience_seconds), all_ended);
        elapsed_seconds_ = static_cast<double>(base::monotonic_now() - started) /
                           static_cast<double>(base::second_ns);
        for (const auto& visitor : visitors_) {
            visitor->give_up();
        }
    }

    int report(const BulkOptions& options) const {
        std::uint64_t down_bytes = 0;
        std::uint64_t up_bytes = 0;
        std::uint64_t failures = 0;
        for (const auto& visitor : visitors_) {
            down_bytes += visitor->down_bytes();
            up_bytes += visitor->up_bytes();
            failures += visitor->intact() ? 0U : 1U;
        }
        const double gbit = static_cast<double>(down_bytes + up_bytes) * 8 / 1e9;
        JsonLine()
            .add("mode", "bulk")
            .add("direction", options.direction)
            .add("streams", options.streams)
            .add("seconds", elapsed_seconds_)
            .add("bytes", down_bytes + up_bytes)
            .add("bytes_down", down_bytes)
            .add("bytes_up", up_bytes)
            .add("gbit_per_s", gbit / elapsed_seconds_)
            .add("verified", options.verify)
            .add("failures", failures)
            .print();
        return failures == 0 ? 0 : 1;
    }

  private:
    static base::Nanoseconds to_ns(double seconds) {
        return static_cast<base::Nanoseconds>(seconds * static_cast<double>(base::second_ns));
    }

    EventLoop loop_;
    std::vector<std::unique_ptr<BulkVisitor>> visitors_;
    double elapsed_seconds_ = 0;
};

}  // namespace

int run_bulk(const BulkOptions& options) {
    require_descriptors(options.streams + 64UL);
    Bulk bulk(options);
    bulk.run(options);
    return bulk.report(options);
}

}  // namespace bore::bench
