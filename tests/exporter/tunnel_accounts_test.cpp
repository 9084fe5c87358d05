// Who is shown and what the others add up to: by hand, and against what a Prometheus would compute
// under random traffic.
#include "controlplane/exporter/tunnel_accounts.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace bore::exporter {
namespace {

using abi::TunnelCounter;

// A relay of rows that hold what a test writes into them.
struct FakeRelay {
    FakeRelay() {
        snapshot.instance_id = 1;
        snapshot.identity.started_monotonic_ns = 100 * base::second_ns;
        snapshot.taken_at = 101 * base::second_ns;
    }

    abi::TunnelSnapshot& open(std::uint16_t port, std::uint64_t bytes = 0) {
        abi::TunnelSnapshot tunnel;
        tunnel.row_index = static_cast<std::uint32_t>(snapshot.tunnels.size());
        tunnel.description.generation = 1;
        tunnel.description.port = port;
        tunnel.description.state = abi::TunnelState::live;
        tunnel.description.since_monotonic_ns = snapshot.taken_at;
        snapshot.tunnels.push_back(tunnel);
        move(snapshot.tunnels.size() - 1, bytes);
        return snapshot.tunnels.back();
    }
    void move(std::size_t row, std::uint64_t bytes) {
        snapshot.tunnels[row].stream.values[0] += bytes;
    }
    void end(std::size_t row) { snapshot.tunnels[row].description.state = abi::TunnelState::ended; }
    // The row's next tunnel.
    void reopen(std::size_t row, std::uint16_t port) {
        abi::TunnelSnapshot& tunnel = snapshot.tunnels[row];
        tunnel.stream = {};
        ++tunnel.description.generation;
        tunnel.description.port = port;
        tunnel.description.state = abi::TunnelState::live;
        tunnel.description.since_monotonic_ns = snapshot.taken_at;
    }
    void pass(base::Nanoseconds time) { snapshot.taken_at += time; }

