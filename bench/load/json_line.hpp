// One line of JSON for the result of a run. Names and texts are identifiers chosen here, so nothing
// needs escaping.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace bore::bench {

class JsonLine {
  public:
    JsonLine& add(std::string_view name, std::string_view text) {
        return raw(name, '"' + std::string(text) + '"');
    }
    JsonLine& add(std::string_view name, const char* text) {
        return add(name, std::string_view(text));
    }
    JsonLine& add(std::string_view name, std::same_as<bool> auto value) {
        return raw(name, value ? "true" : "false");
    }
    JsonLine& add(std::string_view name, std::unsigned_integral auto value)
        requires(!std::same_as<decltype(value), bool>)
    {
        return raw(name, std::to_string(value));
    }
    JsonLine& add(std::string_view name, double value) {
        char text[64];
        std::snprintf(text, sizeof text, "%.3f", value);
        return raw(name, text);
    }

    // Written and flushed at once: whoever started the program waits for it.
    void print() const {
        std::printf("{%s}\n", body_.c_str());
        std::fflush(stdout);
    }

  private:
    JsonLine& raw(std::string_view name, const std::string& value) {
        body_ += body_.empty() ? "\"" : ",\"";
        body_ += name;
        body_ += "\":";
        body_ += value;
        return *this;
    }

    std::string body_;
};

}  // namespace bore::bench
