// Which relay is meant, over folders with real segments and sockets.
#include "controlplane/ctl/relays.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <list>

#include "controlplane/ctl/control_client.hpp"
#include "dataplane/abi/statistics.hpp"

namespace bore::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Relays : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = "/dev/shm/ctl-test-XXXXXX";
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
        places_ = {.segments = folder_, .sockets = {folder_ + "/none", folder_}};
    }
    void TearDown() override {
        relays_.clear();
        for (const int socket : sockets_) {
            ::close(socket);
        }
        std::filesystem::remove_all(folder_);
    }

    // A relay that runs, as far as its segment tells.
    void start(const std::string& id, const std::string& configuration = "") {
        auto made = abi::Statistics::shared(
            {.worker_count = 1, .tunnel_capacity = 4},
            {.name = std::string(abi::segment_prefix) + id, .group = {}, .directory = folder_});
        ASSERT_TRUE(made) << made.error();
        abi::SegmentIdentity identity{.process_id = static_cast<std::uint64_t>(::getpid())};
        abi::set_text(identity.server_id, id);
        made->describe(identity);
        made->set_configuration(configuration);
        relays_.push_back(std::move(*made));
        ASSERT_TRUE(relays_.back().publish());
    }
    std::string listen(const std::string& name) {
        std::string path = folder_ + "/" + name;
        const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        EXPECT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(socket, 4), 0);
        sockets_.push_back(socket);
        return path;
    }
    [[nodiscard]] std::string chosen(const std::string& wanted = "") const {
        const auto relay = choose_relay(places_, wanted);
        return relay ? relay->id : relay.error();
    }

    std::string folder_;
    Places places_;
    std::list<abi::Statistics> relays_;
    std::vector<int> sockets_;
};

TEST_F(Relays, NoneIsSaid) {
    EXPECT_THAT(chosen(), AllOf(HasSubstr("no relay runs"), HasSubstr("start bore-server")));
    EXPECT_THAT(chosen("eu-1"), HasSubstr("eu-1"));
}

TEST_F(Relays, TheOnlyOneIsMeant) {
    start("eu-1");
    EXPECT_EQ(chosen(), "eu-1");
    EXPECT_EQ(chosen("eu-1"), "eu-1");
}

TEST_F(Relays, SeveralAreListed) {
    start("eu-1");
    start("us-1");
    EXPECT_THAT(chosen(), AllOf(HasSubstr("eu-1, us-1"), HasSubstr("--relay ID")));
    EXPECT_EQ(chosen("us-1"), "us-1");
    EXPECT_THAT(chosen("asia"), AllOf(HasSubstr("asia"), HasSubstr("eu-1, us-1")));
}

TEST_F(Relays, WhatADeadOneLeftIsInNobodysWay) {
    start("dead");
    // As a killed process leaves it: the file is there, its lock is not.
    std::filesystem::copy(folder_ + "/bore-dead", folder_ + "/bore-old");
    relays_.clear();
    std::filesystem::rename(folder_ + "/bore-old", folder_ + "/bore-dead");
    EXPECT_EQ(chosen(), "dead") << "the only one that left something";
    start("live");
    EXPECT_EQ(chosen(), "live");
    EXPECT_EQ(chosen("dead"), "dead");
}

TEST_F(Relays, ASocketAloneIsARelayToo) {
    const std::string path = listen("quiet.sock");
    const auto relay = choose_relay(places_, "");
    ASSERT_TRUE(relay) << relay.error();
    EXPECT_EQ(relay->id, "quiet");
    EXPECT_EQ(relay->socket, path);
    EXPECT_EQ(relay->segment, "");
    start("quiet");
    const auto both = choose_relay(places_, "");
    ASSERT_TRUE(both) << both.error();
    EXPECT_EQ(both->socket, path);
    EXPECT_EQ(both->segment, folder_ + "/bore-quiet");
}

TEST_F(Relays, TheSocketOfAKilledRelayIsNone) {
    (void)listen("dead.sock");
    ::close(sockets_.back());
    sockets_.pop_back();
    EXPECT_THAT(chosen(), HasSubstr("no relay runs"));
}

TEST_F(Relays, TheConfigurationEchoNamesASocketElsewhere) {
    const std::string path = listen("elsewhere");
    start("eu-1", "min_port = 1\ncontrol_socket = \"" + path + "\"  # command line\n");
    const auto relay = choose_relay(places_, "eu-1");
    ASSERT_TRUE(relay);
    EXPECT_EQ(relay->socket, path);
}

TEST_F(Relays, APathIsTaken) {
    start("eu-1");
    const auto by_segment = choose_relay(places_, folder_ + "/bore-eu-1");
    ASSERT_TRUE(by_segment);
    EXPECT_EQ(by_segment->segment, folder_ + "/bore-eu-1");
    const std::string path = listen("some.sock");
    const auto by_socket = choose_relay(places_, path);
    ASSERT_TRUE(by_socket);
    EXPECT_EQ(by_socket->socket, path);
}

TEST_F(Relays, AStrangersSegmentIsNoRelayUnlessItsPathIsNamed) {
    if (::geteuid() != 0) {
        GTEST_SKIP() << "a second user needs root";
    }
    const std::string path = listen("strangers");
    start("eu-1");
    start("us-1", "control_socket = \"" + path + "\"\n");
    constexpr uid_t stranger = 64'001;
    ASSERT_EQ(::chown((folder_ + "/bore-us-1").c_str(), stranger, stranger), 0);
    EXPECT_EQ(chosen(), "eu-1") << "it is not one of several";
    std::filesystem::remove(folder_ + "/bore-eu-1");
    EXPECT_THAT(chosen(), AllOf(HasSubstr("no relay runs"), HasSubstr("1 files of users")));
    const auto wanted = choose_relay(places_, "us-1");
    ASSERT_TRUE(wanted) << wanted.error();
    EXPECT_EQ(wanted->socket, "") << "what it says of a socket is not believed";
    EXPECT_EQ(wanted->owners, abi::Owners::relays);
    const auto read = abi::SegmentReader(wanted->segment, wanted->owners).read();
    ASSERT_FALSE(read);
    EXPECT_THAT(read.error().text, AllOf(HasSubstr("uid 64001"), HasSubstr("--relay " + folder_)));
    const auto by_path = choose_relay(places_, folder_ + "/bore-us-1");
    ASSERT_TRUE(by_path) << by_path.error();
    EXPECT_EQ(by_path->owners, abi::Owners::anybody);
    EXPECT_TRUE(abi::SegmentReader(by_path->segment, by_path->owners).read());
}

TEST(Configuration, SocketOfTheEcho) {
    EXPECT_EQ(socket_of_configuration(""), "");
    EXPECT_EQ(socket_of_configuration("control_socket = \"auto\""), "");
    EXPECT_EQ(socket_of_configuration("control_socket = \"/a/b\""), "/a/b");
    EXPECT_EQ(socket_of_configuration("x = 1\ncontrol_socket = \"/a"), "/a");
    EXPECT_EQ(socket_of_configuration("#control_socket = \"/a\""), "");
}

TEST_F(Relays, AskingNobodySaysWhatToDo) {
    const auto answer = ask(folder_ + "/none.sock", command::Ping{});
    ASSERT_FALSE(answer);
    EXPECT_THAT(answer.error(), AllOf(HasSubstr("none.sock"), HasSubstr("start the relay")));
    EXPECT_FALSE(ask(std::string(200, 'x'), command::Ping{}));
}

}  // namespace
}  // namespace bore::ctl
