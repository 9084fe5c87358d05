// Fuzz target: lists of networks. The input is text: networks to allow, one per line, "---",
// networks to deny, "---", addresses. What parses must print and parse to the same, and the lists
// must answer as a comparison bit by bit does.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/config/address_list.hpp"
#include "dataplane/base/check.hpp"

namespace {

using namespace bore::config;

std::string_view next_line(std::string_view& text) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

std::vector<Prefix> parse_networks(std::string_view& text) {
    std::vector<Prefix> networks;
    while (!text.empty()) {
        const std::string_view line = next_line(text);
        if (line == "---") {
            break;
        }
        const auto parsed = Prefix::parse(line);
        if (!parsed) {
            BORE_CHECK(!parsed.error().empty(), "an error says something");
            continue;
        }
        const auto again = Prefix::parse(parsed->to_string());
        BORE_CHECK(again.has_value() && *again == *parsed, "a network prints as itself");
        networks.push_back(*parsed);
    }
    return networks;
}

bool naive_contains(const std::vector<Prefix>& networks, const IpAddress& address) {
    return std::any_of(networks.begin(), networks.end(), [&address](const Prefix& network) {
        bool matches = network.network.is_v4() == address.is_v4();
        for (unsigned bit = 0; bit < network.length_bits && matches; ++bit) {
            const unsigned difference = network.network.bytes[bit / 8] ^ address.bytes[bit / 8];
            matches = (difference >> (7 - bit % 8)) % 2 == 0;
        }
        return matches;
    });
}

void check_address(const IpAddress& address, const std::vector<Prefix>& allow,
                   const std::vector<Prefix>& deny, const AccessList& list) {
    const auto again = IpAddress::parse(address.to_string());
    BORE_CHECK(again.has_value() && *again == address, "an address prints as itself");
    socklen_t length = 0;
    BORE_CHECK(IpAddress::from(address.to_sockaddr(1, length)) == address,
               "an address survives its socket form");
    const bool expected =
        !naive_contains(deny, address) && (allow.empty() || naive_contains(allow, address));
    BORE_CHECK(list.admits(address) == expected, "the list agrees with the comparison");
}

IpAddress address_before(IpAddress address) {
    for (std::size_t index = address.bytes.size(); index > 0; --index) {
        std::uint8_t& byte = address.bytes[index - 1];
        --byte;
        if (byte != 0xff) {
            break;  // nothing to borrow from the next one
        }
    }
    return address;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string input(data, data + size);
    std::string_view text = input;
    const std::vector<Prefix> allow = parse_networks(text);
    const std::vector<Prefix> deny = parse_networks(text);
    const AccessList list(allow, deny);
    while (!text.empty()) {
        if (const auto address = IpAddress::parse(next_line(text))) {
            check_address(*address, allow, deny, list);
        }
    }
    // The edges of every network are where an off-by-one would show.
    for (const Prefix& network : allow) {
        check_address(network.network, allow, deny, list);
        check_address(address_before(network.network), allow, deny, list);
    }
    return 0;
}
