"""Networks as they are: loss, doubles and late segments, long paths, TCP options that only one side
has, smaller MTUs; and networks that lie: forged, malformed and fragmented frames."""
import random
import socket
import struct
import time

import pytest

from harness import frames, netns, protocol, site, traffic
from harness.splicing import await_spliced, expect_spliced, expect_streamed, stream_reasons

pytestmark = [pytest.mark.packet, pytest.mark.alone]

MIB = 1 << 20
KIB = 1 << 10


def exchange(legs, text=b"ping"):
    for sender, receiver in (legs, legs[::-1]):
        sender.sendall(text)
        assert traffic.receive_exactly(receiver, len(text)) == text


def both_ways(legs, size, timeout=100):
    upwards = traffic.Background(traffic.transfer, legs[0], legs[1], size, 1, timeout)
    traffic.transfer(legs[1], legs[0], size, 2, timeout)
    upwards.result(timeout)


# Loss, doubles, order

IMPAIRMENTS = [(name, percent) for name in ("loss", "duplicate", "reorder") for percent in (0.1, 1, 5)]


@pytest.mark.limit(150)
@pytest.mark.parametrize("name, percent", IMPAIRMENTS, ids=[f"{name}_{percent}" for name, percent in IMPAIRMENTS])
def test_impaired_on_both_sides(start_sides, open_sided, keep, name, percent, bulk_size):
    """sha-256 of what arrived is that of what was sent, and the byte counters count no byte twice."""
    words = (f"--{name}", percent, "--seed", 20261121)
    sides, relay = start_sides(visitor_wire=words, client_wire=words)
    tunnel = open_sided(sides, relay)
    legs = keep(*tunnel.pair(extra=b"first"))
    assert traffic.receive_exactly(legs[0], 5) == b"first"
    # A lost segment may cost a retransmission timeout of 200 ms: less to send where many are lost.
    size = min(bulk_size, 8 * MIB if name == "loss" and percent == 5 else 64 * MIB)
    both_ways(legs, size, 140)
    expect_spliced(sides, relay, 1)
    counted = {"loss": "lost", "duplicate": "duplicated", "reorder": "reordered"}[name]
    for side in sides.both:
        side.wire.check()
        assert all(counters[counted] > 0 for counters in side.wire.counters().values()), "the wire did nothing"

    def exact():
        totals = relay.tunnels()[tunnel.port]
        assert (totals["to_client"], totals["to_visitor"]) == (size, size + 5)
        return True

    traffic.eventually(exact, 3)


@pytest.mark.limit(100)
def test_many_connections_over_a_bad_network(start_sides, open_sided, keep):
    words = ("--loss", 1, "--duplicate", 1, "--reorder", 1, "--seed", 7)
    sides, relay = start_sides(visitor_wire=words, client_wire=words)
    tunnel = open_sided(sides, relay)

    def one(number):
        visitor = tunnel.visit()
        keep(visitor)
        visitor.sendall(b"%06d" % number)
        return visitor

    count = 100
    visitors = [traffic.Background(one, number) for number in range(count)]
    services = [keep(tunnel.claim(tunnel.connection(30), b"extra"))[0] for _ in range(count)]
    by_number = {int(traffic.receive_exactly(service, 6)): service for service in services}
    assert sorted(by_number) == list(range(count))
    for number, waiting in enumerate(visitors):
        visitor, service = waiting.result(30), by_number[number]
        assert traffic.receive_exactly(visitor, 5) == b"extra"
        service.sendall(b"for %06d" % number)
        service.shutdown(socket.SHUT_WR)
        visitor.shutdown(socket.SHUT_WR)
    for number, waiting in enumerate(visitors):
        assert traffic.receive_all(waiting.result()) == b"for %06d" % number
        assert traffic.receive_all(by_number[number]) == b""
    if sides.packets:
        counters = relay.counters()
        # A FIN that comes during a hand-off is a rightful reason to stay on the stream engine.
        assert counters["handoffs_total"] + sum(stream_reasons(counters).values()) == count
        assert counters["handoffs_total"] >= count * 9 // 10, stream_reasons(counters)


