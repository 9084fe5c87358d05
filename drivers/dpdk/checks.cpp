#include "drivers/dpdk/checks.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "drivers/dpdk/sentence.hpp"

namespace bore::drivers {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kib_per_mib = 1'024;
constexpr std::string_view vfio_driver = "vfio-pci";
// Drivers that stay bound while DPDK works beside them through the verbs interface.
constexpr std::array<std::string_view, 2> shared_drivers{"mlx4_core", "mlx5_core"};
// The older way to user space, without protection by an IOMMU.
constexpr std::array<std::string_view, 2> uio_drivers{"igb_uio", "uio_pci_generic"};

std::string read_word(const fs::path& path) {
    std::ifstream file{path};
    std::string word;
    file >> word;
    return word;
}

std::uint64_t read_number(const fs::path& path) {
    const std::string word = read_word(path);
    std::uint64_t value = 0;
    std::from_chars(word.data(), word.data() + word.size(), value);
    return value;
}

std::string link_name(const fs::path& link) {
    std::error_code error;
    const fs::path target = fs::read_symlink(link, error);
    return error ? std::string{} : target.filename().string();
}

std::vector<std::string> entries(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator{folder, error}) {
        names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text;
}

template <std::size_t size>
bool one_of(const std::array<std::string_view, size>& names, std::string_view name) {
    return std::ranges::find(names, name) != names.end();
}

// Other functions of the group must not belong to the kernel: the IOMMU can not tell them apart.
// Bridges may.
std::string check_group(const fs::path& device, const std::string& address,
                        const std::string& group) {
    for (const std::string& other : entries(device / "iommu_group" / "devices")) {
        const std::string driver = link_name(device.parent_path() / other / "driver");
        if (other == address || driver.empty() || driver == vfio_driver || driver == "pcieport") {
            continue;
        }
        return sentence(
            "packet port \"{}\": it shares IOMMU group {} with {}, which belongs to the kernel "
            "driver "
            "{}; bind all devices of the group with `tools/nic bind {}`, or put the NIC into a "
            "slot with a group of its own",
            address, group, other, driver, other);
    }
    return {};
}

std::string check_vfio(const fs::path& device, const std::string& address,
                       const std::string& root) {
    const std::string group = link_name(device / "iommu_group");
    if (group.empty()) {
        return sentence(
            "packet port \"{}\": it has no IOMMU group; switch the IOMMU on in the firmware and "
            "with "
            "the kernel parameter intel_iommu=on or amd_iommu=on, or, without protection, "
            "`echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`",
            address);
    }
    if (std::string problem = check_group(device, address, group); !problem.empty()) {
        return problem;
    }
    const fs::path folder{root + "/dev/vfio"};
    fs::path file = folder / group;
    std::error_code error;
    if (!fs::exists(file, error)) {
        file = folder / ("noiommu-" + group);
    }
    if (!fs::exists(file, error)) {
        return sentence(
            "packet port \"{}\": there is no {} to open its IOMMU group with; load "
            "VFIO with `modprobe vfio-pci` and `tools/nic bind {}`",
            address, (folder / group).string(), address);
    }
    const int opened = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    if (opened >= 0) {
        ::close(opened);
        return {};
    }
    if (errno == EBUSY) {
        return sentence(
            "packet port \"{}\": another process uses it ({} is open); end that "
            "process, `fuser -v {}` names it",
            address, file.string(), file.string());
    }
    return sentence(
        "packet port \"{}\": {} can not be opened ({}); run as root or give the "
        "relay's user the file with `chown`",
        address, file.string(), std::strerror(errno));
}

bool has_capability(unsigned capability) {
    __user_cap_header_struct header{};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    std::array<__user_cap_data_struct, 2> data{};
    if (::syscall(SYS_capget, &header, data.data()) != 0) {
        return true;  // unknown: the kernel will say so itself
    }
    return (data[capability / 32].effective & (1U << (capability % 32))) != 0;
}

}  // namespace

