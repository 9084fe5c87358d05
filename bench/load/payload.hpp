// What travels between a visitor and the service, and the two pumps that move it.
//
// A visitor opens with 16 bytes that say what it wants, so one service behind one tunnel serves
// every mode:
//
//   byte  0..3   "BLD1"
//   byte  4      work: 'U' upload, 'D' download, 'B' both ways, 'R' requests
//   byte  5      bit 0: verify every byte of a transfer
//                bit 1: acknowledge at once what arrives of a request (TCP_QUICKACK)
//   byte  6..7   0
//   byte  8..15  size in bytes, little endian: of the transfer (0 = until the visitor ends it);
//                for requests the lower half is the size of each request, the upper half that of
//                each response
//
// The byte at offset n of any stream is pattern[n mod 65521]: loss, doubling and exchange of
// anything but a multiple of that prime show as a mismatch. An upload is answered with a report of
// 16 bytes: bytes received, then 1 if any differed; both little endian.
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
    echo = 'E'
};

inline constexpr std::size_t opening_size_bytes = 16;
inline constexpr std::size_t report_size_bytes = 16;
// Bytes per send: large enough to amortise the call, small enough to stay inside L2.
inline constexpr std::size_t chunk_size_bytes = 128UL * 1024;

struct Opening {
    Work work = Work::requests;
    bool verify = false;
    bool acknowledge_at_once = false;
    std::uint64_t size_bytes = 0;

    // Of the work `requests`; neither may be 0.
    void set_request_sizes(std::uint32_t request_bytes, std::uint32_t response_bytes) {
        size_bytes = std::uint64_t{response_bytes} << 32 | request_bytes;
    }
    [[nodiscard]] std::uint32_t request_bytes() const {
        return static_cast<std::uint32_t>(size_bytes);
    }
    [[nodiscard]] std::uint32_t response_bytes() const {
        return static_cast<std::uint32_t>(size_bytes >> 32);
    }

    [[nodiscard]] std::array<std::byte, opening_size_bytes> encode() const;
    [[nodiscard]] static std::optional<Opening> decode(std::span<const std::byte> bytes);
};

struct UploadReport {
    std::uint64_t received_bytes = 0;
    bool mismatched = false;

    [[nodiscard]] std::array<std::byte, report_size_bytes> encode() const;
    [[nodiscard]] static UploadReport decode(std::span<const std::byte, report_size_bytes> bytes);
};

// The pattern from an offset of the stream on; at most chunk_size_bytes long.
[[nodiscard]] std::span<const std::byte> pattern_at(std::uint64_t offset, std::size_t length);
// Writes the pattern from offset 0 on, whatever the length.
void fill_with_pattern(std::span<std::byte> target);

enum class Pump { progress, complete, blocked, ended, failed };

// Sends the pattern up to a limit (0 = without end).
class PatternSender {
  public:
    PatternSender() = default;
    explicit PatternSender(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

    // One send; progress, complete (limit reached), blocked or failed.
    [[nodiscard]] Pump pump(int descriptor);
    [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_; }

  private:
    std::uint64_t limit_bytes_ = 0;
    std::uint64_t sent_bytes_ = 0;
};

// Receives up to a limit (0 = without end). Without verification the kernel drops the bytes
// (MSG_TRUNC), so that the sink costs no copy.
class PatternReceiver {
  public:
    PatternReceiver() = default;
    PatternReceiver(std::uint64_t limit_bytes, bool verify)
        : limit_bytes_(limit_bytes), verify_(verify) {}

    // One receive; progress, complete (limit reached), blocked, ended (FIN) or failed.
    [[nodiscard]] Pump pump(int descriptor);
    [[nodiscard]] std::uint64_t received_bytes() const { return received_bytes_; }
    [[nodiscard]] bool mismatched() const { return mismatched_; }

  private:
    std::uint64_t limit_bytes_ = 0;
    std::uint64_t received_bytes_ = 0;
    bool verify_ = false;
    bool mismatched_ = false;
};

}  // namespace bore::bench
