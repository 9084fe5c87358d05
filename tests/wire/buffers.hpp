// The memory of all frames on the wire: fixed slots with a count of references, so that a doubled
// frame is one buffer that is sent twice. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tests/wire/lane.hpp"

namespace bore::wire {

inline constexpr std::size_t max_frame_bytes = 9'018;  // a jumbo frame with a VLAN tag
// 20 ms each way at 5 Gbit/s are 8,300 frames; pages that are never used cost nothing.
inline constexpr std::uint32_t buffer_count = 32'768;

class Buffers {
  public:
    Buffers()
        : bytes_(std::make_unique_for_overwrite<std::uint8_t[]>(slot_bytes * buffer_count)),
          slots_(buffer_count) {
        free_.reserve(buffer_count);
        for (BufferIndex index = buffer_count; index > 0; --index) {
            free_.push_back(index - 1);
        }
    }

    [[nodiscard]] std::size_t free_count() const { return free_.size(); }
    [[nodiscard]] BufferIndex take() {
        const BufferIndex index = free_.back();
        free_.pop_back();
        slots_[index].references = 1;
        return index;
    }
    void refer(BufferIndex index) { ++slots_[index].references; }
    void release(BufferIndex index) {
        if (--slots_[index].references == 0) {
            free_.push_back(index);
        }
    }

    // Where a received frame goes. A VLAN tag that the kernel took out is put back into the
    // headroom before it.
    [[nodiscard]] std::uint8_t* room(BufferIndex index) {
        return bytes_.get() + index * slot_bytes + headroom_bytes;
    }
    void set(BufferIndex index, std::uint8_t* data, std::size_t length_bytes) {
        slots_[index].data = data;
        slots_[index].length_bytes = static_cast<std::uint32_t>(length_bytes);
    }
    [[nodiscard]] std::uint8_t* data(BufferIndex index) { return slots_[index].data; }
    [[nodiscard]] std::size_t length_bytes(BufferIndex index) const {
        return slots_[index].length_bytes;
    }

    static constexpr std::size_t headroom_bytes = 64;

  private:
    static constexpr std::size_t slot_bytes = 9'216;
    static_assert(headroom_bytes + max_frame_bytes <= slot_bytes);

    struct Slot {
        std::uint8_t* data{nullptr};
        std::uint32_t length_bytes{0};
        std::uint32_t references{0};
    };

    std::unique_ptr<std::uint8_t[]> bytes_;
    std::vector<Slot> slots_;
    std::vector<BufferIndex> free_;
};

}  // namespace bore::wire
