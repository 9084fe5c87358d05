// The segment from its writer to its reader: every value arrives, rows start at zero for every
// tunnel, and what is not a whole segment of this build is refused by name.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "dataplane/abi/segment_reader.hpp"
#include "dataplane/abi/statistics.hpp"

namespace bore::abi {
namespace {

class Segment : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = "/dev/shm/segment-test-XXXXXX";
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        directory_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    [[nodiscard]] SegmentOptions options(const std::string& id = "one") const {
        return {.name = std::string(segment_prefix) + id, .directory = directory_};
    }
    [[nodiscard]] std::string path(const std::string& id = "one") const {
        return directory_ + "/" + std::string(segment_prefix) + id;
    }
    [[nodiscard]] Statistics published(const SegmentShape& shape = {.worker_count = 2,
                                                                    .tunnel_capacity = 16}) const {
        auto statistics = Statistics::shared(shape, options());
        EXPECT_TRUE(statistics.has_value()) << statistics.error();
        SegmentIdentity identity{.process_id = 42, .started_monotonic_ns = base::monotonic_now()};
        set_text(identity.server_id, "one");
        statistics->describe(identity);
        statistics->set_configuration("min_port = 1024\n");
        const auto named = statistics->publish();
        EXPECT_TRUE(named.has_value()) << named.error().sentence;
        return std::move(*statistics);
    }
    [[nodiscard]] Snapshot snapshot() const {
        auto read = SegmentReader(path()).read();
        EXPECT_TRUE(read.has_value()) << read.error().text;
        return read.value_or(Snapshot{});
    }

