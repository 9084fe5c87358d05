// Wire-protocol §4: the vectors, what a tag may look like, and the table of §5.3 without backend.
#include "controlplane/bore/authentication.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <string>

namespace bore::protocol {
namespace {

struct Vector {
    const char* secret;
    const char* key;
    const char* challenge;
    const char* tag;
};

constexpr Vector vectors[] = {
    {"secret", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
     "00112233-4455-4677-8899-aabbccddeeff",
     "86775652a873aac56a15117438352e671b8cc35a174b6189afc23f66f2c5acd6"},
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
     "00112233-4455-4677-8899-aabbccddeeff",
     "0bcc845b2f82ba52534f7b50acfd8d3d78f847a2f0b4ca0bd97189013c353d39"},
    {"my_secret_string", "8fc8d000aa6cb9d37b49d45d812646557217362b7b0b8d30f1c91d0ebbb02b12",
     "f47ac10b-58cc-4372-a567-0e02b2c3d479",
     "744750c9e24d8cf15608b1159a8d9ca09d68ba144a81ccb2885a8f52587be207"},
};

std::string hex(const std::array<std::uint8_t, 32>& bytes) {
    std::string text;
    for (const std::uint8_t byte : bytes) {
        text += "0123456789abcdef"[byte >> 4];
        text += "0123456789abcdef"[byte & 15];
    }
    return text;
}

std::string upper(std::string text) {
    std::ranges::transform(text, text.begin(),
                           [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return text;
}

TEST(SecretKey, agrees_with_the_vectors) {
    for (const Vector& vector : vectors) {
        const SecretKey key{vector.secret};
        const Uuid challenge = parse_uuid(vector.challenge).value();
        EXPECT_EQ(hex(key.bytes()), vector.key);
        EXPECT_EQ(key.tag_for(challenge), vector.tag);
        EXPECT_TRUE(key.verifies(challenge, vector.tag));
    }
}

TEST(SecretKey, takes_a_tag_in_upper_case) {
    const SecretKey key{"secret"};
    EXPECT_TRUE(key.verifies(parse_uuid(vectors[0].challenge).value(), upper(vectors[0].tag)));
}

TEST(SecretKey, refuses_a_tag_that_differs_in_any_digit) {
    const SecretKey key{"secret"};
    const Uuid challenge = parse_uuid(vectors[0].challenge).value();
    for (std::size_t i = 0; i < tag_hex_bytes; ++i) {
        std::string tag = vectors[0].tag;
        tag[i] = tag[i] == '0' ? '1' : '0';
        EXPECT_FALSE(key.verifies(challenge, tag)) << i;
        tag[i] = 'g';
        EXPECT_FALSE(key.verifies(challenge, tag)) << i;
    }
}

TEST(SecretKey, refuses_a_tag_of_another_length) {
    const SecretKey key{"secret"};
    const Uuid challenge = parse_uuid(vectors[0].challenge).value();
    const std::string tag = vectors[0].tag;
    for (std::size_t length = 0; length < tag.size(); ++length) {
        EXPECT_FALSE(key.verifies(challenge, tag.substr(0, length))) << length;
    }
    EXPECT_FALSE(key.verifies(challenge, tag + "0"));
    EXPECT_FALSE(key.verifies(challenge, tag + "00"));
    EXPECT_FALSE(key.verifies(challenge, tag + tag));
}

TEST(SecretKey, refuses_the_tag_of_another_secret_or_challenge) {
    const Uuid challenge = parse_uuid(vectors[0].challenge).value();
    EXPECT_FALSE(SecretKey{"Secret"}.verifies(challenge, vectors[0].tag));
    EXPECT_FALSE(SecretKey{""}.verifies(challenge, vectors[0].tag));
    EXPECT_FALSE(SecretKey{"secret"}.verifies(Uuid{}, vectors[0].tag));
}

using Kind = Credential::Kind;

TEST(Authentication, of_an_open_relay_admits_everybody) {
    const auto open = Authentication::open();
    EXPECT_FALSE(open.has_secret());
    for (const Kind kind : {Kind::none, Kind::token, Kind::tag}) {
        EXPECT_TRUE(open.judge({kind, "whatever", {}}).admitted);
    }
}

TEST(Authentication, with_a_secret_admits_its_tag_alone) {
    const auto secret = Authentication::with_secret("secret");
    const Uuid challenge = parse_uuid(vectors[0].challenge).value();
    EXPECT_TRUE(secret.has_secret());
    EXPECT_TRUE(secret.judge({Kind::tag, vectors[0].tag, challenge}).admitted);

    const Verdict wrong = secret.judge({Kind::tag, vectors[1].tag, challenge});
    EXPECT_FALSE(wrong.admitted);
    EXPECT_EQ(wrong.error, "invalid secret");
    const Verdict token = secret.judge({Kind::token, "tk_1", {}});
    EXPECT_FALSE(token.admitted);
    EXPECT_EQ(token.error, "Authentication method not supported. Use shared secret mode.");
    const Verdict none = secret.judge({Kind::none, "", {}});
    EXPECT_FALSE(none.admitted);
    EXPECT_EQ(none.error, "server requires secret, but no secret was provided");
}

TEST(Authentication, with_the_empty_secret_is_not_open) {
    const auto empty = Authentication::with_secret("");
    const Uuid challenge = parse_uuid(vectors[1].challenge).value();
    EXPECT_TRUE(empty.has_secret());
    EXPECT_TRUE(empty.judge({Kind::tag, vectors[1].tag, challenge}).admitted);
    EXPECT_FALSE(empty.judge({Kind::tag, "", challenge}).admitted);
}

}  // namespace
}  // namespace bore::protocol
