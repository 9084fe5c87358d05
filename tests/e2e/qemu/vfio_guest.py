"""The guest of vfio_checks.py, from outside: its two network cards are TAP devices in namespaces, its
console a file, its second serial port runs commands, QEMU's monitor pulls cables.

Nothing here outlives this process: QEMU is killed by the kernel when the process that started it dies, a
TAP goes with its descriptor, a namespace with its last process.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import threading
import time

from harness import netns

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002
PR_SET_PDEATHSIG = 1
BOOT_TIMEOUT_S = 90
CARDS = ("e1000e", "virtio-net-pci,disable-legacy=on,iommu_platform=on")
# Without interrupt remapping VFIO refuses to work; the guest's addresses are wider than the default 39 bits.
IOMMU = "intel-iommu,intremap=on,caching-mode=on,aw-bits=48"
MEMORY_MIB, HUGEPAGES = 1024, 192


def end_with_parent():
    """In a child before it becomes its program: it does not outlive the thread that started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def open_tap(name):
    """A TAP device in this thread's namespace; it goes with the descriptor."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name, IFF_TAP_NO_PI))
    return tap


def without_offloads(namespace, name):
    """With these on, frames are superframes without checksums, which no wire carries."""
    namespace.run("ethtool", "-K", name, *(word for feature in ("tx", "tso", "gso", "gro", "sg")
                                           for word in (feature, "off")))


class Side:
    """A namespace with one TAP device, behind which there is a card of the guest."""

    def __init__(self, *addresses):
        self.namespace = netns.Namespace()
        with self.namespace.inside():
            self.tap = open_tap(b"wire")
        self.namespace.ip("link set wire addrgenmode none")
        without_offloads(self.namespace, "wire")
        self.namespace.ip(*(f"addr add {address} dev wire" for address in addresses), "link set wire up")

    def close(self):
        self.namespace.close()


class Vlan:
    """A TAP device whose frames travel over the side's wire with a VLAN tag. By hand, since not every kernel
    has VLAN devices; the packet socket gives the tag of what it receives apart from the frame."""

    SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4

    def __init__(self, side, vlan_id, *addresses):
        self._tag = struct.pack("!HH", 0x8100, vlan_id)
        with side.namespace.inside():
            self._tap = open_tap(b"tagged")
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            self._wire.setsockopt(self.SOL_PACKET, self.PACKET_AUXDATA, 1)
            self._wire.bind(("wire", 0))
        without_offloads(side.namespace, "tagged")
        # Room for the tag on a wire of the same MTU.
        side.namespace.ip("link set tagged mtu 1496", *(f"addr add {address} dev tagged" for address in addresses),
                          "link set tagged up")
        for loop in (self._to_wire, self._from_wire):
            threading.Thread(target=loop, daemon=True).start()

    def _to_wire(self):
        while True:
            frame = os.read(self._tap, 2048)
            with contextlib.suppress(OSError):  # a full queue loses frames, as a wire does
                self._wire.send(frame[:12] + self._tag + frame[12:])

    def _from_wire(self):
        while True:
            frame, aside, _, sender = self._wire.recvmsg(2048, 64)
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            if frame[12:16] == self._tag:
                frame = frame[:12] + frame[16:]
            elif self._tag_of(aside) != self._tag[2:]:
                continue
            with contextlib.suppress(OSError):
                os.write(self._tap, frame)

    def _tag_of(self, aside):
        """struct tpacket_auxdata: status at 0, tag control information at 16."""
        for level, kind, data in aside:
            if (level, kind) == (self.SOL_PACKET, self.PACKET_AUXDATA):
                status, tag = struct.unpack_from("=I12xH", data)
                return struct.pack("!H", tag) if status & self.TP_STATUS_VLAN_VALID else None
        return None


class Guest:
    """QEMU with an IOMMU and one card for each side, at 0000:00:04.0 and the following slots."""

    def __init__(self, command, folder, append, sides, kept):
        """`command`: QEMU's, without memory and devices; `kept`: an ExitStack that ends QEMU."""
        self.console_file = pathlib.Path(folder) / "console"
        self.console_file.touch()
        servers = {name: self._listen(folder / name) for name in ("serial", "monitor")}
        words = [*command, "-m", str(MEMORY_MIB), "-initrd", folder / "initramfs", "-append",
                 f"{append} intel_iommu=on hugepages={HUGEPAGES}", "-device", IOMMU]
        for number, (side, card) in enumerate(zip(sides, CARDS), start=1):
            words += ["-netdev", f"tap,id=net{number},fd={side.tap}", "-device",
                      f"{card},id=nic{number},netdev=net{number},mac=52:54:00:00:00:0{number},romfile=,"
                      f"bus=pcie.0,addr={number + 3}"]
        words += ["-serial", f"file:{self.console_file}",
                  "-chardev", f"socket,id=serial,path={folder / 'serial'}", "-serial", "chardev:serial",
                  "-chardev", f"socket,id=monitor,path={folder / 'monitor'}", "-mon", "chardev=monitor,mode=control"]
        with open(folder / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(  # pylint: disable=consider-using-with
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[side.tap for side in sides], preexec_fn=end_with_parent)
        kept.callback(self.kill)
        self._log = folder / "qemu.log"
        self._received = b""
        self._commands = 0
        self._serial, self._monitor = (self._accept(servers[name]) for name in ("serial", "monitor"))
        for side in sides:
            os.close(side.tap)
        self._told = self._monitor.makefile("r", encoding="utf-8")
        self._told.readline()  # the greeting
        self.tell("qmp_capabilities")
        self._read_to(rb"^ready\r?\n", BOOT_TIMEOUT_S)

    @staticmethod
    def _listen(path):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(1)
        server.settimeout(0.2)
        return server

    def _accept(self, server):
        """QEMU calls when it starts."""
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = server.accept()[0]
                server.close()
                return connection
            except TimeoutError as error:
                if self.qemu.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"QEMU did not start: {self._log.read_text(errors='replace')}") from error

    def _read_to(self, pattern, timeout):
        """What the second serial port says up to the pattern, and the match."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self._received, re.MULTILINE)):
            self._serial.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._serial.recv(65536)
            except TimeoutError:
                raise AssertionError(f"the guest said nothing for {timeout} s") from None
            assert piece, f"QEMU ended with {self.qemu.wait(5)}"
            self._received += piece
        text, self._received = self._received[:match.start()], self._received[match.end():]
        return text.decode(errors="replace"), match

    def run(self, command, timeout=20.0):
        """A line for the guest's shell: (status, output)."""
        self._serial.sendall(command.encode() + b"\n")
        self._commands += 1
        text, match = self._read_to(rb"^status (\d+) of %d\r?\n" % self._commands, timeout)
        # Answers to earlier commands, which nobody waited for, go first.
        return int(match.group(1)), re.split(r"^status \d+ of \d+\n", text, flags=re.MULTILINE)[-1]

    def tell(self, command, **arguments):
        """A command for QEMU's monitor."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._monitor.settimeout(10)
        self._monitor.sendall(json.dumps(request).encode() + b"\n")
        while "return" not in (answer := json.loads(self._told.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def set_link(self, number, up):
        """The cable of a card, 1 or 2."""
        self.tell("set_link", name=f"nic{number}", up=up)

    def console(self):
        return self.console_file.read_text(errors="replace").replace("\r", "")

    def power_off(self, timeout=20.0):
        """QEMU's exit status."""
        self._serial.sendall(b"poweroff -f\n")
        return self.qemu.wait(timeout)

    def kill(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
        self.qemu.wait()
