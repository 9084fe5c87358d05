"""Bytes through a pair: all of them, once, in order, in both directions; ends and resets as they were;
bounded memory. Each through plain sockets, through `bore`, and where it can through the Rust client."""
import hashlib
import pathlib
import select
import socket
import subprocess
import threading
import time

import pytest

from harness import programs, protocol, site, traffic
from harness.tunnels import ProgramTunnel

# Bulk, floods of visitors: every core is busy.
pytestmark = pytest.mark.alone

MIB = 1 << 20
KIB = 1 << 10

OURS = ("sockets", "bore")
ALL = (*OURS, "rust")


@pytest.fixture
def through(request, cleanup, driver):
    """through(relay): a tunnel by the client that the test is parametrised with."""

    def start(relay, **keywords):
        if request.param == "sockets":
            tunnel = protocol.open_upstream(relay.address, **keywords)
        elif request.param == "bore":
            command = [request.getfixturevalue("client_program"), "--stream-driver", site.stream_driver(driver)]
            tunnel = ProgramTunnel(command, relay, **keywords)
        else:
            tunnel = ProgramTunnel([request.getfixturevalue("rust_060")], relay, **keywords)
        cleanup.callback(tunnel.close)
        return tunnel

    return start


def by(*clients):
    return pytest.mark.parametrize("through", clients, indirect=True)


# Bulk

@pytest.mark.smoke
@by(*ALL)
@pytest.mark.limit(180)
def test_bulk_to_the_visitor(relay, through, keep, bulk_size):
    visitor, service = keep(*through(relay).pair())
    traffic.transfer(service, visitor, bulk_size)
    visitor.close()
    service.close()
    relay.assert_descriptors_returned()


@pytest.mark.smoke
@by(*ALL)
@pytest.mark.limit(180)
def test_bulk_to_the_service(relay, through, keep, bulk_size):
    visitor, service = keep(*through(relay).pair())
    traffic.transfer(visitor, service, bulk_size)
    visitor.close()
    service.close()
    relay.assert_descriptors_returned()


@pytest.mark.smoke
@by(*ALL)
@pytest.mark.limit(240)
def test_bulk_both_ways_at_once(relay, through, keep, bulk_size):
    visitor, service = keep(*through(relay).pair())
    upwards = traffic.Background(traffic.transfer, visitor, service, bulk_size, 1)
    traffic.transfer(service, visitor, bulk_size, 2)
    upwards.result(200)
    visitor.close()
    service.close()
    relay.assert_descriptors_returned()


@pytest.mark.smoke
@by(*ALL)
@pytest.mark.limit(180)
def test_bulk_answer_after_the_visitors_fin(relay, through, keep, bulk_size):
    visitor, service = keep(*through(relay).pair())
    visitor.sendall(b"request")
    visitor.shutdown(socket.SHUT_WR)
    assert traffic.receive_all(service) == b"request"
    time.sleep(0.2)
    traffic.transfer(service, visitor, bulk_size)
    visitor.close()
    service.close()
    relay.assert_descriptors_returned()


@by(*ALL)
def test_urgent_bytes_in_bulk_arrive_in_their_place(relay, through, keep):
    visitor, service = keep(*through(relay).pair())
    bulk = bytes(range(256)) * 8192
    upwards = traffic.Background(traffic.receive_all, service)
    for piece in (bulk, bulk[:70_000], b"behind the mark, then the end"):
        visitor.sendall(piece)
        visitor.send(b"!", socket.MSG_OOB)
        time.sleep(0.1)
    visitor.sendall(b"last")
    visitor.shutdown(socket.SHUT_WR)
    assert upwards.result(20) == bulk + b"!" + bulk[:70_000] + b"!" + b"behind the mark, then the end!last"


def congestion_control_of(*addresses):
    """The algorithm by which this machine's socket between the two (host, port) sends."""
    here, there = (f"{host}:{port}" for host, port in addresses)
    listed = subprocess.run(["ss", "-Htin", "src", here, "dst", there], check=True, capture_output=True, text=True)
    words = listed.stdout.split()
    return next((word for word in words if word in ("bbr", "cubic", "reno")), words)


