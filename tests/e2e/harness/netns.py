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


class OtherNamespace:
    """A second namespace, joined to the present one by a veth pair: here 10.99.0.1, there 10.99.0.2."""

    HERE, THERE = "10.99.0.1", "10.99.0.2"

    def __init__(self):
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            enter_fresh()
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)
        path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self._ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", path)
        self._ip("addr", "add", f"{self.HERE}/24", "dev", "here")
        self._ip("link", "set", "here", "up")
        with self.inside():
            self._ip("addr", "add", f"{self.THERE}/24", "dev", "there")
            self._ip("link", "set", "there", "up")

    @staticmethod
    def _ip(*words):
        subprocess.run(["ip", *words], check=True, timeout=10)

    @contextlib.contextmanager
    def inside(self):
        """Sockets and processes made in this block belong to the other namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _check(_libc.setns(self._fd, CLONE_NEWNET))
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)

    def pull_cable(self):
        """Packets vanish in both directions, silently: no FIN, no RST, and no error at the sender."""
        # Taking the link down would remove the route and tell the relay's kernel at once. A real cable
        # is pulled at the far end, so the far end's link is what goes.
        with self.inside():
            self._ip("link", "set", "there", "down")

    def plug_cable(self):
        with self.inside():
            self._ip("link", "set", "there", "up")

    def close(self):
        os.close(self._fd)
