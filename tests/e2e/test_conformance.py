"""The ten conformance tests of the wire protocol, in its order and by its numbers."""
import socket
import subprocess
import time

import pytest

from harness import protocol, site, traffic
from harness.protocol import RelayError, accept, authenticate, frame, hello

MIB = 1 << 20
SECRET = "my_secret_string"
INVALID = "invalid secret"
NOT_PROVIDED = "server requires secret, but no secret was provided"
BAD_LENGTH = "frame error, invalid byte length"
BAD_JSON = "unable to parse message"
TIMED_OUT = "timed out waiting for initial message"


def padded_hello(body_bytes):
    """A Hello whose JSON text is exactly this long: surrounding white space is allowed."""
    return b'{"Hello":0}'.ljust(body_bytes)


# 1. Frames

@pytest.mark.smoke
def test_01_frame_limits_body_of_256_bytes_is_accepted(relay, dial):
    framed = dial(relay)
    framed.send(padded_hello(256) + b"\0")
    assert framed.expect("Hello") >= 1024


@pytest.mark.alone
@pytest.mark.parametrize("ending", [b"", b"\0"], ids=["without_nul", "with_nul"])
def test_01_frame_limits_body_of_257_bytes_closes_at_once(relay, dial, ending):
    def too_long():
        framed = dial(relay)
        framed.send(padded_hello(257) + ending)
        framed.expect_closed(2)

    assert traffic.typical_seconds(too_long) < 0.1


def test_01_frame_limits_256_bytes_without_nul_wait_for_the_nul(relay, dial):
    framed = dial(relay)
    framed.send(padded_hello(256))
    framed.expect_silence(0.3)
    framed.send(b"\0")
    framed.expect("Hello")


def test_01_frame_split_byte_by_byte(relay, dial):
    framed = dial(relay)
    for byte in hello(0):
        framed.send(bytes([byte]))
        time.sleep(0.005)
    framed.expect("Hello")


@pytest.mark.smoke
def test_01_three_frames_in_one_segment(relay, dial, cleanup):
    framed = dial(relay)
    framed.send(hello(0), hello(0), accept("00000000-0000-4000-8000-000000000000"))
    tunnel = protocol.Tunnel(framed, framed.expect("Hello"), relay.address)
    # What a client says after Hello is ignored; the tunnel works.
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    visitor.sendall(b"ping")
    assert traffic.receive_exactly(data, 4) == b"ping"


def test_01_authenticate_hello_and_accept_in_one_segment_each(start_relay, open_tunnel, cleanup):
    relay = start_relay("--secret", SECRET)
    tunnel = open_tunnel(relay, secret=SECRET)
    visitor, data = tunnel.pair(extra=b"three in one")
    cleanup.callback(data.close)
    with visitor:
        assert traffic.receive_exactly(visitor, 12) == b"three in one"


def test_01_null_frame_is_an_end_of_stream(start_relay, dial):
    upstream = start_relay("--auth-dialect", "upstream")
    framed = dial(upstream)
    framed.send(b"null\0")
    framed.expect_end(1)
    fork = start_relay("--auth-dialect", "fork", "--control-port", "7836")
    framed = dial(fork)
    framed.send(b"null\0")
    framed.expect_error("Expected authentication or hello", 1)


def test_01_lone_nul_is_a_parse_error(relay, dial):
    framed = dial(relay)
    framed.send(b"\0")
    framed.expect_closed(1)


def test_01_fin_without_nul_ends_the_last_frame(relay, dial):
    framed = dial(relay)
    framed.send(hello(0)[:-1])
    framed.sock.shutdown(socket.SHUT_WR)
    framed.expect("Hello")
    # The same FIN ends the tunnel.
    with pytest.raises((protocol.EndOfStream, ConnectionResetError)):
        framed.receive_past_heartbeats(2)
        framed.receive_past_heartbeats(2)


@pytest.mark.parametrize("text", [
    b' {"Hello":0} ', b'\t{ "Hello" :\n0 }\r\n', b'{"Hello":65535}', b'{"\\u0048ello":0}'])
