// One connection of the service: opening, then its work, then the end.
//   upload    receive to the size or to FIN, send the report, wait for FIN
//   download  send to the size, send FIN, wait for FIN
//   both      the two at once; an upload ended by FIN ends an endless download
//   requests  receive one request, send one response, again
//   echo      send back what comes
#include "bench/load/service.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "bench/load/sockets.hpp"
#include "dataplane/base/check.hpp"

namespace bore::bench {
namespace {

class ServiceConnection final : public Handler {
  public:
    ServiceConnection(EventLoop& loop, Descriptor connection, const FixedWork& fixed)
        : loop_(loop), connection_(std::move(connection)), raw_(fixed.has_value()) {
        loop_.add(connection_.get(), interest_, *this);
        if (fixed) {
            begin(*fixed);
        }
    }

    void own(std::unique_ptr<Handler> self) { self_ = std::move(self); }

    void on_ready(std::uint32_t events) override {
        if (!work_ && !read_opening()) {
            return;
        }
        if ((events & EPOLLERR) != 0) {
            return end();
        }
        switch (*work_) {
            case Work::requests:
                return serve_requests();
            case Work::echo:
                return serve_echo();
            default:
                return serve_bulk(events);
        }
    }

  private:
    static constexpr int receives_per_event = 4;  // then the other streams have their turn
    static constexpr int sends_per_event = 8;

    bool read_opening() {
        const ssize_t count = ::recv(connection_.get(), opening_.data() + opening_filled_,
                                     opening_.size() - opening_filled_, 0);
        if (count <= 0) {
            if (count == 0 || errno != EAGAIN) {
                end();
            }
            return false;
        }
        opening_filled_ += static_cast<std::size_t>(count);
        if (opening_filled_ < opening_.size()) {
            return false;
        }
        const std::optional<Opening> opening = Opening::decode(opening_);
        if (!opening || (opening->work == Work::requests &&
                         (opening->request_bytes() == 0 || opening->response_bytes() == 0))) {
            abort_connection();
            return false;
        }
        begin(*opening);
        return true;
    }

