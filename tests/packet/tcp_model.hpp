// A TCP end for simulations: small, but real where a relay could go wrong. Sequence numbers,
// windows with scaling, cumulative and selective acknowledgements, timestamps with PAWS,
// retransmission, window probes, half-close. As a receiver it is stricter than a real one: whatever
// no correct sender could have meant (an acknowledgement of bytes never sent, an echo of a
// timestamp never sent, a wrong checksum) is a violation that the simulation reports.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/base/clock.hpp"
#include "dataplane/packet/frame.hpp"

namespace bore::packet::testing {

struct WireEnd {
    std::array<std::uint8_t, 6> mac{};
    std::array<std::uint8_t, 16> address{};  // IPv4 mapped, as in FlowKey
    std::uint16_t port{0};
};

struct WireSegment {
    std::uint32_t sequence{0};
    std::uint32_t acknowledgement{0};
    std::uint8_t flags{0};
    std::uint16_t window{0};
    bool timestamped{false};
    std::uint32_t timestamp{0};
    std::uint32_t echo{0};
    std::uint8_t sack_count{0};
    std::array<std::pair<std::uint32_t, std::uint32_t>, 3> sacks{};
    std::uint16_t mss{0};  // 0 = no such option
    bool scaled{false};
    std::uint8_t window_scale{0};
    bool sack_permitted{false};
    std::span<const std::byte> payload{};

    [[nodiscard]] bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
    [[nodiscard]] std::uint32_t length() const {
        return static_cast<std::uint32_t>(payload.size()) + (has(tcp_syn) ? 1U : 0U) +
               (has(tcp_fin) ? 1U : 0U);
    }
};

struct WireHeader {
    WireEnd source;
    WireEnd destination;
};

// Writes a whole frame with full checksums; returns its length.
std::size_t encode(const WireEnd& from, const WireEnd& to, const WireSegment& segment,
                   std::byte* out);
// Empty when the frame is well formed with right checksums; else what is wrong.
[[nodiscard]] std::string decode(std::span<const std::byte> frame, WireHeader& header,
                                 WireSegment& segment);

struct TcpSettings {
    bool timestamps{true};
    bool sack{true};
    bool scaling{true};
    std::uint8_t window_scale{4};
    std::uint16_t mss{536};
    std::uint32_t buffer_bytes{65'536};
    std::uint32_t initial_sequence{0};
    std::uint32_t clock_offset{0};  // of the timestamp clock, 1 ms per tick
    std::uint32_t burst_segments{10};
    base::Nanoseconds acknowledgement_delay_ns{0};
};

class TcpModel {
  public:
    enum class State : std::uint8_t { closed, syn_sent, syn_received, open, reset };

    class Output {
      public:
        virtual ~Output() = default;
        virtual void emit(TcpModel& from, const WireSegment& segment) = 0;
    };

    void start(Output& output, const TcpSettings& settings) {
        output_ = &output;
        settings_ = settings;
    }
    void connect(base::Nanoseconds now);
    void accept_syn(const WireSegment& syn, base::Nanoseconds now);

    void write(std::span<const std::byte> bytes, base::Nanoseconds now);
    void shut_down(base::Nanoseconds now);  // FIN behind what was written
    void abort(base::Nanoseconds now);      // RST
    // What arrived and was not taken yet; taken(n) opens the window again.
    [[nodiscard]] std::span<const std::byte> unread() const {
        return std::span(received_).subspan(taken_);
    }
    void take(std::size_t size, base::Nanoseconds now);
    void probe(base::Nanoseconds now);  // a keepalive

