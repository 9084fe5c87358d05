// See message.hpp. Boost.JSON's event parser does the JSON; the handler below knows the only two
// shapes a message has, a bare string or an object with one scalar, and refuses the rest as soon as
// it shows. That is stricter than a parsed document could be (a second key with the same name would
// have vanished from it) and allocates nothing.
#include "controlplane/bore/message.hpp"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <limits>

#include "controlplane/bore/hex.hpp"
#include "dataplane/base/check.hpp"

namespace bore::protocol {
namespace {

namespace json = boost::json;

// Strings are never longer than the frame that they came in.
class ShortText {
  public:
    bool append(std::string_view text) {
        if (text.size() > bytes_.size() - size_bytes_) {
            return false;
        }
        std::copy(text.begin(), text.end(), bytes_.begin() + size_bytes_);
        size_bytes_ = static_cast<std::uint16_t>(size_bytes_ + text.size());
        return true;
    }
    [[nodiscard]] std::string_view view() const { return {bytes_.data(), size_bytes_}; }

  private:
    std::uint16_t size_bytes_ = 0;
    std::array<char, max_frame_body_bytes> bytes_;
};

// What one frame says: `null`, a bare name, or a name with one scalar.
struct Shape {
    enum class Value : std::uint8_t { absent, null, port, text };

    bool has_name = false;
    bool is_object = false;
    Value value = Value::absent;
    std::uint16_t port = 0;
    ShortText name;
    ShortText text;
};

struct ShapeHandler {
    // The parser's own bounds; the frame's cap is below them.
    static constexpr std::size_t max_object_size = 1;
    static constexpr std::size_t max_array_size = 1;
    static constexpr std::size_t max_key_size = max_frame_body_bytes;
    static constexpr std::size_t max_string_size = max_frame_body_bytes;

    Shape shape;

    static bool refuse(json::error_code& error) {
        error = json::error::syntax;
        return false;
    }
    bool set(Shape::Value value, json::error_code& error) {
        if (shape.value != Shape::Value::absent) {
            return refuse(error);
        }
        shape.value = value;
        return true;
    }

