// What is found wrong before DPDK is asked, on machines made of files: hugepages, PCI devices,
// their drivers and IOMMU groups.
#include "drivers/dpdk/checks.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace bore::drivers {
namespace {

namespace fs = std::filesystem;

constexpr const char* address = "0000:03:00.0";

class Machine : public testing::Test {
  protected:
    void SetUp() override {
        std::array<char, 32> pattern{"/tmp/bore-checks-XXXXXX"};
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        root_ = pattern.data();
        fs::create_directories(root_ + "/sys/bus/pci/devices");
    }
    void TearDown() override { fs::remove_all(root_); }

    void write(const std::string& path, const std::string& text) const {
        fs::create_directories(fs::path{root_ + path}.parent_path());
        std::ofstream{root_ + path} << text << '\n';
    }
    void hugepages(const std::string& kib, int total, int free) const {
        const std::string folder = "/sys/kernel/mm/hugepages/hugepages-" + kib + "kB/";
        write(folder + "nr_hugepages", std::to_string(total));
        write(folder + "free_hugepages", std::to_string(free));
    }
    void nic(const std::string& at, const std::string& driver, const std::string& group,
             const std::string& device_class = "0x020000") const {
        const std::string folder = "/sys/bus/pci/devices/" + at + "/";
        write(folder + "class", device_class);
        if (!driver.empty()) {
            fs::create_directory_symlink("../../drivers/" + driver, root_ + folder + "driver");
        }
        if (!group.empty()) {
            const std::string members = root_ + "/sys/kernel/iommu_groups/" + group + "/devices";
            fs::create_directories(members + "/" + at);
            fs::create_directory_symlink(root_ + "/sys/kernel/iommu_groups/" + group,
                                         root_ + folder + "iommu_group");
        }
    }
    void expect_parts(const std::string& text, std::initializer_list<const char*> parts) const {
        for (const char* part : parts) {
            EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
        }
    }
    [[nodiscard]] std::string check() const { return check_pci_device(address, root_); }
    std::string root_;
};

TEST_F(Machine, EnoughHugepages) {
    hugepages("2048", 100, 64);
    EXPECT_EQ(check_hugepages(128, root_), "");
    EXPECT_EQ(check_hugepages(0, root_), "");
}

TEST_F(Machine, HugepagesOfAllSizesCount) {
    hugepages("2048", 0, 0);
    hugepages("1048576", 2, 1);
    EXPECT_EQ(check_hugepages(1'024, root_), "");
}

TEST_F(Machine, TooFewHugepages) {
    hugepages("2048", 100, 64);
    expect_parts(check_hugepages(512, root_),
                 {"512 MiB", "128 MiB are free", "echo 292 > /proc/sys/vm/nr_hugepages"});
}

TEST_F(Machine, NoHugepagesAtAll) {
    expect_parts(check_hugepages(0, root_),
                 {"0 MiB are free", "echo 128 > /proc/sys/vm/nr_hugepages"});
}

TEST_F(Machine, NoSuchDevice) {
    expect_parts(check(), {address, "no PCI device", "tools/nic list"});
}

TEST_F(Machine, NotANic) {
    nic(address, "nvme", "1", "0x010802");
    expect_parts(check(), {address, "no network device", "0x010802"});
}

TEST_F(Machine, StillTheKernels) {
    nic(address, "ixgbe", "7");
    fs::create_directories(root_ + "/sys/bus/pci/devices/0000:03:00.0/net/enp3s0");
    expect_parts(check(),
                 {address, "kernel driver ixgbe", "enp3s0", "tools/nic bind 0000:03:00.0"});
}

TEST_F(Machine, BoundToNothing) {
    nic(address, "", "7");
    expect_parts(check(), {address, "no driver", "tools/nic bind 0000:03:00.0"});
}

TEST_F(Machine, NoIommu) {
    nic(address, "vfio-pci", "");
    expect_parts(check(), {address, "no IOMMU group", "intel_iommu=on", "unsafe_noiommu_mode"});
}

TEST_F(Machine, GroupSharedWithTheKernel) {
    nic(address, "vfio-pci", "7");
    nic("0000:03:00.1", "ixgbe", "7");
    write("/dev/vfio/7", "");
    expect_parts(check(), {address, "IOMMU group 7", "0000:03:00.1", "ixgbe"});
}

TEST_F(Machine, BridgesAndUnboundDevicesMayShareTheGroup) {
    nic(address, "vfio-pci", "7");
    nic("0000:00:1c.0", "pcieport", "7", "0x060400");
    nic("0000:03:00.1", "", "7");
    nic("0000:03:00.2", "vfio-pci", "7");
    write("/dev/vfio/7", "");
    EXPECT_EQ(check(), "");
}

TEST_F(Machine, VfioIsNotLoaded) {
    nic(address, "vfio-pci", "7");
    expect_parts(check(), {address, "/dev/vfio/7", "modprobe vfio-pci"});
}

TEST_F(Machine, WithoutProtectionTheFileHasAnotherName) {
    nic(address, "vfio-pci", "7");
    write("/dev/vfio/noiommu-7", "");
    EXPECT_EQ(check(), "");
}

TEST_F(Machine, DriversThatWorkBesideTheKernels) {
    nic(address, "mlx5_core", "7");
    EXPECT_EQ(check(), "");
}

TEST_F(Machine, CaptureFiles) {
    DeviceSpec device{.kind = DeviceKind::pcap, .text = "pcap:x", .name = root_ + "/none"};
    expect_parts(check_files(device), {"pcap:x", "can not be read"});
    write("/in", "");
    device.name = root_ + "/in";
    EXPECT_EQ(check_files(device), "");
    device.output_file = root_ + "/no/folder/out";
    expect_parts(check_files(device), {"can not be written"});
    device.output_file = root_ + "/out";
    EXPECT_EQ(check_files(device), "");
}

}  // namespace
}  // namespace bore::drivers
