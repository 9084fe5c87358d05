// The payload of the simulated streams: every byte follows from its stream and its position, so
// that a lost, doubled or displaced one is seen where it arrives.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>

namespace bore::stream::testing {

class Pattern {
  public:
    static void fill(std::uint64_t stream, std::uint64_t position, std::span<std::byte> bytes) {
        while (!bytes.empty()) {
            const std::span<const std::byte> part = piece(stream, position, bytes.size());
            std::memcpy(bytes.data(), part.data(), part.size());
            position += part.size();
            bytes = bytes.subspan(part.size());
        }
    }
    static bool matches(std::uint64_t stream, std::uint64_t position,
                        std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const std::span<const std::byte> part = piece(stream, position, bytes.size());
            if (std::memcmp(bytes.data(), part.data(), part.size()) != 0) {
                return false;
            }
            position += part.size();
            bytes = bytes.subspan(part.size());
        }
        return true;
    }

  private:
    // A prime: no buffer size divides it, so equal offsets of two buffers hold different bytes.
    static constexpr std::size_t table_bytes = 65'521;

    static std::span<const std::byte> piece(std::uint64_t stream, std::uint64_t position,
                                            std::size_t most) {
        static const std::array<std::byte, table_bytes> table = make_table();
        const std::size_t start = (position + stream * 7'919) % table_bytes;
        return std::span(table).subspan(start, std::min(most, table_bytes - start));
    }
    static std::array<std::byte, table_bytes> make_table() {
        std::array<std::byte, table_bytes> table{};
        std::mt19937_64 engine(1);
        for (std::byte& byte : table) {
            byte = static_cast<std::byte>(engine());
        }
        return table;
    }
};

}  // namespace bore::stream::testing
