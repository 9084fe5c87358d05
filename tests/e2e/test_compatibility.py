"""Which client works against which relay: the matrix of the wire protocol, §8, for the relays we have.

Upstream (U) is the real Rust program, 0.6.0 and 0.5.2; the fork's dialect (F) is spoken byte by byte,
as its client does. The columns with a backend come with the backend link.
"""
import re
import socket
import threading
import time

import pytest

from harness import protocol, site, traffic
from harness.protocol import EndOfStream, RelayError, accept, authenticate, hello, tag

SECRET = "abc"
TOKEN = "tk_" + "5" * 64


def check_echo(port, size=300_000, seed=0):
    """A visitor's round trip; no half-close, which the 0.5.2 client would take for the end."""
    with protocol.connect((site.relay(), port)) as visitor:
        sending = traffic.Background(traffic.send, visitor, size, seed, fin=False)
        assert traffic.receive_exactly(visitor, size) == traffic.payload(size, seed)
        sending.result()


@pytest.fixture
def echo_service(cleanup):
    return cleanup.enter_context(traffic.LocalService(traffic.echo))


# U: the Rust clients

@pytest.mark.parametrize("relay_arguments, secret", [
    ((), None), (("--secret", SECRET), SECRET), (("--secret", ""), ""),
    (("--auth-dialect", "upstream"), None), (("--auth-dialect", "upstream", "--secret", SECRET), SECRET),
    (("--auth-dialect", "fork"), None)],
    ids=["open", "secret", "empty_secret", "upstream_open", "upstream_secret", "fork_open"])
def test_upstream_client_works(start_relay, start_client, rust_client, echo_service, relay_arguments, secret):
    start_relay(*relay_arguments)
    words = ["local", echo_service.port, "--to", site.relay()] + ([] if secret is None else ["--secret", secret])
    client = start_client(*words, program=rust_client)
    port = client.public_port()
    for seed in range(3):
        check_echo(port, seed=seed)
    assert client.running()


def test_upstream_client_gets_the_port_it_asks_for(start_relay, start_client, rust_client, echo_service):
    start_relay()
    client = start_client("local", echo_service.port, "--to", site.relay(), "--port", "23456", program=rust_client)
    assert client.public_port() == 23456
    check_echo(23456)


def test_upstream_client_without_the_secret_says_so(start_relay, start_client, rust_client):
    start_relay("--secret", SECRET)
    client = start_client("local", "9", "--to", site.relay(), program=rust_client)
    assert client.wait(5) != 0
    assert "server requires authentication, but no client secret was provided" in client.log()


def test_upstream_client_with_the_wrong_secret_says_so(start_relay, start_client, rust_client):
    start_relay("--secret", SECRET)
    client = start_client("local", "9", "--to", site.relay(), "--secret", "wrong", program=rust_client)
    assert client.wait(5) != 0
    assert "server error: invalid secret" in client.log()


def test_upstream_client_with_a_secret_gives_up_on_an_open_relay(start_relay, start_client, rust_client):
    start_relay()
    start = time.monotonic()
    client = start_client("local", "9", "--to", site.relay(), "--secret", SECRET, program=rust_client)
    assert client.wait(8) != 0
    assert 2.5 < time.monotonic() - start < 5


def test_upstream_client_is_told_why_a_port_is_refused(start_relay, start_client, rust_client):
    start_relay("--min-port", "20000")
    client = start_client("local", "9", "--to", site.relay(), "--port", "1500", program=rust_client)
    assert client.wait(5) != 0
    assert "server error: client port number not in allowed range" in client.log()


def test_upstream_client_with_a_dead_local_service(start_relay, start_client, rust_client):
    start_relay()
    client = start_client("local", "9", "--to", site.relay(), program=rust_client)
    port = client.public_port()
    for _ in range(2):
        with protocol.connect((site.relay(), port)) as visitor:
            assert visitor.recv(1) == b""
    assert client.running()


def test_upstream_client_ends_when_the_relay_does(start_relay, start_client, rust_client):
    relay = start_relay()
    client = start_client("local", "9", "--to", site.relay(), program=rust_client)
    client.public_port()
    relay.stop()
    assert client.wait(5) == 0


def test_upstream_clients_of_both_versions_and_fork_clients_on_one_port(
        start_relay, start_client, open_tunnel, rust_client, echo_service, cleanup):
    relay = start_relay("--secret", SECRET)
    rust = start_client("local", echo_service.port, "--to", site.relay(), "--secret", SECRET, program=rust_client)
    fork = open_tunnel(relay, "fork", secret=SECRET)
    port = rust.public_port()
    for seed in range(3):
        check_echo(port, seed=seed)
        visitor, data = fork.pair(extra=b"hello")
        cleanup.callback(data.close)
        with visitor:
            visitor.sendall(b"fork")
            assert traffic.receive_exactly(visitor, 5) == b"hello"
            assert traffic.receive_exactly(data, 4) == b"fork"


# F: the fork's client, byte by byte

