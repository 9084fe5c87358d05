// What happens to a frame between wire and kernel. From the wire: spliced tuple? followed leg? port
// of a tunnel or of the control plane? From the kernel: the same, and what its frames teach.
//
// The acknowledgement of Accept (trap 3): a client whose first round trip lacks the visitor's leg
// takes the path for short and leaves slow start at once. Its bare acknowledgements are therefore
// held back from Accept on, the latest one kept, until the splice, which goes on holding it back
// for the visitor's round trip, or until the pair goes to the stream engine, or 180 ms.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/packet/flow_end.hpp"
#include "dataplane/packet/handoff.hpp"
#include "dataplane/packet/legs.hpp"

namespace bore::packet {

class LegPath {
  public:
    LegPath(SlowPathContext& context, Legs& legs, Handoffs& handoffs, Flows& flows)
        : context_(context), legs_(legs), handoffs_(handoffs), flows_(flows) {}

    void from_wire(std::uint32_t worker_index, std::uint8_t port_index,
                   std::span<const std::byte> frame);
    void from_kernel(std::uint8_t port_index, std::span<const std::byte> frame);

  private:
    // A frame from the wire with what is known of it.
    struct Arrival {
        std::span<const std::byte> frame;
        TcpView view;
        std::uint32_t worker_index;
        std::uint8_t port_index;
    };

    void not_tcp_from_wire(std::uint8_t port_index, std::span<const std::byte> frame);
    void syn_from_wire(const Arrival& arrival, const FlowKey& key);
    void arrive(Leg& leg, const Arrival& arrival);
    void arrive_passing(Leg& leg, const Arrival& arrival);
    void arrive_holding(Leg& leg, const Arrival& arrival);
    void arrive_frozen(Leg& leg, const Arrival& arrival);
    [[nodiscard]] Leg* follow(const FlowKey& key, const Arrival& arrival);
    static void learn(Leg& leg, const Arrival& arrival);
    void pass(const Arrival& arrival) { context_.to_kernel(arrival.port_index, arrival.frame); }
    void pass_stripped(const Arrival& arrival);
    void end_if_finished(Leg& leg);
    [[nodiscard]] bool is_ours(std::uint16_t own_port) const;

    void syn_from_kernel(std::uint8_t port_index, std::span<const std::byte> frame,
                         const TcpView& view, const FlowKey& key);
    // Whether the frame goes on to the wire.
    [[nodiscard]] bool leave(Leg& leg, std::uint8_t port_index, std::span<const std::byte> frame,
                             const TcpView& view);
    void to_wire(std::uint8_t port_index, std::span<const std::byte> frame);

    SlowPathContext& context_;
    Legs& legs_;
    Handoffs& handoffs_;
    Flows& flows_;
    std::vector<std::byte> scratch_;  // a frame that is rewritten on its way
};

// Whether this payload of a connection to the control port contains an Accept message, alone or
// behind others. A guess that costs nothing when it is wrong: an acknowledgement comes later.
[[nodiscard]] bool contains_accept(std::span<const std::byte> payload);

}  // namespace bore::packet