def test_01_lenient_json_is_accepted(start_relay, dial, text):
    framed = dial(start_relay("--min-port", "20000"))
    framed.send(text + b"\0")
    framed.expect("Hello")


@pytest.mark.parametrize("text", [
    b'{"Hello":65536}', b'{"Hello":-1}', b'{"Hello":0.0}', b'{"Hello":"0"}', b'{"Hello":0,"Hello":0}',
    b'{"Hello":0,"Accept":""}', b'{}', b'[]', b'"Hello"', b'{"Hello":0}x', b'{"hello":0}', b'{"Hello":1e1}',
    b'{"Hello":null}', b'{"Accept":"00000000-0000-4000-8000-00000000000g"}', b'\xff\xfe', b'{"Authenticate":1}'])
def test_01_other_json_is_refused_without_a_word(relay, dial, text):
    framed = dial(relay)
    framed.send(text + b"\0")
    framed.expect_closed(1)


@pytest.mark.parametrize("spell", [
    str.upper, lambda text: text.replace("-", ""), lambda text: "{" + text + "}", lambda text: "urn:uuid:" + text])
def test_01_every_spelling_of_a_uuid_claims(relay, open_tunnel, cleanup, spell):
    tunnel = open_tunnel(relay)
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    identity = tunnel.connection()
    assert identity == identity.lower() and len(identity) == 36 and identity[14] == "4"
    data = tunnel.claim(spell(identity), b"hello")
    cleanup.callback(data.close)
    assert traffic.receive_exactly(visitor, 5) == b"hello"


# 2. HMAC

@pytest.mark.parametrize("secret, challenge, expected", [
    ("secret", "00112233-4455-4677-8899-aabbccddeeff", "86775652a873aac56a15117438352e671b8cc35a174b6189afc23f66f2c5acd6"),
    ("", "00112233-4455-4677-8899-aabbccddeeff", "0bcc845b2f82ba52534f7b50acfd8d3d78f847a2f0b4ca0bd97189013c353d39"),
    ("my_secret_string", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "744750c9e24d8cf15608b1159a8d9ca09d68ba144a81ccb2885a8f52587be207")])
def test_02_hmac_vectors(start_relay, open_tunnel, secret, challenge, expected):
    assert protocol.tag(secret, challenge) == expected
    open_tunnel(start_relay("--secret", secret), secret=secret)


def answer_challenge(dial, relay, secret, change):
    framed = dial(relay)
    tag = protocol.tag(secret, framed.expect("Challenge"))
    framed.send(authenticate(change(tag)), hello(0))
    return framed


def test_02_hmac_upper_case_hex(start_relay, dial):
    answer_challenge(dial, start_relay("--secret", SECRET), SECRET, str.upper).expect("Hello")


@pytest.mark.parametrize("change", [
    lambda tag: tag[:-1], lambda tag: tag[:-2], lambda tag: tag + "0", lambda tag: tag + "00", lambda tag: "",
    lambda tag: "g" + tag[1:], lambda tag: ("1" if tag[0] == "0" else "0") + tag[1:], lambda tag: "0x" + tag],
    ids=["63", "62", "65", "66", "empty", "not_hex", "one_digit", "prefix"])
def test_02_hmac_wrong_tag(start_relay, dial, change):
    answer_challenge(dial, start_relay("--secret", SECRET), SECRET, change).expect_error(INVALID)


@pytest.mark.parametrize("secret", ["", "grüße ✓", "a" * 1000, "tk_not_a_token"], ids=["empty", "utf8", "long", "prefix"])
def test_02_hmac_unusual_secrets(start_relay, open_tunnel, secret):
    relay = start_relay("--secret", secret)
    open_tunnel(relay, secret=secret)
    with pytest.raises(RelayError, match=INVALID):
        open_tunnel(relay, secret=secret + "x")


def test_02_every_challenge_is_fresh_and_a_v4_uuid(start_relay, dial):
    relay = start_relay("--secret", SECRET, "--auth-dialect", "upstream")
    challenges = [dial(relay).expect("Challenge") for _ in range(20)]
    assert len(set(challenges)) == 20
    assert all(text[14] == "4" and text[19] in "89ab" for text in challenges)


