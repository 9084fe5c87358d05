// The lives behind chaos_peer.hpp.
#include "bench/load/chaos_peer.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include "bench/load/sockets.hpp"

namespace bore::bench {
namespace {

constexpr std::uint64_t announced_bytes = 1'000'000;  // of a transfer that will not be complete
constexpr std::uint64_t slow_read_bytes = 4'096;
constexpr base::Nanoseconds slow_read_interval = 20 * base::millisecond_ns;

Opening opening_of(ChaosKind kind) {
    switch (kind) {
        case ChaosKind::reset_up:
            return {.work = Work::upload, .verify = true};
        case ChaosKind::abrupt_close:
            return {.work = Work::both, .verify = true};
        case ChaosKind::short_upload:
            return {.work = Work::upload, .verify = true, .size_bytes = announced_bytes};
        default:
            return {.work = Work::download};
    }
}

bool ends_by_reset(ChaosKind kind) {
    return kind == ChaosKind::half_opening || kind == ChaosKind::reset_down ||
           kind == ChaosKind::reset_up || kind == ChaosKind::connect_reset;
}

}  // namespace

const std::vector<std::string>& chaos_kinds() {
    static const std::vector<std::string> names = {
        "silent",       "half_opening", "fin_first",   "reset_down", "reset_up",
        "abrupt_close", "short_upload", "slow_reader", "deaf",       "connect_reset"};
    return names;
}

void ChaosPeer::live(ChaosKind kind, base::Nanoseconds length) {
    kind_ = kind;
    was_connected_ = false;
    const std::uint64_t life = ++life_;
    const base::Nanoseconds now = base::monotonic_now();
    // A peer that is refused waits until its life would have been over, too.
    part_.loop.call_at(now + length, [this, life] {
        if (life == life_) {
            leave();
            on_end_(*this);
        }
    });
    if (std::expected<Descriptor, int> connection = part_.dialer.dial()) {
        connection_ = std::move(*connection);
        part_.loop.add(connection_.get(), EPOLLOUT, *this);
    }
}

void ChaosPeer::leave() {
    if (connection_.valid() && ends_by_reset(kind_)) {
        reset_on_close(connection_.get());
    }
    connection_.reset();  // with unread bytes this is a reset, too
    ++life_;
}

void ChaosPeer::on_ready(std::uint32_t) {
    if (!was_connected_) {
        if (connect_error(connection_.get()) != 0) {
            connection_.reset();
            return;
        }
        was_connected_ = true;
        return on_connected();
    }
    work();
}

void ChaosPeer::on_connected() {
    const Opening opening = opening_of(kind_);
    const auto bytes = opening.encode();
    part_.loop.modify(connection_.get(), 0, *this);
    switch (kind_) {
        case ChaosKind::silent:
            return;
        case ChaosKind::half_opening:
            (void)::send(connection_.get(), bytes.data(), bytes.size() / 2, MSG_NOSIGNAL);
            return;
        case ChaosKind::fin_first:
            ::shutdown(connection_.get(), SHUT_WR);
            return;
        case ChaosKind::connect_reset:
            reset_on_close(connection_.get());
            connection_.reset();
            return;
        default:
            break;
    }
    const bool uploads = opening.work != Work::download;
    const std::uint64_t size = kind_ == ChaosKind::short_upload ? announced_bytes / 2
                               : uploads                        ? endless
                                                                : 0;
    sender_ = PatternSender(opening.begin(Direction::up), size);
    sender_.open_with(bytes);
    receiver_ = PatternReceiver(opening.begin(Direction::down), endless, false);
    part_.loop.modify(connection_.get(), EPOLLOUT, *this);
}

// Sends what it has; then each kind reads in its own way, or not.
void ChaosPeer::work() {
    const Pump pump = sender_.pump(connection_.get());
    if (pump == Pump::failed) {
        connection_.reset();  // the target had enough of it
        return;
    }
    if (pump != Pump::complete) {
        return;
    }
    part_.loop.modify(connection_.get(), 0, *this);
    if (kind_ == ChaosKind::short_upload) {
        ::shutdown(connection_.get(), SHUT_WR);
    } else if (kind_ == ChaosKind::slow_reader) {
        read_a_little(life_);
    }
}

void ChaosPeer::read_a_little(std::uint64_t life) {
    if (life != life_ || !connection_.valid()) {
        return;
    }
    const Pump pump = receiver_.pump(connection_.get(), slow_read_bytes);
    if (pump == Pump::ended || pump == Pump::failed) {
        connection_.reset();
        return;
    }
    part_.loop.call_at(base::monotonic_now() + slow_read_interval,
                       [this, life] { read_a_little(life); });
}

}  // namespace bore::bench