    void begin(const Opening& opening) {
        work_ = opening.work;
        sending_ = *work_ == Work::download || *work_ == Work::both;
        receiving_ = *work_ == Work::upload || *work_ == Work::both;
        endless_ = opening.size_bytes == 0;
        sender_ = PatternSender(opening.size_bytes);
        receiver_ = PatternReceiver(receiving_ ? opening.size_bytes : 0, opening.verify);
        if (*work_ == Work::requests) {
            acknowledge_at_once_ = opening.acknowledge_at_once;
            request_.resize(opening.request_bytes());
            response_.resize(opening.response_bytes());
            expected_.resize(opening.request_bytes());
            fill_with_pattern(response_);
            fill_with_pattern(expected_);
        } else if (*work_ == Work::echo) {
            request_.resize(chunk_size_bytes);
        }
        watch(sending_ ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }

    void serve_bulk(std::uint32_t events) {
        if (sending_ && (events & EPOLLOUT) != 0 && !send_some()) {
            return;
        }
        if ((events & (EPOLLIN | EPOLLHUP)) != 0) {
            receive_some();
        }
    }

    // False when the connection is gone.
    bool send_some() {
        for (int turn = 0; turn < sends_per_event; ++turn) {
            switch (sender_.pump(connection_.get())) {
                case Pump::progress:
                    break;
                case Pump::blocked:
                    return true;
                case Pump::complete:
                    finish_sending();
                    return true;
                default:
                    end();
                    return false;
            }
        }
        return true;
    }

    void finish_sending() {
        sending_ = false;
        watch(EPOLLIN);
        if (!receiving_) {  // else the FIN follows the last byte received
            ::shutdown(connection_.get(), SHUT_WR);
        }
    }

    void receive_some() {
        for (int turn = 0; turn < receives_per_event; ++turn) {
            switch (receiver_.pump(connection_.get())) {
                case Pump::progress:
                    break;
                case Pump::blocked:
                    return;
                case Pump::complete:
                    return finish_receiving();
                case Pump::ended:
                    return visitor_ended();
                case Pump::failed:
                    return end();
            }
        }
    }

    // The size has arrived: report, then only FIN is to come.
    void finish_receiving() {
        receiving_ = false;
        if (receiver_.mismatched() && *work_ == Work::both) {
            return abort_connection();
        }
        if (*work_ == Work::upload) {
            send_report();
        } else if (!sending_) {
            ::shutdown(connection_.get(), SHUT_WR);
        }
        // Only the FIN is to come.
        receiver_ = PatternReceiver(0, false);
    }

    void visitor_ended() {
        if (receiving_) {
            if (*work_ == Work::upload) {
                send_report();
            } else if (!endless_ || receiver_.mismatched()) {
                return abort_connection();  // fewer bytes than announced
            }
        }
        end();
    }

    void send_report() {
        if (raw_) {
            return;
        }
        const auto report = UploadReport{.received_bytes = receiver_.received_bytes(),
                                         .mismatched = receiver_.mismatched()}
                                .encode();
        // 16 bytes into an empty send buffer go at once or never.
        if (::send(connection_.get(), report.data(), report.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(report.size())) {
            reset_on_close(connection_.get());
        }
    }

    void serve_requests() {
        if (response_left_ > 0 && !send_from(response_, response_left_)) {
            return;
        }
        const ssize_t count = ::recv(connection_.get(), request_.data() + request_filled_,
                                     request_.size() - request_filled_, 0);
        if (count <= 0) {
            return receive_failed(count);
        }
        if (acknowledge_at_once_) {
            acknowledge_now(connection_.get());
        }
        request_filled_ += static_cast<std::size_t>(count);
        if (request_filled_ < request_.size()) {
            return;
        }
        request_filled_ = 0;
        if (request_ != expected_) {
            return abort_connection();
        }
        response_left_ = response_.size();
        (void)send_from(response_, response_left_);
    }

    void serve_echo() {
        if (response_left_ > 0 && !send_from(request_, response_left_)) {
            return;
        }
        request_.resize(chunk_size_bytes);
        const ssize_t count = ::recv(connection_.get(), request_.data(), request_.size(), 0);
        if (count <= 0) {
            return receive_failed(count);
        }
        request_.resize(static_cast<std::size_t>(count));
        response_left_ = request_.size();
        (void)send_from(request_, response_left_);
    }

    // Sends the last `left` bytes of a buffer; false while blocked or when the connection ended.
    bool send_from(const std::vector<std::byte>& bytes, std::size_t& left) {
        const ssize_t sent =
            ::send(connection_.get(), bytes.data() + (bytes.size() - left), left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            end();
            return false;
        }
        left -= sent < 0 ? 0 : static_cast<std::size_t>(sent);
        watch(left > 0 ? EPOLLOUT : EPOLLIN);
        return left == 0;
    }

    void receive_failed(ssize_t count) {
        if (count == 0 || errno != EAGAIN) {
            end();
        }
    }

    void watch(std::uint32_t events) {
        if (events != interest_) {
            interest_ = events;
            loop_.modify(connection_.get(), events, *this);
        }
    }

    void abort_connection() {
        reset_on_close(connection_.get());
        end();
    }

    void end() {
        connection_.reset();
        loop_.retire(std::move(self_));
    }

    EventLoop& loop_;
    Descriptor connection_;
    std::unique_ptr<Handler> self_;
    std::uint32_t interest_ = EPOLLIN;
    bool raw_;
    std::array<std::byte, opening_size_bytes> opening_{};
    std::size_t opening_filled_ = 0;
    std::optional<Work> work_;
    bool sending_ = false;
    bool receiving_ = false;
    bool endless_ = false;
    bool acknowledge_at_once_ = false;
    PatternSender sender_;
    PatternReceiver receiver_;
    std::vector<std::byte> request_;
    std::vector<std::byte> expected_;
    std::vector<std::byte> response_;
    std::size_t request_filled_ = 0;
    std::size_t response_left_ = 0;
};

}  // namespace

FixedWork fixed_work_of(const std::string& name) {
    if (name == "asked") {
        return std::nullopt;
    }
    if (name == "sink") {
        return Opening{.work = Work::upload};
    }
    if (name == "source") {
        return Opening{.work = Work::download};
    }
    BORE_CHECK(name == "echo", "a service is asked, sink, source or echo");
    return Opening{.work = Work::echo};
}

void start_service(EventLoop& loop, Descriptor connection, const FixedWork& fixed) {
    auto handler = std::make_unique<ServiceConnection>(loop, std::move(connection), fixed);
    ServiceConnection& reference = *handler;
    reference.own(std::move(handler));
}

}  // namespace bore::bench
