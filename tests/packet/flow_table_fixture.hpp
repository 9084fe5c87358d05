// Flows by number, a table to install them in, and look-ups as a worker makes them. Shared by the
// tests of the flow table.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>

#include "dataplane/packet/flow_table.hpp"

namespace bore::packet::test {

inline constexpr std::uint64_t now_ns = 5'000'000'000'000;

inline std::array<std::uint8_t, 16> v4(std::uint32_t address) {
    std::array<std::uint8_t, 16> bytes{};
    bytes[10] = bytes[11] = 0xff;
    for (std::size_t index = 0; index < 4; ++index) {
        bytes[12 + index] = static_cast<std::uint8_t>(address >> (24 - 8 * index));
    }
    return bytes;
}

inline std::array<std::uint8_t, 16> v6(std::uint64_t low) {
    std::array<std::uint8_t, 16> bytes{0x20, 0x01, 0x0d, 0xb8};
    for (std::size_t index = 0; index < 8; ++index) {
        bytes[8 + index] = static_cast<std::uint8_t>(low >> (56 - 8 * index));
    }
    return bytes;
}

// Flow number n: the visitor 10.x.x.x, the client 11.x.x.x, the relay 192.0.2.1.
inline FlowState flow_state(std::uint32_t number, bool ipv6 = false) {
    FlowState state;
    const auto address = [ipv6](std::uint32_t value) { return ipv6 ? v6(value) : v4(value); };
    state.legs[0].key = {address(0x0a00'0000 + number / 50'000), address(0xc000'0201),
                         static_cast<std::uint16_t>(1'024 + number % 50'000), 20'000};
    state.legs[1].key = {address(0x0b00'0000 + number / 50'000), address(0xc000'0201),
                         static_cast<std::uint16_t>(1'024 + number % 50'000), 7'835};
    state.legs[0].snd_nxt = number * 3;
    state.legs[0].rcv_nxt = number * 5;
    state.legs[1].snd_nxt = number * 7;
    state.legs[1].rcv_nxt = number * 11;
    state.tunnel_index = static_cast<std::uint16_t>(number);
    return state;
}

// One with every field different.
inline FlowState detailed_state() {
    FlowState state;
    LegState& visitor = state.legs[0];
    visitor.key = {v4(0x0102'0304), v4(0xc000'0201), 0x1234, 20'000};
    visitor.snd_nxt = 1'000;
    visitor.rcv_nxt = 4'000'000'000;
    visitor.peer_window_bytes = 65'000;
    visitor.peer_mss = 1'448;
    visitor.peer_window_scale = 7;
    visitor.own_window_scale = 9;
    visitor.window_scaling = visitor.timestamps = visitor.sack = true;
    visitor.own_timestamp = 90'000;
    visitor.peer_timestamp = 7'000;
    LegState& client = state.legs[1];
    client.key = {v4(0x0506'0708), v4(0xc000'0202), 0x4567, 7'835};
    client.snd_nxt = 50'000;
    client.rcv_nxt = 60'000;
    client.peer_window_bytes = 30'000;
    client.peer_mss = 1'400;
    client.peer_window_scale = 2;
    client.own_window_scale = 14;
    client.window_scaling = client.timestamps = client.sack = true;
    client.own_timestamp = 500;
    client.peer_timestamp = 4'294'967'000;
    state.tunnel_index = 77;
    return state;
}

// Ordinary memory that counts what is reserved and may be made to refuse.
class CountingMemory final : public TableMemory {
  public:
    std::byte* reserve(std::size_t size_bytes) override {
        if (no_address_space) {
            return nullptr;
        }
        std::byte* at = ordinary_->reserve(size_bytes);
        reserved_[at] = size_bytes;
        return at;
    }
    bool commit(std::byte* at, std::size_t size_bytes) override {
        EXPECT_EQ(size_bytes % granule_bytes(), 0U);
        if (committed_bytes + size_bytes > limit_bytes) {
            return false;
        }
        committed_bytes += size_bytes;
        return ordinary_->commit(at, size_bytes);
    }
    void release(std::byte* at, std::size_t size_bytes) override {
        ASSERT_TRUE(reserved_.contains(at));
        EXPECT_EQ(reserved_[at], size_bytes);
        reserved_.erase(at);
        ordinary_->release(at, size_bytes);
    }
    std::size_t granule_bytes() const override { return ordinary_->granule_bytes(); }
    std::size_t held_count() const { return reserved_.size(); }

    std::size_t committed_bytes{0};
    std::size_t limit_bytes{std::size_t{1} << 40U};
    bool no_address_space{false};  // from now on

  private:
    std::unique_ptr<TableMemory> ordinary_{make_ordinary_memory()};
    std::map<std::byte*, std::size_t> reserved_;
};

struct TableFixture {
    explicit TableFixture(std::uint32_t max_flows, std::uint32_t worker_count = 1,
                          std::uint64_t seed = 1)
        : table(FlowTable::make(memory, max_flows, worker_count, seed).value()) {
        const auto index = table->adjacency(std::array<std::byte, 14>{}, 0);
        EXPECT_EQ(index, 0);
    }
    FlowIndex install(std::uint32_t number, bool ipv6 = false) {
        const auto flow = table->install(flow_state(number, ipv6), now_ns);
        EXPECT_TRUE(flow) << number;
        return flow.value_or(no_flow);
    }
    CountingMemory memory;
    std::unique_ptr<FlowTable> table;
};

inline FlowTable::Key4 key4(const FlowKey& key) {
    FlowTable::Key4 packed{};
    std::memcpy(&packed.source, key.peer_address.data() + 12, 4);
    std::memcpy(&packed.destination, key.own_address.data() + 12, 4);
    packed.ports =
        __builtin_bswap32(static_cast<std::uint32_t>(key.peer_port) << 16U | key.own_port);
    return packed;
}

inline DirectionIndex staged_look_up(const FlowTable& table, const FlowKey& key) {
    const FlowTable::Key4 packed = key4(key);
    const std::uint32_t hash = table.hash4(packed);
    table.prefetch_bucket(hash);
    return table.confirm4(packed, hash, table.candidate4(hash));
}

}  // namespace bore::packet::test
