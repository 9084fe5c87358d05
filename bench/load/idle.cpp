// idle: many connections, each proven by one byte there and back, then held in silence. Prints one
// line when all are up, so that whoever measures memory knows when, and one at the end.
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "bench/load/exchange.hpp"
#include "bench/load/json_line.hpp"
#include "bench/load/modes.hpp"

namespace bore::bench {
namespace {

class IdleConnections final : public ExchangeOwner {
  public:
    explicit IdleConnections(const IdleOptions& options) : endpoint_(resolve(options.to)) {
        visitors_.reserve(options.connections);
        Opening opening;
        opening.set_request_sizes(1, 1);
        for (std::uint32_t index = 0; index < options.connections; ++index) {
            visitors_.push_back(
                std::make_unique<ExchangeVisitor>(loop_, endpoint_, opening, *this));
        }
    }

    // False when not all came up in time.
    bool bring_up(double patience_seconds) {
        const base::Nanoseconds started = base::monotonic_now();
        for (std::size_t index = 0; index < at_a_time; ++index) {
            connect_next();
        }
        const bool complete = loop_.run_until(started + to_ns(patience_seconds), [this] {
            return failures_ > 0 || up_ == visitors_.size();
        });
        JsonLine()
            .add("mode", "idle")
            .add("up", up_)
            .add("failures", failures_)
            .add("seconds", static_cast<double>(base::monotonic_now() - started) /
                                static_cast<double>(base::second_ns))
            .print();
        return complete && failures_ == 0;
    }

    // False when a connection ended while it was held.
    bool hold(double seconds) {
        EndOfInput input(*this);
        if (seconds > 0) {
            (void)loop_.run_until(base::monotonic_now() + to_ns(seconds), [] { return false; });
        } else {
            // Only what can block can be waited for; a file or /dev/null has ended already.
            struct stat kind{};
            input_ended_ =
                ::fstat(STDIN_FILENO, &kind) != 0 ||
                (!S_ISFIFO(kind.st_mode) && !S_ISSOCK(kind.st_mode) && ::isatty(STDIN_FILENO) == 0);
            if (!input_ended_) {
                loop_.add(STDIN_FILENO, EPOLLIN, input);
            }
            (void)loop_.run_until(~base::Nanoseconds{0}, [this] { return input_ended_; });
        }
        JsonLine().add("mode", "idle").add("held", up_).add("lost", failures_).print();
        return failures_ == 0;
    }

    void on_response(ExchangeVisitor&, base::Nanoseconds) override {
        ++up_;
        connect_next();
    }

    void on_failure(ExchangeVisitor&) override { ++failures_; }

  private:
    static constexpr std::size_t at_a_time = 64;

    class EndOfInput final : public Handler {
      public:
        explicit EndOfInput(IdleConnections& run) : run_(run) {}
        void on_ready(std::uint32_t) override {
            char ignored[256];
            run_.input_ended_ = ::read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
        }

      private:
        IdleConnections& run_;
    };

    static base::Nanoseconds to_ns(double seconds) {
        return static_cast<base::Nanoseconds>(seconds * static_cast<double>(base::second_ns));
    }

    void connect_next() {
        if (next_ < visitors_.size()) {
            visitors_[next_++]->connect();
        }
    }

    EventLoop loop_;
    const Endpoint endpoint_;
    std::vector<std::unique_ptr<ExchangeVisitor>> visitors_;
    std::size_t next_ = 0;
    std::uint64_t up_ = 0;
    std::uint64_t failures_ = 0;
    bool input_ended_ = false;
};

}  // namespace

int run_idle(const IdleOptions& options) {
    require_descriptors(options.connections + 64UL);
    IdleConnections run(options);
    return run.bring_up(options.patience_seconds) && run.hold(options.hold_seconds) ? 0 : 1;
}

}  // namespace bore::bench
