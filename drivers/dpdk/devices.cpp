#include "drivers/dpdk/devices.hpp"

#include <net/if.h>

#include <algorithm>
#include <charconv>

#include "drivers/dpdk/sentence.hpp"

namespace bore::drivers {

namespace {

using Result = std::expected<DeviceSpec, std::string>;

constexpr std::string_view forms =
    "a PCI address (0000:03:00.0), af_packet:INTERFACE, af_xdp:INTERFACE, tap:NAME, ring:NAME, "
    "null, null:BYTES, pcap:IN[:OUT] or pcap_loop:IN[:OUT]";
// net_null makes frames of what it is told, its buffers hold a standard frame.
constexpr std::uint16_t min_frame_bytes = 60;
constexpr std::uint16_t max_frame_bytes = 1514;
constexpr std::size_t max_ring_name = 24;  // of DPDK's RTE_RING_NAMESIZE, less the driver's prefix

Result refuse(std::string_view text, std::string_view rule) {
    return std::unexpected(sentence("packet port \"{}\": {}", text, rule));
}

bool is_hex(std::string_view text, std::size_t digits) {
    return text.size() == digits && std::ranges::all_of(text, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

// [dddd:]bb:dd.f, any case. Empty when it is none.
std::string pci_address(std::string_view text) {
    std::string lower{text};
    std::ranges::transform(lower, lower.begin(), [](char c) {
        return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    if (std::ranges::count(lower, ':') == 1) {
        lower.insert(0, "0000:");
    }
    const std::string_view whole{lower};
    const bool shaped = whole.size() == 12 && whole[4] == ':' && whole[7] == ':' &&
                        whole[10] == '.' && is_hex(whole.substr(0, 4), 4) &&
                        is_hex(whole.substr(5, 2), 2) && is_hex(whole.substr(8, 2), 2) &&
                        whole[11] >= '0' && whole[11] <= '7';
    return shaped ? lower : std::string{};
}

// The name of an interface: dev_valid_name() of the kernel, and no comma, which separates the
// arguments of DPDK's virtual devices.
bool is_interface_name(std::string_view name) {
    return !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
           name.find_first_of("/:, \t\n") == std::string_view::npos;
}

Result parse_interface(DeviceKind kind, std::string_view text, std::string_view name) {
    if (!is_interface_name(name)) {
        return refuse(text, sentence("\"{}\" can be no interface's name: 1 to {} characters "
                                     "without blank, comma, colon or slash",
                                     name, IFNAMSIZ - 1));
    }
    return DeviceSpec{.kind = kind, .text = std::string{text}, .name = std::string{name}};
}

Result parse_ring(std::string_view text, std::string_view name) {
    const bool plain =
        !name.empty() && name.size() <= max_ring_name && std::ranges::all_of(name, [](char c) {
            return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                   c == '_';
        });
    if (!plain) {
        return refuse(text,
                      sentence("a ring's name has 1 to {} letters, digits or _", max_ring_name));
    }
    return DeviceSpec{
        .kind = DeviceKind::ring, .text = std::string{text}, .name = std::string{name}};
}

Result parse_null(std::string_view text, std::string_view bytes) {
    std::uint16_t count = 0;
    const auto [end, error] = std::from_chars(bytes.data(), bytes.data() + bytes.size(), count);
    if (error != std::errc{} || end != bytes.data() + bytes.size() || count < min_frame_bytes ||
        count > max_frame_bytes) {
        return refuse(text, sentence("BYTES of null:BYTES is the length of a frame, {} to {}",
                                     min_frame_bytes, max_frame_bytes));
    }
    return DeviceSpec{
        .kind = DeviceKind::null, .text = std::string{text}, .name = {}, .frame_bytes = count};
}

Result parse_files(DeviceKind kind, std::string_view text, std::string_view files) {
    const std::size_t colon = files.find(':');
    const std::string_view input = files.substr(0, colon);
    const std::string_view output =
        colon == std::string_view::npos ? std::string_view{} : files.substr(colon + 1);
    if (input.empty() || files.find(',') != std::string_view::npos ||
        output.find(':') != std::string_view::npos ||
        (colon != std::string_view::npos && output.empty())) {
        return refuse(text, "write IN or IN:OUT, two files without comma or colon in their names");
    }
    return DeviceSpec{.kind = kind,
                      .text = std::string{text},
                      .name = std::string{input},
                      .output_file = std::string{output}};
}

}  // namespace

Result parse_device(std::string_view text) {
    if (std::string address = pci_address(text); !address.empty()) {
        return DeviceSpec{.kind = DeviceKind::pci, .text = address, .name = address};
    }
    if (text == "null") {
        return DeviceSpec{.kind = DeviceKind::null, .text = std::string{text}};
    }
    const std::size_t colon = text.find(':');
    if (colon != std::string_view::npos) {
        const std::string_view type = text.substr(0, colon);
        const std::string_view rest = text.substr(colon + 1);
        if (type == "af_packet") {
            return parse_interface(DeviceKind::af_packet, text, rest);
        }
        if (type == "af_xdp") {
            return parse_interface(DeviceKind::af_xdp, text, rest);
        }
        if (type == "tap") {
            return parse_interface(DeviceKind::tap, text, rest);
        }
        if (type == "ring") {
            return parse_ring(text, rest);
        }
        if (type == "null") {
            return parse_null(text, rest);
        }
        if (type == "pcap") {
            return parse_files(DeviceKind::pcap, text, rest);
        }
        if (type == "pcap_loop") {
            return parse_files(DeviceKind::pcap_loop, text, rest);
        }
    }
    return refuse(text, sentence("unknown kind of device; write {}", forms));
}

}  // namespace bore::drivers
