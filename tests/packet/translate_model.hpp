// A naive model of the translation. It keeps positions in both streams as 64-bit numbers that start
// at the splice and never wrap, decides by the rules as they are written down, and builds what
// should leave from fields.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "dataplane/abi/packet_counters.hpp"
#include "tests/packet/spliced_pair.hpp"

namespace bore::packet::test::model {

using abi::Leg;

inline constexpr std::int64_t near = 65'536;
inline constexpr std::int64_t max_flight = std::int64_t{1} << 30;

struct Option {
    enum class Kind : std::uint8_t { nop, timestamps, sack, unknown, malformed };
    Kind kind{Kind::nop};
    std::uint32_t value{0};
    std::uint32_t echo{0};
    std::vector<std::pair<std::int64_t, std::int64_t>> blocks;  // positions, as acknowledgements
};

// A segment in the model's terms.
struct Given {
    Leg in{};
    std::int64_t sequence{0};
    std::int64_t acknowledgement{0};
    std::uint8_t flags{tcp_ack};
    std::uint8_t reserved_flags{0};
    std::uint8_t hop_limit{64};
    std::uint8_t traffic_class{0};
    std::uint16_t window{0};
    Bytes payload;
    std::vector<Option> options;
    std::size_t padding_bytes{0};
    std::uint16_t checksum_error{0};
    bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
};

struct Direction {
    std::int64_t next{0};
    std::int64_t acknowledged{0};
    std::int64_t edge{0};
    std::uint64_t delivered{0};
    std::int64_t fin_end{-1};
    bool fin_acknowledged{false};
    bool reset{false};
    bool closed{false};
    bool hold{false};
    bool unheard{false};  // what its peer acknowledges, by the look of the other one
    std::uint32_t peer_timestamp{0};
};

struct Verdict {
    PacketReason reason{PacketReason::spliced};
    Segment out;
    std::uint32_t delivered{0};
    std::size_t split_bytes{0};
    bool event{false};
    bool taken_back{false};  // a FIN
};

class Model {
  public:
    explicit Model(const SplicedPair& pair) : pair_(pair) {
        for (const Leg leg : {Leg::visitor, Leg::client}) {
            at(leg).edge = pair.leg(leg).peer_window_bytes;
            at(leg).peer_timestamp = pair.leg(leg).peer_timestamp;
        }
        at(Leg::visitor).hold = pair.state.ack_hold_back != 0;
    }

    Direction& at(Leg leg) { return directions_[static_cast<std::size_t>(leg)]; }

    Segment wire(const Given& given) const;
    Verdict judge(const Given& arrived, std::uint64_t now_ns);

  private:
    PacketReason judge_flags(const Given& given);
    PacketReason judge_numbers(const Given& given);
    Given answered(const Given& arrived);
    bool may_come_next(const Given& given);
    Bytes options_out(const Given& given, std::uint64_t now_ns);
    void remember(const Given& rest, Verdict& verdict);
    Bytes sack_out(const Given& given, const Option& option, std::size_t most) const;

    const SplicedPair& pair_;
    std::array<Direction, 2> directions_;
};

}  // namespace bore::packet::test::model
