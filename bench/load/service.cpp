// One connection of the service: opening, then its work, then the end.
//   upload     receive to the size or to FIN, send the report, wait for FIN
//   download   send to the size, send FIN, wait for FIN
//   both       the two at once; an upload ended by FIN ends an endless download
//   requests   receive one request, send one response, again
//   after_fin  receive to FIN, wait, send the answer
//   echo       send back what comes
#include "bench/load/service.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "bench/load/sockets.hpp"
#include "dataplane/base/check.hpp"

namespace bore::bench {

class ServiceConnection final : public Handler {
  public:
    ServiceConnection(Service& service, Descriptor connection)
        : service_(service),
          connection_(std::move(connection)),
          raw_(service.fixed_.has_value()),
          began_at_(base::monotonic_now()) {
        service_.part_.loop.add(connection_.get(), interest_, *this);
        if (service.fixed_) {
            begin(*service.fixed_);
        }
    }

    void place_at(Service::Connections::iterator place) { place_ = place; }
    [[nodiscard]] bool has_opened() const { return work_.has_value(); }
    [[nodiscard]] base::Nanoseconds began_at() const { return began_at_; }

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

    void send_answer() {
        sending_ = true;
        watch(EPOLLOUT);
    }

    void end() {
        alive_.reset();
        connection_.reset();
        service_.release(place_);
    }

  private:
    static constexpr int receives_per_event = 4;  // then the other streams have their turn
    static constexpr int sends_per_event = 8;

    bool read_opening() {
        const ssize_t count = ::recv(connection_.get(), opening_.data() + opening_filled_,
                                     opening_.size() - opening_filled_, 0);
        if (count <= 0) {
            receive_failed(count);
            return false;
        }
        opening_filled_ += static_cast<std::size_t>(count);
        if (opening_filled_ < opening_.size()) {
            return false;
        }
        const std::optional<Opening> opening = Opening::decode(opening_);
        if (!opening) {
            corrupt("an opening is not one of bore-load");
            return false;
        }
        begin(*opening);
        return true;
    }

