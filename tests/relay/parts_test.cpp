// Small parts: log lines, timers, notices to the service manager, what a descriptor limit allows.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "controlplane/relay/descriptor.hpp"
#include "controlplane/relay/descriptor_limit.hpp"
#include "controlplane/relay/log.hpp"
#include "controlplane/relay/service_manager.hpp"
#include "controlplane/relay/sockets.hpp"
#include "controlplane/relay/timers.hpp"

namespace bore::relay {
namespace {

TEST(Log, TextQuotesWhatWouldNotReadAsOneWord) {
    const std::vector<LogField> fields{{"port", std::uint16_t{80}}, {"word", "plain"},
                                       {"text", "two words"},       {"empty", ""},
                                       {"forged", "a\nb\"c"},       {"seconds", 1.5}};
    EXPECT_EQ(format_log_text("it happened", fields),
              "it happened port=80 word=plain text=\"two words\" empty=\"\" "
              "forged=\"a\\u000ab\\\"c\" seconds=1.500");
}

TEST(Log, JsonIsTheInsideOfAnObject) {
    const std::vector<LogField> fields{{"port", std::uint16_t{80}}, {"text", "a\"\\\x01"}};
    EXPECT_EQ(format_log_json("it \"happened\"", fields),
              R"("message":"it \"happened\"","port":80,"text":"a\"\\\u0001")");
}

TEST(Log, LinesPerVisitorAreSampledAndCounted) {
    abi::ControlCounters counters;
    Log log({.level = config::LogLevel::info, .visitor_lines_per_second = 3});
    log.count_dropped_in(counters);
    int written = 0;
    for (int i = 0; i < 100; ++i) {
        written += log.sample() ? 1 : 0;
    }
    EXPECT_GE(written, 3);
    EXPECT_LE(written, 6) << "a second may have begun meanwhile";
    EXPECT_EQ(counters.get(abi::ControlCounter::log_lines_dropped_total),
              static_cast<std::uint64_t>(100 - written));
    log.configure({.level = config::LogLevel::warning, .visitor_lines_per_second = 3});
    EXPECT_FALSE(log.sample()) << "nobody would see the line";
}

struct Alarm {
    Alarm(boost::asio::io_context& io_, Timers& timers_) : io(io_), timers(timers_) {}
    void due() {
        fired_at = base::monotonic_now();
        if (++count == 3) {
            timers.stop();
        } else {
            timers.arm_after(timer, 20 * base::millisecond_ns);
        }
    }
    boost::asio::io_context& io;
    Timers& timers;
    int count{0};
    base::Nanoseconds fired_at{0};
    Timer timer{Timer::calling<&Alarm::due>(this)};
};

TEST(Timers, FireLateByTicksAndNeverEarly) {
    boost::asio::io_context io;
    Timers timers(io);
    Alarm alarm(io, timers);
    const base::Nanoseconds start = base::monotonic_now();
    timers.arm(alarm.timer, start + base::second_ns);
    timers.arm(alarm.timer, start + 20 * base::millisecond_ns);  // earlier than first said
    io.run();
    EXPECT_EQ(alarm.count, 3);
    EXPECT_GE(alarm.fired_at - start, 60 * base::millisecond_ns);
    EXPECT_LE(alarm.fired_at - start, 500 * base::millisecond_ns);
}

TEST(ServiceManager, SpeaksToAPathAndToAnAbstractName) {
    for (const std::string& name : {"/tmp/bore-notify-test-" + std::to_string(::getpid()),
                                    "@bore-notify-test-" + std::to_string(::getpid())}) {
        const Descriptor listener(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        name.copy(address.sun_path, sizeof address.sun_path - 1);
        if (name[0] == '@') {
            address.sun_path[0] = '\0';
        }
        ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address),
                         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())),
                  0);
        ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
        ::setenv("WATCHDOG_USEC", "30000000", 1);
        ServiceManager manager;
        ::unsetenv("NOTIFY_SOCKET");
        ::unsetenv("WATCHDOG_USEC");
        EXPECT_EQ(manager.watchdog_timeout(), 30 * base::second_ns);
        manager.ready("fine");
        manager.alive();
        std::array<char, 100> text{};
        EXPECT_GT(::recv(listener.get(), text.data(), text.size(), MSG_DONTWAIT), 0);
        EXPECT_STREQ(text.data(), "READY=1\nSTATUS=fine");
        text = {};
        EXPECT_GT(::recv(listener.get(), text.data(), text.size(), MSG_DONTWAIT), 0);
        EXPECT_STREQ(text.data(), "WATCHDOG=1");
        ::unlink(name.c_str());
    }
}

TEST(ServiceManager, IsSilentWithoutOne) {
    ServiceManager manager;
    manager.ready("nobody listens");
    EXPECT_FALSE(manager.watchdog_timeout().has_value());
}

TEST(DescriptorLimit, SetsWhatIsAskedForAndSaysWhatItAllows) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const DescriptorLimit limit = raise_descriptor_limit(512);
    EXPECT_EQ(limit.count, 512U);
    EXPECT_EQ(limit.wanted, 512U);
    EXPECT_EQ(limit.pairs(1), 128U) << "half of few descriptors is kept for the rest";
    EXPECT_EQ(limit.tunnels(3, 1), 64U);
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_GE(raise_descriptor_limit(0).count, before.rlim_cur);
    ::setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_EQ((DescriptorLimit{.count = 200'000, .wanted = 0}.pairs(2)),
              (200'000 - 64 - 2048) / 2U);
}

TEST(Sockets, AnIPv6WildcardServesIPv4OnlyWhereNoIPv4AddressIsListed) {
    const auto v6 = config::IpAddress::parse("::").value();
    const auto v4 = config::IpAddress::parse("0.0.0.0").value();
    const auto one = config::IpAddress::parse("2001:db8::1").value();
    EXPECT_FALSE(needs_only_v6(v6, std::vector{v6}));
    EXPECT_TRUE(needs_only_v6(v6, std::vector{v6, v4}));
    EXPECT_TRUE(needs_only_v6(one, std::vector{one}));
}

}  // namespace
}  // namespace bore::relay
