// Parsing and printing of addresses and prefixes, and the sorted ranges behind AddressList.
#include "controlplane/config/address_list.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace bore::config {
namespace {

// ::ffff:0:0/96, RFC 4291 section 2.5.5.2.
constexpr std::size_t mapped_prefix_size_bytes = 12;
constexpr std::uint8_t mapped_prefix_length_bits = 96;
constexpr std::array<std::uint8_t, mapped_prefix_size_bytes> mapped_prefix = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

IpAddress mapped(const void* four_bytes) {
    IpAddress address;
    std::copy(mapped_prefix.begin(), mapped_prefix.end(), address.bytes.begin());
    std::memcpy(address.bytes.data() + mapped_prefix_size_bytes, four_bytes, 4);
    return address;
}

// `address` with every bit past the first `length_bits` set to `bit`.
IpAddress fill_host_bits(IpAddress address, std::uint8_t length_bits, bool bit) {
    for (std::size_t index = 0; index < address.bytes.size(); ++index) {
        const auto kept_bits = std::clamp<int>(length_bits - static_cast<int>(index) * 8, 0, 8);
        const auto host_mask = static_cast<std::uint8_t>(0xff >> kept_bits);
        if (bit) {
            address.bytes[index] |= host_mask;
        } else {
            address.bytes[index] &= static_cast<std::uint8_t>(~host_mask);
        }
    }
    return address;
}

}  // namespace

std::expected<IpAddress, std::string> IpAddress::parse(std::string_view text) {
    const std::string terminated(text);
    in_addr v4{};
    in6_addr v6{};
    IpAddress address;
    // inet_pton stops at a NUL; such a text is no address even if its head is one.
    if (text.find('\0') == std::string_view::npos) {
        if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) {
            return mapped(&v4);
        }
        if (inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) {
            std::memcpy(address.bytes.data(), &v6, sizeof v6);
            return address;
        }
    }
    return std::unexpected("\"" + terminated + "\" is not an IP address such as 192.0.2.1 or ::1");
}

std::optional<IpAddress> IpAddress::from(const sockaddr_storage& address) {
    if (address.ss_family == AF_INET) {
        sockaddr_in v4{};
        std::memcpy(&v4, &address, sizeof v4);
        return mapped(&v4.sin_addr);
    }
    if (address.ss_family == AF_INET6) {
        sockaddr_in6 v6{};
        std::memcpy(&v6, &address, sizeof v6);
        IpAddress result;
        std::memcpy(result.bytes.data(), &v6.sin6_addr, sizeof v6.sin6_addr);
        return result;
    }
    return std::nullopt;
}

bool IpAddress::is_v4() const {
    return std::equal(mapped_prefix.begin(), mapped_prefix.end(), bytes.begin());
}

sockaddr_storage IpAddress::to_sockaddr(std::uint16_t port, socklen_t& length) const {
    sockaddr_storage result{};
    if (is_v4()) {
        sockaddr_in v4{};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        std::memcpy(&v4.sin_addr, bytes.data() + mapped_prefix_size_bytes, sizeof v4.sin_addr);
        std::memcpy(&result, &v4, sizeof v4);
        length = sizeof v4;
    } else {
        sockaddr_in6 v6{};
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        std::memcpy(&v6.sin6_addr, bytes.data(), sizeof v6.sin6_addr);
        std::memcpy(&result, &v6, sizeof v6);
        length = sizeof v6;
    }
    return result;
}

std::string IpAddress::to_string() const {
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (is_v4()) {
        inet_ntop(AF_INET, bytes.data() + mapped_prefix_size_bytes, text.data(), text.size());
    } else {
        inet_ntop(AF_INET6, bytes.data(), text.data(), text.size());
    }
    return text.data();
}

std::expected<Prefix, std::string> Prefix::parse(std::string_view text) {
    const std::size_t slash = text.find('/');
    const auto address = IpAddress::parse(text.substr(0, slash));
    if (!address) {
        return std::unexpected(address.error());
    }
    if (slash == std::string_view::npos) {
        return Prefix{*address, 128};
    }
    // A mapped address in IPv6 spelling counts its length over 128 bits, a dotted one over 32.
    const bool dotted = address->is_v4() && text.substr(0, slash).find(':') == std::string::npos;
    const unsigned highest = dotted ? 32 : 128;
    const std::string_view digits = text.substr(slash + 1);
    unsigned length = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc{} || end != digits.data() + digits.size() || length > highest) {
        return std::unexpected("\"" + std::string(text) + "\" needs a prefix length from 0 to " +
                               std::to_string(highest) + " behind the slash");
    }
    const auto length_bits =
        static_cast<std::uint8_t>(length + (dotted ? mapped_prefix_length_bits : 0));
    const Prefix prefix{fill_host_bits(*address, length_bits, false), length_bits};
    if (prefix.network != *address) {
        return std::unexpected("\"" + std::string(text) +
                               "\" has bits set beyond its prefix length; the network is " +
                               prefix.to_string());
    }
    return prefix;
}

std::string Prefix::to_string() const {
    // A mapped network has at least 96 bits: the ones in front of its address are part of it.
    const int hidden_bits = network.is_v4() ? mapped_prefix_length_bits : 0;
    return network.to_string() + "/" + std::to_string(length_bits - hidden_bits);
}

AddressList::AddressList(const std::vector<Prefix>& prefixes) {
    // Widest first among equals, so that a prefix inside another one comes right behind it.
    std::vector<Prefix> sorted = prefixes;
    std::sort(sorted.begin(), sorted.end());
    for (const Prefix& prefix : sorted) {
        add(prefix.network.is_v4() ? ranges_v4_ : ranges_v6_, prefix);
    }
}

void AddressList::add(std::vector<Range>& ranges, const Prefix& prefix) {
    // Two prefixes are nested or disjoint, so what does not lie in the last range lies behind it.
    if (ranges.empty() || ranges.back().last < prefix.network) {
        ranges.push_back(
            {prefix.network, fill_host_bits(prefix.network, prefix.length_bits, true)});
    }
}

bool AddressList::contains(const IpAddress& address) const {
    const std::vector<Range>& ranges = address.is_v4() ? ranges_v4_ : ranges_v6_;
    const auto behind = std::upper_bound(
        ranges.begin(), ranges.end(), address,
        [](const IpAddress& value, const Range& range) { return value < range.first; });
    return behind != ranges.begin() && address <= std::prev(behind)->last;
}

}  // namespace bore::config
