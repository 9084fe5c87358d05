"""Pairs that leave the kernel: every byte once and in order, ends as they were, and counters which
prove that it was the splice. Two ports, visitors and clients in namespaces of their own. What the
network does to them is in test_packet_network.py, start and end of the relay in test_packet_start.py."""
import signal
import socket
import time

import pytest

from harness import programs, protocol, site, traffic
from harness.ctl import Ctl
from harness.protocol import RelayError
from harness.splicing import await_spliced, expect_spliced, expect_streamed, stream_reasons
from test_limits import limit_is_held

pytestmark = [pytest.mark.packet, pytest.mark.alone]

MIB = 1 << 20
KIB = 1 << 10


def exchange(legs, text=b"ping"):
    """A few bytes each way."""
    for sender, receiver in (legs, legs[::-1]):
        sender.sendall(text)
        assert traffic.receive_exactly(receiver, len(text)) == text


# Bulk

@pytest.mark.packet_smoke
@pytest.mark.limit(300)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", ["to_visitor", "to_service", "both"])
def test_bulk_by_the_rust_client(start_sides, open_rust, keep, bulk_size, direction, family):
    sides, relay = start_sides()
    visitor, service = keep(*open_rust(sides, relay, family).pair())
    upwards = None
    if direction != "to_visitor":
        upwards = traffic.Background(traffic.transfer, visitor, service, bulk_size, 1, timeout=250)
    if direction != "to_service":
        traffic.transfer(service, visitor, bulk_size, 2, timeout=250)
    if upwards:
        upwards.result(250)
    expect_spliced(sides, relay, 1)


@pytest.mark.packet_smoke
@pytest.mark.limit(120)
def test_one_port_for_both_legs(start_relay, open_tunnel, keep, bulk_size, driver):
    """What test_transfers.py runs over: both legs on one NIC."""
    relay = start_relay()
    visitor, data = keep(*open_tunnel(relay).pair())
    upwards = traffic.Background(traffic.transfer, visitor, data, bulk_size // 4, 1)
    traffic.transfer(data, visitor, bulk_size // 4, 2)
    upwards.result(100)
    assert relay.counters()["handoffs_total"] == (1 if driver in site.PACKET_PORTS else 0)


@pytest.mark.packet_smoke
@pytest.mark.limit(240)
def test_2000_connections_with_data_behind_accept_and_before_pairing(start_sides, open_sided, keep, quick):
    count = 500 if quick else 2_000
    sides, relay = start_sides("--max-pending-visitors", "4000", "--max-unauthenticated-per-source", "4096",
                               "--handshake-rate-per-source", "0")
    tunnel = open_sided(sides, relay)
    visitors = {}
    for number in range(count):
        visitor = tunnel.visit()
        visitor.sendall(b"%08d" % number + traffic.payload(number % 3000, number))
        visitors[number] = visitor
    keep(*visitors.values())
    services = {}
    for _ in range(count):
        service = tunnel.claim(tunnel.connection(), b"behind Accept")
        keep(service)
        number = int(traffic.receive_exactly(service, 8))
        assert number not in services, f"visitor {number} came twice"
        services[number] = service
    for number, service in services.items():
        visitor = visitors[number]
        assert traffic.receive_exactly(service, number % 3000) == traffic.payload(number % 3000, number)
        assert traffic.receive_exactly(visitor, 13) == b"behind Accept"
        service.sendall(b"answer to %d" % number)
        service.shutdown(socket.SHUT_WR)
        assert traffic.receive_all(visitor) == b"answer to %d" % number
        visitor.sendall(b"bye")
        visitor.shutdown(socket.SHUT_WR)
        assert traffic.receive_all(service) == b"bye"
    expect_spliced(sides, relay, count)
    traffic.eventually(lambda: programs.ended(relay.counters(), "fin") == count, 5)
    totals = relay.tunnels()[tunnel.port]
    assert totals["to_client"] == sum(8 + number % 3000 + 3 for number in range(count))
    assert totals["to_visitor"] == sum(13 + len(f"answer to {number}") for number in range(count))


@pytest.mark.limit(60)
@pytest.mark.parametrize("size", [1, 1448, 60_000, MIB])
def test_early_bytes_of_every_size(start_sides, open_sided, keep, size):
    """From both sides, before the pair exists; more than may be held goes by the stream engine."""
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    for family_of_seeds in (10, 20, 30):
        visitor = tunnel.visit()
        sending = traffic.Background(traffic.send, visitor, size, family_of_seeds)
        identity = tunnel.connection()
        time.sleep(0.1)
        opening = traffic.Background(tunnel.claim, identity, traffic.payload(size, family_of_seeds + 1))
        received = traffic.Background(traffic.receive_exactly, visitor, size)
        service = opening.result()
        keep(visitor, service)
        assert traffic.receive_digest(service) == (size, traffic.digest(size, family_of_seeds))
        assert received.result() == traffic.payload(size, family_of_seeds + 1)
        sending.result()
        service.close()
    if size <= 1448:
        expect_spliced(sides, relay, 3)


# Ends

@pytest.mark.packet_smoke
@pytest.mark.parametrize("family", [4, 6])
def test_half_close_both_ways(start_sides, open_sided, keep, family):
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay, family)
    for first in (0, 1):
        legs = keep(*tunnel.pair())
        await_spliced(sides, relay, first + 1)
        ending, other = legs[first], legs[1 - first]
        ending.sendall(b"the last of this side")
        ending.shutdown(socket.SHUT_WR)
        assert traffic.receive_all(other) == b"the last of this side"
        time.sleep(0.3)
        traffic.transfer(other, ending, 4 * MIB, first)
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for sock in legs)
    expect_spliced(sides, relay, 2)
    traffic.eventually(lambda: programs.ended(relay.counters(), "fin") == 2, 5)


