// Making the device, in this order; whatever fails closes the descriptor, and the kernel then takes
// device, addresses and routes away:
//   1. check what was asked for, and that name and addresses are free
//   2. the TAP device, without offloads
//   3. MAC, MTU, queue length, ARP behaviour, up
//   4. addresses
//   5. the port's routing table and the rules that lead to it
#include "drivers/kernel/exception_interface.hpp"

#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "dataplane/base/check.hpp"
#include "drivers/kernel/ethernet_features.hpp"
#include "drivers/kernel/route_socket.hpp"

namespace bore::drivers {
namespace {

using Done = std::expected<void, std::string>;

// Marks our rules, so that a killed relay's are recognized; of the numbers that are free for use
// (rtnetlink(7): above RTPROT_STATIC, not named in iproute2's rt_protos).
constexpr std::uint8_t rule_protocol = 0xb0;
// Tables 0xb0000000 + interface index; names and small numbers are the administrator's.
constexpr std::uint32_t table_base = 0xb000'0000;
// Before the main table (32766).
constexpr std::uint32_t rule_priority = 30'000;
// Of the default route in the main table: behind every other, so that it serves a machine which
// has no other way out and changes nothing on one that has.
constexpr std::uint32_t last_resort_metric = 1U << 20U;
// Frames that the kernel may queue for us; its default is 500, less than one bulk stream's window.
constexpr std::uint32_t queue_frames = 4'096;
constexpr std::uint16_t lowest_mtu_bytes = 576;       // RFC 791: every host takes so much
constexpr std::uint16_t lowest_v6_mtu_bytes = 1'280;  // RFC 8200, 5

struct InterfaceAddress {
    std::string text;  // as the operator wrote it
    NetworkAddress address;
    unsigned prefix_bits{0};
};

struct Plan {
    const ExceptionInterfaceOptions& options;
    std::vector<InterfaceAddress> addresses;
    std::vector<NetworkAddress> gateways;
    int index{0};