@pytest.mark.needs_namespace
def test_only_what_stays_on_this_machine_changes_its_congestion_control(start_relay, open_tunnel, keep, cleanup):
    other = site.other_namespace()
    cleanup.callback(other.close)
    with site.beside_relay():
        chosen = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
        available = chosen.with_name("tcp_available_congestion_control").read_text(encoding="ascii").split()
        system = next((name for name in ("bbr", "cubic") if name in available), None)
        if system is None:
            pytest.skip(f"this kernel has no congestion control besides {', '.join(available)}")
        chosen.write_text(system, encoding="ascii")
    relay = start_relay()
    with site.beside_relay():
        tunnel = open_tunnel(relay)
    with other.inside():
        visitor = protocol.connect((other.HERE, tunnel.port))
    with site.beside_relay():
        service = tunnel.claim(tunnel.connection())
    keep(visitor, service)
    for sender, receiver in ((visitor, service), (service, visitor)):
        sending = traffic.Background(sender.sendall, bytes(16 * MIB))
        traffic.receive_exactly(receiver, 16 * MIB)
        sending.result(20)
    with site.beside_relay():
        assert congestion_control_of((other.HERE, tunnel.port), visitor.getsockname()[:2]) == system
        assert congestion_control_of(relay.address, service.getsockname()[:2]) == "reno"


@by("sockets")
@pytest.mark.limit(120)
def test_bulk_upload_after_the_services_fin(relay, through, keep, bulk_size):
    visitor, service = keep(*through(relay).pair())
    service.shutdown(socket.SHUT_WR)
    assert visitor.recv(1) == b""
    traffic.transfer(visitor, service, bulk_size)


@pytest.mark.smoke
@by(*OURS)
@pytest.mark.limit(120)
def test_sixteen_bulk_streams_both_ways(relay, through, keep, bulk_size):
    tunnel = through(relay)
    size = bulk_size // 32
    running = []
    for number in range(16):
        visitor, service = keep(*tunnel.pair())
        running.append(traffic.Background(traffic.transfer, visitor, service, size, number))
        running.append(traffic.Background(traffic.transfer, service, visitor, size, number + 100))
    for transfer in running:
        transfer.result(100)


@by("sockets")
@pytest.mark.parametrize("secret", [None, "abc"], ids=["open", "secret"])
def test_a_megabyte_behind_accept_and_before_pairing(start_relay, through, keep, secret):
    relay = start_relay(*([] if secret is None else ["--secret", secret]))
    tunnel = through(relay, secret=secret)
    visitor = tunnel.visit()
    sending = traffic.Background(traffic.send, visitor, 3 * MIB, 1)
    identity = tunnel.connection()
    time.sleep(0.2)
    opening = traffic.Background(tunnel.claim, identity, traffic.payload(MIB, 2))
    received = traffic.Background(traffic.receive_exactly, visitor, MIB)
    service = opening.result()
    keep(visitor, service)
    assert received.result() == traffic.payload(MIB, 2)
    assert traffic.receive_digest(service) == (3 * MIB, traffic.digest(3 * MIB, 1))
    sending.result()


# Small pieces

@by(*ALL)
@pytest.mark.limit(60)
def test_tiny_writes(relay, through, keep, quick):
    count = 5_000 if quick else 20_000
    visitor, service = keep(*through(relay).pair())

    def write(sock, seed):
        data, at = traffic.payload(7 * count, seed), 0
        for index in range(count):
            length = index % 7 + 1
            sock.sendall(data[at:at + length])
            at += length
        sock.shutdown(socket.SHUT_WR)
        return hashlib.sha256(data[:at]).hexdigest(), at

    writers = [traffic.Background(write, visitor, 1), traffic.Background(write, service, 2)]
    readers = [traffic.Background(traffic.receive_digest, service), traffic.Background(traffic.receive_digest, visitor)]
    for writer, reader in zip(writers, readers):
        assert writer.result(50) == reader.result(50)[::-1]


