// The transfer behind bulk_visitor.hpp. Level-triggered: after some pumps the other streams have
// their turn.
#include "bench/load/bulk_visitor.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace bore::bench {
namespace {

constexpr int pumps_per_event = 8;
constexpr base::Nanoseconds refill_interval = 10 * base::millisecond_ns;

}  // namespace

BulkVisitor::BulkVisitor(Part& part, OnEnd on_end, std::uint64_t read_bytes_per_s)
    : part_(part), on_end_(std::move(on_end)), read_bytes_per_s_(read_bytes_per_s) {
    if (read_bytes_per_s_ > 0) {
        budget_bytes_ = 0;
        part_.loop.call_every(refill_interval, [this] { refill(); });
    }
}

void BulkVisitor::connect(const Opening& opening) {
    opening_ = opening;
    const std::uint64_t size = opening.size_bytes == 0 ? endless : opening.size_bytes;
    const bool up = opening.work != Work::download;
    const bool down = opening.work != Work::upload;
    sender_ = PatternSender(opening.begin(Direction::up), up ? size : 0);
    sender_.open_with(opening.encode());
    receiver_ = PatternReceiver(opening.begin(Direction::down), down ? size : 0, opening.verify);
    report_filled_ = 0;
    reported_bytes_.reset();
    corrupt_at_.reset();
    stopped_ = false;
    intact_ = false;
    sending_ = true;
    state_ = State::connecting;
    began_at_ = progress_at_ = base::monotonic_now();
    std::expected<Descriptor, int> connection = part_.dialer.dial();
    if (!connection) {
        // Later: the owner may connect again at once, and that would be recursion.
        part_.loop.call_at(progress_at_, [this, error = connection.error()] {
            fail(reason_of_connect(error), std::strerror(error));
        });
        return;
    }
    connection_ = std::move(*connection);
    part_.loop.add(connection_.get(), EPOLLOUT, *this);
}

void BulkVisitor::start() {
    state_ = State::running;
    started_at_ = progress_at_ = base::monotonic_now();
    watch(budget_bytes_ > 0, true);
}

void BulkVisitor::stop(bool abrupt) {
    if (state_ != State::running) {
        return;
    }
    stopped_ = true;
    if (opening_.work != Work::upload && down_bytes() == 0 && !stop_requested()) {
        return fail(Reason::stalled, "a stream without a byte in the whole time");
    }
    if (abrupt || opening_.work == Work::download) {
        return end_well();
    }
    sending_ = false;
    watch(true, false);
    ::shutdown(connection_.get(), SHUT_WR);
}

void BulkVisitor::give_up() {
    if (state_ != State::ended) {
        fail(Reason::stalled, "a stream is not complete at the end");
    }
}

void BulkVisitor::sweep(base::Nanoseconds now) {
    const bool waits = state_ == State::connecting || state_ == State::running;
    if (waits && part_.has_stalled(progress_at_, now)) {
        fail(Reason::stalled, state_ == State::connecting
                                  ? "no answer to a connect"
                                  : "a stream stands still after " + std::to_string(down_bytes()) +
                                        " bytes down, " + std::to_string(sender_.sent_bytes()) +
                                        " up");
    }
}

std::uint64_t BulkVisitor::lost_bytes() const {
    if (state_ != State::ended || intact_) {
        return 0;
    }
    const std::uint64_t due = opening_.size_bytes == 0 ? 0 : receiver_.missing_bytes();
    return due + sender_.sent_bytes() - std::min(sender_.sent_bytes(), reported_bytes_.value_or(0));
}

void BulkVisitor::on_ready(std::uint32_t events) {
    if (state_ == State::connecting) {
        return on_connected();
    }
    if (sending_ && (events & EPOLLOUT) != 0) {
        send_some();
    }
    if (state_ == State::running && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        receive();
    } else if (state_ == State::connected && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        fail(Reason::reset, "the connection ended before it was used");
    }
}

void BulkVisitor::on_connected() {
    if (const int error = connect_error(connection_.get()); error != 0) {
        return fail(reason_of_connect(error), std::strerror(error));
    }
    part_.live.connections.add(1);
    part_.live.held.add(1);
    state_ = State::connected;
    watch(false, false);
}

void BulkVisitor::send_some() {
    for (int turn = 0; turn < pumps_per_event; ++turn) {
        const std::uint64_t before = sender_.sent_bytes();
        const Pump pump = sender_.pump(connection_.get());
        part_.live.bytes_up.add(sender_.sent_bytes() - before);
        if (pump == Pump::blocked) {
            return;
        }
        if (pump == Pump::failed) {
            return fail_with_errno();
        }
        progress_at_ = base::monotonic_now();
        if (pump == Pump::complete) {
            return finish_sending();
        }
    }
}

