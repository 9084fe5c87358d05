"""What a host with a link of so many bits per second needs: one function a line of the table. Pure
arithmetic on terms (terms.toml); a function gets them as attributes of `t`, all of one case.

The load: one port, full duplex, both ways full. Both legs of every pair go through it, so each
relayed byte comes in once and goes out once, and what comes in is what the relay moves. `bulk` is
full segments with their acknowledgements, `small` frames of 64 bytes and nothing else, the worst
that a wire can bring.

A line's low comes from all low terms together, its high from all high ones: bounds, much wider than
the error of a sum of independent parts.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Callable

from scale_terms import CASES

LINES = []


@dataclass(frozen=True)
class Line:
    group: str
    name: str
    unit: str
    formula: str
    value: Callable  # (terms of one case, bits per second) -> number


def line(group, name, unit, formula):
    def keep(function):
        LINES.append(Line(group, name, unit, formula, function))
        return function
    return keep


def power_of_two(number):
    return 1 << max(0, math.ceil(math.log2(number)))


# ---- The wire

TRAFFIC = "Traffic"


@line(TRAFFIC, "full segments", "M/s",
      "link ÷ 8 ÷ (mtu + frame_overhead + acks × least_wire)")
def segments(t, link):
    return link / 8 / (t.mtu + t.frame_overhead + t.acks * t.least_wire) / 1e6


@line(TRAFFIC, "payload relayed", "Gbit/s", "full segments × (mtu − header) × 8")
def payload(t, link):
    return segments(t, link) * 1e6 * (t.mtu - t.header) * 8 / 1e9


@line(TRAFFIC, "frames to forward, bulk", "M/s", "full segments × (1 + acks)")
def bulk_frames(t, link):
    return segments(t, link) * (1 + t.acks)


@line(TRAFFIC, "frames to forward, small", "M/s", "link ÷ 8 ÷ least_wire")
def small_frames(t, link):
    return link / 8 / t.least_wire / 1e6


# ---- Packet engine

PACKET = "Packet engine"


def bulk_cycles(t, link):
    return segments(t, link) * 1e6 * (t.our_cycles_full + t.port_cycles
                                      + t.acks * (t.our_cycles_small + t.port_cycles))


@line(PACKET, "worker cores, bulk", "cores",
      "full segments × (our_cycles_full + port_cycles + acks × (our_cycles_small + port_cycles))"
      " ÷ (clock × load)")
def bulk_workers(t, link):
    return bulk_cycles(t, link) / (t.clock * 1e9 * t.load)


@line(PACKET, "worker cores, small", "cores",
      "small frames × (our_cycles_small + port_cycles) ÷ (clock × load)")
def small_workers(t, link):
    cycles = small_frames(t, link) * 1e6 * (t.our_cycles_small + t.port_cycles)
    return cycles / (t.clock * 1e9 * t.load)


@line(PACKET, "NIC queues, bulk", "receive and send each", "worker cores, rounded up: one a worker")
def queues(t, link):
    return math.ceil(bulk_workers(t, link))


@line(PACKET, "cores altogether, bulk", "cores", "NIC queues + 2: slow path and control thread")
def packet_cores(t, link):
    return queues(t, link) + 2


@line(PACKET, "receive descriptors per queue, bulk", "descriptors",
      "bulk frames ÷ NIC queues × pause, rounded up to a power of two")
def descriptors(t, link):
    return power_of_two(bulk_frames(t, link) * 1e6 / queues(t, link) * t.pause * 1e-6)


@line(PACKET, "memory for 100,000 flows", "MB", "100,000 × bytes_per_flow; the same for every link")
def flow_memory(t, _link):
    return 100_000 * t.bytes_per_flow / 1e6


@line(PACKET, "memory bandwidth, bulk", "GB/s",
      "payload × memory_touches + bulk frames × lines_per_packet × 64 bytes")
def packet_bandwidth(t, link):
    return (payload(t, link) / 8 * t.memory_touches
            + bulk_frames(t, link) * 1e6 * t.lines_per_packet * 64 / 1e9)


# ---- Stream engine

STREAM = "Stream engine"


@line(STREAM, "cores, bulk", "cores", "payload × (stream_cost + nic_cost) ÷ load")
def stream_cores(t, link):
    return payload(t, link) / 8 * (t.stream_cost + t.nic_cost) / t.load


@line(STREAM, "NIC queues", "receive and send each", "cores, rounded up: one a core")
def stream_queues(t, link):
    return math.ceil(stream_cores(t, link))


@line(STREAM, "cores altogether, bulk", "cores", "NIC queues + 1: control thread")
def all_stream_cores(t, link):
    return stream_queues(t, link) + 1


@line(STREAM, "memory in socket queues", "MB",
      "payload × round_trip: what is sent and not yet acknowledged; with the packet engine the"
      " peers keep it")
def socket_memory(t, link):
    return payload(t, link) / 8 * t.round_trip


@line(STREAM, "memory for 100,000 idle pairs", "MB",
      "100,000 × (bytes_per_pair + kernel_bytes_per_pair); the same for every link")
def pair_memory(t, _link):
    return 100_000 * (t.bytes_per_pair + t.kernel_bytes_per_pair) / 1e6


@line(STREAM, "descriptors for 100,000 pairs", "descriptors",
      "2 a pair, and one a tunnel besides (README.md, Limits)")
def file_descriptors(_t, _link):
    return 200_000


@line(STREAM, "memory bandwidth, bulk", "GB/s", "payload × stream_touches")
def stream_bandwidth(t, link):
    return payload(t, link) / 8 * t.stream_touches


# ---- Control thread

CONTROL = "The one control thread"


@line(CONTROL, "connections", "per second",
      "load ÷ (connection_cost × control_share); no link makes it faster")
def connection_rate(t, _link):
    return t.load / (t.connection_cost * 1e-6 * t.control_share)


@line(CONTROL, "mean payload of a connection below which it is the limit", "kB",
      "payload ÷ connections per second")
def least_connection(t, link):
    return payload(t, link) / 8 * 1e6 / connection_rate(t, link)


@line(CONTROL, "tunnels registered", "per second",
      "load ÷ (connection_cost × control_share + handshake)")
def tunnel_rate(t, _link):
    return t.load / (t.connection_cost * 1e-6 * t.control_share + t.handshake * 1e-9)


# ---- PCIe and memory

HOST = "Host"


def pcie_bits(t, link):
    """One way; both are alike, each frame is written once and read once."""
    def with_packets(data_bytes):
        return data_bytes + math.ceil(data_bytes / t.tlp_payload) * t.tlp_overhead
    descriptor = t.descriptor + t.tlp_overhead
    full = with_packets(t.mtu + 14) + descriptor
    ack = with_packets(64) + descriptor
    return segments(t, link) * 1e6 * (full + t.acks * ack) * 8 * (1 + t.link_packets)


def lanes(generation):
    def value(t, link):
        return power_of_two(pcie_bits(t, link) / (getattr(t, f"lane_gen{generation}") * 1e9))
    return value


@line(HOST, "PCIe, each way, bulk", "Gbit/s",
      "full segments × (frame + ⌈frame ÷ tlp_payload⌉ × tlp_overhead + descriptor + tlp_overhead, and"
      " the same for its acknowledgements) × 8 × (1 + link_packets)")
def pcie(t, link):
    return pcie_bits(t, link) / 1e9


for number in (3, 4, 5):
    line(HOST, f"PCIe {number}.0 lanes, bulk", "lanes",
         f"PCIe bits ÷ lane_gen{number}, rounded up to 1, 2, 4, 8, 16")(lanes(number))


@line(HOST, "memory channels, packet engine", "channels",
      "memory bandwidth ÷ (channel × channel_share), at least 1")
def packet_channels(t, link):
    return max(1, math.ceil(packet_bandwidth(t, link) / (t.channel * t.channel_share)))


@line(HOST, "memory channels, stream engine", "channels", "the same")
def stream_channels(t, link):
    return max(1, math.ceil(stream_bandwidth(t, link) / (t.channel * t.channel_share)))


def of_case(terms, case):
    return SimpleNamespace(**{name: term.values[case] for name, term in terms.items()})


def swings(one, terms, link, least=1.05):
    """By which factor each term alone moves a line between its low and its high, the others in the
    middle; the greatest first, those below `least` left out."""
    found = []
    for name in terms:
        ends = []
        for case in ("low", "high"):
            t = of_case(terms, "middle")
            setattr(t, name, terms[name].values[case])
            ends.append(one.value(t, link))
        if min(ends) > 0 and max(ends) / min(ends) >= least:
            found.append((name, max(ends) / min(ends)))
        elif min(ends) == 0 < max(ends):
            found.append((name, math.inf))
    return sorted(found, key=lambda pair: -pair[1])


def values(one, terms, link):
    """low, middle, high of a line: by number, since more of some lines is better."""
    found = [one.value(of_case(terms, case), link) for case in CASES]
    return min(found), found[1], max(found)
