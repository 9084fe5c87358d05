// Sets up spdlog's default logger.
#include "controlplane/client/logging.hpp"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <string_view>

#include "controlplane/config/spdlog_level.hpp"

namespace bore::client {

namespace {

// The message with its control characters spelled out, so that a relay's text cannot forge lines;
// for JSON also with quotes and backslashes escaped.
class EscapedMessage : public spdlog::custom_flag_formatter {
  public:
    explicit EscapedMessage(bool json) : json_(json) {}

    void format(const spdlog::details::log_msg& message, const std::tm& /*time*/,
                spdlog::memory_buf_t& out) override {
        static constexpr std::string_view hex = "0123456789abcdef";
        for (const char character : message.payload) {
            const auto byte = static_cast<unsigned char>(character);
            if (byte < 0x20 || byte == 0x7f) {
                const std::string_view front = "\\u00";
                out.append(front.data(), front.data() + front.size());
                out.push_back(hex[byte >> 4U]);
                out.push_back(hex[byte & 15U]);
                continue;
            }
            if (json_ && (character == '"' || character == '\\')) {
                out.push_back('\\');
            }
            out.push_back(character);
        }
    }
    [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
        return spdlog::details::make_unique<EscapedMessage>(json_);
    }

  private:
    bool json_;
};

}  // namespace

void set_up_logging(const config::ClientConfig& config) {
    const bool json = config.log_format == config::LogFormat::json;
    spdlog::sink_ptr sink;
    if (config.color && !json && ::isatty(STDERR_FILENO) != 0) {
        sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_st>();
    } else {
        sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
    }
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<EscapedMessage>('Q', json);
    formatter->set_pattern(json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":"%Q"})"
                                : "%Y-%m-%dT%H:%M:%S.%e %^%l%$ %Q");
    sink->set_formatter(std::move(formatter));
    auto logger = std::make_shared<spdlog::logger>("bore", std::move(sink));
    logger->set_level(config::spdlog_level(config.log_level));
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(std::move(logger));
}

}  // namespace bore::client
