// First the codec, then the end: sending, receiving, time.
#include "tests/packet/tcp_model.hpp"

#include <algorithm>
#include <cstring>

namespace bore::packet::testing {

namespace {

bool is_v4(const WireEnd& end) {
    return end.address[10] == 0xff && end.address[11] == 0xff &&
           std::all_of(end.address.begin(), end.address.begin() + 10,
                       [](std::uint8_t byte) { return byte == 0; });
}

// RFC 1071 over 32-bit loads; a second implementation on purpose.
std::uint64_t sum_words(const std::byte* at, std::size_t size) {
    std::uint64_t sum = 0;
    for (; size >= 4; at += 4, size -= 4) {
        sum += load16(at);
        sum += load16(at + 2);
    }
    if (size >= 2) {
        sum += load16(at);
        at += 2;
        size -= 2;
    }
    return size == 0 ? sum : sum + (std::uint64_t{load8(at)} << 8U);
}

std::uint16_t fold_sum(std::uint64_t sum) {
    while (sum >> 16U != 0) {
        sum = (sum & 0xffffU) + (sum >> 16U);
    }
    return static_cast<std::uint16_t>(sum);
}

std::uint64_t pseudo_header(const std::byte* ip, bool v4, std::size_t tcp_bytes) {
    return (v4 ? sum_words(ip + 12, 8) : sum_words(ip + 8, 32)) + 6 + tcp_bytes;
}

std::size_t put_options(std::byte* at, const WireSegment& segment) {
    std::byte* start = at;
    const auto put = [&at](std::initializer_list<unsigned> bytes) {
        for (const unsigned byte : bytes) {
            *at++ = static_cast<std::byte>(byte);
        }
    };
    if (segment.mss != 0) {
        put({2, 4, segment.mss / 256U, segment.mss % 256U});
    }
    if (segment.sack_permitted) {
        put({1, 1, 4, 2});
    }
    if (segment.scaled) {
        put({1, 3, 3, segment.window_scale});
    }
    if (segment.timestamped) {
        put({1, 1, 8, 10});
        store32(at, segment.timestamp);
        store32(at + 4, segment.echo);
        at += 8;
    }
    if (segment.sack_count != 0) {
        put({1, 1, 5, 2U + 8U * segment.sack_count});
        for (std::size_t index = 0; index < segment.sack_count; ++index) {
            store32(at, segment.sacks[index].first);
            store32(at + 4, segment.sacks[index].second);
            at += 8;
        }
    }
    return static_cast<std::size_t>(at - start);
}

std::string get_options(std::span<const std::byte> options, WireSegment& segment) {
    for (std::size_t at = 0; at < options.size();) {
        const std::uint8_t kind = load8(&options[at]);
        if (kind == 0) {
            break;
        }
        if (kind == 1) {
            ++at;
            continue;
        }
        const std::size_t length = at + 1 < options.size() ? load8(&options[at + 1]) : 0;
        if (length < 2 || at + length > options.size()) {
            return "malformed options";
        }
        const std::byte* value = &options[at + 2];
        if (kind == 2) {
            segment.mss = load16(value);
        } else if (kind == 3) {
            segment.scaled = true;
            segment.window_scale = load8(value);
        } else if (kind == 4) {
            segment.sack_permitted = true;
        } else if (kind == 5) {
            segment.sack_count = static_cast<std::uint8_t>(
                std::min<std::size_t>((length - 2) / 8, segment.sacks.size()));
            for (std::size_t index = 0; index < segment.sack_count; ++index) {
                segment.sacks[index] = {load32(value + index * 8), load32(value + index * 8 + 4)};
            }
        } else if (kind == 8) {
            segment.timestamped = true;
            segment.timestamp = load32(value);
            segment.echo = load32(value + 4);
        }
        at += length;
    }
    return {};
}

std::size_t put_ip(std::byte* ip, const WireEnd& from, const WireEnd& to, std::size_t tcp_bytes) {
    if (is_v4(from)) {
        std::memset(ip, 0, 20);
        store8(ip, 0x45);
        store16(ip + 2, static_cast<std::uint16_t>(20 + tcp_bytes));
        store16(ip + 6, 0x4000);
        store8(ip + 8, 64);
        store8(ip + 9, 6);
        std::memcpy(ip + 12, &from.address[12], 4);
        std::memcpy(ip + 16, &to.address[12], 4);
        store16(ip + 10, static_cast<std::uint16_t>(~fold_sum(sum_words(ip, 20))));
        return 20;
    }
    store32(ip, 0x6000'0000);
    store16(ip + 4, static_cast<std::uint16_t>(tcp_bytes));
    store8(ip + 6, 6);
    store8(ip + 7, 64);
    std::memcpy(ip + 8, from.address.data(), 16);
    std::memcpy(ip + 24, to.address.data(), 16);
    return 40;
}

}  // namespace

std::size_t encode(const WireEnd& from, const WireEnd& to, const WireSegment& segment,
                   std::byte* out) {
    std::memcpy(out, to.mac.data(), 6);
    std::memcpy(out + 6, from.mac.data(), 6);
    const bool v4 = is_v4(from);
    store16(out + 12, v4 ? 0x0800 : 0x86dd);
    std::byte* ip = out + 14;
    std::byte* tcp = ip + (v4 ? 20 : 40);
    const std::size_t header = 20 + put_options(tcp + 20, segment);
    const std::size_t tcp_bytes = header + segment.payload.size();
    store16(tcp, from.port);
    store16(tcp + 2, to.port);
    store32(tcp + 4, segment.sequence);
    store32(tcp + 8, segment.acknowledgement);
    store8(tcp + 12, static_cast<std::uint8_t>(header / 4 << 4U));
    store8(tcp + 13, segment.flags);
    store16(tcp + 14, segment.window);
    store32(tcp + 16, 0);
    if (!segment.payload.empty()) {
        std::memcpy(tcp + header, segment.payload.data(), segment.payload.size());
    }
    const std::size_t ip_bytes = put_ip(ip, from, to, tcp_bytes);
    store16(tcp + 16, static_cast<std::uint16_t>(
                          ~fold_sum(pseudo_header(ip, v4, tcp_bytes) + sum_words(tcp, tcp_bytes))));
    return 14 + ip_bytes + tcp_bytes;
}

std::string decode(std::span<const std::byte> frame, WireHeader& header, WireSegment& segment) {
    if (frame.size() < 54) {
        return "short frame";
    }
    std::memcpy(header.destination.mac.data(), frame.data(), 6);
    std::memcpy(header.source.mac.data(), &frame[6], 6);
    const std::byte* ip = &frame[14];
    const bool v4 = load16(&frame[12]) == 0x0800;
    const std::size_t ip_bytes = v4 ? 20 : 40;
    const std::size_t tcp_bytes = v4 ? load16(ip + 2) - std::size_t{20} : load16(ip + 4);
    if (14 + ip_bytes + tcp_bytes > frame.size() || tcp_bytes < 20) {
        return "lengths do not fit";
    }
    if (v4) {
        header.source.address = header.destination.address = {};
        for (auto* end : {&header.source, &header.destination}) {
            end->address[10] = end->address[11] = 0xff;
        }
        std::memcpy(&header.source.address[12], ip + 12, 4);
        std::memcpy(&header.destination.address[12], ip + 16, 4);
        if (fold_sum(sum_words(ip, 20)) != 0xffff) {
            return "wrong IP checksum";
        }
    } else {
        std::memcpy(header.source.address.data(), ip + 8, 16);
        std::memcpy(header.destination.address.data(), ip + 24, 16);
    }
    const std::byte* tcp = ip + ip_bytes;
    if (fold_sum(pseudo_header(ip, v4, tcp_bytes) + sum_words(tcp, tcp_bytes)) != 0xffff) {
        return "wrong TCP checksum";
    }
    header.source.port = load16(tcp);
    header.destination.port = load16(tcp + 2);
    const std::size_t header_bytes = (load8(tcp + 12) >> 4U) * std::size_t{4};
    if (header_bytes < 20 || header_bytes > tcp_bytes) {
        return "wrong data offset";
    }
    segment = WireSegment{.sequence = load32(tcp + 4),
                          .acknowledgement = load32(tcp + 8),
                          .flags = load8(tcp + 13),
                          .window = load16(tcp + 14),
                          .payload = {tcp + header_bytes, tcp_bytes - header_bytes}};
    return get_options({tcp + 20, header_bytes - 20}, segment);
}

// ---- Sending

void TcpModel::violate(std::string what) {
    if (violation_.empty()) {
        violation_ = std::move(what);
    }
}

void TcpModel::emit(WireSegment segment, base::Nanoseconds now) {
    if (segment.has(tcp_ack)) {
        segment.acknowledgement = receive_next();
        last_acknowledgement_sent_ = segment.acknowledgement;
        unacknowledged_segments_ = 0;
        acknowledge_at_ = never;
    }
    if (!segment.has(tcp_syn)) {
        segment.window = window_field();
        segment.timestamped = timestamps_;
    }
    if (segment.timestamped) {
        segment.timestamp = latest_timestamp_ = clock(now);
        segment.echo = segment.has(tcp_ack) ? recent_timestamp_ : 0;
    }
    if (sack_ && segment.has(tcp_ack) && segment.payload.empty()) {
        for (const Piece& piece : pieces_) {
            if (segment.sack_count == segment.sacks.size()) {
                break;
            }
            const std::uint32_t start = initial_peer_sequence_ + 1 + piece.offset;
            segment.sacks[segment.sack_count++] = {
                start, start + static_cast<std::uint32_t>(piece.bytes.size())};
        }
    }
    output_->emit(*this, segment);
}

void TcpModel::emit_syn(bool acknowledge, base::Nanoseconds now) {
    WireSegment syn{.sequence = settings_.initial_sequence,
                    .flags = static_cast<std::uint8_t>(tcp_syn | (acknowledge ? tcp_ack : 0)),
                    .window = static_cast<std::uint16_t>(
                        std::min<std::uint32_t>(settings_.buffer_bytes, 0xffff)),
                    .timestamped = acknowledge ? timestamps_ : settings_.timestamps,
                    .mss = settings_.mss,
                    .scaled = acknowledge ? scaling_ : settings_.scaling,
                    .window_scale = settings_.window_scale,
                    .sack_permitted = acknowledge ? sack_ : settings_.sack};
    window_edge_ = receive_next() + syn.window;
    emit(syn, now);
    timeout_at_ = now + timeout_ns_;
}

void TcpModel::connect(base::Nanoseconds now) {
    state_ = State::syn_sent;
    unacknowledged_ = settings_.initial_sequence;
    next_ = highest_ = settings_.initial_sequence + 1;
    emit_syn(false, now);
}

void TcpModel::negotiate(const WireSegment& syn) {
    scaling_ = settings_.scaling && syn.scaled;
    peer_scale_ = scaling_ ? syn.window_scale : 0;
    timestamps_ = settings_.timestamps && syn.timestamped;
    sack_ = settings_.sack && syn.sack_permitted;
    peer_mss_ = syn.mss == 0 ? std::uint16_t{536} : syn.mss;
    initial_peer_sequence_ = syn.sequence;
    recent_timestamp_ = syn.timestamp;
    send_window_ = syn.window;
    window_sequence_ = syn.sequence;
    window_acknowledgement_ = syn.acknowledgement;
}

void TcpModel::accept_syn(const WireSegment& syn, base::Nanoseconds now) {
    state_ = State::syn_received;
    negotiate(syn);
    unacknowledged_ = settings_.initial_sequence;
    next_ = highest_ = settings_.initial_sequence + 1;
    emit_syn(true, now);
}

void TcpModel::write(std::span<const std::byte> bytes, base::Nanoseconds now) {
    queue_.insert(queue_.end(), bytes.begin(), bytes.end());
    push(now);
}

void TcpModel::shut_down(base::Nanoseconds now) {
    shut_ = true;
    push(now);
}

void TcpModel::abort(base::Nanoseconds now) {
    if (state_ == State::open || state_ == State::syn_received) {
        emit({.sequence = highest_, .flags = tcp_rst | tcp_ack}, now);
    }
    state_ = State::reset;
    timeout_at_ = acknowledge_at_ = never;
}

void TcpModel::acknowledge(base::Nanoseconds now) {
    // Not next_, which goes back for retransmissions: an old number makes the other end ignore the
    // acknowledgement.
    emit({.sequence = highest_, .flags = tcp_ack}, now);
}

void TcpModel::probe(base::Nanoseconds now) {
    if (state_ == State::open) {
        emit({.sequence = unacknowledged_ - 1, .flags = tcp_ack}, now);
    }
}

void TcpModel::send_from(std::uint32_t& next, std::size_t most_segments, base::Nanoseconds now) {
    const std::uint32_t overhead = timestamps_ ? 12 : 0;
    const std::uint32_t mss =
        std::min(peer_mss_, settings_.mss) > overhead + 8
            ? static_cast<std::uint32_t>(std::min(peer_mss_, settings_.mss)) - overhead
            : 8;
    const std::uint32_t limit =
        unacknowledged_ + std::min(send_window_, settings_.burst_segments * mss);
    const std::uint32_t end = end_of_data();
    for (std::size_t count = 0; count < most_segments; ++count) {
        const std::uint32_t left = sequence_before(next, end) ? end - next : 0;
        const std::uint32_t allowed = sequence_before(next, limit) ? limit - next : 0;
        const std::uint32_t size = std::min({left, allowed, mss});
        const bool fin = shut_ && size == left && !sequence_after(next, end);
        if (size == 0 && !fin) {
            break;
        }
        WireSegment segment{.sequence = next, .flags = tcp_ack};
        segment.flags |= static_cast<std::uint8_t>((size != 0 ? tcp_psh : 0) | (fin ? tcp_fin : 0));
        segment.payload = std::span(queue_).subspan(next - settings_.initial_sequence - 1, size);
        next += segment.length();
        highest_ = sequence_after(next, highest_) ? next : highest_;
        emit(segment, now);
    }
}

void TcpModel::push(base::Nanoseconds now) {
    if (state_ != State::open) {
        return;
    }
    send_from(next_, ~std::size_t{0}, now);
    arm_timeout(now);
}

void TcpModel::arm_timeout(base::Nanoseconds now) {
    const bool waiting = unacknowledged_ != end_of_data() + (shut_ ? 1U : 0U);
    if (!waiting) {
        timeout_at_ = never;
    } else if (timeout_at_ == never) {
        timeout_at_ = now + timeout_ns_;
    }
}

// ---- Receiving

std::size_t TcpModel::room() const {
    const std::size_t waiting = received_.size() - taken_;
    return settings_.buffer_bytes > waiting ? settings_.buffer_bytes - waiting : 0;
}

std::uint16_t TcpModel::window_field() {
    const std::uint32_t promised =
        sequence_after(window_edge_, receive_next()) ? window_edge_ - receive_next() : 0;
    const std::uint32_t bytes = std::max(promised, static_cast<std::uint32_t>(room()));
    const std::uint32_t field = std::min<std::uint32_t>(bytes >> own_scale(), 0xffff);
    const std::uint32_t edge = receive_next() + (field << own_scale());
    window_edge_ = sequence_after(edge, window_edge_) ? edge : window_edge_;
    return static_cast<std::uint16_t>(field);
}

void TcpModel::take(std::size_t size, base::Nanoseconds now) {
    const bool was_small = room() < std::min<std::size_t>(settings_.mss, settings_.buffer_bytes);
    taken_ += size;
    if (was_small && room() >= std::min<std::size_t>(settings_.mss, settings_.buffer_bytes / 2) &&
        state_ == State::open) {
        acknowledge(now);
    }
}

void TcpModel::arrive(const WireSegment& segment, base::Nanoseconds now) {
    if (state_ == State::syn_sent || state_ == State::syn_received) {
        arrive_handshake(segment, now);
        if (state_ != State::open) {
            return;
        }
    }
    if (state_ != State::open) {
        return;
    }
    compare_with_received(segment);
    if (too_old(segment) || !acceptable(segment)) {
        // Two whose numbers have both left the other's window would answer each other for ever: as
        // Linux does, one without data is answered at most every 500 ms.
        const bool limited = segment.length() == 0 && now < refusal_at_;
        if (!segment.has(tcp_rst) && !limited) {
            refusal_at_ = segment.length() == 0 ? now + refusal_interval_ns : refusal_at_;
            acknowledge(now);
        }
        return;
    }
    if (segment.has(tcp_rst)) {
        if (segment.sequence == receive_next()) {
            state_ = State::reset;
            timeout_at_ = acknowledge_at_ = never;
        } else {
            acknowledge(now);
        }
        return;
    }
    if (segment.has(tcp_syn)) {
        acknowledge(now);
        return;
    }
    if (!segment.has(tcp_ack)) {
        return;
    }
    check_echoes(segment);
    if (timestamps_ && !sequence_after(segment.sequence, last_acknowledgement_sent_)) {
        recent_timestamp_ = segment.timestamp;
    }
    if (!take_acknowledgement(segment, now)) {
        return;
    }
    take_payload(segment, now);
    push(now);
}

void TcpModel::arrive_handshake(const WireSegment& segment, base::Nanoseconds now) {
    if (state_ == State::syn_sent) {
        if (segment.has(tcp_rst)) {
            state_ =
                segment.has(tcp_ack) && segment.acknowledgement == next_ ? State::reset : state_;
        } else if (segment.has(tcp_syn) && segment.has(tcp_ack) &&
                   segment.acknowledgement == settings_.initial_sequence + 1) {
            negotiate(segment);
            unacknowledged_ = segment.acknowledgement;
            state_ = State::open;
            timeout_at_ = never;
            window_edge_ = receive_next();
            acknowledge(now);
            push(now);
        }
        return;
    }
    if (segment.has(tcp_syn)) {
        emit_syn(true, now);
    } else if (segment.has(tcp_rst)) {
        state_ = segment.sequence == receive_next() ? State::reset : state_;
    } else if (segment.has(tcp_ack) && segment.acknowledgement == settings_.initial_sequence + 1 &&
               !too_old(segment)) {
        unacknowledged_ = segment.acknowledgement;
        state_ = State::open;
        timeout_at_ = never;
    }
}

// PAWS (RFC 7323, 5), and its stern variant: a segment without timestamps where they were agreed
// on.
bool TcpModel::too_old(const WireSegment& segment) const {
    return timestamps_ && !segment.has(tcp_rst) &&
           (!segment.timestamped || sequence_before(segment.timestamp, recent_timestamp_));
}

bool TcpModel::acceptable(const WireSegment& segment) const {
    const std::uint32_t next = receive_next();
    const std::uint32_t length = segment.length();
    const auto inside = [&](std::uint32_t number) {
        return !sequence_before(number, next) && sequence_before(number, window_edge_);
    };
    if (length == 0) {
        return segment.sequence == next || inside(segment.sequence);
    }
    // Nothing of a segment is kept that crosses the edge, as in Linux since 6.17. The FIN needs no
    // room.
    const auto payload_bytes = static_cast<std::uint32_t>(segment.payload.size());
    if (sequence_after(segment.sequence + payload_bytes, window_edge_)) {
        return false;
    }
    return inside(segment.sequence) || inside(segment.sequence + length - 1) ||
           (segment.sequence == next && segment.payload.empty());
}

// Whatever comes again must be what came before, even where it would be discarded unread.
void TcpModel::compare_with_received(const WireSegment& segment) {
    for (std::size_t index = 0; index < segment.payload.size(); ++index) {
        const auto offset =
            static_cast<std::int32_t>(segment.sequence - initial_peer_sequence_ - 1) +
            static_cast<std::int64_t>(index);
        if (offset < 0) {
            violate("a byte before the beginning of the stream");
            return;
        }
        if (static_cast<std::size_t>(offset) >= received_.size()) {
            return;
        }
        if (received_[static_cast<std::size_t>(offset)] != segment.payload[index]) {
            violate("a byte came again as another one");
            return;
        }
    }
}

void TcpModel::check_echoes(const WireSegment& segment) {
    const auto offset = [this](std::uint32_t number) {
        return std::to_string(static_cast<std::int32_t>(number - settings_.initial_sequence));
    };
    if (sequence_after(segment.acknowledgement, highest_)) {
        violate("acknowledges " + offset(segment.acknowledgement) + " but only " +
                offset(highest_) + " was sent");
    }
    if (segment.timestamped && sequence_after(segment.echo, latest_timestamp_)) {
        violate("echoes timestamp " + std::to_string(segment.echo) + " but the latest was " +
                std::to_string(latest_timestamp_));
    }
    for (std::size_t index = 0; index < segment.sack_count; ++index) {
        const auto [left, right] = segment.sacks[index];
        if (!sequence_before(left, right) || sequence_after(right, highest_)) {
            violate("selectively acknowledges [" + offset(left) + ", " + offset(right) +
                    ") but only " + offset(highest_) + " was sent");
        }
    }
}

bool TcpModel::take_acknowledgement(const WireSegment& segment, base::Nanoseconds now) {
    const std::uint32_t number = segment.acknowledgement;
    if (sequence_after(number, highest_)) {
        acknowledge(now);
        return false;
    }
    if (sequence_after(number, unacknowledged_)) {
        unacknowledged_ = number;
        next_ = sequence_before(next_, number) ? number : next_;
        duplicates_ = 0;
        timeout_ns_ = first_timeout_ns;
        timeout_at_ = never;
    } else if (number == unacknowledged_ && segment.length() == 0 && unacknowledged_ != next_) {
        if (++duplicates_ == 3) {
            std::uint32_t again = unacknowledged_;
            send_from(again, 1, now);
        }
    }
    const bool newer =
        sequence_after(segment.sequence, window_sequence_) ||
        (segment.sequence == window_sequence_ && !sequence_before(number, window_acknowledgement_));
    if (newer) {
        send_window_ = std::uint32_t{segment.window} << peer_scale_;
        window_sequence_ = segment.sequence;
        window_acknowledgement_ = number;
    }
    return true;
}

void TcpModel::take_payload(const WireSegment& segment, base::Nanoseconds now) {
    if (segment.length() == 0) {
        return;
    }
    const std::uint32_t before = receive_next();
    const std::uint32_t end = segment.sequence + segment.length();
    const auto first = static_cast<std::int32_t>(segment.sequence - initial_peer_sequence_ - 1);
    std::span<const std::byte> bytes = segment.payload;
    std::uint32_t offset = static_cast<std::uint32_t>(std::max(first, 0));
    if (first < 0) {
        bytes =
            bytes.subspan(std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(-first)));
    }
    // What lies beyond the window is not kept.
    const std::uint32_t edge = window_edge_ - initial_peer_sequence_ - 1;
    const std::size_t fits = edge > offset ? edge - offset : 0;
    const bool whole = bytes.size() <= fits;
    store(offset, bytes.first(std::min(bytes.size(), fits)));
    if (segment.has(tcp_fin) && whole) {
        const std::uint32_t at = end - initial_peer_sequence_ - 2;
        if (fin_known_ && fin_offset_ != at) {
            violate("the FIN moved");
        }
        fin_known_ = true;
        fin_offset_ = at;
    }
    if (fin_known_ && !fin_received_ && received_.size() == fin_offset_) {
        fin_received_ = true;
    }
    if (fin_known_ && received_.size() > fin_offset_) {
        violate("bytes behind the FIN");
    }
    ++unacknowledged_segments_;
    if (receive_next() == before || !pieces_.empty() || fin_received_ ||
        unacknowledged_segments_ >= 2 || settings_.acknowledgement_delay_ns == 0) {
        acknowledge(now);
    } else if (acknowledge_at_ == never) {
        acknowledge_at_ = now + settings_.acknowledgement_delay_ns;
    }
}

void TcpModel::store(std::uint32_t offset, std::span<const std::byte> bytes) {
    if (bytes.empty()) {
        return;
    }
    if (offset > received_.size()) {
        const auto place = std::ranges::lower_bound(pieces_, offset, {}, &Piece::offset);
        pieces_.insert(place, Piece{offset, {bytes.begin(), bytes.end()}});
        return;
    }
    const std::size_t known = received_.size() - offset;
    if (known < bytes.size()) {
        received_.insert(received_.end(), bytes.begin() + static_cast<std::ptrdiff_t>(known),
                         bytes.end());
    }
    while (!pieces_.empty() && pieces_.front().offset <= received_.size()) {
        const Piece piece = std::move(pieces_.front());
        pieces_.erase(pieces_.begin());
        store(piece.offset, piece.bytes);
    }
}

// ---- Time

base::Nanoseconds TcpModel::next_timer() const {
    return std::min(timeout_at_, acknowledge_at_);
}

void TcpModel::on_timer(base::Nanoseconds now) {
    if (now >= acknowledge_at_) {
        acknowledge(now);
    }
    if (now < timeout_at_) {
        return;
    }
    timeout_ns_ = std::min(timeout_ns_ * 2, last_timeout_ns);
    timeout_at_ = now + timeout_ns_;
    if (state_ == State::syn_received && ++repeated_syns_ > most_repeated_syns) {
        state_ = State::closed;  // half-open connections do not wait for ever
    }
    if (state_ == State::syn_sent || state_ == State::syn_received) {
        emit_syn(state_ == State::syn_received, now);
        return;
    }
    if (state_ != State::open) {
        timeout_at_ = never;
        return;
    }
    if (send_window_ == 0 && sequence_before(unacknowledged_, end_of_data())) {
        next_ = unacknowledged_;
        probe(now);
        return;
    }
    timed_out_at_ = timed_out_at_ == 0 ? now : timed_out_at_;
    next_ = unacknowledged_;
    duplicates_ = 0;
    send_from(next_, 1, now);
}

std::size_t TcpModel::unacknowledged_bytes() const {
    return sequence_before(unacknowledged_, end_of_data()) ? end_of_data() - unacknowledged_ : 0;
}

}  // namespace bore::packet::testing
