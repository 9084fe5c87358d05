// The modes of bore-load, one function each; main.cpp fills the options from the command line.
// Each prints its result as one line of JSON and returns the exit code of the program.
#pragma once

#include <cstdint>
#include <string>

namespace bore::bench {

struct ServeOptions {
    std::string listen = "127.0.0.1:0";
    std::string as = "asked";
};
[[noreturn]] void run_serve(const ServeOptions& options);

// A tunnel client by hand that is its own service: the tunnel leg is then a plain socket.
struct PlainClientOptions {
    std::string to = "127.0.0.1:7835";
    std::uint16_t port = 0;
    std::string as = "asked";
};
[[nodiscard]] int run_plain_client(const PlainClientOptions& options);

struct BulkOptions {
    std::string to;
    std::string direction = "down";
    std::uint32_t streams = 1;
    double seconds = 0;       // either this
    std::uint64_t bytes = 0;  // or this, per stream and direction
    bool verify = false;
    bool abrupt = false;  // for relays without half-close: count what was sent, close at the end
    double patience_seconds = 60;
};
[[nodiscard]] int run_bulk(const BulkOptions& options);

struct RequestsOptions {
    std::string to;
    std::uint32_t connections = 1;
    std::uint32_t size_bytes = 64;
    std::uint32_t response_bytes = 0;  // 0: as the request
    bool service_quickack = false;
    double seconds = 5;
    double warmup_seconds = 0.3;
};
[[nodiscard]] int run_requests(const RequestsOptions& options);

struct ShortOptions {
    std::string to;
    std::uint32_t concurrency = 16;
    std::uint32_t size_bytes = 64;
    double seconds = 0;       // either this
    std::uint64_t count = 0;  // or this
};
[[nodiscard]] int run_short(const ShortOptions& options);

struct IdleOptions {
    std::string to;
    std::uint32_t connections = 1000;
    double hold_seconds = 0;  // 0: until standard input ends
    double patience_seconds = 60;
};
[[nodiscard]] int run_idle(const IdleOptions& options);

}  // namespace bore::bench
