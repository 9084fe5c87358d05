// The table of spliced flows: one for all cores. One thread installs and removes (the slow path),
// every worker looks up without a lock and without waiting.
//
//   buckets      64 bytes each: 12 slots of 32 bits (an 11-bit tag and the direction's index, so
//                that one store publishes both), for each slot a hint of 8 bits, all compared at
//                once, and a count of the directions that found this bucket full and went on to a
//                later one, so that a look-up knows whether to go on. Slots never move, so a reader
//                can not miss one. When 3/4 full, a new array, larger by a quarter at least, is
//                filled and published, the old one is freed after the grace period.
//   directions   DirectionEntry[2 * flows], cold[flows], addresses[flows] (IPv6): three arrays in
//                reserved address space of the greatest size, backed by hugepages piece by piece as
//                flows come. An entry never moves.
//
// Hashes are keyed by a random seed: nobody outside can aim at a bucket.
//
// Grace period: a removed flow's slot is given out again when every worker has passed a quiescent
// point (between two bursts) since, or slept.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <expected>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "dataplane/packet/flow_entry.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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
    bool tell_first_byte{false};  // FlowEvent::Kind::first_byte, once
    // Acknowledgements to the client say so many bytes less until then (0: none held back).
    std::uint16_t ack_hold_back{0};
    std::uint32_t ack_hold_until_ms{0};
};

namespace table_detail {

// Hints of a bucket are compared all at once, except under the thread sanitizer, which wants to see
// each of them read as the atomic that it is.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool scan_by_vector = false;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool scan_by_vector = false;
#else
inline constexpr bool scan_by_vector = true;
#endif
#else
inline constexpr bool scan_by_vector = true;
#endif
#if defined(__SSE2__)
inline constexpr bool has_byte_mask = scan_by_vector;  // one instruction makes a bit of each byte
#else
inline constexpr bool has_byte_mask = false;
#endif

}  // namespace table_detail

// One line of the hash table. A slot of 0 is empty: no tag is 0. A hint may be.
struct alignas(base::cache_line_bytes) FlowBucket {
    static constexpr std::size_t slot_count = 12;
    static constexpr unsigned index_bits = 21;
    static constexpr std::uint32_t index_mask = (1U << index_bits) - 1;

    std::array<std::atomic<std::uint8_t>, slot_count> hints;
    std::atomic<std::uint32_t> passed;  // directions that went on to a later bucket
    std::array<std::atomic<std::uint32_t>, slot_count> slots;  // tag << index_bits | direction

    // The hash's top bits pick the bucket, at most 18 of them; all 14 below are in tag and hint.
    [[nodiscard]] static constexpr std::uint32_t tag_of(std::uint32_t hash) {
        return (hash | 1U) << index_bits;
    }
    [[nodiscard]] static constexpr std::uint8_t hint_of(std::uint32_t hash) {
        return static_cast<std::uint8_t>(hash >> 6U);
    }
    // One bit for each slot whose hint fits: slot_of(bit). They may change at any time.
    using Matches = std::conditional_t<table_detail::has_byte_mask, std::uint32_t, std::uint64_t>;
    [[nodiscard]] Matches match(std::uint32_t hash) const;
    // With a mask of bytes the slot is the bit. Else slots 0 to 7 have the top bit of the word's
    // bytes, 8 to 11 the fourth of the first bytes.
    [[nodiscard]] static constexpr std::size_t slot_of(unsigned bit) {
        return table_detail::has_byte_mask ? bit : bit / 8 + (~bit & 4U) * 2;
    }
    [[nodiscard]] static constexpr unsigned bit_of(std::size_t slot) {
        return static_cast<unsigned>(
            table_detail::has_byte_mask ? slot : slot % 8 * 8 + (slot < 8 ? 7 : 3));
    }
};
static_assert(sizeof(FlowBucket) == base::cache_line_bytes);

class FlowTable {
  public:
    static constexpr std::uint32_t max_flow_capacity = 1U << (FlowBucket::index_bits - 1);

