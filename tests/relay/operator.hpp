// An operator's program: a connection to a relay's control socket, and a folder for the socket.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "controlplane/relay/descriptor.hpp"

namespace bore::relay::testing {

class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "bore-XXXXXX").string();
        path_ = ::mkdtemp(pattern.data());
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() { std::filesystem::remove_all(path_); }

    [[nodiscard]] std::string path(std::string_view name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

class Operator {
  public:
    explicit Operator(const std::string& path)
        : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const timeval patience{.tv_sec = 5, .tv_usec = 0};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        connected_ = ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address),
                               sizeof address) == 0;
    }

    [[nodiscard]] bool connected() const { return connected_; }
    [[nodiscard]] int socket() const { return socket_.get(); }
    void send(std::string_view bytes) {
        (void)::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }
    // The next line; "" at the end of the stream or after five seconds of silence.
    [[nodiscard]] std::string line() {
        while (input_.find('\n') == std::string::npos) {
            char buffer[4096];
            const ssize_t size = ::recv(socket_.get(), buffer, sizeof buffer, 0);
            if (size <= 0) {
                return "";
            }
            input_.append(buffer, static_cast<std::size_t>(size));
        }
        const std::size_t end = input_.find('\n');
        std::string line = input_.substr(0, end);
        input_.erase(0, end + 1);
        return line;
    }
    [[nodiscard]] boost::json::object ask(std::string_view request) {
        send(std::string(request) + "\n");
        const std::string answer = line();
        boost::json::error_code error;
        boost::json::value value = boost::json::parse(answer, error);
        return !error && value.is_object() ? value.get_object() : boost::json::object{};
    }

  private:
    Descriptor socket_;
    bool connected_{false};
    std::string input_;
};

}  // namespace bore::relay::testing
