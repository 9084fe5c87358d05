// System calls behind sockets.hpp.
#include "bench/load/sockets.hpp"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bore::bench {
namespace {

void set_option(int descriptor, int level, int name, int value) {
    if (::setsockopt(descriptor, level, name, &value, sizeof value) != 0) {
        die_errno("setsockopt");
    }
}

const sockaddr* as_sockaddr(const sockaddr_storage& storage) {
    return reinterpret_cast<const sockaddr*>(&storage);
}

}  // namespace

void die(const std::string& what) {
    std::fprintf(stderr, "bore-load: %s\n", what.c_str());
    std::exit(1);
}

void die_errno(const std::string& what) {
    die(what + ": " + std::strerror(errno));
}

Endpoint resolve(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos) {
        die("'" + text + "' is not HOST:PORT");
    }
    std::string host = text.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int verdict = ::getaddrinfo(host.c_str(), text.c_str() + colon + 1, &hints, &found);
    if (verdict != 0) {
        die("cannot resolve '" + text + "': " + ::gai_strerror(verdict));
    }
    Endpoint endpoint;
    std::memcpy(&endpoint.address, found->ai_addr, found->ai_addrlen);
    endpoint.length = found->ai_addrlen;
    endpoint.text = text;
    ::freeaddrinfo(found);
    return endpoint;
}

Descriptor listen_on(const Endpoint& endpoint, std::uint16_t& port) {
    Descriptor listener(
        ::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!listener.valid()) {
        die_errno("socket");
    }
    set_option(listener.get(), SOL_SOCKET, SO_REUSEADDR, 1);
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

Descriptor start_connect(const Endpoint& endpoint) {
    Descriptor descriptor(
        ::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!descriptor.valid()) {
        die_errno("socket");
    }
    set_option(descriptor.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (::connect(descriptor.get(), as_sockaddr(endpoint.address), endpoint.length) != 0 &&
        errno != EINPROGRESS) {
        die_errno("connect " + endpoint.text);
    }
    return descriptor;
}

int connect_error(int descriptor) {
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
        return errno;
    }
    return error;
}

Descriptor connect_now(const Endpoint& endpoint) {
    Descriptor descriptor = start_connect(endpoint);
    pollfd wait{.fd = descriptor.get(), .events = POLLOUT, .revents = 0};
    if (::poll(&wait, 1, 10'000) != 1) {
        die("connect " + endpoint.text + ": no answer within 10 s");
    }
    if (const int error = connect_error(descriptor.get()); error != 0) {
        errno = error;
        die_errno("connect " + endpoint.text);
    }
    return descriptor;
}

Descriptor accept_one(int listener) {
    Descriptor descriptor(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (descriptor.valid()) {
        set_option(descriptor.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    } else if (errno == EMFILE || errno == ENFILE) {
        die_errno("accept");
    }
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
