// Log lines of the relay: a message and fields, as text or as JSON, to standard error, by spdlog.
// Under systemd the journal adds the time and reads the level from a prefix. Lines per visitor are
// sampled, because a busy relay has thousands of them a second. No secret is ever a field.
// Control thread only.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "controlplane/config/settings.hpp"
#include "dataplane/abi/counters.hpp"

namespace spdlog {
class logger;
}

namespace bore::relay {

struct LogField {
    // Constructors instead of an aggregate, so that any integer type fits without a cast.
    LogField(std::string_view name_, std::string_view text) : name(name_), value(text) {}
    LogField(std::string_view name_, const char* text) : LogField(name_, std::string_view(text)) {}
    LogField(std::string_view name_, const std::string& text)
        : LogField(name_, std::string_view(text)) {}
    LogField(std::string_view name_, std::uint64_t number) : name(name_), value(number) {}
    LogField(std::string_view name_, std::uint32_t number)
        : LogField(name_, std::uint64_t{number}) {}
    LogField(std::string_view name_, std::uint16_t number)
        : LogField(name_, std::uint64_t{number}) {}
    LogField(std::string_view name_, double number) : name(name_), value(number) {}

    std::string_view name;
    std::variant<std::string_view, std::uint64_t, double> value;
};

class Log {
  public:
    using Fields = std::span<const LogField>;
    using FieldList = std::initializer_list<LogField>;

    struct Options {
        config::LogLevel level{config::LogLevel::info};
        config::LogFormat format{config::LogFormat::text};
        std::uint32_t visitor_lines_per_second{10};
        bool color{true};  // where standard error is a terminal
    };

    explicit Log(const Options& options);
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;
    ~Log();

    void configure(const Options& options);
    // Where left-out lines are counted.
    void count_dropped_in(abi::ControlCounters& counters) { counters_ = &counters; }

    void debug(std::string_view message, FieldList fields = {});
    void info(std::string_view message, FieldList fields = {});
    void info(std::string_view message, Fields fields);
    void warning(std::string_view message, FieldList fields = {});
    void error(std::string_view message, FieldList fields = {});

    // True when a line about one visitor or one handshake may be written now.
    [[nodiscard]] bool sample();

  private:
    void write(config::LogLevel level, std::string_view message, Fields fields);

    Options options_;
    abi::ControlCounters* counters_{nullptr};
    std::uint64_t sample_second_{0};
    std::uint32_t samples_left_{0};
    std::unique_ptr<spdlog::logger> logger_;
};

// One line's text after time and level; the format's half of write(), for tests.
[[nodiscard]] std::string format_log_text(std::string_view message, Log::Fields fields);
[[nodiscard]] std::string format_log_json(std::string_view message, Log::Fields fields);

}  // namespace bore::relay
