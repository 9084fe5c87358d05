// UUIDs as the protocol uses them: challenges and visitor ids. Pure values; random_uuid_v4() is the
// one function that asks for randomness. Called by the codec, the handshakes and the relay.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace bore::protocol {

inline constexpr std::size_t uuid_text_bytes = 36;  // hyphenated

struct Uuid {
    std::array<std::uint8_t, 16> bytes{};  // network order, as in the text (RFC 9562)

    friend bool operator==(const Uuid&, const Uuid&) = default;
};

// Hyphenated, 32 hex digits, {hyphenated} or urn:uuid:hyphenated; digits in either case.
[[nodiscard]] std::optional<Uuid> parse_uuid(std::string_view text);

// Lower case, hyphenated, no terminator.
void write_uuid(const Uuid& uuid, std::span<char, uuid_text_bytes> out);
[[nodiscard]] std::string to_string(const Uuid& uuid);

// Version 4 with 122 bits of the OpenSSL generator. In the fork's dialect the id is the only
// credential of a data connection. Bytes are drawn 1 KiB at a time per thread, so that a visitor
// costs a copy and not a call into the generator. Aborts when the generator fails: a relay without
// randomness must not go on.
[[nodiscard]] Uuid random_uuid_v4();

}  // namespace bore::protocol

template <>
struct std::hash<bore::protocol::Uuid> {
    // The stored ids are our own random ones, so a peer cannot aim for one bucket.
    std::size_t operator()(const bore::protocol::Uuid& uuid) const noexcept {
        std::size_t value = 0;
        std::memcpy(&value, uuid.bytes.data() + 8, sizeof value);
        return value;
    }
};
