// Who may open a tunnel: the shared secret's arithmetic (wire-protocol §4) and the one interface
// through which a handshake has a credential judged. The handshake knows no secret and no backend;
// it asks with Step::verify and is told with on_verdict().
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "controlplane/bore/uuid.hpp"

namespace bore::protocol {

inline constexpr std::size_t tag_hex_bytes = 64;

// SHA-256 of the secret. The empty string is a legal secret; no secret is no key.
class SecretKey {
  public:
    explicit SecretKey(std::string_view secret);

    // HMAC-SHA256 over the challenge's 16 bytes, in lower-case hex.
    [[nodiscard]] std::string tag_for(const Uuid& challenge) const;
    // Hex in either case; the comparison takes the same time wherever it fails.
    [[nodiscard]] bool verifies(const Uuid& challenge, std::string_view tag_hex) const;

    [[nodiscard]] const std::array<std::uint8_t, 32>& bytes() const { return key_; }

  private:
    [[nodiscard]] std::array<std::uint8_t, 32> tag(const Uuid& challenge) const;

    std::array<std::uint8_t, 32> key_;
};

// What a peer offers for a tunnel. Data connections are never judged by kinds none and token.
struct Credential {
    enum class Kind : std::uint8_t {
        none,   // its first message was Hello and the relay has no secret to challenge it with
        token,  // its first message was Authenticate
        tag,    // it answered `challenge`
    };
    Kind kind = Kind::none;
    std::string text;  // token or tag; empty for none
    Uuid challenge;    // for tag only
};

struct Verdict {
    bool admitted = false;
    std::string error;  // for the Error frame when not admitted
};

// Judges at once: an open relay admits everybody, a relay with a secret who knows it. These are the
// rows "no backend" of the table in wire-protocol §5.3.
//
// The rows with a backend come as a third judge beside this one, and nothing here or in the
// handshake changes: on Step::verify with kind token the relay sends the text to the backend, keeps
// what the peer pipelined behind it unread in its FrameReader, goes on serving the handshake's
// deadline, and calls on_verdict() when the answer is there. Kind none is refused with
// "Authentication required. ..." there, kind tag is judged here. What the backend says about the
// user (id, tunnel limit) stays with the relay's own state of the connection, which is where the
// limit is checked when the handshake ends with open_tunnel.
class Authentication {
  public:
    [[nodiscard]] static Authentication open() { return Authentication{std::nullopt}; }
    [[nodiscard]] static Authentication with_secret(std::string_view secret) {
        return Authentication{SecretKey{secret}};
    }

    [[nodiscard]] bool has_secret() const { return key_.has_value(); }
    [[nodiscard]] Verdict judge(const Credential& credential) const;

  private:
    explicit Authentication(std::optional<SecretKey> key) : key_(key) {}

    std::optional<SecretKey> key_;
};

}  // namespace bore::protocol
