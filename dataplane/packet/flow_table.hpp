// The table of spliced flows: one for all cores. One thread installs and removes (the slow path),
// every worker looks up without a lock and without waiting.
//
//   buckets      64-byte buckets of 8 slots: a 16-bit tag and a direction index each. A direction
//                that finds its bucket full goes to the next one, and the buckets it passed count
//                it, so that a look-up knows whether to go on. Slots never move, so a reader can
//                not miss one. Doubled when 3/4 full: a new array is filled and published, the old
//                one is freed after every worker has passed a quiescent point.
//   directions   DirectionEntry[2 * flows], cold[flows], addresses[flows] (IPv6): three arrays in
//                reserved address space of the greatest size, backed by hugepages piece by piece as
//                flows come. An entry never moves.
//
// Reuse: a removed flow's slot is given out again when every worker has passed a quiescent point
// (between two bursts) since. Workers publish theirs with WorkerEpoch.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/packet/flow_entry.hpp"

namespace bore::packet {

// Memory for the table: hugepages from the driver, ordinary memory in tests.
class TableMemory {
  public:
    virtual ~TableMemory() = default;
    // Address space without memory behind it; nullptr when there is none.
    [[nodiscard]] virtual std::byte* reserve(std::size_t size_bytes) = 0;
    // Zeroed memory behind a part of it; false when there is none. Both multiples of granule_bytes.
    [[nodiscard]] virtual bool commit(std::byte* at, std::size_t size_bytes) = 0;
    virtual void release(std::byte* at, std::size_t size_bytes) = 0;  // what reserve() gave
    [[nodiscard]] virtual std::size_t granule_bytes() const = 0;      // 2 MiB for hugepages
};
[[nodiscard]] std::unique_ptr<TableMemory> make_ordinary_memory();  // mmap-free: aligned new

// One leg at the moment of the splice. Sequence numbers are the relay's: snd_nxt is the next byte
// that the relay would have sent on this leg, rcv_nxt the next that it expects from the peer.
struct LegState {
    FlowKey key;
    std::uint16_t adjacency{0};
    std::uint32_t snd_nxt{0};
    std::uint32_t rcv_nxt{0};
    std::uint32_t peer_window_bytes{0};  // what the peer may be sent
    std::uint16_t peer_mss{536};         // TCP_MAXSEG: payload + options that the peer takes
    std::uint8_t peer_window_scale{0};   // shift of the windows that the peer sends
    std::uint8_t own_window_scale{0};    // shift of the windows that the relay sends to it
    bool window_scaling{false};
    bool timestamps{false};
    bool sack{false};
    std::uint32_t own_timestamp{0};   // a TSval not before any that the relay sent on this leg
    std::uint32_t peer_timestamp{0};  // oldest TSval of the peer that may still be replayed
};

struct FlowState {
    std::array<LegState, 2> legs;  // by abi::Leg
    std::uint16_t tunnel_index{0};
    bool limited_to_client{false};
    bool limited_to_visitor{false};
    // Acknowledgements to the client say so many bytes less until then (0: none held back).
    std::uint16_t ack_hold_back{0};
    std::uint32_t ack_hold_until_ms{0};
};

// Everything a reader needs of the table, in one place; loaded once per burst.
class FlowTable;

class FlowTable {
  public:
    // `max_flows` ≤ 2^20. `worker_count` readers. Reserves, does not yet commit.
    [[nodiscard]] static std::expected<std::unique_ptr<FlowTable>, std::string> make(
        TableMemory& memory, std::uint32_t max_flows, std::uint32_t worker_count);
    ~FlowTable();
    FlowTable(const FlowTable&) = delete;
    FlowTable& operator=(const FlowTable&) = delete;

    // ---- The thread that installs

    // Nothing when the table or its memory is full, or a tuple is installed already.
    [[nodiscard]] std::optional<FlowIndex> install(const FlowState& state, std::uint64_t now_ns);
    // Readers miss from now on; the slot is reused after the grace period.
    void remove(FlowIndex flow);
    // Frees what every worker has passed by; call it now and then. Returns freed slots.
    std::size_t collect();
    [[nodiscard]] std::optional<DirectionIndex> find(const FlowKey& in) const;
    [[nodiscard]] std::uint32_t size() const { return size_; }  // flows installed
    [[nodiscard]] std::uint32_t max_flows() const { return max_flows_; }
    [[nodiscard]] std::size_t committed_bytes() const { return committed_bytes_; }

    // 64-bit counts of payload bytes that the *other* leg's peer has acknowledged, by direction:
    // [visitor] = delivered to the client. A FIN is no byte.
    [[nodiscard]] std::array<std::uint64_t, 2> delivered_bytes(FlowIndex flow) const;

    // ---- Adjacencies, same thread. Equal ones share an index.
    [[nodiscard]] std::optional<std::uint16_t> adjacency(std::span<const std::byte> header,
                                                         std::uint8_t port_index);

    // ---- Workers

    // Called between bursts; a worker that sleeps calls offline() before and online() after it.
    void quiescent(std::uint32_t worker_index);
    void offline(std::uint32_t worker_index);
    void online(std::uint32_t worker_index);

    struct Key4 {
        std::uint32_t source, destination, ports;  // as in the packet, network order
    };
    struct Key6 {
        const std::byte* addresses;  // 32 bytes: source, destination
        std::uint32_t ports;
    };
    [[nodiscard]] static std::uint32_t hash4(const Key4& key);
    [[nodiscard]] static std::uint32_t hash6(const Key6& key);

    // Stages of a look-up over a burst: prefetch_bucket for all, then candidate (which prefetches
    // the entry) for all, then match. `look_up*` does all of it for one.
    void prefetch_bucket(std::uint32_t hash) const;
    [[nodiscard]] DirectionIndex look_up4(const Key4& key, std::uint32_t hash) const;
    [[nodiscard]] DirectionIndex look_up6(const Key6& key, std::uint32_t hash) const;
    static constexpr DirectionIndex no_direction = 0xffff'ffff;

    [[nodiscard]] DirectionEntry& direction(DirectionIndex index) const {
        return directions_[index];
    }
    [[nodiscard]] FlowCold& cold(FlowIndex flow) const { return cold_[flow]; }
    [[nodiscard]] FlowAddresses& addresses(FlowIndex flow) const { return addresses_[flow]; }
    [[nodiscard]] const Adjacency& adjacency_at(std::uint16_t index) const {
        return adjacencies_[index];
    }

  private:
    FlowTable() = default;
    // To be filled in by the implementation.
    DirectionEntry* directions_{nullptr};
    FlowCold* cold_{nullptr};
    FlowAddresses* addresses_{nullptr};
    std::unique_ptr<Adjacency[]> adjacencies_;
    std::uint32_t size_{0};
    std::uint32_t max_flows_{0};
    std::size_t committed_bytes_{0};
};

}  // namespace bore::packet
