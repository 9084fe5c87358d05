// One line of JSON: the result of a run, or what is reported on the way. Names are identifiers
// chosen here; texts may come from outside (a relay's Error message) and are escaped.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace bore::bench {

class JsonLine {
  public:
    JsonLine& add(std::string_view name, std::string_view text) {
        return raw(name, '"' + escaped(text) + '"');
    }
    JsonLine& add(std::string_view name, const char* text) {
        return add(name, std::string_view(text));
    }
    JsonLine& add(std::string_view name, const std::string& text) {
        return add(name, std::string_view(text));
    }
    JsonLine& add(std::string_view name, std::same_as<bool> auto value) {
        return raw(name, value ? "true" : "false");
    }
    JsonLine& add(std::string_view name, std::integral auto value)
        requires(!std::same_as<decltype(value), bool>)
    {
        return raw(name, std::to_string(value));
    }
    // To a millionth: the processor time of a short run is less than a millisecond. JSON knows no
    // infinity; a rate over no time is 0.
    JsonLine& add(std::string_view name, double value) {
        char text[64];
        std::snprintf(text, sizeof text, "%.6f", std::isfinite(value) ? value : 0.0);
        return raw(name, text);
    }
    JsonLine& add(std::string_view name, const JsonLine& object) {
        return raw(name, object.text());
    }
    // `value` is JSON already, for example a list.
    JsonLine& raw(std::string_view name, const std::string& value) {
        body_ += body_.empty() ? "\"" : ",\"";
        body_ += escaped(name);
        body_ += "\":";
        body_ += value;
        return *this;
    }

    JsonLine& merge(const JsonLine& other) {
        body_ += body_.empty() || other.body_.empty() ? "" : ",";
        body_ += other.body_;
        return *this;
    }

    [[nodiscard]] std::string text() const { return '{' + body_ + '}'; }

    // Written and flushed at once: whoever started the program waits for it.
    void print(std::FILE* output = stdout) const {
        std::fprintf(output, "{%s}\n", body_.c_str());
        std::fflush(output);
    }

  private:
    // Bytes beyond ASCII become '?': they may be cut UTF-8, and a reader would refuse the line.
    static std::string escaped(std::string_view text) {
        std::string result;
        for (const char one : text) {
            const auto code = static_cast<unsigned char>(one);
            if (one == '"' || one == '\\') {
                result += '\\';
                result += one;
            } else {
                result += code < 0x20 || code > 0x7e ? '?' : one;
            }
        }
        return result;
    }

    std::string body_;
};

}  // namespace bore::bench
