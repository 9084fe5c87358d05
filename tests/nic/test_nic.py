#!/usr/bin/env python3
"""Tests of tools/nic against a made-up machine: a folder that looks like sysfs, /proc and /dev, and
an ip(8) that answers from files. Writing to a driver's files only shows in the files here, so a test
plays the kernel where it matters.

Uses the standard library alone. Called by meson.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

NIC = pathlib.Path(__file__).resolve().parents[2] / "tools/nic"
FREE, USED, DISK, BRIDGE = "0000:03:00.0", "0000:03:00.1", "0000:04:00.0", "0000:00:01.0"

# Each question is a file with its answer.
IP = """#!/bin/sh
shift
answer=$(dirname "$0")/$(echo "$*" | tr ' ' _)
[ -f "$answer" ] && exec cat "$answer"
echo '[]'
"""


class MadeUpMachine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.device(FREE, driver="ixgbe", interface="eth1", group="7")
        self.device(USED, driver="ixgbe", interface="eth2", group="8", numa_node="1")
        self.device(DISK, driver="nvme", group="9", kind="0x010802")
        self.device(BRIDGE, driver="pcieport", group="7", kind="0x060400")
        for name in ("ixgbe", "vfio-pci"):
            (self.root / "sys/bus/pci/drivers" / name).mkdir(parents=True, exist_ok=True)
        self.write("sys/bus/pci/drivers_probe", "")
        self.hugepages("sys/kernel/mm/hugepages", 512)
        self.hugepages("sys/devices/system/node/node1/hugepages", 512)
        self.write("sys/devices/system/cpu/isolated", "2-3\n")
        self.write("sys/devices/system/cpu/nohz_full", "2-3\n")
        self.write("proc/mounts", "none /dev/hugepages hugetlbfs rw 0 0\n")
        self.write("dev/vfio/vfio", "")
        self.write("dev/net/tun", "")
        self.write("bin/ip", IP)
        (self.root / "bin/ip").chmod(0o755)
        self.ip({})

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def read(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def link(self, path, target):
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        (self.root / target).mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.root / target)

    def device(self, address, driver, group, interface=None, kind="0x020000", numa_node="-1"):
        home = f"sys/bus/pci/devices/{address}"
        for name, text in (("class", kind), ("vendor", "0x8086"), ("device", "0x10fb"),
                           ("numa_node", numa_node), ("driver_override", "(null)")):
            self.write(f"{home}/{name}", text + "\n")
        self.link(f"{home}/driver", f"sys/bus/pci/drivers/{driver}")
        self.write(f"sys/bus/pci/drivers/{driver}/unbind", "")
        if group:
            self.link(f"{home}/iommu_group", f"sys/kernel/iommu_groups/{group}")
            self.link(f"sys/kernel/iommu_groups/{group}/devices/{address}", home)
        if interface:
            (self.root / home / "net" / interface).mkdir(parents=True)
            for name, text in (("type", "1"), ("operstate", "up"), ("speed", "10000"),
                               ("mtu", "1500")):
                self.write(f"sys/class/net/{interface}/{name}", text + "\n")
            for queue in ("rx-0", "rx-1", "tx-0", "tx-1"):
                (self.root / f"sys/class/net/{interface}/queues/{queue}").mkdir(parents=True)

    def hugepages(self, folder, free):
        self.write(f"{folder}/hugepages-2048kB/free_hugepages", f"{free}\n")

    def ip(self, answers):
        for old in (self.root / "bin").glob("*_*"):
            old.unlink()
        for question, answer in answers.items():
            self.write("bin/" + question.replace(" ", "_"), json.dumps(answer))

    def nic(self, *arguments):
        """Exit code and everything that was said."""
        places = [f"--{name}={self.root / place}"
                  for name, place in (("sysfs", "sys"), ("proc", "proc"), ("dev", "dev"))]
        done = subprocess.run(
            [sys.executable, NIC, *places, *arguments], text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"})
        return done.returncode, done.stdout

    def changed_files(self):
        return {path: path.read_text() for path in sorted(self.root.rglob("*"))
                if path.is_file() and not path.is_symlink()}


class List(MadeUpMachine):
    def test_names_what_there_is(self):
        code, text = self.nic()
        self.assertEqual(code, 0)
        self.assertEqual(self.nic("list"), (0, text))
        for part in (FREE, "[8086:10fb]", "driver ixgbe", "interface eth1 (up, 10000 Mbit/s)",
                     f"IOMMU group 7 together with {BRIDGE}", "NUMA node 1",
                     "queues: 2 receive, 2 transmit, MTU 1500"):
            self.assertIn(part, text)
        self.assertNotIn(DISK, text)

    def test_virtio_has_its_interface_one_deeper(self):
        (self.root / f"sys/bus/pci/devices/{FREE}/virtio0/net/ens3").mkdir(parents=True)
        self.assertIn("ens3", self.nic()[1])

    def test_an_empty_machine(self):
        code, text = self.nic("--sysfs", str(self.root / "nothing"))
        self.assertEqual((code, text.count("none")), (0, 2))


class Bind(MadeUpMachine):
    def test_dry_run_says_every_write_and_makes_none(self):
        before = self.changed_files()
        code, text = self.nic("bind", FREE, "--dry-run")
        home = self.root / "sys/bus/pci/devices" / FREE
        self.assertEqual((code, text.splitlines()), (0, [
            f"would run: echo vfio-pci > {home}/driver_override",
            f"would run: echo {FREE} > {home}/driver/unbind",
            f"would run: echo {FREE} > {self.root}/sys/bus/pci/drivers_probe"]))
        self.assertEqual(self.changed_files(), before)

    def test_without_the_module_it_is_loaded_first(self):
        (self.root / "sys/bus/pci/drivers/vfio-pci").rmdir()
        self.assertTrue(self.nic("bind", FREE, "--dry-run")[1]
                        .startswith("would run: modprobe vfio-pci\n"))

    def test_writes_what_it_said_and_notices_a_kernel_that_did_not_follow(self):
        code, text = self.nic("bind", FREE)
        self.assertEqual(self.read(f"sys/bus/pci/devices/{FREE}/driver_override"), "vfio-pci")
        self.assertEqual(self.read("sys/bus/pci/drivers/ixgbe/unbind"), FREE)
        self.assertEqual(self.read("sys/bus/pci/drivers_probe"), FREE)
        # Nobody moved the link: the driver is the old one still.
        self.assertEqual(code, 1)
        self.assertIn("has driver ixgbe now, not vfio-pci", text)

    def test_bound_already(self):
        self.link(f"sys/bus/pci/devices/{FREE}/driver", "sys/bus/pci/drivers/vfio-pci")
        self.assertEqual(self.nic("bind", FREE), (0, f"{FREE} is bound to vfio-pci already\n"))

    def test_the_short_and_the_capital_form_of_an_address(self):
        self.assertEqual(self.nic("bind", "03:00.0", "--dry-run"), self.nic("bind", FREE, "--dry-run"))

    def test_refuses_an_interface_in_use(self):
        uses = {
            "address show dev eth1": [{"addr_info": [{"local": "192.0.2.9", "scope": "global"}]}],
            "-6 route show default dev eth1": [{"dst": "default"}],
        }
        for question, part in zip(uses, ("eth1 has address 192.0.2.9", "carries a default route")):
            self.ip({question: uses[question]})
            before = self.changed_files()
            code, text = self.nic("bind", FREE)
            self.assertEqual(code, 1)
            self.assertIn(part, text)
            self.assertIn("--force", text)
            self.assertEqual(self.changed_files(), before)
            self.assertEqual(self.nic("bind", FREE, "--force", "--dry-run")[0], 0)
        self.ip({})
        self.link("sys/class/net/eth1/master", "sys/class/net/bond0")
        self.assertIn("eth1 belongs to bond0", self.nic("bind", FREE)[1])

    def test_link_local_addresses_are_no_use(self):
        self.ip({"address show dev eth1": [{"addr_info": [{"local": "fe80::1", "scope": "link"}]}]})
        self.assertEqual(self.nic("bind", FREE, "--dry-run")[0], 0)

    def test_refuses_a_group_with_others_in_use(self):
        self.device("0000:05:00.0", driver="xhci_hcd", group="7", kind="0x0c0330")
        code, text = self.nic("bind", FREE)
        self.assertEqual(code, 1)
        self.assertIn("0000:05:00.0 (xhci_hcd)", text)
        self.assertNotIn(BRIDGE, text)

    def test_refuses_without_an_iommu(self):
        (self.root / f"sys/bus/pci/devices/{FREE}/iommu_group").unlink()
        code, text = self.nic("bind", FREE)
        self.assertEqual(code, 1)
        self.assertIn("intel_iommu=on", text)

    def test_what_is_no_nic(self):
        for address, part in (("eth1", '"eth1" is no PCI address'), ("0000:09:00.0", "no PCI device"),
                              (DISK, "no network device")):
            code, text = self.nic("bind", address)
            self.assertEqual(code, 1)
            self.assertIn(part, text)


class Unbind(MadeUpMachine):
    def test_gives_the_nic_back(self):
        home = f"sys/bus/pci/devices/{FREE}"
        self.link(f"{home}/driver", "sys/bus/pci/drivers/vfio-pci")
        self.write(f"{home}/driver_override", "vfio-pci\n")
        code, text = self.nic("unbind", FREE, "--dry-run")
        self.assertEqual((code, text.splitlines()), (0, [
            f"would run: echo > {self.root / home}/driver_override",
            f"would run: echo {FREE} > {self.root / home}/driver/unbind",
            f"would run: echo {FREE} > {self.root}/sys/bus/pci/drivers_probe"]))
        self.nic("unbind", FREE)
        self.assertEqual(self.read(f"{home}/driver_override"), "\n")
        self.assertEqual(self.read("sys/bus/pci/drivers/vfio-pci/unbind"), FREE)

    def test_with_the_kernel_already(self):
        self.assertEqual(self.nic("unbind", FREE),
                         (0, f"{FREE} is with its kernel driver ixgbe already\n"))


class Check(MadeUpMachine):
    def bound(self, address, group):
        self.link(f"sys/bus/pci/devices/{address}/driver", "sys/bus/pci/drivers/vfio-pci")
        self.write(f"dev/vfio/{group}", "")

    def test_all_is_there(self):
        self.bound(USED, 8)
        code, text = self.nic("check", USED)
        self.assertEqual(code, 0, text)
        self.assertNotIn("MISSING", text)
        self.assertIn("nothing that is required is missing", text)
        for part in ("IOMMU is on, 3 groups", "1024 MiB in pages of 2048 kB",
                     "isolated cores: 2-3", f"hugepages are free on NUMA node 1 of {USED}"):
            self.assertIn(part, text)

    def missing(self, part, *addresses):
        code, text = self.nic("check", *addresses)
        self.assertEqual(code, 1, text)
        lines = [line for line in text.splitlines() if line.startswith("MISSING")]
        self.assertTrue(any(part in line for line in lines), f"{part} not in {lines}")

    def test_each_thing_that_is_required(self):
        self.missing(f"tools/nic bind {FREE}", FREE)
        self.missing("no PCI device 0000:09:00.0", "0000:09:00.0")
        self.bound(USED, 8)
        self.hugepages("sys/devices/system/node/node1/hugepages", 0)
        self.missing("NUMA node 1", USED)
        self.hugepages("sys/kernel/mm/hugepages", 0)
        self.missing("vm.nr_hugepages=512")
        (self.root / "dev/vfio/8").unlink()
        self.missing("/dev/vfio/8 is not there", USED)
        for path, part in (("dev/vfio/vfio", "modprobe vfio"), ("dev/net/tun", "modprobe tun")):
            (self.root / path).unlink()
            self.missing(part)
        self.device("0000:05:00.0", driver="xhci_hcd", group="8", kind="0x0c0330")
        self.missing("0000:05:00.0 (xhci_hcd)", USED)
        code, text = self.nic("--sysfs", str(self.root / "nothing"), "check")
        self.assertEqual(code, 1)
        for part in ("no IOMMU", "intel_iommu=on", "vfio-pci is not loaded", "no hugepage is free"):
            self.assertIn(part, text)

    def test_advice_is_not_required(self):
        self.write("sys/devices/system/cpu/isolated", "\n")
        self.write("sys/devices/system/cpu/nohz_full", "(null)\n")
        self.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
        self.write("proc/mounts", "")
        self.write("proc/77/comm", "irqbalance\n")
        code, text = self.nic("check")
        self.assertEqual(code, 0, text)
        for part in ("advice   no core is isolated", "isolcpus", "governor powersave", "irqbalance",
                     "hugetlbfs is not mounted"):
            self.assertIn(part, text)

    def test_the_unsafe_mode_of_a_machine_without_an_iommu(self):
        empty = self.root / "other"
        (empty / "kernel/iommu_groups").mkdir(parents=True)
        (empty / "bus/pci/drivers/vfio-pci").mkdir(parents=True)
        for path, text in (("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n"),
                           ("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4\n")):
            self.write(f"other/{path}", text)
        code, text = self.nic("--sysfs", str(empty), "check")
        self.assertEqual(code, 0, text)
        self.assertIn("unsafe mode", text)


if __name__ == "__main__":
    unittest.main()
