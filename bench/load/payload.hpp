// What travels between a visitor and the service, and the two pumps that move it.
//
// A visitor opens with 16 bytes that say what it wants, so one service behind one tunnel serves
// every mode:
//
//   byte  0..3   "BLD1"
//   byte  4      work: 'U' upload, 'D' download, 'B' both ways, 'R' requests, 'F' answer after FIN
//   byte  5      bit 0: verify every byte of a transfer
//                bit 1: acknowledge at once what arrives of a request (TCP_QUICKACK)
//   byte  6..7   number of the stream, little endian: where in the pattern it begins
//   byte  8..15  little endian, by the work:
//                U, D, B  size of the transfer in bytes (0 = until the visitor ends it)
//                R        lower half size of each request, upper half size of each response
//                F        lower half size of the answer, upper half milliseconds until it is sent
//
// The byte at offset n of a stream is pattern[(begin + n) mod 65521]; `begin` differs by the number
// of the stream and by direction. So loss, doubling, exchange, and bytes of another stream or of
// the other direction show as a mismatch. Requests and responses are pieces of the same two
// streams: an old response is not a right one. An upload is answered with a report of 16 bytes:
// bytes received, then 0 or the offset of the first wrong one plus 1; both little endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace bore::bench {

enum class Work : std::uint8_t {
    upload = 'U',
    download = 'D',
    both = 'B',
    requests = 'R',
    after_fin = 'F',
    echo = 'E'  // never asked for; a service can be started so
};

inline constexpr std::size_t opening_size_bytes = 16;
inline constexpr std::size_t report_size_bytes = 16;
// Bytes per send: large enough to amortise the call, small enough to stay inside L2.
inline constexpr std::size_t chunk_size_bytes = 128UL * 1024;
inline constexpr std::uint64_t endless = ~std::uint64_t{0};

enum class Direction : std::uint8_t { up, down };

struct Opening {
    Work work = Work::requests;
    bool verify = false;
    bool acknowledge_at_once = false;
    std::uint16_t stream = 0;
    std::uint64_t size_bytes = 0;

    // Two halves of the size, by the work: request and response bytes, or answer bytes and delay.
    void set_halves(std::uint32_t lower, std::uint32_t upper) {
        size_bytes = std::uint64_t{upper} << 32 | lower;
    }
    [[nodiscard]] std::uint32_t lower() const { return static_cast<std::uint32_t>(size_bytes); }
    [[nodiscard]] std::uint32_t upper() const {
        return static_cast<std::uint32_t>(size_bytes >> 32);
    }
    // Where in the pattern the bytes of a direction begin.
    [[nodiscard]] std::uint64_t begin(Direction direction) const;

    [[nodiscard]] std::array<std::byte, opening_size_bytes> encode() const;
    [[nodiscard]] static std::optional<Opening> decode(std::span<const std::byte> bytes);
};

struct UploadReport {
    std::uint64_t received_bytes = 0;
    std::optional<std::uint64_t> first_mismatch;

    [[nodiscard]] std::array<std::byte, report_size_bytes> encode() const;
    [[nodiscard]] static UploadReport decode(std::span<const std::byte, report_size_bytes> bytes);
};

// The pattern from a place on; at most chunk_size_bytes long.
[[nodiscard]] std::span<const std::byte> pattern_at(std::uint64_t place, std::size_t length);

enum class Pump { progress, complete, blocked, ended, failed };

// Sends an opening, if it has one, and the pattern up to a limit.
class PatternSender {
  public:
    PatternSender() = default;
    PatternSender(std::uint64_t begin, std::uint64_t limit_bytes)
        : begin_(begin), limit_bytes_(limit_bytes) {}

    // Sent ahead of the first byte, in the same packet where it fits.
    void open_with(const std::array<std::byte, opening_size_bytes>& opening) {
        opening_ = opening;
        opening_left_ = opening.size();
    }
    void extend(std::uint64_t bytes) { limit_bytes_ += bytes; }

    // One send; progress, complete (limit reached), blocked or failed (errno).
    [[nodiscard]] Pump pump(int descriptor);
    [[nodiscard]] bool complete() const {
        return opening_left_ == 0 && sent_bytes_ == limit_bytes_;
    }
    [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_; }

  private:
    std::uint64_t begin_ = 0;
    std::uint64_t limit_bytes_ = 0;
    std::uint64_t sent_bytes_ = 0;
    std::size_t opening_left_ = 0;
    std::array<std::byte, opening_size_bytes> opening_{};
};

// Receives up to a limit. Without verification the kernel drops the bytes (MSG_TRUNC), so that the
// sink costs no copy.
class PatternReceiver {
  public:
    PatternReceiver() = default;
    PatternReceiver(std::uint64_t begin, std::uint64_t limit_bytes, bool verify)
        : begin_(begin), limit_bytes_(limit_bytes), verify_(verify) {}

    void extend(std::uint64_t bytes) { limit_bytes_ += bytes; }

    // One receive of at most `most` bytes; progress, complete (limit reached), blocked, ended (FIN)
    // or failed (errno).
    [[nodiscard]] Pump pump(int descriptor, std::uint64_t most = endless);
    // Bytes that were received elsewhere.
    void take(std::span<const std::byte> bytes);

    [[nodiscard]] bool complete() const { return received_bytes_ == limit_bytes_; }
    [[nodiscard]] std::uint64_t received_bytes() const { return received_bytes_; }
    [[nodiscard]] std::uint64_t missing_bytes() const { return limit_bytes_ - received_bytes_; }
    [[nodiscard]] std::optional<std::uint64_t> first_mismatch() const { return first_mismatch_; }

  private:
    std::uint64_t begin_ = 0;
    std::uint64_t limit_bytes_ = 0;
    std::uint64_t received_bytes_ = 0;
    std::optional<std::uint64_t> first_mismatch_;
    bool verify_ = false;
};

}  // namespace bore::bench