def test_both_ends_close_at_the_same_time(start_sides, open_sided, keep):
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    for number in range(20):
        legs = keep(*tunnel.pair())
        await_spliced(sides, relay, number + 1)
        for leg in legs:
            leg.sendall(b"bye")
            leg.shutdown(socket.SHUT_WR)
        for leg in legs:
            assert traffic.receive_all(leg) == b"bye"
    traffic.eventually(lambda: programs.ended(relay.counters(), "fin") == 20, 5)


@pytest.mark.packet_smoke
@pytest.mark.parametrize("who", ["visitor", "service"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "bulk"])
def test_a_reset_is_a_reset_on_the_other_leg(start_sides, open_sided, keep, who, busy):
    sides, relay = start_sides()
    legs = keep(*open_sided(sides, relay).pair())
    resetting, other = legs if who == "visitor" else legs[::-1]
    await_spliced(sides, relay, 1)
    exchange(legs)
    if busy:
        pushing = traffic.Background(traffic.send, other, 512 * MIB)
        traffic.receive_exactly(resetting, 8 * MIB)
    protocol.reset(resetting)
    start = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        if busy:
            pushing.result(5)
        other.recv(1)
    assert time.monotonic() - start < 1.5
    expect_spliced(sides, relay, 1)
    traffic.eventually(lambda: programs.ended(relay.counters(), "reset") == 1, 5)


@pytest.mark.packet_smoke
@pytest.mark.parametrize("end", ["service_closes", "visitor_resets"])
def test_the_same_tuple_again_at_once(start_sides, open_sided, keep, end):
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    rounds = 20
    for number in range(rounds):
        visitor = tunnel.visit_from(23_456)
        service = tunnel.claim(tunnel.connection(), b"%d" % number)
        keep(visitor, service)
        assert traffic.receive_exactly(visitor, len(b"%d" % number)) == b"%d" % number
        await_spliced(sides, relay, number + 1)
        exchange((visitor, service), b"round %d" % number)
        if end == "service_closes":  # the TIME_WAIT is at that side, the visitor's port is free at once
            service.shutdown(socket.SHUT_WR)
            assert visitor.recv(1) == b""
            visitor.close()
            assert service.recv(1) == b""
        else:
            protocol.reset(visitor)
            with pytest.raises(ConnectionResetError):
                service.recv(1)
        service.close()
    expect_spliced(sides, relay, rounds)


