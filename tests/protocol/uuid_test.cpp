// Spellings of UUIDs in and out, and that random ones are version 4 and differ.
#include "controlplane/bore/uuid.hpp"

#include <gtest/gtest.h>

#include <unordered_set>

namespace bore::protocol {
namespace {

constexpr Uuid example{{0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02,
                        0xb2, 0xc3, 0xd4, 0x79}};

TEST(Uuid, is_read_in_every_spelling_that_the_originals_take) {
    for (const char* text : {
             "f47ac10b-58cc-4372-a567-0e02b2c3d479",
             "F47AC10B-58CC-4372-A567-0E02B2C3D479",
             "F47ac10B-58cC-4372-a567-0e02B2c3d479",
             "f47ac10b58cc4372a5670e02b2c3d479",
             "F47AC10B58CC4372A5670E02B2C3D479",
             "{f47ac10b-58cc-4372-a567-0e02b2c3d479}",
             "urn:uuid:f47ac10b-58cc-4372-a567-0e02b2c3d479",
             "urn:uuid:F47AC10B-58CC-4372-A567-0E02B2C3D479",
         }) {
        EXPECT_EQ(parse_uuid(text), example) << text;
    }
}

TEST(Uuid, is_refused_in_any_other_spelling) {
    for (const char* text : {
             "",
             "f47ac10b-58cc-4372-a567-0e02b2c3d47",
             "f47ac10b-58cc-4372-a567-0e02b2c3d4790",
             "f47ac10b-58cc-4372-a567-0e02b2c3d47g",
             "f47ac10b_58cc_4372_a567_0e02b2c3d479",
             "f47ac10b5-8cc-4372-a567-0e02b2c3d479",
             "f47ac10b-58cc-4372-a5670-e02b2c3d479",
             "{f47ac10b-58cc-4372-a567-0e02b2c3d479",
             "(f47ac10b-58cc-4372-a567-0e02b2c3d479)",
             "{f47ac10b-58cc-4372-a567-0e02b2c3d479)",
             "urn:uuid-f47ac10b-58cc-4372-a567-0e02b2c3d479",
             " f47ac10b-58cc-4372-a567-0e02b2c3d479",
             "f47ac10b-58cc-4372-a567-0e02b2c3d479 ",
             "f47ac10b 58cc4372a5670e02b2c3d47",
         }) {
        EXPECT_EQ(parse_uuid(text), std::nullopt) << text;
    }
}

TEST(Uuid, is_written_in_lower_case_with_hyphens) {
    EXPECT_EQ(to_string(example), "f47ac10b-58cc-4372-a567-0e02b2c3d479");
    EXPECT_EQ(to_string(Uuid{}), "00000000-0000-0000-0000-000000000000");
}

TEST(Uuid, random_ones_are_version_4_and_never_repeat) {
    std::unordered_set<Uuid> seen;
    for (int i = 0; i < 10'000; ++i) {
        const Uuid uuid = random_uuid_v4();
        EXPECT_EQ(uuid.bytes[6] >> 4, 4);
        EXPECT_EQ(uuid.bytes[8] >> 6, 2);
        EXPECT_TRUE(seen.insert(uuid).second);
        EXPECT_EQ(parse_uuid(to_string(uuid)), uuid);
    }
}

TEST(Uuid, random_bits_are_all_in_use) {
    Uuid ones;
    Uuid zeros;
    for (int i = 0; i < 200; ++i) {
        const Uuid uuid = random_uuid_v4();
        for (std::size_t j = 0; j < uuid.bytes.size(); ++j) {
            ones.bytes[j] |= uuid.bytes[j];
            zeros.bytes[j] |= static_cast<std::uint8_t>(~uuid.bytes[j]);
        }
    }
    // All but version and variant were seen both ways; a stuck bit survives with 2^-199.
    EXPECT_EQ(to_string(ones), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    EXPECT_EQ(to_string(zeros), "ffffffff-ffff-bfff-7fff-ffffffffffff");
}

}  // namespace
}  // namespace bore::protocol