    // `max_flows` ≤ max_flow_capacity. `worker_count` readers. `seed` is random per process.
    // Reserves address space, and memory for the first buckets.
    [[nodiscard]] static std::expected<std::unique_ptr<FlowTable>, std::string> make(
        TableMemory& memory, std::uint32_t max_flows, std::uint32_t worker_count,
        std::uint64_t seed);
    ~FlowTable();
    FlowTable(const FlowTable&) = delete;
    FlowTable& operator=(const FlowTable&) = delete;

    // ---- The thread that installs

    // Nothing when the table or its memory is full, a tuple is installed already, or the legs are
    // of different address families. Readers see the whole entry of a direction or nothing of it.
    [[nodiscard]] std::optional<FlowIndex> install(const FlowState& state, std::uint64_t now_ns);
    // Readers miss from now on; the slot is reused after the grace period.
    void remove(FlowIndex flow);
    // Frees what every worker has passed by; call it now and then. Returns freed flow slots.
    std::size_t collect();
    [[nodiscard]] std::optional<DirectionIndex> find(const FlowKey& in) const;
    [[nodiscard]] std::uint32_t size() const { return size_; }  // flows installed
    [[nodiscard]] std::uint32_t max_flows() const { return max_flows_; }
    [[nodiscard]] std::size_t committed_bytes() const;
    // Buckets that installed directions passed on their way to a free slot, all together: what
    // crowding costs. Looks at every bucket.
    [[nodiscard]] std::size_t passed_count() const;

    // 64-bit counts of payload bytes that the *other* leg's peer has acknowledged, by direction:
    // [visitor] = delivered to the client. A FIN is no byte.
    [[nodiscard]] std::array<std::uint64_t, 2> delivered_bytes(FlowIndex flow) const;

    // ---- Adjacencies, same thread. Equal ones share an index. Ask just before install(): an index
    // that no flow uses may be given to another neighbour by a later call, once all are taken.
    [[nodiscard]] std::optional<std::uint16_t> adjacency(std::span<const std::byte> header,
                                                         std::uint8_t port_index);
    static constexpr std::size_t max_adjacencies = 65'535;
    // Frames of this direction go to that neighbour (by adjacency(), tagged as the former one) from
    // now on. Workers that have just read the former one use it to the end of their burst; it stays
    // in use until then. False, and nothing changed, when all adjacencies are taken.
    [[nodiscard]] bool set_adjacency(DirectionIndex direction, std::uint16_t neighbour);

    // ---- Workers

    // Called between bursts. A worker is offline until its first call; one that sleeps calls
    // offline() before and online() (or quiescent()) after it, and looks up nothing in between.
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
    static constexpr DirectionIndex no_direction = 0xffff'ffff;

    // The table as one burst sees it, in registers: loads with acquire keep the compiler from
    // holding anything of the table itself from one frame to the next. An array that growth
    // replaces stays readable until the next quiescent point; what is only in the new one,
    // confirm*() finds.
    struct Reader {
        const FlowBucket* buckets;
        std::uint32_t bucket_count;
        DirectionEntry* directions;
        std::array<std::uint64_t, 3> secrets;

        [[nodiscard]] std::uint32_t hash4(const Key4& key) const;
        const FlowBucket* prefetch_bucket(std::uint32_t hash) const;
        // The first direction that may be it; `bucket` is the home bucket. no_direction when there
        // is none, which is no proof while flows are installed.
        [[nodiscard]] DirectionIndex candidate(const FlowBucket& bucket, std::uint32_t hash) const;

      private:
        [[nodiscard]] DirectionIndex candidate_in(const FlowBucket& bucket,
                                                  std::uint32_t hash) const;
        // In the buckets behind the home bucket, which had no room for all.
        [[gnu::noinline, nodiscard]] DirectionIndex candidate_behind(std::uint32_t hash) const;
    };
    [[nodiscard]] Reader reader() const;

    [[nodiscard]] std::uint32_t hash4(const Key4& key) const;
    [[nodiscard]] std::uint32_t hash6(const Key6& key) const;

