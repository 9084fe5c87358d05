// See table.hpp. Cells are ASCII but for texts of peers, which the relay has made printable.
#include "controlplane/ctl/table.hpp"

#include <algorithm>
#include <utility>

namespace bore::ctl {

namespace {

constexpr std::size_t gap = 2;

void append_cell(std::string& line, const std::string& cell, std::size_t width, Align align) {
    const std::string padding(width - std::min(width, cell.size()), ' ');
    line += align == Align::right ? padding + cell : cell + padding;
    line.append(gap, ' ');
}

void end_line(std::string& text, std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
}

}  // namespace

std::string render(const Table& table) {
    std::vector<std::size_t> widths;
    for (std::size_t column = 0; column < table.columns.size(); ++column) {
        std::size_t width = table.columns[column].title.size();
        for (const auto& row : table.rows) {
            width = std::max(width, row[column].size());
        }
        widths.push_back(width);
    }
    std::string text;
    std::string line;
    for (std::size_t column = 0; column < table.columns.size(); ++column) {
        append_cell(line, table.columns[column].title, widths[column], table.columns[column].align);
    }
    end_line(text, std::move(line));
    for (const auto& row : table.rows) {
        line.clear();
        for (std::size_t column = 0; column < table.columns.size(); ++column) {
            append_cell(line, row[column], widths[column], table.columns[column].align);
        }
        end_line(text, line);
    }
    return text;
}

std::string render_facts(const std::vector<std::pair<std::string, std::string>>& facts) {
    std::size_t width = 0;
    for (const auto& [name, value] : facts) {
        width = std::max(width, name.size());
    }
    std::string text;
    for (const auto& [name, value] : facts) {
        std::string line;
        append_cell(line, name, width, Align::left);
        end_line(text, line + value);
    }
    return text;
}

}  // namespace bore::ctl