    std::string directory_;
};

TunnelDescription tunnel_on(std::uint16_t port) {
    TunnelDescription description{.port = port, .state = TunnelState::live};
    set_text(description.client_address, "198.51.100.7");
    return description;
}

TEST_F(Segment, WhatIsWrittenIsRead) {
    Statistics statistics = published(
        {.worker_count = 2, .tunnel_capacity = 16, .packet = {.worker_count = 1, .port_count = 1}});
    statistics.control().set(ControlCounter::tunnels_live, 3);
    statistics.control_histograms().record(ControlHistogram::pairing_ns, 2'000);
    statistics.worker(1).add(WorkerCounter::pairs_opened_total, 7);
    statistics.worker_histograms(1).record(WorkerHistogram::loop_events, 4);
    statistics.packet_worker(0).add(PacketWorkerCounter::packets_sent_total, 8);
    statistics.slow_path().add(SlowPathCounter::handoffs_total, 9);
    statistics.port(0).add(PortCounter::port_missed_total, 10);
    statistics.begin_tunnel(2, tunnel_on(7000));
    statistics.tunnel_description(2).visitors_live.store(5);
    statistics.tunnel(0, 2).add(TunnelCounter::to_client_bytes_total, 100);
    statistics.tunnel(1, 2).add(TunnelCounter::to_client_bytes_total, 20);
    statistics.slow_path_rows()[2].add(TunnelCounter::to_client_bytes_total, 3);

    const Snapshot seen = snapshot();
    EXPECT_EQ(text_of(seen.identity.server_id), "one");
    EXPECT_EQ(seen.identity.process_id, 42U);
    EXPECT_EQ(seen.configuration, "min_port = 1024\n");
    EXPECT_TRUE(seen.writer_alive);
    EXPECT_FALSE(seen.stale_since.has_value());
    EXPECT_EQ(seen.control.get(ControlCounter::tunnels_live), 3U);
    const HistogramValues& pairing = seen.control_histograms.get(ControlHistogram::pairing_ns);
    EXPECT_EQ(pairing.count(), 1U);
    EXPECT_EQ(pairing.counts[1], 1U);  // 1,024 < 2,000 ≤ 2,048
    EXPECT_EQ(pairing.sum, 2'000U);
    ASSERT_EQ(seen.workers.size(), 2U);
    EXPECT_EQ(sum_of_counters(seen.workers).get(WorkerCounter::pairs_opened_total), 7U);
    EXPECT_EQ(seen.workers[1].histograms.get(WorkerHistogram::loop_events).sum, 4U);
    EXPECT_EQ(seen.packet_workers.at(0).counters.get(PacketWorkerCounter::packets_sent_total), 8U);
    EXPECT_EQ(seen.slow_path.value().counters.get(SlowPathCounter::handoffs_total), 9U);
    EXPECT_EQ(seen.ports.at(0).counters.get(PortCounter::port_missed_total), 10U);

    ASSERT_EQ(seen.tunnels.size(), 3U);  // rows up to the highest one used
    EXPECT_EQ(seen.tunnels[0].description.state, TunnelState::none);
    const TunnelSnapshot& tunnel = seen.tunnels[2];
    EXPECT_EQ(tunnel.description.port, 7000U);
    EXPECT_EQ(tunnel.description.generation, 1U);
    EXPECT_EQ(text_of(tunnel.description.client_address), "198.51.100.7");
    EXPECT_EQ(tunnel.visitors_live, 5U);
    EXPECT_EQ(tunnel.stream.get(TunnelCounter::to_client_bytes_total), 120U);
    EXPECT_EQ(tunnel.packet.get(TunnelCounter::to_client_bytes_total), 3U);
    EXPECT_EQ(tunnel.total().get(TunnelCounter::to_client_bytes_total), 123U);
}

TEST_F(Segment, AReusedRowBeginsAtZero) {
    Statistics statistics = published();
    statistics.begin_tunnel(0, tunnel_on(7000));
    statistics.tunnel(0, 0).add(TunnelCounter::to_client_bytes_total, 1'000);
    statistics.tunnel(1, 0).add(TunnelCounter::to_visitor_bytes_total, 2'000);
    statistics.begin_tunnel(0, tunnel_on(7001));
    statistics.tunnel(1, 0).add(TunnelCounter::to_client_bytes_total, 5);
    const TunnelSnapshot tunnel = snapshot().tunnels.at(0);
    EXPECT_EQ(tunnel.description.generation, 2U);
    EXPECT_EQ(tunnel.description.port, 7001U);
    EXPECT_EQ(tunnel.total().get(TunnelCounter::to_client_bytes_total), 5U);
    EXPECT_EQ(tunnel.total().get(TunnelCounter::to_visitor_bytes_total), 0U);
}

TEST_F(Segment, HasNoNameBeforeItIsPublishedNorAfterItsEnd) {
    {
        auto statistics = Statistics::shared({}, options());
        ASSERT_TRUE(statistics.has_value()) << statistics.error();
        EXPECT_TRUE(list_segments(directory_).paths.empty());
        ASSERT_TRUE(statistics->publish());
        EXPECT_EQ(list_segments(directory_).paths, std::vector{path()});
        struct stat status{};
        ASSERT_EQ(::stat(path().c_str(), &status), 0);
        EXPECT_EQ(status.st_mode & 0777U, 0640U);
    }
    EXPECT_TRUE(list_segments(directory_).paths.empty());
    const auto read = SegmentReader(path()).read();
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().kind, SegmentError::Kind::missing);
}

TEST_F(Segment, ASecondRelayOfTheSameIdIsRefused) {
    const Statistics first = published();
    auto second = Statistics::shared({}, options());
    ASSERT_TRUE(second.has_value());
    const auto named = second->publish();
    ASSERT_FALSE(named);
    EXPECT_NE(named.error().sentence.find("server-id"), std::string::npos);
    EXPECT_FALSE(named.error().by_another_user);
    EXPECT_EQ(snapshot().identity.process_id, 42U);
}

TEST_F(Segment, WhatADeadRelayLeftIsReplaced) {
    {
        // A copy has no lock, as after a crash.
        const Statistics dead = published();
        std::filesystem::copy_file(path(), path("copy"));
    }
    std::filesystem::rename(path("copy"), path());
    const Snapshot left = snapshot();
    EXPECT_FALSE(left.writer_alive);
    EXPECT_EQ(left.stale_since, left.identity.started_monotonic_ns);
    const Statistics next = published();
    const Snapshot seen = snapshot();
    EXPECT_TRUE(seen.writer_alive);
    EXPECT_NE(seen.instance_id, left.instance_id);
}

// ---- Whose it is. With a second user, which only root can be.

constexpr uid_t stranger = 64'001;
constexpr uid_t another = 64'002;

class SegmentOfAStranger : public Segment {
  protected:
    void SetUp() override {
        if (::geteuid() != 0) {
            GTEST_SKIP() << "a second user needs root";
        }
        Segment::SetUp();
        ASSERT_EQ(::chmod(directory_.c_str(), 01777), 0);
    }
    // What a stranger put under the relay's name: a whole segment, locked as a relay's is.
    [[nodiscard]] Statistics of_stranger() const {
        Statistics statistics = published();
        EXPECT_EQ(::chown(path().c_str(), stranger, stranger), 0);
        return statistics;
    }
    // What a relay left that ended without a word: the same without a lock.
    void left_by(uid_t owner) const {
        {
            const Statistics dead = published();
            std::filesystem::copy_file(path(), path("copy"));
        }
        ASSERT_EQ(::chown(path("copy").c_str(), owner, owner), 0);
        ASSERT_EQ(::chmod(path("copy").c_str(), 0640), 0);
        std::filesystem::rename(path("copy"), path());
    }
    // What a relay of root that becomes `nobody` asks for.
    [[nodiscard]] SegmentOptions for_nobody() const {
        SegmentOptions given = options();
        given.user = "nobody";
        return given;
    }
    // What publish() says to a relay of that user, or to one of root that becomes it.
    [[nodiscard]] std::string refusal_as(uid_t user) const { return refusal_as(user, options()); }
    [[nodiscard]] std::string refusal_as(uid_t user, const SegmentOptions& given) const {
        std::array<int, 2> answer{};
        EXPECT_EQ(::pipe(answer.data()), 0);
        const pid_t child = ::fork();
        if (child == 0) {
            std::string said = "no statistics";
            const auto become = [user] { return ::setresuid(user, user, user) == 0; };
            if (given.user || become()) {
                auto statistics = Statistics::shared({}, given);
                const auto named = statistics && (!given.user || become())
                                       ? statistics->publish()
                                       : std::unexpected(PublishError{});
                said = named ? "published"
                             : (named.error().by_another_user ? "runs on: " : "ends: ") +
                                   named.error().sentence;
            }
            (void)!::write(answer[1], said.data(), said.size());
            ::_exit(0);
        }
        ::close(answer[1]);
        std::array<char, 1'024> text{};
        const ssize_t size = ::read(answer[0], text.data(), text.size());
        ::close(answer[0]);
        ::waitpid(child, nullptr, 0);
        return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
    }
};

TEST_F(SegmentOfAStranger, IsNotBelievedUnlessItIsNamed) {
    const Statistics statistics = of_stranger();
    const SegmentList found = list_segments(directory_);
    EXPECT_TRUE(found.paths.empty());
    EXPECT_EQ(found.stranger_count, 1U);
    const auto refused = SegmentReader(path(), Owners::relays).read();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, SegmentError::Kind::stranger);
    EXPECT_NE(refused.error().text.find("uid 64001"), std::string::npos) << refused.error().text;
    const auto named = SegmentReader(path()).read();
    ASSERT_TRUE(named) << named.error().text;
    EXPECT_EQ(named->owner_uid, stranger);
    ASSERT_EQ(::symlink(path().c_str(), path("link").c_str()), 0);
    const auto link = SegmentReader(path("link"), Owners::relays).read();
    ASSERT_FALSE(link);
    EXPECT_EQ(link.error().kind, SegmentError::Kind::not_a_segment);
}

TEST_F(SegmentOfAStranger, IsRemovedByARelayOfRootWhereNobodyHoldsIt) {
    left_by(stranger);
    const std::uint64_t squatters = snapshot().instance_id;
    const Statistics relay = published();
    EXPECT_EQ(relay.memory().removed_of(), "uid 64001");
    const auto read = SegmentReader(path(), Owners::relays).read();
    ASSERT_TRUE(read) << read.error().text;
    EXPECT_EQ(read->owner_uid, 0U);
    EXPECT_NE(read->instance_id, squatters);
}

TEST_F(SegmentOfAStranger, ThatCannotBeLockedIsRemovedByARelayOfRoot) {
    ASSERT_EQ(::symlink("/etc/passwd", path().c_str()), 0);
    ASSERT_EQ(::lchown(path().c_str(), stranger, stranger), 0);
    EXPECT_EQ(published().memory().removed_of(), "uid 64001");
    ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
    ASSERT_EQ(::chown(path().c_str(), stranger, stranger), 0);
    EXPECT_EQ(published().memory().removed_of(), "uid 64001");
}

// A relay whose user readers do not believe lives all the same.
TEST_F(SegmentOfAStranger, ThatLivesKeepsItsNameAndRootRunsOn) {
    const Statistics live = of_stranger();
    const std::uint64_t instance = snapshot().instance_id;
    auto second = Statistics::shared({}, options());
    ASSERT_TRUE(second) << second.error();
    EXPECT_EQ(second->memory().removed_of(), "");
    const auto named = second->publish();
    ASSERT_FALSE(named);
    EXPECT_TRUE(named.error().by_another_user);
    EXPECT_TRUE(named.error().sentence.starts_with(path() + " belongs to uid 64001 and is in use"))
        << named.error().sentence;
    EXPECT_NE(named.error().sentence.find("another server-id"), std::string::npos);
    EXPECT_EQ(snapshot().instance_id, instance);
}

TEST_F(SegmentOfAStranger, ThatIsALiveRelayOfThePacketUserKeepsItsName) {
    auto live = Statistics::shared({}, for_nobody());
    ASSERT_TRUE(live) << live.error();
    ASSERT_TRUE(live->publish());
    const std::uint64_t instance = snapshot().instance_id;
    const std::string said = refusal_as(::getpwnam("nobody")->pw_uid, for_nobody());
    EXPECT_TRUE(said.starts_with("ends: another relay")) << said;
    EXPECT_EQ(snapshot().instance_id, instance);
}

// Once it has become that user, a relay could neither open nor remove what these left.
TEST_F(SegmentOfAStranger, ThatIsDeadMakesWayForARelayThatBecomesThePacketUser) {
    const uid_t nobody = ::getpwnam("nobody")->pw_uid;
    for (const uid_t dead : {uid_t{0}, stranger, nobody}) {
        left_by(dead);
        EXPECT_EQ(refusal_as(nobody, for_nobody()), "published") << dead;
        ASSERT_FALSE(std::filesystem::exists(path())) << "the relay's own, gone with it";
    }
}

TEST_F(SegmentOfAStranger, ThatIsRootsLiveRelayIsNotRemovedByOneThatBecomesThePacketUser) {
    const Statistics live = published();
    const std::uint64_t instance = snapshot().instance_id;
    const std::string said = refusal_as(::getpwnam("nobody")->pw_uid, for_nobody());
    EXPECT_TRUE(said.starts_with("runs on: " + path() + " belongs to user root (uid 0)")) << said;
    EXPECT_EQ(snapshot().instance_id, instance);
}

TEST_F(SegmentOfAStranger, IsWhatARelayGivesToTheUserThatItBecomes) {
    SegmentOptions given = for_nobody();
    given.group = "daemon";
    auto statistics = Statistics::shared({}, given);
    ASSERT_TRUE(statistics) << statistics.error();
    ASSERT_TRUE(statistics->publish());
    struct stat status{};
    ASSERT_EQ(::stat(path().c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, ::getpwnam("nobody")->pw_uid);
    EXPECT_EQ(status.st_gid, ::getgrnam("daemon")->gr_gid);
    EXPECT_EQ(status.st_mode & 0777U, 0640U);
    given.user = "no-such-user";
    const auto refused = Statistics::shared({}, given);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().find("no user \"no-such-user\""), std::string::npos);
}

TEST_F(SegmentOfAStranger, DoesNotKeepARelayFromRunning) {
    const Statistics squatter = of_stranger();
    for (const mode_t mode : {0600U, 0666U}) {  // what cannot be opened, what can
        ASSERT_EQ(::chmod(path().c_str(), mode), 0);
        const std::string said = refusal_as(another);
        EXPECT_TRUE(said.starts_with("runs on: " + path() + " belongs to uid 64001")) << said;
        EXPECT_NE(said.find("as root, remove it"), std::string::npos) << said;
    }
    EXPECT_EQ(refusal_as(stranger).substr(0, 6), "ends: ") << "a live relay of its own user";
    std::filesystem::remove(path());
    std::filesystem::create_directory(path());
    ASSERT_EQ(::chown(path().c_str(), stranger, stranger), 0);
    EXPECT_TRUE(refusal_as(another).starts_with("runs on: "));
    std::filesystem::remove(path());
    EXPECT_EQ(refusal_as(another), "published");
}

TEST_F(SegmentOfAStranger, ThatIsRootsLiveRelayIsSaidToBe) {
    const Statistics relay = published();
    const std::string said = refusal_as(another);
    EXPECT_TRUE(said.starts_with("runs on: " + path() + " belongs to user root (uid 0)")) << said;
    EXPECT_EQ(snapshot().identity.process_id, 42U);
}

// Who may only read a dead relay's file can lock it, but not as a relay does.
TEST_F(Segment, AReadLockOnWhatADeadRelayLeftDoesNotKeepItsSuccessorFromRunning) {
    {
        const Statistics dead = published();
        std::filesystem::copy_file(path(), path("copy"));
    }
    std::filesystem::rename(path("copy"), path());
    const int reader = ::open(path().c_str(), O_RDONLY | O_CLOEXEC);
    struct flock whole{};
    whole.l_type = F_RDLCK;
    whole.l_whence = SEEK_SET;
    ASSERT_EQ(::fcntl(reader, F_OFD_SETLK, &whole), 0);
    auto next = Statistics::shared({}, options());
    ASSERT_TRUE(next.has_value());
    const auto named = next->publish();
    ASSERT_FALSE(named);
    EXPECT_TRUE(named.error().by_another_user) << named.error().sentence;
    ::close(reader);
    EXPECT_TRUE(next->publish());
}

// A row that changes all the time: a reader never sees a mixture of two descriptions, nor counters
// of another generation. Thread sanitizers run this, too.
TEST_F(Segment, ARacingReaderSeesWholeRowsOnly) {
    Statistics statistics = published();
    statistics.begin_tunnel(0, tunnel_on(1));
    std::atomic<bool> done{false};
    std::thread writer([&] {
        for (std::uint32_t round = 2; !done.load(std::memory_order_relaxed); ++round) {
            // Everything of a tunnel follows from its port.
            TunnelDescription description = tunnel_on(static_cast<std::uint16_t>(round));
            description.to_client_bytes_per_second = description.port;
            set_text(description.bind_addresses, std::to_string(description.port));
            statistics.begin_tunnel(0, description);
            statistics.tunnel(0, 0).add(TunnelCounter::to_client_bytes_total, description.port);
        }
    });
    SegmentReader reader(path());
    std::uint32_t seen = 0;
    std::uint64_t generation = 0;
    for (int look = 0; look < 500; ++look) {
        const auto read = reader.read();
        ASSERT_TRUE(read.has_value()) << read.error().text;
        if (read->tunnels.empty()) {
            EXPECT_EQ(read->torn_row_count, 1U);
            continue;
        }
        const TunnelSnapshot& tunnel = read->tunnels.front();
        const std::uint16_t port = tunnel.description.port;
        if (tunnel.description.generation > 1) {
            EXPECT_EQ(text_of(tunnel.description.bind_addresses), std::to_string(port));
            EXPECT_EQ(tunnel.description.to_client_bytes_per_second, port);
        }
        const std::uint64_t counted = tunnel.total().get(TunnelCounter::to_client_bytes_total);
        EXPECT_TRUE(counted == 0 || counted == port) << counted << " of " << port;
        EXPECT_GE(tunnel.description.generation, generation);
        generation = tunnel.description.generation;
        ++seen;
    }
    done = true;
    writer.join();
    EXPECT_GT(seen, 0U);
}

TEST_F(Segment, OneCutShortWhileItIsReadIsAnError) {
    const Statistics statistics = published();
    std::filesystem::copy_file(path(), path("cut"));
    ASSERT_EQ(::truncate(path("cut").c_str(), 10'000), 0);
    const auto read = SegmentReader(path("cut")).read();
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().kind, SegmentError::Kind::truncated);
    EXPECT_NE(read.error().text.find("remove it"), std::string::npos) << read.error().text;
}

TEST_F(Segment, AFullDirectoryIsASentence) {
    const auto refused = Statistics::shared({}, {.name = "x", .directory = directory_ + "/none"});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().find("--stats off"), std::string::npos);
    const auto group =
        Statistics::shared({}, {.name = "x", .group = "no such group", .directory = directory_});
    ASSERT_FALSE(group);
    EXPECT_NE(group.error().find("no such group"), std::string::npos);
}

// 10,000 tunnels of 16 workers are read in some milliseconds; printed, not asserted.
TEST_F(Segment, TenThousandTunnels) {
    Statistics statistics = published({.worker_count = 16, .tunnel_capacity = 13'524});
    for (std::uint32_t row = 0; row < 10'000; ++row) {
        statistics.begin_tunnel(row, tunnel_on(static_cast<std::uint16_t>(row)));
        statistics.tunnel(row % 16, row).add(TunnelCounter::to_client_bytes_total, row);
    }
    SegmentReader reader(path());
    std::uint64_t sum = 0;
    double best_ms = 1e9;  // of processor time
    for (int round = 0; round < 5; ++round) {
        const std::clock_t begin = std::clock();
        const auto read = reader.read();
        best_ms = std::min(best_ms, 1e3 * static_cast<double>(std::clock() - begin) /
                                        static_cast<double>(CLOCKS_PER_SEC));
        ASSERT_TRUE(read.has_value()) << read.error().text;
        ASSERT_EQ(read->tunnels.size(), 10'000U);
        sum = 0;
        for (const TunnelSnapshot& tunnel : read->tunnels) {
            sum += tunnel.total().get(TunnelCounter::to_client_bytes_total);
        }
    }
    EXPECT_EQ(sum, 10'000U * 9'999 / 2);
    std::printf("10,000 tunnels, 16 workers: %zu bytes, read in %.1f ms\n",
                statistics.memory().size_bytes(), best_ms);
}

}  // namespace
}  // namespace bore::abi