    abi::Snapshot snapshot;
};

std::uint64_t bytes_of(const TunnelValues& values) {
    return values.get(TunnelCounter::to_client_bytes_total);
}

std::vector<std::uint16_t> shown_ports(const TunnelAccounts& accounts, const FakeRelay& relay) {
    std::vector<std::uint16_t> ports;
    for (const std::uint32_t index : accounts.shown()) {
        ports.push_back(relay.snapshot.tunnels[index].description.port);
    }
    return ports;
}

using Ports = std::vector<std::uint16_t>;

TEST(TunnelAccounts, ShowsTheBusiestInTheOrderOfTheirPorts) {
    FakeRelay relay;
    relay.open(5'003, 30);
    relay.open(5'001, 10);
    relay.open(5'002, 20);
    TunnelAccounts all(std::nullopt, 0);
    TunnelAccounts two(2, 0);
    TunnelAccounts none(0, 0);
    for (TunnelAccounts* accounts : {&all, &two, &none}) {
        accounts->update(relay.snapshot);
    }
    EXPECT_EQ(shown_ports(all, relay), (Ports{5'001, 5'002, 5'003}));
    EXPECT_EQ(shown_ports(two, relay), (Ports{5'002, 5'003}));
    EXPECT_TRUE(none.shown().empty());
    EXPECT_EQ(bytes_of(all.other().stream), 0U);
    EXPECT_EQ(bytes_of(two.other().stream), 10U);
    EXPECT_EQ(bytes_of(none.other().stream), 60U);
    EXPECT_EQ(none.other().count, 3U);
}

TEST(TunnelAccounts, WhatARelayMovedBeforeTheExporterIsNotCounted) {
    FakeRelay relay;
    relay.open(5'001, 1'000);
    TunnelAccounts accounts(0, 100 * base::second_ns + 1);  // the exporter started after it
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 0U);
    relay.move(0, 5);
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 5U);
    relay.open(5'002, 70);  // opened while it watched
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 75U);
}

TEST(TunnelAccounts, OtherNeverFallsWhenATunnelBecomesBusy) {
    FakeRelay relay;
    relay.open(5'001, 100);
    relay.open(5'002, 10);
    TunnelAccounts accounts(1, 0);
    accounts.update(relay.snapshot);
    EXPECT_EQ(shown_ports(accounts, relay), Ports{5'001});
    EXPECT_EQ(bytes_of(accounts.other().stream), 10U);
    relay.move(1, 200);
    accounts.update(relay.snapshot);
    EXPECT_EQ(shown_ports(accounts, relay), Ports{5'002});
    // What it moved before its first sample, its own series cannot carry.
    EXPECT_EQ(bytes_of(accounts.other().stream), 210U);
    relay.move(1, 1'000);
    relay.move(0, 1);
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 211U);
}

TEST(TunnelAccounts, AShownTunnelStaysUntilAnotherIsClearlyBusier) {
    FakeRelay relay;
    relay.open(5'001, 1'000);
    relay.open(5'002, 900);
    TunnelAccounts accounts(1, 0);
    accounts.update(relay.snapshot);
    relay.move(1, 200);  // 1,100 against 1,000
    accounts.update(relay.snapshot);
    EXPECT_EQ(shown_ports(accounts, relay), Ports{5'001});
    relay.move(1, 200);  // 1,300
    accounts.update(relay.snapshot);
    EXPECT_EQ(shown_ports(accounts, relay), Ports{5'002});
}

TEST(TunnelAccounts, OldTrafficCountsLess) {
    FakeRelay relay;
    relay.open(5'001, 1'000'000);
    relay.open(5'002, 0);
    TunnelAccounts accounts(1, 0);
    accounts.update(relay.snapshot);
    relay.pass(7'200 * base::second_ns);  // twelve half-lives: 244 are left
    relay.move(1, 1'000);
    accounts.update(relay.snapshot);
    EXPECT_EQ(shown_ports(accounts, relay), Ports{5'002});
}

TEST(TunnelAccounts, EndedTunnelsAreNotShownAndNothingOfThemIsLost) {
    FakeRelay relay;
    relay.open(5'001, 10);
    TunnelAccounts accounts(std::nullopt, 0);
    accounts.update(relay.snapshot);
    relay.move(0, 32);
    relay.end(0);
    accounts.update(relay.snapshot);
    EXPECT_TRUE(accounts.shown().empty());
    EXPECT_EQ(bytes_of(accounts.other().stream), 32U);
    EXPECT_EQ(accounts.other().count, 0U);
    relay.reopen(0, 5'009);
    relay.move(0, 4);
    accounts.update(relay.snapshot);
    EXPECT_EQ(shown_ports(accounts, relay), Ports{5'009});
    EXPECT_EQ(bytes_of(accounts.other().stream), 32U);
}

TEST(TunnelAccounts, APortIsShownOnceWhileItsFormerTunnelFinishes) {
    FakeRelay relay;
    relay.open(5'001, 10).description.state = abi::TunnelState::finishing;
    relay.pass(base::second_ns);
    relay.open(5'001, 3);
    TunnelAccounts accounts(std::nullopt, 0);
    accounts.update(relay.snapshot);
    ASSERT_EQ(accounts.shown().size(), 1U);
    EXPECT_EQ(accounts.shown()[0], 1U);
    EXPECT_EQ(bytes_of(accounts.other().stream), 10U);
}

TEST(TunnelAccounts, ARestartBeginsAnew) {
    FakeRelay relay;
    relay.open(5'001, 1'000);
    TunnelAccounts accounts(0, 0);
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 1'000U);
    relay.snapshot.instance_id = 2;
    relay.snapshot.tunnels[0].stream.values[0] = 7;
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 7U);
}

TEST(TunnelAccounts, CountersThatFallDoNoHarm) {
    FakeRelay relay;
    relay.open(5'001, 1'000);
    TunnelAccounts accounts(0, 0);
    accounts.update(relay.snapshot);
    relay.snapshot.tunnels[0].stream.values[0] = 1;  // no relay does that, noise may
    accounts.update(relay.snapshot);
    EXPECT_EQ(bytes_of(accounts.other().stream), 1'000U);
}

TEST(TunnelAccounts, GaugesOfTheOthersAreOfNow) {
    FakeRelay relay;
    relay.open(5'001).stream.values[static_cast<std::size_t>(TunnelCounter::tunnel_pairs_live)] = 4;
    relay.snapshot.tunnels[0].visitors_pending = 2;
    TunnelAccounts accounts(0, 0);
    for (int round = 0; round < 3; ++round) {
        accounts.update(relay.snapshot);
        EXPECT_EQ(accounts.other().stream.get(TunnelCounter::tunnel_pairs_live), 4U);
        EXPECT_EQ(accounts.other().visitors_pending, 2U);
    }
}

TEST(TunnelAccounts, BytesPerSecondAreAMeanOverTenSeconds) {
    FakeRelay relay;
    relay.open(5'001, 0);
    TunnelAccounts accounts(0, 0);
    accounts.update(relay.snapshot);
    relay.move(0, 12'000'000);
    relay.pass(5 * base::second_ns);
    accounts.update(relay.snapshot);
    EXPECT_EQ(accounts.bytes_per_second(), 0);  // too short a time to say
    relay.pass(6 * base::second_ns);
    accounts.update(relay.snapshot);
    EXPECT_DOUBLE_EQ(accounts.bytes_per_second(), 1'000'000);  // 12 s since the relay's start
    relay.pass(20 * base::second_ns);
    accounts.update(relay.snapshot);
    EXPECT_EQ(accounts.bytes_per_second(), 0);
}

// Prometheus' increase() over one family: series that begin add nothing by their first sample.
class Increases {
  public:
    void scrape(const TunnelAccounts& accounts, const FakeRelay& relay) {
        std::map<std::string, std::uint64_t> now;
        for (const std::uint32_t index : accounts.shown()) {
            const abi::TunnelSnapshot& tunnel = relay.snapshot.tunnels[index];
            now["port " + std::to_string(tunnel.description.port)] = bytes_of(tunnel.stream);
        }
        now["other"] = bytes_of(accounts.other().stream);
        for (const auto& [series, value] : now) {
            const auto before = before_.find(series);
            if (before != before_.end()) {
                EXPECT_GE(value, before->second) << series << " falls";
                sum_ += value - before->second;
            }
        }
        before_ = std::move(now);
    }
    [[nodiscard]] std::uint64_t sum() const { return sum_; }

  private:
    std::map<std::string, std::uint64_t> before_;
    std::uint64_t sum_{0};
};

TEST(TunnelAccounts, TheSumOfAllIncreasesIsWhatTheRelayMoved) {
    for (const std::uint32_t most : {0U, 1U, 4U, 30U}) {
        std::mt19937_64 random(20261129 + most);
        FakeRelay relay;
        TunnelAccounts accounts(most, 0);
        Increases increases;
        std::uint64_t moved = 0;
        std::uint16_t next_port = 5'000;
        for (int row = 0; row < 20; ++row) {
            relay.open(next_port++, 0);
        }
        accounts.update(relay.snapshot);
        increases.scrape(accounts, relay);
        for (int round = 0; round < 400; ++round) {
            relay.pass((1 + random() % 60) * base::second_ns);
            for (std::size_t row = 0; row < relay.snapshot.tunnels.size(); ++row) {
                const bool live =
                    relay.snapshot.tunnels[row].description.state == abi::TunnelState::live;
                if (live && random() % 3 == 0) {
                    const std::uint64_t bytes = random() % (1U << (random() % 20));
                    relay.move(row, bytes);
                    moved += bytes;
                }
                if (live && random() % 40 == 0) {
                    relay.end(row);
                } else if (!live && random() % 5 == 0) {
                    relay.reopen(row, next_port++);  // ports do not come again: no reset to mimic
                }
            }
            accounts.update(relay.snapshot);
            increases.scrape(accounts, relay);
        }
        EXPECT_EQ(increases.sum(), moved) << "top:" << most;
    }
}

}  // namespace
}  // namespace bore::exporter
