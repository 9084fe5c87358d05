// One run of a mode: the options that all modes share, what each thread works with (Part), and the
// end that all have in common: fields of the result, progress, exit status.
//
// A mode makes a Run, calls on_threads() with its work, merges what its threads have measured, adds
// its fields to result() and returns finish().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/event_loop.hpp"
#include "bench/load/failures.hpp"
#include "bench/load/json_line.hpp"
#include "bench/load/sockets.hpp"

namespace bore::bench {

struct CommonOptions {
    std::string to;
    std::vector<std::string> sources;
    double stall_seconds = 10;
    double deadline_seconds = 0;  // 0: the mode's own
    bool progress = false;
    double interval_seconds = 1;
    std::uint32_t threads = 1;
};

[[nodiscard]] base::Nanoseconds to_ns(double seconds);
[[nodiscard]] double to_seconds(base::Nanoseconds length);

// A number with one writer, its thread; the thread that reports the progress reads it.
class Counter {
  public:
    void add(std::uint64_t more) { set(get() + more); }
    void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

struct Live {
    Counter bytes_down;
    Counter bytes_up;
    Counter requests;
    Counter connections;  // established
    Counter tunnels;      // registered
    Counter held;         // open now
    Counter failures;
};

// What one thread works with. `loop` runs its handlers, which all live longer than its last turn.
class Part {
  public:
    Part(const CommonOptions& options, const Endpoint& target, const std::vector<Endpoint>& sources,
         base::Nanoseconds deadline);

    // Runs until done, the time `until`, the deadline or a stop signal; true when done.
    bool run_until(base::Nanoseconds until, const std::function<bool()>& done,
                   bool heed_stop = true);
    // Calls `sweep` often enough to notice within a fifth of the time that something has stalled.
    void sweep_with(std::function<void(base::Nanoseconds now)> sweep);
    [[nodiscard]] bool has_stalled(base::Nanoseconds last_progress, base::Nanoseconds now) const {
        return now > last_progress + stall_ns_;
    }
    void fail(Reason reason, const std::string& what);
    [[nodiscard]] base::Nanoseconds deadline() const { return deadline_; }
    [[nodiscard]] bool deadline_passed() const { return deadline_passed_; }

    EventLoop loop;
    Dialer dialer;
    Failures failures;
    Live live;

  private:
    base::Nanoseconds stall_ns_;
    base::Nanoseconds deadline_;
    bool deadline_passed_ = false;
};

class Run {
  public:
    // `default_deadline_seconds` counts when the user gave none.
    Run(std::string_view mode, const CommonOptions& options, double default_deadline_seconds);

    using Work = std::function<void(Part& part, std::uint32_t index)>;
    // One call on each thread, the first on the caller's; returns when all have ended.
    void on_threads(const Work& work);

    [[nodiscard]] base::Nanoseconds started() const { return started_; }
    [[nodiscard]] const Part& part(std::uint32_t index) const { return *parts_[index]; }
    [[nodiscard]] Failures failures() const;
    [[nodiscard]] std::uint64_t total(Counter Live::* counter) const;
    // A stop signal was the intended end, not an interruption.
    void stop_was_intended() { stop_was_intended_ = true; }
    // The line that says that all is up; the mode adds its fields and prints it.
    [[nodiscard]] JsonLine ready() const;
    // The fields that all modes share; the rates of the mode count over `seconds`.
    [[nodiscard]] JsonLine result(double seconds) const;
    // Prints the result; the exit status.
    [[nodiscard]] int finish(const JsonLine& result, bool measured) const;

  private:
    void report_progress() const;

    std::string mode_;
    const CommonOptions& options_;
    base::Nanoseconds started_;
    std::vector<std::unique_ptr<Part>> parts_;
    std::vector<double> busy_shares_;
    double cpu_seconds_ = 0;
    bool stop_was_intended_ = false;
};

}  // namespace bore::bench
