// Spliced flows from their installation to the end of their linger: what the packet path need not
// know of them. Their ends are: both FINs acknowledged; a reset that nothing refuted for 250 ms; no
// byte moved for a timeout; a command. After its end a flow stays in the table, so that late
// segments pass and the kernel never sees them; a new SYN, or need of room, removes it earlier.
//
// Idle means what it means to the stream engine: no byte moved. A byte has moved when the peer's
// highest sequence number or acknowledgement went on; keepalives, window probes without new bytes
// and repeated segments move neither. The packet path keeps no time of that, only of the latest
// frame, so the slow path compares the numbers a few times per timeout: without such frames an end
// is late by 0.3 s at most, with them by a quarter of the timeout.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "dataplane/packet/segment.hpp"
#include "dataplane/packet/slow_path_context.hpp"

namespace bore::packet {

// What a hand-off knows of the flow that it installed.
struct NewFlow {
    FlowIndex flow{no_flow};
    std::uint32_t pair_slot{no_pair};
    std::uint32_t generation{0};
    std::uint64_t tag{0};
    base::Nanoseconds opened_at{0};
    std::array<std::uint64_t, 2> drained_bytes{};  // by who had sent them
    // When the client gets its window update, the acknowledgement of Accept held back until then.
    base::Nanoseconds update_client_at{0};  // 0 = it got it
    SegmentFields client_update;
};

// One per flow beside the table's 192 bytes, so it is kept small: 64.
struct FlowRecord : SlowTimer {
    enum class Phase : std::uint8_t { free, live, lingering };
    Phase phase{Phase::free};
    std::uint8_t resets_to_repeat : 3 {0};
    std::uint8_t first_byte_due : 1 {0};  // it is to be measured yet
    std::uint8_t probes : 4 {0};          // keepalives sent since a peer was heard
    std::uint8_t challenged{0};           // low bits of the activity tick of the latest challenge
    std::uint32_t pair_slot{no_pair};
    std::uint32_t generation{0};  // of the pair
    std::uint64_t tag{0};
    base::Nanoseconds opened_at{0};
    std::uint32_t progress{0};     // digest of sequence numbers and acknowledgements
    std::uint32_t active_tick{0};  // 2^28 ns; when they were last seen to change
};
static_assert(sizeof(FlowRecord) == 64);

class Flows {
  public:
    // A reset that the flow survives was forged (RFC 5961); its victim goes on at once. A segment
    // that came behind the reset refutes it only when it moved something: it may just have been
    // overtaken. If nothing moves, both peers are asked so often whether they are still there.
    static constexpr base::Nanoseconds reset_grace_ns = 250 * base::millisecond_ns;
    static constexpr std::uint8_t reset_probes = 4;
    // After a cut the kernel answers stragglers with resets itself, so it lingers only briefly.
    static constexpr base::Nanoseconds cut_linger_ns = base::second_ns;
    // Resets of a cut are sent again, for the first may have been lost or not have been exact.
    static constexpr std::array<base::Nanoseconds, 2> reset_repeats_ns{50 * base::millisecond_ns,
                                                                       250 * base::millisecond_ns};
    // Something unacknowledged and not a single frame for so long: the sender has given up (Linux
    // after 924 s, tcp_retries2), and nobody will ever end this flow.
    static constexpr base::Nanoseconds stalled_limit_ns = 1'200 * base::second_ns;
    // What the kernel does for its own connections (net.ipv4.tcp_keepalive_*).
    static constexpr base::Nanoseconds keepalive_idle_ns = 7'200 * base::second_ns;
    static constexpr base::Nanoseconds keepalive_interval_ns = 75 * base::second_ns;
    static constexpr std::uint8_t keepalive_probes = 9;
    static constexpr base::Nanoseconds max_check_period_ns = 600 * base::second_ns;
    static constexpr base::Nanoseconds min_check_period_ns = 250 * base::millisecond_ns;
    static_assert(2 * max_check_period_ns <= (base::Nanoseconds{1} << (activity_tick_shift + 15)),
                  "ages are told apart modulo 2^16 ticks");

    explicit Flows(SlowPathContext& context) : context_(context) {}

