// System calls behind sockets.hpp.
#include "bench/load/sockets.hpp"

#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bore::bench {
namespace {

// With the ports of each, nearly two million connections.
constexpr std::uint32_t most_loopback_sources = 64;

// An option that cannot be set on a connection whose peer is gone already is none of our trouble.
void set_option(int descriptor, int level, int name, int value) {
    if (::setsockopt(descriptor, level, name, &value, sizeof value) != 0 && errno != EINVAL) {
        die_errno("setsockopt");
    }
}

const sockaddr* as_sockaddr(const sockaddr_storage& storage) {
    return reinterpret_cast<const sockaddr*>(&storage);
}

Endpoint look_up(const std::string& text, const std::string& host, const char* port, int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags;
    addrinfo* found = nullptr;
    const int verdict = ::getaddrinfo(host.c_str(), port, &hints, &found);
    if (verdict != 0) {
        die("cannot resolve '" + text + "': " + ::gai_strerror(verdict), status_usage);
    }
    Endpoint endpoint;
    std::memcpy(&endpoint.address, found->ai_addr, found->ai_addrlen);
    endpoint.length = found->ai_addrlen;
    endpoint.text = text;
    ::freeaddrinfo(found);
    return endpoint;
}

std::string without_brackets(const std::string& host) {
    const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
    return bracketed ? host.substr(1, host.size() - 2) : host;
}

}  // namespace

void die(const std::string& what, int status) {
    std::fprintf(stderr, "bore-load: %s\n", what.c_str());
    std::exit(status);
}

void die_errno(const std::string& what) {
    die(what + ": " + std::strerror(errno));
}

Endpoint resolve(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
        die("'" + text + "' is not HOST:PORT; write for example 127.0.0.1:80 or [::1]:80",
            status_usage);
    }
    const std::string port = text.substr(colon + 1);
    // getaddrinfo would take 65536 for 0.
    if (port.size() > 5 ||
        !std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; }) ||
        std::stoul(port) > 65'535) {
        die("'" + text + "': the port is a number from 0 to 65535", status_usage);
    }
    return look_up(text, without_brackets(text.substr(0, colon)), port.c_str(), AI_NUMERICSERV);
}

Endpoint resolve_source(const std::string& text) {
    return look_up(text, without_brackets(text), nullptr, AI_NUMERICHOST);
}

Descriptor listen_on(const Endpoint& endpoint, bool shared, std::uint16_t& port) {
    Descriptor listener(
        ::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!listener.valid()) {
        die_errno("socket");
    }
    set_option(listener.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (shared) {
        set_option(listener.get(), SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (::bind(listener.get(), as_sockaddr(endpoint.address), endpoint.length) != 0) {
        die_errno("bind " + endpoint.text);
    }
    if (::listen(listener.get(), 4096) != 0) {
        die_errno("listen " + endpoint.text);
    }
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
        die_errno("getsockname");
    }
    // The port sits at the same place in sockaddr_in and sockaddr_in6.
    port = ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
    return listener;
}

std::expected<Descriptor, int> Dialer::dial() {
    for (std::uint32_t tried = 1;; ++tried) {
        const Endpoint* source = sources_.empty() ? nullptr : &sources_[next_++ % sources_.size()];
        std::expected<Descriptor, int> connection = dial_from(source);
        if (connection || connection.error() != EADDRNOTAVAIL || tried == most_loopback_sources ||
            !take_next_loopback_source()) {
            return connection;
        }
    }
}

std::expected<Descriptor, int> Dialer::dial_from(const Endpoint* source) const {
    Descriptor descriptor(
        ::socket(target_.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!descriptor.valid()) {
        return std::unexpected(errno);
    }
    set_option(descriptor.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (source != nullptr) {
        // The port is chosen by connect(), which may give the same one towards another target.
        set_option(descriptor.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        if (::bind(descriptor.get(), as_sockaddr(source->address), source->length) != 0) {
            return std::unexpected(errno);
        }
    }
    if (::connect(descriptor.get(), as_sockaddr(target_.address), target_.length) != 0 &&
        errno != EINPROGRESS) {
        return std::unexpected(errno);
    }
    return descriptor;
}

bool Dialer::take_next_loopback_source() {
    sockaddr_in address{};
    const bool chosen_by_user = !sources_.empty() && !has_loopback_source_;
    if (target_.address.ss_family != AF_INET || chosen_by_user) {
        return false;
    }
    std::memcpy(&address, &target_.address, sizeof address);
    if (ntohl(address.sin_addr.s_addr) >> 24 != 127) {
        return false;
    }
    // Round and round: the ports of the first are free again when the last has run out.
    loopback_source_ = (loopback_source_ + 1) % most_loopback_sources;
    has_loopback_source_ = true;
    address.sin_port = 0;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + loopback_source_);
    Endpoint source;
    std::memcpy(&source.address, &address, sizeof address);
    source.length = sizeof address;
    sources_ = {source};
    return true;
}

int connect_error(int descriptor) {
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
        return errno;
    }
    return error;
}

std::expected<Descriptor, int> accept_one(int listener) {
    Descriptor descriptor(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!descriptor.valid()) {
        return std::unexpected(errno);
    }
    set_option(descriptor.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    return descriptor;
}

void reset_on_close(int descriptor) {
    const linger reset{.l_onoff = 1, .l_linger = 0};
    if (::setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0) {
        die_errno("setsockopt SO_LINGER");
    }
}

void acknowledge_now(int descriptor) {
    set_option(descriptor, IPPROTO_TCP, TCP_QUICKACK, 1);
}

void require_descriptors(std::uint64_t needed) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        die_errno("getrlimit");
    }
    if (needed > limit.rlim_max) {
        // The privileged may.
        const rlimit higher{.rlim_cur = needed, .rlim_max = needed};
        if (::setrlimit(RLIMIT_NOFILE, &higher) == 0) {
            return;
        }
    }
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        die_errno("setrlimit");
    }
    if (needed > limit.rlim_max) {
        die("needs " + std::to_string(needed) + " descriptors, the hard limit is " +
            std::to_string(limit.rlim_max) + "; raise it with `ulimit -Hn`");
    }
}

}  // namespace bore::bench
