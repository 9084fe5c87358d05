"""A relay with two ports: visitors on one side, tunnel clients on the other, and on either side
perhaps a wire that misbehaves (tests/wire).

    visitors (the test's namespace)                 relay                         clients
    wire0 10.99.0.1 ──[ bore-wire ]── nic0 10.99.9.1 · 10.97.9.1 nic1 ──[ bore-wire ]── wire1 10.97.0.1
"""
import contextlib
import errno
import json
import signal
import socket
import time

from harness import netns, programs, protocol, site, traffic
from harness.tunnels import ProgramTunnel


class Wire(programs.Process):
    """bore-wire between two ends of cables."""

    def __init__(self, program, namespace, left, right, impairments):
        super().__init__([program, "--left", f"{namespace.path}:{left}", "--right", f"{namespace.path}:{right}",
                          *(str(word) for word in impairments)])
        self.wait_for_log("ready")
        self._cut = False

    def counters(self):
        """{"from_left": {...}, "from_right": {...}}"""
        before = len(self.output())
        self.signal(signal.SIGUSR1)
        traffic.eventually(lambda: self.output()[before:].endswith("\n"), 5, "the wire's counters")
        return json.loads(self.output()[before:].splitlines()[-1])

    def cut(self):
        assert not self._cut
        self._cut = True
        self.signal(signal.SIGUSR2)

    def mend(self):
        assert self._cut
        self._cut = False
        self.signal(signal.SIGUSR2)

    def check(self):
        """A wire that lost frames by itself has spoiled the test, not the relay."""
        for counters in self.counters().values():
            assert counters["overruns"] == counters["no_buffer"] == counters["oversized"] == 0, counters


class Side:
    """One cable: a namespace of users, the relay's NIC, and what is between them."""

    def __init__(self, number, users, relay, mtu=1500, wire=None):
        """`wire`: None, or (program, impairments...)."""
        self.number, self.users, self.interface, self.nic = number, users, f"wire{number}", f"nic{number}"
        self.network, self.network6 = (("10.99", "fd99:"), ("10.97", "fd97:"))[number]
        self.wire = self.middle = None
        if wire is None:
            netns.cable(users, self.interface, relay, self.nic, mtu)
        else:
            self.middle = netns.Namespace()
            netns.cable(users, self.interface, self.middle, "left", mtu)
            netns.cable(self.middle, "right", relay, self.nic, mtu, bare=(True, True))
            self.wire = Wire(wire[0], self.middle, "left", "right", wire[1:])
        users.ip(f"addr add {self.network}.0.1/16 dev {self.interface}",
                 f"addr add {self.network6}:1/64 dev {self.interface} nodad")

    def host(self, family=4):
        """The relay's address on this side."""
        return f"{self.network}.9.1" if family == 4 else f"{self.network6}:9:1"

    def user(self, family=4):
        return f"{self.network}.0.1" if family == 4 else f"{self.network6}:1"

    def port(self, kind):
        return f"{kind}:{self.nic},address={self.host()}/16,address={self.host(6)}/64"

    def relay_mac(self, family=4):
        """The link address that the users have learned for the relay."""
        for neighbour in json.loads(self.users.run("ip", "-j", "neigh", "show", "to", self.host(family))):
            if "lladdr" in neighbour:
                return bytes.fromhex(neighbour["lladdr"].replace(":", ""))
        raise AssertionError(f"no neighbour {self.host(family)}")

    def own_mac(self):
        (link,) = json.loads(self.users.run("ip", "-j", "link", "show", self.interface))
        return bytes.fromhex(link["address"].replace(":", ""))

    def close(self):
        if self.wire:
            self.wire.kill()
        if self.middle:
            self.middle.close()


class Sides:
    """Both sides and the place of the relay between them."""

    def __init__(self, driver, wire_program, visitor_wire=None, client_wire=None, mtus=(1500, 1500)):
        """`visitor_wire`, `client_wire`: impairments in the words of bore-wire; () for a wire that does none."""
        self.packets = driver in site.PACKET_PORTS
        self._stack = contextlib.ExitStack()
        self.relay_namespace = self._keep(netns.Namespace())
        self.visitors = self._keep(netns.Namespace(fresh=False))
        self.clients = self._keep(netns.Namespace())
        wires = [None if words is None else (wire_program, *words) for words in (visitor_wire, client_wire)]
        self.visitor_side = self._keep(Side(0, self.visitors, self.relay_namespace, mtus[0], wires[0]))
        self.client_side = self._keep(Side(1, self.clients, self.relay_namespace, mtus[1], wires[1]))
        self.slot = site.Slot()
        self.slot.namespace, self.slot.host = self.relay_namespace, self.client_side.host()
        self.both = (self.visitor_side, self.client_side)
        if self.packets:
            kind = site.PACKET_PORTS[driver]
            ports = [word for side in self.both for word in ("--packet-port", side.port(kind))]
            self.slot.arguments = ("--engine", "packet", *ports, *site.frugal(max(mtus)))
        else:
            for side in self.both:
                self.relay_namespace.ip(f"addr add {side.host()}/16 dev {side.nic}",
                                        f"addr add {side.host(6)}/64 dev {side.nic} nodad")
            self.slot.arguments = ("--stream-driver", "io_uring")

    def _keep(self, thing):
        self._stack.callback(thing.close)
        return thing

    def close(self):
        self._stack.close()

    def tunnel(self, relay, family=4, **keywords):
        return SidedTunnel(self, relay, family, **keywords)

    def program_tunnel(self, command, relay, family=4):
        return SidedProgramTunnel(self, command, relay, family)


class SidedTunnel(protocol.Tunnel):
    """A tunnel whose client and data connections live on the clients' side, its visitors on theirs."""

    def __init__(self, sides, relay, family, port=0):
        self.sides, self.family = sides, family
        address = (sides.client_side.host(family), relay.control_port)
        with sides.clients.inside():
            opened = protocol.open_upstream(address, port=port)
        super().__init__(opened.framed, opened.port, address)

    def visit(self, receive_buffer=None, source=None):
        address = (self.sides.visitor_side.host(self.family), self.port)
        return protocol.connect(address, receive_buffer=receive_buffer, source=source)

    def visit_from(self, port):
        """A visitor with a source port of its choice, as soon as its host has forgotten the one before."""
        deadline = time.monotonic() + 2
        while True:
            try:
                return self._visit_from(port)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                    raise

    def _visit_from(self, port):
        family = socket.AF_INET if self.family == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.sides.visitor_side.user(self.family), port))
            sock.settimeout(protocol.DEFAULT_TIMEOUT_S)
            sock.connect((self.sides.visitor_side.host(self.family), self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock

    def claim(self, identity, extra=b"", receive_buffer=None):
        with self.sides.clients.inside():
            return super().claim(identity, extra, receive_buffer)


class SidedProgramTunnel(ProgramTunnel):
    """A client program on the clients' side, with its local service there."""

    def __init__(self, sides, command, relay, family):
        self.sides, self.family = sides, family
        with sides.clients.inside():
            super().__init__(command, relay, host=sides.client_side.host(family))

    def visit(self, receive_buffer=None):
        return protocol.connect((self.sides.visitor_side.host(self.family), self.port), receive_buffer=receive_buffer)