    // Stages of a look-up over a burst, each for all frames before the next: prefetch_bucket, then
    // candidate (which prefetches the entry), then confirm. `look_up*` does all of it for one.
    void prefetch_bucket(std::uint32_t hash) const;
    // The first direction that may be it; no_direction when there is none, which is no proof.
    [[nodiscard]] DirectionIndex candidate4(std::uint32_t hash) const;
    [[nodiscard]] DirectionIndex candidate6(std::uint32_t hash) const;
    // The candidate when it is the one, else a whole look-up.
    [[nodiscard]] DirectionIndex confirm4(const Key4& key, std::uint32_t hash,
                                          DirectionIndex candidate) const;
    [[nodiscard]] DirectionIndex confirm6(const Key6& key, std::uint32_t hash,
                                          DirectionIndex candidate) const;
    [[nodiscard]] DirectionIndex look_up4(const Key4& key, std::uint32_t hash) const;
    [[nodiscard]] DirectionIndex look_up6(const Key6& key, std::uint32_t hash) const;

    [[nodiscard]] DirectionEntry& direction(DirectionIndex index) const {
        return directions_[index];
    }
    [[nodiscard]] FlowCold& cold(FlowIndex flow) const { return cold_[flow]; }
    [[nodiscard]] FlowAddresses& addresses(FlowIndex flow) const { return addresses_[flow]; }
    // The relay's own address that frames of an IPv6 direction come to.
    [[nodiscard]] const std::array<std::uint8_t, 16>& own_address6(DirectionIndex index) const {
        return adjacencies_[directions_[index].in_destination].own_address;
    }
    [[nodiscard]] const Adjacency& adjacency_at(std::uint16_t index) const {
        return adjacencies_[index];
    }

  private:
    // Address space for the greatest size, memory behind the front of it.
    struct Extent {
        std::byte* start{nullptr};
        std::size_t reserved_bytes{0};
        std::size_t committed_bytes{0};
    };
    // What waits for the end of its grace period: a flow's slot, or an array of buckets.
    struct Retired {
        std::uint64_t epoch{0};
        FlowIndex flow{no_flow};
        Extent buckets;
        std::optional<std::uint16_t> adjacency{};
    };
    struct alignas(base::cache_line_bytes) WorkerEpoch {
        std::atomic<std::uint64_t> seen{0};  // 0 = offline
    };
    using AdjacencyContent = std::array<std::byte, 36>;
    struct AdjacencyUse {
        std::uint32_t reference_count{0};  // directions of flows, adjacencies bound to addresses
        std::optional<std::uint16_t> neighbour;  // what it was bound from, see intern()
        AdjacencyContent content{};
    };

    explicit FlowTable(TableMemory& memory) : memory_(memory) {}
    [[nodiscard]] bool reserve(Extent& extent, std::size_t size_bytes);
    [[nodiscard]] bool commit(Extent& extent, std::size_t size_bytes);
    [[nodiscard]] std::optional<FlowIndex> take_slot(bool needs_addresses);
    void fill(FlowIndex flow, const FlowState& state,
              const std::array<std::uint16_t, 2>& adjacencies, std::uint64_t now_ns);
    void release_slot(FlowIndex flow);
    [[nodiscard]] std::uint64_t acknowledged_by(FlowIndex flow, std::size_t leg) const;
    [[nodiscard]] bool room_for_two();
    [[nodiscard]] bool grow();
    [[nodiscard]] bool place_buckets(Extent& extent, std::size_t size_bytes);
    void copy_to(std::uintptr_t word) const;
    [[nodiscard]] std::optional<std::array<std::uint16_t, 2>> bind_adjacencies(
        const FlowState& state);
    [[nodiscard]] std::optional<std::uint16_t> intern(const Adjacency& wanted,
                                                      std::optional<std::uint16_t> neighbour);
    [[nodiscard]] std::optional<std::uint16_t> take_adjacency();
    static void insert(DirectionIndex direction, std::uint32_t hash, std::uintptr_t word);
    void erase(DirectionIndex direction, std::uint32_t hash) const;
    [[nodiscard]] std::uint32_t hash_of(DirectionIndex direction) const;
    [[nodiscard]] bool matches4(DirectionIndex index, const Key4& key) const;
    [[nodiscard]] bool matches6(DirectionIndex index, const Key6& key) const;
    template <typename Matches>
    [[nodiscard]] DirectionIndex walk(std::uint32_t hash, const Matches& matches) const;

