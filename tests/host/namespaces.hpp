// Network namespaces for the tests of the kernel's side: each test gets a fresh one for itself and
// opens more where it needs a far end. Nothing here has a name outside of the process; the kernel
// removes a namespace with its last socket.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bore::drivers::testing {

// What a shell command writes, both streams.
[[nodiscard]] std::string output_of(const std::string& command);
// A command of a test's preparation; a failure of it fails the test.
void must_run(const std::string& command);

// Both ends of a cable are up; the kernel takes up to a second until it uses them for IPv6.
void wait_until_up(const std::string& interface_name);

class Namespace {
  public:
    // Makes one and leaves the calling thread where it was.
    Namespace();
    ~Namespace();
    Namespace(const Namespace&) = delete;
    Namespace& operator=(const Namespace&) = delete;

    // Moves the thread there for the length of `work`. Sockets stay where they were made.
    void run(const std::function<void()>& work) const;
    // For the commands of `ip`, while this process lives.
    [[nodiscard]] std::string path() const {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(descriptor_);
    }

  private:
    int descriptor_;
};

// Skips, and says why, where the kernel permits no namespace or no TAP device.
class HostTest : public ::testing::Test {
  protected:
    void SetUp() override;
};

// A packet socket on an interface of the present namespace.
class Sniffer {
  public:
    explicit Sniffer(const std::string& interface_name);
    ~Sniffer();
    Sniffer(const Sniffer&) = delete;
    Sniffer& operator=(const Sniffer&) = delete;

    struct Seen {
        bool outgoing{false};  // sent by this machine
        std::vector<std::uint8_t> bytes;
    };
    // What came since, waiting until nothing came for `quiet`.
    [[nodiscard]] std::vector<Seen> frames(
        std::chrono::milliseconds quiet = std::chrono::milliseconds(100)) const;
    [[nodiscard]] bool send(const std::vector<std::uint8_t>& frame) const;

  private:
    int socket_;
};

// Runs `work` in a child process; what it returns is the child's exit code, 0 = as expected.
// Children print what went wrong on stderr.
[[nodiscard]] int exit_code_of(const std::function<int()>& work);
// Gives up every capability of the calling process; for children only.
void give_up_everything();

// "00 11 22" as bytes; blanks do not matter.
[[nodiscard]] std::vector<std::uint8_t> hex(const std::string& text);

}  // namespace bore::drivers::testing
