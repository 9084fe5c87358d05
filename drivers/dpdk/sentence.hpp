// Error sentences with values in them: sentence("{} of {}", a, b). (GCC 12 has no std::format.)
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace bore::drivers {

// `values` replace the {} of `pattern` in order.
[[nodiscard]] inline std::string fill_in(std::string_view pattern, const std::string* values,
                                         std::size_t count) {
    std::string text;
    std::size_t next = 0;
    while (!pattern.empty()) {
        const std::size_t hole = next < count ? pattern.find("{}") : std::string_view::npos;
        text += pattern.substr(0, hole);
        if (hole == std::string_view::npos) {
            break;
        }
        text += values[next++];
        pattern.remove_prefix(hole + 2);
    }
    return text;
}

template <typename Value>
[[nodiscard]] std::string to_text(const Value& value) {
    if constexpr (std::integral<Value>) {
        return std::to_string(value);
    } else {
        return std::string{value};
    }
}

template <typename... Values>
[[nodiscard]] std::string sentence(std::string_view pattern, const Values&... values) {
    const std::array<std::string, sizeof...(Values)> texts{to_text(values)...};
    return fill_in(pattern, texts.data(), texts.size());
}

// "1 queue", "2 queues"
[[nodiscard]] inline std::string counted(std::uint64_t count, std::string_view noun) {
    return std::to_string(count) + " " + std::string{noun} + (count == 1 ? "" : "s");
}

}  // namespace bore::drivers