@by(*OURS)
def test_small_exchanges_stay_quick_after_bulk(relay, through, keep):
    """A flow that was bulk and turns interactive must not wait for data to gather."""
    visitor, service = keep(*through(relay).pair())
    for sender, receiver in ((visitor, service), (service, visitor)):
        sending = traffic.Background(traffic.send, sender, 48 * MIB, fin=False)
        traffic.receive_exactly(receiver, 48 * MIB)
        sending.result()
        waits = []
        for _ in range(30):
            start = time.monotonic()
            sender.sendall(b"q")
            assert receiver.recv(10) == b"q"
            receiver.sendall(b"a")
            assert sender.recv(10) == b"a"
            waits.append(time.monotonic() - start)
            time.sleep(0.01)
        assert sorted(waits)[15] < 0.01 and max(waits) < 0.15, f"round trips after bulk took {sorted(waits)[-5:]}"


@by(*OURS)
def test_exchanges_of_20_kb_do_not_wait_for_acknowledgements(start_relay, through, keep):
    """8 kB writes with Nagle on, as the Rust client makes them; the relay acknowledges at once."""
    visitor, service = keep(*through(start_relay(*site.acknowledging())).pair())
    service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    waits = []
    for _ in range(100):
        start = time.monotonic()
        visitor.sendall(b"r" * 100)
        traffic.receive_exactly(service, 100)
        for _ in range(2):
            service.sendall(b"a" * 8192)
        service.sendall(b"a" * 3616)
        traffic.receive_exactly(visitor, 20_000)
        waits.append(time.monotonic() - start)
    assert sorted(waits)[90] < 0.02, f"20 kB exchanges took {sorted(waits)[-10:]}"


@by("sockets")
def test_slow_writer_is_not_delayed(relay, through, keep):
    visitor, service = keep(*through(relay).pair())
    for sender, receiver in ((visitor, service), (service, visitor)):
        for _ in range(40):
            start = time.monotonic()
            sender.sendall(b"x")
            assert receiver.recv(10) == b"x"
            assert time.monotonic() - start < 0.2
            time.sleep(0.02)


# Many

