// Reading is parsing RTM_NEWNEIGH; rtnetlink(7). What the kernel deletes is not reported: a flow
// keeps the next hop that it has until there is another.
#include "drivers/kernel/neighbour_watch.hpp"

#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>

namespace bore::drivers {

namespace {

// States in which the kernel would send to the link address that it tells.
constexpr unsigned usable_states =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE;

std::optional<NeighbourChange> neighbour_of(const nlmsghdr& message) {
    if (message.nlmsg_type != RTM_NEWNEIGH || mnl_nlmsg_get_payload_len(&message) < sizeof(ndmsg)) {
        return std::nullopt;
    }
    const auto& header = *static_cast<const ndmsg*>(mnl_nlmsg_get_payload(&message));
    const bool is_ip = header.ndm_family == AF_INET || header.ndm_family == AF_INET6;
    if (!is_ip || (header.ndm_state & usable_states) == 0) {
        return std::nullopt;
    }
    NeighbourChange change{.interface_index = header.ndm_ifindex,
                           .address = {.family = header.ndm_family}};
    bool has_address = false;
    bool has_link_address = false;
    each_attribute(message, sizeof(ndmsg), [&](std::uint16_t type, auto value) {
        if (type == NDA_DST && value.size() == change.address.size_bytes()) {
            std::ranges::copy(value, change.address.bytes.begin());
            has_address = true;
        } else if (type == NDA_LLADDR && value.size() == change.link_address.size()) {
            std::ranges::copy(value, change.link_address.begin());
            has_link_address = true;
        }
    });
    return has_address && has_link_address ? std::optional(change) : std::nullopt;
}

}  // namespace

void parse_neighbours(std::span<const std::byte> datagram, const NeighbourWatch::Each& each) {
    auto left = static_cast<int>(datagram.size());
    const auto* message = reinterpret_cast<const nlmsghdr*>(datagram.data());
    for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
        if (const auto change = neighbour_of(*message)) {
            each(*change);
        }
    }
}

NeighbourWatch::NeighbourWatch()
    : socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK)) {
    const int group = RTNLGRP_NEIGH;
    if (socket_ != nullptr && (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0 ||
                               ::setsockopt(mnl_socket_get_fd(socket_), SOL_NETLINK,
                                            NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)) {
        mnl_socket_close(socket_);
        socket_ = nullptr;
    }
    ask_for_all();
}

NeighbourWatch::~NeighbourWatch() {
    if (socket_ != nullptr) {
        mnl_socket_close(socket_);
    }
}

void NeighbourWatch::ask_for_all() {
    if (socket_ == nullptr) {
        return;
    }
    alignas(nlmsghdr) std::array<std::byte, 64> buffer{};
    nlmsghdr* question = mnl_nlmsg_put_header(buffer.data());
    question->nlmsg_type = RTM_GETNEIGH;
    question->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    question->nlmsg_seq = ++sequence_;
    mnl_nlmsg_put_extra_header(question, sizeof(ndmsg));
    // EBUSY: the answer to the one before is still being read.
    ask_again_ = mnl_socket_sendto(socket_, question, question->nlmsg_len) < 0;
}

void NeighbourWatch::read(const Each& each, std::size_t most) {
    alignas(nlmsghdr) std::array<std::byte, 32'768> datagram;
    for (std::size_t count = 0; socket_ != nullptr && count < most; ++count) {
        const ssize_t size = mnl_socket_recvfrom(socket_, datagram.data(), datagram.size());
        if (size >= 0) {
            parse_neighbours(std::span(datagram).first(static_cast<std::size_t>(size)), each);
        } else if (errno == ENOBUFS) {
            ask_again_ = true;
        } else {
            break;  // nothing more
        }
    }
    if (ask_again_) {
        ask_for_all();
    }
}

}  // namespace bore::drivers