@pytest.mark.limit(60)
def test_a_visitor_that_lost_its_memory_comes_back_on_the_same_tuple(start_sides, open_sided, keep):
    """Its host was restarted: no FIN, no RST, then a SYN on a tuple that is live for the relay."""
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    visitor, service = keep(tunnel.visit_from(23_456), tunnel.claim(tunnel.connection()))
    await_spliced(sides, relay, 1)
    exchange((visitor, service))
    visitor.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR: close() is silent
    visitor.close()
    again = keep(tunnel.visit_from(23_456))[0]
    service.settimeout(5)
    with pytest.raises(ConnectionResetError):
        service.recv(1)
    other = keep(tunnel.claim(tunnel.connection(5), b"hello again"))[0]
    assert traffic.receive_exactly(again, 11) == b"hello again"
    exchange((again, other))


# Long silences

@pytest.mark.limit(150)
@pytest.mark.parametrize("direction", ["to_visitor", "to_service"])
def test_zero_window(start_sides, open_sided, keep, quick, direction):
    sides, relay = start_sides()
    legs = keep(*open_sided(sides, relay).pair(receive_buffer=64 * KIB))
    sender, receiver = legs if direction == "to_service" else legs[::-1]
    await_spliced(sides, relay, 1)
    sender.settimeout(120)  # it stands still for longer than sockets of this suite usually may
    receiver.settimeout(30)  # probes are as far apart by then: it is the window's announcement that counts
    sending = traffic.Background(traffic.send, sender, 24 * MIB)
    time.sleep(5 if quick else 60)
    assert sending.is_alive(), "24 MiB went to a receiver that reads nothing"
    assert traffic.receive_digest(receiver) == (24 * MIB, traffic.digest(24 * MIB))
    sending.result()
    expect_spliced(sides, relay, 1)


@pytest.mark.limit(60)
def test_keepalive_over_an_idle_connection(start_sides, open_sided, keep):
    sides, relay = start_sides()
    legs = keep(*open_sided(sides, relay).pair())
    for leg in legs:
        leg.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        leg.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        leg.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        leg.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    await_spliced(sides, relay, 1)
    before = relay.counters()["packet_spliced_total"]
    time.sleep(6)
    exchange(legs)
    if sides.packets:
        assert relay.counters()["packet_spliced_total"] - before >= 20, "the probes and their answers did not cross"


def test_idle_timeout(start_sides, open_sided, keep):
    sides, relay = start_sides("--idle-timeout-s", "2")
    tunnel = open_sided(sides, relay)
    idle, busy = keep(*tunnel.pair()), keep(*tunnel.pair())
    await_spliced(sides, relay, 2)
    start = time.monotonic()
    for _ in range(8):
        exchange(busy)
        time.sleep(0.5)
    for sock in idle:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert time.monotonic() - start < 6
    exchange(busy)
    assert programs.ended(relay.counters(), "idle") == 1


def test_half_closed_timeout(start_sides, open_sided, keep):
    sides, relay = start_sides("--half-closed-timeout-s", "1")
    tunnel = open_sided(sides, relay)
    whole, half = keep(*tunnel.pair()), keep(*tunnel.pair())
    await_spliced(sides, relay, 2)
    half[0].shutdown(socket.SHUT_WR)
    assert half[1].recv(1) == b""
    half[0].settimeout(5)
    with pytest.raises(ConnectionResetError):
        half[0].recv(1)
    exchange(whole)
    assert programs.ended(relay.counters(), "half_closed") == 1


# Limits and counters

@pytest.mark.limit(60)
@pytest.mark.parametrize("direction", ["to_visitor", "to_client"])
@pytest.mark.parametrize("mbit", [1, 100, 1000])
def test_bandwidth_limit(start_sides, open_sided, driver, tmp_path, mbit, direction):
    mtu = site.wide_mtu(driver) if mbit == 1000 else 1500
    file = tmp_path / "bore.toml"
    file.write_text("tunnel_bandwidth_mbit = 0\n")
    sides, relay = start_sides("--config", file, mtus=(mtu, mtu), prepare=programs.go_first)
    pairs = limit_is_held(file, relay, lambda: open_sided(sides, relay), mbit, direction)
    expect_spliced(sides, relay, pairs)


