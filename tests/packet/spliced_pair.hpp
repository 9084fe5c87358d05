// One spliced flow in a real flow table, for tests of the packet path: segments in, segments out,
// and what the translation of each should be by the plain words of the rules.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "dataplane/packet/flow_table.hpp"
#include "dataplane/packet/parse.hpp"
#include "dataplane/packet/translate.hpp"
#include "tests/packet/frames.hpp"

namespace bore::packet::test {

// What may differ between two flows that otherwise obey the same rules.
struct Variant {
    std::string name;
    bool v6{false};
    bool tagged_in{false};   // frames of the visitor's leg carry a VLAN tag
    bool tagged_out{false};  // those of the client's leg do
    // Relay's numbers, so that they wrap round here and there.
    std::uint32_t visitor_snd_nxt{1'000'000};
    std::uint32_t visitor_rcv_nxt{2'000'000};
    std::uint32_t client_snd_nxt{3'000'000};
    std::uint32_t client_rcv_nxt{4'000'000};
};
std::ostream& operator<<(std::ostream& to, const Variant& variant);

inline constexpr std::uint16_t visitor_tag = 0x2064;  // priority 1, VLAN 100
inline constexpr std::uint16_t client_tag = 0x00c8;   // VLAN 200
inline constexpr std::uint8_t visitor_port = 0;
inline constexpr std::uint8_t client_port = 1;
inline constexpr std::uint64_t start_ns = 5'000'000'000'000;

// Neither timestamps nor SACK nor limits; window scales 7 and 8 of the peers, 9 and 6 of the relay.
[[nodiscard]] FlowState usual_state(const Variant& variant);

class SplicedPair {
  public:
    explicit SplicedPair(const Variant& variant) : SplicedPair(variant, usual_state(variant)) {}
    SplicedPair(const Variant& variant, const FlowState& state);

    // The same flow once more, in a table of several.
    FlowIndex install_in(FlowTable& where);

    // A bare acknowledgement as the leg's peer would send it first.
    [[nodiscard]] Segment from(abi::Leg in) const;
    // What the usual rules make of a segment that names no numbers before the splice, without
    // options.
    [[nodiscard]] Segment mirrored(abi::Leg in, const Segment& segment) const;

    // Through the packet path; `out` is the frame afterwards.
    PacketReason pass(abi::Leg in, const Segment& segment);
    PacketReason pass(abi::Leg in, const Bytes& frame, std::size_t headroom_bytes = 128);

    [[nodiscard]] const LegState& leg(abi::Leg which) const {
        return state.legs[static_cast<std::size_t>(which)];
    }
    [[nodiscard]] DirectionEntry& entry(abi::Leg in) const {
        return table->direction(direction_of(flow, in));
    }
    [[nodiscard]] FlowCold& cold() const { return table->cold(flow); }
    [[nodiscard]] Passage passage(abi::Leg in) const;

    FlowState state;
    std::unique_ptr<TableMemory> memory;
    std::unique_ptr<FlowTable> table;
    FlowIndex flow{no_flow};
    std::uint64_t now_ns{start_ns};
    // Of the latest pass().
    Bytes out;
    std::uint8_t out_port{0xff};
    Outcome outcome;
    std::size_t headroom_left{0};
    // Of all.
    Tally tally;

  private:
    Variant variant_;
};

[[nodiscard]] inline abi::Leg opposite(abi::Leg leg) {
    return leg == abi::Leg::visitor ? abi::Leg::client : abi::Leg::visitor;
}

}  // namespace bore::packet::test
