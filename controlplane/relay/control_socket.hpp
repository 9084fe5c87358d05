// The control socket: connections of operators' programs, one JSON request per line, one JSON
// answer per line. It reads, bounds and answers; what a request means is the handler's
// (commands.hpp). Control thread only.
//
// 1. Accepted, unless there are too many; the peer's user is asked for the log.
// 2. A line is read, of at most command::max_request_bytes, within idle_timeout_ns.
// 3. Parsed; the handler answers, at once or later (flows come from another thread).
// 4. The answer is written within answer_timeout_ns, then the next line is read. Nothing is read
//    meanwhile, so a connection costs one request and one answer of memory at most.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>

#include "controlplane/command/request.hpp"
#include "controlplane/relay/socket_file.hpp"
#include "controlplane/relay/timers.hpp"

namespace bore::relay {

// Who asks, as the kernel says.
struct ControlPeer {
    std::uint32_t user{0};
    std::int32_t process{0};
};

class ControlSocket {
  public:
    static constexpr std::size_t max_connections = 16;
    static constexpr base::Nanoseconds idle_timeout_ns = 60 * base::second_ns;
    static constexpr base::Nanoseconds answer_timeout_ns = 10 * base::second_ns;

    // An answer is one line of JSON without its line feed.
    using Answer = std::function<void(std::string answer)>;

    class Handler {
      public:
        // Calls `answer` once, now or later, on the loop's thread.
        virtual void on_request(const command::Request& request, const ControlPeer& peer,
                                Answer answer) = 0;

      protected:
        ~Handler() = default;
    };

    // `socket` must outlive stop(), and so must `handler`.
    ControlSocket(boost::asio::io_context& io, Timers& timers, const SocketFile& socket,
                  Handler& handler);
    ~ControlSocket();
    ControlSocket(const ControlSocket&) = delete;
    ControlSocket& operator=(const ControlSocket&) = delete;

    void start() { accept(); }
    // Ends every connection, answers under way included.
    void stop();

  private:
    class Connection;

    void accept();
    void admit(boost::asio::local::stream_protocol::socket socket);
    void forget(const Connection& connection);

    Timers& timers_;
    Handler& handler_;
    boost::asio::local::stream_protocol::acceptor acceptor_;
    std::vector<std::shared_ptr<Connection>> connections_;
    Timer rest_timer_{Timer::calling<&ControlSocket::accept>(this)};
};

// {"ok":false,"error":SENTENCE}
[[nodiscard]] std::string refusal(const std::string& sentence);

}  // namespace bore::relay