    void arrive(const WireSegment& segment, base::Nanoseconds now);
    void on_timer(base::Nanoseconds now);
    [[nodiscard]] base::Nanoseconds next_timer() const;  // ~0 = none

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] bool fin_received() const { return fin_received_; }
    [[nodiscard]] bool at_end() const { return fin_received_ && taken_ == received_.size(); }
    [[nodiscard]] bool shut() const { return shut_; }
    [[nodiscard]] bool all_acknowledged() const {  // the FIN included, when there is one
        return unacknowledged_ == end_of_data() + (shut_ ? 1U : 0U);
    }
    [[nodiscard]] std::size_t unacknowledged_bytes() const;
    [[nodiscard]] std::size_t received_bytes() const { return received_.size(); }
    [[nodiscard]] std::span<const std::byte> received() const { return received_; }
    [[nodiscard]] std::size_t written_bytes() const { return queue_.size(); }
    [[nodiscard]] std::uint32_t end_of_data() const {
        return settings_.initial_sequence + 1 + static_cast<std::uint32_t>(queue_.size());
    }
    [[nodiscard]] std::uint32_t receive_next() const {
        return initial_peer_sequence_ + 1 + static_cast<std::uint32_t>(received_.size()) +
               (fin_received_ ? 1U : 0U);
    }
    // What TCP_INFO counts: neither SYN, but a FIN.
    [[nodiscard]] std::uint32_t acknowledged_count() const {
        return unacknowledged_ - (settings_.initial_sequence + 1);
    }
    [[nodiscard]] std::uint32_t received_count() const {
        return receive_next() - (initial_peer_sequence_ + 1);
    }
    [[nodiscard]] std::uint32_t clock(base::Nanoseconds now) const {
        return settings_.clock_offset + static_cast<std::uint32_t>(now / base::millisecond_ns);
    }
    [[nodiscard]] std::uint32_t send_window() const { return send_window_; }
    [[nodiscard]] std::uint16_t peer_mss() const { return peer_mss_; }
    [[nodiscard]] std::uint8_t peer_scale() const { return peer_scale_; }
    [[nodiscard]] std::uint8_t own_scale() const { return scaling_ ? settings_.window_scale : 0; }
    [[nodiscard]] bool scaling() const { return scaling_; }
    [[nodiscard]] bool timestamps() const { return timestamps_; }
    [[nodiscard]] bool sack() const { return sack_; }
    // When the retransmission timer first ran out, 0 = never; window probes do not count.
    [[nodiscard]] base::Nanoseconds timed_out_at() const { return timed_out_at_; }
    [[nodiscard]] const std::string& violation() const { return violation_; }

  private:
    static constexpr base::Nanoseconds never = ~base::Nanoseconds{0};
    static constexpr base::Nanoseconds first_timeout_ns = 250 * base::millisecond_ns;
    static constexpr base::Nanoseconds refusal_interval_ns = 500 * base::millisecond_ns;
    static constexpr base::Nanoseconds last_timeout_ns = 2 * base::second_ns;

    static constexpr std::uint32_t most_repeated_syns = 6;

    struct Piece {
        std::uint32_t offset;
        std::vector<std::byte> bytes;
    };

    void violate(std::string what);
    void emit(WireSegment segment, base::Nanoseconds now);
    void emit_syn(bool acknowledge, base::Nanoseconds now);
    void acknowledge(base::Nanoseconds now);
    void send_from(std::uint32_t& next, std::size_t most_segments, base::Nanoseconds now);
    void push(base::Nanoseconds now);
    void negotiate(const WireSegment& syn);
    void arrive_handshake(const WireSegment& segment, base::Nanoseconds now);
    [[nodiscard]] bool acceptable(const WireSegment& segment) const;
    [[nodiscard]] bool too_old(const WireSegment& segment) const;
    void compare_with_received(const WireSegment& segment);
    void check_echoes(const WireSegment& segment);
    [[nodiscard]] bool take_acknowledgement(const WireSegment& segment, base::Nanoseconds now);
    void take_payload(const WireSegment& segment, base::Nanoseconds now);
    void store(std::uint32_t offset, std::span<const std::byte> bytes);
    [[nodiscard]] std::uint16_t window_field();
    [[nodiscard]] std::size_t room() const;
    void arm_timeout(base::Nanoseconds now);

    Output* output_{nullptr};
    TcpSettings settings_;
    State state_{State::closed};
    std::string violation_;

    // ---- Sending
    std::vector<std::byte> queue_;  // everything ever written
    bool shut_{false};
    std::uint32_t repeated_syns_{0};
    std::uint32_t unacknowledged_{0};
    std::uint32_t next_{0};
    std::uint32_t highest_{0};  // behind the highest number ever sent
    std::uint32_t send_window_{0};
    std::uint32_t window_sequence_{0};
    std::uint32_t window_acknowledgement_{0};
    std::uint32_t latest_timestamp_{0};
    std::uint32_t duplicates_{0};
    std::uint16_t peer_mss_{536};
    std::uint8_t peer_scale_{0};
    bool scaling_{false};
    bool timestamps_{false};
    bool sack_{false};
    base::Nanoseconds timeout_at_{never};
    base::Nanoseconds timeout_ns_{first_timeout_ns};
    base::Nanoseconds timed_out_at_{0};

    // ---- Receiving
    std::uint32_t initial_peer_sequence_{0};
    std::vector<std::byte> received_;
    std::size_t taken_{0};
    std::vector<Piece> pieces_;  // out of order, by offset
    bool fin_known_{false};
    bool fin_received_{false};
    std::uint32_t fin_offset_{0};
    std::uint32_t window_edge_{0};
    std::uint32_t recent_timestamp_{0};
    std::uint32_t last_acknowledgement_sent_{0};
    std::uint32_t unacknowledged_segments_{0};
    base::Nanoseconds acknowledge_at_{never};
    base::Nanoseconds refusal_at_{0};  // when a segment without data may be refused aloud again
};

}  // namespace bore::packet::testing
