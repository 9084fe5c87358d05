// The control socket of a running relay: its file, its bounds, and what every command does.
#include "controlplane/relay/control_socket.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <vector>

#include "tests/relay/operator.hpp"
#include "tests/relay/running_relay.hpp"

namespace bore::relay::testing {
namespace {

using abi::ControlCounter;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

std::string error_of(const boost::json::object& answer) {
    const auto* const error = answer.if_contains("error");
    return error == nullptr ? boost::json::serialize(answer)
                            : std::string(error->as_string().c_str());
}

mode_t mode_of(const std::string& path) {
    struct stat status{};
    return ::lstat(path.c_str(), &status) == 0 ? status.st_mode : mode_t{0};
}

// ---- The file

TEST(SocketFile, HasItsModeAndGoesAtTheEnd) {
    const TemporaryFolder folder;
    const std::string path = folder.path("relay.sock");
    {
        const mode_t before = ::umask(0777);  // as a careful service's, or a careless one's
        const auto socket = SocketFile::open(path, "");
        ::umask(before);
        ASSERT_TRUE(socket) << socket.error().sentence;
        EXPECT_EQ(mode_of(path), mode_t{S_IFSOCK | 0660});
    }
    EXPECT_EQ(mode_of(path), mode_t{0});
    EXPECT_EQ(mode_of(path + ".new"), mode_t{0});
}

TEST(SocketFile, ALiveOneIsLeftAloneAndADeadOneReplaced) {
    const TemporaryFolder folder;
    const std::string path = folder.path("relay.sock");
    auto first = SocketFile::open(path, "");
    ASSERT_TRUE(first);
    const auto second = SocketFile::open(path, "");
    ASSERT_FALSE(second);
    EXPECT_TRUE(second.error().in_use);
    EXPECT_THAT(second.error().sentence, HasSubstr("server-id"));

    // A killed relay leaves its name behind and nobody who answers.
    ASSERT_EQ(::link(path.c_str(), folder.path("left").c_str()), 0);
    {
        const SocketFile ended = std::move(*first);
    }
    ASSERT_EQ(::rename(folder.path("left").c_str(), path.c_str()), 0);
    EXPECT_FALSE(Operator(path).connected());
    const auto third = SocketFile::open(path, "");
    ASSERT_TRUE(third) << third.error().sentence;
    EXPECT_TRUE(Operator(path).connected());
}

TEST(SocketFile, TheEndOfOneDoesNotTakeAnothersName) {
    const TemporaryFolder folder;
    const std::string path = folder.path("relay.sock");
    auto first = SocketFile::open(path, "");
    ASSERT_TRUE(first);
    ASSERT_EQ(::unlink(path.c_str()), 0);
    const auto second = SocketFile::open(path, "");
    ASSERT_TRUE(second);
    {
        const SocketFile ended = std::move(*first);
    }
    EXPECT_TRUE(Operator(path).connected());
}

TEST(SocketFile, WhatCannotBeSaysValueRuleAndRemedy) {
    const TemporaryFolder folder;
    const auto error = [](const std::string& path, const std::string& group) {
        const auto opened = SocketFile::open(path, group);
        return opened ? "opened" : opened.error().sentence;
    };
    EXPECT_THAT(error("relative", ""), HasSubstr("must begin with /"));
    EXPECT_THAT(error("/" + std::string(200, 'x'), ""), HasSubstr("at most 103"));
    EXPECT_THAT(error(folder.path("none/relay.sock"), ""), HasSubstr("make"));
    EXPECT_THAT(error(folder.path("a.sock"), "no-such-group"), HasSubstr("getent group"));
    std::ofstream(folder.path("file")) << "precious";
    EXPECT_THAT(error(folder.path("file"), ""), HasSubstr("no socket"));
    EXPECT_NE(mode_of(folder.path("file")), mode_t{0}) << "somebody's file stays";
}

// ---- Bounds

class ControlSocketTest : public ::testing::Test {
  protected:
    const TemporaryFolder folder_;
    const std::string path_{folder_.path("relay.sock")};
    RunningRelay relay_{[this](config::ServerConfig& config) { config.control_socket = path_; }};
};

TEST_F(ControlSocketTest, AnswersLineByLine) {
    Operator person(path_);
    ASSERT_TRUE(person.connected());
    person.send("{\"command\":\"ping\"}\n{\"command\":\"frobnicate\"}\n{\"comm");
    EXPECT_THAT(person.line(), HasSubstr(R"("ok":true)"));
    EXPECT_THAT(person.line(), HasSubstr("frobnicate"));
    person.send("and\":\"ping\"}\n");
    EXPECT_THAT(person.line(), HasSubstr(R"("state":"serving")"));
}

TEST_F(ControlSocketTest, ALineWithoutEndIsCutWithAReason) {
    Operator person(path_);
    person.send(std::string(command::max_request_bytes + 1, ' '));
    EXPECT_THAT(person.line(), HasSubstr("4096"));
    EXPECT_EQ(person.line(), "") << "closed behind it";
    Operator longest(path_);
    const std::string ping = R"({"command":"ping"})";
    longest.send(std::string(command::max_request_bytes - ping.size(), ' ') + ping + "\n");
    EXPECT_THAT(longest.line(), HasSubstr(R"("ok":true)"));
}

TEST_F(ControlSocketTest, OneConnectionTooManyIsToldSo) {
    std::vector<Operator> people;
    for (std::size_t index = 0; index < ControlSocket::max_connections; ++index) {
        people.emplace_back(path_);
        ASSERT_THAT(error_of(people.back().ask(R"({"command":"ping"})")), HasSubstr("serving"));
    }
    Operator late(path_);
    EXPECT_THAT(late.line(), HasSubstr("16 connections"));
    people.pop_back();
    EXPECT_TRUE(eventually([this] {
        Operator again(path_);
        return !again.ask(R"({"command":"ping"})").empty() && again.connected();
    }));
}

TEST_F(ControlSocketTest, AReaderThatTakesNothingHoldsUpNobody) {
    Operator slow(path_);
    const int small = 1;
    ::setsockopt(slow.socket(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    ::fcntl(slow.socket(), F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 20'000; ++i) {
        slow.send("{\"command\":\"ping\"}\n");
    }
    Operator quick(path_);
    EXPECT_THAT(error_of(quick.ask(R"({"command":"ping"})")), HasSubstr("serving"));
}

TEST_F(ControlSocketTest, TheEndOfTheRelayEndsConnectionsToo) {
    Operator person(path_);
    (void)person.ask(R"({"command":"ping"})");
    relay_.drain();
    EXPECT_EQ(person.line(), "");
    EXPECT_TRUE(relay_.ends_within(milliseconds(2000)));
}

// ---- Commands

TEST_F(ControlSocketTest, KillEndsATunnelItsVisitorsAndPairs) {
    TunnelPeer tunnel(relay_.port());
    Peer paired(tunnel.public_port());
    Peer data(relay_.port());
    data.send(accept(tunnel.next_visitor()));
    ASSERT_TRUE(eventually([this] { return relay_.engine.pair_count() == 1; }));
    Peer waiting(tunnel.public_port());
    (void)tunnel.next_visitor();

    Operator person(path_);
    const auto answer =
        person.ask(R"({"command":"kill","port":)" + std::to_string(tunnel.public_port()) + "}");
    ASSERT_TRUE(answer.contains("port")) << error_of(answer);
    EXPECT_EQ(answer.at("port").to_number<int>(), tunnel.public_port());
    EXPECT_EQ(answer.at("pairs").to_number<int>(), 1);
    EXPECT_EQ(answer.at("visitors_waiting").to_number<int>(), 1);
    EXPECT_TRUE(tunnel.closed());
    EXPECT_TRUE(paired.closed());
    EXPECT_TRUE(waiting.closed());
    EXPECT_FALSE(Peer(tunnel.public_port()).connected());
    EXPECT_TRUE(eventually([this] { return relay_.engine.closed_tunnels().size() == 1; }))
        << "its row is free";
}

TEST_F(ControlSocketTest, KillByIdReachesATunnelThatHasEndedButForItsPairs) {
    TunnelPeer tunnel(relay_.port());
    Peer visitor(tunnel.public_port());
    Peer data(relay_.port());
    data.send(accept(tunnel.next_visitor()));
    ASSERT_TRUE(eventually([this] { return relay_.engine.pair_count() == 1; }));
    tunnel.close();
    Operator person(path_);
    ASSERT_TRUE(eventually([&] { return relay_.count(ControlCounter::tunnels_live) == 0; }));
    EXPECT_THAT(error_of(person.ask(R"({"command":"kill","port":)" +
                                    std::to_string(tunnel.public_port()) + "}")),
                HasSubstr("no live tunnel"));
    EXPECT_TRUE(person.ask(R"({"command":"kill","id":"0.1"})").at("ok").as_bool());
    EXPECT_TRUE(visitor.closed());
    EXPECT_THAT(error_of(person.ask(R"({"command":"kill","id":"0.2"})")),
                AllOf(HasSubstr("id 0.2"), HasSubstr("borectl tunnels")));
}

TEST_F(ControlSocketTest, DrainHoldsAndUndrainLetsGo) {
    TunnelPeer tunnel(relay_.port());
    Peer before(tunnel.public_port());
    const std::string id = tunnel.next_visitor();
    Operator person(path_);
    const auto drained = person.ask(R"({"command":"drain"})");
    EXPECT_EQ(drained.at("state").as_string(), "drained");
    EXPECT_EQ(relay_.count(ControlCounter::draining), 1U);
    EXPECT_FALSE(Peer(tunnel.public_port()).connected());
    Peer refused(relay_.port());
    refused.send(hello(0));
    EXPECT_THAT(refused.frame(), HasSubstr("no new tunnels at present"));
    Peer data(relay_.port());
    data.send(accept(id));
    ASSERT_TRUE(eventually([this] { return relay_.engine.pair_count() == 1; }))
        << "a visitor that waited is served";
    EXPECT_EQ(tunnel.frame(), "\"Heartbeat\"") << "the tunnel is there";
    EXPECT_FALSE(relay_.ends_within(milliseconds(0)));

    const auto serving = person.ask(R"({"command":"undrain"})");
    EXPECT_EQ(serving.at("state").as_string(), "serving");
    EXPECT_EQ(relay_.count(ControlCounter::draining), 0U);
    EXPECT_TRUE(serving.at("ports_lost").as_array().empty());
    Peer after(tunnel.public_port());
    EXPECT_TRUE(after.connected());
    EXPECT_EQ(tunnel.next_visitor().size(), 36U);
    EXPECT_GE(TunnelPeer(relay_.port()).public_port(), 1024);
}

TEST_F(ControlSocketTest, DrainWithADeadlineCutsAndStays) {
    TunnelPeer tunnel(relay_.port());
    Peer visitor(tunnel.public_port());
    Peer data(relay_.port());
    data.send(accept(tunnel.next_visitor()));
    ASSERT_TRUE(eventually([this] { return relay_.engine.pair_count() == 1; }));
    Operator person(path_);
    EXPECT_EQ(person.ask(R"({"command":"drain","deadline_s":0})").at("deadline_s").as_int64(), 0);
    EXPECT_TRUE(visitor.closed());
    EXPECT_EQ(person.ask(R"({"command":"ping"})").at("state").as_string(), "drained");
    EXPECT_EQ(person.ask(R"({"command":"undrain"})").at("state").as_string(), "serving");
    EXPECT_TRUE(Peer(tunnel.public_port()).connected());
}

TEST_F(ControlSocketTest, UndrainAtOnceAfterDrainForgetsNoVisitor) {
    TunnelPeer tunnel(relay_.port());
    Operator person(path_);
    for (int i = 0; i < 20; ++i) {
        person.send("{\"command\":\"drain\"}\n{\"command\":\"undrain\"}\n");
        ASSERT_THAT(person.line(), HasSubstr("drained"));
        ASSERT_THAT(person.line(), HasSubstr("serving"));
        Peer visitor(tunnel.public_port());
        ASSERT_TRUE(visitor.connected());
        ASSERT_EQ(tunnel.next_visitor().size(), 36U) << "round " << i;
    }
}

TEST_F(ControlSocketTest, LogLevelIsSetAndTold) {
    Operator person(path_);
    const auto answer = person.ask(R"({"command":"loglevel","level":"error"})");
    EXPECT_EQ(answer.at("previous").as_string(), "off");
    EXPECT_EQ(person.ask(R"({"command":"ping"})").at("log_level").as_string(), "error");
}

TEST_F(ControlSocketTest, ReloadTellsWhatItFound) {
    Operator person(path_);
    relay_.next_reload({.config = std::nullopt, .errors = {"max-port=0: no", "min-port=x: no"}});
    const auto refused = person.ask(R"({"command":"reload"})");
    EXPECT_FALSE(refused.at("ok").as_bool());
    EXPECT_THAT(error_of(refused), HasSubstr("2 errors"));
    EXPECT_EQ(refused.at("errors").as_array().size(), 2U);
    relay_.next_reload(
        {.config = relay_.config(), .changed = {"max-tunnels"}, .needs_restart = {"control-port"}});
    const auto done = person.ask(R"({"command":"reload"})");
    EXPECT_TRUE(done.at("ok").as_bool());
    EXPECT_EQ(done.at("changed").as_array().at(0).as_string(), "max-tunnels");
    EXPECT_EQ(done.at("needs_restart").as_array().at(0).as_string(), "control-port");
}

TEST_F(ControlSocketTest, FlowsOfTheStreamEngineAreNoneAndItSaysSo) {
    Operator person(path_);
    const auto answer = person.ask(R"({"command":"flows"})");
    EXPECT_TRUE(answer.at("ok").as_bool());
    EXPECT_FALSE(answer.at("splices").as_bool());
    EXPECT_TRUE(answer.at("flows").as_array().empty());
    EXPECT_TRUE(answer.at("next").is_null());
}

}  // namespace
}  // namespace bore::relay::testing
