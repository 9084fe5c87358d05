// Giving up privileges, each time in a child process: what is left must be enough for a hand-off
// and for nothing more, in every thread.
#include "drivers/kernel/privileges.hpp"

#include <fcntl.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <sstream>
#include <thread>

#include "drivers/kernel/tcp_repair.hpp"
#include "tests/host/namespaces.hpp"

namespace bore::drivers::testing {
namespace {

class PrivilegesTest : public HostTest {
  protected:
    void SetUp() override {
#if defined(__SANITIZE_THREAD__)
        GTEST_SKIP() << "the thread sanitizer has a thread that takes no signals";
#else
        HostTest::SetUp();
#endif
    }
};

// One line of a thread's status, without its name.
std::string status_line(const std::string& thread, const std::string& name) {
    std::ifstream file("/proc/self/task/" + thread + "/status");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with(name + ":")) {
            return line.substr(name.size() + 2);
        }
    }
    return "";
}

std::vector<std::string> threads() {
    std::istringstream names(output_of("ls /proc/" + std::to_string(::getpid()) + "/task"));
    std::vector<std::string> found;
    for (std::string name; names >> name;) {
        found.push_back(name);
    }
    return found;
}

// Says on stderr which check of a child failed.
int check(bool good, const char* what) {
    if (!good) {
        std::fprintf(stderr, "FAILED in the child: %s\n", what);
    }
    return good ? 0 : 1;
}

constexpr const char* only_net_admin = "0000000000001000";

int all_threads_are_reduced(std::size_t count) {
    const auto found = threads();
    int wrong = check(found.size() == count, "count of threads");
    for (const std::string& thread : found) {
        wrong += check(status_line(thread, "CapPrm") == only_net_admin, "CapPrm");
        wrong += check(status_line(thread, "CapEff") == only_net_admin, "CapEff");
        wrong += check(status_line(thread, "CapBnd") == only_net_admin, "CapBnd");
        wrong += check(status_line(thread, "CapInh") == "0000000000000000", "CapInh");
        wrong += check(status_line(thread, "CapAmb") == "0000000000000000", "CapAmb");
        wrong += check(status_line(thread, "NoNewPrivs") == "1", "NoNewPrivs");
    }
    return wrong;
}

int repair_works_and_the_rest_does_not() {
    const int tcp = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int wrong = check(set_repair(tcp, RepairMode::on), "TCP_REPAIR");
    ::close(tcp);
    wrong += check(::socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)) < 0 && errno == EPERM,
                   "a packet socket is refused");
    wrong += check(::mount("none", "/mnt", "tmpfs", 0, nullptr) != 0 && errno == EPERM,
                   "a mount is refused");
    return wrong;
}

// Threads that wait in a system call and one that only computes.
int with_threads(const std::function<int()>& work) {
    std::atomic<bool> over{false};
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
        return 99;
    }
    std::vector<std::thread> all;
    all.emplace_back([&] {
        while (!over) {
        }
    });
    for (int count = 0; count < 3; ++count) {
        all.emplace_back([&] {
            char byte = 0;
            // Goes on after the signal.
            while (::read(pipe[0], &byte, 1) < 0 && errno == EINTR) {
            }
        });
    }
    const int result = work();
    over = true;
    ::close(pipe[1]);
    for (std::thread& thread : all) {
        thread.join();
    }
    return result;
}

TEST_F(PrivilegesTest, EveryThreadKeepsNetAdminAndNothingElse) {
    EXPECT_EQ(exit_code_of([] {
                  return with_threads([] {
                      const auto dropped = drop_privileges({});
                      if (!dropped) {
                          std::fprintf(stderr, "%s\n", dropped.error().c_str());
                          return 98;
                      }
                      return all_threads_are_reduced(5) + repair_works_and_the_rest_does_not();
                  });
              }),
              0);
}

TEST_F(PrivilegesTest, BecomesAnotherUser) {
    EXPECT_EQ(exit_code_of([] {
                  return with_threads([] {
                      const auto dropped = drop_privileges({.user = "nobody"});
                      if (!dropped) {
                          std::fprintf(stderr, "%s\n", dropped.error().c_str());
                          return 98;
                      }
                      int wrong = all_threads_are_reduced(5);
                      for (const std::string& thread : threads()) {
                          wrong += check(status_line(thread, "Uid") == "65534\t65534\t65534\t65534",
                                         "Uid");
                          wrong += check(status_line(thread, "Gid") == "65534\t65534\t65534\t65534",
                                         "Gid");
                      }
                      return wrong + repair_works_and_the_rest_does_not();
                  });
              }),
              0);
}

