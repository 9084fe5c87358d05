// The netlink conversation; libmnl lays out the messages.
#include "drivers/kernel/route_socket.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace bore::drivers {

std::optional<NetworkAddress> NetworkAddress::parse(std::string_view text) {
    const std::string ended(text);
    NetworkAddress address;
    for (const int family : {AF_INET, AF_INET6}) {
        if (::inet_pton(family, ended.c_str(), address.bytes.data()) == 1) {
            address.family = static_cast<std::uint8_t>(family);
            return address;
        }
    }
    return std::nullopt;
}

bool NetworkAddress::is_link_local() const {
    return family == AF_INET6 && bytes[0] == 0xfe && (bytes[1] & 0xc0U) == 0x80;
}

NetworkAddress NetworkAddress::network(unsigned prefix_bits) const {
    NetworkAddress result = *this;
    for (unsigned bit = prefix_bits; bit < bits(); ++bit) {
        result.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80U >> (bit % 8)));
    }
    return result;
}

RouteMessage::RouteMessage(std::uint16_t type, std::uint16_t flags)
    : message_(mnl_nlmsg_put_header(buffer_.data())) {
    message_->nlmsg_type = type;
    message_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
}

void RouteMessage::add(std::uint16_t attribute, std::uint32_t value) {
    mnl_attr_put_u32(message_, attribute, value);
}

void RouteMessage::add(std::uint16_t attribute, const NetworkAddress& address) {
    mnl_attr_put(message_, attribute, address.size_bytes(), address.bytes.data());
}

void RouteMessage::add(std::uint16_t attribute, std::span<const std::uint8_t> bytes) {
    mnl_attr_put(message_, attribute, bytes.size(), bytes.data());
}

void RouteMessage::add_byte(std::uint16_t attribute, std::uint8_t value) {
    mnl_attr_put_u8(message_, attribute, value);
}

nlattr* RouteMessage::begin_nest(std::uint16_t attribute) {
    return mnl_attr_nest_start(message_, attribute);
}

void RouteMessage::end_nest(nlattr* nest) {
    mnl_attr_nest_end(message_, nest);
}

void each_attribute(
    const nlmsghdr& message, std::size_t header_bytes,
    const std::function<void(std::uint16_t type, std::span<const std::uint8_t> value)>& each) {
    auto copy = each;  // the callback's data is not const in libmnl's signature
    const auto give = [](const nlattr* attribute, void* data) {
        const auto* value = static_cast<const std::uint8_t*>(mnl_attr_get_payload(attribute));
        (*static_cast<decltype(copy)*>(data))(mnl_attr_get_type(attribute),
                                              {value, mnl_attr_get_payload_len(attribute)});
        return MNL_CB_OK;
    };
    mnl_attr_parse(&message, static_cast<unsigned>(header_bytes), give, &copy);
}

RouteSocket::RouteSocket() : socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)) {
    if (socket_ == nullptr || mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
        open_error_ = errno;
    }
}

RouteSocket::~RouteSocket() {
    if (socket_ != nullptr) {
        mnl_socket_close(socket_);
    }
}

int RouteSocket::request(RouteMessage& message) {
    return exchange(message, NLM_F_ACK, [](const nlmsghdr&) {});
}

int RouteSocket::dump(RouteMessage& message, const std::function<void(const nlmsghdr&)>& each) {
    return exchange(message, NLM_F_DUMP, each);
}

int RouteSocket::exchange(RouteMessage& message, std::uint16_t flags,
                          const std::function<void(const nlmsghdr&)>& each) {
    if (open_error_ != 0) {
        return open_error_;
    }
    message.message_->nlmsg_flags =
        static_cast<std::uint16_t>(message.message_->nlmsg_flags | flags);
    message.message_->nlmsg_seq = ++sequence_;
    if (mnl_socket_sendto(socket_, message.message_, message.message_->nlmsg_len) < 0) {
        return errno;
    }
    const auto give = [](const nlmsghdr* answer, void* data) {
        (*static_cast<const std::function<void(const nlmsghdr&)>*>(data))(*answer);
        return MNL_CB_OK;
    };
    alignas(nlmsghdr) std::array<std::byte, 32'768> answers;
    while (true) {
        const ssize_t size = mnl_socket_recvfrom(socket_, answers.data(), answers.size());
        if (size < 0) {
            return errno;
        }
        auto copy = each;
        const int result = mnl_cb_run(answers.data(), static_cast<std::size_t>(size), sequence_,
                                      mnl_socket_get_portid(socket_), give, &copy);
        if (result <= MNL_CB_STOP) {
            return result < 0 ? errno : 0;
        }
    }
}

}  // namespace bore::drivers
