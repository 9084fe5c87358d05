// Encoding and pumps behind payload.hpp.
#include "bench/load/payload.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "dataplane/base/check.hpp"

namespace bore::bench {
namespace {

constexpr std::size_t pattern_period_bytes = 65'521;
constexpr std::array<char, 4> magic = {'B', 'L', 'D', '1'};

void put_u64(std::span<std::byte, 8> target, std::uint64_t value) {
    for (std::byte& byte : target) {
        byte = static_cast<std::byte>(value & 0xff);
        value >>= 8;
    }
}

std::uint64_t get_u64(std::span<const std::byte, 8> source) {
    std::uint64_t value = 0;
    for (std::size_t index = 8; index-- > 0;) {
        value = value << 8 | static_cast<std::uint64_t>(source[index]);
    }
    return value;
}

std::vector<std::byte> make_pattern() {
    std::vector<std::byte> pattern(pattern_period_bytes + chunk_size_bytes);
    std::uint64_t state = 88'172'645'463'325'252;  // any seed; both ends are this program
    for (std::size_t index = 0; index < pattern.size(); ++index) {
        if (index >= pattern_period_bytes) {
            pattern[index] = pattern[index - pattern_period_bytes];
            continue;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern[index] = static_cast<std::byte>(state >> 32 & 0xff);
    }
    return pattern;
}

bool known_work(std::uint8_t letter) {
    return letter == 'U' || letter == 'D' || letter == 'B' || letter == 'R';
}

}  // namespace

std::array<std::byte, opening_size_bytes> Opening::encode() const {
    std::array<std::byte, opening_size_bytes> bytes{};
    std::memcpy(bytes.data(), magic.data(), magic.size());
    bytes[4] = static_cast<std::byte>(work);
    bytes[5] = static_cast<std::byte>((verify ? 1 : 0) | (acknowledge_at_once ? 2 : 0));
    put_u64(std::span(bytes).subspan<8, 8>(), size_bytes);
    return bytes;
}

std::optional<Opening> Opening::decode(std::span<const std::byte> bytes) {
    if (bytes.size() < opening_size_bytes ||
        std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
        return std::nullopt;
    }
    const auto letter = static_cast<std::uint8_t>(bytes[4]);
    if (!known_work(letter)) {
        return std::nullopt;
    }
    return Opening{.work = static_cast<Work>(letter),
                   .verify = (bytes[5] & std::byte{1}) != std::byte{0},
                   .acknowledge_at_once = (bytes[5] & std::byte{2}) != std::byte{0},
                   .size_bytes = get_u64(bytes.subspan<8, 8>())};
}

std::array<std::byte, report_size_bytes> UploadReport::encode() const {
    std::array<std::byte, report_size_bytes> bytes{};
    put_u64(std::span(bytes).subspan<0, 8>(), received_bytes);
    put_u64(std::span(bytes).subspan<8, 8>(), mismatched ? 1 : 0);
    return bytes;
}

UploadReport UploadReport::decode(std::span<const std::byte, report_size_bytes> bytes) {
    return {.received_bytes = get_u64(bytes.subspan<0, 8>()),
            .mismatched = get_u64(bytes.subspan<8, 8>()) != 0};
}

std::span<const std::byte> pattern_at(std::uint64_t offset, std::size_t length) {
    static const std::vector<std::byte> pattern = make_pattern();
    BORE_CHECK(length <= chunk_size_bytes, "a piece of the pattern is at most one chunk");
    return std::span(pattern).subspan(offset % pattern_period_bytes, length);
}

void fill_with_pattern(std::span<std::byte> target) {
    for (std::size_t at = 0; at < target.size(); at += chunk_size_bytes) {
        const std::size_t length = std::min(chunk_size_bytes, target.size() - at);
        std::memcpy(target.data() + at, pattern_at(at, length).data(), length);
    }
}

Pump PatternSender::pump(int descriptor) {
    std::size_t length = chunk_size_bytes;
    if (limit_bytes_ != 0) {
        length =
            static_cast<std::size_t>(std::min<std::uint64_t>(length, limit_bytes_ - sent_bytes_));
    }
    const std::span<const std::byte> piece = pattern_at(sent_bytes_, length);
    const ssize_t sent = ::send(descriptor, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? Pump::blocked : Pump::failed;
    }
    sent_bytes_ += static_cast<std::uint64_t>(sent);
    return limit_bytes_ != 0 && sent_bytes_ == limit_bytes_ ? Pump::complete : Pump::progress;
}

Pump PatternReceiver::pump(int descriptor) {
    static std::vector<std::byte> buffer(1024UL * 1024);
    std::size_t length = verify_ ? chunk_size_bytes : buffer.size();
    if (limit_bytes_ != 0) {
        length = static_cast<std::size_t>(
            std::min<std::uint64_t>(length, limit_bytes_ - received_bytes_));
    }
    const ssize_t count = ::recv(descriptor, buffer.data(), length, verify_ ? 0 : MSG_TRUNC);
    if (count < 0) {
        return errno == EAGAIN || errno == EINTR ? Pump::blocked : Pump::failed;
    }
    if (count == 0) {
        return Pump::ended;
    }
    const auto received = static_cast<std::size_t>(count);
    if (verify_) {
        const std::span<const std::byte> expected = pattern_at(received_bytes_, received);
        mismatched_ |= std::memcmp(buffer.data(), expected.data(), received) != 0;
    }
    received_bytes_ += received;
    return limit_bytes_ != 0 && received_bytes_ == limit_bytes_ ? Pump::complete : Pump::progress;
}

}  // namespace bore::bench
