// The two answers of the exporter: the text of /metrics and the state of /health. Each reads the
// relays' segments anew; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "controlplane/exporter/relays.hpp"

namespace bore::exporter {

struct Health {
    bool healthy{false};
    std::string json;
};

class Exposition {
  public:
    explicit Exposition(const config::ExporterConfig& config);

    // What a relay moved before the first look is not counted among the others' tunnels.
    void look() { relays_.refresh(); }

    // Prometheus text format 0.0.4.
    [[nodiscard]] std::string metrics();
    // Healthy: there is a relay, and all of them are up.
    [[nodiscard]] Health health();

    static constexpr const char* content_type = "text/plain; version=0.0.4; charset=utf-8";

  private:
    [[nodiscard]] std::size_t size_to_expect(const std::vector<RelayView>& views) const;

    Relays relays_;
    std::string where_;  // for the sentence that nothing was found
    double started_at_;  // seconds since 1970
    std::uint64_t scrapes_{0};
    std::size_t last_size_bytes_{0};
};

}  // namespace bore::exporter
