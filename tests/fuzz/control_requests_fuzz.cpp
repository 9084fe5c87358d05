// Fuzz target: one line of the relay's control socket. What parses must encode to a line that
// parses to the same; what does not must say why in one printable line.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/command/request.hpp"
#include "dataplane/base/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace bore::command;
    const std::string line(reinterpret_cast<const char*>(data), size);
    const auto request = parse_request(line);
    if (!request) {
        BORE_CHECK(!request.error().empty(), "a refusal says why");
        for (const char letter : request.error()) {
            BORE_CHECK(static_cast<unsigned char>(letter) >= 0x20, "a refusal is one line of text");
        }
        return 0;
    }
    BORE_CHECK(line.size() <= max_request_bytes, "no longer than a request may be");
    const std::string encoded = encode_request(*request);
    BORE_CHECK(encoded.size() <= max_request_bytes && encoded.back() == '\n', "one line");
    const auto again = parse_request(std::string_view(encoded).substr(0, encoded.size() - 1));
    BORE_CHECK(again && *again == *request, "what was encoded parses to the same");
    return 0;
}
