// The relays of this machine that are looked at: named ones, which are reported as down when they
// are not there, or all whose segments are found, followed as they come and go. refresh() reads
// every segment once; between two of them nothing here asks the system.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controlplane/config/exporter_config.hpp"
#include "controlplane/exporter/families.hpp"
#include "controlplane/exporter/tunnel_accounts.hpp"
#include "dataplane/abi/segment_reader.hpp"

namespace bore::exporter {

class Relays {
  public:
    explicit Relays(const config::ExporterConfig& config);

    // Reads everything again; says in the log what has changed.
    void refresh();
    // Views into this object, until the next refresh().
    [[nodiscard]] std::vector<RelayView> views() const;
    // Why a relay is not up: empty when it is.
    struct Health {
        std::string relay;
        std::string reason;
    };
    [[nodiscard]] std::vector<Health> health() const;
    // Files that are named as segments and are not followed.
    struct LeftOut {
        std::size_t beyond_limit{0};  // more than max-relays
        std::size_t of_strangers{0};  // of users who run no relay
    };
    [[nodiscard]] const LeftOut& left_out() const { return left_out_; }

  private:
    struct Relay {
        Relay(abi::SegmentReader reader, const config::ExporterConfig& config,
              base::Nanoseconds watching_since);

        std::string name;
        abi::SegmentReader reader;
        TunnelAccounts accounts;
        std::optional<abi::Snapshot> snapshot;
        RelayLimits limits;
        std::uint64_t limits_of{0};  // hash of the configuration that they were read from
        std::uint64_t read_errors{0};
        std::string reason;  // why it is not up
    };

    void follow_directory();
    void note_left_out(const LeftOut& now);
    static void read(Relay& relay, std::uint64_t link_bytes_per_second);
    [[nodiscard]] static RelayView view(const Relay& relay);

    config::ExporterConfig config_;
    base::Nanoseconds watching_since_;
    std::vector<std::unique_ptr<Relay>> relays_;
    LeftOut left_out_;
};

// The relay's own text of its configuration; 0 = not in it.
[[nodiscard]] std::uint64_t max_tunnels_in(const std::string& configuration);

}  // namespace bore::exporter
