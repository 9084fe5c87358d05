// The modes of bore-load, one function each; main.cpp fills the options from the command line.
// Each prints its result as one line of JSON and returns the exit status of the program.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/load/run.hpp"

namespace bore::bench {

struct ServeOptions {
    CommonOptions common;
    std::string listen = "127.0.0.1:0";
    std::string as = "asked";
    double opening_timeout_seconds = 60;
};
[[nodiscard]] int run_serve(const ServeOptions& options);

// Tunnels on a relay whose client is its own service: one (`plain`) or many (`tunnels`).
struct TunnelsOptions {
    CommonOptions common;
    std::uint16_t port = 0;  // of the first; 0 takes any
    std::uint32_t count = 1;
    std::uint32_t concurrency = 64;  // registering at once: either this
    double rate = 0;                 // or this many a second, for relays that limit it
    double hold_seconds = 0;         // 0: until a stop signal
    std::optional<std::string> secret;
    std::string as = "asked";
};
[[nodiscard]] int run_plain(const TunnelsOptions& options);
[[nodiscard]] int run_tunnels(const TunnelsOptions& options);

struct BulkOptions {
    CommonOptions common;
    std::string direction = "down";
    std::uint32_t streams = 1;
    double seconds = 5;       // either this
    std::uint64_t bytes = 0;  // or this, per stream and direction
    bool verify = false;
    bool abrupt = false;   // for relays without half-close: count what was sent, close at the end
    double read_mbit = 0;  // of each stream; 0: as fast as it comes
};
[[nodiscard]] int run_bulk(const BulkOptions& options);

// Sizes of an exchange.
struct ExchangeSizes {
    std::uint32_t size_bytes = 64;
    std::uint32_t response_bytes = 0;  // 0: as the request
    [[nodiscard]] std::uint32_t response_size() const {
        return response_bytes > 0 ? response_bytes : size_bytes;
    }
};

struct RequestsOptions : ExchangeSizes {
    CommonOptions common;
    std::uint32_t connections = 1;
    double rate = 0;  // of all connections together; 0: closed loop
    bool service_quickack = false;
    double seconds = 5;
    double warmup_seconds = 0.3;
};
[[nodiscard]] int run_requests(const RequestsOptions& options);

struct CrrOptions : ExchangeSizes {
    CommonOptions common;
    std::uint32_t concurrency = 16;
    double seconds = 5;       // either this
    std::uint64_t count = 0;  // or this
};
[[nodiscard]] int run_crr(const CrrOptions& options);

struct IdleOptions {
    CommonOptions common;
    std::uint32_t connections = 1000;
    std::uint32_t concurrency = 64;
    double hold_seconds = 0;  // 0: until a stop signal
    bool prove = false;
};
[[nodiscard]] int run_idle(const IdleOptions& options);

struct HalfcloseOptions {
    CommonOptions common;
    std::uint32_t count = 100;
    std::uint32_t concurrency = 8;
    std::uint32_t size_bytes = 64;
    std::uint32_t response_bytes = 20'000;
    std::uint32_t delay_ms = 10;
};
[[nodiscard]] int run_halfclose(const HalfcloseOptions& options);

struct ChaosOptions {
    CommonOptions common;
    double seconds = 5;
    std::uint32_t peers = 32;
    std::vector<std::string> kinds;  // empty: all
};
[[nodiscard]] int run_chaos(const ChaosOptions& options);

struct SoakOptions {
    CommonOptions common;
    double seconds = 60;
    std::uint32_t streams = 2;
    std::uint64_t bytes = 16'000'000;
    double mbit = 200;  // of each stream on the average
    std::uint32_t connections = 8;
    double rate = 200;
    double short_rate = 20;
};
[[nodiscard]] int run_soak(const SoakOptions& options);

}  // namespace bore::bench
