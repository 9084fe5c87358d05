#include "drivers/dpdk/frame_pool.hpp"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

#include <atomic>

#include "dataplane/packet/frame.hpp"
#include "drivers/dpdk/checks.hpp"
#include "drivers/dpdk/sentence.hpp"

namespace bore::drivers {

namespace {

// A worker receives and frees about as fast as each other, so that the cache only has to even out
// bursts: eight of them. A cache holds up to 1.5 times its size.
constexpr std::uint32_t cache_size = 256;
constexpr std::uint32_t cache_most = cache_size + cache_size / 2;
// A burst received, one being sent, one built by splitting.
constexpr std::uint32_t bursts_per_thread = 3;
// Ethernet header, two VLAN tags, checksum; and what the kernel puts before a frame in a packet
// socket's ring (TPACKET2_HDRLEN less sockaddr_ll), since a slot of the ring is as large as a
// buffer.
constexpr std::uint32_t frame_overhead_bytes = 14 + 8 + 4 + 32;
constexpr std::uint32_t least_buffer_bytes = 2'048;

// What DPDK has taken and not given out.
std::uint32_t heap_mib() {
    std::uint64_t free_bytes = 0;
    for (unsigned index = 0; index < rte_socket_count(); ++index) {
        rte_malloc_socket_stats stats{};
        if (rte_malloc_get_socket_stats(rte_socket_id_by_idx(index), &stats) == 0) {
            free_bytes += stats.heap_freesz_bytes;
        }
    }
    return static_cast<std::uint32_t>(free_bytes >> 20U);
}

}  // namespace

std::uint16_t buffer_bytes_for(std::uint16_t mtu_bytes) {
    std::uint32_t bytes = least_buffer_bytes;
    while (bytes < mtu_bytes + frame_overhead_bytes) {
        bytes *= 2;
    }
    return static_cast<std::uint16_t>(bytes > 32'768 ? 32'768 : bytes);
}

std::expected<std::shared_ptr<FramePool>, std::string> FramePool::make(const FramePoolSize& size,
                                                                       int socket) {
    static std::atomic<unsigned> made{0};
    const std::uint32_t count =
        size.on_queues + size.reserve +
        size.thread_count *
            (cache_most + bursts_per_thread * static_cast<std::uint32_t>(packet::max_burst));
    const auto room = static_cast<std::uint16_t>(size.buffer_bytes + RTE_PKTMBUF_HEADROOM);
    const std::uint64_t bytes =
        std::uint64_t{count} * (room + sizeof(rte_mbuf) + RTE_CACHE_LINE_SIZE);
    const auto needed_mib = static_cast<std::uint32_t>((bytes >> 20U) + 1);
    // Asked before, because DPDK takes page after page until there is none.
    if (const std::uint32_t have_mib = heap_mib();
        needed_mib > have_mib && rte_eal_has_hugepages() != 0) {
        if (std::string problem = check_hugepages(needed_mib - have_mib); !problem.empty()) {
            return std::unexpected(
                sentence("{} buffers of {} bytes for the packet ports: {}", count, room, problem));
        }
    }
    rte_mempool* mempool = rte_pktmbuf_pool_create(sentence("bore_frames_{}", made++).c_str(),
                                                   count, cache_size, 0, room, socket);
    if (mempool == nullptr) {
        return std::unexpected(
            sentence("{} buffers of {} bytes for the packet ports ({} MiB) could not be made: {}; "
                     "give fewer descriptors or workers, or more --packet-memory-mib",
                     count, room, needed_mib, rte_strerror(rte_errno)));
    }
    return std::shared_ptr<FramePool>{new FramePool(mempool, count)};
}

FramePool::~FramePool() {
    rte_mempool_free(mempool_);
}

std::uint32_t FramePool::available() const {
    return rte_mempool_avail_count(mempool_);
}

}  // namespace bore::drivers
