// serve: listens and gives every connection to the service. plain-client: a tunnel client written
// by hand on plain sockets (Hello, then one Accept per Connection) that is its own service, so that
// a measurement of the relay has no second program behind the tunnel.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "bench/load/json_line.hpp"
#include "bench/load/modes.hpp"
#include "bench/load/service.hpp"
#include "bench/load/sockets.hpp"

namespace bore::bench {
namespace {

class Listener final : public Handler {
  public:
    Listener(EventLoop& loop, const ServeOptions& options)
        : loop_(loop), fixed_(fixed_work_of(options.as)) {
        listener_ = listen_on(resolve(options.listen), port_);
        loop_.add(listener_.get(), EPOLLIN, *this);
    }

    [[nodiscard]] std::uint16_t port() const { return port_; }

    void on_ready(std::uint32_t) override {
        for (;;) {
            Descriptor connection = accept_one(listener_.get());
            if (!connection.valid()) {
                return;
            }
            start_service(loop_, std::move(connection), fixed_);
        }
    }

  private:
    EventLoop& loop_;
    const FixedWork fixed_;
    Descriptor listener_;
    std::uint16_t port_ = 0;
};

// Connects to the relay, sends Accept and passes the socket to the service.
class DataConnection final : public Handler {
  public:
    static void start(EventLoop& loop, const Endpoint& relay, std::string_view id,
                      const FixedWork& fixed) {
        std::unique_ptr<DataConnection> self(new DataConnection(loop, relay, id, fixed));
        DataConnection& reference = *self;
        reference.self_ = std::move(self);
    }

    void on_ready(std::uint32_t) override {
        if (const int error = connect_error(connection_.get()); error != 0) {
            errno = error;
            die_errno("data connection to the relay");
        }
        // The terminating NUL of the string is the frame's terminator.
        if (::send(connection_.get(), accept_.c_str(), accept_.size() + 1, MSG_NOSIGNAL) !=
            static_cast<ssize_t>(accept_.size() + 1)) {
            die_errno("send Accept");
        }
        loop_.remove(connection_.get());
        start_service(loop_, std::move(connection_), fixed_);
        loop_.retire(std::move(self_));
    }

  private:
    DataConnection(EventLoop& loop, const Endpoint& relay, std::string_view id,
                   const FixedWork& fixed)
        : loop_(loop),
          fixed_(fixed),
          connection_(start_connect(relay)),
          accept_("{\"Accept\":\"" + std::string(id) + "\"}") {
        loop_.add(connection_.get(), EPOLLOUT, *this);
    }

    EventLoop& loop_;
    const FixedWork& fixed_;
    Descriptor connection_;
    const std::string accept_;
    std::unique_ptr<Handler> self_;
};

class ControlConnection final : public Handler {
  public:
    ControlConnection(EventLoop& loop, const PlainClientOptions& options)
        : loop_(loop),
          relay_(resolve(options.to)),
          fixed_(fixed_work_of(options.as)),
          connection_(connect_now(relay_)) {
        const std::string hello = "{\"Hello\":" + std::to_string(options.port) + "}";
        if (::send(connection_.get(), hello.c_str(), hello.size() + 1, MSG_NOSIGNAL) < 0) {
            die_errno("send Hello");
        }
        loop_.add(connection_.get(), EPOLLIN, *this);
    }

    [[nodiscard]] bool ended() const { return ended_; }

    void on_ready(std::uint32_t) override {
        char piece[16 * 1024];
        const ssize_t count = ::recv(connection_.get(), piece, sizeof piece, 0);
        if (count <= 0) {
            ended_ = count == 0 || errno != EAGAIN;
            return;
        }
        received_.append(piece, static_cast<std::size_t>(count));
        std::size_t begin = 0;
        for (;;) {
            const std::size_t end = received_.find('\0', begin);
            if (end == std::string::npos) {
                break;
            }
            on_frame(std::string_view(received_).substr(begin, end - begin));
            begin = end + 1;
        }
        received_.erase(0, begin);
    }

  private:
    // Relays write compact JSON with exactly one key, so a prefix tells the message.
    void on_frame(std::string_view frame) {
        constexpr std::string_view hello = "{\"Hello\":";
        constexpr std::string_view connection = "{\"Connection\":\"";
        if (frame.starts_with(connection) && frame.ends_with("\"}")) {
            frame.remove_prefix(connection.size());
            frame.remove_suffix(2);
            DataConnection::start(loop_, relay_, frame, fixed_);
        } else if (frame.starts_with(hello)) {
            const std::string digits(frame.substr(hello.size()));
            JsonLine().add("port", std::strtoul(digits.c_str(), nullptr, 10)).print();
        } else if (frame != "\"Heartbeat\"") {
            die("the relay answered " + std::string(frame));
        }
    }

    EventLoop& loop_;
    const Endpoint relay_;
    const FixedWork fixed_;
    Descriptor connection_;
    std::string received_;
    bool ended_ = false;
};

}  // namespace

void run_serve(const ServeOptions& options) {
    require_descriptors(64);
    EventLoop loop;
    const Listener listener(loop, options);
    JsonLine().add("port", static_cast<unsigned>(listener.port())).print();
    loop.run_forever();
}

int run_plain_client(const PlainClientOptions& options) {
    require_descriptors(64);
    EventLoop loop;
    const ControlConnection control(loop, options);
    (void)loop.run_until(~base::Nanoseconds{0}, [&control] { return control.ended(); });
    return 0;
}

}  // namespace bore::bench