    // The home bucket is picked by the hash's top bits, the tag is its lowest bits. Arrays come in
    // sizes of 4, 5, 6 and 7 times a power of two, by number; address and number travel in one
    // word.
    static constexpr std::uintptr_t size_mask = base::cache_line_bytes - 1;
    static constexpr std::uintptr_t first_size = 4;  // 16 buckets
    static constexpr std::uintptr_t last_size = size_mask;
    [[nodiscard]] static FlowBucket* array_of(std::uintptr_t word) {
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        return reinterpret_cast<FlowBucket*>(word & ~size_mask);
    }
    [[nodiscard]] static constexpr std::uint32_t count_of(std::uintptr_t word) {
        const std::uintptr_t size = word & size_mask;
        return static_cast<std::uint32_t>((4 + size % 4) << (size / 4 + 1));
    }
    [[nodiscard]] static constexpr std::uint32_t home_of(std::uint32_t hash, std::uint32_t count) {
        return static_cast<std::uint32_t>(std::uint64_t{hash} * count >> 32U);
    }
    [[nodiscard]] static constexpr std::uint32_t next_of(std::uint32_t at, std::uint32_t count) {
        return at + 1 == count ? 0 : at + 1;
    }

    // ---- Read by workers, written by growth alone.
    // Address of the bucket array, in its low bits the number of its size: published by one store.
    alignas(base::cache_line_bytes) std::atomic<std::uintptr_t> buckets_{0};
    DirectionEntry* directions_{nullptr};
    FlowCold* cold_{nullptr};
    FlowAddresses* addresses_{nullptr};
    Adjacency* adjacencies_{nullptr};
    std::array<std::uint64_t, 3> secrets_{};

    // ---- Read by workers between bursts.
    alignas(base::cache_line_bytes) std::atomic<std::uint64_t> epoch_{1};
    std::unique_ptr<WorkerEpoch[]> workers_;
    std::uint32_t worker_count_{0};

    // ---- The installing thread's own.
    alignas(base::cache_line_bytes) TableMemory& memory_;
    Extent nursery_;  // a granule in which the small bucket arrays lie, see grow()
    Extent bucket_extent_;
    Extent direction_extent_;
    Extent cold_extent_;
    Extent address_extent_;
    Extent adjacency_extent_;
    std::size_t bucket_count_{0};
    std::uint32_t size_{0};
    std::uint32_t max_flows_{0};
    std::uint32_t fresh_flow_{0};  // slots from here on were never used
    std::vector<FlowIndex> free_flows_;
    std::deque<Retired> retired_;
    std::map<AdjacencyContent, std::uint16_t> adjacency_indices_;
    std::vector<AdjacencyUse> adjacency_uses_;
    std::size_t adjacency_clock_{0};  // where the search for an unused one goes on
};

// ---- Inline: what a worker does for every frame.

namespace table_detail {

// GCC and clang compile these for any processor.
using Bytes [[gnu::vector_size(16), gnu::may_alias]] = std::uint8_t;
using Lanes [[gnu::vector_size(16)]] = std::uint32_t;
using Words [[gnu::vector_size(16)]] = std::uint64_t;

inline std::uint64_t multiply_fold(std::uint64_t left, std::uint64_t right) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(left) * right;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

inline std::uint64_t load_word(const std::byte* at) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

// Of an address that does not fit its field: only a quick way to see that it is another one.
inline std::uint32_t fold_address(const std::byte* address) {
    const std::uint64_t mixed = load_word(address) ^ load_word(address + 8);
    return static_cast<std::uint32_t>(mixed) ^ static_cast<std::uint32_t>(mixed >> 32U);
}

}  // namespace table_detail