@pytest.mark.packet_smoke
def test_counters_are_exact_while_a_pair_lives(start_sides, open_sided, keep):
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    to_client = to_visitor = 0
    for number, size in enumerate((1, 1400, 70_000, 3 * MIB + 17)):
        visitor, service = keep(*tunnel.pair(extra=b"early" * number))
        traffic.receive_exactly(visitor, 5 * number)
        for sender, receiver, length in ((visitor, service, size), (service, visitor, 2 * size)):
            sending = traffic.Background(traffic.send, sender, length, number, fin=False)
            assert traffic.receive_exactly(receiver, length) == traffic.payload(length, number)
            sending.result()
        to_client, to_visitor = to_client + size, to_visitor + 2 * size + 5 * number

        def exact():
            totals = relay.tunnels()[tunnel.port]
            assert (totals["to_client"], totals["to_visitor"]) == (to_client, to_visitor)
            return True

        traffic.eventually(exact, 2)
    expect_spliced(sides, relay, 4)


# Policies

@pytest.mark.packet_smoke
@pytest.mark.packet(engine=True)
def test_path_rules_by_port(start_sides, open_sided, keep):
    sides, relay = start_sides("--packet-path", "splice", "--packet-path-rules", "20000-20099=stream")
    for port, spliced in ((20_050, False), (20_100, True)):
        legs = keep(*open_sided(sides, relay, port=port).pair())
        exchange(legs)
        if spliced:
            await_spliced(sides, relay, 1)
        else:
            expect_streamed(sides, relay, "policy", 1)


@pytest.mark.packet_smoke
@pytest.mark.packet(engine=True)
def test_path_stream_leaves_every_pair_to_the_stream_engine(start_sides, open_sided, keep):
    sides, relay = start_sides("--packet-path", "stream")
    tunnel = open_sided(sides, relay)
    for _ in range(3):
        exchange(keep(*tunnel.pair()))
    visitor, service = keep(*tunnel.pair())
    traffic.transfer(service, visitor, 16 * MIB)
    expect_streamed(sides, relay, "policy", 4)


@pytest.mark.packet(engine=True)
def test_short_paths_are_spliced_by_default(start_sides, open_sided, keep):
    sides, relay = start_sides("--packet-path", "auto")
    tunnel = open_sided(sides, relay)
    for _ in range(10):
        exchange(keep(*tunnel.pair()))
    traffic.eventually(lambda: relay.counters()["handoffs_total"] >= 8, 5, lambda: stream_reasons(relay.counters()))
    assert set(stream_reasons(relay.counters())) <= {"stream_long_path_total"}


# Who goes and who stays

@pytest.mark.parametrize("end", ["close", "kill"], ids=["fin", "rst"])
def test_spliced_pairs_outlive_their_clients_control_connection(start_sides, open_sided, keep, end):
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    legs = keep(*tunnel.pair())
    await_spliced(sides, relay, 1)
    getattr(tunnel, end)()
    traffic.eventually(lambda: relay.counters()["tunnels_live"] == 0, 2)
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        tunnel.visit().recv(1)
    exchange(legs)
    traffic.transfer(legs[1], legs[0], 16 * MIB)
    # The port can be had again while the old pair is still there, and its flows do not mix.
    another = open_sided(sides, relay, port=tunnel.port)
    fresh = keep(*another.pair(extra=b"new"))
    assert traffic.receive_exactly(fresh[0], 3) == b"new"
    traffic.transfer(legs[0], legs[1], 4 * MIB, 3)


