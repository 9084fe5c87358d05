// Addresses, prefixes and lists: spellings, errors, and a naive model under random operations.
#include "controlplane/config/address_list.hpp"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <iostream>
#include <random>

namespace bore::config {
namespace {

using ::testing::HasSubstr;

IpAddress address(const char* text) {
    const auto parsed = IpAddress::parse(text);
    EXPECT_TRUE(parsed) << text;
    return parsed.value_or(IpAddress{});
}

Prefix prefix(const char* text) {
    const auto parsed = Prefix::parse(text);
    EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error());
    return parsed.value_or(Prefix{});
}

TEST(IpAddress, SpellingsAndMappedForm) {
    EXPECT_EQ(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    EXPECT_EQ(address("::ffff:c000:201").to_string(), "192.0.2.1");
    EXPECT_EQ(address("2001:DB8:0::1").to_string(), "2001:db8::1");
    EXPECT_TRUE(address("::ffff:192.0.2.1").is_v4());
    EXPECT_FALSE(address("::192.0.2.1").is_v4());
    for (const std::string_view wrong : std::initializer_list<std::string_view>{
             "", "localhost", "1.2.3", "1.2.3.4.5", "1.2.3.256", "::1%lo", "[::1]", " ::1",
             "1.2.3.4 ", std::string_view("1.2.3.4\0", 8), ":::"}) {
        const auto parsed = IpAddress::parse(wrong);
        ASSERT_FALSE(parsed) << wrong;
        EXPECT_THAT(parsed.error(), HasSubstr("is not an IP address"));
    }
}

TEST(IpAddress, SocketAddressesThereAndBack) {
    for (const char* text : {"192.0.2.1", "0.0.0.0", "::", "2001:db8::7"}) {
        socklen_t length = 0;
        const sockaddr_storage storage = address(text).to_sockaddr(7835, length);
        EXPECT_EQ(length,
                  storage.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
        EXPECT_EQ(IpAddress::from(storage), address(text));
    }
    sockaddr_storage unix_address{};
    unix_address.ss_family = AF_UNIX;
    EXPECT_FALSE(IpAddress::from(unix_address));
    // What a dual-stack socket reports for an IPv4 visitor.
    sockaddr_in6 mapped{};
    mapped.sin6_family = AF_INET6;
    ASSERT_EQ(inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr), 1);
    sockaddr_storage storage{};
    std::copy_n(reinterpret_cast<const char*>(&mapped), sizeof mapped,
                reinterpret_cast<char*>(&storage));
    EXPECT_EQ(IpAddress::from(storage), address("192.0.2.1"));
}

TEST(Prefix, SpellingsAndErrors) {
    EXPECT_EQ(prefix("10.0.0.0/8").length_bits, 104);
    EXPECT_EQ(prefix("::ffff:10.0.0.0/104"), prefix("10.0.0.0/8"));
    EXPECT_EQ(prefix("192.0.2.1").to_string(), "192.0.2.1/32");
    EXPECT_EQ(prefix("2001:db8::/32").to_string(), "2001:db8::/32");
    EXPECT_EQ(prefix("::/0").to_string(), "::/0");
    EXPECT_EQ(prefix("0.0.0.0/0").to_string(), "0.0.0.0/0");
    const struct {
        const char* text;
        const char* error;
    } wrong[] = {{"10.0.0.1/8", "the network is 10.0.0.0/8"},
                 {"2001:db8::1/64", "the network is 2001:db8::/64"},
                 {"10.0.0.0/33", "from 0 to 32"},
                 {"::/129", "from 0 to 128"},
                 {"10.0.0.0/", "from 0 to 32"},
                 {"10.0.0.0/-1", "from 0 to 32"},
                 {"10.0.0.0/8/8", "from 0 to 32"},
                 {"10.0.0.0/ 8", "from 0 to 32"},
                 {"/8", "is not an IP address"},
                 {"example.com/8", "is not an IP address"}};
    for (const auto& [text, error] : wrong) {
        const auto parsed = Prefix::parse(text);
        ASSERT_FALSE(parsed) << text;
        EXPECT_THAT(parsed.error(), HasSubstr(error));
    }
}

TEST(AddressList, FamiliesStayApartAndMappedIsIpv4) {
    const AddressList all_v6({prefix("::/0")});
    EXPECT_TRUE(all_v6.contains(address("2001:db8::1")));
    EXPECT_TRUE(all_v6.contains(address("::")));
    EXPECT_FALSE(all_v6.contains(address("192.0.2.1")));
    EXPECT_FALSE(all_v6.contains(address("::ffff:192.0.2.1")));
    const AddressList all_v4({prefix("0.0.0.0/0")});
    EXPECT_TRUE(all_v4.contains(address("::ffff:192.0.2.1")));
    EXPECT_FALSE(all_v4.contains(address("::1")));
    EXPECT_FALSE(AddressList().contains(address("::1")));
    EXPECT_TRUE(AddressList().empty());
}

TEST(AccessList, DenyWinsAndAnAllowListIsExclusive) {
    const AccessList both({prefix("10.0.0.0/8")}, {prefix("10.1.0.0/16")});
    EXPECT_TRUE(both.admits(address("10.2.0.1")));
    EXPECT_FALSE(both.admits(address("10.1.0.1")));
    EXPECT_FALSE(both.admits(address("192.0.2.1")));
    EXPECT_TRUE(AccessList().admits(address("192.0.2.1")));
    const AccessList only_deny({}, {prefix("192.0.2.0/24")});
    EXPECT_FALSE(only_deny.admits(address("192.0.2.255")));
    EXPECT_TRUE(only_deny.admits(address("192.0.3.0")));
    const AccessList allow_is_denied({prefix("10.0.0.0/8")}, {prefix("10.0.0.0/8")});
    EXPECT_FALSE(allow_is_denied.admits(address("10.0.0.1")));
}

// Bit by bit, prefix by prefix: nothing shared with the implementation.
bool naive_contains(const std::vector<Prefix>& prefixes, const IpAddress& candidate) {
    for (const Prefix& entry : prefixes) {
        bool matches = entry.network.is_v4() == candidate.is_v4();
        for (unsigned bit = 0; bit < entry.length_bits && matches; ++bit) {
            const unsigned shift = 7 - bit % 8;
            matches = ((entry.network.bytes[bit / 8] ^ candidate.bytes[bit / 8]) >> shift) % 2 == 0;
        }
        if (matches) {
            return true;
        }
    }
    return false;
}

class RandomNetworks {
  public:
    explicit RandomNetworks(std::uint64_t seed) : random_(seed) {}

    std::size_t below(std::size_t bound) { return random_() % bound; }

    // Few distinct bytes, so that nesting, neighbours and exact hits are common.
    IpAddress some_address() {
        IpAddress result;
        const bool v4 = below(2) == 0;
        std::fill_n(result.bytes.begin() + 10, 2, v4 ? std::uint8_t{0xff} : std::uint8_t{0});
        static constexpr std::array<std::uint8_t, 6> bytes = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
        const std::size_t first = v4 ? 12 : 0;
        for (std::size_t index = first; index < 16; ++index) {
            const bool varied = index < first + 2 || index == 15;
            result.bytes[index] = varied ? bytes[below(bytes.size())] : result.bytes[index];
        }
        return result;
    }

    Prefix some_prefix() {
        const IpAddress base = some_address();
        const std::string text = base.to_string();
        const std::size_t highest = base.is_v4() ? 32 : 128;
        const std::string length = std::to_string(below(highest + 1));
        const auto parsed = Prefix::parse(text + "/" + length);
        if (parsed) {
            return *parsed;
        }
        // The error names the network that was meant.
        const std::string& error = parsed.error();
        return Prefix::parse(error.substr(error.rfind(' ') + 1)).value();
    }

  private:
    std::mt19937_64 random_;
};

TEST(AddressList, AgreesWithANaiveModel) {
    const char* given = std::getenv("BORE_TEST_SEED");
    const std::uint64_t seed =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "seed " << seed << " (BORE_TEST_SEED repeats it)\n";
    RandomNetworks random(seed);
    std::size_t hit_count = 0;
    std::size_t lookup_count = 0;
    for (int round = 0; round < 2000; ++round) {
        std::vector<Prefix> allow(random.below(round % 10 == 0 ? 1025 : 8));
        std::vector<Prefix> deny(random.below(8));
        std::generate(allow.begin(), allow.end(), [&random] { return random.some_prefix(); });
        std::generate(deny.begin(), deny.end(), [&random] { return random.some_prefix(); });
        const AddressList list(allow);
        const AccessList access(allow, deny);
        for (int lookup = 0; lookup < 50; ++lookup) {
            const IpAddress candidate = random.some_address();
            const bool allowed = naive_contains(allow, candidate);
            ASSERT_EQ(list.contains(candidate), allowed)
                << candidate.to_string() << " in round " << round << " of seed " << seed;
            ASSERT_EQ(access.admits(candidate),
                      !naive_contains(deny, candidate) && (allow.empty() || allowed))
                << candidate.to_string() << " in round " << round << " of seed " << seed;
            hit_count += allowed ? 1 : 0;
            ++lookup_count;
        }
    }
    // The draw must exercise both answers, or the comparison proves nothing.
    EXPECT_GT(hit_count, lookup_count / 20);
    EXPECT_LT(hit_count, lookup_count - lookup_count / 20);
}

}  // namespace
}  // namespace bore::config