def check_pair(tunnel):
    visitor, data = tunnel.pair()
    with visitor, data:
        visitor.sendall(b"to the service")
        assert traffic.receive_exactly(data, 14) == b"to the service"
        data.sendall(b"to the visitor")
        assert traffic.receive_exactly(visitor, 14) == b"to the visitor"


@pytest.mark.parametrize("relay_arguments", [(), ("--auth-dialect", "fork")], ids=["auto", "fork"])
@pytest.mark.parametrize("credentials", [{}, {"token": TOKEN}, {"token": "sk_x"}, {"token": "anything"}],
                         ids=["none", "tk", "sk", "other"])
def test_fork_client_on_an_open_relay(start_relay, open_tunnel, relay_arguments, credentials):
    check_pair(open_tunnel(start_relay(*relay_arguments), "fork", **credentials))


def test_fork_client_with_a_secret_refuses_an_open_relay(relay, dial):
    # It wants a Challenge before the Hello; what it gets is a Hello, and it leaves by itself.
    framed = dial(relay)
    framed.send(hello(0))
    framed.expect("Hello")


@pytest.mark.parametrize("mode", ["auto", "fork"])
def test_fork_client_with_the_secret(start_relay, open_tunnel, mode):
    relay = start_relay("--secret", SECRET, "--auth-dialect", mode)
    for _ in range(3):
        check_pair(open_tunnel(relay, "fork", secret=SECRET))


@pytest.mark.alone
def test_fork_client_without_the_secret_sees_a_challenge(start_relay, dial):
    relay = start_relay("--secret", SECRET)

    def challenge():
        framed = dial(relay)
        framed.send(hello(0))
        framed.expect("Challenge")

    waited = traffic.typical_seconds(challenge)
    assert waited < 0.08, f"a Hello must be challenged at once, not after the grace: {waited}"


def test_fork_client_with_a_token_on_a_relay_with_a_secret(start_relay, open_tunnel):
    relay = start_relay("--secret", SECRET)
    with pytest.raises(RelayError) as error:
        open_tunnel(relay, "fork", token=TOKEN)
    assert str(error.value) == "Authentication method not supported. Use shared secret mode."


def test_fork_mode_never_challenges_before_hello(start_relay, dial):
    dial(start_relay("--secret", SECRET, "--auth-dialect", "fork")).expect_silence(1.5)


@pytest.mark.alone
def test_upstream_mode_challenges_at_once(start_relay, dial):
    relay = start_relay("--secret", SECRET, "--auth-dialect", "upstream", "--challenge-grace-ms", "1000")
    assert traffic.typical_seconds(lambda: dial(relay).expect("Challenge")) < 0.08


def test_an_open_relay_never_challenges(relay, dial):
    framed = dial(relay)
    framed.expect_silence(1.5)
    framed.send(hello(0))
    framed.expect("Hello")


def test_a_busy_tunnel_keeps_its_port_against_a_client_with_the_same_secret(start_relay, open_tunnel, cleanup):
    relay = start_relay("--secret", SECRET, "--max-pending-visitors", "2000")
    tunnel = open_tunnel(relay, secret=SECRET)
    over = threading.Event()
    cleanup.callback(over.set)

    def visit():
        while not over.wait(0.003):
            cleanup.callback(tunnel.visit().close)

    visits = traffic.Background(visit)
    for _ in range(4):
        with pytest.raises(RelayError, match="port already in use"):
            open_tunnel(relay, secret=SECRET, port=tunnel.port)
    over.set()
    visits.result(5)
    assert tunnel.connection()


# Grace, hints, misfires

def time_to_challenge(dial, relay, **keywords):
    framed = dial(relay, **keywords)
    start = time.monotonic()
    framed.expect("Challenge", 3)
    waited = time.monotonic() - start
    framed.close()
    return waited


@pytest.mark.alone
@pytest.mark.parametrize("arguments, expected", [((), 0.1), (("--challenge-grace-ms", "400"), 0.4), (("--challenge-grace-ms", "0"), 0.0)],
                         ids=["default", "400", "0"])
def test_challenge_grace_of_an_unknown_source(start_relay, dial, arguments, expected):
    relay = start_relay("--secret", SECRET, *arguments)
    waits = sorted(time_to_challenge(dial, relay) for _ in range(3))
    assert expected - 0.01 <= waits[1] <= expected + 0.09, waits


@pytest.mark.alone
def test_a_known_upstream_source_is_challenged_at_once(start_relay, open_tunnel, dial):
    relay = start_relay("--secret", SECRET, "--challenge-grace-ms", "700")
    open_tunnel(relay, secret=SECRET, source=site.source(5))
    waits = sorted(time_to_challenge(dial, relay, source=site.source(5)) for _ in range(3))
    assert waits[1] < 0.1, f"a U client's data connections paid the grace: {waits}"
    # The hint is the address's own.
    assert time_to_challenge(dial, relay, source=site.source(6)) > 0.6


