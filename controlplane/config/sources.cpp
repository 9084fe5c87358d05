// Environment and precedence, and the small text helpers that all sources use.
#include "controlplane/config/sources.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>
#include <utility>

namespace bore::config {
namespace {

// A person mistypes this many letters of a name at most; further off it is another word.
constexpr std::size_t max_edit_count = 4;

// Levenshtein distance, or `limit` as soon as it cannot be less.
std::size_t edit_distance(std::string_view left, std::string_view right, std::size_t limit) {
    if (std::max(left.size(), right.size()) - std::min(left.size(), right.size()) >= limit) {
        return limit;
    }
    std::vector<std::size_t> row(right.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < left.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i + 1);
        std::size_t lowest = row[0];
        for (std::size_t j = 0; j < right.size(); ++j) {
            const std::size_t substituted = diagonal + (left[i] == right[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({substituted, diagonal + 1, row[j] + 1});
            lowest = std::min(lowest, row[j + 1]);
        }
        if (lowest >= limit) {
            return limit;
        }
    }
    return std::min(row.back(), limit);
}

std::string_view trimmed(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

Setting from_variable(const Row& row, std::size_t key_index, SourceKind kind,
                      const std::string& name, const std::string& value) {
    return {.key_index = key_index,
            .kind = kind,
            .origin = "environment " + name,
            .shown = name + "=" + printable_value(*row.info, value) + " (environment)",
            .items = is_list(row.field) ? split_list(value) : std::vector{value}};
}

void read_aliases(const Row& row, std::size_t key_index, const Environment& environment,
                  Collected& into) {
    std::optional<std::pair<std::string, std::string>> first;
    for (const std::string_view alias : row.info->aliases) {
        const auto value = variable(environment, alias);
        if (!value) {
            continue;
        }
        if (first && first->second != *value) {
            into.invalid.insert(key_index);
            into.errors.push_back({first->first + "=" + printable_value(*row.info, first->second) +
                                       " and " + std::string(alias) + "=" +
                                       printable_value(*row.info, *value) + " (environment)",
                                   "both name " + std::string(row.info->name) + " but disagree",
                                   "unset one of them, or set " + environment_name(*row.info) +
                                       ", which wins over both"});
        } else if (!first) {
            first = {std::string(alias), *value};
            into.settings.push_back(
                from_variable(row, key_index, SourceKind::environment_alias, first->first, *value));
        }
    }
}

// The field still holds what counts when the wrong setting goes away.
std::string remedy_for(const Row& row) {
    const std::string kept = row.info->sensitive ? "" : plain_text(row.field);
    return "correct it" + (kept.empty() ? " or leave it out" : ", or leave it out for " + kept);
}

void warn_of_misspelt_variables(const std::vector<std::string>& known,
                                const Environment& environment, Collected& into) {
    for (auto entry = environment.lower_bound("BORE_");
         entry != environment.end() && entry->first.starts_with("BORE_"); ++entry) {
        const std::string& name = entry->first;
        if (std::find(known.begin(), known.end(), name) != known.end()) {
            continue;
        }
        // Closer than for options: other programs have variables of this prefix, too.
        const std::string meant = nearest(name, known);
        if (!meant.empty() && edit_distance(name, meant, 3) < 3) {
            into.warnings.push_back("environment variable " + printable(name) +
                                    " is not known; did you mean " + meant + "?");
        }
    }
}

}  // namespace

std::optional<std::string> variable(const Environment& environment, std::string_view name) {
    const auto found = environment.find(name);
    if (found == environment.end() || found->second.empty()) {
        return std::nullopt;
    }
    return found->second;
}

void read_environment(const Rows& rows, const Environment& environment, Collected& into) {
    std::vector<std::string> known = {"BORE_CONFIG"};
    for (std::size_t index = 0; index < rows.size(); ++index) {
        const Row& row = rows[index];
        const std::string name = environment_name(*row.info);
        if (name.empty()) {
            continue;
        }
        known.push_back(name);
        const auto found = environment.find(name);
        if (found != environment.end() && (!found->second.empty() || row.info->empty_is_a_value)) {
            into.settings.push_back(
                from_variable(row, index, SourceKind::environment, name, found->second));
        } else {
            read_aliases(row, index, environment, into);
        }
    }
    warn_of_misspelt_variables(known, environment, into);
}

std::vector<Origin> apply(const Rows& rows, Collected& collected) {
    std::vector<Origin> origins(rows.size());
    // A source has at most one setting of a key, so this order is a total one.
    std::sort(collected.settings.begin(), collected.settings.end(),
              [](const Setting& left, const Setting& right) {
                  return std::tie(left.kind, left.key_index) <
                         std::tie(right.kind, right.key_index);
              });
    for (const Setting& setting : collected.settings) {
        const Row& row = rows[setting.key_index];
        const auto parsed = parse_value(*row.info, setting.items, row.field);
        if (!parsed) {
            collected.invalid.insert(setting.key_index);
            collected.errors.push_back({setting.shown, parsed.error(), remedy_for(row)});
        }
        origins[setting.key_index] = {setting.kind, setting.origin};
    }
    return origins;
}

std::vector<std::string> split_list(std::string_view text) {
    std::vector<std::string> items;
    if (trimmed(text) == "none") {
        return items;
    }
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        items.emplace_back(trimmed(text.substr(begin, end - begin)));
        begin = end + 1;
    }
    return items;
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
    std::string best;
    std::size_t limit = std::clamp<std::size_t>(word.size() / 3, 2, max_edit_count) + 1;
    for (const std::string& candidate : known) {
        const std::size_t distance = edit_distance(word, candidate, limit);
        if (distance < limit && distance < candidate.size()) {
            best = candidate;
            limit = distance;
        }
    }
    return best;
}

std::optional<std::string> rust_log_level(std::string_view text) {
    // "info", "bore_cli=debug,warn": a bare level is for everything, else a target of ours counts.
    static constexpr std::array<std::string_view, 6> levels = {"trace", "debug", "info",
                                                               "warn",  "error", "off"};
    std::optional<std::string> of_target;
    for (const std::string& directive : split_list(text)) {
        const std::size_t equals = directive.find('=');
        std::string level = directive.substr(equals == std::string::npos ? 0 : equals + 1);
        std::transform(level.begin(), level.end(), level.begin(), [](char letter) {
            return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
        });
        if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
            continue;
        }
        if (equals == std::string::npos) {
            return level;
        }
        if (directive.starts_with("bore")) {
            of_target = level;
        }
    }
    return of_target;
}

}  // namespace bore::config
