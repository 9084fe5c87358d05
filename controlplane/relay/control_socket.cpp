// Accepting, reading lines, writing answers.
#include "controlplane/relay/control_socket.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace bore::relay {

namespace {

using Stream = boost::asio::local::stream_protocol;

// No descriptor left: try again, as the listeners do.
constexpr base::Nanoseconds rest_ns = 200 * base::millisecond_ns;

ControlPeer peer_of(int socket) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    (void)::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length);
    return {.user = credentials.uid, .process = credentials.pid};
}

}  // namespace

std::string refusal(const std::string& sentence) {
    boost::json::object answer;
    answer["ok"] = false;
    answer["error"] = sentence;
    return boost::json::serialize(answer);
}

class ControlSocket::Connection : public std::enable_shared_from_this<Connection> {
  public:
    Connection(ControlSocket& owner, Stream::socket socket)
        : owner_(&owner), timers_(owner.timers_), socket_(std::move(socket)) {
        peer_ = peer_of(socket_.native_handle());
    }

    void read() {
        timers_.arm_after(deadline_, idle_timeout_ns);
        boost::asio::async_read_until(
            socket_, boost::asio::dynamic_buffer(input_, command::max_request_bytes + 1), '\n',
            [self = shared_from_this()](const boost::system::error_code& error, std::size_t size) {
                if (self->owner_ == nullptr) {
                    return;
                }
                if (error == boost::asio::error::not_found) {
                    self->last_ = true;
                    self->write(refusal("a request has at most " +
                                        std::to_string(command::max_request_bytes) +
                                        " bytes and a line feed; this one has more"));
                } else if (error) {
                    self->end();
                } else {
                    self->carry_out(size);
                }
            });
    }

    // Ends with its answer, as far as the socket takes it at once.
    void refuse_and_end(const std::string& sentence) {
        const std::string line = refusal(sentence) + "\n";
        (void)::send(socket_.native_handle(), line.data(), line.size(),
                     MSG_DONTWAIT | MSG_NOSIGNAL);
        end();
    }

    void end() {
        if (ControlSocket* const owner = std::exchange(owner_, nullptr)) {
            timers_.cancel(deadline_);
            boost::system::error_code ignored;
            socket_.close(ignored);
            const auto self = shared_from_this();
            owner->forget(*this);
        }
    }

  private:
    void carry_out(std::size_t size) {
        timers_.arm_after(deadline_, answer_timeout_ns);
        const std::string line = input_.substr(0, size - 1);
        input_.erase(0, size);
        const auto request = command::parse_request(line);
        if (!request) {
            write(refusal(request.error()));
            return;
        }
        // The answer may come after this connection's end, even after that of the event loop.
        owner_->handler_.on_request(*request, peer_, [weak = weak_from_this()](std::string text) {
            if (const auto self = weak.lock(); self && self->owner_ != nullptr) {
                self->write(std::move(text));
            }
        });
    }

    void write(std::string answer) {
        output_ = std::move(answer);
        output_ += '\n';
        timers_.arm_after(deadline_, answer_timeout_ns);
        boost::asio::async_write(
            socket_, boost::asio::buffer(output_),
            [self = shared_from_this()](const boost::system::error_code& error, std::size_t) {
                if (self->owner_ == nullptr) {
                    return;
                }
                if (error || self->last_) {
                    self->end();
                } else {
                    self->read();
                }
            });
    }

    ControlSocket* owner_;  // null once ended
    Timers& timers_;
    Stream::socket socket_;
    ControlPeer peer_;
    bool last_{false};
    std::string input_;
    std::string output_;
    Timer deadline_{Timer::calling<&Connection::end>(this)};
};

ControlSocket::ControlSocket(boost::asio::io_context& io, Timers& timers, const SocketFile& socket,
                             Handler& handler)
    : timers_(timers), handler_(handler), acceptor_(io) {
    // Asio closes what it is given, and the name's owner keeps its own.
    boost::system::error_code ignored;
    acceptor_.assign(Stream(), ::fcntl(socket.descriptor(), F_DUPFD_CLOEXEC, 0), ignored);
}

ControlSocket::~ControlSocket() {
    stop();
}

void ControlSocket::stop() {
    timers_.cancel(rest_timer_);
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    while (!connections_.empty()) {
        connections_.back()->end();
    }
}

void ControlSocket::forget(const Connection& connection) {
    std::erase_if(connections_, [&](const auto& known) { return known.get() == &connection; });
}

void ControlSocket::accept() {
    acceptor_.async_accept([this](const boost::system::error_code& error, Stream::socket socket) {
        if (error == boost::asio::error::operation_aborted || !acceptor_.is_open()) {
            return;
        }
        if (error) {
            timers_.arm_after(rest_timer_, rest_ns);
            return;
        }
        admit(std::move(socket));
        accept();
    });
}

void ControlSocket::admit(Stream::socket socket) {
    const bool full = connections_.size() >= max_connections;
    const auto connection = std::make_shared<Connection>(*this, std::move(socket));
    connections_.push_back(connection);
    if (full) {
        connection->refuse_and_end("the control socket has " + std::to_string(max_connections) +
                                   " connections, the most it takes; try again later");
    } else {
        connection->read();
    }
}

}  // namespace bore::relay