def test_a_known_fork_source_is_challenged_after_a_second(start_relay, open_tunnel, dial):
    relay = start_relay("--secret", SECRET)
    open_tunnel(relay, "fork", secret=SECRET)
    assert 0.95 < time_to_challenge(dial, relay) < 1.2
    # A U client behind the same address must still get in before its own 3 s run out.
    open_tunnel(relay, secret=SECRET)
    assert 0.95 < time_to_challenge(dial, relay) < 1.2


def test_late_hello_after_an_early_challenge(start_relay, dial):
    """The fork client whose first packet was lost: it takes the Challenge for the answer to its Hello."""
    relay = start_relay("--secret", SECRET, "--challenge-grace-ms", "50")
    framed = dial(relay)
    challenge = framed.expect("Challenge")
    framed.send(hello(0))
    framed.expect_silence(0.3)  # exactly one Challenge
    framed.send(authenticate(tag(SECRET, challenge)))
    check_pair(protocol.Tunnel(framed, framed.expect("Hello"), relay.address))


def test_misfire_resets_both_sides(start_relay, open_tunnel, dial, cleanup):
    relay = start_relay("--secret", SECRET)
    tunnel = open_tunnel(relay, "fork", secret=SECRET)
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    identity = tunnel.connection()
    late = dial(relay)
    late.expect("Challenge", 3)
    late.send(accept(identity), b"polluted")
    with pytest.raises(ConnectionResetError):
        late.receive(2)
    visitor.settimeout(2)
    with pytest.raises(ConnectionResetError):
        visitor.recv(1)
    assert relay.counters()["challenge_misfire_total"] == 1


def test_an_upstream_visitor_is_not_given_to_an_unauthenticated_accept(start_relay, open_tunnel, dial, cleanup):
    relay = start_relay("--secret", SECRET)
    tunnel = open_tunnel(relay, secret=SECRET)
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    visitor.sendall(b"private")
    identity = tunnel.connection()
    for early in (True, False):  # before the Challenge, and instead of an answer to it
        thief = dial(relay, source=site.source(9))
        if not early:
            thief.expect("Challenge")
        thief.send(accept(identity))
        try:
            message = thief.receive(1)
            assert "Error" in message or "Challenge" in message, f"the thief got {message}"
        except (EndOfStream, ConnectionResetError):
            pass
        thief.close()
    # The owner still gets its visitor.
    data = tunnel.claim(identity)
    cleanup.callback(data.close)
    assert traffic.receive_exactly(data, 7) == b"private"


def test_accept_from_tunnel_address_policy(start_relay, open_tunnel, dial, cleanup):
    relay = start_relay("--accept-from-tunnel-address")
    tunnel = open_tunnel(relay, source=site.source(3))
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    identity = tunnel.connection()
    thief = dial(relay, source=site.source(4))
    thief.send(accept(identity))
    thief.expect_closed(2)
    data = tunnel.claim(identity, b"mine")
    cleanup.callback(data.close)
    assert traffic.receive_exactly(visitor, 4) == b"mine"


def test_heartbeats_come_when_nothing_else_does(start_relay, open_tunnel):
    relay = start_relay("--heartbeat-interval-ms", "200")
    tunnel = open_tunnel(relay)
    start = time.monotonic()
    for _ in range(5):
        assert tunnel.framed.receive(1) == "Heartbeat"
    assert 0.7 < time.monotonic() - start < 1.3


def test_a_burst_of_visitors_needs_no_heartbeats(relay, open_tunnel, cleanup):
    tunnel = open_tunnel(relay)
    visitors = [tunnel.visit() for _ in range(100)]
    for visitor in visitors:
        cleanup.callback(visitor.close)
    messages = []
    while sum(message != "Heartbeat" for message in messages) < 100:
        messages.append(tunnel.framed.receive(5))
    identities = {message["Connection"] for message in messages if message != "Heartbeat"}
    assert len(identities) == 100
    assert messages.count("Heartbeat") <= 5


def test_ids_of_visitors_are_random(relay, open_tunnel, cleanup):
    tunnel = open_tunnel(relay)
    identities = []
    for _ in range(30):
        cleanup.callback(tunnel.visit().close)
        identities.append(tunnel.connection())
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text) for text in identities)
    # No hexadecimal digit is the same in all, but for the version.
    columns = [set(column) for column in zip(*(text.replace("-", "") for text in identities))]
    assert [index for index, column in enumerate(columns) if len(column) == 1] == [12]


def test_socket_options_do_not_delay_the_first_byte(start_relay, open_tunnel, cleanup):
    """TCP_NODELAY on every leg: 100 small round trips through the pair take no 40 ms each."""
    tunnel = open_tunnel(start_relay(*site.acknowledging()))
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    for sock in (visitor, data):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)  # the Rust client's way
    start = time.monotonic()
    for _ in range(100):
        visitor.sendall(b"a")
        visitor.sendall(b"b")  # Nagle holds this one back until the first is acknowledged
        assert traffic.receive_exactly(data, 2) == b"ab"
        data.sendall(b"answer")
        assert traffic.receive_exactly(visitor, 6) == b"answer"
    assert time.monotonic() - start < 1.0