void BulkVisitor::finish_sending() {
    sending_ = false;
    watch(budget_bytes_ > 0, false);
}

void BulkVisitor::receive() {
    if (opening_.work == Work::upload) {
        receive_report();
    } else if (receiver_.complete()) {
        expect_fin();
    } else {
        receive_some();
    }
}

void BulkVisitor::receive_some() {
    for (int turn = 0; turn < pumps_per_event; ++turn) {
        const std::uint64_t before = receiver_.received_bytes();
        const Pump pump = receiver_.pump(connection_.get(), budget_bytes_);
        const std::uint64_t received = receiver_.received_bytes() - before;
        part_.live.bytes_down.add(received);
        if (pump == Pump::blocked) {
            return;
        }
        if (pump == Pump::failed) {
            return fail_with_errno();
        }
        if (pump == Pump::ended) {
            return stopped_ ? end_well()
                            : fail(Reason::cut, "a stream ended after " +
                                                    std::to_string(down_bytes()) + " bytes");
        }
        progress_at_ = base::monotonic_now();
        if (pump == Pump::complete) {
            return opening_.work == Work::download ? end_well() : expect_fin();
        }
        if (read_bytes_per_s_ > 0) {
            budget_bytes_ -= received;
            if (budget_bytes_ == 0) {
                return watch(false, sending_);
            }
        }
    }
}

// Both ways: the service sends FIN when it has got everything, and a reset otherwise.
void BulkVisitor::expect_fin() {
    std::byte surplus{};
    const ssize_t count = ::recv(connection_.get(), &surplus, 1, 0);
    if (count > 0) {
        fail(Reason::corrupt, "a byte beyond the end of a stream");
    } else if (count < 0 && errno != EAGAIN) {
        fail_with_errno();
    } else if (count == 0) {
        sending_ ? fail(Reason::cut, "the service ended before it had everything") : end_well();
    }
}

void BulkVisitor::receive_report() {
    const ssize_t count = ::recv(connection_.get(), report_.data() + report_filled_,
                                 report_.size() - report_filled_, 0);
    if (count < 0) {
        return errno == EAGAIN ? void() : fail_with_errno();
    }
    if (count == 0) {
        return fail(Reason::cut, "an upload ended without the service's report");
    }
    report_filled_ += static_cast<std::size_t>(count);
    if (report_filled_ < report_.size()) {
        return;
    }
    const UploadReport report = UploadReport::decode(report_);
    reported_bytes_ = report.received_bytes;
    corrupt_at_ = report.first_mismatch;
    if (report.received_bytes != sender_.sent_bytes() && !corrupt_at_) {
        return fail(Reason::cut, std::to_string(report.received_bytes) + " of " +
                                     std::to_string(sender_.sent_bytes()) +
                                     " bytes of an upload arrived");
    }
    end_well();
}

// What the reader may have by now, less what it has.
void BulkVisitor::refill() {
    if (state_ != State::running) {
        return;
    }
    const double seconds = to_seconds(base::monotonic_now() - started_at_);
    const auto allowed =
        static_cast<std::uint64_t>(seconds * static_cast<double>(read_bytes_per_s_));
    if (budget_bytes_ == 0) {
        progress_at_ = base::monotonic_now();  // it was this reader that paused, not the target
    }
    budget_bytes_ = allowed - std::min(allowed, receiver_.received_bytes());
    watch(budget_bytes_ > 0, sending_);
}

void BulkVisitor::watch(bool readable, bool writable) {
    part_.loop.modify(
        connection_.get(),
        (readable ? std::uint32_t{EPOLLIN} : 0U) | (writable ? std::uint32_t{EPOLLOUT} : 0U),
        *this);
}

void BulkVisitor::end_well() {
    if (receiver_.first_mismatch()) {
        corrupt_at_ = receiver_.first_mismatch();
    }
    if (corrupt_at_) {
        return fail(Reason::corrupt, "a stream differs at byte " + std::to_string(*corrupt_at_));
    }
    end(true);
}

void BulkVisitor::fail(Reason reason, const std::string& what) {
    corrupt_at_ = receiver_.first_mismatch() ? receiver_.first_mismatch() : corrupt_at_;
    part_.fail(reason, what);
    end(false);
}

void BulkVisitor::fail_with_errno() {
    fail(reason_of_stream(errno), std::string("a stream after ") + std::to_string(down_bytes()) +
                                      " bytes down: " + std::strerror(errno));
}

void BulkVisitor::end(bool intact) {
    const bool was_up = state_ == State::connected || state_ == State::running;
    part_.live.held.set(part_.live.held.get() - (was_up ? 1 : 0));
    connection_.reset();
    sending_ = false;
    intact_ = intact;
    state_ = State::ended;
    on_end_(*this);
}

}  // namespace bore::bench