    [[nodiscard]] std::uint32_t table() const {
        return table_base + static_cast<std::uint32_t>(index);
    }
};

std::string reason(int error_number) {
    return std::string(": ") + std::strerror(error_number);
}

std::unexpected<std::string> wrong(std::string sentence) {
    return std::unexpected(std::move(sentence));
}

// ---- 1. What was asked for

std::expected<InterfaceAddress, std::string> parse_address(const std::string& text) {
    const std::size_t slash = text.find('/');
    const auto address = NetworkAddress::parse(std::string_view(text).substr(0, slash));
    unsigned bits = 0;
    bool good = address.has_value() && slash != std::string::npos;
    if (good) {
        const char* end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data() + slash + 1, end, bits);
        good = error == std::errc{} && rest == end && bits >= 1 && bits <= address->bits();
    }
    if (!good) {
        return wrong("\"" + text +
                     "\" is no address of an interface: write it with the length of "
                     "its prefix, 1 to 32 for IPv4 or 1 to 128 for IPv6, as in 192.0.2.10/24");
    }
    return InterfaceAddress{text, *address, bits};
}

bool is_name(const std::string& name) {
    return !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
           std::all_of(
               name.begin(), name.end(),
               [](char letter) {
                   return letter > ' ' && letter < 0x7f && letter != '/' && letter != ':' &&
                          letter != '%' && letter != '"';
               });
}

Done check_gateway(const Plan& plan, const std::string& text) {
    const auto gateway = NetworkAddress::parse(text);
    if (!gateway) {
        return wrong("gateway \"" + text + "\" is no IP address; write it as 192.0.2.1");
    }
    const auto reaches = [&](const InterfaceAddress& own) {
        return own.address.family == gateway->family &&
               (gateway->is_link_local() ||
                own.address.network(own.prefix_bits) == gateway->network(own.prefix_bits));
    };
    if (std::none_of(plan.addresses.begin(), plan.addresses.end(), reaches)) {
        return wrong("gateway " + text + " is in no network of " + plan.options.name +
                     "'s addresses, so nobody could reach it; correct it or the prefix");
    }
    const auto same_family = [&](const NetworkAddress& other) {
        return other.family == gateway->family;
    };
    if (std::any_of(plan.gateways.begin(), plan.gateways.end(), same_family)) {
        return wrong("gateway " + text + " is the second of its family for " + plan.options.name +
                     "; a port has one for IPv4 and one for IPv6");
    }
    return {};
}

Done check_options(Plan& plan) {
    const ExceptionInterfaceOptions& options = plan.options;
    if (!is_name(options.name)) {
        return wrong("\"" + options.name +
                     "\" is no name for an interface: 1 to 15 printable "
                     "characters without / : % and quotes");
    }
    if ((options.mac[0] & 1U) != 0 || options.mac == std::array<std::uint8_t, 6>{}) {
        return wrong("the MAC of " + options.name +
                     "'s port is all zero or a group's; a NIC must "
                     "have an address of its own");
    }
    if (options.addresses.empty()) {
        return wrong(options.name +
                     " has no address, so nobody could connect to it; add one, as "
                     "in address=192.0.2.10/24");
    }
    bool v6 = false;
    for (const std::string& text : options.addresses) {
        auto address = parse_address(text);
        if (!address) {
            return wrong(address.error());
        }
        v6 |= address->address.family == AF_INET6;
        plan.addresses.push_back(std::move(*address));
    }
    const std::uint16_t lowest = v6 ? lowest_v6_mtu_bytes : lowest_mtu_bytes;
    if (options.mtu_bytes < lowest) {
        return wrong("MTU " + std::to_string(options.mtu_bytes) + " of " + options.name +
                     " is too small: with its addresses it must be at least " +
                     std::to_string(lowest));
    }
    for (const std::string& text : options.gateways) {
        if (auto checked = check_gateway(plan, text); !checked) {
            return checked;
        }
        plan.gateways.push_back(*NetworkAddress::parse(text));
    }
    return {};
}

// The same address twice on one machine: the kernel would answer on either of them.
Done check_free(const Plan& plan, RouteSocket& routes) {
    if (::if_nametoindex(plan.options.name.c_str()) != 0) {
        return wrong("an interface named " + plan.options.name +
                     " exists already; choose another "
                     "name with interface=NAME, or end the program that owns it");
    }
    RouteMessage question(RTM_GETADDR, 0);
    question.header<ifaddrmsg>().ifa_family = AF_UNSPEC;
    std::string taken;
    const int error = routes.dump(question, [&](const nlmsghdr& answer) {
        const auto* header = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(&answer));
        NetworkAddress found{.family = header->ifa_family, .bytes = {}};
        each_attribute(answer, sizeof *header, [&](std::uint16_t type, auto value) {
            // IFA_LOCAL is the own address where IFA_ADDRESS is the far end's; it comes later.
            if ((type == IFA_ADDRESS || type == IFA_LOCAL) && value.size() == found.size_bytes()) {
                std::copy(value.begin(), value.end(), found.bytes.begin());
            }
        });
        for (const InterfaceAddress& own : plan.addresses) {
            std::array<char, IFNAMSIZ> name{};
            if (own.address == found && ::if_indextoname(header->ifa_index, name.data())) {
                taken = own.text + " of " + plan.options.name + " is an address of " + name.data() +
                        " as well; take it away there (ip address del), or name another one";
            }
        }
    });
    if (error != 0) {
        return wrong("the kernel does not list its addresses" + reason(error));
    }
    return taken.empty() ? Done{} : wrong(taken);
}

// ---- 2. The device

std::expected<int, std::string> open_tap(const std::string& name) {
    const int descriptor = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) {
        return wrong("/dev/net/tun cannot be opened" + reason(errno) +
                     "; load the module (modprobe tun) and let the relay use the device");
    }
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    // Exclusive: a persistent device of that name, made by somebody else, is not taken over.
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL);
    if (::ioctl(descriptor, TUNSETIFF, &request) < 0 || ::ioctl(descriptor, TUNSETOFFLOAD, 0) < 0) {
        const int error = errno;
        ::close(descriptor);
        if (error == EPERM || error == EACCES) {
            return wrong("a TAP device named " + name + " may not be made" + reason(error) +
                         "; the relay needs CAP_NET_ADMIN until it has started");
        }
        return wrong("a TAP device named " + name + " cannot be made" + reason(error) +
                     (error == EBUSY ? "; choose another name with interface=NAME" : ""));
    }
    return descriptor;
}