# 3. What upstream's own tests ask

@pytest.mark.smoke
@pytest.mark.parametrize("secret", [None, "", "abc"], ids=["none", "empty", "abc"])
def test_03_basic_proxy(start_relay, open_tunnel, cleanup, secret):
    relay = start_relay(*([] if secret is None else ["--secret", secret]))
    tunnel = open_tunnel(relay, secret=secret)
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    visitor.sendall(b"hello world")
    assert traffic.receive_exactly(data, 11) == b"hello world"
    data.sendall(b"I can send a message too!")
    assert traffic.receive_exactly(visitor, 25) == b"I can send a message too!"
    data.close()
    assert visitor.recv(1) == b""


@pytest.mark.parametrize("relay_secret, client_secret, text", [
    ("my secret", "not my secret", INVALID), ("", "x", INVALID), ("x", "", INVALID)])
def test_03_mismatched_secret(start_relay, open_tunnel, relay_secret, client_secret, text):
    relay = start_relay("--secret", relay_secret)
    for dialect in ("upstream", "fork"):
        with pytest.raises(RelayError) as error:
            open_tunnel(relay, dialect, secret=client_secret)
        assert str(error.value) == text


def test_03_secret_only_at_the_relay(start_relay, dial):
    framed = dial(start_relay("--secret", "my secret"))
    framed.send(hello(0))
    framed.expect("Challenge")
    framed.sock.shutdown(socket.SHUT_WR)
    framed.expect_error(NOT_PROVIDED)


def test_03_secret_only_at_the_client(relay, dial):
    # The client waits for a Challenge that an open relay must not send; it gives up after 3 s.
    dial(relay).expect_silence(2.5)


@pytest.mark.alone
def test_03_frame_of_one_megabyte_dies_within_100_ms(relay, dial):
    def endless():
        framed = dial(relay)
        with pytest.raises((ConnectionResetError, BrokenPipeError, protocol.EndOfStream)):
            framed.send(b"0" * MIB)
            framed.receive(2)

    assert traffic.typical_seconds(endless) < 0.1


@pytest.mark.smoke
def test_03_half_closed_stream(relay, open_tunnel, cleanup):
    tunnel = open_tunnel(relay)
    for first, second in ((0, 1), (1, 0)):
        legs = tunnel.pair()
        for leg in legs:
            cleanup.callback(leg.close)
        legs[first].sendall(b"message before shutdown")
        legs[first].shutdown(socket.SHUT_WR)
        assert traffic.receive_all(legs[second]) == b"message before shutdown"
        time.sleep(0.1)
        legs[second].sendall(b"answer after the other side's FIN")
        legs[second].shutdown(socket.SHUT_WR)
        assert traffic.receive_all(legs[first]) == b"answer after the other side's FIN"


def test_03_second_visitor_with_dead_local_service_reads_eof(relay, open_tunnel, cleanup):
    tunnel = open_tunnel(relay)
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    visitor.sendall(b"first")
    assert traffic.receive_exactly(data, 5) == b"first"
    # The client accepts, finds its local service down, and just closes.
    with tunnel.visit() as second:
        tunnel.claim(tunnel.connection()).close()
        second.settimeout(2)
        assert second.recv(10) == b""


# 4. Both dialects on one port (the other cells: test_compatibility.py)

@pytest.mark.smoke
def test_04_upstream_secret_and_fork_hmac_on_one_port(start_relay, open_tunnel, cleanup):
    relay = start_relay("--secret", SECRET)
    tunnels = [open_tunnel(relay, dialect, secret=SECRET) for dialect in ("upstream", "fork", "upstream", "fork")]
    for number, tunnel in enumerate(tunnels):
        visitor, data = tunnel.pair(extra=b"from %d" % number)
        cleanup.callback(data.close)
        with visitor:
            assert traffic.receive_exactly(visitor, 6) == b"from %d" % number
            # Nothing but the visitor's bytes may reach the client's side, a Challenge least of all.
            visitor.sendall(b"to %d" % number)
            assert traffic.receive_exactly(data, 4) == b"to %d" % number


