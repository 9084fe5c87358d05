// Formatting of fields and the set-up of spdlog.
#include "controlplane/relay/log.hpp"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "controlplane/config/spdlog_level.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::relay {

namespace {

// The journal reads "<6>" in front of a line as its priority (sd-daemon(3)).
class JournalPriority : public spdlog::custom_flag_formatter {
  public:
    void format(const spdlog::details::log_msg& message, const std::tm& /*time*/,
                spdlog::memory_buf_t& out) override {
        const std::string_view prefix = message.level >= spdlog::level::err    ? "<3>"
                                        : message.level == spdlog::level::warn ? "<4>"
                                        : message.level == spdlog::level::info ? "<6>"
                                                                               : "<7>";
        out.append(prefix.data(), prefix.data() + prefix.size());
    }
    [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
        return spdlog::details::make_unique<JournalPriority>();
    }
};

// $JOURNAL_STREAM names the device and inode of the stream that leads to the journal.
bool standard_error_is_journal() {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat status{};
    if (stream == nullptr || ::fstat(STDERR_FILENO, &status) != 0) {
        return false;
    }
    return std::string_view(stream) ==
           std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

void append_number(std::string& out, const LogField& field) {
    std::array<char, 32> digits{};
    char* const end = digits.data() + digits.size();
    std::to_chars_result result{};
    if (const auto* number = std::get_if<std::uint64_t>(&field.value)) {
        result = std::to_chars(digits.data(), end, *number);
    } else {
        result = std::to_chars(digits.data(), end, std::get<double>(field.value),
                               std::chars_format::fixed, 3);
    }
    out.append(digits.data(), result.ptr);
}

// Control characters would let a peer's text forge lines; the quotes are for JSON and for text
// with spaces.
void append_quoted(std::string& out, std::string_view text) {
    out += '"';
    for (const char character : text) {
        const auto byte = static_cast<unsigned char>(character);
        if (character == '"' || character == '\\') {
            out += '\\';
            out += character;
        } else if (byte < 0x20 || byte == 0x7f) {
            static constexpr std::string_view hex = "0123456789abcdef";
            out += "\\u00";
            out += hex[byte >> 4U];
            out += hex[byte & 15U];
        } else {
            out += character;
        }
    }
    out += '"';
}

bool needs_quotes(std::string_view text) {
    if (text.empty()) {
        return true;
    }
    for (const char character : text) {
        const auto byte = static_cast<unsigned char>(character);
        if (byte <= 0x20 || byte == 0x7f || character == '"' || character == '=') {
            return true;
        }
    }
    return false;
}

}  // namespace

std::string format_log_text(std::string_view message, Log::Fields fields) {
    std::string out(message);
    for (const LogField& field : fields) {
        out += ' ';
        out += field.name;
        out += '=';
        const auto* text = std::get_if<std::string_view>(&field.value);
        if (text == nullptr) {
            append_number(out, field);
        } else if (needs_quotes(*text)) {
            append_quoted(out, *text);
        } else {
            out += *text;
        }
    }
    return out;
}

std::string format_log_json(std::string_view message, Log::Fields fields) {
    std::string out = R"("message":)";
    append_quoted(out, message);
    for (const LogField& field : fields) {
        out += ',';
        append_quoted(out, field.name);
        out += ':';
        if (const auto* text = std::get_if<std::string_view>(&field.value)) {
            append_quoted(out, *text);
        } else {
            append_number(out, field);
        }
    }
    return out;
}

Log::Log(const Options& options) {
    configure(options);
}

Log::~Log() = default;

void Log::configure(const Options& options) {
    options_ = options;
    const bool journal = standard_error_is_journal();
    const bool json = options.format == config::LogFormat::json;
    spdlog::sink_ptr sink;
    if (options.color && !json && ::isatty(STDERR_FILENO) != 0) {
        sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_st>();
    } else {
        sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
    }
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JournalPriority>('J');
    if (json) {
        formatter->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
    } else {
        formatter->set_pattern(journal ? "%J%v" : "%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
    }
    sink->set_formatter(std::move(formatter));
    logger_ = std::make_unique<spdlog::logger>("bore-server", std::move(sink));
    logger_->set_level(config::spdlog_level(options.level));
    logger_->flush_on(spdlog::level::trace);
}

bool Log::sample() {
    if (options_.level > config::LogLevel::info) {
        return false;
    }
    const std::uint64_t second = base::monotonic_now() / base::second_ns;
    if (second != sample_second_) {
        sample_second_ = second;
        samples_left_ = options_.visitor_lines_per_second;
    }
    if (samples_left_ > 0) {
        --samples_left_;
        return true;
    }
    if (counters_ != nullptr) {
        counters_->add(abi::ControlCounter::log_lines_dropped_total);
    }
    return false;
}

void Log::write(config::LogLevel level, std::string_view message, Fields fields) {
    if (level < options_.level) {
        return;
    }
    logger_->log(config::spdlog_level(level), options_.format == config::LogFormat::json
                                                  ? format_log_json(message, fields)
                                                  : format_log_text(message, fields));
}

void Log::debug(std::string_view message, FieldList fields) {
    write(config::LogLevel::debug, message, {fields.begin(), fields.size()});
}
void Log::info(std::string_view message, FieldList fields) {
    write(config::LogLevel::info, message, {fields.begin(), fields.size()});
}
void Log::info(std::string_view message, Fields fields) {
    write(config::LogLevel::info, message, fields);
}
void Log::warning(std::string_view message, FieldList fields) {
    write(config::LogLevel::warning, message, {fields.begin(), fields.size()});
}
void Log::error(std::string_view message, FieldList fields) {
    write(config::LogLevel::error, message, {fields.begin(), fields.size()});
}

}  // namespace bore::relay