    void begin(const Opening& opening) {
        asked_ = opening;
        work_ = opening.work;
        const bool bulk =
            *work_ == Work::upload || *work_ == Work::download || *work_ == Work::both;
        const std::uint64_t size = opening.size_bytes == 0 ? endless : opening.size_bytes;
        sending_ = *work_ == Work::download || *work_ == Work::both;
        receiving_ = bulk && *work_ != Work::download;
        const bool verify = opening.verify || !bulk;
        std::uint64_t to_receive = receiving_ ? size : endless;
        std::uint64_t to_send = sending_ ? size : 0;
        if (*work_ == Work::requests) {
            to_receive = opening.lower();
        } else if (*work_ == Work::after_fin) {
            to_send = opening.lower();
        }
        sender_ = PatternSender(opening.begin(Direction::down), to_send);
        receiver_ = PatternReceiver(opening.begin(Direction::up), to_receive, verify);
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

    Pump send() {
        const std::uint64_t before = sender_.sent_bytes();
        const Pump pump = sender_.pump(connection_.get());
        service_.part_.live.bytes_down.add(sender_.sent_bytes() - before);
        return pump;
    }

    Pump receive() {
        const std::uint64_t before = receiver_.received_bytes();
        const Pump pump = receiver_.pump(connection_.get());
        service_.part_.live.bytes_up.add(receiver_.received_bytes() - before);
        return pump;
    }

    // False when the connection is gone.
    bool send_some() {
        for (int turn = 0; turn < sends_per_event; ++turn) {
            switch (send()) {
                case Pump::progress:
                    break;
                case Pump::blocked:
                    return true;
                case Pump::complete:
                    return finish_sending();
                default:
                    end();
                    return false;
            }
        }
        return true;
    }

    bool finish_sending() {
        sending_ = false;
        if (*work_ == Work::after_fin) {
            end();  // FIN follows the answer
            return false;
        }
        watch(EPOLLIN);
        if (!receiving_) {  // else the FIN follows the last byte received
            ::shutdown(connection_.get(), SHUT_WR);
        }
        return true;
    }

    void receive_some() {
        for (int turn = 0; turn < receives_per_event; ++turn) {
            switch (receive()) {
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
        if (receiver_.first_mismatch() && *work_ == Work::both) {
            return corrupt("a stream differs");
        }
        if (*work_ == Work::upload) {
            send_report();
        } else if (!sending_) {
            ::shutdown(connection_.get(), SHUT_WR);
        }
        receiver_ = PatternReceiver(0, endless, false);
    }

    void visitor_ended() {
        if (*work_ == Work::after_fin) {
            return answer_later();
        }
        if (receiving_ && *work_ == Work::upload) {
            send_report();
        } else if (receiving_ && receiver_.first_mismatch()) {
            return corrupt("a stream differs");
        } else if (receiving_ && asked_.size_bytes != 0) {
            return abort_connection();  // fewer bytes than announced
        }
        end();
    }

    void answer_later() {
        if (receiver_.first_mismatch()) {
            return corrupt("a request differs");
        }
        watch(0);  // or the FIN would show again and again
        service_.part_.live.requests.add(1);
        alive_ = std::make_shared<char>();
        const base::Nanoseconds when =
            base::monotonic_now() + asked_.upper() * base::millisecond_ns;
        service_.part_.loop.call_at(when, [this, alive = std::weak_ptr(alive_)] {
            if (!alive.expired()) {
                send_answer();
            }
        });
    }

    void send_report() {
        if (raw_) {
            return;
        }
        if (receiver_.first_mismatch()) {
            service_.part_.fail(Reason::corrupt, "an upload differs");
        }
        const auto report = UploadReport{.received_bytes = receiver_.received_bytes(),
                                         .first_mismatch = receiver_.first_mismatch()}
                                .encode();
        // 16 bytes into an empty send buffer go at once or never.
        if (::send(connection_.get(), report.data(), report.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(report.size())) {
            reset_on_close(connection_.get());
        }
    }

    // At most one request is under way; the next one is read when the response has left.
    void serve_requests() {
        if (!sender_.complete() && !send_response()) {
            return;
        }
        const Pump pump = receive();
        if (pump == Pump::blocked) {
            return;
        }
        if (pump == Pump::ended || pump == Pump::failed) {
            return end();
        }
        if (asked_.acknowledge_at_once) {
            acknowledge_now(connection_.get());
        }
        if (receiver_.first_mismatch()) {
            return corrupt("a request differs");
        }
        if (pump == Pump::complete) {
            service_.part_.live.requests.add(1);
            receiver_.extend(asked_.lower());
            sender_.extend(asked_.upper());
            (void)send_response();
        }
    }

    // False while blocked or when the connection ended.
    bool send_response() {
        for (;;) {
            switch (send()) {
                case Pump::progress:
                    break;
                case Pump::blocked:
                    watch(EPOLLOUT);
                    return false;
                case Pump::complete:
                    watch(EPOLLIN);
                    return true;
                default:
                    end();
                    return false;
            }
        }
    }

    void serve_echo() {
        if (echo_left_ > 0 && !send_echo()) {
            return;
        }
        echo_.resize(chunk_size_bytes);
        const ssize_t count = ::recv(connection_.get(), echo_.data(), echo_.size(), 0);
        if (count <= 0) {
            return receive_failed(count);
        }
        service_.part_.live.bytes_up.add(static_cast<std::uint64_t>(count));
        echo_.resize(static_cast<std::size_t>(count));
        echo_left_ = echo_.size();
        (void)send_echo();
    }

    bool send_echo() {
        const ssize_t sent = ::send(connection_.get(), echo_.data() + (echo_.size() - echo_left_),
                                    echo_left_, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            end();
            return false;
        }
        const auto count = sent < 0 ? 0 : static_cast<std::size_t>(sent);
        service_.part_.live.bytes_down.add(count);
        echo_left_ -= count;
        watch(echo_left_ > 0 ? EPOLLOUT : EPOLLIN);
        return echo_left_ == 0;
    }

    void receive_failed(ssize_t count) {
        if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
            end();
        }
    }

    void watch(std::uint32_t events) {
        if (events != interest_) {
            interest_ = events;
            service_.part_.loop.modify(connection_.get(), events, *this);
        }
    }

    void corrupt(const char* what) {
        service_.part_.fail(Reason::corrupt, what);
        abort_connection();
    }

    void abort_connection() {
        reset_on_close(connection_.get());
        end();
    }

    Service& service_;
    Descriptor connection_;
    Service::Connections::iterator place_;
    // Tells a timer that the connection it was meant for is gone.
    std::shared_ptr<char> alive_;
    std::uint32_t interest_ = EPOLLIN;
    const bool raw_;
    const base::Nanoseconds began_at_;
    std::array<std::byte, opening_size_bytes> opening_{};
    std::size_t opening_filled_ = 0;
    std::optional<Work> work_;
    Opening asked_;
    bool sending_ = false;
    bool receiving_ = false;
    PatternSender sender_;
    PatternReceiver receiver_;
    std::vector<std::byte> echo_;
    std::size_t echo_left_ = 0;
};

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

Service::Service(Part& part, FixedWork fixed, base::Nanoseconds opening_timeout)
    : part_(part), fixed_(fixed), opening_timeout_(opening_timeout) {
    if (!fixed_ && opening_timeout_ > 0) {
        part_.loop.call_every(base::second_ns, [this] { close_silent(base::monotonic_now()); });
    }
}

Service::~Service() = default;

void Service::adopt(Descriptor connection) {
    part_.live.connections.add(1);
    part_.live.held.add(1);
    connections_.push_back(std::make_unique<ServiceConnection>(*this, std::move(connection)));
    connections_.back()->place_at(std::prev(connections_.end()));
}

void Service::release(Connections::iterator place) {
    part_.live.held.set(part_.live.held.get() - 1);
    part_.loop.retire(std::move(*place));
    connections_.erase(place);
}

void Service::close_silent(base::Nanoseconds now) {
    for (auto place = connections_.begin(); place != connections_.end();) {
        ServiceConnection& one = **place++;
        if (one.began_at() + opening_timeout_ > now) {
            return;
        }
        if (!one.has_opened()) {
            one.end();
        }
    }
}

void add_service_fields(const Run& run, JsonLine& line) {
    const Failures failures = run.failures();
    line.add("connections", run.total(&Live::connections))
        .add("live", run.total(&Live::held))
        .add("requests", run.total(&Live::requests))
        .add("bytes_received", run.total(&Live::bytes_up))
        .add("bytes_sent", run.total(&Live::bytes_down))
        .add("corrupt", failures.of(Reason::corrupt))
        .add("accept_errors", failures.of(Reason::local));
}

}  // namespace bore::bench