inline FlowBucket::Matches FlowBucket::match(std::uint32_t hash) const {
    const std::uint32_t hint = hint_of(hash);
    if constexpr (table_detail::scan_by_vector) {
        using table_detail::Bytes;
        using table_detail::Words;
        const std::uint32_t four = hint * 0x0101'0101U;
        const auto wanted = std::bit_cast<Bytes>(table_detail::Lanes{four, four, four, four});
        // Hints may be read in any way; the slot that one points to is read as an atomic.
        const Bytes row = *reinterpret_cast<const Bytes*>(this);
#if defined(__SSE2__)
        constexpr unsigned all_slots = (1U << slot_count) - 1;
        const auto mask = _mm_movemask_epi8(std::bit_cast<__m128i>(row == wanted));
        return static_cast<unsigned>(mask) & all_slots;
#else
        const auto equal = std::bit_cast<Words>(row == wanted);
        constexpr Words bits{0x8080'8080'8080'8080, 0x0808'0808};
        const Words found = equal & bits;
        return found[0] | found[1];
#endif
    }
    Matches found = 0;
    for (std::size_t slot = 0; slot < slot_count; ++slot) {
        const bool equal = hints[slot].load(std::memory_order_relaxed) == hint;
        found |= Matches{equal} << bit_of(slot);
    }
    return found;
}

inline void FlowTable::quiescent(std::uint32_t worker_index) {
    std::atomic<std::uint64_t>& seen = workers_[worker_index].seen;
    const std::uint64_t before = seen.load(std::memory_order_relaxed);
    const std::uint64_t now = epoch_.load(std::memory_order_acquire);
    if (before == now) [[likely]] {
        return;
    }
    if (before == 0) {
        online(worker_index);
        return;
    }
    seen.store(now, std::memory_order_release);
}

inline FlowTable::Reader FlowTable::reader() const {
    const std::uintptr_t word = buckets_.load(std::memory_order_acquire);
    return {array_of(word), count_of(word), directions_, secrets_};
}

