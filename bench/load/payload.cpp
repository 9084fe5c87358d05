// Encoding and pumps behind payload.hpp.
#include "bench/load/payload.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

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

bool is_work(std::uint8_t letter) {
    return letter == 'U' || letter == 'D' || letter == 'B' || letter == 'R' || letter == 'F';
}

}  // namespace

std::uint64_t Opening::begin(Direction direction) const {
    // A stride that is prime to the period: neighbours begin far apart, no two streams together.
    const std::uint64_t place = std::uint64_t{stream} * 4'093;
    return direction == Direction::up ? place : place + pattern_period_bytes / 2;
}

std::array<std::byte, opening_size_bytes> Opening::encode() const {
    std::array<std::byte, opening_size_bytes> bytes{};
    std::memcpy(bytes.data(), magic.data(), magic.size());
    bytes[4] = static_cast<std::byte>(work);
    bytes[5] = static_cast<std::byte>((verify ? 1 : 0) | (acknowledge_at_once ? 2 : 0));
    bytes[6] = static_cast<std::byte>(stream & 0xff);
    bytes[7] = static_cast<std::byte>(stream >> 8);
    put_u64(std::span(bytes).subspan<8, 8>(), size_bytes);
    return bytes;
}

std::optional<Opening> Opening::decode(std::span<const std::byte> bytes) {
    if (bytes.size() < opening_size_bytes ||
        std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
        return std::nullopt;
    }
    const auto letter = static_cast<std::uint8_t>(bytes[4]);
    if (!is_work(letter)) {
        return std::nullopt;
    }
    const auto high = static_cast<unsigned>(bytes[7]);
    const Opening opening{
        .work = static_cast<Work>(letter),
        .verify = (bytes[5] & std::byte{1}) != std::byte{0},
        .acknowledge_at_once = (bytes[5] & std::byte{2}) != std::byte{0},
        .stream = static_cast<std::uint16_t>(high << 8 | static_cast<unsigned>(bytes[6])),
        .size_bytes = get_u64(bytes.subspan<8, 8>())};
    const bool needs_sizes = opening.work == Work::requests;
    if (needs_sizes && (opening.lower() == 0 || opening.upper() == 0)) {
        return std::nullopt;
    }
    return opening;
}

std::array<std::byte, report_size_bytes> UploadReport::encode() const {
    std::array<std::byte, report_size_bytes> bytes{};
    put_u64(std::span(bytes).subspan<0, 8>(), received_bytes);
    put_u64(std::span(bytes).subspan<8, 8>(), first_mismatch ? *first_mismatch + 1 : 0);
    return bytes;
}

UploadReport UploadReport::decode(std::span<const std::byte, report_size_bytes> bytes) {
    UploadReport report{.received_bytes = get_u64(bytes.subspan<0, 8>())};
    if (const std::uint64_t place = get_u64(bytes.subspan<8, 8>()); place > 0) {
        report.first_mismatch = place - 1;
    }
    return report;
}

std::span<const std::byte> pattern_at(std::uint64_t place, std::size_t length) {
    static const std::vector<std::byte> pattern = make_pattern();
    BORE_CHECK(length <= chunk_size_bytes, "a piece of the pattern is at most one chunk");
    return std::span(pattern).subspan(place % pattern_period_bytes, length);
}

Pump PatternSender::pump(int descriptor) {
    const auto length = static_cast<std::size_t>(
        std::min<std::uint64_t>(chunk_size_bytes, limit_bytes_ - sent_bytes_));
    const std::span<const std::byte> piece = pattern_at(begin_ + sent_bytes_, length);
    std::byte* opening = opening_.data() + (opening_.size() - opening_left_);
    iovec parts[2] = {
        {.iov_base = opening, .iov_len = opening_left_},
        {.iov_base = const_cast<std::byte*>(piece.data()), .iov_len = piece.size()},
    };
    msghdr message{};
    message.msg_iov = opening_left_ > 0 ? parts : parts + 1;
    message.msg_iovlen = opening_left_ > 0 ? 2 : 1;
    const ssize_t sent = ::sendmsg(descriptor, &message, MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? Pump::blocked : Pump::failed;
    }
    const std::size_t of_opening = std::min(opening_left_, static_cast<std::size_t>(sent));
    opening_left_ -= of_opening;
    sent_bytes_ += static_cast<std::uint64_t>(sent) - of_opening;
    return complete() ? Pump::complete : Pump::progress;
}

Pump PatternReceiver::pump(int descriptor, std::uint64_t most) {
    thread_local std::vector<std::byte> buffer(1024UL * 1024);
    const std::uint64_t room = verify_ ? chunk_size_bytes : buffer.size();
    const auto length = static_cast<std::size_t>(std::min({room, missing_bytes(), most}));
    const ssize_t count = ::recv(descriptor, buffer.data(), length, verify_ ? 0 : MSG_TRUNC);
    if (count < 0) {
        return errno == EAGAIN || errno == EINTR ? Pump::blocked : Pump::failed;
    }
    if (count == 0) {
        return Pump::ended;
    }
    take(std::span(buffer).first(static_cast<std::size_t>(count)));
    return complete() ? Pump::complete : Pump::progress;
}

void PatternReceiver::take(std::span<const std::byte> bytes) {
    if (verify_ && !first_mismatch_) {
        const auto expected = pattern_at(begin_ + received_bytes_, bytes.size());
        if (std::memcmp(bytes.data(), expected.data(), bytes.size()) != 0) {
            const auto [at, _] = std::ranges::mismatch(bytes, expected);
            first_mismatch_ = received_bytes_ + static_cast<std::uint64_t>(at - bytes.begin());
        }
    }
    received_bytes_ += bytes.size();
}

}  // namespace bore::bench
