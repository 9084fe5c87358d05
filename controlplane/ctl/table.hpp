// Text in columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bore::ctl {

enum class Align : std::uint8_t { left, right };

struct Column {
    std::string title;
    Align align{Align::left};
};

struct Table {
    std::vector<Column> columns;
    std::vector<std::vector<std::string>> rows;  // as many cells as there are columns
};

// Titles and rows, two spaces between columns, no space at the ends of lines. Titles alone where
// there are no rows.
[[nodiscard]] std::string render(const Table& table);
// Each row's first cell padded, then the second: "name     value".
[[nodiscard]] std::string render_facts(
    const std::vector<std::pair<std::string, std::string>>& facts);

}  // namespace bore::ctl