def serve_reversed(tunnel, count, descriptors, stop):
    """The tunnel client of `count` visitors: answers each 16-byte request by its bytes reversed."""
    poller = select.epoll()
    sockets = {}

    def answer(timeout):
        for number, _ in poller.poll(timeout):
            sock = sockets[number]
            request = sock.recv(16)
            if request:
                assert len(request) == 16
                sock.sendall(request[::-1])
            poller.unregister(number)

    for _ in range(count):
        sock = tunnel.claim(tunnel.connection(20)) if hasattr(tunnel, "claim") else tunnel.accept()
        sockets[sock.fileno()] = sock
        descriptors.append(sock)
        poller.register(sock.fileno(), select.EPOLLIN)
        answer(0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not stop.is_set():
        answer(0.05)
    poller.close()


@by(*OURS)
@pytest.mark.limit(120)
def test_5000_visitors_at_once(request, start_relay, through, quick):
    """With the defaults: no limit against strangers may slow the clients of a live tunnel down."""
    count = 1_000 if quick else 5_000
    needed = 2 * count + 500  # both ends of the test; the relay and `bore` need as many
    if request.config.descriptor_limit < needed:
        pytest.skip(f"descriptor limit {request.config.descriptor_limit}, needed {needed}")
    relay = start_relay()
    tunnel = through(relay)
    services, visitors, stop = [], [], threading.Event()
    serving = traffic.Background(serve_reversed, tunnel, count, services, stop)
    try:
        for number in range(count):
            visitor = tunnel.visit()
            visitor.sendall(b"%016d" % number)
            visitors.append(visitor)
        for number, visitor in enumerate(visitors):
            visitor.settimeout(30)
            assert traffic.receive_exactly(visitor, 16) == (b"%016d" % number)[::-1], f"visitor {number}"
        spliced = relay.counters()["flows_live"]  # these have no sockets
        assert relay.descriptors()["socket"] + 2 * spliced >= 2 * count
    finally:
        stop.set()
        for sock in visitors + services:
            sock.close()
    serving.result()
    relay.assert_descriptors_returned(10)


@by(*ALL)
@pytest.mark.limit(60)
def test_short_connections_leave_nothing_behind(relay, through, quick):
    tunnel = through(relay)
    for number in range(100 if quick else 500):
        visitor, service = tunnel.pair()
        with visitor, service:
            visitor.sendall(b"%d" % number)
            assert traffic.receive_exactly(service, len(b"%d" % number)) == b"%d" % number
            service.sendall(b"ok")
            service.shutdown(socket.SHUT_WR)
            assert traffic.receive_all(visitor) == b"ok"
    relay.assert_descriptors_returned()


# Memory

STALLED_PAIRS = 30
# What a stalled direction may hold in user space (dataplane/abi/limits.hpp), and what the process may
# grow by for reasons of its own.
STALLED_DIRECTION_BYTES = 256 * KIB
SLACK_BYTES = 24 * MIB


def push_until_stalled(sock, seed):
    """Sends until the other side has taken nothing for half a second; bytes that went."""
    sock.setblocking(False)
    sent, started = 0, time.monotonic()
    for block in traffic.blocks(1024 * MIB, seed):
        while block:
            try:
                length = sock.send(block)
            except BlockingIOError:
                if time.monotonic() - started > 0.5:
                    sock.settimeout(60)
                    return sent
                time.sleep(0.01)
                continue
            started = time.monotonic()
            block = block[length:]
            sent += length
    raise AssertionError("a gigabyte went to a receiver that reads nothing")


@by("sockets")
@pytest.mark.parametrize("direction", ["to_visitor", "to_service"])
@pytest.mark.limit(90)
def test_slow_readers_cost_bounded_memory(server_program, relay, through, keep, direction):
    tunnel = through(relay)
    pairs = [keep(*tunnel.pair(receive_buffer=64 * KIB)) for _ in range(STALLED_PAIRS)]
    if direction == "to_visitor":
        pairs = [pair[::-1] for pair in pairs]
    before = relay.resident_bytes()
    pushing = [traffic.Background(push_until_stalled, sender, number) for number, (sender, _) in enumerate(pairs)]
    sent = [push.result(60) for push in pushing]
    grown = relay.resident_bytes() - before
    if not programs.is_sanitized(server_program):  # a sanitizer keeps what was freed
        assert grown <= STALLED_PAIRS * STALLED_DIRECTION_BYTES + SLACK_BYTES, f"{grown >> 20} MiB for {STALLED_PAIRS} stalled pairs"
    # Nothing of it is lost when the readers wake up, one after the other and slowly at first.
    for number, (sender, receiver) in enumerate(pairs):
        sender.shutdown(socket.SHUT_WR)
        assert receiver.recv(1, socket.MSG_PEEK)
        assert traffic.receive_digest(receiver) == (sent[number], traffic.digest(sent[number], number))


@by("sockets")
@pytest.mark.limit(60)
def test_a_stalled_pair_does_not_hold_others_up(relay, through, keep):
    tunnel = through(relay)
    stalled, silent = keep(*tunnel.pair(receive_buffer=64 * KIB))
    traffic.Background(push_until_stalled, stalled, 0).result(30)
    visitor, service = keep(*tunnel.pair())
    traffic.transfer(service, visitor, 64 * MIB)
    assert silent.recv(1)


@by("sockets")
@pytest.mark.limit(60)
def test_a_very_slow_reader_gets_everything(relay, through, keep):
    visitor, service = keep(*through(relay).pair(receive_buffer=16 * KIB))
    size = 12 * MIB
    sending = traffic.Background(traffic.send, service, size)
    total, count = hashlib.sha256(), 0
    while piece := visitor.recv(8 * KIB if count < 2 * MIB else MIB):
        total.update(piece)
        count += len(piece)
        if count < 2 * MIB:
            time.sleep(0.004)
    sending.result()
    assert (count, total.hexdigest()) == (size, traffic.digest(size))


# Ends and resets

def expect_reset(sock, seconds=1.0):
    start = time.monotonic()
    sock.settimeout(seconds)
    with pytest.raises(ConnectionResetError):
        while sock.recv(1 << 20):
            pass
    assert time.monotonic() - start < seconds


@pytest.mark.smoke
@by(*OURS)
@pytest.mark.parametrize("who", ["visitor", "service"])
def test_a_reset_is_a_reset_on_the_other_leg(relay, through, keep, who):
    tunnel = through(relay)
    for exchange in (False, True):
        legs = keep(*tunnel.pair())
        time.sleep(0.1)  # a service that resets during the client's connect() is one that is down
        if exchange:
            legs[0].sendall(b"ping")
            traffic.receive_exactly(legs[1], 4)
            legs[1].sendall(b"pong")
            traffic.receive_exactly(legs[0], 4)
        resetting, other = legs if who == "visitor" else legs[::-1]
        protocol.reset(resetting)
        expect_reset(other)
    relay.assert_descriptors_returned()


@by(*OURS)
@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("direction", ["to_visitor", "to_service"])
def test_a_reset_in_the_middle_of_bulk(relay, through, keep, who, direction):
    legs = keep(*through(relay).pair())
    sender, receiver = legs if direction == "to_service" else legs[::-1]
    stop = threading.Event()

    def push():
        while not stop.is_set():
            for block in traffic.blocks(16 * MIB):
                sender.sendall(block)

    pushing = traffic.Background(push)
    traffic.receive_exactly(receiver, 32 * MIB)
    if who == "receiver":
        protocol.reset(receiver)
        start = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            pushing.result(3)
        assert time.monotonic() - start < 1.0
    else:
        reading = traffic.Background(expect_reset, receiver, 5.0)
        stop.set()
        pushing.result()
        protocol.reset(sender)
        reading.result()
    relay.assert_descriptors_returned()


@by("sockets")
def test_a_reset_behind_a_fin(relay, through, keep):
    """The visitor has ended its direction; what kills the other one is still a reset for it."""
    visitor, service = keep(*through(relay).pair())
    visitor.shutdown(socket.SHUT_WR)
    assert service.recv(1) == b""
    service.sendall(b"half an answer")
    assert traffic.receive_exactly(visitor, 14) == b"half an answer"
    protocol.reset(service)
    expect_reset(visitor)


@pytest.mark.smoke
@by(*OURS)
@pytest.mark.parametrize("who", ["visitor", "service"])
def test_an_orderly_end_is_a_fin(relay, through, keep, who):
    legs = keep(*through(relay).pair())
    ending, other = legs if who == "visitor" else legs[::-1]
    ending.sendall(b"the end")
    ending.shutdown(socket.SHUT_WR)
    assert traffic.receive_all(other) == b"the end"
    other.sendall(b"likewise")
    other.shutdown(socket.SHUT_WR)
    assert traffic.receive_all(ending) == b"likewise"
    # Both directions ended in order: no error is pending on either socket.
    for sock in legs:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    visitor, service = legs
    visitor.close()
    service.close()
    relay.assert_descriptors_returned()


@by("bore", "rust")
def test_dead_local_service_is_an_orderly_end_for_the_visitor(relay, through):
    tunnel = through(relay)
    tunnel.listener.close()
    for _ in range(3):
        with tunnel.visit() as visitor:
            assert visitor.recv(1) == b""
    assert tunnel.client.running()
    relay.assert_descriptors_returned()


@pytest.mark.smoke
@by("sockets")
def test_counters_are_exact(relay, through, keep):
    tunnel = through(relay)
    sizes = (5 * MIB + 17, 3 * MIB + 5, 1, 0)
    for number, size in enumerate(sizes):
        visitor, service = keep(*tunnel.pair())
        upwards = traffic.Background(traffic.transfer, visitor, service, size, number)
        traffic.transfer(service, visitor, 2 * size, number)
        upwards.result()
        visitor.close()
        service.close()

    def exact():
        totals = relay.tunnels()[tunnel.port]
        assert (totals["to_client"], totals["to_visitor"]) == (sum(sizes), 2 * sum(sizes))
        counters = relay.counters()
        if not counters["handoffs_total"]:
            moved = counters["copied_bytes_total"] + counters["spliced_bytes_total"]
            assert moved == 3 * sum(sizes), f"{moved} bytes counted, {3 * sum(sizes)} moved"
        assert programs.ended(counters, "fin") == len(sizes) and counters["pairs_live"] == counters["flows_live"] == 0
        return True

    traffic.eventually(exact)
