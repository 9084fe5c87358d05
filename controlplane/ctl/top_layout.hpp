// The lines that `borectl top` shows, for a screen of any size: what to leave out when it is
// narrow, what when it is low. Pure text; terminal.cpp puts it on the screen, a pipe gets it as it
// is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "controlplane/ctl/top_model.hpp"

namespace bore::ctl {

enum class LineStyle : std::uint8_t { plain, title, heading, warning, help };

struct ScreenLine {
    std::string text;  // UTF-8, every character one column, at most as many as the screen has
    LineStyle style{LineStyle::plain};
};

// What a person has set besides the model.
struct TopView {
    std::size_t lines{24};
    std::size_t columns{80};
    std::size_t scroll{0};  // rows above the screen
    base::Nanoseconds interval_ns{base::second_ns};
    bool ascii{false};
    bool help{false};
    bool editing_filter{false};
};

// Exactly `view.lines` lines, empty ones included; the help line is the last.
[[nodiscard]] std::vector<ScreenLine> lay_out(const TopModel& model, const TopView& view);
// How many rows of tunnels fit.
[[nodiscard]] std::size_t rows_that_fit(const TopModel& model, const TopView& view);
// Summary, heading and all rows, without the help line: for a pipe.
[[nodiscard]] std::string print_once(const TopModel& model, std::size_t columns, bool ascii);

}  // namespace bore::ctl
