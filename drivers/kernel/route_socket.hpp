// Questions and requests to the kernel's routing subsystem (rtnetlink(7)): one message, one answer.
// Only for setting up and taking down; nothing here is fast.
#pragma once

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

namespace bore::drivers {

// An IPv4 or IPv6 address in network byte order.
struct NetworkAddress {
    std::uint8_t family{0};  // AF_INET, AF_INET6
    std::array<std::uint8_t, 16> bytes{};

    [[nodiscard]] static std::optional<NetworkAddress> parse(std::string_view text);
    [[nodiscard]] std::size_t size_bytes() const { return family == AF_INET ? 4 : 16; }
    [[nodiscard]] unsigned bits() const { return family == AF_INET ? 32 : 128; }
    [[nodiscard]] bool is_link_local() const;
    // The network of that many bits that the address is in.
    [[nodiscard]] NetworkAddress network(unsigned prefix_bits) const;
    bool operator==(const NetworkAddress&) const = default;
};

// A message under construction. Attributes go behind the fixed header.
class RouteMessage {
  public:
    // flags: NLM_F_CREATE and so on.
    RouteMessage(std::uint16_t type, std::uint16_t flags);

    template <typename Header>
    Header& header() {
        return *static_cast<Header*>(mnl_nlmsg_put_extra_header(message_, sizeof(Header)));
    }
    void add(std::uint16_t attribute, std::uint32_t value);
    void add(std::uint16_t attribute, const NetworkAddress& address);
    void add(std::uint16_t attribute, std::span<const std::uint8_t> bytes);
    void add_byte(std::uint16_t attribute, std::uint8_t value);
    [[nodiscard]] nlattr* begin_nest(std::uint16_t attribute);
    void end_nest(nlattr* nest);

  private:
    friend class RouteSocket;
    alignas(nlmsghdr) std::array<std::byte, 1024> buffer_{};
    nlmsghdr* message_;
};

// Calls `each` with type and value of every attribute behind a header of that size.
void each_attribute(
    const nlmsghdr& message, std::size_t header_bytes,
    const std::function<void(std::uint16_t type, std::span<const std::uint8_t> value)>& each);

class RouteSocket {
  public:
    RouteSocket();
    ~RouteSocket();
    RouteSocket(const RouteSocket&) = delete;
    RouteSocket& operator=(const RouteSocket&) = delete;

    // Waits for the kernel's acknowledgement. 0 or errno.
    [[nodiscard]] int request(RouteMessage& message);
    // Calls `each` with every message of the answer. 0 or errno.
    [[nodiscard]] int dump(RouteMessage& message, const std::function<void(const nlmsghdr&)>& each);

  private:
    [[nodiscard]] int exchange(RouteMessage& message, std::uint16_t flags,
                               const std::function<void(const nlmsghdr&)>& each);

    mnl_socket* socket_{nullptr};
    int open_error_{0};
    std::uint32_t sequence_{0};
};

}  // namespace bore::drivers
