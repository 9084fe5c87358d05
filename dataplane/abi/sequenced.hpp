// A plain struct in shared memory that one thread writes and others copy: a sequence number is odd
// while a write is under way (a seqlock). Everything is a relaxed 64-bit word, so that a racing
// read is defined; whether what was read belongs together, the number says.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace bore::abi {

template <typename T>
struct Sequenced {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::uint64_t) == 0);
    using Words = std::array<std::uint64_t, sizeof(T) / sizeof(std::uint64_t)>;

    // The one writer. `within` runs inside the write: for words that belong to the value but are
    // not part of it.
    template <typename Within>
    void write(const T& value, Within&& within) {
        const auto source = std::bit_cast<Words>(value);
        const std::uint64_t before = sequence.load(std::memory_order_relaxed);
        sequence.store(before + 1, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_release);
        for (std::size_t index = 0; index < source.size(); ++index) {
            words[index].store(source[index], std::memory_order_relaxed);
        }
        within();
        sequence.store(before + 2, std::memory_order_release);
    }
    void write(const T& value) {
        write(value, [] {});
    }

    // The writer's own thread: what it wrote last.
    [[nodiscard]] T value() const {
        Words copy;
        for (std::size_t index = 0; index < copy.size(); ++index) {
            copy[index] = words[index].load(std::memory_order_relaxed);
        }
        return std::bit_cast<T>(copy);
    }

    std::atomic<std::uint64_t> sequence{0};
    std::array<std::atomic<std::uint64_t>, Words{}.size()> words{};
};

}  // namespace bore::abi
