// The configuration's log levels in the words of spdlog, for the programs that log with it. Header
// only: this folder's library itself knows no spdlog.
#pragma once

#include <spdlog/common.h>

#include "controlplane/config/settings.hpp"

namespace bore::config {

[[nodiscard]] inline spdlog::level::level_enum spdlog_level(LogLevel level) {
    switch (level) {
        case LogLevel::trace:
            return spdlog::level::trace;
        case LogLevel::debug:
            return spdlog::level::debug;
        case LogLevel::info:
            return spdlog::level::info;
        case LogLevel::warning:
            return spdlog::level::warn;
        case LogLevel::error:
            return spdlog::level::err;
        case LogLevel::off:
            break;
    }
    return spdlog::level::off;
}

}  // namespace bore::config
