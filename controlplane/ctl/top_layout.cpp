// Columns by priority, lines by priority.
#include "controlplane/ctl/top_layout.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include "controlplane/ctl/format.hpp"

namespace bore::ctl {

namespace {

// Below this a screen has rows only.
constexpr std::size_t lines_for_summary = 8;
constexpr std::size_t min_spark_columns = 8;
constexpr std::size_t max_spark_columns = 60;

constexpr std::array<std::string_view, 13> help_text{
    "q, Ctrl-C   quit",
    "s           next order: rate, total, pairs, visits, port, client",
    "r           turn the order round",
    "/           filter by port, client, state or path; Enter keeps it, Esc drops it",
    "p, space    pause and go on",
    "up, down    scroll by a line, PgUp, PgDn by a page, Home to the top",
    "+, -        look less often, more often",
    "h, ?        this text and back",
    "",
    "PAIRS are connections now, VISIT/S new ones; TO CLIENT and TO VISITOR are",
    "payload per second, TOTAL is both since the tunnel began. The bars are the",
    "latest looks of both ways together, the highest of them is full height.",
    "busy is the part of its time that the busiest worker was not idle.",
};

bool begins_character(char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U;
}

std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

std::string clipped(std::string text, std::size_t columns) {
    std::size_t seen = 0;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (begins_character(text[at]) && ++seen > columns) {
            text.resize(at);
            break;
        }
    }
    return text;
}

std::string padded(std::string text, std::size_t columns, bool right) {
    text = clipped(std::move(text), columns);
    const std::string blanks(columns - width_of(text), ' ');
    return right ? blanks + text : text + blanks;
}

std::string per_second(double rate) {
    if (rate <= 0) {
        return "-";
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), rate < 10 ? "%.1f" : "%.0f", rate);
    return text.data();
}

std::string whole_percent(double share) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "%.0f%%", 100 * share);
    return text.data();
}

struct TopColumn {
    std::string_view title;
    std::size_t width;
    bool right;
    int priority;  // 0 always; the others are given room in this order
    std::string (*cell)(const TopRow&);
};

constexpr std::array<TopColumn, 9> top_columns{{
    {"PORT", 5, true, 0, [](const TopRow& row) { return std::to_string(row.port); }},
    {"CLIENT", 15, false, 2, [](const TopRow& row) { return row.client; }},
    {"PAIRS", 5, true, 3, [](const TopRow& row) { return std::to_string(row.pairs_live); }},
    {"WAIT", 4, true, 8, [](const TopRow& row) { return std::to_string(row.visitors_pending); }},
    {"VISIT/S", 7, true, 6, [](const TopRow& row) { return per_second(row.visit_rate); }},
    {"TO CLIENT", 10, true, 4, [](const TopRow& row) { return rate_text(row.to_client_rate); }},
    {"TO VISITOR", 10, true, 1, [](const TopRow& row) { return rate_text(row.to_visitor_rate); }},
    {"TOTAL", 7, true, 7,
     [](const TopRow& row) { return bytes_text(row.to_client_bytes + row.to_visitor_bytes); }},
    {"PATH", 6, false, 9, [](const TopRow& row) { return row.path; }},
}};
// After the columns that matter and before those that do not.
constexpr int spark_priority = 5;

struct Chosen {
    std::array<bool, top_columns.size()> shown{};
    std::size_t spark{0};  // columns of the sparkline
};

Chosen choose(std::size_t columns) {
    Chosen chosen;
    std::size_t used = 0;
    bool has_spark = false;
    for (int priority = 0; priority <= static_cast<int>(top_columns.size()); ++priority) {
        std::size_t need = 0;
        std::size_t index = top_columns.size();
        if (priority == spark_priority) {
            need = min_spark_columns + 1;
        } else {
            const auto* const column = std::find_if(
                top_columns.begin(), top_columns.end(),
                [priority](const TopColumn& known) { return known.priority == priority; });
            index = static_cast<std::size_t>(column - top_columns.begin());
            need = column->width + (used == 0 ? 0 : 1);
        }
        if (used + need > columns) {
            break;
        }
        used += need;
        if (priority == spark_priority) {
            has_spark = true;
        } else {
            chosen.shown[index] = true;
        }
    }
    if (has_spark) {
        chosen.spark = std::min(max_spark_columns, columns - used + min_spark_columns);
    }
    return chosen;
}

template <typename Cell>
std::string line_of(const Chosen& chosen, const std::string& spark, const Cell& cell) {
    std::string line;
    for (std::size_t index = 0; index < top_columns.size(); ++index) {
        if (chosen.shown[index]) {
            const TopColumn& column = top_columns[index];
            line += (line.empty() ? "" : " ") + padded(cell(column), column.width, column.right);
        }
    }
    return chosen.spark == 0 ? line : line + " " + spark;
}

