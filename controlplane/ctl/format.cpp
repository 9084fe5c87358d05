// See format.hpp.
#include "controlplane/ctl/format.hpp"

#include <array>
#include <cstdio>
#include <ctime>
#include <string_view>

namespace bore::ctl {

namespace {

constexpr std::array<std::string_view, 7> units{"B", "kB", "MB", "GB", "TB", "PB", "EB"};

// Three digits that count: 1.23, 12.3, 123.
std::string three_digits(double value) {
    std::array<char, 32> text{};
    const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
    return text.data();
}

std::string scaled(double value) {
    std::size_t unit = 0;
    for (; value >= 999.5 && unit + 1 < units.size(); ++unit) {
        value /= 1000;
    }
    const std::string digits =
        unit == 0 ? std::to_string(static_cast<std::uint64_t>(value + 0.5)) : three_digits(value);
    return digits + " " + std::string(units[unit]);
}

std::string pair_of(std::uint64_t large, const char* large_unit, std::uint64_t small,
                    const char* small_unit) {
    return std::to_string(large) + large_unit + " " + std::to_string(small) + small_unit;
}

}  // namespace

std::string bytes_text(std::uint64_t bytes) {
    return scaled(static_cast<double>(bytes));
}

std::string rate_text(double bytes_per_second) {
    return bytes_per_second < 0.5 ? "-" : scaled(bytes_per_second) + "/s";
}

std::string duration_text(base::Nanoseconds duration) {
    const auto number = static_cast<double>(duration);
    if (duration < base::microsecond_ns) {
        return std::to_string(duration) + " ns";
    }
    if (duration < base::millisecond_ns) {
        return three_digits(number / base::microsecond_ns) + " us";
    }
    if (duration < base::second_ns) {
        return three_digits(number / base::millisecond_ns) + " ms";
    }
    const std::uint64_t seconds = duration / base::second_ns;
    if (seconds < 10) {
        return three_digits(number / base::second_ns) + " s";
    }
    if (seconds < 60) {
        return std::to_string(seconds) + " s";
    }
    if (seconds < 3600) {
        return pair_of(seconds / 60, "m", seconds % 60, "s");
    }
    if (seconds < 86'400) {
        return pair_of(seconds / 3600, "h", seconds / 60 % 60, "m");
    }
    return pair_of(seconds / 86'400, "d", seconds / 3600 % 24, "h");
}

std::string time_text(std::uint64_t realtime_ns) {
    const auto seconds = static_cast<std::time_t>(realtime_ns / base::second_ns);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

std::string percent_text(double share) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f %%", share * 100);
    return text.data();
}

}  // namespace bore::ctl
