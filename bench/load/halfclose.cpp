// halfclose: a visitor sends its request and FIN, and the service answers after the FIN. TCP allows
// it, and programs do it (`nc -N`, rsync, some databases); a relay that takes FIN for the end of
// both directions loses the answer. Each try is a connection; what is lost is counted by how it was
// lost.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "bench/load/histogram.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {
namespace {

class HalfcloseVisitor final : public Handler {
  public:
    using OnEnd = std::function<void(HalfcloseVisitor&)>;

    HalfcloseVisitor(Part& part, Histogram& answers, OnEnd on_end)
        : part_(part), answers_(answers), on_end_(std::move(on_end)) {}

    void connect(const Opening& opening, std::uint32_t request_bytes) {
        sender_ = PatternSender(opening.begin(Direction::up), request_bytes);
        sender_.open_with(opening.encode());
        receiver_ = PatternReceiver(opening.begin(Direction::down), opening.lower(), true);
        connecting_ = true;
        progress_at_ = base::monotonic_now();
        std::expected<Descriptor, int> connection = part_.dialer.dial();
        if (!connection) {
            part_.loop.call_at(progress_at_, [this, error = connection.error()] {
                fail(reason_of_connect(error), std::strerror(error));
            });
            return;
        }
        connection_ = std::move(*connection);
        part_.loop.add(connection_.get(), EPOLLOUT, *this);
    }

    void sweep(base::Nanoseconds now) {
        if (connection_.valid() && part_.has_stalled(progress_at_, now)) {
            fail(Reason::stalled, "no answer after FIN");
        }
    }

    void give_up() {
        if (connection_.valid()) {
            fail(Reason::stalled, "not complete at the end");
        }
    }

    void on_ready(std::uint32_t) override {
        if (connecting_) {
            if (const int error = connect_error(connection_.get()); error != 0) {
                return fail(reason_of_connect(error), std::strerror(error));
            }
            connecting_ = false;
            part_.live.connections.add(1);
        }
        sender_.complete() ? receive() : send();
    }

  private:
    void send() {
        const Pump pump = sender_.pump(connection_.get());
        if (pump == Pump::failed) {
            return fail(reason_of_stream(errno), std::strerror(errno));
        }
        progress_at_ = base::monotonic_now();
        if (pump == Pump::complete) {
            ::shutdown(connection_.get(), SHUT_WR);
            fin_at_ = progress_at_;
            part_.loop.modify(connection_.get(), EPOLLIN, *this);
        }
    }

    // The answer, then FIN.
    void receive() {
        while (!receiver_.complete()) {
            switch (receiver_.pump(connection_.get())) {
                case Pump::blocked:
                    return;
                case Pump::ended:
                    return fail(Reason::cut, std::to_string(receiver_.received_bytes()) +
                                                 " bytes of an answer after FIN");
                case Pump::failed:
                    return fail(reason_of_stream(errno), std::strerror(errno));
                default:
                    progress_at_ = base::monotonic_now();
            }
        }
        if (receiver_.first_mismatch()) {
            return fail(Reason::corrupt, "an answer differs");
        }
        std::byte surplus{};
        const ssize_t count = ::recv(connection_.get(), &surplus, 1, 0);
        if (count < 0 && errno == EAGAIN) {
            return;
        }
        if (count != 0) {
            return fail(count > 0 ? Reason::corrupt : reason_of_stream(errno),
                        "no FIN behind an answer");
        }
        answers_.record(progress_at_ - fin_at_);
        part_.live.requests.add(1);
        end();
    }

    void fail(Reason reason, const std::string& what) {
        part_.fail(reason, what);
        end();
    }

    void end() {
        connection_.reset();
        on_end_(*this);
    }

    Part& part_;
    Histogram& answers_;
    OnEnd on_end_;
    Descriptor connection_;
    PatternSender sender_;
    PatternReceiver receiver_;
    bool connecting_ = false;
    base::Nanoseconds fin_at_ = 0;
    base::Nanoseconds progress_at_ = 0;
};

class Halfclose {
  public:
    Halfclose(Part& part, const HalfcloseOptions& options) : part_(part), options_(options) {
        for (std::uint32_t slot = 0; slot < options.concurrency; ++slot) {
            visitors_.push_back(std::make_unique<HalfcloseVisitor>(
                part, answers_, [this](HalfcloseVisitor& visitor) {
                    ++ended_;
                    // Not from here: a target that refuses would make a deep recursion.
                    part_.loop.call_at(base::monotonic_now(),
                                       [this, &visitor] { begin_next(visitor); });
                }));
        }
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& visitor : visitors_) {
                visitor->sweep(now);
            }
        });
    }

    void run() {
        for (const auto& visitor : visitors_) {
            begin_next(*visitor);
        }
        (void)part_.run_until(part_.deadline(), [this] { return ended_ == options_.count; });
        if (!stop_requested()) {
            for (const auto& visitor : visitors_) {
                visitor->give_up();
            }
        }
    }

    [[nodiscard]] std::uint64_t tries() const { return tries_; }
    [[nodiscard]] const Histogram& answers() const { return answers_; }

  private:
    void begin_next(HalfcloseVisitor& visitor) {
        if (tries_ < options_.count) {
            Opening opening{.work = Work::after_fin, .stream = static_cast<std::uint16_t>(tries_)};
            opening.set_halves(options_.response_bytes, options_.delay_ms);
            ++tries_;
            visitor.connect(opening, options_.size_bytes);
        }
    }

    Part& part_;
    const HalfcloseOptions& options_;
    std::vector<std::unique_ptr<HalfcloseVisitor>> visitors_;
    Histogram answers_;
    std::uint64_t tries_ = 0;
    std::uint64_t ended_ = 0;
};

}  // namespace

int run_halfclose(const HalfcloseOptions& options) {
    require_descriptors(options.concurrency + 64UL);
    Run run("halfclose", options.common, 600);
    std::uint64_t tries = 0;
    Histogram answers;
    run.on_threads([&](Part& part, std::uint32_t) {
        Halfclose halfclose(part, options);
        halfclose.run();
        tries = halfclose.tries();
        answers = halfclose.answers();
    });
    JsonLine line = run.result(to_seconds(base::monotonic_now() - run.started()));
    line.add("tries", tries)
        .add("answered", answers.count())
        .add("lost", run.failures().total())
        .add("delay_ms", options.delay_ms)
        .add("answer", answers.to_json());
    return run.finish(line, run.total(&Live::connections) > 0);
}

}  // namespace bore::bench
