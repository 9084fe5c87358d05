// See http_probe.hpp.
#include "controlplane/bore/http_probe.hpp"

namespace bore::protocol {
namespace {

// The head is the same for every method; a body does not follow HEAD (RFC 9110, section 9.3.2).
constexpr std::string_view full_answer =
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: 28\r\n"
    "Cache-Control: no-store\r\n"
    "Connection: close\r\n"
    "\r\n"
    "bore tunnel relay, healthy.\n";
constexpr std::size_t body_start = full_answer.find("\r\n\r\n") + 4;
static_assert(full_answer.size() - body_start == 28, "Content-Length says 28");

}  // namespace

bool HttpProbe::feed(std::string_view bytes) {
    for (const char byte : bytes) {
        if (complete_) {
            break;
        }
        if (head_bytes_ < method_.size()) {
            method_[head_bytes_] = byte;
        }
        ++head_bytes_;
        // Bare LF counts as the end of a line, as RFC 9112, section 2.2 allows.
        if (byte == '\n') {
            complete_ = line_is_empty_;
            line_is_empty_ = true;
        } else if (byte != '\r') {
            line_is_empty_ = false;
        }
        complete_ = complete_ || head_bytes_ == max_head_bytes;
    }
    return complete_;
}

std::string_view HttpProbe::answer() const {
    const std::string_view method{method_.data(), method_.size()};
    return method == "HEAD " ? full_answer.substr(0, body_start) : full_answer;
}

}  // namespace bore::protocol
