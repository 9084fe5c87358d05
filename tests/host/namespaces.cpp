// The helpers; system calls and a shell.
#include "tests/host/namespaces.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bore::drivers::testing {
namespace {

int present_namespace() {
    return ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

}  // namespace

std::string output_of(const std::string& command) {
    std::string text;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    std::array<char, 4096> buffer{};
    while (pipe != nullptr) {
        const std::size_t size = std::fread(buffer.data(), 1, buffer.size(), pipe);
        if (size == 0) {
            break;
        }
        text.append(buffer.data(), size);
    }
    if (pipe != nullptr) {
        ::pclose(pipe);
    }
    return text;
}

void must_run(const std::string& command) {
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

void wait_until_up(const std::string& interface_name) {
    for (int turn = 0; turn < 300; ++turn) {
        if (output_of("ip link show " + interface_name).find("state UP") != std::string::npos) {
            return;
        }
        ::usleep(10'000);
    }
    FAIL() << interface_name << " does not come up";
}

Namespace::Namespace() {
    const int home = present_namespace();
    EXPECT_EQ(::unshare(CLONE_NEWNET), 0);
    descriptor_ = present_namespace();
    must_run("ip link set lo up");
    EXPECT_EQ(::setns(home, CLONE_NEWNET), 0);
    ::close(home);
}

Namespace::~Namespace() {
    ::close(descriptor_);
}

void Namespace::run(const std::function<void()>& work) const {
    const int home = present_namespace();
    ASSERT_EQ(::setns(descriptor_, CLONE_NEWNET), 0);
    work();
    ASSERT_EQ(::setns(home, CLONE_NEWNET), 0);
    ::close(home);
}

void HostTest::SetUp() {
    if (::geteuid() != 0 || ::unshare(CLONE_NEWNET) != 0) {
        GTEST_SKIP() << "needs root and network namespaces";
    }
    if (::access("/dev/net/tun", R_OK | W_OK) != 0) {
        GTEST_SKIP() << "needs /dev/net/tun";
    }
    must_run("ip link set lo up");
}

Sniffer::Sniffer(const std::string& interface_name)
    : socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(interface_name.c_str()));
    EXPECT_NE(address.sll_ifindex, 0) << interface_name;
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
}

Sniffer::~Sniffer() {
    ::close(socket_);
}

std::vector<Sniffer::Seen> Sniffer::frames(std::chrono::milliseconds quiet) const {
    std::vector<Seen> seen;
    pollfd waiting{.fd = socket_, .events = POLLIN, .revents = 0};
    while (::poll(&waiting, 1, static_cast<int>(quiet.count())) > 0) {
        std::vector<std::uint8_t> buffer(70'000);
        sockaddr_ll from{};
        socklen_t from_size = sizeof from;
        const ssize_t size = ::recvfrom(socket_, buffer.data(), buffer.size(), 0,
                                        reinterpret_cast<sockaddr*>(&from), &from_size);
        if (size < 0) {
            break;
        }
        buffer.resize(static_cast<std::size_t>(size));
        seen.push_back({from.sll_pkttype == PACKET_OUTGOING, std::move(buffer)});
    }
    return seen;
}

bool Sniffer::send(const std::vector<std::uint8_t>& frame) const {
    return ::send(socket_, frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
}

int exit_code_of(const std::function<int()>& work) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::_exit(work());
    }
    int status = 0;
    if (child < 0 || ::waitpid(child, &status, 0) != child) {
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void give_up_everything() {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> data{};
    ::syscall(SYS_capset, &header, data.data());
}

std::vector<std::uint8_t> hex(const std::string& text) {
    std::vector<std::uint8_t> bytes;
    std::string digits;
    for (const char letter : text) {
        if (letter != ' ') {
            digits += letter;
        }
        if (digits.size() == 2) {
            bytes.push_back(static_cast<std::uint8_t>(std::stoi(digits, nullptr, 16)));
            digits.clear();
        }
    }
    return bytes;
}

}  // namespace bore::drivers::testing