std::string heading(const Chosen& chosen) {
    return line_of(chosen, padded("HISTORY", chosen.spark, false),
                   [](const TopColumn& column) { return std::string(column.title); });
}

std::string row_text(const Chosen& chosen, const TopRow& row, bool ascii) {
    return line_of(chosen, sparkline(row.history, chosen.spark, ascii),
                   [&row](const TopColumn& column) { return column.cell(row); });
}

std::string counts_text(const TopSummary& summary) {
    return "bore " + summary.relay + " " + summary.version + "  up " +
           duration_text(summary.uptime_ns) + "  " + std::to_string(summary.tunnels_live) +
           " tunnels  " + std::to_string(summary.pairs_live) + " pairs  " +
           std::to_string(summary.visitors_pending) + " waiting  " +
           std::to_string(summary.refused) + " refused";
}

std::string rates_text(const TopSummary& summary, std::size_t columns, bool ascii) {
    const std::string text = "to client " + padded(rate_text(summary.to_client_rate), 9, true) +
                             "  to visitor " + padded(rate_text(summary.to_visitor_rate), 9, true) +
                             "  visits " + padded(per_second(summary.visit_rate) + "/s", 7, true) +
                             "  busy " + padded(whole_percent(summary.busy_share), 4, true) + "  ";
    const std::size_t width = width_of(text);
    return width + min_spark_columns > columns
               ? text
               : text + sparkline(summary.history, std::min(max_spark_columns, columns - width),
                                  ascii);
}

// What a person should know before looking at numbers; empty when there is nothing.
ScreenLine notice(const TopModel& model, const TopView& view) {
    if (view.editing_filter) {
        return {"filter: " + model.filter() + "_", LineStyle::title};
    }
    if (!model.summary().stale.empty()) {
        return {model.summary().stale, LineStyle::warning};
    }
    std::string text = model.paused() ? "paused" : "";
    if (!model.filter().empty()) {
        text += (text.empty() ? "" : ", ") + ("filter: " + model.filter());
    }
    return {text, LineStyle::title};
}

std::string help_line(const TopModel& model, const TopView& view) {
    return "q quit  s sort: " + std::string(name_of(model.sort())) +
           (model.reversed() ? " (reversed)" : "") + "  / filter  p " +
           (model.paused() ? "go on" : "pause") + "  +- every " + duration_text(view.interval_ns) +
           "  h help";
}

}  // namespace

std::size_t rows_that_fit(const TopModel& model, const TopView& view) {
    // Title, rates, notice, heading, help; on a low screen heading and help only, and the notice
    // when there is one.
    std::size_t other = 5;
    if (view.lines < lines_for_summary) {
        other = notice(model, view).text.empty() ? 2 : 3;
    }
    return view.lines > other ? view.lines - other : 0;
}

std::vector<ScreenLine> lay_out(const TopModel& model, const TopView& view) {
    std::vector<ScreenLine> lines;
    const Chosen chosen = choose(view.columns);
    const ScreenLine said = notice(model, view);
    if (view.lines >= lines_for_summary) {
        lines.push_back({counts_text(model.summary()), LineStyle::title});
        lines.push_back({rates_text(model.summary(), view.columns, view.ascii), LineStyle::plain});
        lines.push_back(said);
    } else if (!said.text.empty()) {
        lines.push_back(said);
    }
    if (view.help) {
        for (const std::string_view line : help_text) {
            lines.push_back({std::string(line), LineStyle::plain});
        }
    } else {
        lines.push_back({padded(heading(chosen), view.columns, false), LineStyle::heading});
        const auto rows = model.rows();
        const std::size_t fit = rows_that_fit(model, view);
        const std::size_t first = std::min(view.scroll, rows.size());
        for (std::size_t index = first; index < std::min(rows.size(), first + fit); ++index) {
            lines.push_back({row_text(chosen, *rows[index], view.ascii), LineStyle::plain});
        }
    }
    lines.resize(view.lines == 0 ? 0 : view.lines - 1);
    if (view.lines > 0) {
        lines.push_back({help_line(model, view), LineStyle::help});
    }
    for (ScreenLine& line : lines) {
        line.text = clipped(std::move(line.text), view.columns);
    }
    return lines;
}

std::string print_once(const TopModel& model, std::size_t columns, bool ascii) {
    const Chosen chosen = choose(columns);
    const TopSummary& summary = model.summary();
    std::string text = counts_text(summary) + "\n" + rates_text(summary, columns, ascii) + "\n" +
                       (summary.stale.empty() ? "" : summary.stale + "\n") + "\n" +
                       heading(chosen) + "\n";
    for (const TopRow* const row : model.rows()) {
        text += row_text(chosen, *row, ascii) + "\n";
    }
    return text;
}

}  // namespace bore::ctl
