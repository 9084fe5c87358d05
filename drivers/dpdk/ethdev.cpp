#include "drivers/dpdk/ethdev.hpp"

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <fstream>

#include "drivers/dpdk/sentence.hpp"

namespace bore::drivers {

namespace {

// Everything that a TCP segment may be hashed by; fragments by addresses, so that all of one
// datagram meet. The port takes what of it it has.
constexpr std::uint64_t wanted_hash = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 |
                                      RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_IPV6 |
                                      RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_TCP;
constexpr std::uint64_t wanted_checksums =
    RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
// net_af_xdp fills its queue with so many buffers and keeps as many completions, whatever is asked.
constexpr std::uint32_t af_xdp_ring = 2'048;

std::atomic<unsigned> virtual_devices{0};

// virtio's checksum offload means that its peer need not compute checksums: frames then come with
// partial ones, which must not go out again. net_tap would compute them in software.
bool checksums_are_true(const std::string& driver) {
    return driver != "net_virtio" && driver != "net_virtio_user" && driver != "net_vhost" &&
           driver != "net_tap";
}

// Frames in a capture file (libpcap's format, either byte order); 0 when it is none.
std::uint32_t frames_in(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    std::uint32_t magic = 0;
    file.read(reinterpret_cast<char*>(&magic), sizeof magic);
    const bool same = magic == 0xa1b2'c3d4 || magic == 0xa1b2'3c4d;
    const bool swapped = magic == 0xd4c3'b2a1 || magic == 0x4d3c'b2a1;
    file.seekg(24);
    std::uint32_t count = 0;
    std::array<std::uint32_t, 4> record{};
    while ((same || swapped) && file.read(reinterpret_cast<char*>(record.data()), sizeof record)) {
        ++count;
        file.seekg(swapped ? __builtin_bswap32(record[2]) : record[2], std::ios::cur);
    }
    return count;
}

std::string pcap_arguments(const DeviceSpec& device, const PortOptions& options) {
    std::string arguments;
    for (unsigned queue = 0; queue < options.queue_count; ++queue) {
        arguments += sentence(",rx_pcap={}", device.name);
    }
    for (unsigned queue = 0; queue < options.queue_count && !device.output_file.empty(); ++queue) {
        arguments +=
            sentence(",tx_pcap={}{}", device.output_file, queue == 0 ? "" : sentence(".{}", queue));
    }
    return (arguments + (device.kind == DeviceKind::pcap_loop ? ",infinite_rx=1" : "")).substr(1);
}

struct VirtualDevice {
    std::string driver;
    std::string arguments;
};

VirtualDevice virtual_device(const DeviceSpec& device, const PortOptions& options,
                             std::uint16_t mtu_bytes) {
    switch (device.kind) {
        case DeviceKind::af_packet: {
            // The rings of the socket are shared with the kernel and cost as much memory as they
            // say: slots of a buffer's size, in blocks of 64 KiB, twice what a NIC has because the
            // kernel hands over whole batches.
            const unsigned slot_bytes = buffer_bytes_for(mtu_bytes);
            const unsigned slots =
                2U * std::bit_ceil(static_cast<unsigned>(
                         std::max(options.receive_descriptors, options.transmit_descriptors)));
            return {"net_af_packet",
                    sentence("iface={},qpairs={},framesz={},blocksz={},framecnt={}", device.name,
                             options.queue_count, slot_bytes, 65'536, std::max(slots, 64U))};
        }
        case DeviceKind::af_xdp:
            return {"net_af_xdp", sentence("iface={},start_queue=0,queue_count={}", device.name,
                                           options.queue_count)};
        case DeviceKind::tap:
            return {"net_tap", sentence("iface={},mac=fixed", device.name)};
        case DeviceKind::ring:
            return {"net_ring", ""};
        case DeviceKind::null:
            return {"net_null",
                    device.frame_bytes == 0 ? "no-rx=1" : sentence("size={}", device.frame_bytes)};
        case DeviceKind::pcap:
        case DeviceKind::pcap_loop:
            return {"net_pcap", pcap_arguments(device, options)};
        case DeviceKind::pci:
            break;
    }
    return {};
}

}  // namespace

std::expected<std::unique_ptr<Ethdev>, std::string> Ethdev::open(const DeviceSpec& device,
                                                                 const PortOptions& options,
                                                                 std::uint16_t mtu_bytes) {
    std::unique_ptr<Ethdev> made{new Ethdev(device, options, mtu_bytes)};
    Eal::forget_errors();
    std::string problem = made->probe();
    if (problem.empty()) {
        problem = made->read_limits();
    }
    if (!problem.empty()) {
        return std::unexpected(problem);
    }
    return made;
}

Ethdev::~Ethdev() {
    if (port_id_ != no_port) {
        if (started_) {
            rte_eth_dev_stop(port_id_);
        }
        rte_eth_dev_close(port_id_);
    }
    if (!virtual_name_.empty()) {
        rte_eal_hotplug_remove("vdev", virtual_name_.c_str());
    }
}

std::string Ethdev::refused(std::string_view step, int error) const {
    const std::string said = Eal::latest_error();
    return sentence("packet port \"{}\": {} {}: {}{}; its log lines say more", device_.text,
                    driver_.empty() ? "DPDK" : driver_, step, rte_strerror(std::abs(error)),
                    said.empty() ? "" : " (" + said + ")");
}

std::string Ethdev::probe() {
    std::string name = device_.name;
    if (device_.kind != DeviceKind::pci) {
        const VirtualDevice wanted = virtual_device(device_, options_, mtu_bytes_);
        driver_ = wanted.driver;
        name = sentence("{}{}", wanted.driver, virtual_devices++);
        const int error = rte_eal_hotplug_add("vdev", name.c_str(), wanted.arguments.c_str());
        if (error != 0) {
            return refused("does not open it", error);
        }
        virtual_name_ = name;
    }
    std::uint16_t port_id = no_port;
    if (rte_eth_dev_get_port_by_name(name.c_str(), &port_id) != 0) {
        return sentence(
            "packet port \"{}\": no driver of DPDK took it; is it a NIC that DPDK "
            "{} supports, and is its driver package installed?",
            device_.text, "22.11");
    }
    port_id_ = port_id;
    return {};
}

std::string Ethdev::read_limits() {
    rte_eth_dev_info info{};
    if (const int error = rte_eth_dev_info_get(port_id_, &info); error != 0) {
        return refused("does not tell its limits", error);
    }
    driver_ = info.driver_name;
    const std::uint16_t queues = std::min(info.max_rx_queues, info.max_tx_queues);
    if (queues < options_.queue_count) {
        return sentence(
            "packet port \"{}\": it has {} for {} ({}); give --workers {}, or use a NIC with more "
            "queues",
            device_.text, counted(queues, "queue"), counted(options_.queue_count, "worker"),
            driver_, queues);
    }
    if (device_.kind == DeviceKind::pci && info.max_mtu != 0 && mtu_bytes_ > info.max_mtu) {
        return sentence(
            "packet port \"{}\": an mtu of {} is more than its {} bytes ({}); give "
            "mtu={} or less",
            device_.text, mtu_bytes_, info.max_mtu, driver_, info.max_mtu);
    }
    if (checksums_are_true(driver_)) {
        receive_offloads_ = info.rx_offload_capa & wanted_checksums;
    }
    receive_checksum_ = (receive_offloads_ & RTE_ETH_RX_OFFLOAD_TCP_CKSUM) != 0;
    transmit_offloads_ = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    hash_functions_ = info.flow_type_rss_offloads & wanted_hash;
    if (device_.kind == DeviceKind::af_xdp) {  // its rings are powers of two
        options_.receive_descriptors = std::bit_ceil(options_.receive_descriptors);
        options_.transmit_descriptors = options_.receive_descriptors;
    }
    // e1000e, virtio and others have limits and steps of their own.
    if (const int error = rte_eth_dev_adjust_nb_rx_tx_desc(port_id_, &options_.receive_descriptors,
                                                           &options_.transmit_descriptors);
        error != 0) {
        return refused("has no such number of descriptors", error);
    }
    return {};
}

int Ethdev::socket() const {
    return rte_eth_dev_socket_id(port_id_);
}

std::uint32_t Ethdev::buffers_on_queues() const {
    std::uint32_t each =
        std::uint32_t{options_.receive_descriptors} + std::uint32_t{options_.transmit_descriptors};
    if (device_.kind == DeviceKind::af_xdp) {
        each += 2 * af_xdp_ring;
    } else if (device_.kind == DeviceKind::pcap_loop) {
        each += frames_in(device_.name);  // each queue keeps the whole file
    }
    return each * options_.queue_count;
}

std::array<std::uint8_t, 6> Ethdev::mac() const {
    rte_ether_addr address{};
    rte_eth_macaddr_get(port_id_, &address);
    std::array<std::uint8_t, 6> bytes{};
    std::ranges::copy(address.addr_bytes, bytes.begin());
    if (bytes ==
        std::array<std::uint8_t, 6>{}) {  // net_ring has none: locally administered, "bore"
        bytes = {0x02, 'b', 'o', 'r', 'e', static_cast<std::uint8_t>(port_id_)};
    }
    return bytes;
}

std::string Ethdev::configure() {
    rte_eth_conf conf{};
    // Virtual drivers without an own MTU refuse any but the standard one here; theirs is what their
    // buffers hold.
    if (device_.kind == DeviceKind::pci) {
        conf.rxmode.mtu = mtu_bytes_;
    }
    conf.rxmode.offloads = receive_offloads_;
    conf.txmode.offloads = transmit_offloads_;
    if (options_.queue_count > 1 && hash_functions_ != 0) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = hash_functions_;
    }
    // intr_conf.lsc stays 0: net_e1000_em misses link interrupts under MSI-X, and with them on it
    // would answer from memory. Polled, it reads the register.
    const int error =
        rte_eth_dev_configure(port_id_, options_.queue_count, options_.queue_count, &conf);
    return error == 0 ? std::string{} : refused("refuses the configuration", error);
}

std::string Ethdev::set_up_queues(const FramePool& pool) {
    rte_eth_dev_info info{};
    if (const int error = rte_eth_dev_info_get(port_id_, &info); error != 0) {
        return refused("does not tell its limits", error);
    }
    rte_eth_rxconf receive = info.default_rxconf;
    receive.offloads = receive_offloads_;
    // A queue that nobody empties must not stop the others.
    receive.rx_drop_en = options_.queue_count > 1 ? 1 : 0;
    rte_eth_txconf transmit = info.default_txconf;
    transmit.offloads = transmit_offloads_;
    const auto node = static_cast<unsigned>(std::max(socket(), 0));
    for (std::uint16_t queue = 0; queue < options_.queue_count; ++queue) {
        int error = rte_eth_rx_queue_setup(port_id_, queue, options_.receive_descriptors, node,
                                           &receive, pool.mempool());
        if (error != 0) {
            return refused(sentence("does not set up receive queue {}", queue), error);
        }
        error =
            rte_eth_tx_queue_setup(port_id_, queue, options_.transmit_descriptors, node, &transmit);
        if (error != 0) {
            return refused(sentence("does not set up transmit queue {}", queue), error);
        }
    }
    return {};
}

std::expected<void, std::string> Ethdev::start(const FramePool& pool) {
    Eal::forget_errors();
    std::string problem = configure();
    if (problem.empty()) {
        problem = set_up_queues(pool);
    }
    if (!problem.empty()) {
        return std::unexpected(problem);
    }
    if (device_.kind == DeviceKind::tap) {
        rte_eth_dev_set_mtu(port_id_, mtu_bytes_);
    }
    if (const int error = rte_eth_dev_start(port_id_); error != 0) {
        return std::unexpected(refused("does not start", error));
    }
    started_ = true;
    // Neighbour discovery asks multicast addresses that depend on the addresses the kernel has
    // now; some drivers pass everything anyway and know no such mode.
    rte_eth_allmulticast_enable(port_id_);
    rte_eth_stats_reset(port_id_);
    return {};
}

}  // namespace bore::drivers
