// Steps of make_ports(): read the specs → ask the kernel's interfaces → open the devices → one pool
// for all → start each. Any failure destroys what was made, in reverse.
//
// The packet path is receive() and transmit(): an mbuf's first cache line, which the driver wrote
// last, becomes a Frame and the other way round.
#include "drivers/dpdk/port.hpp"

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "dataplane/base/check.hpp"
#include "dataplane/base/spsc_ring.hpp"
#include "drivers/dpdk/devices.hpp"
#include "drivers/dpdk/ethdev.hpp"
#include "drivers/dpdk/frame_pool.hpp"
#include "drivers/dpdk/kernel_interface.hpp"
#include "drivers/dpdk/sentence.hpp"

namespace bore::drivers {

namespace {

using packet::Frame;
using packet::max_burst;
using packet::ReceivedChecksum;

constexpr std::uint16_t standard_mtu_bytes = 1'500;
// A chunk of an XDP socket's memory is at most a page, with the mbuf and both headrooms in it. So a
// buffer has 2,048 bytes, and of these the kernel keeps XDP_PACKET_HEADROOM (256) and drops what
// does not fit into the rest: Ethernet header, two VLAN tags, and this.
constexpr std::uint16_t max_af_xdp_mtu_bytes = 2'048 - 256 - 14 - 8;

rte_mbuf* mbuf_of(const Frame& frame) {
    return static_cast<rte_mbuf*>(frame.buffer);
}

// The checksums of a frame are as bad as the worst of them.
ReceivedChecksum checksum_of(std::uint64_t flags) {
    const std::uint64_t tcp = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    if (tcp == RTE_MBUF_F_RX_L4_CKSUM_BAD ||
        (flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD) {
        return ReceivedChecksum::bad;
    }
    return tcp == RTE_MBUF_F_RX_L4_CKSUM_GOOD ? ReceivedChecksum::good : ReceivedChecksum::unknown;
}

// Counted here because the driver does not; one writer each, the queue's worker.
struct alignas(base::cache_line_bytes) QueueCounters {
    std::atomic<std::uint64_t> fragmented{0};  // frames in several buffers, dropped
    std::atomic<std::uint64_t> own{0};         // frames of the interface's own kernel, dropped
    std::atomic<std::uint64_t> own_bytes{0};
    std::atomic<std::uint64_t> received_bytes{0};
    std::atomic<std::uint64_t> sent_bytes{0};
};

void add(std::atomic<std::uint64_t>& counter, std::uint64_t value) {
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

// Field by field into its place: a whole Frame copied right after its fields were stored would wait
// for the stores, 12 cycles a frame.
void show(rte_mbuf* mbuf, std::uint8_t port_index, Frame& frame) {
    const std::uint16_t offset = mbuf->data_off;
    frame.data = static_cast<std::byte*>(mbuf->buf_addr) + offset;
    frame.length_bytes = mbuf->data_len;
    frame.headroom_bytes = offset;
    frame.port_index = port_index;
    frame.checksum = ReceivedChecksum::unknown;
    frame.buffer = mbuf;
}

class DpdkPort final : public packet::PacketPort {
  public:
    DpdkPort(std::shared_ptr<FramePool> pool, std::unique_ptr<KernelInterface> interface,
             std::unique_ptr<Ethdev> device, packet::PortInfo info, DeviceKind kind,
             std::uint8_t port_index)
        : pool_(std::move(pool)),
          interface_(std::move(interface)),
          device_(std::move(device)),
          info_(std::move(info)),
          port_id_(device_->port_id()),
          port_index_(port_index),
          drop_own_(kind == DeviceKind::af_packet),
          count_bytes_(kind == DeviceKind::ring || kind == DeviceKind::null),
          counters_(std::make_unique<QueueCounters[]>(info_.queue_count)) {}

    std::size_t receive(std::uint16_t queue, std::span<Frame> frames) override;
    std::size_t transmit(std::uint16_t queue, std::span<Frame> frames) override;
    bool allocate(Frame& frame) override;
    void release(std::span<Frame> frames) override;
    const packet::PortInfo& info() const override { return info_; }
    packet::PortStatistics statistics() override;
    packet::LinkState link() override;

    [[nodiscard]] const FramePool& pool() const { return *pool_; }

  private:
    // Both keep the order of the others, and return how many those are.
    static std::size_t drop_fragmented(QueueCounters& counters, std::span<Frame> frames);
    std::size_t drop_own(QueueCounters& counters, std::span<Frame> frames) const;

    // Destroyed from the last to the first: the device gives its buffers back to the pool.
    std::shared_ptr<FramePool> pool_;
    std::unique_ptr<KernelInterface> interface_;
    std::unique_ptr<Ethdev> device_;
    packet::PortInfo info_;
    std::uint16_t port_id_;
    std::uint8_t port_index_;
    bool drop_own_;
    bool count_bytes_;
    std::unique_ptr<QueueCounters[]> counters_;
};

std::size_t DpdkPort::receive(std::uint16_t queue, std::span<Frame> frames) {
    rte_mbuf* mbufs[max_burst];
    const auto wanted = static_cast<std::uint16_t>(std::min(frames.size(), max_burst));
    const std::uint16_t received = rte_eth_rx_burst(port_id_, queue, mbufs, wanted);
    // In local variables: a frame might be anything else as far as the compiler knows.
    const std::uint8_t port_index = port_index_;
    Frame* const shown = frames.data();
    std::uint32_t segments = 1;
#pragma GCC unroll 4
    for (std::uint16_t index = 0; index < received; ++index) {
        rte_mbuf* mbuf = mbufs[index];
        show(mbuf, port_index, shown[index]);
        rte_prefetch0(shown[index].data);
        segments |= mbuf->nb_segs;
    }
    std::size_t count = received;
    if (segments != 1) [[unlikely]] {
        count = drop_fragmented(counters_[queue], frames.first(count));
    }
    if (info_.receive_checksum) {
        for (Frame& frame : frames.first(count)) {
            frame.checksum = checksum_of(mbuf_of(frame)->ol_flags);
        }
    }
    if (count_bytes_) {
        std::uint64_t bytes = 0;
        for (const Frame& frame : frames.first(count)) {
            bytes += frame.length_bytes;
        }
        add(counters_[queue].received_bytes, bytes);
    }
    return drop_own_ ? drop_own(counters_[queue], frames.first(count)) : count;
}

std::size_t DpdkPort::drop_fragmented(QueueCounters& counters, std::span<Frame> frames) {
    std::size_t kept = 0;
    for (const Frame& frame : frames) {
        if (mbuf_of(frame)->nb_segs == 1) {
            frames[kept++] = frame;
        } else {
            add(counters.fragmented, 1);
            rte_pktmbuf_free(mbuf_of(frame));
        }
    }
    return kept;
}

// A packet socket also shows what the kernel itself sends through the interface (neighbour
// discovery of an address it gave itself, say). To the exception interface, which has the same MAC
// and so the same addresses, that would look like somebody else with its address.
std::size_t DpdkPort::drop_own(QueueCounters& counters, std::span<Frame> frames) const {
    std::size_t kept = 0;
    for (const Frame& frame : frames) {
        if (std::memcmp(frame.data + info_.mac.size(), info_.mac.data(), info_.mac.size()) == 0) {
            add(counters.own, 1);
            add(counters.own_bytes, frame.length_bytes);
            rte_pktmbuf_free(mbuf_of(frame));
        } else {
            frames[kept++] = frame;
        }
    }
    return kept;
}

std::size_t DpdkPort::transmit(std::uint16_t queue, std::span<Frame> frames) {
    rte_mbuf* mbufs[max_burst];
    const std::size_t count = std::min(frames.size(), max_burst);
    const Frame* const given = frames.data();
#pragma GCC unroll 4
    for (std::size_t index = 0; index < count; ++index) {
        const Frame& frame = given[index];
        rte_mbuf* mbuf = mbuf_of(frame);
        mbuf->data_off = frame.headroom_bytes;
        mbuf->data_len = frame.length_bytes;
        mbuf->pkt_len = frame.length_bytes;
        mbufs[index] = mbuf;
    }
    const std::uint16_t sent =
        rte_eth_tx_burst(port_id_, queue, mbufs, static_cast<std::uint16_t>(count));
    if (count_bytes_) {
        std::uint64_t bytes = 0;
        for (const Frame& frame : frames.first(sent)) {
            bytes += frame.length_bytes;
        }
        add(counters_[queue].sent_bytes, bytes);
    }
    return sent;
}

bool DpdkPort::allocate(Frame& frame) {
    rte_mbuf* mbuf = rte_pktmbuf_alloc(pool_->mempool());
    if (mbuf == nullptr) {
        return false;
    }
    show(mbuf, port_index_, frame);
    frame.tailroom_bytes = static_cast<std::uint16_t>(mbuf->buf_len - mbuf->data_off);
    return true;
}

void DpdkPort::release(std::span<Frame> frames) {
    rte_mbuf* mbufs[max_burst];
    while (!frames.empty()) {
        const std::size_t count = std::min(frames.size(), max_burst);
        for (std::size_t index = 0; index < count; ++index) {
            mbufs[index] = mbuf_of(frames[index]);
        }
        rte_pktmbuf_free_bulk(mbufs, static_cast<unsigned>(count));
        frames = frames.subspan(count);
    }
}

packet::PortStatistics DpdkPort::statistics() {
    rte_eth_stats told{};
    if (rte_eth_stats_get(port_id_, &told) != 0) {
        return {};
    }
    packet::PortStatistics result{.received_packets = told.ipackets,
                                  .received_bytes = told.ibytes,
                                  .sent_packets = told.opackets,
                                  .sent_bytes = told.obytes,
                                  .missed = told.imissed,
                                  .receive_errors = told.ierrors,
                                  .send_errors = told.oerrors,
                                  .no_buffer = told.rx_nombuf};
    std::uint64_t received_bytes = 0, sent_bytes = 0;
    for (std::uint16_t queue = 0; queue < info_.queue_count; ++queue) {
        const QueueCounters& counters = counters_[queue];
        received_bytes += counters.received_bytes.load(std::memory_order_relaxed);
        sent_bytes += counters.sent_bytes.load(std::memory_order_relaxed);
        result.receive_errors += counters.fragmented.load(std::memory_order_relaxed);
        result.received_packets -= counters.own.load(std::memory_order_relaxed);
        result.received_bytes -= counters.own_bytes.load(std::memory_order_relaxed);
    }
    if (count_bytes_) {
        result.received_bytes = received_bytes;
        result.sent_bytes = sent_bytes;
    }
    return result;
}

packet::LinkState DpdkPort::link() {
    if (interface_ != nullptr) {  // their drivers always say up
        return interface_->link();
    }
    rte_eth_link told{};
    if (rte_eth_link_get_nowait(port_id_, &told) != 0 || told.link_status != RTE_ETH_LINK_UP) {
        return {};
    }
    return {.up = true,
            .speed_mbps = told.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : told.link_speed};
}

// ---- Making ports

struct PortPlan {
    DeviceSpec device;
    std::unique_ptr<KernelInterface> interface;  // af_packet and af_xdp
    std::uint16_t mtu_bytes{standard_mtu_bytes};
    std::unique_ptr<Ethdev> ethdev;
};

// Frames of a queue without an XDP socket would go to the kernel: not fewer queues, not more. And
// net_af_xdp takes separate receive queues (veth's) for a single one.
std::string check_xdp_queues(const PortPlan& plan, std::uint16_t worker_count) {
    const DeviceSpec& device = plan.device;
    const InterfaceQueues queues = plan.interface->queues();
    const std::string have = counted(queues.receive, "receive queue");
    const std::string workers = counted(worker_count, "worker");
    if (queues.combined && queues.receive != worker_count) {
        return sentence(
            "packet port \"{}\": the interface has {} for {}, and each worker serves one; `ethtool "
            "-L {} combined {}`, or --workers {}",
            device.text, have, workers, device.name, worker_count, queues.receive);
    }
    if (!queues.combined && (queues.receive != 1 || worker_count != 1)) {
        return sentence(
            "packet port \"{}\": the interface has {} for {}, but without combined queues DPDK "
            "opens "
            "only the first; `ethtool -L {} rx 1 tx 1` and --workers 1, or af_packet:{}",
            device.text, have, workers, device.name, device.name);
    }
    return {};
}

// Queues and MTU of an interface that stays the kernel's. Empty when they fit.
std::string check_interface(const PortPlan& plan, const PortOptions& options) {
    const DeviceSpec& device = plan.device;
    const std::uint16_t own_mtu = plan.interface->mtu_bytes();
    if (plan.mtu_bytes > own_mtu) {
        return sentence(
            "packet port \"{}\": an mtu of {} is more than the interface's {}; `ip "
            "link set {} mtu {}`, or leave mtu= away",
            device.text, plan.mtu_bytes, own_mtu, device.name, plan.mtu_bytes);
    }
    if (device.kind != DeviceKind::af_xdp) {
        return {};
    }
    if (plan.mtu_bytes > max_af_xdp_mtu_bytes) {
        return sentence(
            "packet port \"{}\": an mtu of {} is more than the {} bytes that an XDP "
            "socket's buffers hold; give mtu={} or use af_packet:{}",
            device.text, plan.mtu_bytes, max_af_xdp_mtu_bytes, max_af_xdp_mtu_bytes, device.name);
    }
    if (std::string problem = check_xdp_queues(plan, options.queue_count); !problem.empty()) {
        return problem;
    }
    if (!plan.interface->up()) {
        return sentence(
            "packet port \"{}\": the interface is down and takes no XDP socket; `ip "
            "link set {} up`",
            device.text, device.name);
    }
    return {};
}

std::expected<PortPlan, std::string> plan_port(const PortOptions& options) {
    auto device = parse_device(options.device);
    if (!device) {
        return std::unexpected(device.error());
    }
    if (options.queue_count == 0) {
        return std::unexpected(
            sentence("packet port \"{}\": 0 queues; it needs one per worker, "
                     "--workers 1 or more",
                     device->text));
    }
    PortPlan plan{.device = *std::move(device), .interface = {}, .ethdev = {}};
    if (plan.device.on_kernel_interface()) {
        auto found = KernelInterface::find(plan.device.name);
        if (!found) {
            return std::unexpected(
                sentence("packet port \"{}\": there is no interface {} in "
                         "this network namespace; `ip link` shows those "
                         "there are",
                         plan.device.text, plan.device.name));
        }
        plan.interface = *std::move(found);
        plan.mtu_bytes = plan.interface->mtu_bytes();
    }
    if (options.mtu_bytes != 0) {
        plan.mtu_bytes = options.mtu_bytes;
    }
    if (plan.interface != nullptr) {
        if (std::string problem = check_interface(plan, options); !problem.empty()) {
            return std::unexpected(problem);
        }
    }
    return plan;
}

std::expected<std::vector<PortPlan>, std::string> plan_ports(std::span<const PortOptions> options) {
    std::vector<PortPlan> plans;
    for (const PortOptions& wanted : options) {
        auto plan = plan_port(wanted);
        if (!plan) {
            return std::unexpected(plan.error());
        }
        const DeviceSpec& device = plan->device;
        const bool exclusive = device.kind == DeviceKind::pci || device.kind == DeviceKind::tap ||
                               device.kind == DeviceKind::ring || device.on_kernel_interface();
        for (const PortPlan& other : plans) {
            if (exclusive && other.device.name == device.name) {
                return std::unexpected(
                    sentence("packet port \"{}\": {} is given twice; give "
                             "every device to one port",
                             device.text, device.name));
            }
        }
        plans.push_back(*std::move(plan));
    }
    return plans;
}

std::expected<std::shared_ptr<FramePool>, std::string> pool_for(const std::vector<PortPlan>& plans,
                                                                const PoolOptions& options) {
    FramePoolSize size{.thread_count = options.thread_count, .reserve = options.reserve_frames};
    std::uint16_t mtu_bytes = 0;
    int socket = -1;
    for (const PortPlan& plan : plans) {
        mtu_bytes = std::max(mtu_bytes, plan.mtu_bytes);
        size.on_queues += plan.ethdev->buffers_on_queues();
        socket = socket < 0 ? plan.ethdev->socket() : socket;
    }
    size.buffer_bytes =
        options.buffer_bytes != 0 ? options.buffer_bytes : buffer_bytes_for(mtu_bytes);
    for (const PortPlan& plan : plans) {
        if (plan.device.kind == DeviceKind::af_xdp && mtu_bytes > max_af_xdp_mtu_bytes) {
            return std::unexpected(
                sentence("packet port \"{}\": another port's mtu of {} makes "
                         "buffers larger than an XDP socket takes ({}); give "
                         "that port mtu={}",
                         plan.device.text, mtu_bytes, max_af_xdp_mtu_bytes, max_af_xdp_mtu_bytes));
        }
    }
    return FramePool::make(size, socket);
}

}  // namespace

std::expected<Ports, std::string> make_ports(Eal& /*eal*/, std::span<const PortOptions> options,
                                             const PoolOptions& pool_options) {
    std::shared_ptr<FramePool> pool;  // outlives a device that did not start
    auto plans = plan_ports(options);
    if (!plans) {
        return std::unexpected(plans.error());
    }
    for (std::size_t index = 0; index < plans->size(); ++index) {
        PortPlan& plan = (*plans)[index];
        auto ethdev = Ethdev::open(plan.device, options[index], plan.mtu_bytes);
        if (!ethdev) {
            return std::unexpected(ethdev.error());
        }
        plan.ethdev = *std::move(ethdev);
    }
    auto made = pool_for(*plans, pool_options);
    if (!made) {
        return std::unexpected(made.error());
    }
    pool = *std::move(made);
    Ports ports;
    for (std::size_t index = 0; index < plans->size(); ++index) {
        PortPlan& plan = (*plans)[index];
        if (plan.interface != nullptr) {
            plan.interface->join_all_multicast();
        }
        if (auto started = plan.ethdev->start(*pool); !started) {
            return std::unexpected(started.error());
        }
        packet::PortInfo info{.name = plan.device.text,
                              .driver = plan.ethdev->driver(),
                              .mac = plan.ethdev->mac(),
                              .mtu_bytes = plan.mtu_bytes,
                              .queue_count = options[index].queue_count,
                              .receive_checksum = plan.ethdev->receive_checksum()};
        ports.push_back(std::make_unique<DpdkPort>(
            pool, std::move(plan.interface), std::move(plan.ethdev), std::move(info),
            plan.device.kind, static_cast<std::uint8_t>(index)));
    }
    return ports;
}

std::expected<std::unique_ptr<packet::PacketPort>, std::string> make_port(
    Eal& eal, const PortOptions& options, const PoolOptions& pool) {
    auto ports = make_ports(eal, {&options, 1}, pool);
    if (!ports) {
        return std::unexpected(ports.error());
    }
    return std::move(ports->front());
}

PoolState pool_state(const packet::PacketPort& port) {
    const auto* own = dynamic_cast<const DpdkPort*>(&port);
    BORE_CHECK(own != nullptr, "a port of another driver has no pool of ours");
    return {.size = own->pool().size(), .available = own->pool().available()};
}

}  // namespace bore::drivers
