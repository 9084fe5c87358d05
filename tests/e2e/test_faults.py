"""What hurts a relay: floods, junk, descriptors running out, peers that misbehave; and the addresses
it listens on. Whatever it is, it ends at most its own connection."""
import os
import random
import shutil
import socket
import subprocess
import threading
import time

import pytest

from harness import protocol, site, traffic
from harness.protocol import RelayError, accept, authenticate, hello

MIB = 1 << 20
SECRET = "abc"


# Floods

def flood(address, source, stop, shape):
    """Connections as fast as they go, each with something the relay did not ask for."""
    generator = random.Random(shape)
    attempts = 0
    while not stop.is_set():
        attempts += 1
        try:
            with protocol.connect(address, source=source, timeout=1) as sock:
                if shape == "junk":
                    sock.sendall(generator.randbytes(generator.randrange(1, 2000)))
                elif shape == "frames":
                    sock.sendall(b"".join(generator.choice((hello(1), accept("x"), authenticate("y"), b"\0", b"null\0")) for _ in range(9)))
                elif shape == "reset":
                    sock.sendall(b'{"Hel')
                    protocol.reset(sock)
                elif shape == "http":
                    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    sock.recv(100)
        except OSError:
            pass
    return attempts


@pytest.mark.alone
@pytest.mark.parametrize("target", ["control", "tunnel"])
@pytest.mark.limit(120)
def test_a_transfer_runs_unharmed_through_a_flood(start_relay, open_tunnel, cleanup, target, bulk_size):
    relay = start_relay("--secret", SECRET)
    tunnel = open_tunnel(relay, secret=SECRET)
    victim = open_tunnel(relay, secret=SECRET)
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    stop = threading.Event()
    address = relay.address if target == "control" else (site.relay(), victim.port)
    floods = [traffic.Background(flood, address, site.source(60 + index), stop, shape)
              for index, shape in enumerate(("junk", "frames", "reset", "http"))]
    try:
        upwards = traffic.Background(traffic.transfer, visitor, data, bulk_size // 2, 1)
        traffic.transfer(data, visitor, bulk_size // 2, 2)
        upwards.result(60)
        time.sleep(1)
        # In the middle of it, who knows the secret is served as ever.
        start = time.monotonic()
        fresh = open_tunnel(relay, secret=SECRET, source=site.source(50))
        legs = fresh.pair(extra=b"hello")
        assert traffic.receive_exactly(legs[0], 5) == b"hello"
        assert time.monotonic() - start < 2
    finally:
        stop.set()
    assert sum(one.result() for one in floods) > 100
    assert relay.running(), relay.tail()


@pytest.mark.alone
def test_a_megabyte_without_nul_dies_within_100_ms_and_costs_nothing(relay, dial):
    def junk():
        framed = dial(relay)
        with pytest.raises((ConnectionResetError, BrokenPipeError, protocol.EndOfStream)):
            framed.send(b"\x01" * MIB)
            framed.receive(1)

    before = relay.resident_bytes()
    assert traffic.typical_seconds(junk, times=21) < 0.1
    assert relay.resident_bytes() - before < 8 * MIB


# Errors that must arrive

@pytest.mark.parametrize("junk_bytes", [0, 20, 30_000])
def test_an_error_frame_is_not_destroyed_by_a_reset(start_relay, dial, junk_bytes):
    """The peer has pipelined more than the relay wants to read: close() alone would send a RST."""
    relay = start_relay("--secret", SECRET, "--auth-dialect", "upstream")
    for _ in range(10):
        framed = dial(relay)
        framed.expect("Challenge")
        framed.send(authenticate("00" * 32), hello(0), b"x" * junk_bytes)
        time.sleep(0.02)
        framed.expect_error("invalid secret")


def test_a_port_error_is_not_destroyed_by_a_reset(start_relay, dial):
    relay = start_relay("--min-port", "20000")
    for _ in range(10):
        framed = dial(relay)
        framed.send(hello(1), hello(1), b"x" * 5000)
        framed.expect_error("client port number not in allowed range")


def test_a_peer_that_never_stops_sending_is_cut_off_after_its_error(start_relay, dial):
    framed = dial(start_relay("--min-port", "20000"))
    framed.send(hello(1))
    framed.sock.settimeout(5)
    start = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while time.monotonic() - start < 5:
            framed.sock.sendall(b"x" * 1000)
            time.sleep(0.01)
    assert time.monotonic() - start < 1.5


# The HTTP probe

def http(relay, request):
    with protocol.connect(relay.address, timeout=3) as sock:
        start = time.monotonic()
        sock.sendall(request)
        answer = traffic.receive_all(sock)
        assert time.monotonic() - start < 1
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], dict(line.lower().split(": ", 1) for line in lines[1:]), body


@pytest.mark.parametrize("request_bytes", [
    b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", b"GET /health HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"OPTIONS * HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "secret"])
def test_http_probe_is_answered(start_relay, request_bytes, secret):
    relay = start_relay(*([] if secret is None else ["--secret", secret]))
    status, headers, body = http(relay, request_bytes)
    assert status == "HTTP/1.1 200 OK"
    assert headers["connection"] == "close" and int(headers["content-length"]) == len(body) > 0


@pytest.mark.smoke
def test_http_head_has_no_body(relay):
    status, headers, body = http(relay, b"HEAD / HTTP/1.1\r\nHost: relay\r\n\r\n")
    assert status == "HTTP/1.1 200 OK" and body == b"" and int(headers["content-length"]) > 0
    assert relay.counters()["http_probes_total"] == 1


def test_curl_head(relay):
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    done = subprocess.run(["curl", "-sS", "-I", "--max-time", "3", f"http://{site.relay()}:{relay.control_port}/"],
                          capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0 and done.stdout.startswith("HTTP/1.1 200"), done


def test_http_probe_byte_by_byte(relay):
    with protocol.connect(relay.address, timeout=3) as sock:
        for byte in b"GET / HTTP/1.1\r\n\r\n":
            sock.sendall(bytes([byte]))
            time.sleep(0.002)
        assert traffic.receive_all(sock).startswith(b"HTTP/1.1 200")


# Addresses

def visit_echo(tunnel, host):
    with protocol.connect((host, tunnel.port)) as visitor:
        data = tunnel.claim(tunnel.connection(), b"via " + host.encode())
        with data:
            assert traffic.receive_exactly(visitor, 4 + len(host)) == b"via " + host.encode()


@pytest.mark.smoke
def test_several_addresses_of_both_families(start_relay, cleanup):
    hosts = (site.relay(), site.relay6(), site.relay(5))
    relay = start_relay(*(word for host in hosts for word in ("--bind-addr", host)))
    for host in hosts:
        tunnel = protocol.open_upstream((host, relay.control_port))
        cleanup.callback(tunnel.close)
        for visited in hosts:
            visit_echo(tunnel, visited)
    with pytest.raises(ConnectionRefusedError):
        protocol.connect((site.relay(6), relay.control_port))


def test_the_any_address_of_ipv6_serves_both_families(start_relay, cleanup):
    relay = start_relay("--bind-addr", "::")
    tunnel = protocol.open_upstream((site.relay6(), relay.control_port))
    cleanup.callback(tunnel.close)
    for host in (site.relay6(), site.relay()):
        visit_echo(tunnel, host)


def test_both_any_addresses_beside_each_other(start_relay, open_tunnel):
    relay = start_relay("--bind-addr", "0.0.0.0", "--bind-addr", "::")
    tunnel = open_tunnel(relay)
    for host in (site.relay6(), site.relay()):
        visit_echo(tunnel, host)


def test_tunnels_on_other_addresses_than_control(start_relay, open_tunnel):
    relay = start_relay("--bind-addr", site.relay(), "--bind-tunnels", site.relay(9), "--bind-tunnels", site.relay6())
    tunnel = open_tunnel(relay)
    for host in (site.relay(9), site.relay6()):
        visit_echo(tunnel, host)
    with pytest.raises(ConnectionRefusedError):
        protocol.connect((site.relay(), tunnel.port))


def test_a_port_taken_on_one_of_several_addresses_is_in_use(start_relay, open_tunnel, cleanup):
    relay = start_relay("--bind-addr", site.relay(), "--bind-addr", site.relay6())
    with site.beside_relay():
        stranger = socket.create_server((site.relay6(), 0), family=socket.AF_INET6)
    cleanup.callback(stranger.close)
    with pytest.raises(RelayError) as error:
        open_tunnel(relay, port=stranger.getsockname()[1])
    assert str(error.value) == "port already in use"


def test_mapped_ipv4_peers_are_ipv4_in_access_lists(start_relay, dial):
    relay = start_relay("--bind-addr", "::", "--deny-clients", f"{site.source(3)}/32")
    denied = dial(relay, source=site.source(3))
    denied.expect_closed(1)
    allowed = dial(relay)
    allowed.send(hello(0))
    allowed.expect("Hello")


# Descriptors

@pytest.mark.alone
@pytest.mark.limit(60)
def test_descriptors_run_out_again_and_again(start_relay, open_tunnel, cleanup):
    relay = start_relay("--handshake-rate-per-source", "0", "--max-unauthenticated-per-source", "4096", nofile=site.descriptors(80))
    tunnel = open_tunnel(relay)
    for _ in range(3):
        hogs = [protocol.connect(relay.address) for _ in range(120)]
        for hog in hogs:
            cleanup.callback(hog.close)
        time.sleep(0.4)
        busy = processor_seconds(relay.pid)
        time.sleep(0.5)
        # Waiting for descriptors is waiting: an accept loop that spins would burn a core.
        assert processor_seconds(relay.pid) - busy < 0.25
        for hog in hogs:
            hog.close()

        def served():
            try:
                visitor = tunnel.visit()
                cleanup.callback(visitor.close)
                data = tunnel.claim(tunnel.connection(2), b"ok")
                cleanup.callback(data.close)
                visitor.settimeout(2)
                return traffic.receive_exactly(visitor, 2) == b"ok"
            except (OSError, AssertionError):
                return False

        traffic.eventually(served, 10)


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_max_open_files_is_what_the_process_gets(start_relay, open_tunnel):
    relay = start_relay("--max-open-files", "512", nofile=(256, 4096))
    with open(f"/proc/{relay.pid}/limits", encoding="ascii") as limits:
        line = next(line for line in limits if line.startswith("Max open files"))
    assert line.split()[3] == "512"
    open_tunnel(relay)


def test_the_soft_limit_is_raised_and_reported(start_relay):
    relay = start_relay(nofile=(256, 4096))
    with open(f"/proc/{relay.pid}/limits", encoding="ascii") as limits:
        line = next(line for line in limits if line.startswith("Max open files"))
    assert line.split()[3] == "4096"
    relay.wait_for_log(r"4,?096")


# An idle relay

@pytest.mark.stream_only("a poll loop polls")
@pytest.mark.alone
@pytest.mark.limit(40)
def test_an_idle_relay_with_pairs_and_tunnels_uses_no_processor_time(relay, open_tunnel, cleanup):
    tunnels = [open_tunnel(relay) for _ in range(20)]
    for tunnel in tunnels:
        for sock in tunnel.pair():
            cleanup.callback(sock.close)
    time.sleep(0.5)
    before = processor_seconds(relay.pid)
    time.sleep(3)
    assert processor_seconds(relay.pid) - before <= 0.06
