"""Private network namespaces for tests, without names and without clean-up.

The test process itself moves into a fresh namespace before each test (0.4 ms), so every port is
free, 7835 included, and nothing reaches the machine's network. The kernel removes a namespace when
its last process or socket is gone. Sockets stay in the namespace they were made in, which is how a
single process can stand on both ends of a veth pair.
"""
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x41
# With these on, a veth carries superframes and checksums that are left to a NIC which is not there.
OFFLOADS = ("tx", "rx", "tso", "gso", "gro", "sg")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))


def become_namespace_root():
    """For an ordinary user: become root of an own user namespace. Must run before any thread exists."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:
            handle.write(text)


def enter_fresh():
    """Moves this thread, and what it starts from now on, into a new namespace with loopback up."""
    _check(_libc.unshare(CLONE_NEWNET))
    _loopback_up()


class Namespace:
    """A network namespace held open by a descriptor."""

    def __init__(self, fresh=True):
        """fresh=False: the one that this thread is in."""
        if not fresh:
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            return
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            enter_fresh()
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)

    @property
    def path(self):
        """What `ip` and other programs open it by, as long as this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def enter(self):
        """For this thread, or for a child before it becomes its program."""
        _check(_libc.setns(self.fd, CLONE_NEWNET))

    @contextlib.contextmanager
    def inside(self):
        """Sockets and processes made in this block belong to this namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self.enter()
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)

    def ip(self, *commands):
        """Several commands of ip(8), each a string, in one process."""
        with self.inside():
            subprocess.run(["ip", "-batch", "-"], input="\n".join(commands).encode(), check=True, timeout=10)

    def run(self, *words):
        with self.inside():
            return subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout

    def sysctl(self, name, value=None):
        """Reads or writes net.<name>, of this namespace."""
        # /proc/self/net and /proc/sys/net show the namespace of the task that opens them.
        with self.inside():
            path = "/proc/sys/net/" + name.replace(".", "/")
            if value is None:
                with open(path, encoding="ascii") as setting:
                    return setting.read().strip()
            with open(path, "w", encoding="ascii") as setting:
                setting.write(str(value))
            return None

    def close(self):
        os.close(self.fd)


def cable(one, one_name, other, other_name, mtu=1500, bare=(False, True)):
    """A veth pair between two namespaces, both ends up and without offloads. `bare`: which ends get no
    link-local address, as befits a NIC that is not the kernel's and a wire's end."""
    one.ip(f"link add {one_name} mtu {mtu} type veth peer name {other_name} mtu {mtu} netns {other.path}")
    for place, name, without in ((one, one_name, bare[0]), (other, other_name, bare[1])):
        if without:
            place.ip(f"link set {name} addrgenmode none")
        place.run("ethtool", "-K", name, *(word for offload in OFFLOADS for word in (offload, "off")))
        place.ip(f"link set {name} up")


class OtherNamespace(Namespace):
    """A second namespace, joined to the present one by a veth pair.

    `relay`: None when the relay runs in the present namespace; then it is reached by HERE. Otherwise
    its address, and the present namespace forwards.
    """

    THERE = "10.98.0.2"

    def __init__(self, relay=None):
        super().__init__()
        here = Namespace(fresh=False)
        try:
            here.ip(f"link add here type veth peer name there netns {self.path}",
                    "addr add 10.98.0.1/24 dev here", "link set here up")
            self.ip(f"addr add {self.THERE}/24 dev there", "link set there up", "route add default via 10.98.0.1")
            self.HERE = relay or "10.98.0.1"
            if relay:
                here.sysctl("ipv4.ip_forward", 1)
        finally:
            here.close()

    def pull_cable(self):
        """Packets vanish in both directions, silently: no FIN, no RST, and no error at the sender."""
        # Taking the link down would remove the route and tell the relay's kernel at once. A real cable
        # is pulled at the far end, so the far end's link is what goes.
        self.ip("link set there down")

    def plug_cable(self):
        self.ip("link set there up", "route replace default via 10.98.0.1")
