// Draws decisions and texts from a fuzzer's input; an input that is used up gives zeros. Used by
// the targets of this folder only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace bore::fuzz {

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}

    [[nodiscard]] bool empty() const { return bytes_.empty(); }

    std::uint8_t byte() {
        if (bytes_.empty()) {
            return 0;
        }
        const std::uint8_t value = bytes_.front();
        bytes_ = bytes_.subspan(1);
        return value;
    }

    std::size_t below(std::size_t bound) { return byte() % bound; }

    std::string text(std::size_t size) {
        const auto part = bytes_.first(std::min(size, bytes_.size()));
        bytes_ = bytes_.subspan(part.size());
        return {part.begin(), part.end()};
    }

    std::string rest() { return text(bytes_.size()); }

  private:
    std::span<const std::uint8_t> bytes_;
};

}  // namespace bore::fuzz