std::string check_hugepages(std::uint32_t needed_mib, const std::string& root) {
    const fs::path folder{root + "/sys/kernel/mm/hugepages"};
    constexpr std::string_view prefix = "hugepages-";
    std::uint64_t free_kib = 0;
    for (const std::string& size : entries(folder)) {
        if (!size.starts_with(prefix)) {
            continue;
        }
        std::uint64_t page_kib = 0;
        std::from_chars(size.data() + prefix.size(), size.data() + size.size(), page_kib);
        free_kib += page_kib * read_number(folder / size / "free_hugepages");
    }
    const std::uint64_t free_mib = free_kib / kib_per_mib;
    const std::uint64_t wanted_mib = std::max<std::uint64_t>(needed_mib, 2);
    if (free_mib >= wanted_mib) {
        return {};
    }
    const std::uint64_t total = read_number(folder / "hugepages-2048kB" / "nr_hugepages");
    const std::uint64_t least_mib = needed_mib == 0 ? 256 : needed_mib;
    const std::uint64_t missing_pages = (least_mib - std::min(least_mib, free_mib) + 1) / 2;
    return sentence(
        "hugepages: {} MiB {} and {} MiB are free; `echo {} > /proc/sys/vm/nr_hugepages` makes "
        "more, the kernel parameter hugepages={} from the start on",
        least_mib, needed_mib == 0 ? "are a sensible least" : "are needed", free_mib,
        total + missing_pages, total + missing_pages);
}

std::string check_pci_device(const std::string& address, const std::string& root) {
    const fs::path device = fs::path{root + "/sys/bus/pci/devices"} / address;
    std::error_code error;
    if (!fs::exists(device, error)) {
        return sentence(
            "packet port \"{}\": there is no PCI device of this address; `tools/nic "
            "list` shows the NICs of this machine",
            address);
    }
    const std::string device_class = read_word(device / "class");  // 0x020000
    if (!device_class.starts_with("0x02")) {
        return sentence(
            "packet port \"{}\": it is no network device (PCI class {}); `tools/nic list` shows "
            "the "
            "NICs of this machine",
            address, device_class);
    }
    const std::string driver = link_name(device / "driver");
    if (driver == vfio_driver) {
        return check_vfio(device, address, root);
    }
    if (one_of(shared_drivers, driver) || one_of(uio_drivers, driver)) {
        return {};
    }
    if (driver.empty()) {
        return sentence(
            "packet port \"{}\": no driver is bound to it, and DPDK needs {}; `tools/nic "
            "bind {}` binds it",
            address, vfio_driver, address);
    }
    const std::string interfaces = joined(entries(device / "net"));
    return sentence(
        "packet port \"{}\": it belongs to the kernel driver {}{}; `tools/nic bind {}` "
        "takes it from the kernel and binds it to {}",
        address, driver, interfaces.empty() ? "" : sentence(" (interface {})", interfaces), address,
        vfio_driver);
}

std::string check_privileges(const DeviceSpec& device) {
    struct Need {
        unsigned capability;
        std::string_view name;
    };
    std::vector<Need> needs;
    if (device.kind == DeviceKind::af_packet) {
        needs = {{CAP_NET_RAW, "CAP_NET_RAW"}};
    } else if (device.kind == DeviceKind::af_xdp) {
        needs = {
            {CAP_NET_RAW, "CAP_NET_RAW"}, {CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {CAP_BPF, "CAP_BPF"}};
    } else if (device.kind == DeviceKind::tap) {
        needs = {{CAP_NET_ADMIN, "CAP_NET_ADMIN"}};
    }
    for (const Need& need : needs) {
        // CAP_SYS_ADMIN still stands for CAP_BPF.
        if (!has_capability(need.capability) &&
            !(need.capability == CAP_BPF && has_capability(CAP_SYS_ADMIN))) {
            return sentence(
                "packet port \"{}\": no permission, {} is missing; start as root or "
                "with AmbientCapabilities={} in the unit",
                device.text, need.name, need.name);
        }
    }
    return {};
}

std::string check_files(const DeviceSpec& device) {
    if (device.kind != DeviceKind::pcap && device.kind != DeviceKind::pcap_loop) {
        return {};
    }
    if (::access(device.name.c_str(), R_OK) != 0) {
        return sentence("packet port \"{}\": {} can not be read ({}); name a capture file",
                        device.text, device.name, std::strerror(errno));
    }
    if (device.output_file.empty()) {
        return {};
    }
    const fs::path parent = fs::absolute(device.output_file).parent_path();
    if (::access(parent.c_str(), W_OK) != 0) {
        return sentence(
            "packet port \"{}\": {} can not be written ({}); name a file in a folder "
            "that can be written",
            device.text, device.output_file, std::strerror(errno));
    }
    return {};
}

}  // namespace bore::drivers
