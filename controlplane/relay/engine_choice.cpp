// Opens what the packet engine needs in this order, and names what is missing: privileges, DPDK,
// ports, exception interfaces, kernel rules; then gives the privileges up that only opening needed.
#include "controlplane/relay/engine_choice.hpp"

#include <algorithm>
#include <fstream>
#include <random>
#include <string_view>
#include <thread>
#include <utility>

#include "drivers/dpdk/devices.hpp"
#include "drivers/dpdk/idle.hpp"
#include "drivers/dpdk/memory.hpp"
#include "drivers/dpdk/port.hpp"
#include "drivers/kernel/exception_interface.hpp"
#include "drivers/kernel/privileges.hpp"
#include "drivers/packet_engine/messages.hpp"
#include "drivers/stream_engine/stream_engine.hpp"

namespace bore::relay {

namespace {

using config::EngineChoice;
using config::ServerConfig;

// IPv4 and TCP headers; what IPv6 has more; a timestamp option on one leg only.
constexpr std::uint16_t headers_v4_bytes = 40;
constexpr std::uint16_t more_of_v6_bytes = 20;
constexpr std::uint16_t timestamp_bytes = 12;

template <typename Number>
std::vector<int> to_ints(const std::vector<Number>& numbers) {
    return {numbers.begin(), numbers.end()};
}

// "2-3,6" of /sys/devices/system/cpu/isolated; empty where no CPU is isolated.
std::vector<int> isolated_cpus() {
    std::ifstream file("/sys/devices/system/cpu/isolated");
    std::vector<int> cpus;
    int first = 0;
    while (file >> first) {
        int last = first;
        if (file.peek() == '-') {
            file.ignore();
            file >> last;
        }
        for (int cpu = first; cpu <= last; ++cpu) {
            cpus.push_back(cpu);
        }
        if (file.peek() == ',') {
            file.ignore();
        }
    }
    return cpus;
}

// The packet workers' CPUs: those that were named, else the isolated ones.
std::vector<int> packet_cpus(const ServerConfig& config) {
    return config.cpus.empty() ? isolated_cpus() : to_ints(config.cpus);
}

std::uint32_t packet_workers(const ServerConfig& config, const std::vector<int>& cpus) {
    if (config.workers) {
        return *config.workers;
    }
    if (!cpus.empty()) {
        return static_cast<std::uint32_t>(std::min<std::size_t>(cpus.size(), config::max_workers));
    }
    return config::worker_count(config, std::thread::hardware_concurrency());
}

std::uint64_t random_seed() {
    std::random_device device;
    return (std::uint64_t{device()} << 32U) | device();
}

bool without_hugepages(const ServerConfig& config) {
    return config.packet_eal && config.packet_eal->find("--no-huge") != std::string::npos;
}

std::string interface_name(const config::PacketPort& port, std::size_t index) {
    return port.interface.empty() ? "bore" + std::to_string(index) : port.interface;
}

std::expected<std::vector<drivers::DeviceSpec>, std::string> devices_of(
    const ServerConfig& config) {
    std::vector<drivers::DeviceSpec> devices;
    for (const config::PacketPort& port : config.packet_ports) {
        auto device = drivers::parse_device(port.device);
        if (!device) {
            return std::unexpected("packet-port: " + device.error());
        }
        devices.push_back(std::move(*device));
    }
    return devices;
}

std::expected<void, std::string> check_privileges(const ServerConfig& config,
                                                  const std::vector<drivers::DeviceSpec>& devices) {
    drivers::PrivilegeNeeds needs{.hugepages = !without_hugepages(config)};
    for (const drivers::DeviceSpec& device : devices) {
        needs.vfio = needs.vfio || device.kind == drivers::DeviceKind::pci;
        needs.af_packet = needs.af_packet || device.kind == drivers::DeviceKind::af_packet;
        needs.af_xdp = needs.af_xdp || device.kind == drivers::DeviceKind::af_xdp;
    }
    const std::vector<std::string> missing = drivers::missing_privileges(needs);
    if (missing.empty()) {
        return {};
    }
    std::string text;
    for (const std::string& sentence : missing) {
        text += (text.empty() ? "" : "; ") + sentence;
    }
    return std::unexpected(text);
}

std::expected<void, std::string> open_eal(const ServerConfig& config,
                                          const std::vector<drivers::DeviceSpec>& devices,
                                          const std::vector<int>& cpus, Log& log,
                                          PacketParts& parts) {
    drivers::EalOptions options{.memory_mib = config.packet_memory_mib,
                                .worker_cpus = cpus,
                                .extra_arguments = config.packet_eal.value_or(""),
                                .open_signals = {drivers::privilege_signal()}};
    for (const drivers::DeviceSpec& device : devices) {
        options.devices.push_back(device.text);
    }
    options.log = [&log, opener = std::this_thread::get_id()](drivers::EalLogLevel level,
                                                              std::string_view line) {
        // Failures come back as sentences of ours; what else DPDK says is for who asks for it. The
        // log belongs to one thread, so what DPDK's own threads say is lost.
        if (level <= drivers::EalLogLevel::warning && std::this_thread::get_id() == opener) {
            log.debug("DPDK: " + std::string(line));
        }
    };
    auto eal = drivers::make_eal(options);
    if (!eal) {
        return std::unexpected(eal.error());
    }
    parts.eal = std::move(*eal);
    parts.memory = without_hugepages(config) ? packet::make_ordinary_memory()
                                             : drivers::make_hugepage_memory();
    return {};
}

std::expected<void, std::string> open_table(const ServerConfig& config, PacketParts& parts) {
    auto table = packet::FlowTable::make(*parts.memory, config.packet_max_flows,
                                         parts.shape.packet_workers, random_seed());
    if (!table) {
        return std::unexpected(
            "packet-max-flows " + std::to_string(config.packet_max_flows) + ": " + table.error() +
            "; it lies in hugepages of its own, beside packet-memory-mib: free 8 MiB "
            "of them, and 256 bytes for each flow");
    }
    parts.table = std::move(*table);
    return {};
}

std::expected<void, std::string> open_ports(const ServerConfig& config, PacketParts& parts) {
    const std::uint32_t workers = parts.shape.packet_workers;
    std::vector<drivers::PortOptions> options;
    for (const config::PacketPort& port : config.packet_ports) {
        options.push_back({.device = port.device,
                           .queue_count = static_cast<std::uint16_t>(workers),
                           .mtu_bytes = port.mtu});
    }
    const drivers::PoolOptions pool{
        .thread_count = workers + 2,
        .reserve_frames = workers * (2 * static_cast<std::uint32_t>(drivers::frame_ring_capacity) +
                                     drivers::held_frames_per_worker)};
    auto ports = drivers::make_ports(*parts.eal, options, pool);
    if (!ports) {
        return std::unexpected(ports.error());
    }
    for (auto& port : *ports) {
        parts.ports.push_back({.port = std::move(port)});
    }
    return {};
}

std::expected<void, std::string> open_kernel_side(const ServerConfig& config,
                                                  const std::vector<drivers::DeviceSpec>& devices,
                                                  Log& log, PacketParts& parts) {
    for (std::size_t index = 0; index < parts.ports.size(); ++index) {
        const config::PacketPort& port = config.packet_ports[index];
        const packet::PortInfo& info = parts.ports[index].port->info();
        drivers::ExceptionInterfaceOptions options{
            .name = interface_name(port, index), .mac = info.mac, .mtu_bytes = info.mtu_bytes};
        for (const config::InterfaceAddress& address : port.addresses) {
            options.addresses.push_back(address.address.to_string() + "/" +
                                        std::to_string(address.prefix_bits));
        }
        for (const config::IpAddress& gateway : port.gateways) {
            options.gateways.push_back(gateway.to_string());
        }
        auto exception = drivers::make_exception_interface(options);
        if (!exception) {
            return std::unexpected("packet-port " + port.device + ": " + exception.error());
        }
        parts.ports[index].exception = std::move(*exception);
        auto rules = drivers::make_kernel_rules(
            {.exception_interface = options.name,
             .kernel_device = devices[index].on_kernel_interface() ? devices[index].name : "",
             .frames_are_copies = devices[index].kind == drivers::DeviceKind::af_packet});
        if (!rules) {
            return std::unexpected("packet-port " + port.device + ": " + rules.error());
        }
        for (const std::string& warning : (*rules)->warnings()) {
            log.warning("packet-port " + port.device + ": " + warning);
        }
        parts.rules.push_back(std::move(*rules));
        log.info("packet port", {{"device", info.name},
                                 {"driver", info.driver},
                                 {"interface", options.name},
                                 {"mtu", info.mtu_bytes},
                                 {"queues", info.queue_count}});
    }
    return {};
}

std::expected<PacketParts, std::string> open_all(const ServerConfig& config, Log& log) {
    PacketParts parts;
    const auto devices = devices_of(config);
    if (!devices) {
        return std::unexpected(devices.error());
    }
    if (auto allowed = check_privileges(config, *devices); !allowed) {
        return std::unexpected(allowed.error());
    }
    const std::vector<int> cpus = packet_cpus(config);
    parts.shape.packet_workers = packet_workers(config, cpus);
    parts.shape.stream_workers = config::worker_count(config, std::thread::hardware_concurrency());
    if (auto eal = open_eal(config, *devices, cpus, log, parts); !eal) {
        return std::unexpected(eal.error());
    }
    // Here and not with the engine, so that `auto` can still choose the other one.
    if (auto table = open_table(config, parts); !table) {
        return std::unexpected(table.error());
    }
    if (auto ports = open_ports(config, parts); !ports) {
        return std::unexpected(ports.error());
    }
    if (auto kernel = open_kernel_side(config, *devices, log, parts); !kernel) {
        return std::unexpected(kernel.error());
    }
    return parts;
}

drivers::StreamEngineOptions stream_options(const ServerConfig& config,
                                            std::uint32_t worker_count) {
    drivers::StreamEngineOptions options{.worker_count = worker_count,
                                         .busy_poll_us = config.busy_poll_us};
    switch (config.stream_driver) {
        case config::StreamDriver::automatic:
            options.driver = drivers::StreamDriver::automatic;
            break;
        case config::StreamDriver::io_uring:
            options.driver = drivers::StreamDriver::io_uring;
            break;
        case config::StreamDriver::epoll:
            options.driver = drivers::StreamDriver::epoll;
            break;
    }
    return options;
}

drivers::IdleMode idle_mode(config::PacketIdle idle) {
    switch (idle) {
        case config::PacketIdle::spin:
            return drivers::IdleMode::spin;
        case config::PacketIdle::pause:
            break;
        case config::PacketIdle::sleep:
            return drivers::IdleMode::sleep;
    }
    return drivers::IdleMode::pause;
}

// The MSS that both legs are told, so that what one leg's peer sends fits the other leg's frames.
std::uint16_t largest_payload(const ServerConfig& config,
                              const std::vector<drivers::EnginePort>& ports) {
    std::uint16_t mtu = ports.front().port->info().mtu_bytes;
    bool any_v6 = false;
    for (std::size_t index = 0; index < ports.size(); ++index) {
        mtu = std::min(mtu, ports[index].port->info().mtu_bytes);
        for (const config::InterfaceAddress& address : config.packet_ports[index].addresses) {
            any_v6 = any_v6 || !address.address.is_v4();
        }
    }
    return static_cast<std::uint16_t>(mtu - headers_v4_bytes - timestamp_bytes -
                                      (any_v6 ? more_of_v6_bytes : 0));
}

}  // namespace

std::expected<std::optional<PacketParts>, std::string> open_packet_ports(const ServerConfig& config,
                                                                         Log& log) {
    if (config.engine == EngineChoice::stream || config.packet_ports.empty()) {
        return std::nullopt;
    }
    auto parts = open_all(config, log);
    if (!parts) {
        if (config.engine == EngineChoice::packet) {
            return std::unexpected("engine = packet: " + parts.error());
        }
        log.warning("the packet engine cannot run, the stream engine does: " + parts.error());
        return std::nullopt;
    }
    return std::move(*parts);
}

bool gives_up_privileges(const ServerConfig& config, bool has_parts) {
    if (config.engine == EngineChoice::stream || config.packet_ports.empty()) {
        return false;
    }
    // Without CAP_NET_ADMIN there is nothing to reduce to.
    return has_parts || drivers::missing_privileges({}).empty();
}

std::expected<void, std::string> give_up_privileges(const ServerConfig& config) {
    return drivers::drop_privileges({.user = config.packet_user.value_or("")});
}

std::expected<std::unique_ptr<abi::Engine>, std::string> make_engine(const ServerConfig& config,
                                                                     std::uint32_t worker_count,
                                                                     PacketParts* parts,
                                                                     abi::Statistics& statistics,
                                                                     abi::TunnelTable& tunnels) {
    drivers::StreamEngineOptions stream = stream_options(config, worker_count);
    if (parts == nullptr) {
        stream.cpus = to_ints(config.cpus);
        return drivers::make_stream_engine(stream, statistics, tunnels);
    }
    drivers::PacketEngineOptions options{.stream = stream,
                                         .worker_count = parts->shape.packet_workers,
                                         .cpus = packet_cpus(config),
                                         .idle = idle_mode(config.packet_idle)};
    options.slow_path.control_port = config.control_port;
    options.slow_path.max_payload_with_options = largest_payload(config, parts->ports);
    options.slow_path.linger_ns = config.packet_linger_s * base::second_ns;
    options.slow_path.hold_deadline_ns =
        config.visitor_claim_timeout_ms * base::millisecond_ns + 5 * base::second_ns;
    options.on_thread_start = [] { (void)drivers::Eal::register_thread(); };
    options.on_thread_end = [] { drivers::Eal::unregister_thread(); };
    options.power_pause = drivers::has_power_pause() ? &drivers::power_pause : nullptr;
    return drivers::make_packet_engine(options, std::move(parts->ports), std::move(parts->table),
                                       statistics, tunnels);
}

}  // namespace bore::relay