// ---- 3. to 5.: one request to the kernel each

// A NIC that the relay owns speaks for its own addresses only: it neither answers ARP for those of
// other interfaces (arp_ignore 1) nor asks with them (arp_announce 2).
void add_arp_behaviour(RouteMessage& message) {
    nlattr* families = message.begin_nest(IFLA_AF_SPEC);
    nlattr* v4 = message.begin_nest(AF_INET);
    nlattr* values = message.begin_nest(IFLA_INET_CONF);
    message.add(IPV4_DEVCONF_ARP_IGNORE, std::uint32_t{1});
    message.add(IPV4_DEVCONF_ARP_ANNOUNCE, std::uint32_t{2});
    message.end_nest(values);
    message.end_nest(v4);
    message.end_nest(families);
}

int bring_up(const Plan& plan, RouteSocket& routes) {
    RouteMessage message(RTM_NEWLINK, 0);
    auto& header = message.header<ifinfomsg>();
    header.ifi_family = AF_UNSPEC;
    header.ifi_index = plan.index;
    header.ifi_change = IFF_UP;
    header.ifi_flags = IFF_UP;
    message.add(IFLA_ADDRESS, plan.options.mac);
    message.add(IFLA_MTU, std::uint32_t{plan.options.mtu_bytes});
    message.add(IFLA_TXQLEN, queue_frames);
    add_arp_behaviour(message);
    return routes.request(message);
}

int add_address(const Plan& plan, const InterfaceAddress& own, RouteSocket& routes) {
    RouteMessage message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    auto& header = message.header<ifaddrmsg>();
    header.ifa_family = own.address.family;
    header.ifa_prefixlen = static_cast<std::uint8_t>(own.prefix_bits);
    header.ifa_index = static_cast<std::uint32_t>(plan.index);
    message.add(IFA_LOCAL, own.address);
    message.add(IFA_ADDRESS, own.address);
    if (own.address.family == AF_INET6) {
        // Without duplicate address detection, which would keep the address silent for a second.
        message.add(IFA_FLAGS, std::uint32_t{IFA_F_NODAD});
    }
    return routes.request(message);
}

struct Route {
    NetworkAddress network;
    unsigned prefix_bits{0};
    std::optional<NetworkAddress> gateway;
    std::uint32_t table{RT_TABLE_MAIN};
    std::uint32_t metric{0};
};

int add_route(const Plan& plan, const Route& route, RouteSocket& routes) {
    RouteMessage message(RTM_NEWROUTE, NLM_F_CREATE);
    auto& header = message.header<rtmsg>();
    header.rtm_family = route.network.family;
    header.rtm_dst_len = static_cast<std::uint8_t>(route.prefix_bits);
    header.rtm_table = RT_TABLE_UNSPEC;
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_scope = route.gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    header.rtm_type = RTN_UNICAST;
    message.add(RTA_TABLE, route.table);
    message.add(RTA_OIF, static_cast<std::uint32_t>(plan.index));
    if (route.prefix_bits != 0) {
        message.add(RTA_DST, route.network);
    }
    if (route.gateway) {
        message.add(RTA_GATEWAY, *route.gateway);
    }
    if (route.metric != 0) {
        message.add(RTA_PRIORITY, route.metric);
    }
    return routes.request(message);
}

int add_rule(const Plan& plan, const InterfaceAddress& own, RouteSocket& routes) {
    RouteMessage message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
    auto& header = message.header<fib_rule_hdr>();
    header.family = own.address.family;
    header.src_len = static_cast<std::uint8_t>(own.address.bits());
    header.action = FR_ACT_TO_TBL;
    message.add(FRA_SRC, own.address);
    message.add(FRA_TABLE, plan.table());
    message.add(FRA_PRIORITY, rule_priority);
    message.add_byte(FRA_PROTOCOL, rule_protocol);
    return routes.request(message);
}

