// Any text as a message of either side, and as the text of an Error. What parses must survive
// encoding and parsing again; an Error frame must be one that a client can show.
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/bore/message.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

namespace {

using namespace bore::protocol;

std::string_view body(const EncodedFrame& frame) {
    const std::string_view wire = frame.view();
    BORE_CHECK(wire.size() <= max_frame_wire_bytes, "a frame is longer than 257 bytes");
    BORE_CHECK(wire.find('\0') == wire.size() - 1, "a frame has its NUL at the end and no other");
    return wire.substr(0, wire.size() - 1);
}

void check_client_message(std::string_view text) {
    const auto message = parse_client_message(text);
    if (!message) {
        return;
    }
    if (const auto* hello = std::get_if<Hello>(&*message)) {
        BORE_CHECK(parse_client_message(body(encode_hello(hello->port))) == message, "Hello");
    } else if (const auto* accept = std::get_if<Accept>(&*message)) {
        BORE_CHECK(parse_client_message(body(encode_accept(accept->visitor_id))) == message,
                   "Accept");
    } else if (const auto* authenticate = std::get_if<Authenticate>(&*message)) {
        // A DEL or a slash may have been spelled longer or shorter than we do; it may not fit.
        if (const auto frame = encode_authenticate(authenticate->credential)) {
            BORE_CHECK(parse_client_message(body(*frame)) == message, "Authenticate");
        }
    }
}

void check_server_message(std::string_view text) {
    const auto message = parse_server_message(text);
    if (!message) {
        return;
    }
    if (const auto* challenge = std::get_if<Challenge>(&*message)) {
        BORE_CHECK(parse_server_message(body(encode_challenge(challenge->challenge))) == message,
                   "Challenge");
    } else if (const auto* connection = std::get_if<Connection>(&*message)) {
        BORE_CHECK(parse_server_message(body(encode_connection(connection->visitor_id))) == message,
                   "Connection");
    } else if (const auto* error = std::get_if<Error>(&*message)) {
        const auto again = parse_server_message(body(encode_error(error->text)));
        BORE_CHECK(again.has_value() && std::holds_alternative<Error>(*again), "Error");
        BORE_CHECK(error->text.starts_with(std::get<Error>(*again).text), "Error was altered");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text = bore::fuzz::Input{data, size}.rest();

    const auto shown = parse_server_message(body(encode_error(text)));
    BORE_CHECK(shown.has_value() && std::holds_alternative<Error>(*shown),
               "an Error frame that a client cannot read");
    if (const auto frame = encode_authenticate(text)) {
        const auto read = parse_client_message(body(*frame));
        BORE_CHECK(read.has_value() && std::holds_alternative<Authenticate>(*read),
                   "an Authenticate frame that a server cannot read");
    }

    if (text.size() <= max_frame_body_bytes) {  // the frame reader's cap
        check_client_message(text);
        check_server_message(text);
    }
    return 0;
}
