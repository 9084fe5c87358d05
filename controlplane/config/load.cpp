// What both programs share around loading: how errors read, and the process' environment and files.
#include "controlplane/config/load.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace bore::config {

std::string ConfigError::to_string() const {
    return value + ": " + rule + "; " + remedy;
}

Finished usage_errors(std::string_view program, const std::vector<ConfigError>& errors) {
    std::string text = std::string(program) + ": " + std::to_string(errors.size()) +
                       (errors.size() == 1 ? " error" : " errors") + ", nothing was started\n";
    for (std::size_t index = 0; index < errors.size(); ++index) {
        text += "  " + std::to_string(index + 1) + ". " + errors[index].to_string() + "\n";
    }
    return {.exit_code = 2, .standard_output = "", .standard_error = text};
}

std::string version_line(std::string_view program) {
    return std::string(program) + " " BORE_VERSION;
}

Environment environment_of_process(char** environment) {
    Environment result;
    for (char** entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        const std::size_t equals = text.find('=');
        if (equals != std::string_view::npos) {
            result.emplace(text.substr(0, equals), text.substr(equals + 1));
        }
    }
    return result;
}

namespace {

std::expected<std::string, std::error_code> read_whole(int descriptor, bool may_be_pipe) {
    struct stat status{};
    if (fstat(descriptor, &status) != 0) {
        return std::unexpected(std::error_code(errno, std::generic_category()));
    }
    if (S_ISDIR(status.st_mode)) {
        return std::unexpected(std::make_error_code(std::errc::is_a_directory));
    }
    // A pipe is what a shell's <(command) gives; a device would never end.
    if (!S_ISREG(status.st_mode) && !(may_be_pipe && S_ISFIFO(status.st_mode))) {
        return std::unexpected(std::make_error_code(std::errc::not_supported));
    }
    std::string text;
    std::array<char, 16384> buffer{};
    for (;;) {
        const ssize_t got = read(descriptor, buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return std::unexpected(std::error_code(errno, std::generic_category()));
        }
        if (got == 0) {
            return text;
        }
        text.append(buffer.data(), static_cast<std::size_t>(got));
        if (text.size() > max_file_size_bytes) {
            return std::unexpected(std::make_error_code(std::errc::file_too_large));
        }
    }
}

}  // namespace

FileReader file_reader_of_process(Pipes pipes) {
    const bool may_be_pipe = pipes == Pipes::read;
    return [may_be_pipe](const std::string& path) -> std::expected<std::string, std::error_code> {
        // Opening a pipe waits for its writer.
        const int descriptor =
            open(path.c_str(), O_RDONLY | O_CLOEXEC | (may_be_pipe ? 0 : O_NONBLOCK));
        if (descriptor < 0) {
            return std::unexpected(std::error_code(errno, std::generic_category()));
        }
        auto text = read_whole(descriptor, may_be_pipe);
        close(descriptor);
        return text;
    };
}

}  // namespace bore::config