inline std::uint32_t FlowTable::Reader::hash4(const Key4& key) const {
    // As they lie in the packet: two loads that overlap. So the ports are in an upper half, and the
    // middle of the product, which is where the halves meet, depends on all of the key.
    const std::uint64_t addresses = std::uint64_t{key.destination} << 32U | key.source;
    const std::uint64_t ports = std::uint64_t{key.ports} << 32U | key.destination;
    const std::uint64_t mixed =
        table_detail::multiply_fold(addresses ^ secrets[0], ports ^ secrets[1]);
    // Alone it would leave ports in a row at even distances, which some secrets make heaps.
    return static_cast<std::uint32_t>(mixed * 0x9e37'79b9'7f4a'7c15 >> 32U);
}

inline std::uint32_t FlowTable::hash4(const Key4& key) const {
    return reader().hash4(key);
}

inline std::uint32_t FlowTable::hash6(const Key6& key) const {
    using table_detail::load_word;
    using table_detail::multiply_fold;
    const std::uint64_t source = multiply_fold(load_word(key.addresses) ^ secrets_[0],
                                               load_word(key.addresses + 8) ^ secrets_[1]);
    const std::uint64_t destination = multiply_fold(load_word(key.addresses + 16) ^ secrets_[1],
                                                    load_word(key.addresses + 24) ^ secrets_[2]);
    const std::uint64_t mixed = multiply_fold(source ^ key.ports, destination ^ secrets_[0]);
    return static_cast<std::uint32_t>(multiply_fold(mixed ^ secrets_[2], 0x9e37'79b9'7f4a'7c15));
}

inline const FlowBucket* FlowTable::Reader::prefetch_bucket(std::uint32_t hash) const {
    const FlowBucket* bucket = buckets + home_of(hash, bucket_count);
    __builtin_prefetch(bucket);
    return bucket;
}

inline void FlowTable::prefetch_bucket(std::uint32_t hash) const {
    (void)reader().prefetch_bucket(hash);
}

inline DirectionIndex FlowTable::Reader::candidate_in(const FlowBucket& bucket,
                                                      std::uint32_t hash) const {
    // Nearly always the first hint is the right one; of the others one in 256 fits by chance.
    for (auto found = bucket.match(hash); found != 0; found &= found - 1) {
        const auto bit = static_cast<unsigned>(std::countr_zero(found));
        const std::uint32_t rest =
            bucket.slots[FlowBucket::slot_of(bit)].load(std::memory_order_acquire) ^
            FlowBucket::tag_of(hash);
        if (rest <= FlowBucket::index_mask) [[likely]] {
            __builtin_prefetch(&directions[rest], 1);
            return rest;
        }
    }
    return no_direction;
}

inline DirectionIndex FlowTable::Reader::candidate(const FlowBucket& bucket,
                                                   std::uint32_t hash) const {
    const DirectionIndex found = candidate_in(bucket, hash);
    if (found == no_direction && bucket.passed.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        return candidate_behind(hash);
    }
    return found;
}

inline DirectionIndex FlowTable::candidate4(std::uint32_t hash) const {
    const Reader now = reader();
    return now.candidate(now.buckets[home_of(hash, now.bucket_count)], hash);
}

inline DirectionIndex FlowTable::candidate6(std::uint32_t hash) const {
    const DirectionIndex found = candidate4(hash);
    if (found != no_direction) [[likely]] {
        __builtin_prefetch(&addresses_[flow_of(found)]);
    }
    return found;
}

inline bool FlowTable::matches4(DirectionIndex index, const Key4& key) const {
    const DirectionEntry& entry = directions_[index];
    return ((entry.in_source ^ key.source) | (entry.in_destination ^ key.destination) |
            (entry.in_ports ^ key.ports) | (entry.flags & flag_v6)) == 0;
}

inline bool FlowTable::matches6(DirectionIndex index, const Key6& key) const {
    const DirectionEntry& entry = directions_[index];
    if (entry.in_ports != key.ports || (entry.flags & flag_v6) == 0 ||
        entry.in_source != table_detail::fold_address(key.addresses)) {
        return false;
    }
    const FlowAddresses& addresses = addresses_[flow_of(index)];
    const std::size_t leg = index & 1U;
    return std::memcmp(addresses.peer[leg].data(), key.addresses, 16) == 0 &&
           std::memcmp(own_address6(index).data(), key.addresses + 16, 16) == 0;
}

inline DirectionIndex FlowTable::confirm4(const Key4& key, std::uint32_t hash,
                                          DirectionIndex candidate) const {
    if (candidate != no_direction && matches4(candidate, key)) [[likely]] {
        return candidate;
    }
    return look_up4(key, hash);
}

inline DirectionIndex FlowTable::confirm6(const Key6& key, std::uint32_t hash,
                                          DirectionIndex candidate) const {
    if (candidate != no_direction && matches6(candidate, key)) [[likely]] {
        return candidate;
    }
    return look_up6(key, hash);
}

template <typename Matches>
DirectionIndex FlowTable::walk(std::uint32_t hash, const Matches& matches) const {
    const std::uintptr_t word = buckets_.load(std::memory_order_acquire);
    const FlowBucket* buckets = array_of(word);
    const std::uint32_t count = count_of(word);
    std::uint32_t at = home_of(hash, count);
    for (std::uint32_t turn = 0; turn < count; ++turn) {
        const FlowBucket& bucket = buckets[at];
        // Read before the slots: whoever went on since then was not installed when we came.
        const std::uint32_t passed = bucket.passed.load(std::memory_order_acquire);
        for (auto rest = bucket.match(hash); rest != 0; rest &= rest - 1) {
            const auto bit = static_cast<unsigned>(std::countr_zero(rest));
            const DirectionIndex found =
                bucket.slots[FlowBucket::slot_of(bit)].load(std::memory_order_acquire) ^
                FlowBucket::tag_of(hash);
            if (found <= FlowBucket::index_mask && matches(found)) {
                return found;
            }
        }
        if (passed == 0) {
            return no_direction;
        }
        at = next_of(at, count);
    }
    return no_direction;
}

inline DirectionIndex FlowTable::look_up4(const Key4& key, std::uint32_t hash) const {
    return walk(hash, [&](DirectionIndex index) { return matches4(index, key); });
}

inline DirectionIndex FlowTable::look_up6(const Key6& key, std::uint32_t hash) const {
    return walk(hash, [&](DirectionIndex index) { return matches6(index, key); });
}

}  // namespace bore::packet
