// The counters of the packet engine: one block per packet worker, one for its slow path, one per
// port. The same kind of tables as in counters.hpp, with the same readers.
#pragma once

#include "dataplane/abi/counters.hpp"

namespace bore::abi {

// Why a frame did not simply go from one leg to the other. The verdict of every frame is one of
// these or `spliced`. name, sentence
//
// The first group goes to the kernel over the slow path:
#define BORE_REASONS_TO_KERNEL(X)                                               \
    X(not_tcp, "Frames that are not TCP: ARP, ICMP, neighbour discovery, UDP.") \
    X(no_flow, "TCP frames of connections that are not spliced.")               \
    X(syn, "SYN frames on the tuple of a spliced flow.")                        \
    X(fragment, "IP fragments.")                                                \
    X(ip_options, "IPv4 frames with options.")                                  \
    X(ip_extension, "IPv6 frames with extension headers.")                      \
    X(ethertype, "Frames of another protocol than IPv4, IPv6 and ARP.")
// The second is dropped:
#define BORE_REASONS_TO_DROP(X)                                                                    \
    X(truncated, "Frames shorter than their headers say.")                                         \
    X(bad_header, "Frames with impossible header fields.")                                         \
    X(bad_options, "Segments of spliced flows with malformed TCP options.")                        \
    X(bad_checksum, "Frames whose checksum the NIC or the splitter found wrong.")                  \
    X(bad_flags, "Segments of spliced flows with impossible flags: SYN and FIN, no ACK.")          \
    X(out_of_window, "Segments of spliced flows far outside the receiver's window.")               \
    X(hop_limit, "Frames whose TTL or hop limit has run out.")                                     \
    X(too_big, "Frames that no longer fit their buffer or cannot be split.")                       \
    X(no_buffer, "Frames that had to be split or copied when no buffer was free.")                 \
    X(rate_limited, "Segments above the bandwidth limit of their tunnel, when its queue is full.") \
    X(flow_closed, "Segments of a flow that the relay itself has ended.")                          \
    X(slow_path_full, "Frames for the kernel when the slow path's ring was full.")                 \
    X(transmit_full, "Frames that the port's transmit queue did not take.")

#define BORE_ENUMERATOR(name, help) name,
enum class PacketReason : std::uint8_t {
    spliced,
    held,  // waits in a limited tunnel's queue; counted when it leaves
    BORE_REASONS_TO_KERNEL(BORE_ENUMERATOR) BORE_REASONS_TO_DROP(BORE_ENUMERATOR) count
};
#undef BORE_ENUMERATOR

[[nodiscard]] constexpr bool goes_to_kernel(PacketReason reason) {
    return reason >= PacketReason::not_tcp && reason <= PacketReason::ethertype;
}

// One block per packet worker. The counters of reasons follow in the enumerators' order:
// packet_<reason>_total.
#define BORE_PACKET_WORKER_COUNTERS(X)                                                    \
    X(packets_received_total, counter, "Frames received from ports.")                     \
    X(packets_sent_total, counter, "Frames given to ports.")                              \
    X(packet_spliced_total, counter, "Frames translated from one leg to the other.")      \
    X(packet_held_total, counter, "Frames that waited in the queue of a limited tunnel.") \
    X(packet_not_tcp_total, counter, "Frames to the kernel: not TCP.")                    \
    X(packet_no_flow_total, counter, "Frames to the kernel: no spliced flow.")            \
    X(packet_syn_total, counter, "Frames to the kernel: SYN on a spliced tuple.")         \
    X(packet_fragment_total, counter, "Frames to the kernel: IP fragment.")               \
    X(packet_ip_options_total, counter, "Frames to the kernel: IPv4 options.")            \
    X(packet_ip_extension_total, counter, "Frames to the kernel: IPv6 extension header.") \
    X(packet_ethertype_total, counter, "Frames to the kernel: another ethertype.")        \
    X(packet_truncated_total, counter, "Dropped: shorter than the headers say.")          \
    X(packet_bad_header_total, counter, "Dropped: impossible header fields.")             \
    X(packet_bad_options_total, counter, "Dropped: malformed TCP options.")               \
    X(packet_bad_checksum_total, counter, "Dropped: wrong checksum.")                     \
    X(packet_bad_flags_total, counter, "Dropped: impossible TCP flags.")                  \
    X(packet_out_of_window_total, counter, "Dropped: far outside the receiver's window.") \
    X(packet_hop_limit_total, counter, "Dropped: TTL or hop limit has run out.")          \
    X(packet_too_big_total, counter, "Dropped: fits no buffer or cannot be split.")       \
    X(packet_no_buffer_total, counter, "Dropped: no free buffer to split or copy into.")  \
    X(packet_rate_limited_total, counter, "Dropped: above the tunnel's bandwidth limit.") \
    X(packet_flow_closed_total, counter, "Dropped: the relay has ended the flow.")        \
    X(packet_slow_path_full_total, counter, "Dropped: the slow path's ring was full.")    \
    X(packet_transmit_full_total, counter, "Dropped: the transmit queue was full.")       \
    X(packets_trimmed_total, counter, "Segments trimmed of bytes before the splice.")     \
    X(packets_split_total, counter, "Segments split to the other leg's MSS.")             \
    X(timestamps_inserted_total, counter, "Segments that got a timestamp option.")        \
    X(timestamps_removed_total, counter, "Segments whose timestamp option was blanked.")  \
    X(windows_clamped_total, counter, "Windows that did not fit the other leg's scale.")  \
    X(retransmitted_packets_total, counter, "Segments seen before on the same flow.")     \
    X(retransmitted_bytes_total, counter, "Payload seen before on the same flow.")        \
    X(packet_loops_total, counter, "Turns of the poll loop.")                             \
    X(packet_idle_loops_total, counter, "Turns that found nothing to do.")                \
    X(packet_busy_ns_total, counter, "Time of turns that found something to do.")         \
    X(packet_heartbeat_ns, gauge, "CLOCK_MONOTONIC at the latest turn of the poll loop.")

// Why a pair runs on the stream engine although the packet engine is on.
#define BORE_STREAM_REASONS(X)                                                   \
    X(policy, "the tunnel's path policy is stream")                              \
    X(not_on_port, "a leg's connection does not come through a packet port")     \
    X(sack_differs, "selective acknowledgements on one leg only")                \
    X(long_path, "round-trip times long and unlike")                             \
    X(not_established, "a leg had begun to end")                                 \
    X(drain_timeout, "bytes in the kernel were not delivered in time")           \
    X(never_quiet, "the kernel kept receiving during every freeze")              \
    X(hold_overflow, "more bytes came before pairing than may be held")          \
    X(table_full, "no room for another flow")                                    \
    X(options_unsupported, "a TCP option of a leg that the splice cannot carry") \
    X(unknown_neighbour, "no frame told which way a leg's peer is reached")      \
    X(repair_failed, "the kernel refused TCP_REPAIR or its state")               \
    X(busy, "too many hand-offs under way")                                      \
    X(families_differ, "IPv4 on one leg and IPv6 on the other")                  \
    X(window_small, "a window too small for the scale of the other leg's")

#define BORE_ENUMERATOR(name, help) name,
enum class StreamReason : std::uint8_t { BORE_STREAM_REASONS(BORE_ENUMERATOR) count };
#undef BORE_ENUMERATOR
[[nodiscard]] std::string_view to_string(StreamReason reason);

// The slow path's block.
#define BORE_SLOW_PATH_COUNTERS(X)                                                                 \
    X(handoffs_total, counter, "Pairs taken out of the kernel and spliced.")                       \
    X(handoffs_under_way, gauge, "Hand-offs under way now.")                                       \
    X(handoff_retries_total, counter, "Freezes undone because the kernel had received more.")      \
    X(handoff_drained_bytes_total, counter,                                                        \
      "Bytes that the kernel had and delivered before a hand-off.")                                \
    X(handoff_replayed_frames_total, counter, "Held frames replayed after a hand-off.")            \
    X(handoffs_measured_total, counter,                                                            \
      "Hand-offs done by one call, whose processor time was measured.")                            \
    X(handoff_ns_total, counter, "Processor time of these.")                                       \
    X(handoff_frozen_ns_total, counter, "Time that connections were frozen, in sum.")              \
    X(handoff_frozen_under_8us_total, counter,                                                     \
      "Hand-offs with the connection frozen for less than 8 us.")                                  \
    X(handoff_frozen_under_16us_total, counter, "The same for 8 to 16 us.")                        \
    X(handoff_frozen_under_32us_total, counter, "The same for 16 to 32 us.")                       \
    X(handoff_frozen_under_64us_total, counter, "The same for 32 to 64 us.")                       \
    X(handoff_frozen_under_128us_total, counter, "The same for 64 to 128 us.")                     \
    X(handoff_frozen_under_256us_total, counter, "The same for 128 to 256 us.")                    \
    X(handoff_frozen_under_1024us_total, counter, "The same for 256 to 1024 us.")                  \
    X(handoff_frozen_over_1024us_total, counter, "The same for 1024 us and more.")                 \
    X(flows_moved_total, counter, "Legs of flows sent to another link address of their next hop.") \
    X(stream_policy_total, counter, "Pairs on the stream engine: the tunnel's policy.")            \
    X(stream_not_on_port_total, counter, "Pairs on the stream engine: not through a packet port.") \
    X(stream_sack_differs_total, counter, "Pairs on the stream engine: SACK on one leg only.")     \
    X(stream_long_path_total, counter, "Pairs on the stream engine: RTTs long and unlike.")        \
    X(stream_not_established_total, counter,                                                       \
      "Pairs on the stream engine: a leg had begun to end.")                                       \
    X(stream_drain_timeout_total, counter,                                                         \
      "Pairs on the stream engine: bytes in the kernel not delivered in time.")                    \
    X(stream_never_quiet_total, counter, "Pairs on the stream engine: the kernel kept receiving.") \
    X(stream_hold_overflow_total, counter, "Pairs on the stream engine: too many early bytes.")    \
    X(stream_table_full_total, counter, "Pairs on the stream engine: flow table full.")            \
    X(stream_options_unsupported_total, counter, "Pairs on the stream engine: TCP option.")        \
    X(stream_unknown_neighbour_total, counter, "Pairs on the stream engine: next hop unknown.")    \
    X(stream_repair_failed_total, counter, "Pairs on the stream engine: TCP_REPAIR failed.")       \
    X(stream_busy_total, counter, "Pairs on the stream engine: too many hand-offs.")               \
    X(stream_families_differ_total, counter, "Pairs on the stream engine: IPv4 and IPv6 legs.")    \
    X(stream_window_small_total, counter,                                                          \
      "Pairs on the stream engine: a window small beside the other leg's scale.")                  \
    X(flows_live, gauge, "Spliced flows live now.")                                                \
    X(flows_lingering, gauge, "Ended flows that still pass late segments.")                        \
    X(flows_evicted_total, counter, "Lingering flows removed early: a new SYN or a full table.")   \
    X(flows_ended_fin_total, counter, "Spliced flows that ended in order.")                        \
    X(flows_ended_reset_total, counter, "Spliced flows ended by a reset.")                         \
    X(flows_ended_idle_total, counter, "Spliced flows ended by the idle timeout.")                 \
    X(flows_ended_half_closed_total, counter, "Spliced flows ended by the half-closed timeout.")   \
    X(flows_ended_closed_total, counter, "Spliced flows closed by the control plane.")             \
    X(flows_ended_drained_total, counter, "Spliced flows cut at the drain deadline.")              \
    X(flows_ended_error_total, counter, "Spliced flows whose peers had both given up in silence.") \
    X(resets_refuted_total, counter, "Resets after which the flow went on.")                       \
    X(legs_tracked, gauge, "Connections whose frames the slow path follows.")                      \
    X(legs_evicted_total, counter, "Connections forgotten because too many were followed.")        \
    X(held_frames, gauge, "Frames held until their connection is paired.")                         \
    X(held_bytes, gauge, "Bytes of these frames.")                                                 \
    X(held_dropped_total, counter, "Frames not held because a bound was reached.")                 \
    X(frames_to_kernel_total, counter, "Frames given to the kernel.")                              \
    X(frames_from_kernel_total, counter, "Frames from the kernel to the wire.")                    \
    X(frames_from_kernel_dropped_total, counter,                                                   \
      "Frames of the kernel for frozen or spliced connections.")                                   \
    X(kernel_write_errors_total, counter, "Frames that the exception interface did not take.")     \
    X(acks_delayed_total, counter,                                                                 \
      "Acknowledgements of Accept held back for the other leg's RTT.")                             \
    X(icmp_translated_total, counter, "ICMP errors translated to the other leg.")                  \
    X(icmp_ignored_total, counter, "ICMP errors about a spliced flow that do not fit it.")         \
    X(challenges_total, counter, "Acknowledgements sent to answer a SYN on a live flow.")          \
    X(slow_path_loops_total, counter, "Turns of the slow path's loop.")                            \
    X(slow_path_heartbeat_ns, gauge, "CLOCK_MONOTONIC at the latest turn of the slow path's loop.")

// One block per port, written by the slow path from the driver's statistics.
#define BORE_PORT_COUNTERS(X)                                                                 \
    X(port_received_packets_total, counter, "Frames received, by the NIC's count.")           \
    X(port_received_bytes_total, counter, "Bytes received, by the NIC's count.")              \
    X(port_sent_packets_total, counter, "Frames sent, by the NIC's count.")                   \
    X(port_sent_bytes_total, counter, "Bytes sent, by the NIC's count.")                      \
    X(port_missed_total, counter, "Frames that the NIC dropped because nobody fetched them.") \
    X(port_receive_errors_total, counter, "Frames received with an error.")                   \
    X(port_send_errors_total, counter, "Frames that the NIC could not send.")                 \
    X(port_no_buffer_total, counter, "Receives that found no free buffer.")                   \
    X(port_link_up, gauge, "1 while the link is up.")                                         \
    X(port_link_changes_total, counter, "Changes of the link's state.")                       \
    X(port_speed_mbps, gauge, "Speed of the link in Mbit/s; 0 = unknown.")

#define BORE_ENUMERATOR(name, kind, help) name,
enum class PacketWorkerCounter : std::uint16_t {
    BORE_PACKET_WORKER_COUNTERS(BORE_ENUMERATOR) count
};
enum class SlowPathCounter : std::uint16_t { BORE_SLOW_PATH_COUNTERS(BORE_ENUMERATOR) count };
enum class PortCounter : std::uint16_t { BORE_PORT_COUNTERS(BORE_ENUMERATOR) count };
#undef BORE_ENUMERATOR

#define BORE_INFO(name, kind, help) CounterInfo{#name, CounterKind::kind, help},
inline constexpr std::array packet_worker_counter_infos{BORE_PACKET_WORKER_COUNTERS(BORE_INFO)};
inline constexpr std::array slow_path_counter_infos{BORE_SLOW_PATH_COUNTERS(BORE_INFO)};
inline constexpr std::array port_counter_infos{BORE_PORT_COUNTERS(BORE_INFO)};
#undef BORE_INFO

using PacketWorkerCounters = CounterBlock<PacketWorkerCounter>;
using SlowPathCounters = CounterBlock<SlowPathCounter>;
using PortCounters = CounterBlock<PortCounter>;

// The counter of a reason, by position.
[[nodiscard]] constexpr PacketWorkerCounter counter_of(PacketReason reason) {
    return static_cast<PacketWorkerCounter>(
        static_cast<std::uint16_t>(PacketWorkerCounter::packet_spliced_total) +
        static_cast<std::uint16_t>(reason));
}
static_assert(counter_of(PacketReason::transmit_full) ==
              PacketWorkerCounter::packet_transmit_full_total);
static_assert(counter_of(PacketReason::no_flow) == PacketWorkerCounter::packet_no_flow_total);
static_assert(counter_of(PacketReason::truncated) == PacketWorkerCounter::packet_truncated_total);

[[nodiscard]] constexpr SlowPathCounter counter_of(StreamReason reason) {
    return static_cast<SlowPathCounter>(
        static_cast<std::uint16_t>(SlowPathCounter::stream_policy_total) +
        static_cast<std::uint16_t>(reason));
}
static_assert(counter_of(StreamReason::window_small) == SlowPathCounter::stream_window_small_total);

}  // namespace bore::abi
