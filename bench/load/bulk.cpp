// bulk: streams in one or both directions, for a time or for a number of bytes. All connect first
// and start together; streams of several threads, too.
#include <algorithm>
#include <barrier>
#include <memory>
#include <optional>
#include <vector>

#include "bench/load/bulk_visitor.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"
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

struct Totals {
    double seconds = 0;
    std::uint64_t down_bytes = 0;
    std::uint64_t up_bytes = 0;
    std::uint64_t lost_bytes = 0;
    std::uint64_t corrupt_streams = 0;
    std::optional<std::uint64_t> first_corrupt_offset;
    std::uint64_t stream_bytes_min = endless;
    std::uint64_t stream_bytes_max = 0;

    void count(const BulkVisitor& visitor) {
        const std::uint64_t bytes = visitor.down_bytes() + visitor.up_bytes();
        down_bytes += visitor.down_bytes();
        up_bytes += visitor.up_bytes();
        lost_bytes += visitor.lost_bytes();
        stream_bytes_min = std::min(stream_bytes_min, bytes);
        stream_bytes_max = std::max(stream_bytes_max, bytes);
        if (const auto offset = visitor.first_corrupt_offset()) {
            ++corrupt_streams;
            first_corrupt_offset = std::min(first_corrupt_offset.value_or(*offset), *offset);
        }
    }
};

class BulkPart {
  public:
    BulkPart(Part& part, const BulkOptions& options, std::uint32_t index) : part_(part) {
        const auto rate = static_cast<std::uint64_t>(options.read_mbit * 1e6 / 8);
        for (std::uint32_t number = index; number < options.streams;
             number += options.common.threads) {
            visitors_.push_back(
                std::make_unique<BulkVisitor>(part, [this](BulkVisitor&) { ++ended_; }, rate));
            visitors_.back()->connect({.work = work_of(options.direction),
                                       .verify = options.verify,
                                       .stream = static_cast<std::uint16_t>(number),
                                       .size_bytes = options.bytes});
        }
        part_.sweep_with([this](base::Nanoseconds now) {
            for (const auto& visitor : visitors_) {
                visitor->sweep(now);
            }
        });
    }

    void connect() {
        (void)part_.run_until(part_.deadline(), [this] {
            return std::ranges::none_of(
                visitors_, [](const auto& visitor) { return visitor->is_connecting(); });
        });
    }

    void transfer(const BulkOptions& options) {
        const auto all_ended = [this] { return ended_ == visitors_.size(); };
        began_at_ = base::monotonic_now();
        for (const auto& visitor : visitors_) {
            if (visitor->is_connected()) {
                visitor->start();
            }
        }
        const base::Nanoseconds until =
            options.bytes == 0 ? began_at_ + to_ns(options.seconds) : part_.deadline();
        if (!part_.run_until(until, all_ended)) {
            // After a signal nobody waits for what is under way.
            const bool abrupt = options.abrupt || stop_requested();
            for (const auto& visitor : visitors_) {
                visitor->stop(abrupt);
            }
        }
        (void)part_.run_until(part_.deadline(), all_ended);
        ended_at_ = base::monotonic_now();
    }

    [[nodiscard]] Totals totals() {
        Totals totals{.seconds = to_seconds(ended_at_ - began_at_)};
        for (const auto& visitor : visitors_) {
            if (stop_requested()) {
                visitor->stop(true);
            } else {
                visitor->give_up();
            }
            totals.count(*visitor);
        }
        return totals;
    }

  private:
    Part& part_;
    std::vector<std::unique_ptr<BulkVisitor>> visitors_;
    std::size_t ended_ = 0;
    base::Nanoseconds began_at_ = 0;
    base::Nanoseconds ended_at_ = 0;
};

Totals sum(const std::vector<Totals>& parts) {
    Totals all;
    for (const Totals& one : parts) {
        all.seconds = std::max(all.seconds, one.seconds);
        all.down_bytes += one.down_bytes;
        all.up_bytes += one.up_bytes;
        all.lost_bytes += one.lost_bytes;
        all.corrupt_streams += one.corrupt_streams;
        all.stream_bytes_min = std::min(all.stream_bytes_min, one.stream_bytes_min);
        all.stream_bytes_max = std::max(all.stream_bytes_max, one.stream_bytes_max);
        if (one.first_corrupt_offset) {
            all.first_corrupt_offset =
                std::min(all.first_corrupt_offset.value_or(endless), *one.first_corrupt_offset);
        }
    }
    return all;
}

}  // namespace

int run_bulk(const BulkOptions& options) {
    require_descriptors(options.streams + 64UL);
    Run run("bulk", options.common, options.bytes == 0 ? options.seconds + 30 : 600);
    std::vector<Totals> parts(options.common.threads);
    std::barrier all_connected(options.common.threads);
    run.on_threads([&](Part& part, std::uint32_t index) {
        BulkPart bulk(part, options, index);
        bulk.connect();
        all_connected.arrive_and_wait();
        bulk.transfer(options);
        parts[index] = bulk.totals();
    });
    const Totals totals = sum(parts);
    const std::uint64_t bytes = totals.down_bytes + totals.up_bytes;
    JsonLine line = run.result(totals.seconds);
    line.add("direction", options.direction)
        .add("streams", options.streams)
        .add("bytes", bytes)
        .add("bytes_down", totals.down_bytes)
        .add("bytes_up", totals.up_bytes)
        .add("gbit_per_s", static_cast<double>(bytes) * 8 / 1e9 / totals.seconds)
        .add("verified", options.verify)
        .add("lost_bytes", totals.lost_bytes)
        .add("corrupt_streams", totals.corrupt_streams)
        .add("first_corrupt_offset", totals.first_corrupt_offset
                                         ? static_cast<std::int64_t>(*totals.first_corrupt_offset)
                                         : std::int64_t{-1})
        .add("stream_bytes_min", totals.stream_bytes_min)
        .add("stream_bytes_max", totals.stream_bytes_max);
    return run.finish(line, bytes > 0);
}

}  // namespace bore::bench