@pytest.mark.limit(60)
def test_a_lost_ack_of_the_handshake(start_sides, open_sided, keep):
    sides, relay = start_sides(visitor_wire=("--drop-handshake-ack",), client_wire=("--drop-handshake-ack",))
    tunnel = open_sided(sides, relay)
    for number in range(3):
        visitor = tunnel.visit()
        visitor.sendall(b"early %d" % number)  # carries the ACK that was lost
        service = tunnel.claim(tunnel.connection(), b"extra")
        keep(visitor, service)
        assert traffic.receive_exactly(service, 7) == b"early %d" % number
        assert traffic.receive_exactly(visitor, 5) == b"extra"
        exchange((visitor, service))
    dropped = sides.visitor_side.wire.counters()["from_left"]["handshake_acks_dropped"]
    assert dropped == 3
    expect_spliced(sides, relay, 3)


@pytest.mark.limit(60)
@pytest.mark.parametrize("family", [4, 6])
def test_forced_syn_cookies(start_sides, open_sided, keep, family):
    sides, relay = start_sides()
    sides.relay_namespace.sysctl("ipv4.tcp_syncookies", 2)
    legs = keep(*open_sided(sides, relay, family).pair(extra=b"extra"))
    assert traffic.receive_exactly(legs[0], 5) == b"extra"
    both_ways(legs, 16 * MIB)
    expect_spliced(sides, relay, 1)


# Long paths

@pytest.mark.limit(100)
@pytest.mark.parametrize("policy", ["auto", "splice"])
@pytest.mark.packet(engine=True)
def test_unlike_round_trips(start_sides, open_sided, keep, policy, bulk_size):
    """20 ms to the visitor, 80 ms to the client: auto leaves it to the stream engine and says so."""
    sides, relay = start_sides("--packet-path", policy, visitor_wire=("--delay-ms", 10), client_wire=("--delay-ms", 40))
    tunnel = open_sided(sides, relay)
    legs = keep(*tunnel.pair())
    exchange(legs)
    traffic.transfer(legs[1], legs[0], min(bulk_size, 64 * MIB))
    if policy == "auto":
        expect_streamed(sides, relay, "long_path", 1)
    else:
        expect_spliced(sides, relay, 1)


@pytest.mark.limit(100)
@pytest.mark.parametrize("rtt_ms", [20, 40])
@pytest.mark.packet(engine=True)
def test_forced_splice_over_a_long_path(start_sides, open_sided, keep, rtt_ms, bulk_size, record_property):
    """Trap 3: acknowledgements of Accept that come too early teach the sender a round trip that is too
    short. Delayed, a bulk transfer reaches a decent rate."""
    words = ("--delay-ms", rtt_ms / 4)
    sides, relay = start_sides("--packet-path", "splice", visitor_wire=words, client_wire=words)
    legs = keep(*open_sided(sides, relay).pair())
    exchange(legs)
    size = min(bulk_size, 64 * MIB)
    start = time.monotonic()
    traffic.transfer(legs[1], legs[0], size)
    mbit = size * 8 / 1e6 / (time.monotonic() - start)
    record_property("mbit_per_second", round(mbit))
    print(f"{rtt_ms} ms: {mbit:.0f} Mbit/s")
    expect_spliced(sides, relay, 1)
    assert mbit > 40


# TCP options

OPTIONS = {"timestamps": "ipv4.tcp_timestamps", "sack": "ipv4.tcp_sack", "window_scaling": "ipv4.tcp_window_scaling"}
WHO_LACKS = {"both": (True, True), "visitor": (True, False), "client": (False, True)}


@pytest.mark.packet_smoke
@pytest.mark.limit(60)
@pytest.mark.parametrize("who", WHO_LACKS)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("wire", [None, ("--loss", 0.5, "--seed", 3)], ids=["clean", "loss"])
def test_without_an_option(start_sides, open_sided, keep, option, who, wire, bulk_size):
    parity = option != "sack" or who == "both"
    sides, relay = start_sides("--packet-path", "splice" if parity else "auto", visitor_wire=wire)
    for namespace, lacks in zip((sides.visitors, sides.clients), WHO_LACKS[who]):
        if lacks:
            namespace.sysctl(OPTIONS[option], 0)
    legs = keep(*open_sided(sides, relay).pair(extra=b"extra"))
    assert traffic.receive_exactly(legs[0], 5) == b"extra"
    both_ways(legs, min(bulk_size, 16 * MIB if wire else 64 * MIB), 50)
    if parity:
        expect_spliced(sides, relay, 1)
    else:
        expect_streamed(sides, relay, "sack_differs", 1)


