// A segment made by the relay's own writer, in a folder of the test: what the exporter's unit tests
// look at instead of a relay.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "controlplane/exporter/families.hpp"
#include "dataplane/abi/segment_reader.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::exporter::testing {

class Folder {
  public:
    Folder() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "bore-test-XXXXXX").string();
        path_ = ::mkdtemp(pattern.data());
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

inline constexpr std::string_view test_configuration = "max_tunnels = 8  # default\n";

// A relay that writes nothing by itself.
struct TestRelay {
    TestRelay(const Folder& folder, const std::string& id, abi::SegmentShape shape)
        : statistics(made(folder, id, shape)) {
        abi::SegmentIdentity identity{.process_id = 1,
                                      .started_realtime_ns = 1'700'000'000 * base::second_ns,
                                      .started_monotonic_ns = base::monotonic_now(),
                                      .control_port = 7835};
        abi::set_text(identity.server_id, id);
        abi::set_text(identity.version, "1.2.3");
        abi::set_text(identity.engine, "an engine");
        statistics.describe(identity);
        statistics.set_configuration(test_configuration);
        for (std::uint32_t port = 0; port < shape.packet.port_count; ++port) {
            statistics.describe_port(port, "nic" + std::to_string(port));
        }
        beat();
        EXPECT_TRUE(statistics.publish());
    }

    // All loops have just turned.
    void beat() {
        const base::Nanoseconds now = base::monotonic_now();
        statistics.control().set(abi::ControlCounter::control_heartbeat_ns, now);
        for (std::uint32_t worker = 0; worker < statistics.worker_count(); ++worker) {
            statistics.worker(worker).set(abi::WorkerCounter::heartbeat_ns, now);
        }
    }

    void open_tunnel(std::uint32_t row, std::uint16_t port) {
        abi::TunnelDescription tunnel{.since_realtime_ns = 1'700'000'001 * base::second_ns,
                                      .since_monotonic_ns = base::monotonic_now(),
                                      .port = port,
                                      .state = abi::TunnelState::live,
                                      .dialect = abi::TunnelDialect::upstream,
                                      .authenticated = 1};
        abi::set_text(tunnel.client_address, "192.0.2.7");
        statistics.begin_tunnel(row, tunnel);
    }
    void end_tunnel(std::uint32_t row) {
        auto& sequenced = statistics.tunnel_description(row).description;
        abi::TunnelDescription tunnel = sequenced.value();
        tunnel.state = abi::TunnelState::ended;
        tunnel.ended_monotonic_ns = base::monotonic_now();
        sequenced.write(tunnel);
    }

    [[nodiscard]] abi::Snapshot read() const {
        auto snapshot = abi::SegmentReader(statistics.memory().path()).read();
        EXPECT_TRUE(snapshot) << snapshot.error().text;
        return std::move(*snapshot);
    }

    static abi::Statistics made(const Folder& folder, const std::string& id,
                                const abi::SegmentShape& shape) {
        auto statistics =
            abi::Statistics::shared(shape, {.name = std::string(abi::segment_prefix) + id,
                                            .group = std::nullopt,
                                            .directory = folder.path()});
        EXPECT_TRUE(statistics) << statistics.error();
        return std::move(*statistics);
    }

    abi::Statistics statistics;
};

// Every sample of some families by `name{label="value",...}`, labels in their order.
using Samples = std::map<std::string, double>;

inline void add_samples(const prometheus::MetricFamily& family, Samples& samples) {
    for (const prometheus::ClientMetric& metric : family.metric) {
        std::string name = family.name + "{";
        for (const auto& label : metric.label) {
            name += (name.back() == '{' ? "" : ",") + label.name + "=\"" + label.value + "\"";
        }
        name += "}";
        double value = metric.gauge.value;
        if (family.type == prometheus::MetricType::Counter) {
            value = metric.counter.value;
        } else if (family.type == prometheus::MetricType::Histogram) {
            value = static_cast<double>(metric.histogram.sample_count);
        }
        EXPECT_TRUE(samples.emplace(name, value).second) << name << " is there twice";
    }
}

}  // namespace bore::exporter::testing
