// What the kernel alone asks for a hand-off: the system calls of one, in its order, on loopback
// connections and nothing else in between. The second thing that the hand-offs of the relay are
// compared with.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <vector>

#include "bench/packet/modes.hpp"
#include "drivers/kernel/tcp_repair.hpp"

namespace bore::bench {
namespace {

struct Connection {
    int relay;  // the end that is handed off
    int peer;
};
// Both legs of a pair.
using Pair = std::array<Connection, 2>;

struct Costs {
    double snapshots{0};
    double closes{0};
};

double processor_us() {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) * 1e6 + static_cast<double>(used.tv_nsec) / 1e3;
}

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

int listen_on_loopback(sockaddr_in& address) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener, 4096) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        fail("listen");
    }
    return listener;
}

Connection connect_to(int listener, const sockaddr_in& address) {
    const int peer = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer < 0 ||
        ::connect(peer, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        fail("connect");
    }
    const int relay = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (relay < 0) {
        fail("accept");
    }
    return {relay, peer};
}

// The calls of a hand-off, `at_once` pairs a step as the slow path makes them.
void hand_off(std::vector<Pair>& pairs, std::size_t at_once, Costs& costs) {
    bool fine = true;
    for (std::size_t first = 0; first < pairs.size(); first += at_once) {
        const auto batch = std::span(pairs).subspan(first, std::min(at_once, pairs.size() - first));
        const auto each = [&](double& cost, const auto& call) {
            const double before = processor_us();
            for (const Pair& pair : batch) {
                for (const Connection& leg : pair) {
                    fine = call(leg.relay) && fine;
                }
            }
            cost += processor_us() - before;
        };
        // Numbers as good as any: what they are makes no difference to the kernel.
        each(costs.snapshots, [](int socket) {
            return drivers::snapshot(socket, packet::SocketOrigin{}).has_value();
        });
        each(costs.closes, [](int socket) {
            drivers::close_silently(socket);
            return true;
        });
    }
    if (!fine) {
        fail("a call of a hand-off (CAP_NET_ADMIN?)");
    }
}

}  // namespace

int run_handoff_calls(const HandoffCallsOptions& options) {
    sockaddr_in address{};
    const int listener = listen_on_loopback(address);
    std::vector<Pair> pairs;
    for (std::uint32_t index = 0; index < options.pair_count; ++index) {
        pairs.push_back({connect_to(listener, address), connect_to(listener, address)});
    }
    Costs costs;
    hand_off(pairs, options.at_once, costs);
    for (const Pair& pair : pairs) {
        for (const Connection& leg : pair) {
            ::close(leg.peer);
        }
    }
    ::close(listener);
    const double count = options.pair_count;
    const double total = costs.snapshots + costs.closes;
    std::printf(
        "{\"pairs\": %u, \"snapshots_us\": %.3f, "
        "\"closes_us\": %.3f, \"total_us\": %.3f}\n",
        options.pair_count, costs.snapshots / count, costs.closes / count, total / count);
    return 0;
}

}  // namespace bore::bench
