// See uuid.hpp.
#include "controlplane/bore/uuid.hpp"

#include <openssl/rand.h>

#include "controlplane/bore/hex.hpp"
#include "dataplane/base/check.hpp"

namespace bore::protocol {
namespace {

constexpr bool hyphen_follows(std::size_t byte_index) {
    return byte_index == 3 || byte_index == 5 || byte_index == 7 || byte_index == 9;
}

std::optional<Uuid> parse_digits(std::string_view text, bool hyphenated) {
    Uuid uuid;
    std::size_t position = 0;
    for (std::size_t i = 0; i < uuid.bytes.size(); ++i) {
        const int value = hex_byte(text[position], text[position + 1]);
        if (value < 0) {
            return std::nullopt;
        }
        uuid.bytes[i] = static_cast<std::uint8_t>(value);
        position += 2;
        if (hyphenated && hyphen_follows(i) && text[position++] != '-') {
            return std::nullopt;
        }
    }
    return uuid;
}

}  // namespace

std::optional<Uuid> parse_uuid(std::string_view text) {
    constexpr std::string_view urn = "urn:uuid:";
    switch (text.size()) {
        case 32:
            return parse_digits(text, false);
        case uuid_text_bytes:
            return parse_digits(text, true);
        case uuid_text_bytes + 2:
            if (text.front() != '{' || text.back() != '}') {
                return std::nullopt;
            }
            return parse_digits(text.substr(1), true);
        case urn.size() + uuid_text_bytes:
            if (!text.starts_with(urn)) {
                return std::nullopt;
            }
            return parse_digits(text.substr(urn.size()), true);
        default:
            return std::nullopt;
    }
}

void write_uuid(const Uuid& uuid, std::span<char, uuid_text_bytes> out) {
    std::size_t position = 0;
    for (std::size_t i = 0; i < uuid.bytes.size(); ++i) {
        out[position++] = hex_digits[uuid.bytes[i] >> 4U];
        out[position++] = hex_digits[uuid.bytes[i] & 0xFU];
        if (hyphen_follows(i)) {
            out[position++] = '-';
        }
    }
}

std::string to_string(const Uuid& uuid) {
    std::string text(uuid_text_bytes, '\0');
    write_uuid(uuid, std::span<char, uuid_text_bytes>{text.data(), uuid_text_bytes});
    return text;
}

Uuid random_uuid_v4() {
    struct Pool {
        std::array<std::uint8_t, 1024> bytes;
        std::size_t used = 1024;
    };
    static thread_local Pool pool;
    if (pool.used == pool.bytes.size()) {
        BORE_CHECK(RAND_bytes(pool.bytes.data(), static_cast<int>(pool.bytes.size())) == 1,
                   "the OpenSSL random generator failed");
        pool.used = 0;
    }
    Uuid uuid;
    std::memcpy(uuid.bytes.data(), pool.bytes.data() + pool.used, uuid.bytes.size());
    pool.used += uuid.bytes.size();
    uuid.bytes[6] = static_cast<std::uint8_t>((uuid.bytes[6] & 0x0FU) | 0x40U);  // version 4
    uuid.bytes[8] = static_cast<std::uint8_t>((uuid.bytes[8] & 0x3FU) | 0x80U);  // RFC 9562 variant
    return uuid;
}

}  // namespace bore::protocol
