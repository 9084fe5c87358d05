// Answers an HTTP request on the control port (`curl -I relay:7835`, a balancer's health check)
// instead of letting it wait for a timeout. No JSON message begins with the first letter of a
// method, so the first byte of a connection decides. Called by the relay before its FrameReader.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bore::protocol {

// G(ET), H(EAD), P(OST, UT, ATCH) or O(PTIONS).
[[nodiscard]] constexpr bool is_http_probe(char first_byte) {
    return first_byte == 'G' || first_byte == 'H' || first_byte == 'P' || first_byte == 'O';
}

// Reads up to the blank line that ends a request's head, so that an answer does not meet unread
// bytes and die of a reset. Holds five bytes of the request, whatever is sent.
class HttpProbe {
  public:
    // A longer head is answered without waiting for its end.
    static constexpr std::size_t max_head_bytes = 4'096;

    // True when the answer is due: the head is complete or too long. Also answer on end of file;
    // on a timeout close silently.
    [[nodiscard]] bool feed(std::string_view bytes);

    // The whole answer: 200, a sentence as its body (none to HEAD), Connection: close.
    [[nodiscard]] std::string_view answer() const;

  private:
    std::array<char, 5> method_{};  // enough to tell "HEAD " from the others
    std::size_t head_bytes_ = 0;
    bool line_is_empty_ = false;
    bool complete_ = false;
};

}  // namespace bore::protocol
