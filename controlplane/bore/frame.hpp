// Cuts a byte stream into frames: JSON text up to a NUL, at most 256 bytes before it (wire-protocol
// §2). No socket, no JSON in here. One reader per connection, during the handshake of a data
// connection and for the whole life of a control connection.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bore::protocol {

inline constexpr std::size_t max_frame_body_bytes = 256;  // terminator excluded
inline constexpr std::size_t max_frame_wire_bytes = max_frame_body_bytes + 1;

// How to drive it:
//   feed(what one read returned)             the bytes stay the caller's and must stay in place
//   while next() gives a frame: use it       a view, good until the next call of next() or feed()
//   next() gives need_more: read again       the reader has kept the beginning of a split frame
//   next() gives too_long: close at once     it gives nothing else from then on
//   end of the stream: finish()              the rest without a NUL is a last frame
// After the frame that ends the handshake, take_leftover() hands over the bytes behind it.
class FrameReader {
  public:
    enum class Status : std::uint8_t {
        frame,
        need_more,
        too_long,  // 257 bytes without a NUL
        end,       // finish() only: the stream ended between two frames
    };

    struct Result {
        Status status;
        std::string_view json;  // without the NUL; only for `frame`
    };

    // A whole frame is never copied: it is found in `input` itself. Everything fed before must have
    // been consumed, that is, next() has said need_more or take_leftover() was called.
    void feed(std::string_view input);

    [[nodiscard]] Result next();

    // After end of file, when next() has said need_more.
    [[nodiscard]] Result finish();

    // Bytes of the last feed() that follow the last frame; they belong to the raw stream. The view
    // is into the caller's own buffer.
    [[nodiscard]] std::string_view take_leftover();

  private:
    std::string_view input_;
    std::uint16_t kept_bytes_ = 0;
    bool kept_is_returned_ = false;  // the view of the kept bytes was handed out; drop them next
    bool failed_ = false;
    std::array<char, max_frame_body_bytes> kept_;  // beginning of a frame split over reads
};

}  // namespace bore::protocol
