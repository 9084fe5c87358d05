// Keeps one kind of log line to one per interval and counts what was left out. Visitors can make a
// client log at any rate; this is the bound. Pure; used wherever a peer causes the line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/base/clock.hpp"

namespace bore::client {

class LogLimit {
  public:
    explicit LogLimit(base::Nanoseconds interval) : interval_(interval) {}

    // The end of the line that may be written now ("" or " (12 more since the last such line)");
    // nothing when it must be left out.
    [[nodiscard]] std::optional<std::string> admit(base::Nanoseconds now) {
        if (last_ != 0 && now - last_ < interval_) {
            ++left_out_count_;
            return std::nullopt;
        }
        std::string suffix;
        if (left_out_count_ != 0) {
            suffix = " (" + std::to_string(left_out_count_) + " more since the last such line)";
        }
        last_ = now;
        left_out_count_ = 0;
        return suffix;
    }

  private:
    base::Nanoseconds interval_;
    base::Nanoseconds last_{0};
    std::uint64_t left_out_count_{0};
};

}  // namespace bore::client
