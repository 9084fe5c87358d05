// What the hand-off simulation is built on: chance from a seed, buffers for frames, and events in
// the order of their times.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/base/clock.hpp"
#include "dataplane/packet/frame.hpp"

namespace bore::packet::testing {

using base::Nanoseconds;

class Chance {
  public:
    explicit Chance(std::uint64_t seed) : state_(seed * 0x9e37'79b9'7f4a'7c15 + 1) {}

    std::uint64_t next() {  // splitmix64
        state_ += 0x9e37'79b9'7f4a'7c15;
        std::uint64_t value = state_;
        value = (value ^ (value >> 30U)) * 0xbf58'476d'1ce4'e5b9;
        value = (value ^ (value >> 27U)) * 0x94d0'49bb'1331'11eb;
        return value ^ (value >> 31U);
    }
    // Both ends included.
    template <typename Integer>
    Integer between(Integer least, Integer most) {
        return static_cast<Integer>(
            least + static_cast<Integer>(next() % (static_cast<std::uint64_t>(most - least) + 1)));
    }
    bool percent(unsigned share) { return next() % 100 < share; }
    bool mille(unsigned share) { return share != 0 && next() % 1'000 < share; }
    template <typename Value>
    Value one_of(std::initializer_list<Value> values) {
        return values.begin()[next() % values.size()];
    }

  private:
    std::uint64_t state_;
};

// A frame with room in front, as a port would give it.
struct Packet {
    static constexpr std::uint16_t headroom_bytes = 128;
    std::array<std::byte, 1'024> bytes;
    std::uint16_t offset;
    std::uint16_t length;
    std::uint8_t port_index;

    [[nodiscard]] std::span<const std::byte> view() const {
        return std::span(bytes).subspan(offset, length);
    }
    void set(std::span<const std::byte> frame) {
        offset = headroom_bytes;
        length = static_cast<std::uint16_t>(frame.size());
        std::memcpy(&bytes[offset], frame.data(), frame.size());
    }
    [[nodiscard]] Frame frame() {
        return {.data = &bytes[offset],
                .length_bytes = length,
                .headroom_bytes = offset,
                .tailroom_bytes = static_cast<std::uint16_t>(bytes.size() - offset - length),
                .port_index = port_index,
                .checksum = ReceivedChecksum::unknown,
                .buffer = this};
    }
    void take(const Frame& frame) {
        offset = static_cast<std::uint16_t>(frame.data - bytes.data());
        length = frame.length_bytes;
        port_index = frame.port_index;
    }
};

class PacketPool {
  public:
    Packet* take() {
        if (free_.empty()) {
            owned_.push_back(std::make_unique<Packet>());
            return owned_.back().get();
        }
        Packet* packet = free_.back();
        free_.pop_back();
        return packet;
    }
    void give(Packet* packet) { free_.push_back(packet); }
    [[nodiscard]] std::size_t taken() const { return owned_.size() - free_.size(); }

  private:
    std::vector<std::unique_ptr<Packet>> owned_;
    std::vector<Packet*> free_;
};

struct Event {
    enum class Kind : std::uint8_t {
        arrive_at_relay,  // index: port
        arrive_at_peer,   // index: which
        arrive_at_slow_path,
        injected,  // from the slow path to a worker; index: worker, word: 1 = replay
        arrive_at_kernel,
        leave_kernel,
        peer_timer,
        kernel_timer,
        peer_turn,
        control_turn,
        stream_turn,
        slow_tick,
        flow_event,
        first_byte,
        close_sockets,
        stream_ended,
        command,
        probe,
    };
    Nanoseconds at;
    std::uint32_t order;
    Kind kind;
    std::uint8_t index;
    std::uint64_t word;
    Packet* packet;
};

class EventQueue {
  public:
    void push(Nanoseconds at, Event::Kind kind, std::uint8_t index = 0, std::uint64_t word = 0,
              Packet* packet = nullptr) {
        events_.push_back({at, next_order_++, kind, index, word, packet});
        std::ranges::push_heap(events_, later);
    }
    Event pop() {
        std::ranges::pop_heap(events_, later);
        const Event event = events_.back();
        events_.pop_back();
        return event;
    }
    [[nodiscard]] bool empty() const { return events_.empty(); }
    template <typename Visit>
    void clear(const Visit& visit) {
        std::ranges::for_each(events_, visit);
        events_.clear();
        next_order_ = 0;
    }

  private:
    static bool later(const Event& left, const Event& right) {
        return left.at != right.at ? left.at > right.at : left.order > right.order;
    }
    std::vector<Event> events_;
    std::uint32_t next_order_{0};
};

}  // namespace bore::packet::testing
