// The buffers of all ports of a process: one mempool, because a frame received on one port is sent
// on another. So every transmit queue frees into one pool, which lets drivers skip the look at each
// buffer (MBUF_FAST_FREE), and af_xdp sends without copying what another af_xdp port received.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>

struct rte_mempool;  // NOLINT(readability-identifier-naming): DPDK's name

namespace bore::drivers {

struct FramePoolSize {
    std::uint32_t on_queues{0};     // what receive and transmit queues may hold
    std::uint32_t thread_count{0};  // each has a cache of its own
    std::uint32_t reserve{0};
    std::uint16_t buffer_bytes{2'048};  // behind the headroom
};

class FramePool {
  public:
    // `socket`: of NUMA, -1 for any.
    [[nodiscard]] static std::expected<std::shared_ptr<FramePool>, std::string> make(
        const FramePoolSize& size, int socket);
    ~FramePool();
    FramePool(const FramePool&) = delete;
    FramePool& operator=(const FramePool&) = delete;

    [[nodiscard]] rte_mempool* mempool() const { return mempool_; }
    [[nodiscard]] std::uint32_t size() const { return size_; }
    [[nodiscard]] std::uint32_t available() const;

  private:
    FramePool(rte_mempool* mempool, std::uint32_t size) : mempool_(mempool), size_(size) {}
    rte_mempool* mempool_;
    std::uint32_t size_;
};

// Room for a frame of an MTU that every driver can use: some take powers of two only.
[[nodiscard]] std::uint16_t buffer_bytes_for(std::uint16_t mtu_bytes);

}  // namespace bore::drivers