# 5. Error texts, byte for byte

def refused(open_tunnel, relay, **keywords):
    with pytest.raises(RelayError) as error:
        open_tunnel(relay, **keywords)
    return str(error.value)


def test_05_error_port_out_of_range(start_relay, open_tunnel):
    relay = start_relay("--min-port", "20000", "--max-port", "20010")
    for port in (1, 19999, 20011, 65535):
        assert refused(open_tunnel, relay, port=port) == "client port number not in allowed range"


def test_05_error_port_in_use(relay, open_tunnel, cleanup):
    first = open_tunnel(relay)
    assert refused(open_tunnel, relay, port=first.port) == "port already in use"
    with site.beside_relay():
        stranger = socket.create_server((site.relay(), 0))
    cleanup.callback(stranger.close)
    assert refused(open_tunnel, relay, port=stranger.getsockname()[1]) == "port already in use"


@pytest.mark.needs_namespace
def test_05_error_permission_denied(start_relay, open_tunnel):
    if not site.packets():
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    else:  # it starts with privileges, and has given them up by then
        nobody = {}
        site.current.free_slot()
    with site.beside_relay(), open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w", encoding="ascii") as setting:
        setting.write("30000")
    relay = start_relay("--min-port", "20000", "--control-port", "31000", **nobody)
    assert refused(open_tunnel, relay, port=20000) == "permission denied"


@pytest.mark.needs_namespace
def test_05_error_failed_to_bind(start_relay, open_tunnel):
    # The address that tunnels listen on goes away while the relay runs.
    with site.beside_relay():
        subprocess.run(["ip", "addr", "add", "10.96.0.1/32", "dev", "lo"], check=True, timeout=5)
    relay = start_relay("--bind-addr", site.relay(), "--bind-tunnels", "10.96.0.1")
    with site.beside_relay():
        subprocess.run(["ip", "addr", "del", "10.96.0.1/32", "dev", "lo"], check=True, timeout=5)
    assert refused(open_tunnel, relay, port=20000) == "failed to bind to port"


def test_05_error_no_port_left(start_relay, open_tunnel):
    relay = start_relay("--min-port", "20000", "--max-port", "20001")
    for _ in range(2):
        open_tunnel(relay)
    assert refused(open_tunnel, relay) == "failed to find an available port"


@pytest.mark.parametrize("answer, text", [
    (hello(0), NOT_PROVIDED), (accept("00000000-0000-4000-8000-000000000000"), NOT_PROVIDED), (b"null\0", NOT_PROVIDED),
    (authenticate("00" * 32), INVALID), (authenticate("tk_" + "0" * 64), INVALID),
    (b"x" * 257, BAD_LENGTH), (b"x\0", BAD_JSON), (b"\0", BAD_JSON), (frame({"Heartbeat": 1}), BAD_JSON)])
def test_05_error_after_the_challenge(start_relay, dial, answer, text):
    framed = dial(start_relay("--secret", SECRET, "--auth-dialect", "upstream"))
    framed.expect("Challenge")
    framed.send(answer)
    framed.expect_error(text)


def test_05_error_end_of_stream_after_the_challenge(start_relay, dial):
    framed = dial(start_relay("--secret", SECRET, "--auth-dialect", "upstream"))
    framed.expect("Challenge")
    framed.sock.shutdown(socket.SHUT_WR)
    framed.expect_error(NOT_PROVIDED)


def test_05_error_no_answer_to_the_challenge(start_relay, dial):
    framed = dial(start_relay("--secret", SECRET, "--first-byte-timeout-ms", "500", "--handshake-timeout-ms", "1000"))
    framed.expect("Challenge")
    framed.expect_error(TIMED_OUT, 3)


def test_05_error_token_where_a_secret_is_used(start_relay, dial):
    framed = dial(start_relay("--secret", SECRET))
    framed.send(authenticate("tk_" + "a" * 64), hello(0))
    framed.expect_error("Authentication method not supported. Use shared secret mode.")