// A thread started afterwards has no more than its parent, and a program run from it neither.
TEST_F(PrivilegesTest, NothingComesBack) {
    EXPECT_EQ(exit_code_of([] {
                  if (!drop_privileges({})) {
                      return 98;
                  }
                  int wrong = 0;
                  std::thread([&] { wrong += repair_works_and_the_rest_does_not(); }).join();
                  // Root's programs get all capabilities back, were it not for no_new_privs.
                  const std::string line = output_of("grep CapEff /proc/self/status");
                  return wrong + check(line.find(only_net_admin) != std::string::npos ||
                                           line.find("0000000000000000") != std::string::npos,
                                       line.c_str());
              }),
              0);
}

TEST_F(PrivilegesTest, NamesAThreadThatCannotBeReached) {
    EXPECT_EQ(exit_code_of([] {
                  std::atomic<bool> over{false};
                  std::atomic<bool> ready{false};
                  std::thread deaf([&] {
                      sigset_t all;
                      ::sigfillset(&all);
                      ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
                      ::pthread_setname_np(::pthread_self(), "deaf");
                      ready = true;
                      while (!over) {
                          ::usleep(1000);
                      }
                  });
                  while (!ready) {
                      ::usleep(1000);
                  }
                  const auto dropped = drop_privileges({});
                  over = true;
                  deaf.join();
                  return check(!dropped && dropped.error().find("deaf") != std::string::npos,
                               dropped ? "it was given up" : dropped.error().c_str());
              }),
              0);
}

TEST_F(PrivilegesTest, NamesAUserThatIsNotThere) {
    EXPECT_EQ(exit_code_of([] {
                  const auto dropped = drop_privileges({.user = "no-such-user"});
                  return check(
                      !dropped && dropped.error().find("no-such-user") != std::string::npos,
                      "the error names the user");
              }),
              0);
}

TEST_F(PrivilegesTest, WithoutTheCapabilityItSaysSo) {
    EXPECT_EQ(exit_code_of([] {
                  give_up_everything();
                  return check(!drop_privileges({}), "nothing could be kept");
              }),
              0);
}

bool mentions(const std::vector<std::string>& sentences, const std::string& part) {
    return std::any_of(sentences.begin(), sentences.end(), [&](const std::string& sentence) {
        return sentence.find(part) != std::string::npos;
    });
}

TEST_F(PrivilegesTest, SaysWhatIsMissing) {
    EXPECT_TRUE(missing_privileges({.af_packet = true}).empty());
    EXPECT_EQ(exit_code_of([] {
                  give_up_everything();
                  const rlimit little{.rlim_cur = 65'536, .rlim_max = 65'536};
                  ::setrlimit(RLIMIT_MEMLOCK, &little);
                  const auto packet = missing_privileges({.af_packet = true});
                  const auto xdp = missing_privileges({.af_xdp = true});
                  return check(mentions(packet, "CAP_NET_ADMIN"), "CAP_NET_ADMIN") +
                         check(mentions(packet, "CAP_NET_RAW"), "CAP_NET_RAW") +
                         check(!mentions(packet, "CAP_BPF"), "no CAP_BPF for af_packet") +
                         check(mentions(xdp, "CAP_BPF"), "CAP_BPF") +
                         check(mentions(xdp, "LimitMEMLOCK=infinity"), "memory lock");
              }),
              0);
    EXPECT_EQ(exit_code_of([] {
                  if (::unshare(CLONE_NEWNS) != 0 ||
                      ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                      ::mount("none", "/dev", "tmpfs", 0, nullptr) != 0) {
                      return 98;
                  }
                  const auto missing = missing_privileges({.vfio = true});
                  return check(mentions(missing, "modprobe vfio-pci"), "VFIO") +
                         check(mentions(missing, "modprobe tun"), "TUN");
              }),
              0);
}

}  // namespace
}  // namespace bore::drivers::testing