@pytest.mark.limit(60)
def test_a_client_that_vanishes_loses_its_port_in_time(start_sides, open_sided, keep):
    sides, relay = start_sides("--idle-timeout-s", "6", client_wire=())
    tunnel = open_sided(sides, relay)
    visitor, service = keep(*tunnel.pair())
    exchange((visitor, service))
    sides.client_side.wire.cut()
    start = time.monotonic()
    visitor.sendall(b"nobody hears this")
    with pytest.raises(ConnectionResetError):
        visitor.recv(1)
    assert 5.5 < time.monotonic() - start < 15
    traffic.eventually(lambda: relay.counters()["tunnels_live"] == 0, 15 - (time.monotonic() - start))
    sides.client_side.wire.mend()
    with pytest.raises(ConnectionResetError):  # told so when it asks, not left waiting
        service.settimeout(5)
        service.sendall(b"still there?")
        assert False, service.recv(100)


@pytest.mark.limit(60)
def test_a_cable_that_comes_back_in_time_costs_nothing(start_sides, open_sided, keep):
    sides, relay = start_sides(client_wire=())
    visitor, service = keep(*open_sided(sides, relay).pair())
    sending = traffic.Background(traffic.transfer, service, visitor, 128 * MIB)
    time.sleep(0.3)
    sides.client_side.wire.cut()
    time.sleep(3)
    sides.client_side.wire.mend()
    sending.result(40)
    expect_spliced(sides, relay, 1)


# Drain

@pytest.mark.packet_smoke
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_lets_a_live_transfer_finish(start_sides, open_sided, keep, number):
    sides, relay = start_sides("--drain-timeout-s", "20", check_stop=False)
    visitor, service = keep(*open_sided(sides, relay).pair())
    await_spliced(sides, relay, 1)
    sending = traffic.Background(traffic.send, service, 64 * MIB)
    relay.signal(number)
    time.sleep(0.5)
    assert relay.running(), relay.tail()
    assert traffic.receive_digest(visitor) == (64 * MIB, traffic.digest(64 * MIB))
    sending.result()
    visitor.close()
    service.close()
    start = time.monotonic()
    assert relay.wait(8) == 0
    assert time.monotonic() - start < 4
    relay.assert_no_sanitizer_report()


def test_drain_cuts_what_is_left_at_its_deadline(start_sides, open_sided, keep):
    sides, relay = start_sides("--drain-timeout-s", "1", check_stop=False)
    pairs = [keep(*open_sided(sides, relay).pair()) for _ in range(3)]
    await_spliced(sides, relay, 3)
    start = time.monotonic()
    relay.signal(signal.SIGTERM)
    assert relay.wait(6) == 0
    assert 0.9 < time.monotonic() - start < 4
    for sock in sum(pairs, ()):
        sock.settimeout(2)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    relay.assert_no_sanitizer_report()


@pytest.mark.packet_smoke
def test_borectl_lists_spliced_flows_and_ends_them(start_sides, open_sided, keep, ctl_program, tmp_path):
    """More than one page of them: 300 flows, 256 fit."""
    path = tmp_path / "relay.sock"
    sides, relay = start_sides("--control-socket", path, "--handshake-rate-per-source", "0")
    tunnel, ctl, count = open_sided(sides, relay), Ctl(ctl_program, path), 300
    pairs = [keep(*tunnel.pair()) for _ in range(count)]
    await_spliced(sides, relay, count)
    if not sides.packets:
        return
    exchange(pairs[7], b"x" * 1000)
    visitor = pairs[7][0].getsockname()

    def listed():
        flows = {flow["visitor"]: flow for flow in ctl.json("flows")["flows"]}
        flow = flows[f"{visitor[0]}:{visitor[1]}"]
        assert flow["to_client_bytes"] == flow["to_visitor_bytes"] == 1000 and flow["tunnel_port"] == tunnel.port
        assert len(flows) == count
        return True

    traffic.eventually(listed)
    assert f"{visitor[0]}:{visitor[1]}" in ctl("flows")
    assert f"{count} pairs" in ctl("kill", tunnel.port)
    for sock in pairs[7]:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    traffic.eventually(lambda: ctl.json("flows")["flows"] == [])


def test_a_second_tunnel_gets_its_port_refused_as_ever(start_sides, open_sided):
    sides, relay = start_sides()
    tunnel = open_sided(sides, relay)
    with pytest.raises(RelayError, match="port already in use"):
        open_sided(sides, relay, port=tunnel.port)