@pytest.mark.parametrize("follow", [accept("00000000-0000-4000-8000-000000000000"), b"null\0", None],
                         ids=["accept", "null", "eof"])
def test_05_error_token_without_hello(start_relay, dial, follow):
    framed = dial(start_relay("--auth-dialect", "fork"))
    framed.send(authenticate("tk_" + "a" * 64))
    if follow is None:
        framed.sock.shutdown(socket.SHUT_WR)
    else:
        framed.send(follow)
    framed.expect_error("Protocol error")


def test_05_error_end_of_stream_before_anything_in_fork_dialect(start_relay, dial):
    framed = dial(start_relay("--auth-dialect", "fork"))
    framed.sock.shutdown(socket.SHUT_WR)
    framed.expect_error("Expected authentication or hello")


def test_05_silence_and_errors_before_anything_end_without_a_frame(start_relay, dial):
    relay = start_relay("--first-byte-timeout-ms", "400")
    dial(relay).expect_end(2)
    for junk in (b"x\0", b"x" * 257):
        framed = dial(relay)
        framed.send(junk)
        framed.expect_closed(1)


# 6. Left-over bytes

@pytest.mark.smoke
@pytest.mark.parametrize("dialect, secret", [("upstream", None), ("upstream", SECRET), ("fork", SECRET)])
def test_06_data_in_the_segment_of_accept_and_before_pairing(start_relay, open_tunnel, cleanup, dialect, secret):
    relay = start_relay(*([] if secret is None else ["--secret", secret]))
    tunnel = open_tunnel(relay, dialect, secret=secret)
    for size in (1, 200, 4000, 60000):
        early, late = traffic.payload(size, seed=1), traffic.payload(5000, seed=2)
        visitor = tunnel.visit()
        cleanup.callback(visitor.close)
        visitor.sendall(traffic.payload(size, seed=3))
        identity = tunnel.connection()
        time.sleep(0.05)
        data = tunnel.claim(identity, early)
        cleanup.callback(data.close)
        data.sendall(late)
        data.shutdown(socket.SHUT_WR)
        visitor.shutdown(socket.SHUT_WR)
        assert traffic.receive_all(visitor) == early + late
        assert traffic.receive_all(data) == traffic.payload(size, seed=3)
        visitor.close()
        data.close()
    relay.assert_descriptors_returned()


# 7. Unclaimed visitors

@pytest.mark.limit(40)
def test_07_unclaimed_visitor_is_closed_after_10_s(relay, open_tunnel, dial, cleanup):
    tunnel = open_tunnel(relay)
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    start = time.monotonic()
    identity = tunnel.connection()
    visitor.settimeout(15)
    assert visitor.recv(1) == b""
    assert 9.5 <= time.monotonic() - start <= 10.5
    # The client was not told, and its late Accept is closed without a word.
    with pytest.raises(TimeoutError):
        tunnel.framed.receive_past_heartbeats(0.7)
    late = dial(relay)
    late.send(accept(identity), b"too late")
    late.expect_closed(1)


@pytest.mark.parametrize("identity", ["00000000-0000-4000-8000-000000000000", "f47ac10b-58cc-4372-a567-0e02b2c3d479"])
def test_07_unknown_accept_is_closed_without_a_word(relay, dial, identity):
    framed = dial(relay)
    framed.send(accept(identity))
    framed.expect_closed(1)


def test_07_an_id_is_claimed_once(relay, open_tunnel, dial, cleanup):
    tunnel = open_tunnel(relay)
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    identity = tunnel.connection()
    data = tunnel.claim(identity)
    cleanup.callback(data.close)
    second = dial(relay)
    second.send(accept(identity))
    second.expect_closed(1)
    data.sendall(b"still here")
    assert traffic.receive_exactly(visitor, 10) == b"still here"


# 8. The control connection ends

