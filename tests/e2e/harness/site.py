"""Where the relay of a test stands and by which addresses it is reached.

Loopback: the relay runs in the test's own namespace, on 127.0.0.0/8. Cabled: it runs in a namespace
of its own at the other end of a veth pair, which is what a packet engine needs; the addresses then
are 10.99.0.0/16. A test that asks here instead of writing 127.0.0.1 runs in both. conftest.py sets
`current` before each test.
"""
import contextlib

from harness import netns

LOOPBACK_RELAYS = (1, 5, 6, 9)  # host numbers of the relay's addresses that tests use
SOURCES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 50, 60, 61, 62, 63)  # and of those that visitors come from

PACKET_PORTS = {"packet": "af_packet", "packet-xdp": "af_xdp"}
CABLED_DRIVERS = (*PACKET_PORTS, "veth")
# A relay of these tests is one of many: little memory, and no core of its own to spin on.
PACKET_FRUGAL = ("--packet-idle", "sleep", "--packet-memory-mib", "128")
MOST_OF_XDP = 1770  # what an XDP socket's buffers of 2 KiB hold, and the relay takes


def wide_mtu(driver):
    """Of a cable that is to carry many bytes per second: what its ends can do here is frames per second."""
    return MOST_OF_XDP if PACKET_PORTS.get(driver) == "af_xdp" else 9000


def frugal(mtu=1500):
    """PACKET_FRUGAL for frames of this size; a pool of buffers of 16 KiB takes some 240 MiB."""
    return PACKET_FRUGAL if mtu <= MOST_OF_XDP else (*PACKET_FRUGAL[:-1], "512")


def stream_driver(driver):
    """What --stream-driver is called for this driver of the suite."""
    return "io_uring" if driver in CABLED_DRIVERS else driver


class Slot:
    """A place for one relay at a time: its namespace, its address, the arguments its engine needs."""

    namespace = None
    host = "127.0.0.1"
    arguments = ()

    def __init__(self):
        self.relay = None

    def taken(self):
        return self.relay is not None and self.relay.running()


class Place:
    def __init__(self, driver):
        self._driver = driver
        self._kept = contextlib.ExitStack()

    def keep(self, thing):
        """Closed at the test's very end, behind its relays."""
        self._kept.callback(thing.close)
        return thing

    def close(self):
        self._kept.close()


class Loopback(Place):
    cabled = packets = False
    engine_descriptors = 0

    @staticmethod
    def relay(number=1):
        return f"127.0.0.{number}"

    @staticmethod
    def relay6():
        return "::1"

    @staticmethod
    def source(number=1, network=0):
        return f"127.0.{network}.{number}"

    def free_slot(self):
        slot = Slot()
        slot.arguments = ("--stream-driver", self._driver) if self._driver else ()
        return slot

    def widen_cable(self):
        """Loopback's frames are wide."""

    @contextlib.contextmanager
    def beside_relay(self):
        """Sockets made in this block live where the relay lives."""
        yield

    def other_namespace(self):
        return netns.OtherNamespace()


class CabledSlot(Slot):
    """A namespace whose only way out is nic0; the other end is `wire<number>` of the test."""

    def __init__(self, driver, number):
        super().__init__()
        self.network = f"10.{99 + number}"
        self.network6 = f"fd{0x99 + number:x}:"
        self.host = f"{self.network}.9.1"
        self.host6 = f"{self.network6}:9:1"
        self.namespace = netns.Namespace()
        here = netns.Namespace(fresh=False)
        self._driver, self._wire = driver, f"wire{number}"
        wire = self._wire
        netns.cable(here, wire, self.namespace, "nic0")
        here.ip(*(f"addr add {self.network}.0.{host}/16 dev {wire}" for host in SOURCES),
                f"addr add {self.network}.1.1/16 dev {wire}", f"addr add {self.network6}:1/64 dev {wire} nodad")
        here.close()
        self.addresses = [f"{self.network}.9.{host}/16" for host in LOOPBACK_RELAYS] + [f"{self.host6}/64"]
        if driver in PACKET_PORTS:
            self.arguments = ("--engine", "packet", "--packet-port", self.port(PACKET_PORTS[driver]), *PACKET_FRUGAL)
        else:
            self.namespace.ip(*(f"addr add {address} dev nic0 nodad" if ":" in address else f"addr add {address} dev nic0"
                                for address in self.addresses),
                              f"route add default via {self.network}.0.1")
            self.arguments = ("--stream-driver", "io_uring")

    def widen(self):
        """Frames of wide_mtu(), before a relay starts."""
        mtu = wide_mtu(self._driver)
        here = netns.Namespace(fresh=False)
        here.ip(f"link set {self._wire} mtu {mtu}")
        here.close()
        self.namespace.ip(f"link set nic0 mtu {mtu}")
        if self._driver in PACKET_PORTS:
            self.arguments = (*self.arguments[:-len(PACKET_FRUGAL)], *frugal(mtu))

    def close(self):
        self.namespace.close()

    def port(self, kind):
        """A --packet-port with all addresses of this relay; what is elsewhere lies behind the test."""
        return ",".join([f"{kind}:nic0", *(f"address={address}" for address in self.addresses),
                         f"gateway={self.network}.0.1", f"gateway={self.network6}:1"])


class Cabled(Place):
    cabled = True

    def __init__(self, driver):
        super().__init__(driver)
        self.packets = driver in PACKET_PORTS
        self._slots = []
        # DPDK, its ports, the exception interface
        self.engine_descriptors = 20 if driver in PACKET_PORTS else 0

    @staticmethod
    def relay(number=1):
        return f"10.99.9.{number}"

    @staticmethod
    def relay6():
        return "fd99::9:1"

    @staticmethod
    def source(number=1, network=0):
        return f"10.99.{network}.{number}"

    def widen_cable(self):
        self._slot(0).widen()

    def _slot(self, number):
        while len(self._slots) <= number:
            self._slots.append(self.keep(CabledSlot(self._driver, len(self._slots))))
        return self._slots[number]

    def free_slot(self):
        """The first place whose relay has ended: a restarted relay comes back where it was."""
        number = 0
        while self._slot(number).taken():
            number += 1
        return self._slot(number)

    @contextlib.contextmanager
    def beside_relay(self):
        with self._slot(0).namespace.inside():
            yield

    def other_namespace(self):
        self._slot(0)
        return netns.OtherNamespace(self.relay())


def make(driver):
    return Cabled(driver) if driver in CABLED_DRIVERS else Loopback(driver)


current = Loopback(None)


def relay(number=1):
    """The relay's address; further ones: 5, 6, 9."""
    return current.relay(number)


def relay6():
    return current.relay6()


def source(number=1, network=0):
    """An address that visitors and clients can come from; 1 is the one they come from by themselves."""
    return current.source(number, network)


def descriptors(count):
    """A limit of descriptors for a relay, as (soft, hard): `count` for its work, whatever its engine holds."""
    return (count + current.engine_descriptors,) * 2


def beside_relay():
    return current.beside_relay()


def packets():
    """Whether the relays of this test run the packet engine."""
    return current.packets


def acknowledging():
    """Arguments for a relay that acknowledges at once, whoever else does: a splice leaves that to the peers."""
    return ("--packet-path", "stream") if current.packets else ()


def widen_cable():
    """The cable of the relay that starts first carries wide frames."""
    current.widen_cable()


def other_namespace():
    return current.other_namespace()
