// The installing thread's half of the flow table: memory, installation, removal, growth, grace
// periods and adjacencies. What workers do for every frame is inline in the header.
//
// Memory orders. A slot is stored with release after everything that it leads to, and loaded with
// acquire. Removal clears the slots, then raises the epoch by a release; a worker that has loaded
// the raised epoch at a quiescent point cannot see the slots any more, and says so by storing that
// epoch with release. A worker that comes online announces itself and then writes the epoch without
// changing it: either that write comes before the raise, and the installing thread sees the
// announcement, or it comes after it, and the worker sees the cleared slots.
#include "dataplane/packet/flow_table.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "dataplane/base/check.hpp"

namespace bore::packet {

namespace {

constexpr std::size_t v4_at = 12;  // where an IPv4 address stands in its mapped form

// Grown beyond the first; when there is no memory for that, filled up to the second.
constexpr std::size_t grow_at_eighths = 6;
constexpr std::size_t full_at_eighths = 7;

std::size_t round_up(std::size_t value, std::size_t step) {
    return (value + step - 1) / step * step;
}

std::uint64_t next_random(std::uint64_t& state) {  // SplitMix64 (Steele, Lea, Flood 2014)
    state += 0x9e37'79b9'7f4a'7c15;
    std::uint64_t value = state;
    value = (value ^ value >> 30U) * 0xbf58'476d'1ce4'e5b9;
    value = (value ^ value >> 27U) * 0x94d0'49bb'1331'11eb;
    return value ^ value >> 31U;
}

std::uint32_t v4_word(const std::array<std::uint8_t, 16>& address) {
    std::uint32_t word;
    std::memcpy(&word, address.data() + v4_at, sizeof word);
    return word;
}

std::uint32_t fold(const std::array<std::uint8_t, 16>& address) {
    return table_detail::fold_address(reinterpret_cast<const std::byte*>(address.data()));
}

// Two ports as they stand at the front of a TCP header.
std::uint32_t port_word(std::uint16_t source, std::uint16_t destination) {
    const std::array<std::uint8_t, 4> bytes{
        static_cast<std::uint8_t>(source >> 8U), static_cast<std::uint8_t>(source),
        static_cast<std::uint8_t>(destination >> 8U), static_cast<std::uint8_t>(destination)};
    return std::bit_cast<std::uint32_t>(bytes);
}

std::uint8_t flags_of(const LegState& in, const LegState& out) {
    unsigned flags = 0;
    flags |= in.key.is_v4() ? 0U : flag_v6;
    flags |= in.timestamps ? flag_in_timestamps : 0U;
    flags |= out.timestamps ? flag_out_timestamps : 0U;
    flags |= in.sack && out.sack ? flag_sack : 0U;
    flags |= out.window_scaling ? 0U : flag_no_window_scale;
    return static_cast<std::uint8_t>(flags);
}

// What replacing an address adds to a sum. The prefix of a mapped IPv4 address is the same in both.
std::uint64_t change_of(const std::array<std::uint8_t, 16>& before,
                        const std::array<std::uint8_t, 16>& after) {
    std::uint64_t change = 0;
    for (std::size_t at = 0; at < before.size(); at += 4) {
        change += change32(word32(reinterpret_cast<const std::byte*>(before.data() + at)),
                           word32(reinterpret_cast<const std::byte*>(after.data() + at)));
    }
    return change;
}

// `adjacencies`: of the legs, bound to their own addresses.
void fill_direction(DirectionEntry& entry, const LegState& in, const LegState& out,
                    std::uint16_t in_adjacency, std::uint16_t out_adjacency, bool out_tagged) {
    const bool v4 = in.key.is_v4();
    entry.in_source = v4 ? v4_word(in.key.peer_address) : fold(in.key.peer_address);
    entry.in_destination = v4 ? v4_word(in.key.own_address) : in_adjacency;
    entry.in_ports = port_word(in.key.peer_port, in.key.own_port);
    entry.out_destination = v4 ? v4_word(out.key.peer_address) : fold(out.key.peer_address);
    entry.out_ports = port_word(out.key.own_port, out.key.peer_port);
    entry.sequence_delta = out.snd_nxt - in.rcv_nxt;
    entry.acknowledgement_delta = out.rcv_nxt - in.snd_nxt;
    const bool timestamps = in.timestamps && out.timestamps;
    entry.timestamp_delta = timestamps ? out.own_timestamp - in.peer_timestamp : 0;
    entry.timestamp_echo_delta = timestamps ? out.peer_timestamp - in.own_timestamp : 0;
    set_changes(entry, change_of(in.key.peer_address, out.key.own_address) +
                           change_of(in.key.own_address, out.key.peer_address));
    entry.adjacency.store(out_adjacency, std::memory_order_relaxed);
    entry.out_mss = out.peer_mss;
    entry.window_scales =
        static_cast<std::uint8_t>(in.peer_window_scale | out.own_window_scale << 4);
    entry.flags = static_cast<std::uint8_t>(flags_of(in, out) | (out_tagged ? flag_tagged : 0));
    entry.other_fin.store(0, std::memory_order_relaxed);
    entry.next_sequence.store(in.rcv_nxt, std::memory_order_relaxed);
    entry.acknowledged.store(in.snd_nxt, std::memory_order_relaxed);
    entry.window_edge.store(in.snd_nxt + in.peer_window_bytes, std::memory_order_relaxed);
}

}  // namespace

// ---- Memory

bool FlowTable::reserve(Extent& extent, std::size_t size_bytes) {
    extent.reserved_bytes = round_up(size_bytes, memory_.granule_bytes());
    extent.start = memory_.reserve(extent.reserved_bytes);
    if (extent.start == nullptr) {
        extent.reserved_bytes = 0;
    }
    return extent.start != nullptr;
}

bool FlowTable::commit(Extent& extent, std::size_t size_bytes) {
    if (size_bytes <= extent.committed_bytes) {
        return true;
    }
    BORE_CHECK(size_bytes <= extent.reserved_bytes, "more memory than was reserved");
    const std::size_t wanted = round_up(size_bytes, memory_.granule_bytes());
    if (!memory_.commit(extent.start + extent.committed_bytes, wanted - extent.committed_bytes)) {
        return false;
    }
    extent.committed_bytes = wanted;
    return true;
}

std::size_t FlowTable::committed_bytes() const {
    std::size_t bytes = nursery_.committed_bytes + bucket_extent_.committed_bytes +
                        direction_extent_.committed_bytes + cold_extent_.committed_bytes +
                        address_extent_.committed_bytes + adjacency_extent_.committed_bytes;
    for (const Retired& retired : retired_) {
        bytes += retired.buckets.committed_bytes;
    }
    return bytes;
}

std::expected<std::unique_ptr<FlowTable>, std::string> FlowTable::make(TableMemory& memory,
                                                                       std::uint32_t max_flows,
                                                                       std::uint32_t worker_count,
                                                                       std::uint64_t seed) {
    if (max_flows == 0 || max_flows > max_flow_capacity) {
        return std::unexpected("a flow table holds 1 to " + std::to_string(max_flow_capacity) +
                               " flows, not " + std::to_string(max_flows));
    }
    std::unique_ptr<FlowTable> table(new FlowTable(memory));
    table->max_flows_ = max_flows;
    table->worker_count_ = worker_count;
    table->workers_ = std::make_unique<WorkerEpoch[]>(worker_count);
    for (std::uint64_t& secret : table->secrets_) {
        secret = next_random(seed);
    }
    const bool reserved =
        table->reserve(table->direction_extent_, 2 * sizeof(DirectionEntry) * max_flows) &&
        table->reserve(table->cold_extent_, sizeof(FlowCold) * max_flows) &&
        table->reserve(table->address_extent_, sizeof(FlowAddresses) * max_flows) &&
        table->reserve(table->adjacency_extent_, sizeof(Adjacency) * max_adjacencies);
    if (!reserved) {
        return std::unexpected("no address space for a flow table of " + std::to_string(max_flows) +
                               " flows");
    }
    table->directions_ = reinterpret_cast<DirectionEntry*>(table->direction_extent_.start);
    table->cold_ = reinterpret_cast<FlowCold*>(table->cold_extent_.start);
    table->addresses_ = reinterpret_cast<FlowAddresses*>(table->address_extent_.start);
    table->adjacencies_ = reinterpret_cast<Adjacency*>(table->adjacency_extent_.start);
    // The first piece of everything now: that there is none shows at the start, and the first flow
    // does not wait for it.
    if (!table->grow() || !table->commit(table->direction_extent_, 2 * sizeof(DirectionEntry)) ||
        !table->commit(table->cold_extent_, sizeof(FlowCold)) ||
        !table->commit(table->adjacency_extent_, sizeof(Adjacency))) {
        return std::unexpected("no memory for the beginning of the flow table");
    }
    return table;
}

FlowTable::~FlowTable() {
    const auto give_back = [this](const Extent& extent) {
        if (extent.reserved_bytes != 0) {
            memory_.release(extent.start, extent.reserved_bytes);
        }
    };
    for (const Retired& retired : retired_) {
        give_back(retired.buckets);
    }
    give_back(bucket_extent_);
    give_back(nursery_);
    give_back(direction_extent_);
    give_back(cold_extent_);
    give_back(address_extent_);
    give_back(adjacency_extent_);
}

// ---- Installation

std::optional<FlowIndex> FlowTable::install(const FlowState& state, std::uint64_t now_ns) {
    const FlowKey& visitor = state.legs[0].key;
    const FlowKey& client = state.legs[1].key;
    if (visitor.is_v4() != client.is_v4() || visitor == client || find(visitor) || find(client)) {
        return std::nullopt;
    }
    collect();
    if (!room_for_two()) {
        return std::nullopt;
    }
    const auto adjacencies = bind_adjacencies(state);
    if (!adjacencies) {
        return std::nullopt;
    }
    const std::optional<FlowIndex> flow = take_slot(!visitor.is_v4());
    if (!flow) {
        return std::nullopt;
    }
    fill(*flow, state, *adjacencies, now_ns);
    ++size_;
    const std::uintptr_t word = buckets_.load(std::memory_order_relaxed);
    for (const abi::Leg leg : {abi::Leg::visitor, abi::Leg::client}) {
        const DirectionIndex direction = direction_of(*flow, leg);
        insert(direction, hash_of(direction), word);
    }
    return flow;
}

bool FlowTable::room_for_two() {
    const std::size_t wanted = 2 * (std::size_t{size_} + 1);
    const std::size_t slots = bucket_count_ * FlowBucket::slot_count;
    return wanted <= slots / 8 * grow_at_eighths || grow() || wanted <= slots / 8 * full_at_eighths;
}

std::optional<FlowIndex> FlowTable::take_slot(bool needs_addresses) {
    const bool reused = !free_flows_.empty();
    if (!reused && fresh_flow_ == max_flows_) {
        return std::nullopt;
    }
    const FlowIndex flow = reused ? free_flows_.back() : fresh_flow_;
    const std::size_t count = std::size_t{flow} + 1;
    if (!commit(direction_extent_, 2 * sizeof(DirectionEntry) * count) ||
        !commit(cold_extent_, sizeof(FlowCold) * count) ||
        (needs_addresses && !commit(address_extent_, sizeof(FlowAddresses) * count))) {
        return std::nullopt;
    }
    if (reused) {
        free_flows_.pop_back();
    } else {
        ++fresh_flow_;
    }
    return flow;
}

void FlowTable::fill(FlowIndex flow, const FlowState& state,
                     const std::array<std::uint16_t, 2>& adjacencies, std::uint64_t now_ns) {
    FlowCold& cold = cold_[flow];
    const bool holds_acks = state.ack_hold_back != 0;
    for (std::size_t leg = 0; leg < 2; ++leg) {
        const LegState& in = state.legs[leg];
        const LegState& out = state.legs[1 - leg];
        ++adjacency_uses_[adjacencies[leg]].reference_count;
        DirectionEntry& entry = directions_[2 * std::size_t{flow} + leg];
        const std::uint16_t out_adjacency = adjacencies[1 - leg];
        fill_direction(entry, in, out, adjacencies[leg], out_adjacency,
                       adjacencies_[out_adjacency].header_bytes != 14);
        const bool limited = leg == 0 ? state.limited_to_client : state.limited_to_visitor;
        entry.tunnel_index = state.tunnel_index;
        entry.last_seen.store(activity_tick(now_ns), std::memory_order_relaxed);
        // Frames of the visitor carry the acknowledgements to the client.
        entry.state.store(static_cast<std::uint8_t>((leg == 0 && holds_acks ? state_ack_hold : 0) |
                                                    (limited ? state_limited : 0) |
                                                    (state.tell_first_byte ? state_first : 0)),
                          std::memory_order_relaxed);
        cold.first_sequence[leg].store(in.rcv_nxt, std::memory_order_relaxed);
        cold.first_acknowledgement[leg] = in.snd_nxt;
        cold.own_timestamp[leg] = in.own_timestamp - timestamp_ms(now_ns);
        cold.peer_timestamp[leg].store(in.peer_timestamp, std::memory_order_relaxed);
        cold.fin_end[leg].store(0, std::memory_order_relaxed);
        cold.acknowledged_wraps[leg].store(0, std::memory_order_relaxed);
        cold.fin_seen[leg].store(0, std::memory_order_relaxed);
        cold.fin_acknowledged[leg].store(0, std::memory_order_relaxed);
        cold.reset_seen[leg].store(0, std::memory_order_relaxed);
        if (!in.key.is_v4()) {
            ++adjacency_uses_[entry.in_destination].reference_count;
            addresses_[flow].peer[leg] = in.key.peer_address;
        }
    }
    cold.ack_hold_back = state.ack_hold_back;
    cold.ack_hold_until_ms = state.ack_hold_until_ms;
    cold.generation.store(cold.generation.load(std::memory_order_relaxed) + 1,
                          std::memory_order_relaxed);
}

// ---- Buckets

std::uint32_t FlowTable::hash_of(DirectionIndex direction) const {
    const DirectionEntry& entry = directions_[direction];
    if ((entry.flags & flag_v6) == 0) {
        return hash4({entry.in_source, entry.in_destination, entry.in_ports});
    }
    const FlowAddresses& full = addresses_[flow_of(direction)];
    const std::size_t leg = direction & 1U;
    std::array<std::byte, 32> both;
    std::memcpy(both.data(), full.peer[leg].data(), 16);
    std::memcpy(both.data() + 16, own_address6(direction).data(), 16);
    return hash6({both.data(), entry.in_ports});
}

void FlowTable::insert(DirectionIndex direction, std::uint32_t hash, std::uintptr_t word) {
    FlowBucket* buckets = array_of(word);
    const std::uint32_t count = count_of(word);
    const std::uint32_t slot = FlowBucket::tag_of(hash) | direction;
    for (std::uint32_t at = home_of(hash, count);; at = next_of(at, count)) {
        FlowBucket& bucket = buckets[at];
        for (std::size_t index = 0; index < FlowBucket::slot_count; ++index) {
            if (bucket.slots[index].load(std::memory_order_relaxed) == 0) {
                bucket.slots[index].store(slot, std::memory_order_release);
                bucket.hints[index].store(FlowBucket::hint_of(hash), std::memory_order_release);
                return;
            }
        }
        // Counted before the slot is stored, so that nobody sees the slot and stops before it.
        std::atomic<std::uint32_t>& passed = bucket.passed;
        passed.store(passed.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
}

void FlowTable::erase(DirectionIndex direction, std::uint32_t hash) const {
    const std::uintptr_t word = buckets_.load(std::memory_order_relaxed);
    FlowBucket* buckets = array_of(word);
    const std::uint32_t count = count_of(word);
    const std::uint32_t slot = FlowBucket::tag_of(hash) | direction;
    const std::uint32_t home = home_of(hash, count);
    std::uint32_t at = home;
    std::atomic<std::uint32_t>* place = nullptr;
    for (;; at = next_of(at, count)) {
        auto& slots = buckets[at].slots;
        auto* found = std::ranges::find_if(slots, [slot](const std::atomic<std::uint32_t>& one) {
            return one.load(std::memory_order_relaxed) == slot;
        });
        if (found != slots.end()) {
            place = found;
            break;
        }
        BORE_CHECK(next_of(at, count) != home, "an installed direction is in no bucket");
    }
    place->store(0, std::memory_order_release);
    for (std::uint32_t before = home; before != at; before = next_of(before, count)) {
        std::atomic<std::uint32_t>& passed = buckets[before].passed;
        passed.store(passed.load(std::memory_order_relaxed) - 1, std::memory_order_release);
    }
}

std::size_t FlowTable::passed_count() const {
    const FlowBucket* buckets = array_of(buckets_.load(std::memory_order_relaxed));
    std::size_t count = 0;
    for (std::size_t index = 0; index < bucket_count_; ++index) {
        count += buckets[index].passed.load(std::memory_order_relaxed);
    }
    return count;
}

// A quarter to a sixth more buckets, so that memory stays near what is used; twice as many while
// the arrays are small, see place_buckets(). The old array stays readable until the grace period
// ends.
bool FlowTable::grow() {
    const std::uintptr_t before = buckets_.load(std::memory_order_relaxed) & size_mask;
    const bool small = bucket_count_ * sizeof(FlowBucket) <= memory_.granule_bytes() / 2;
    const std::uintptr_t size = bucket_count_ == 0 ? first_size : before + (small ? 4 : 1);
    if (size > last_size) {
        return false;
    }
    const std::size_t count = count_of(size);
    Extent extent;
    if (!place_buckets(extent, count * sizeof(FlowBucket))) {
        return false;
    }
    const std::uintptr_t word = reinterpret_cast<std::uintptr_t>(extent.start) | size;
    copy_to(word);
    buckets_.store(word, std::memory_order_release);
    if (bucket_count_ != 0) {
        const std::uint64_t epoch = epoch_.fetch_add(1, std::memory_order_acq_rel) + 1;
        // The last array of the nursery takes it along.
        const bool outgrown = bucket_extent_.reserved_bytes == 0 && extent.reserved_bytes != 0;
        retired_.push_back(
            {epoch, no_flow, outgrown ? std::exchange(nursery_, {}) : bucket_extent_});
    }
    bucket_extent_ = extent;
    bucket_count_ = count;
    return true;
}

// Small arrays lie in one granule, each as far from its start as it is large: then none overlaps
// another, and with few flows the buckets are dense, which the caches reward, without a hugepage
// for each. Their memory was committed and zeroed once; none is used twice.
bool FlowTable::place_buckets(Extent& extent, std::size_t size_bytes) {
    const std::size_t granule = memory_.granule_bytes();
    if (size_bytes <= granule / 2) {
        if (nursery_.start == nullptr && !reserve(nursery_, granule)) {
            return false;
        }
        if (!commit(nursery_, granule)) {
            return false;
        }
        extent = {nursery_.start + size_bytes, 0, 0};
        return true;
    }
    if (!reserve(extent, size_bytes)) {
        return false;
    }
    if (!commit(extent, size_bytes)) {
        memory_.release(extent.start, extent.reserved_bytes);
        return false;
    }
    return true;
}

// All installed directions into an array that nobody reads yet. In small groups, so that the
// misses of a group's buckets overlap.
void FlowTable::copy_to(std::uintptr_t word) const {
    constexpr std::size_t group_size = 16;
    std::array<std::pair<DirectionIndex, std::uint32_t>, group_size> group;
    std::size_t count = 0;
    const auto flush = [&] {
        for (std::size_t index = 0; index < count; ++index) {
            insert(group[index].first, group[index].second, word);
        }
        count = 0;
    };
    for (FlowIndex flow = 0; flow < fresh_flow_; ++flow) {
        if (cold_[flow].generation.load(std::memory_order_relaxed) % 2 == 0) {
            continue;
        }
        for (const abi::Leg leg : {abi::Leg::visitor, abi::Leg::client}) {
            const DirectionIndex direction = direction_of(flow, leg);
            const std::uint32_t hash = hash_of(direction);
            __builtin_prefetch(array_of(word) + home_of(hash, count_of(word)), 1);
            group[count++] = {direction, hash};
        }
        if (count == group_size) {
            flush();
        }
    }
    flush();
}

// ---- Removal and the grace period

void FlowTable::remove(FlowIndex flow) {
    BORE_CHECK(flow < fresh_flow_, "no such flow");
    std::atomic<std::uint32_t>& generation = cold_[flow].generation;
    BORE_CHECK(generation.load(std::memory_order_relaxed) % 2 == 1, "flow is not installed");
    for (const abi::Leg leg : {abi::Leg::visitor, abi::Leg::client}) {
        const DirectionIndex direction = direction_of(flow, leg);
        erase(direction, hash_of(direction));
    }
    generation.store(generation.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    --size_;
    const std::uint64_t epoch = epoch_.fetch_add(1, std::memory_order_acq_rel) + 1;
    retired_.push_back({epoch, flow, {}, {}});
}

std::size_t FlowTable::collect() {
    if (retired_.empty()) {
        return 0;
    }
    std::uint64_t passed = std::numeric_limits<std::uint64_t>::max();
    for (std::uint32_t worker = 0; worker < worker_count_; ++worker) {
        const std::uint64_t seen = workers_[worker].seen.load(std::memory_order_acquire);
        passed = seen == 0 ? passed : std::min(passed, seen);
    }
    std::size_t freed = 0;
    while (!retired_.empty() && retired_.front().epoch <= passed) {
        const Retired retired = retired_.front();
        retired_.pop_front();
        if (retired.adjacency) {
            --adjacency_uses_[*retired.adjacency].reference_count;
            continue;
        }
        if (retired.flow == no_flow) {
            if (retired.buckets.reserved_bytes != 0) {  // not in the nursery
                memory_.release(retired.buckets.start, retired.buckets.reserved_bytes);
            }
            continue;
        }
        release_slot(retired.flow);
        ++freed;
    }
    return freed;
}

void FlowTable::release_slot(FlowIndex flow) {
    for (const abi::Leg leg : {abi::Leg::visitor, abi::Leg::client}) {
        const DirectionEntry& entry = directions_[direction_of(flow, leg)];
        --adjacency_uses_[entry.adjacency.load(std::memory_order_relaxed)].reference_count;
        if ((entry.flags & flag_v6) != 0) {
            --adjacency_uses_[entry.in_destination].reference_count;
        }
    }
    free_flows_.push_back(flow);
}

void FlowTable::offline(std::uint32_t worker_index) {
    workers_[worker_index].seen.store(0, std::memory_order_release);
}

void FlowTable::online(std::uint32_t worker_index) {
    workers_[worker_index].seen.store(epoch_.load(std::memory_order_relaxed),
                                      std::memory_order_relaxed);
    epoch_.fetch_add(0, std::memory_order_acq_rel);  // see the head of this file
}

DirectionIndex FlowTable::Reader::candidate_behind(std::uint32_t hash) const {
    const std::uint32_t home = home_of(hash, bucket_count);
    for (std::uint32_t at = next_of(home, bucket_count); at != home;
         at = next_of(at, bucket_count)) {
        const DirectionIndex found = candidate_in(buckets[at], hash);
        if (found != no_direction || buckets[at].passed.load(std::memory_order_relaxed) == 0) {
            return found;
        }
    }
    return no_direction;
}

// ---- Questions of the installing thread

std::optional<DirectionIndex> FlowTable::find(const FlowKey& in) const {
    const std::uint32_t ports = port_word(in.peer_port, in.own_port);
    DirectionIndex found = no_direction;
    if (in.is_v4()) {
        const Key4 key{v4_word(in.peer_address), v4_word(in.own_address), ports};
        found = look_up4(key, hash4(key));
    } else {
        std::array<std::byte, 32> both;
        std::memcpy(both.data(), in.peer_address.data(), 16);
        std::memcpy(both.data() + 16, in.own_address.data(), 16);
        const Key6 key{both.data(), ports};
        found = look_up6(key, hash6(key));
    }
    return found == no_direction ? std::nullopt : std::optional(found);
}

std::array<std::uint64_t, 2> FlowTable::delivered_bytes(FlowIndex flow) const {
    std::array<std::uint64_t, 2> delivered{};
    for (const std::size_t leg : {0U, 1U}) {
        const FlowCold& cold = cold_[flow];
        // The other leg's peer acknowledges what this direction carried.
        const DirectionEntry& forth = directions_[2 * std::size_t{flow} + leg];
        const std::uint64_t acknowledged = acknowledged_by(flow, 1 - leg);
        const std::uint64_t first = cold.first_acknowledgement[1 - leg];
        delivered[leg] = acknowledged < first ? 0 : acknowledged - first;
        if (cold.fin_seen[leg].load(std::memory_order_acquire) != 0) {
            // Nothing is delivered behind the FIN, and the FIN itself is no byte.
            const std::uint32_t end =
                cold.fin_end[leg].load(std::memory_order_relaxed) + forth.sequence_delta - 1;
            const std::uint32_t beyond = static_cast<std::uint32_t>(acknowledged) - end;
            const bool positive = static_cast<std::int32_t>(beyond) > 0;
            delivered[leg] -= positive ? std::min(delivered[leg], std::uint64_t{beyond}) : 0;
        }
    }
    return delivered;
}

// The latest acknowledgement of a leg's peer and how often it wrapped. The worker stores the two
// one after the other: read them again until both stood still.
std::uint64_t FlowTable::acknowledged_by(FlowIndex flow, std::size_t leg) const {
    const auto& acknowledged = directions_[2 * std::size_t{flow} + leg].acknowledged;
    const auto& wraps = cold_[flow].acknowledged_wraps[leg];
    const auto read = [&] {
        const std::uint64_t high = wraps.load(std::memory_order_acquire);
        return high << 32U | acknowledged.load(std::memory_order_acquire);
    };
    constexpr int attempts = 64;
    std::uint64_t value = read();
    for (int attempt = 0; attempt < attempts; ++attempt) {
        const std::uint64_t again = read();
        if (again == value) {
            break;
        }
        value = again;
    }
    return value;
}

// ---- Adjacencies

std::optional<std::uint16_t> FlowTable::adjacency(std::span<const std::byte> header,
                                                  std::uint8_t port_index) {
    Adjacency wanted;
    if (header.size() != 14 && header.size() != wanted.header.size()) {
        return std::nullopt;
    }
    std::ranges::copy(header, wanted.header.begin());
    wanted.header_bytes = static_cast<std::uint8_t>(header.size());
    wanted.port_index = port_index;
    return intern(wanted, std::nullopt);
}

// The adjacencies of both legs, each with the leg's own address. The neighbours are held meanwhile:
// whatever is taken for one must not be that of the other.
std::optional<std::array<std::uint16_t, 2>> FlowTable::bind_adjacencies(const FlowState& state) {
    const auto bind = [&](const LegState& leg) {
        Adjacency wanted = adjacencies_[leg.adjacency];
        wanted.own_address = leg.key.own_address;
        return intern(wanted, leg.adjacency);
    };
    const auto& [visitor, client] = state.legs;
    for (const LegState& leg : state.legs) {
        BORE_CHECK(leg.adjacency < adjacency_uses_.size(), "an adjacency that was never made");
        ++adjacency_uses_[leg.adjacency].reference_count;
    }
    const auto of_visitor = bind(visitor);
    if (of_visitor) {
        ++adjacency_uses_[*of_visitor].reference_count;
    }
    const auto of_client = bind(client);
    if (of_visitor) {
        --adjacency_uses_[*of_visitor].reference_count;
    }
    for (const LegState& leg : state.legs) {
        --adjacency_uses_[leg.adjacency].reference_count;
    }
    if (!of_visitor || !of_client) {
        return std::nullopt;
    }
    return std::array{*of_visitor, *of_client};
}

// The index of an adjacency like this one, which is made when there is none. `neighbour`: that it
// was bound to an address of; it stays as long as this one.
std::optional<std::uint16_t> FlowTable::intern(const Adjacency& wanted,
                                               std::optional<std::uint16_t> neighbour) {
    AdjacencyContent content;
    std::ranges::copy(wanted.header, content.begin());
    content[18] = static_cast<std::byte>(wanted.header_bytes);
    content[19] = static_cast<std::byte>(wanted.port_index);
    std::memcpy(content.data() + 20, wanted.own_address.data(), wanted.own_address.size());
    if (const auto known = adjacency_indices_.find(content); known != adjacency_indices_.end()) {
        return known->second;
    }
    const std::optional<std::uint16_t> index = take_adjacency();
    if (!index) {
        return std::nullopt;
    }
    adjacencies_[*index] = wanted;
    adjacency_uses_[*index] = {0, neighbour, content};
    if (neighbour) {
        ++adjacency_uses_[*neighbour].reference_count;
    }
    adjacency_indices_.emplace(content, *index);
    return index;
}

bool FlowTable::set_adjacency(DirectionIndex direction, std::uint16_t neighbour) {
    BORE_CHECK(neighbour < adjacency_uses_.size(), "an adjacency that was never made");
    DirectionEntry& entry = directions_[direction];
    const std::uint16_t former = entry.adjacency.load(std::memory_order_relaxed);
    Adjacency wanted = adjacencies_[neighbour];
    wanted.own_address = adjacencies_[former].own_address;
    ++adjacency_uses_[neighbour].reference_count;
    const auto bound = intern(wanted, neighbour);
    --adjacency_uses_[neighbour].reference_count;
    if (!bound) {
        return false;
    }
    ++adjacency_uses_[*bound].reference_count;
    entry.adjacency.store(*bound, std::memory_order_release);
    const std::uint64_t epoch = epoch_.fetch_add(1, std::memory_order_acq_rel) + 1;
    retired_.push_back({epoch, no_flow, {}, former});
    return true;
}

// A fresh index, or when all are taken, one that nothing refers to, the longest unvisited first.
std::optional<std::uint16_t> FlowTable::take_adjacency() {
    if (adjacency_uses_.size() < max_adjacencies) {
        const std::size_t index = adjacency_uses_.size();
        if (!commit(adjacency_extent_, sizeof(Adjacency) * (index + 1))) {
            return std::nullopt;
        }
        adjacency_uses_.emplace_back();
        return static_cast<std::uint16_t>(index);
    }
    for (std::size_t turn = 0; turn < max_adjacencies; ++turn) {
        const std::size_t index = adjacency_clock_;
        adjacency_clock_ = (adjacency_clock_ + 1) % max_adjacencies;
        AdjacencyUse& use = adjacency_uses_[index];
        if (use.reference_count == 0) {
            adjacency_indices_.erase(use.content);
            if (use.neighbour) {
                --adjacency_uses_[*use.neighbour].reference_count;
            }
            return static_cast<std::uint16_t>(index);
        }
    }
    return std::nullopt;
}

}  // namespace bore::packet
