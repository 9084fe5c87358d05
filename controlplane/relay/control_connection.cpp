// The conversation on the control port, in the order of the header's steps.
#include "controlplane/relay/control_connection.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "controlplane/bore/http_probe.hpp"
#include "controlplane/bore/message.hpp"
#include "controlplane/relay/control_port.hpp"
#include "controlplane/relay/pairs.hpp"
#include "controlplane/relay/sockets.hpp"
#include "controlplane/relay/tunnels.hpp"

namespace bore::relay {

using abi::ControlCounter;
using boost::asio::awaitable;
using boost::asio::use_awaitable;
using protocol::CloseHow;
using protocol::CloseReason;

namespace {

constexpr std::string_view shutting_down_text =
    "this relay is shutting down; try again later or use another relay";
constexpr std::string_view drained_text =
    "this relay takes no new tunnels at present; try again later or use another relay";

std::string_view to_string(CloseReason reason) {
    switch (reason) {
        case CloseReason::none:
            break;
        case CloseReason::end_of_stream:
            return "end of stream";
        case CloseReason::timeout:
            return "timeout";
        case CloseReason::frame_too_long:
            return "frame too long";
        case CloseReason::unparsable:
            return "not a message";
        case CloseReason::unexpected_message:
            return "unexpected message";
        case CloseReason::authentication:
            return "authentication";
        case CloseReason::misfire:
            return "challenge met a data connection";
    }
    return "none";
}

protocol::Step closed_silently() {
    protocol::Step step;
    step.next = protocol::Step::Next::close;
    return step;
}

}  // namespace

ControlConnection::ControlConnection(ControlPort& port, Descriptor socket, Peer peer)
    : port_(port),
      context_(port.context()),
      peer_(std::move(peer)),
      handshake_(context_.policy.handshake),
      raw_(std::move(socket)) {}

ControlConnection::~ControlConnection() {
    port_.on_gone(*this);
}

void ControlConnection::abort() {
    aborted_ = true;
    if (waiting_) {
        waiting_->cancel();
    }
}

// ---- Without waiting

void ControlConnection::begin() {
    const base::Nanoseconds now = base::monotonic_now();
    begun_at_ = now;
    // Read before the handshake starts: whoever has spoken already is not challenged on a hint.
    const auto size = receive(socket(), port_.scratch());
    const bool silent = !size && size.error() == EAGAIN;
    const auto hint = silent && context_.policy.handshake.has_secret
                          ? port_.tunnels().hints().hint(peer_.address.bytes, now)
                          : protocol::DialectHint::unknown;
    Step step = act(handshake_.start(now, hint));
    if (step.next == Step::Next::wait && !silent) {
        step = received(size);
    }
    if (step.next == Step::Next::claim_visitor) {
        claim_visitor(step);
    } else if (step.next == Step::Next::close && step.how != CloseHow::after_error) {
        close_now(step);
    } else {
        keep_unread();
        boost::asio::co_spawn(context_.io, converse(shared_from_this(), step),
                              boost::asio::detached);
    }
}

protocol::Step ControlConnection::received(const std::expected<std::size_t, int>& size) {
    if (!size) {
        return size.error() == EAGAIN ? Step{} : closed_silently();
    }
    read_bytes_ += *size;
    return *size == 0 ? end_of_stream() : consume({port_.scratch().data(), *size});
}

protocol::Step ControlConnection::consume(std::string_view bytes) {
    handshake_.on_bytes();
    if (!std::exchange(spoken_, true) && protocol::is_http_probe(bytes.front())) {
        http_ = true;
        unread_ = bytes;
        return {};
    }
    reader_.feed(bytes);
    return next_frames();
}

protocol::Step ControlConnection::next_frames() {
    Step step;
    while (step.next == Step::Next::wait && handshake_.wants_frame()) {
        const auto frame = reader_.next();
        if (frame.status == protocol::FrameReader::Status::too_long) {
            return act(handshake_.on_frame_too_long());
        }
        if (frame.status != protocol::FrameReader::Status::frame) {
            break;
        }
        step = act(handshake_.on_frame(frame.json));
    }
    return step;
}

protocol::Step ControlConnection::end_of_stream() {
    const auto last = reader_.finish();
    if (last.status == protocol::FrameReader::Status::frame) {
        return act(handshake_.on_frame(last.json));
    }
    return act(handshake_.on_end_of_stream());
}

// A handshake sends at most two frames into an empty socket buffer, so nothing can be left over; a
// write error shows at the next read.
void ControlConnection::write(std::string_view bytes) {
    [[maybe_unused]] const auto sent = send(socket(), bytes);
}

protocol::Step ControlConnection::act(Step step) {
    if (step.next == Step::Next::close) {
        count(step);  // first: who reads the answer finds it counted
    }
    if (!step.send.empty()) {
        write(step.send);
        step.send = {};
    }
    return step;
}

void ControlConnection::claim_visitor(const Step& step) {
    Descriptor client = waiting_ ? Descriptor(waiting_->release()) : std::move(raw_);
    waiting_.reset();
    const bool claimed = port_.pairs().claim(Pairs::Claim{.visitor_id = step.visitor_id,
                                                          .client_address = peer_.address,
                                                          .client_port = peer_.port,
                                                          .read_bytes = read_bytes_,
                                                          .authenticated = step.authenticated,
                                                          .left_over = reader_.take_leftover()},
                                             client);
    if (claimed) {
        count_handshake();
        port_.sources().refund(*peer_.source);
        if (step.learned) {
            port_.tunnels().hints().seen(peer_.address.bytes, *step.learned, base::monotonic_now());
        }
    }
}

void ControlConnection::close_now(const Step& step) {
    if (step.how == CloseHow::reset) {
        reset_on_close(socket());
        // An Accept that names no visitor of its own is somebody's guess, not a misfire.
        if (port_.pairs().reset_visitor(step.visitor_id)) {
            context_.counters.add(ControlCounter::challenge_misfire_total);
            if (step.learned) {
                port_.tunnels().hints().seen(peer_.address.bytes, *step.learned,
                                             base::monotonic_now());
            }
        }
    }
    waiting_.reset();
    raw_.reset();
}

void ControlConnection::count(const Step& step) const {
    switch (step.reason) {
        case CloseReason::none:
        case CloseReason::end_of_stream:  // scanners and health checks connect and close
        case CloseReason::misfire:        // see close_now()
            return;
        case CloseReason::timeout:
            context_.counters.add(ControlCounter::handshake_timeouts_total);
            break;
        case CloseReason::frame_too_long:
        case CloseReason::unparsable:
            context_.counters.add(ControlCounter::frame_errors_total);
            break;
        case CloseReason::unexpected_message:
            context_.counters.add(ControlCounter::handshake_failures_total);
            break;
        case CloseReason::authentication:
            context_.counters.add(ControlCounter::authentication_failures_total);
            break;
    }
    if (context_.log.sample()) {
        context_.log.info("handshake failed", {{"client", peer_.address.to_string()},
                                               {"client_port", peer_.port},
                                               {"reason", to_string(step.reason)}});
    }
}

void ControlConnection::count_handshake() {
    context_.histograms.record(abi::ControlHistogram::handshake_ns,
                               base::monotonic_now() - begun_at_);
}

// The reader looks into the shared read buffer, which the next connection overwrites.
void ControlConnection::keep_unread() {
    if (!http_) {
        std::string rest(reader_.take_leftover());
        unread_ = std::move(rest);
        reader_.feed(unread_);
    }
}

// ---- Waiting

awaitable<void> ControlConnection::converse(std::shared_ptr<ControlConnection> /*self*/,
                                            Step step) {
    // Every co_await is a statement of its own: GCC 12 loses parts of larger expressions.
    register_socket();
    protocol::Verdict verdict;
    while (!http_) {
        switch (step.next) {
            case Step::Next::wait:
                step = co_await wait_for_step();
                break;
            case Step::Next::verify:
                keep_unread();
                verdict = co_await judge();
                step = after(verdict);
                break;
            case Step::Next::open_tunnel:
                co_await open_tunnel(step);
                co_return;
            case Step::Next::claim_visitor:
                claim_visitor(step);
                co_return;
            case Step::Next::close:
                if (step.how == CloseHow::after_error) {
                    co_await farewell();
                } else {
                    close_now(step);
                }
                co_return;
        }
    }
    co_await answer_http();
}

protocol::Step ControlConnection::after(Wake wake) {
    switch (wake) {
        case Wake::aborted:
            break;
        case Wake::timer:
            return act(handshake_.on_timer(base::monotonic_now()));
        case Wake::readable:
            return received(receive(socket(), port_.scratch()));
    }
    return closed_silently();
}

protocol::Step ControlConnection::after(const protocol::Verdict& verdict) {
    const Step step = act(handshake_.on_verdict(verdict));
    return step.next == Step::Next::wait ? next_frames() : step;
}

awaitable<protocol::Step> ControlConnection::wait_for_step() {
    const Wake wake = co_await wait(handshake_.deadline());
    co_return after(wake);
}

awaitable<ControlConnection::Wake> ControlConnection::wait(base::Nanoseconds deadline) {
    if (aborted_) {
        co_return Wake::aborted;
    }
    context_.timers.arm(timer_, deadline);
    co_await waiting_->async_wait(boost::asio::posix::descriptor_base::wait_read,
                                  boost::asio::as_tuple(use_awaitable));
    context_.timers.cancel(timer_);
    const bool timed_out = std::exchange(timer_fired_, false);
    co_return aborted_ ? Wake::aborted : timed_out ? Wake::timer : Wake::readable;
}

void ControlConnection::timer_due() {
    timer_fired_ = true;
    waiting_->cancel();
}

void ControlConnection::register_socket() {
    waiting_.emplace(context_.io, raw_.release());
}

// The seam for a judge that takes its time: this coroutine may wait, and only this connection does.
awaitable<protocol::Verdict> ControlConnection::judge() {
    co_return context_.policy.authentication.judge(handshake_.credential());
}

awaitable<void> ControlConnection::open_tunnel(const Step& step) {
    if (port_.admission() == Admission::open) {
        co_await contest_port(step.port);
        if (aborted_) {
            co_return;
        }
    }
    std::expected<void, std::string> opened = std::unexpected(
        std::string(port_.admission() == Admission::drained ? drained_text : shutting_down_text));
    if (port_.admission() == Admission::open) {
        opened = port_.tunnels().open(
            step.port,
            TunnelClient{
                .address = peer_.address,
                .port = peer_.port,
                .source = peer_.source,
                .authenticated = handshake_.credential().kind == protocol::Credential::Kind::tag,
                .visitors_need_authentication = step.visitors_need_authentication,
                // Where no secret was asked for the client speaks first, as the fork's do.
                .dialect = step.learned.value_or(protocol::Dialect::fork)},
            port_.pairs(), *waiting_);
    }
    if (opened) {
        count_handshake();
    } else {
        write(protocol::encode_error(opened.error()).view());
        co_await farewell();
    }
}

// A client asks for a port that one of our tunnels holds. When both have shown the secret and the
// holder's client no longer answers, the port changes hands; a client that answers keeps it.
awaitable<void> ControlConnection::contest_port(std::uint16_t requested) {
    const std::shared_ptr<Tunnel> holder = port_.tunnels().holder_of(requested);
    if (!holder) {
        co_return;
    }
    // One turn of the loop, so that a FIN of the holder that came first is seen first.
    co_await boost::asio::post(context_.io, use_awaitable);
    const bool same_user = holder->client().authenticated &&
                           handshake_.credential().kind == protocol::Credential::Kind::tag;
    if (holder->ended() || !same_user) {
        co_return;
    }
    const bool vanished = co_await holder->client_vanished();
    if (vanished) {
        holder->end(TunnelEnd::replaced);
    }
}

awaitable<void> ControlConnection::answer_http() {
    context_.counters.add(ControlCounter::http_probes_total);
    protocol::HttpProbe probe;
    bool due = probe.feed(unread_);
    while (!due) {
        const Wake wake = co_await wait(handshake_.deadline());
        if (wake != Wake::readable) {
            co_return;
        }
        const auto size = receive(socket(), port_.scratch());
        if (!size && size.error() != EAGAIN) {
            co_return;
        }
        due = size && (*size == 0 || probe.feed({port_.scratch().data(), *size}));
    }
    write(probe.answer());
    co_await farewell();
}

awaitable<void> ControlConnection::farewell() {
    ::shutdown(socket(), SHUT_WR);
    const base::Nanoseconds deadline = base::monotonic_now() + max_drain_ns;
    std::size_t drained_bytes = 0;
    while (drained_bytes < max_drained_bytes) {
        const Wake wake = co_await wait(deadline);
        if (wake != Wake::readable) {
            co_return;
        }
        const auto size = receive(socket(), port_.scratch());
        if ((!size && size.error() != EAGAIN) || (size && *size == 0)) {
            co_return;
        }
        drained_bytes += size.value_or(0);
    }
}

}  // namespace bore::relay