@pytest.mark.limit(60)
@pytest.mark.parametrize("who", ["visitor", "client"])
def test_large_and_small_window_scales(start_sides, open_sided, keep, who):
    """A scale of 14 on one leg, as hosts with huge receive buffers announce, against an ordinary one."""
    sides, relay = start_sides()
    namespace = sides.visitors if who == "visitor" else sides.clients
    namespace.sysctl("ipv4.tcp_rmem", "4096 131072 1000000000")
    legs = keep(*open_sided(sides, relay).pair())
    both_ways(legs, 64 * MIB)
    expect_spliced(sides, relay, 1)


# MTU

@pytest.mark.packet_smoke
@pytest.mark.limit(60)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mtus", [(1400, 1500), (1500, 1400)], ids=["visitor_1400", "client_1400"])
def test_mtu_of_a_cable(start_sides, open_sided, keep, mtus, family):
    sides, relay = start_sides(mtus=mtus)
    legs = keep(*open_sided(sides, relay, family).pair())
    both_ways(legs, 32 * MIB)
    expect_spliced(sides, relay, 1)


@pytest.mark.packet_smoke
@pytest.mark.limit(60)
@pytest.mark.parametrize("family", [4, 6])
def test_the_widest_frames_that_a_port_takes(start_sides, open_sided, keep, driver, family):
    mtu = site.wide_mtu(driver)
    sides, relay = start_sides(mtus=(mtu, mtu))
    legs = keep(*open_sided(sides, relay, family).pair())
    both_ways(legs, 32 * MIB)
    expect_spliced(sides, relay, 1)
    assert legs[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > mtu - 100, "frames were not wide"


@pytest.mark.limit(60)
@pytest.mark.parametrize("timestamps", [1, 0], ids=["timestamps", "bare"])
@pytest.mark.parametrize("who", ["visitor", "client"])
def test_mtu_of_one_host(start_sides, open_sided, keep, who, timestamps):
    """The host alone is at 1400: it says so in its MSS, and the other side's segments are longer."""
    sides, relay = start_sides()
    side = sides.visitor_side if who == "visitor" else sides.client_side
    side.users.ip(f"link set {side.interface} mtu 1400")
    for namespace in (sides.visitors, sides.clients):
        namespace.sysctl("ipv4.tcp_timestamps", timestamps)
    legs = keep(*open_sided(sides, relay).pair())
    both_ways(legs, 32 * MIB)
    expect_spliced(sides, relay, 1)


@pytest.mark.limit(60)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("who", ["visitor", "client"])
def test_mtu_of_a_router_on_the_way(start_sides, open_sided, keep, cleanup, who, family):
    """One peer behind a router whose next cable takes 1400 bytes: ICMP must reach the real sender, the other peer."""
    sides, relay = start_sides()
    side = sides.visitor_side if who == "visitor" else sides.client_side
    router, far = netns.Namespace(), netns.Namespace()
    cleanup.callback(router.close)
    cleanup.callback(far.close)
    # relay ── the side's namespace ──1400── router ──1500── far; the namespace of the side forwards.
    netns.cable(side.users, "to_router", router, "upper", 1400, bare=(False, False))
    netns.cable(router, "lower", far, "out", 1500, bare=(False, False))
    links = ((side.users, "to_router", "10.81.0.1"), (router, "upper", "10.81.0.2"), (router, "lower", "10.82.0.1"), (far, "out", "10.82.0.2"))
    for namespace, name, address in links:
        six = address.replace("10.", "fd").replace(".0.", "::")
        namespace.ip(f"addr add {address}/24 dev {name}", f"addr add {six}/64 dev {name} nodad")
    for namespace in (side.users, router):
        namespace.sysctl("ipv4.ip_forward", 1)
        namespace.sysctl("ipv6.conf.all.forwarding", 1)
    far.ip("route add default via 10.82.0.1", "route add default via fd82::1")
    router.ip("route add default via 10.81.0.1", "route add default via fd81::1")
    side.users.ip("route add 10.82.0.0/24 via 10.81.0.2", "route add fd82::/64 via fd81::2")
    add_route_at_relay(sides, side)
    tunnel = open_sided(sides, relay, family)
    with far.inside() if who == "visitor" else sides.visitors.inside():
        visitor = tunnel.visit()
    with far.inside() if who == "client" else sides.clients.inside():
        service = protocol.Tunnel.claim(tunnel, tunnel.connection())
    legs = keep(visitor, service)
    exchange(legs)
    await_spliced(sides, relay, 1)
    both_ways(legs, 16 * MIB, 40)
    expect_spliced(sides, relay, 1)
    if sides.packets:
        assert relay.counters()["icmp_translated_total"] > 0


def add_route_at_relay(sides, side):
    """What an operator does for peers who are not on the port's own network."""
    device = f"bore{side.number}" if sides.packets else side.nic
    for family, network, gateway in ((4, "10.82.0.0/24", side.user(4)), (6, "fd82::/64", side.user(6))):
        table = ""
        if sides.packets:
            rules = sides.relay_namespace.run("ip", f"-{family}", "rule", "show", "from", side.host(family))
            table = f" table {rules.split('lookup')[1].split()[0]}"
        sides.relay_namespace.ip(f"route add {network} via {gateway} dev {device}{table}")


# The link

@pytest.mark.limit(60)
@pytest.mark.parametrize("what", ["cable", "interface"])
@pytest.mark.parametrize("who", ["visitor", "client"])
def test_a_nic_that_goes_down_and_comes_back(start_sides, open_sided, keep, who, what):
    """Its cable is out, or somebody sets it down: bytes that were on their way come later, and each once."""
    sides, relay = start_sides(visitor_wire=(), client_wire=())
    side = sides.visitor_side if who == "visitor" else sides.client_side
    place, name = (side.middle, "right") if what == "cable" else (sides.relay_namespace, side.nic)

    def changes():
        """So far, of a link that is up; a kernel may take a second to say that it is."""
        state = relay.ports()[side.number] if sides.packets else {"port_link_up": 1, "port_link_changes_total": 0}
        assert state["port_link_up"] == 1, state
        return state["port_link_changes_total"]

    traffic.eventually(lambda: changes() >= 0, 5)
    before = changes()
    tunnel = open_sided(sides, relay)
    legs, idle = keep(*tunnel.pair()), keep(*tunnel.pair())
    await_spliced(sides, relay, 2)
    exchange(idle)
    sending = traffic.Background(traffic.transfer, legs[1], legs[0], 256 * MIB, 1, 50)
    traffic.eventually(lambda: relay.tunnels()[tunnel.port]["to_visitor"] > 4 * MIB, 10, "bytes under way")
    place.ip(f"link set {name} down")
    time.sleep(2)
    assert sending.is_alive(), "all was sent before the link went down: nothing was tried"
    place.ip(f"link set {name} up")
    sending.result(50)
    exchange(idle)
    expect_spliced(sides, relay, 2)
    if sides.packets:
        traffic.eventually(lambda: changes() == before + 2, 5)
    # And what is new, the kernel's handshakes with it.
    exchange(keep(*tunnel.pair()))
    await_spliced(sides, relay, 3)


# Lies

@pytest.fixture
def victim(start_sides, open_sided, keep, cleanup, request):
    """A spliced pair and somebody who can send frames on a cable; the leg of that cable's users comes first.
    The parameter: IPv4 or 6 for the visitors' cable, "clients" for the other."""
    where = getattr(request, "param", 4)
    family = where if where in (4, 6) else 4
    sides, relay = start_sides()
    legs = keep(*open_sided(sides, relay, family).pair())
    await_spliced(sides, relay, 1)
    exchange(legs)
    forger = frames.Forger(sides.client_side if where == "clients" else sides.visitor_side, family)
    cleanup.callback(forger.close)
    return sides, relay, legs[::-1] if where == "clients" else legs, forger


def unharmed(legs, size=4 * MIB):
    """Bytes both ways at once, without an end."""
    sending = [traffic.Background(traffic.send, leg, size, seed, False) for seed, leg in enumerate(legs)]
    upwards = traffic.Background(traffic.receive_exactly, legs[1], size)
    assert traffic.receive_exactly(legs[0], size) == traffic.payload(size, 1)
    assert upwards.result() == traffic.payload(size, 0)
    for each in sending:
        each.result()


@pytest.mark.packet_smoke
@pytest.mark.parametrize("victim", [4, 6, "clients"], indirect=True, ids=["ipv4", "ipv6", "clients"])
def test_a_blind_reset_does_not_end_a_flow(victim):
    sides, relay, legs, forger = victim
    sequence, acknowledgement = forger.position(legs[0], lambda: exchange(legs))
    for distance in (1 << 31, 1 << 30, -(1 << 30), 64 * MIB, -64 * MIB, 5_000_000, -1, 1, 1000):
        forger.send_tcp(legs[0], sequence + distance, acknowledgement, frames.RST)
        forger.send_tcp(legs[0], sequence + distance, acknowledgement, frames.RST | frames.ACK)
    time.sleep(0.3)
    unharmed(legs)
    time.sleep(1)
    unharmed(legs)
    if sides.packets:
        counters = relay.counters()
        assert counters["flows_live"] == 1 and counters["flows_ended_reset_total"] == 0
        assert counters["packet_out_of_window_total"] > 0
    # The right one does end it.
    sequence, acknowledgement = forger.position(legs[0], lambda: exchange(legs))
    forger.send_tcp(legs[0], sequence, acknowledgement, frames.RST | frames.ACK)
    with pytest.raises(ConnectionResetError):
        legs[1].settimeout(3)
        legs[1].recv(1)


@pytest.mark.packet_smoke
@pytest.mark.parametrize("victim", [4, 6, "clients"], indirect=True, ids=["ipv4", "ipv6", "clients"])
def test_forged_segments_do_not_move_a_flow(victim):
    sides, relay, legs, forger = victim
    sequence, acknowledgement = forger.position(legs[0], lambda: exchange(legs))
    for distance in (1 << 31, 1 << 30, -(1 << 30), 64 * MIB, -64 * MIB):
        for flags in (frames.ACK, frames.ACK | frames.PSH, frames.ACK | frames.FIN):
            forger.send_tcp(legs[0], sequence + distance, acknowledgement, flags, b"forged" * 10)
            forger.send_tcp(legs[0], sequence, acknowledgement + distance, flags & ~frames.FIN, b"")
    unharmed(legs)
    time.sleep(1)
    unharmed(legs)
    if sides.packets:
        counters = relay.counters()
        assert counters["packet_out_of_window_total"] > 0
        assert counters["flows_live"] == 1


def test_a_forged_syn_on_a_live_flow(victim):
    sides, relay, legs, forger = victim
    for number in range(20):
        forger.send_tcp(legs[0], number * 1_000_003, 0, frames.SYN)
    time.sleep(1)
    unharmed(legs)
    if sides.packets:
        assert relay.counters()["packet_syn_total"] == 20 and relay.counters()["flows_live"] == 1


MALFORMED = {  # name: the counter that must move
    "fragment": "packet_fragment_total", "last_fragment": "packet_fragment_total", "ip_options": "packet_ip_options_total",
    "header_of_4_words": "packet_bad_header_total", "version_7": "packet_bad_header_total", "total_beyond_frame": "packet_truncated_total",
    "total_shorter_than_header": "packet_bad_header_total", "cut_ip_header": "packet_truncated_total",
    "cut_tcp_header": "packet_truncated_total", "offset_of_4_words": "packet_bad_header_total",
    "offset_beyond_segment": "packet_truncated_total", "option_of_length_0": "packet_bad_options_total",
    "option_beyond_header": "packet_bad_options_total", "syn_fin": "packet_bad_flags_total",
    "no_flags": "packet_bad_flags_total", "all_flags": "packet_bad_flags_total", "hop_limit": "packet_hop_limit_total",
    "ethertype": "packet_ethertype_total", "udp": "packet_not_tcp_total"}


def malformed(name, source, target, sequence, acknowledgement):
    """(packet, ethertype) of this name, on the tuple of a flow and at its place in the stream."""
    def segment(flags=frames.ACK, payload=b"poison", **keywords):
        return frames.tcp(source, target, sequence, acknowledgement, flags, payload, **keywords)

    def packet(body, **keywords):
        return frames.ipv4(source[0], target[0], body, **keywords)

    whole = packet(segment())
    made = {
        "fragment": lambda: packet(segment(), fragment=0x2000),
        "last_fragment": lambda: packet(segment(), fragment=0x0010),
        "ip_options": lambda: packet(segment(), options=b"\x07\x07\x04\0\0\0\0\0"),
        "header_of_4_words": lambda: packet(segment(), words=4),
        "version_7": lambda: b"\x75" + whole[1:],
        "total_beyond_frame": lambda: packet(segment(payload=b"x" * 100), total=1400),
        "total_shorter_than_header": lambda: packet(segment(), total=19),
        "cut_ip_header": lambda: whole[:12],
        "cut_tcp_header": lambda: packet(segment()[:11]),
        "offset_of_4_words": lambda: packet(segment(offset=4)),
        "offset_beyond_segment": lambda: packet(segment(payload=b"", offset=15)),
        "option_of_length_0": lambda: packet(segment(options=b"\x08\x00\x00\x00")),
        "option_beyond_header": lambda: packet(segment(options=b"\x01\x01\x08\x0a")),
        "syn_fin": lambda: packet(segment(frames.SYN | frames.FIN)),
        "no_flags": lambda: packet(segment(0)),
        "all_flags": lambda: packet(segment(63)),
        "hop_limit": lambda: packet(segment(), hops=1),
        "ethertype": lambda: whole,
        "udp": lambda: packet(struct.pack("!HHHH", source[1], target[1], 14, 0) + b"poison", protocol=17)}
    return made[name](), 0x88B5 if name == "ethertype" else None


@pytest.mark.packet_smoke
@pytest.mark.limit(90)
@pytest.mark.packet(engine=True)
def test_malformed_frames_are_dropped_and_counted(victim, driver):
    """Every one on the tuple of a live flow and where its next byte belongs: the worst place."""
    # DPDK's af_packet asks the kernel to put fragments together first (PACKET_FANOUT_FLAG_DEFRAG).
    unseen = ("fragment", "last_fragment") if driver == "packet" else ()
    sides, relay, legs, forger = victim
    source, target = legs[0].getsockname()[:2], legs[0].getpeername()[:2]
    wrong = []
    for name, counter in MALFORMED.items():
        sequence, acknowledgement = forger.position(legs[0], lambda: exchange(legs))
        before = relay.counters()
        # What reaches the relay's kernel or the service must not be taken for the stream's next bytes.
        packet, ethertype = malformed(name, source, target, sequence, acknowledgement)
        for _ in range(3):
            forger.send(packet, ethertype)
        time.sleep(0.05)
        assert relay.running(), f"{name} ended the relay\n{relay.tail()}"
        if sides.packets:
            moved = relay.counters() - before
            if moved[counter] < 3 and name not in unseen:
                wrong.append(f"{name}: {counter} moved by {moved[counter]}, "
                             f"{ {key: value for key, value in moved.items() if key.startswith('packet_')} }")
        try:
            exchange(legs, b"after " + name.encode())
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{name} harmed the flow: {error}") from error
    assert not wrong, "\n".join(wrong)


@pytest.mark.limit(90)
@pytest.mark.parametrize("victim", [4, 6], indirect=True, ids=["ipv4", "ipv6"])
def test_random_frames(victim, quick):
    """Mutations of a segment of a live flow: cut, flipped, lengthened. Reproducible by the seed."""
    sides, relay, legs, forger = victim
    seed = 20261121
    generator = random.Random(seed)
    source, target = legs[0].getsockname()[:2], legs[0].getpeername()[:2]
    sequence, acknowledgement = forger.position(legs[0], lambda: exchange(legs))
    wrap = frames.ipv4 if forger.family == 4 else frames.ipv6
    for number in range(3_000 if quick else 30_000):
        # Far outside the window: a mutation that is by chance a valid segment can do no harm either.
        segment = frames.tcp(source, target, sequence + (1 << 30), acknowledgement, frames.ACK, b"x" * generator.randrange(60),
                             options=b"\x01\x01\x08\x0a" + generator.randbytes(8))
        frame = bytearray(forger.header + struct.pack("!H", frames.ETHERTYPES[forger.family]) + wrap(source[0], target[0], segment))
        for _ in range(generator.randrange(1, 6)):
            frame[generator.randrange(12, len(frame))] = generator.randrange(256)
        frame = frame[:generator.randrange(14, len(frame) + 1)] if generator.random() < 0.3 else frame + generator.randbytes(generator.randrange(30))
        forger.send_raw(bytes(frame))
        if number % 1000 == 0:
            assert relay.running(), f"seed {seed}, frame {number}\n{relay.tail()}"
    unharmed(legs)
    assert relay.running(), f"seed {seed}\n{relay.tail()}"


@pytest.mark.packet(engine=True)
@pytest.mark.parametrize("header", ["hop_by_hop", "fragment", "destination", "no_next"])
@pytest.mark.parametrize("victim", [6], indirect=True, ids=["ipv6"])
def test_ipv6_extension_headers_go_to_the_kernel(victim, header):
    sides, relay, legs, forger = victim
    source, target = legs[0].getsockname()[:2], legs[0].getpeername()[:2]
    sequence, acknowledgement = forger.position(legs[0], lambda: exchange(legs))
    number = {"hop_by_hop": 0, "fragment": 44, "destination": 60, "no_next": 59}[header]
    extension = b"" if header == "no_next" else bytes([6, 0]) + (b"\x01\x04\0\0\0\0" if number != 44 else struct.pack("!HI", 0, 7))
    segment = frames.tcp(source, target, sequence, acknowledgement, frames.ACK, b"poison")
    forger.send(frames.ipv6(source[0], target[0], extension + segment, next_header=number))
    time.sleep(0.1)
    unharmed(legs, 100_000)
    if sides.packets:
        counters = relay.counters()
        assert counters["packet_ip_extension_total"] + counters["packet_fragment_total"] + counters["packet_not_tcp_total"] > 0


def test_a_flood_of_syns_on_a_tunnel_port_leaves_flows_alone(victim):
    sides, relay, legs, forger = victim
    port = legs[0].getpeername()[1]
    target = (sides.visitor_side.host(), port)
    for number in range(20_000):
        source = (f"10.99.{200 + number % 50}.{1 + number % 200}", 1024 + number % 60_000)
        forger.send(frames.ipv4(source[0], target[0], frames.tcp(source, target, number * 7919, 0, frames.SYN)))
    unharmed(legs)
    with protocol.connect(target) as visitor:
        visitor.sendall(b"x")
    assert relay.running()


def test_segments_of_unknown_connections_are_reset_by_the_kernel(victim):
    sides, relay, legs, forger = victim
    target = (sides.visitor_side.host(), legs[0].getpeername()[1])
    before = relay.counters()["packet_no_flow_total"]
    for number in range(50):
        forger.send(frames.ipv4(sides.visitor_side.user(), target[0],
                                frames.tcp((sides.visitor_side.user(), 2000 + number), target, number * 7919, 5, frames.ACK, b"stray")))
    time.sleep(0.2)
    unharmed(legs)
    if sides.packets:
        counters = relay.counters()
        assert counters["packet_no_flow_total"] - before >= 50
        assert counters["held_bytes"] == 0 or counters["held_bytes"] < 64 * KIB


# Next hops that get another link address

NEW_LINK_ADDRESS = "02:00:00:00:aa:01"


@pytest.mark.packet_smoke
@pytest.mark.limit(60)
@pytest.mark.parametrize("who", ["visitor", "client"])
def test_a_peer_with_another_link_address(start_sides, open_sided, keep, who):
    """As after a failover to another machine's NIC. It speaks first; the relay's kernel learns from that."""
    sides, relay = start_sides()
    legs = keep(*open_sided(sides, relay).pair())
    await_spliced(sides, relay, 1)
    exchange(legs)
    side, legs = (sides.visitor_side, legs) if who == "visitor" else (sides.client_side, legs[::-1])
    side.users.ip(f"link set {side.interface} address {NEW_LINK_ADDRESS}")
    for leg in legs:
        leg.settimeout(30)
    exchange(legs)
    traffic.transfer(legs[1], legs[0], 4 * MIB)
    expect_spliced(sides, relay, 1)
    if sides.packets:
        assert relay.counters()["flows_moved_total"] == 1


@pytest.mark.packet_smoke
@pytest.mark.limit(60)
@pytest.mark.packet(engine=True)
def test_a_gateway_with_another_link_address(start_relay, open_tunnel, keep):
    """The visitor is behind it; what teaches the relay's kernel is the gateway's own traffic."""
    relay = start_relay("--packet-path", "splice")
    here = netns.Namespace(fresh=False)
    try:
        here.ip("addr add 10.96.0.1/32 dev lo")
        tunnel = open_tunnel(relay)
        visitor = protocol.connect((tunnel.address[0], tunnel.port), source="10.96.0.1")
        service = tunnel.claim(tunnel.connection(), b"first")
        keep(visitor, service)
        assert traffic.receive_exactly(visitor, 5) == b"first"
        traffic.eventually(lambda: relay.counters()["handoffs_total"] == 1, 5)
        here.ip(f"link set wire0 address {NEW_LINK_ADDRESS}")
        for leg in (visitor, service):
            leg.settimeout(30)
        exchange((service, visitor))  # the service is at the gateway's own address
        traffic.transfer(service, visitor, 4 * MIB)
        assert relay.counters()["flows_moved_total"] == 2
    finally:
        here.close()
