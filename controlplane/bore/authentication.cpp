// See authentication.hpp.
#include "controlplane/bore/authentication.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "controlplane/bore/error_texts.hpp"
#include "controlplane/bore/hex.hpp"
#include "dataplane/base/check.hpp"

namespace bore::protocol {

SecretKey::SecretKey(std::string_view secret) {
    unsigned int size_bytes = 0;
    BORE_CHECK(EVP_Digest(secret.data(), secret.size(), key_.data(), &size_bytes, EVP_sha256(),
                          nullptr) == 1 &&
                   size_bytes == key_.size(),
               "SHA-256 failed in OpenSSL");
}

std::array<std::uint8_t, 32> SecretKey::tag(const Uuid& challenge) const {
    std::array<std::uint8_t, 32> result;
    unsigned int size_bytes = 0;
    BORE_CHECK(
        HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()), challenge.bytes.data(),
             challenge.bytes.size(), result.data(), &size_bytes) != nullptr &&
            size_bytes == result.size(),
        "HMAC-SHA256 failed in OpenSSL");
    return result;
}

std::string SecretKey::tag_for(const Uuid& challenge) const {
    std::string text;
    text.reserve(tag_hex_bytes);
    for (const std::uint8_t byte : tag(challenge)) {
        text += hex_digits[byte >> 4U];
        text += hex_digits[byte & 0xFU];
    }
    return text;
}

bool SecretKey::verifies(const Uuid& challenge, std::string_view tag_hex) const {
    if (tag_hex.size() != tag_hex_bytes) {
        return false;
    }
    std::array<std::uint8_t, 32> offered;
    for (std::size_t i = 0; i < offered.size(); ++i) {
        const int value = hex_byte(tag_hex[2 * i], tag_hex[2 * i + 1]);
        if (value < 0) {
            return false;
        }
        offered[i] = static_cast<std::uint8_t>(value);
    }
    const auto expected = tag(challenge);
    return CRYPTO_memcmp(offered.data(), expected.data(), expected.size()) == 0;
}

Verdict Authentication::judge(const Credential& credential) const {
    if (!key_) {
        return {true, {}};
    }
    switch (credential.kind) {
        case Credential::Kind::none:
            return {false, std::string{error_text::secret_required}};
        case Credential::Kind::token:
            return {false, std::string{error_text::method_not_supported}};
        case Credential::Kind::tag:
            break;
    }
    if (!key_->verifies(credential.challenge, credential.text)) {
        return {false, std::string{error_text::invalid_secret}};
    }
    return {true, {}};
}

}  // namespace bore::protocol
