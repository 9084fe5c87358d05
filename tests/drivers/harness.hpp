// Real TCP connections over loopback around a stream engine: a test holds the far ends of both
// legs of a pair, the engine the near ones. Every wait here is bounded.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/abi/engine.hpp"
#include "dataplane/abi/limits.hpp"
#include "dataplane/abi/statistics.hpp"
#include "drivers/stream_engine/stream_engine.hpp"

namespace bore::drivers::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

// Long enough for a loaded machine with a sanitizer; a test that waits so long has failed.
inline constexpr std::chrono::seconds patience{60};

class Socket {
  public:
    Socket() = default;
    explicit Socket(int descriptor) : descriptor_(descriptor) {}
    Socket(Socket&& from) noexcept : descriptor_(std::exchange(from.descriptor_, -1)) {}
    Socket& operator=(Socket&& from) noexcept {
        close();
        descriptor_ = std::exchange(from.descriptor_, -1);
        return *this;
    }
    ~Socket() { close(); }

    [[nodiscard]] int descriptor() const { return descriptor_; }
    [[nodiscard]] int release() { return std::exchange(descriptor_, -1); }
    void close();
    // So that the peer sees a reset.
    void reset();
    void finish() const;

    // Bytes `first`... of the stream; false when the connection broke or the time ran out.
    [[nodiscard]] bool send_pattern(std::uint64_t stream, std::uint64_t first, std::uint64_t bytes,
                                    std::size_t write_bytes = 65'536) const;
    // Reads as many and compares them.
    [[nodiscard]] bool receive_pattern(std::uint64_t stream, std::uint64_t first,
                                       std::uint64_t bytes) const;
    enum class End : std::uint8_t { fin, reset, bytes, timeout };
    // What the next read sees.
    [[nodiscard]] End next_end() const;
    // Sends until nothing was taken for `quiet`; the count taken.
    [[nodiscard]] std::uint64_t push_until_full(std::chrono::milliseconds quiet) const;

  private:
    int descriptor_{-1};
};

// A pair from the outside.
struct Ends {
    Socket visitor;
    Socket client;
    abi::PairHandle handle;
};

class EngineTest : public ::testing::TestWithParam<StreamDriver> {
  protected:
    static constexpr std::uint32_t tunnel_capacity = 8;

    void SetUp() override;
    void TearDown() override;

    // Replaces the engine (one worker to begin with). Skips the test where io_uring is forbidden.
    void start(std::uint32_t worker_count, std::uint32_t busy_poll_us = 0);
    void stop() { engine_.reset(); }

    struct OpenOptions {
        std::uint32_t tunnel_index{0};
        std::uint64_t tag{0};
        std::vector<std::byte> left_over_to_visitor;
        int buffer_bytes{0};  // SO_RCVBUF and SO_SNDBUF of all four sockets; 0 = the kernel's
        bool nagle{false};    // leave Nagle's algorithm on at the client
    };
    Ends open(OpenOptions&& options);
    Ends open() { return open(OpenOptions()); }

    // Until `count` ends were reported in all.
    void wait_for_ends(std::size_t count);
    [[nodiscard]] std::uint64_t counter(abi::WorkerCounter which) {
        return statistics_->worker_total(which);
    }

    std::unique_ptr<abi::Statistics> statistics_;
    std::unique_ptr<abi::TunnelTable> tunnels_;
    std::unique_ptr<abi::Engine> engine_;
    std::vector<abi::PairEnded> ended_;

  private:
    // The near and the far end of a new connection.
    [[nodiscard]] std::pair<Socket, Socket> connect(int buffer_bytes) const;

    Socket listener_;
    std::size_t descriptors_at_start_{0};
};

[[nodiscard]] std::size_t open_descriptors();
[[nodiscard]] std::size_t resident_bytes();

// For INSTANTIATE_TEST_SUITE_P.
inline const auto both_drivers = ::testing::Values(StreamDriver::io_uring, StreamDriver::epoll);
inline std::string driver_name(const ::testing::TestParamInfo<StreamDriver>& driver) {
    return driver.param == StreamDriver::io_uring ? "io_uring" : "epoll";
}

}  // namespace bore::drivers::testing