    static bool on_document_begin(json::error_code&) { return true; }
    static bool on_document_end(json::error_code&) { return true; }
    bool on_object_begin(json::error_code& error) {
        if (shape.is_object) {
            return refuse(error);
        }
        shape.is_object = true;
        return true;
    }
    static bool on_object_end(std::size_t count, json::error_code& error) {
        return count == 1 || refuse(error);
    }
    static bool on_array_begin(json::error_code& error) { return refuse(error); }
    static bool on_array_end(std::size_t, json::error_code& error) { return refuse(error); }
    bool on_key_part(json::string_view part, std::size_t, json::error_code& error) {
        return (!shape.has_name && shape.name.append({part.data(), part.size()})) || refuse(error);
    }
    bool on_key(json::string_view part, std::size_t size, json::error_code& error) {
        return on_key_part(part, size, error) && (shape.has_name = true);
    }
    bool on_string_part(json::string_view part, std::size_t, json::error_code& error) {
        ShortText& text = shape.is_object ? shape.text : shape.name;
        return text.append({part.data(), part.size()}) || refuse(error);
    }
    bool on_string(json::string_view part, std::size_t size, json::error_code& error) {
        if (!on_string_part(part, size, error)) {
            return false;
        }
        if (!shape.is_object) {
            return (shape.has_name = true);
        }
        return set(Shape::Value::text, error);
    }
    bool on_int64(std::int64_t number, json::string_view digits, json::error_code& error) {
        // "-0" arrives as 0 and is no port all the same.
        if (number < 0 || number > std::numeric_limits<std::uint16_t>::max() ||
            digits.front() == '-') {
            return refuse(error);
        }
        shape.port = static_cast<std::uint16_t>(number);
        return set(Shape::Value::port, error);
    }
    static bool on_uint64(std::uint64_t, json::string_view, json::error_code& error) {
        return refuse(error);  // beyond int64
    }
    static bool on_double(double, json::string_view, json::error_code& error) {
        return refuse(error);
    }
    static bool on_number_part(json::string_view, json::error_code&) { return true; }
    static bool on_bool(bool, json::error_code& error) { return refuse(error); }
    bool on_null(json::error_code& error) { return set(Shape::Value::null, error); }
    static bool on_comment_part(json::string_view, json::error_code& error) {
        return refuse(error);
    }
    static bool on_comment(json::string_view, json::error_code& error) { return refuse(error); }
};

std::optional<Shape> parse_shape(std::string_view text) {
    json::basic_parser<ShapeHandler> parser{json::parse_options{}};
    json::error_code error;
    const std::size_t used = parser.write_some(false, text.data(), text.size(), error);
    if (error || used != text.size()) {
        return std::nullopt;
    }
    return parser.handler().shape;
}

bool is_end_of_stream(const Shape& shape) {
    return !shape.is_object && shape.value == Shape::Value::null;
}

// A variant with content is an object with its name as key.
bool has(const Shape& shape, std::string_view name, Shape::Value value) {
    return shape.is_object && shape.value == value && shape.name.view() == name;
}

template <typename Message>
std::optional<Message> with_uuid(const Shape& shape) {
    if (const auto uuid = parse_uuid(shape.text.view())) {
        return Message{*uuid};
    }
    return std::nullopt;
}

EncodedFrame encode_with_uuid(std::string_view head, const Uuid& uuid) {
    std::array<char, uuid_text_bytes> text;
    write_uuid(uuid, text);
    EncodedFrame frame;
    frame.append(head);
    frame.append({text.data(), text.size()});
    frame.append({"\"}\0", 3});
    return frame;
}

// Length in bytes of the well-formed UTF-8 character that `text` begins with (RFC 3629), else 0.
std::size_t utf8_character_bytes(std::string_view text) {
    const auto byte = [&](std::size_t index) { return static_cast<std::uint8_t>(text[index]); };
    const std::uint8_t lead = byte(0);
    if (lead < 0x80) {
        return 1;
    }
    const std::size_t size = lead >= 0xC2 && lead < 0xE0   ? 2
                             : lead >= 0xE0 && lead < 0xF0 ? 3
                             : lead >= 0xF0 && lead < 0xF5 ? 4
                                                           : 0;
    if (size == 0 || text.size() < size) {
        return 0;
    }
    // The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF.
    const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (byte(1) < low || byte(1) > high) {
        return 0;
    }
    for (std::size_t i = 2; i < size; ++i) {
        if ((byte(i) & 0xC0U) != 0x80U) {
            return 0;
        }
    }
    return size;
}

// One character as JSON writes it inside a string, in the spelling of the originals' serializer.
std::string_view escape(std::string_view character, std::array<char, 6>& room) {
    const char first = character.front();
    const auto code = static_cast<std::uint8_t>(first);
    constexpr std::string_view plain = "\"\\\b\f\n\r\t";
    constexpr std::string_view letter = "\"\\bfnrt";
    if (const std::size_t index = plain.find(first); index != std::string_view::npos) {
        room = {'\\', letter[index]};
        return {room.data(), 2};
    }
    if (code < 0x20) {
        room = {'\\', 'u', '0', '0', hex_digits[code >> 4U], hex_digits[code & 0xFU]};
        return {room.data(), 6};
    }
    return character;
}

// Appends as many whole characters as fit into `limit_bytes` after escaping; true = all of them.
bool append_escaped(EncodedFrame& frame, std::string_view text, std::size_t limit_bytes) {
    constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD
    std::array<char, 6> room;
    std::size_t used = 0;
    while (!text.empty()) {
        const std::size_t size = utf8_character_bytes(text);
        const std::string_view piece = escape(size == 0 ? replacement : text.substr(0, size), room);
        if (used + piece.size() > limit_bytes) {
            return false;
        }
        frame.append(piece);
        used += piece.size();
        text.remove_prefix(std::max<std::size_t>(size, 1));
    }
    return true;
}

}  // namespace

std::optional<ClientMessage> parse_client_message(std::string_view json) {
    const auto shape = parse_shape(json);
    if (!shape) {
        return std::nullopt;
    }
    if (is_end_of_stream(*shape)) {
        return EndOfStream{};
    }
    if (has(*shape, "Hello", Shape::Value::port)) {
        return Hello{shape->port};
    }
    if (has(*shape, "Authenticate", Shape::Value::text)) {
        return Authenticate{std::string{shape->text.view()}};
    }
    if (has(*shape, "Accept", Shape::Value::text)) {
        return with_uuid<Accept>(*shape);
    }
    return std::nullopt;
}

std::optional<ServerMessage> parse_server_message(std::string_view json) {
    const auto shape = parse_shape(json);
    if (!shape) {
        return std::nullopt;
    }
    if (is_end_of_stream(*shape)) {
        return EndOfStream{};
    }
    // A variant without content is a bare string; the originals also read {"Heartbeat":null}.
    if (shape->name.view() == "Heartbeat" &&
        (!shape->is_object || shape->value == Shape::Value::null)) {
        return Heartbeat{};
    }
    if (has(*shape, "Hello", Shape::Value::port)) {
        return Hello{shape->port};
    }
    if (has(*shape, "Challenge", Shape::Value::text)) {
        return with_uuid<Challenge>(*shape);
    }
    if (has(*shape, "Connection", Shape::Value::text)) {
        return with_uuid<Connection>(*shape);
    }
    if (has(*shape, "Error", Shape::Value::text)) {
        return Error{std::string{shape->text.view()}};
    }
    return std::nullopt;
}

void EncodedFrame::append(std::string_view text) {
    BORE_CHECK(text.size() <= bytes_.size() - size_bytes_, "a frame grew beyond 257 bytes");
    std::copy(text.begin(), text.end(), bytes_.begin() + size_bytes_);
    size_bytes_ = static_cast<std::uint16_t>(size_bytes_ + text.size());
}

EncodedFrame encode_hello(std::uint16_t port) {
    std::array<char, 5> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), port).ptr;
    EncodedFrame frame;
    frame.append(R"({"Hello":)");
    frame.append({digits.data(), end});
    frame.append({"}\0", 2});
    return frame;
}

EncodedFrame encode_challenge(const Uuid& challenge) {
    return encode_with_uuid(R"({"Challenge":")", challenge);
}

EncodedFrame encode_accept(const Uuid& visitor_id) {
    return encode_with_uuid(R"({"Accept":")", visitor_id);
}

EncodedFrame encode_connection(const Uuid& visitor_id) {
    return encode_with_uuid(R"({"Connection":")", visitor_id);
}

void write_connection_frame(const Uuid& visitor_id, std::span<char, connection_frame_bytes> out) {
    const EncodedFrame frame = encode_connection(visitor_id);
    std::ranges::copy(frame.view(), out.begin());
}

EncodedFrame encode_error(std::string_view text) {
    EncodedFrame frame;
    frame.append(R"({"Error":")");
    (void)append_escaped(frame, text, max_error_text_bytes);  // cut: the beginning says enough
    frame.append({"\"}\0", 3});
    return frame;
}

std::optional<EncodedFrame> encode_authenticate(std::string_view credential) {
    EncodedFrame frame;
    frame.append(R"({"Authenticate":")");
    if (!append_escaped(frame, credential, max_credential_bytes)) {
        return std::nullopt;
    }
    frame.append({"\"}\0", 3});
    return frame;
}

}  // namespace bore::protocol
