// The messages of the control protocol and their JSON (wire-protocol §3). Parsing takes the text of
// one frame, which FrameReader has capped at 256 bytes; encoding gives a frame with its NUL.
// Called by the handshakes, by the relay's control loop and by the tunnel client.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "controlplane/bore/frame.hpp"
#include "controlplane/bore/uuid.hpp"

namespace bore::protocol {

// A frame that says `null`: receivers treat it exactly like the end of the stream.
struct EndOfStream {
    friend bool operator==(const EndOfStream&, const EndOfStream&) = default;
};

// From the client: the port it asks for, 0 = any. From the server: the port it got.
struct Hello {
    std::uint16_t port = 0;
    friend bool operator==(const Hello&, const Hello&) = default;
};

struct Authenticate {
    std::string credential;  // HMAC tag in hex, or a token
    friend bool operator==(const Authenticate&, const Authenticate&) = default;
};

struct Accept {
    Uuid visitor_id;
    friend bool operator==(const Accept&, const Accept&) = default;
};

struct Challenge {
    Uuid challenge;
    friend bool operator==(const Challenge&, const Challenge&) = default;
};

struct Heartbeat {
    friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};

struct Connection {
    Uuid visitor_id;
    friend bool operator==(const Connection&, const Connection&) = default;
};

struct Error {
    std::string text;
    friend bool operator==(const Error&, const Error&) = default;
};

using ClientMessage = std::variant<EndOfStream, Hello, Authenticate, Accept>;
using ServerMessage = std::variant<EndOfStream, Challenge, Hello, Heartbeat, Connection, Error>;

// Nothing = "unable to parse message". Lenient as the originals are: white space around tokens, any
// spelling of a UUID that parse_uuid takes. Strict as they are: one key, no second one even with
// the same name; ports are integers 0..65535 without fraction, exponent or sign.
[[nodiscard]] std::optional<ClientMessage> parse_client_message(std::string_view json);
[[nodiscard]] std::optional<ServerMessage> parse_server_message(std::string_view json);

// One frame on the wire, NUL included.
class EncodedFrame {
  public:
    [[nodiscard]] std::string_view view() const { return {bytes_.data(), size_bytes_}; }
    [[nodiscard]] bool empty() const { return size_bytes_ == 0; }

    void clear() { size_bytes_ = 0; }
    // The caller keeps to the 257 bytes; beyond them the process ends with a message.
    void append(std::string_view text);

  private:
    std::uint16_t size_bytes_ = 0;
    std::array<char, max_frame_wire_bytes> bytes_;
};

inline constexpr std::size_t max_error_text_bytes = 244;  // after JSON escaping: 256 - 12
inline constexpr std::size_t max_credential_bytes = 237;  // after JSON escaping: 256 - 19
inline constexpr std::size_t connection_frame_bytes = 54;
inline constexpr std::string_view heartbeat_frame{"\"Heartbeat\"\0", 12};

[[nodiscard]] EncodedFrame encode_hello(std::uint16_t port);  // either direction
[[nodiscard]] EncodedFrame encode_challenge(const Uuid& challenge);
// Text beyond 244 escaped bytes is cut, never inside a character or an escape; bytes that are not
// UTF-8 become U+FFFD. Always a frame that a client can show.
[[nodiscard]] EncodedFrame encode_error(std::string_view text);
// Nothing when the credential does not fit into a frame.
[[nodiscard]] std::optional<EncodedFrame> encode_authenticate(std::string_view credential);
[[nodiscard]] EncodedFrame encode_accept(const Uuid& visitor_id);
[[nodiscard]] EncodedFrame encode_connection(const Uuid& visitor_id);
// The same into a place of the caller's, so that the frames of a burst lie side by side.
void write_connection_frame(const Uuid& visitor_id, std::span<char, connection_frame_bytes> out);

}  // namespace bore::protocol
