// Connecting, asking, reading a line.
#include "controlplane/ctl/control_client.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/json/parse.hpp>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "controlplane/command/socket_path.hpp"

namespace bore::ctl {

namespace {

// Longer than the relay takes for any answer.
constexpr timeval patience{.tv_sec = 15, .tv_usec = 0};
// A page of flows is some 80 kB.
constexpr std::size_t max_answer_bytes = 1U << 20U;

class Connection {
  public:
    Connection() : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection() {
        if (socket_ >= 0) {
            ::close(socket_);
        }
    }

    // errno, 0 = connected.
    [[nodiscard]] int connect(const std::string& path) const {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
            return ENAMETOOLONG;
        }
        std::memcpy(address.sun_path, path.data(), path.size());
        return ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
                   ? 0
                   : errno;
    }

    [[nodiscard]] bool send(std::string_view bytes) const {
        while (!bytes.empty()) {
            const ssize_t size = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (size <= 0) {
                return false;
            }
            bytes.remove_prefix(static_cast<std::size_t>(size));
        }
        return true;
    }

    // What came before the line feed, the end, the limit or the end of patience.
    [[nodiscard]] std::string line() const {
        std::string text;
        std::array<char, 16'384> buffer;
        while (text.size() < max_answer_bytes) {
            const ssize_t size = ::recv(socket_, buffer.data(), buffer.size(), 0);
            if (size <= 0) {
                break;
            }
            text.append(buffer.data(), static_cast<std::size_t>(size));
            if (text.back() == '\n') {
                break;
            }
        }
        return text;
    }

  private:
    int socket_;
};

std::string remedy_of(int error_number) {
    switch (error_number) {
        case EACCES:
        case EPERM:
            return "become a member of the socket's group (control-socket-group), or root";
        case ENOENT:
        case ECONNREFUSED:
            return "start the relay, or see its log for where its control socket is";
        default:
            return "see the relay's log";
    }
}

}  // namespace

bool answers(const std::string& path) {
    // EACCES: somebody may be there, but not for this user.
    const int error = Connection().connect(path);
    return error == 0 || error == EACCES || error == EAGAIN;
}

std::expected<boost::json::object, std::string> ask(const std::string& path,
                                                    const command::Request& request) {
    const Connection connection;
    if (const int error = connection.connect(path); error != 0) {
        return std::unexpected(path + ": cannot connect: " + std::strerror(error) + "; " +
                               remedy_of(error));
    }
    // A relay that has too many connections answers before it is asked, so a failed send is told
    // by what can be read.
    (void)connection.send(command::encode_request(request));
    const std::string line = connection.line();
    boost::json::error_code error;
    boost::json::value answer = boost::json::parse(line, error);
    if (error || !answer.is_object()) {
        return std::unexpected(path + ": " +
                               (line.empty() ? "the relay gave no answer; see its log"
                                             : "what answers there is no relay of this version"));
    }
    return answer.get_object();
}

}  // namespace bore::ctl