struct Rule {
    fib_rule_hdr header;
    bool ours{false};
    std::uint32_t table{0};
    NetworkAddress source;
};

Rule parse_rule(const nlmsghdr& message) {
    Rule rule{.header = *static_cast<const fib_rule_hdr*>(mnl_nlmsg_get_payload(&message)),
              .source = {}};
    rule.source.family = rule.header.family;
    each_attribute(message, sizeof rule.header, [&rule](std::uint16_t type, auto value) {
        if (type == FRA_PROTOCOL && value.size() == 1) {
            rule.ours = value[0] == rule_protocol;
        } else if (type == FRA_TABLE && value.size() == sizeof rule.table) {
            std::memcpy(&rule.table, value.data(), value.size());
        } else if (type == FRA_SRC && value.size() == rule.source.size_bytes()) {
            std::copy(value.begin(), value.end(), rule.source.bytes.begin());
        }
    });
    return rule;
}

// Rules of ours for which `unwanted` holds of their table's interface index. A kernel without rules
// lists none; add_rule() will say so.
void remove_rules(RouteSocket& routes, const std::function<bool(int)>& unwanted) {
    std::vector<Rule> found;
    for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
        RouteMessage question(RTM_GETRULE, 0);
        question.header<fib_rule_hdr>().family = family;
        [[maybe_unused]] const int error = routes.dump(question, [&](const nlmsghdr& answer) {
            const Rule rule = parse_rule(answer);
            if (rule.ours && rule.table > table_base &&
                unwanted(static_cast<int>(rule.table - table_base))) {
                found.push_back(rule);
            }
        });
    }
    for (const Rule& rule : found) {
        RouteMessage message(RTM_DELRULE, 0);
        auto& header = message.header<fib_rule_hdr>();
        header.family = rule.header.family;
        header.src_len = rule.header.src_len;
        header.action = FR_ACT_TO_TBL;
        message.add(FRA_SRC, rule.source);
        message.add(FRA_TABLE, rule.table);
        message.add(FRA_PRIORITY, rule_priority);
        message.add_byte(FRA_PROTOCOL, rule_protocol);
        [[maybe_unused]] const int error = routes.request(message);
    }
}

// A killed relay's rules stay behind; their interface is gone, or its index is ours now.
void remove_stale_rules(const Plan& plan, RouteSocket& routes) {
    remove_rules(routes, [&plan](int index) {
        std::array<char, IFNAMSIZ> name{};
        return index == plan.index ||
               ::if_indextoname(static_cast<unsigned>(index), name.data()) == nullptr;
    });
}

Done add_routes(const Plan& plan, RouteSocket& routes) {
    const auto failed = [&plan](const std::string& what, int error) {
        return wrong("the route of " + plan.options.name + " " + what + " cannot be set" +
                     reason(error));
    };
    for (const InterfaceAddress& own : plan.addresses) {
        if (own.address.is_link_local()) {
            continue;  // every interface has that network; the kernel asks for the interface then
        }
        const Route local{.network = own.address.network(own.prefix_bits),
                          .prefix_bits = own.prefix_bits,
                          .gateway = std::nullopt,
                          .table = plan.table()};
        if (const int error = add_route(plan, local, routes); error != 0 && error != EEXIST) {
            return failed("to the network of " + own.text, error);
        }
        if (const int error = add_rule(plan, own, routes); error != 0) {
            return failed("for answers from " + own.text, error);
        }
    }
    for (std::size_t which = 0; which < plan.gateways.size(); ++which) {
        Route to_all{.network = {.family = plan.gateways[which].family, .bytes = {}},
                     .prefix_bits = 0,
                     .gateway = plan.gateways[which],
                     .table = plan.table()};
        int error = add_route(plan, to_all, routes);
        to_all.table = RT_TABLE_MAIN;
        // Two ports: the second one's waits behind the first one's.
        to_all.metric = last_resort_metric + static_cast<std::uint32_t>(plan.index);
        error = error != 0 ? error : add_route(plan, to_all, routes);
        if (error != 0) {
            return failed("through gateway " + plan.options.gateways[which], error);
        }
    }
    return {};
}

