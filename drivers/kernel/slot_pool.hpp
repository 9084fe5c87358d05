// The slots of a worker's pairs: addresses never change, memory is made in chunks when it is first
// needed and kept for the next pair. Indexed by the slot numbers that the engine gives out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace bore::drivers {

template <typename Slot>
class SlotPool {
  public:
    Slot& get(std::uint32_t slot_index) {
        const std::size_t chunk_index = slot_index / chunk_slots;
        if (chunk_index >= chunks_.size()) {
            chunks_.resize(chunk_index + 1);
        }
        if (!chunks_[chunk_index]) {
            chunks_[chunk_index] = std::make_unique<Slot[]>(chunk_slots);
        }
        return chunks_[chunk_index][slot_index % chunk_slots];
    }

    Slot* find(std::uint32_t slot_index) {
        const std::size_t chunk_index = slot_index / chunk_slots;
        if (chunk_index >= chunks_.size() || !chunks_[chunk_index]) {
            return nullptr;
        }
        return &chunks_[chunk_index][slot_index % chunk_slots];
    }

  private:
    static constexpr std::uint32_t chunk_slots = 32;
    std::vector<std::unique_ptr<Slot[]>> chunks_;
};

}  // namespace bore::drivers
