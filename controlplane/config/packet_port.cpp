// Splits ports and rules into their parts; every error names the part and what it should be.
#include "controlplane/config/packet_port.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace bore::config {
namespace {

using Parsed = std::expected<void, std::string>;

constexpr std::uint32_t lowest_mtu = 576;  // RFC 791: every host takes so much
constexpr std::uint32_t highest_mtu = 9600;
constexpr std::size_t max_interface_name = 15;  // IFNAMSIZ - 1

std::optional<std::uint32_t> number(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

std::unexpected<std::string> wrong(std::string_view piece, std::string_view rule) {
    return std::unexpected("has \"" + std::string(piece) + "\", but " + std::string(rule));
}

std::expected<InterfaceAddress, std::string> parse_address(std::string_view piece,
                                                           std::string_view text) {
    constexpr std::string_view rule =
        "an address is written with its prefix, as in address=192.0.2.10/24";
    const std::size_t slash = text.find('/');
    const auto address = IpAddress::parse(text.substr(0, slash));
    if (!address || slash == std::string_view::npos) {
        return wrong(piece, rule);
    }
    const auto bits = number(text.substr(slash + 1));
    if (!bits || *bits > (address->is_v4() ? 32U : 128U)) {
        return wrong(piece, rule);
    }
    return InterfaceAddress{*address, static_cast<std::uint8_t>(*bits)};
}

bool is_interface_name(std::string_view text) {
    return !text.empty() && text.size() <= max_interface_name && text != "." && text != ".." &&
           std::all_of(text.begin(), text.end(), [](char letter) {
               return letter > ' ' && letter < 0x7f && letter != '/' && letter != ':';
           });
}

Parsed set_part(PacketPort& port, std::string_view piece) {
    const std::size_t equals = piece.find('=');
    const std::string_view name = piece.substr(0, equals);
    const std::string_view value = piece.substr(equals + 1);
    if (name == "address") {
        const auto address = parse_address(piece, value);
        if (!address) {
            return std::unexpected(address.error());
        }
        port.addresses.push_back(*address);
    } else if (name == "gateway") {
        const auto gateway = IpAddress::parse(value);
        if (!gateway) {
            return wrong(piece, "a gateway is an IP address");
        }
        port.gateways.push_back(*gateway);
    } else if (name == "interface") {
        if (!is_interface_name(value)) {
            return wrong(piece, "an interface name has 1 to 15 printable letters without / and :");
        }
        port.interface = value;
    } else if (name == "mtu") {
        const auto mtu = number(value);
        if (!mtu || *mtu < lowest_mtu || *mtu > highest_mtu) {
            return wrong(piece, "an MTU is a whole number of bytes from 576 to 9600");
        }
        port.mtu = static_cast<std::uint16_t>(*mtu);
    } else {
        return wrong(piece, "a port has only address, gateway, interface and mtu");
    }
    return {};
}

std::vector<std::string_view> pieces_of(const std::vector<std::string>& items) {
    std::vector<std::string_view> pieces;
    for (const std::string& item : items) {
        std::string_view rest = item;
        while (true) {
            const std::size_t comma = rest.find(',');
            std::string_view piece = rest.substr(0, comma);
            while (piece.starts_with(' ')) {
                piece.remove_prefix(1);
            }
            pieces.push_back(piece);
            if (comma == std::string_view::npos) {
                break;
            }
            rest.remove_prefix(comma + 1);
        }
    }
    return pieces;
}

Parsed check(const PacketPort& port) {
    if (port.addresses.empty()) {
        return std::unexpected("has no address for " + port.device + "; add one, as in " +
                               port.device + ",address=192.0.2.10/24");
    }
    return {};
}

}  // namespace

std::string PacketPort::to_string() const {
    std::string text = device;
    for (const InterfaceAddress& address : addresses) {
        text +=
            ",address=" + address.address.to_string() + "/" + std::to_string(address.prefix_bits);
    }
    for (const IpAddress& gateway : gateways) {
        text += ",gateway=" + gateway.to_string();
    }
    if (!interface.empty()) {
        text += ",interface=" + interface;
    }
    if (mtu != 0) {
        text += ",mtu=" + std::to_string(mtu);
    }
    return text;
}

std::expected<std::vector<PacketPort>, std::string> parse_packet_ports(
    const std::vector<std::string>& items) {
    std::vector<PacketPort> ports;
    for (const std::string_view piece : pieces_of(items)) {
        if (piece.empty()) {
            return wrong(piece, "a port begins with its device, such as 0000:03:00.0");
        }
        if (piece.find('=') == std::string_view::npos) {
            ports.push_back({.device = std::string(piece)});
        } else if (ports.empty()) {
            return wrong(piece, "a port begins with its device, such as 0000:03:00.0");
        } else if (auto set = set_part(ports.back(), piece); !set) {
            return std::unexpected(set.error());
        }
    }
    if (ports.size() > max_packet_ports) {
        return std::unexpected("may have at most " + std::to_string(max_packet_ports) + " ports");
    }
    for (const PacketPort& port : ports) {
        if (auto checked = check(port); !checked) {
            return std::unexpected(checked.error());
        }
        const auto same = [&port](const PacketPort& other) { return other.device == port.device; };
        if (std::count_if(ports.begin(), ports.end(), same) > 1) {
            return std::unexpected("names " + port.device + " twice; name each device once");
        }
    }
    return ports;
}

std::expected<PathRule, std::string> PathRule::parse(std::string_view text) {
    constexpr std::string_view rule =
        "a rule is PORTS=PATH, as in 20000-20099=stream or 20100=splice";
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) {
        return wrong(text, rule);
    }
    const std::string_view ports = text.substr(0, equals);
    const std::string_view path = text.substr(equals + 1);
    const std::size_t dash = ports.find('-');
    const auto first = number(ports.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : number(ports.substr(dash + 1));
    if (!first || !last || *first == 0 || *last > 65'535 || *first > *last) {
        return wrong(text, rule);
    }
    PathRule result{.first = static_cast<std::uint16_t>(*first),
                    .last = static_cast<std::uint16_t>(*last)};
    if (path == "auto") {
        result.path = PacketPath::automatic;
    } else if (path == "splice") {
        result.path = PacketPath::splice;
    } else if (path == "stream") {
        result.path = PacketPath::stream;
    } else {
        return wrong(text, rule);
    }
    return result;
}

std::string PathRule::to_string() const {
    std::string text = std::to_string(first);
    if (last != first) {
        text += "-" + std::to_string(last);
    }
    switch (path) {
        case PacketPath::automatic:
            return text + "=auto";
        case PacketPath::splice:
            return text + "=splice";
        case PacketPath::stream:
            return text + "=stream";
    }
    return text;
}

}  // namespace bore::config