Done configure(const Plan& plan, RouteSocket& routes) {
    const std::string& name = plan.options.name;
    if (const int error = bring_up(plan, routes); error != 0) {
        return wrong("the kernel does not take MAC and MTU " +
                     std::to_string(plan.options.mtu_bytes) + " for " + name + reason(error));
    }
    // Superframes and partial checksums would reach the wire as they are. Of what is listed here a
    // TAP has, without TUNSETOFFLOAD, only the software segmentation and GRO.
    const auto stayed = EthernetFeatures(name).switch_off(
        {"tx-checksum-", "rx-checksum", "tx-tcp", "tx-udp-segmentation", "tx-generic-segmentation",
         "rx-gro", "rx-lro", "tx-scatter-gather"});
    if (!stayed.empty()) {
        return wrong("the kernel does not switch off " + stayed.front() + " of " + name +
                     ", so frames could leave without a checksum; use another kernel");
    }
    for (const InterfaceAddress& own : plan.addresses) {
        if (const int error = add_address(plan, own, routes); error != 0) {
            const bool no_v6 = own.address.family == AF_INET6 && error == EACCES;
            return wrong("address " + own.text + " cannot be set on " + name + reason(error) +
                         (no_v6 ? "; IPv6 is switched off (sysctl net.ipv6.conf.default."
                                  "disable_ipv6): switch it on, or leave the address out"
                                : ""));
        }
    }
    remove_stale_rules(plan, routes);
    return add_routes(plan, routes);
}

}  // namespace

std::expected<std::unique_ptr<ExceptionInterface>, std::string> make_exception_interface(
    const ExceptionInterfaceOptions& options) {
    Plan plan{.options = options, .addresses = {}, .gateways = {}};
    if (auto checked = check_options(plan); !checked) {
        return std::unexpected(checked.error());
    }
    RouteSocket routes;
    if (auto free = check_free(plan, routes); !free) {
        return std::unexpected(free.error());
    }
    const auto descriptor = open_tap(options.name);
    if (!descriptor) {
        return std::unexpected(descriptor.error());
    }
    std::unique_ptr<ExceptionInterface> made(new ExceptionInterface);
    made->descriptor_ = *descriptor;
    made->index_ = static_cast<int>(::if_nametoindex(options.name.c_str()));
    made->mtu_bytes_ = options.mtu_bytes;
    made->name_ = options.name;
    plan.index = made->index_;
    for (const auto& own : plan.addresses) {
        made->networks_.push_back({own.address.network(own.prefix_bits), own.prefix_bits});
    }
    if (auto configured = configure(plan, routes); !configured) {
        return std::unexpected(configured.error());
    }
    return made;
}

ExceptionInterface::~ExceptionInterface() {
    RouteSocket routes;
    remove_rules(routes, [this](int index) { return index == index_; });
    ::close(descriptor_);
}

bool ExceptionInterface::is_on_link(const NetworkAddress& address) const {
    return address.is_link_local() || std::ranges::any_of(networks_, [&](const Network& network) {
               return address.family == network.base.family &&
                      address.network(network.prefix_bits) == network.base;
           });
}

std::size_t ExceptionInterface::read(std::span<std::byte> buffer) {
    BORE_CHECK(buffer.size() >= max_frame_bytes(), "a TAP device cuts what does not fit");
    const ssize_t size = ::read(descriptor_, buffer.data(), buffer.size());
    if (size > 0) {
        ++counters_.read_frames;
        return static_cast<std::size_t>(size);
    }
    if (size < 0 && errno != EAGAIN && errno != EINTR) {
        counters_.latest_error = errno;
        ++counters_.read_errors;
    }
    return 0;
}

bool ExceptionInterface::write(std::span<const std::byte> frame) {
    const ssize_t size = ::write(descriptor_, frame.data(), frame.size());
    if (size == static_cast<ssize_t>(frame.size())) {
        ++counters_.written_frames;
        return true;
    }
    counters_.latest_error = size < 0 ? errno : EMSGSIZE;
    ++counters_.write_errors;
    return false;
}

}  // namespace bore::drivers
