// Hex digits, for UUIDs and authentication tags. Private to this folder.
#pragma once

#include <string_view>

namespace bore::protocol {

inline constexpr std::string_view hex_digits = "0123456789abcdef";

// Either case; -1 when it is no hex digit.
constexpr int hex_digit(char character) {
    if (character >= '0' && character <= '9') {
        return character - '0';
    }
    if (character >= 'a' && character <= 'f') {
        return character - 'a' + 10;
    }
    if (character >= 'A' && character <= 'F') {
        return character - 'A' + 10;
    }
    return -1;
}

constexpr int hex_byte(char high, char low) {
    const int high_value = hex_digit(high);
    const int low_value = hex_digit(low);
    return high_value < 0 || low_value < 0 ? -1 : high_value * 16 + low_value;
}

}  // namespace bore::protocol
