// IP addresses, CIDR prefixes and allow/deny lists over both families. Pure values: no sockets are
// touched and nothing is resolved. The relay asks an AccessList once per accepted connection.
//
// An IPv4 address is kept in its IPv6-mapped form (::ffff:a.b.c.d), so a mapped address that a
// dual-stack socket reports and the plain IPv4 address are the same value. The families stay apart
// otherwise: "::/0" means every IPv6 address and no IPv4 one; "0.0.0.0/0" the reverse.
#pragma once

#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bore::config {

// Longest list that is accepted; a lookup is a binary search over at most this many ranges.
inline constexpr std::size_t max_address_list_count = 1024;

struct IpAddress {
    std::array<std::uint8_t, 16> bytes{};  // network order, IPv4 in mapped form

    // The error is a sentence fragment that says what is wrong ("is not an IP address ...").
    [[nodiscard]] static std::expected<IpAddress, std::string> parse(std::string_view text);
    // Empty for a family other than AF_INET and AF_INET6.
    [[nodiscard]] static std::optional<IpAddress> from(const sockaddr_storage& address);

    [[nodiscard]] bool is_v4() const;
    // AF_INET for IPv4 (mapped or not), AF_INET6 otherwise; the length goes to `length`.
    [[nodiscard]] sockaddr_storage to_sockaddr(std::uint16_t port, socklen_t& length) const;
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const IpAddress&) const = default;
};

struct Prefix {
    IpAddress network;
    std::uint8_t length_bits = 0;  // of the 128-bit form: 10.0.0.0/8 has 104

    // "10.0.0.0/8", "2001:db8::/32", or a bare address. Bits set beyond the length are an error
    // that names the network which was probably meant.
    [[nodiscard]] static std::expected<Prefix, std::string> parse(std::string_view text);
    [[nodiscard]] std::string to_string() const;

    auto operator<=>(const Prefix&) const = default;
};

class AddressList {
  public:
    AddressList() = default;
    explicit AddressList(const std::vector<Prefix>& prefixes);

    [[nodiscard]] bool contains(const IpAddress& address) const;
    [[nodiscard]] bool empty() const { return ranges_v4_.empty() && ranges_v6_.empty(); }

  private:
    struct Range {
        IpAddress first;
        IpAddress last;
    };
    static void add(std::vector<Range>& ranges, const Prefix& prefix);

    std::vector<Range> ranges_v4_;  // sorted and disjoint
    std::vector<Range> ranges_v6_;
};

// Deny wins; a non-empty allow list admits only what it names; two empty lists admit everybody.
class AccessList {
  public:
    AccessList() = default;
    AccessList(const std::vector<Prefix>& allow, const std::vector<Prefix>& deny)
        : allow_(allow), deny_(deny) {}

    [[nodiscard]] bool admits(const IpAddress& address) const {
        return !deny_.contains(address) && (allow_.empty() || allow_.contains(address));
    }

  private:
    AddressList allow_;
    AddressList deny_;
};

}  // namespace bore::config