    void begin(const NewFlow& flow);
    // The packet path saw both FINs acknowledged, or a reset.
    void on_event(FlowIndex flow, std::uint32_t table_generation);
    void on_first_byte(FlowIndex flow, std::uint32_t table_generation, base::Nanoseconds at);
    // False when the pair has no live flow.
    bool close(std::uint32_t pair_slot, std::uint32_t generation);
    void cut_all(abi::EndReason reason);
    void recheck_all();

    // A SYN on the tuple: true when the flow had ended and is removed, so that the SYN may pass.
    // Else it is answered with a challenge (RFC 5961, 4.2).
    [[nodiscard]] bool on_syn(DirectionIndex direction);
    // Removes ended flows until the table has this many free slots, as far as there are any.
    void make_room(std::uint32_t free_slots);

    void on_timer(FlowIndex flow);
    void tick();
    [[nodiscard]] bool has_work() const {
        return recheck_from_ < record_count_ || cut_from_ < record_count_;
    }
    [[nodiscard]] std::uint32_t live_count() const { return live_count_; }
    // For an operator: live flows from this index on, a page of them.
    [[nodiscard]] abi::FlowPage list(FlowIndex from) const;

    // Flows from 0 to here may be in the table.
    [[nodiscard]] FlowIndex end_index() const { return record_count_; }
    [[nodiscard]] bool is_installed(FlowIndex flow) const;
    [[nodiscard]] FlowKey key_of_leg(FlowIndex flow, abi::Leg leg) const;
    // How the peer of this leg is reached.
    [[nodiscard]] const Adjacency& adjacency_of_leg(FlowIndex flow, abi::Leg leg) const;

  private:
    // What only some flows have, and not for long.
    struct Extra {
        std::array<std::uint64_t, 2> drained_bytes{};
        base::Nanoseconds update_client_at{0};
        base::Nanoseconds reset_check_at{0};
        SegmentFields client_update;
        std::uint32_t reset_progress{0};  // when the reset was seen
        std::uint8_t reset_probes{0};     // sent since
    };
    struct Lingering {
        FlowIndex flow;
        std::uint32_t generation;
    };
    static constexpr std::uint32_t chunk_records = 256;
    static constexpr std::uint32_t rechecks_per_tick = 4'096;
    static constexpr std::uint32_t cuts_per_tick = 256;

    [[nodiscard]] FlowRecord& record(FlowIndex flow);
    [[nodiscard]] const abi::TunnelLimits& limits_of(FlowIndex flow) const;
    [[nodiscard]] std::uint32_t progress_of(FlowIndex flow) const;
    [[nodiscard]] std::uint32_t last_frame_tick(FlowIndex flow) const;
    [[nodiscard]] bool waits_for_acknowledgement(FlowIndex flow) const;
    void check(FlowIndex flow);
    void measure_first_byte(FlowRecord& flow_record, base::Nanoseconds at);
    void follow_limits(FlowIndex flow, const abi::TunnelLimits& limits);
    [[nodiscard]] bool keep_alive(FlowIndex flow);
    void check_reset(FlowIndex flow, Extra& extra);
    void probe(FlowIndex flow, abi::Leg leg);
    void acknowledge(FlowIndex flow, abi::Leg leg, const SegmentFields& fields);
    void update_client(FlowIndex flow, Extra& extra);
    [[nodiscard]] abi::SplicedFlow told(FlowIndex flow, const FlowRecord& live) const;
    void arm(FlowRecord& flow_record, base::Nanoseconds due);
    void end(FlowIndex flow, abi::EndReason reason, int error_number, base::Nanoseconds linger_ns);
    void cut(FlowIndex flow, abi::EndReason reason, int error_number = 0);
    void send_resets(FlowIndex flow);
    void remove(FlowIndex flow);
    [[nodiscard]] bool evict_oldest();

    SlowPathContext& context_;
    std::vector<std::unique_ptr<FlowRecord[]>> chunks_;
    std::uint32_t record_count_{0};  // highest flow index ever + 1
    std::unordered_map<FlowIndex, Extra> extras_;
    std::vector<FlowIndex> flow_of_pair_;
    std::deque<Lingering> lingering_;
    std::uint32_t live_count_{0};
    std::uint32_t lingering_count_{0};
    std::uint32_t recheck_from_{0xffff'ffff};
    std::uint32_t cut_from_{0xffff'ffff};
    abi::EndReason cut_reason_{abi::EndReason::drained};
};

}  // namespace bore::packet
