// Any request in any pieces: the answer is due exactly where a naive model finds the blank line or
// the limit, does not depend on the split, and has no body for HEAD alone.
#include <algorithm>
#include <cstdint>
#include <string>

#include "controlplane/bore/http_probe.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

namespace {

using bore::protocol::HttpProbe;

// Bytes up to and including the end of the head; npos when it does not end.
std::size_t head_end(const std::string& request) {
    std::string line;
    bool first = true;
    for (std::size_t i = 0; i < std::min(request.size(), HttpProbe::max_head_bytes); ++i) {
        if (request[i] != '\n') {
            line += request[i];
            continue;
        }
        const bool blank = line.find_first_not_of('\r') == std::string::npos;
        if (blank && !first) {
            return i + 1;
        }
        first = false;
        line.clear();
    }
    return request.size() >= HttpProbe::max_head_bytes ? HttpProbe::max_head_bytes
                                                       : std::string::npos;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input{data, size};
    const std::size_t piece_size = 1 + std::size_t{input.byte()} * 4;
    const std::string request = input.rest();
    const std::size_t end = head_end(request);

    HttpProbe probe;
    bool due = false;
    for (std::size_t at = 0; at < request.size(); at += piece_size) {
        due = probe.feed(request.substr(at, piece_size));
        const bool expected = end != std::string::npos && at + piece_size >= end;
        BORE_CHECK(due == expected, "the answer is due where the head ends");
    }
    HttpProbe whole;
    BORE_CHECK(whole.feed(request) == due, "due depends on the split");
    BORE_CHECK(whole.answer() == probe.answer(), "the answer depends on the split");
    BORE_CHECK(whole.answer().ends_with("\r\n\r\n") == request.starts_with("HEAD "),
               "a body to HEAD, or none to another method");
    return 0;
}