@pytest.mark.alone
@pytest.mark.parametrize("end", ["close", "kill"], ids=["fin", "rst"])
def test_08_port_is_free_within_50_ms_and_pairs_keep_flowing(relay, open_tunnel, cleanup, end):
    tunnel = open_tunnel(relay)
    port = tunnel.port
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    waits = []
    for _ in range(5):
        getattr(tunnel, end)()
        start = time.monotonic()
        while True:
            try:
                tunnel = open_tunnel(relay, port=port)
                break
            except RelayError as error:
                assert str(error) == "port already in use"
        waits.append(time.monotonic() - start)
    assert sorted(waits)[2] < 0.05, f"port was reusable after {waits} s"
    visitor.sendall(b"before")
    assert traffic.receive_exactly(data, 6) == b"before"
    data.sendall(b"behind")
    assert traffic.receive_exactly(visitor, 6) == b"behind"


@pytest.mark.smoke
def test_08_waiting_visitors_stay_claimable(relay, open_tunnel, cleanup):
    tunnel = open_tunnel(relay)
    visitor = tunnel.visit()
    cleanup.callback(visitor.close)
    identity = tunnel.connection()
    tunnel.close()
    time.sleep(0.3)
    data = tunnel.claim(identity, b"late but claimed")
    cleanup.callback(data.close)
    assert traffic.receive_exactly(visitor, 16) == b"late but claimed"


# 9. The client's cable is pulled

@pytest.mark.needs_namespace
@pytest.mark.limit(60)
def test_09_pulled_cable_frees_the_port_within_15_s(relay, cleanup):
    other = site.other_namespace()
    cleanup.callback(other.close)
    with other.inside():
        remote = protocol.open_upstream((other.HERE, relay.control_port))
    cleanup.callback(remote.close)
    other.pull_cable()
    start = time.monotonic()
    while True:
        try:
            protocol.open_upstream(relay.address, port=remote.port).close()
            break
        except RelayError as error:
            assert str(error) == "port already in use"
        assert time.monotonic() - start < 15, "the port of a vanished client is still taken after 15 s"
        time.sleep(0.1)
    # A lost second of traffic must not cost a tunnel either.
    assert time.monotonic() - start > 3


# 10. No descriptors left

@pytest.mark.alone
@pytest.mark.smoke
@pytest.mark.limit(60)
def test_10_descriptor_exhaustion_is_survived(start_relay, open_tunnel, dial, cleanup):
    relay = start_relay("--max-unauthenticated-per-source", "4096", "--handshake-rate-per-source", "0", nofile=site.descriptors(96))
    tunnel = open_tunnel(relay)
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    hogs = []
    for _ in range(150):
        hogs.append(protocol.connect(relay.address))
    for _ in range(50):
        hogs.append(protocol.connect((site.relay(), tunnel.port)))
    for hog in hogs:
        cleanup.callback(hog.close)
    time.sleep(0.5)
    assert relay.running(), relay.tail()
    assert relay.descriptors()["socket"] > 40
    visitor.sendall(b"alive")
    assert traffic.receive_exactly(data, 5) == b"alive"
    for hog in hogs:
        hog.close()
    # With descriptors back, old and new tunnels serve again.
    another = []
    traffic.eventually(lambda: another.append(open_tunnel_or_none(open_tunnel, relay)) or another[-1], 10)
    legs = another[-1].pair()
    legs[0].sendall(b"recovered")
    assert traffic.receive_exactly(legs[1], 9) == b"recovered"
    serve_until_pair(tunnel)


def open_tunnel_or_none(open_tunnel, relay):
    try:
        return open_tunnel(relay)
    except (RelayError, OSError, protocol.EndOfStream):
        return None


def serve_until_pair(tunnel):
    """The hogs were visitors, too: their ids come first and lead nowhere."""
    visitor = tunnel.visit()
    visitor.sendall(b"me")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        data = tunnel.claim(tunnel.connection())
        data.settimeout(1)
        try:
            if data.recv(2) == b"me":
                return
        except (ConnectionResetError, TimeoutError):
            pass
        data.close()
    raise AssertionError("the tunnel did not serve a visitor after the recovery")
