"""bore-load against its own service, and against targets that refuse, stall, cut, reset or alter.

Needs the program: BORE_LOAD, else the newest of build/*/bench/load/bore-load. Ports are free ones of
the loopback; nothing is timed but the deadlines that bore-load promises to keep, with much to spare.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading

import pytest

TOP = pathlib.Path(__file__).parents[2]


def program():
    if "BORE_LOAD" in os.environ:
        return os.environ["BORE_LOAD"]
    # Sanitizers' builds are slower and have their own step.
    built = [TOP / "build" / kind / "bench/load/bore-load" for kind in ("release", "debug")]
    found = [path for path in built if path.exists()]
    if not found:
        pytest.skip("bore-load is not built (tools/build), or give BORE_LOAD")
    return str(max(found, key=lambda path: path.stat().st_mtime))


class Load:
    """A bore-load that runs; ended at the latest with the test."""

    def __init__(self, *arguments, environment=None):
        self.process = subprocess.Popen(
            [program(), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )

    def line(self):
        return json.loads(self.process.stdout.readline())

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.result()

    def result(self):
        """(exit status, result)"""
        output, self.errors = self.process.communicate(timeout=25)
        lines = output.splitlines()
        return self.process.returncode, json.loads(lines[-1]) if lines else None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def run(*arguments):
    with Load(*arguments) as load:
        status, result = load.result()
    assert result is not None, load.errors
    assert result["event"] == "result" and result["format"] == 1
    return status, result


@pytest.fixture(name="service", scope="module")
def service_fixture():
    with Load("serve") as serve:
        yield f"127.0.0.1:{serve.line()['port']}"
        status, result = serve.stop()
        # The tests with altered bytes have their own service.
        assert (status, result["corrupt"]) == (0, 0)
        assert result["connections"] > 0 and not result["interrupted"]


class Target:
    """Accepts and does to each connection, in a thread of its own, what the test says."""

    def __init__(self, treat):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.treat = treat
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                self.connections.append(connection)
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        with contextlib.suppress(OSError):
            self.treat(connection)

    def __enter__(self):
        return self.address

    def __exit__(self, *exception):
        self.listener.close()
        for connection in self.connections:
            connection.close()


def stall(_connection):
    """Kept open by the Target; never answered."""


def cut(connection):
    connection.recv(16)
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection):
    connection.recv(16)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def proxy_to(address, alter):
    """Passes bytes on to the service; alter(direction, offset, bytes) gives what is passed."""
    host, port = address.split(":")

    def pump(source, sink, direction):
        offset = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(alter(direction, offset, piece))
                offset += len(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def treat(connection):
        with socket.create_connection((host, int(port))) as service:
            up = threading.Thread(target=pump, args=(connection, service, "up"), daemon=True)
            up.start()
            pump(service, connection, "down")
            up.join()

    return treat


def flip(direction, at):
    def alter(way, offset, piece):
        if way == direction and offset <= at < offset + len(piece):
            place = at - offset
            return piece[:place] + bytes([piece[place] ^ 0x40]) + piece[place + 1 :]
        return piece

    return alter


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "127.0.0.1:%d" % listener.getsockname()[1]


# A short load of every mode that visits.
MODES = {
    "bulk": ["--seconds", "1", "--streams", "2"],
    "bulk-up": ["--direction", "up", "--bytes", "100000"],
    "rr": ["--seconds", "0.5", "--warmup-s", "0.1", "--connections", "2"],
    "rr-rate": ["--seconds", "0.2", "--warmup-s", "0", "--connections", "2", "--rate", "100"],
    "crr": ["--count", "4", "--concurrency", "2"],
    "idle": ["--connections", "10", "--hold-s", "0.1"],
    "halfclose": ["--count", "10"],
    "chaos": ["--seconds", "0.3", "--peers", "4"],
    "soak": ["--seconds", "0.3", "--bytes", "100kB"],
}


def visit(mode, address, *more):
    return run(mode.split("-")[0], "--to", address, *MODES[mode], *more)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_well_with_its_own_service(mode, service):
    status, result = visit(mode, service)
    assert (status, result["failures"], result["failures_by_reason"]) == (0, 0, {})
    assert not result["interrupted"] and not result["deadline_passed"]
    assert 0 <= result["generator_busy_share"] <= 1 and result["generator_cpu_s"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_target_that_refuses(mode):
    status, result = visit(mode, closed_port(), "--deadline-s", "3", "--stall-s", "0.5")
    assert status == 3
    assert result["failures"] > 0 and set(result["failures_by_reason"]) == {"refused"}
    assert result["first_failure"].startswith("refused: ")


@pytest.mark.parametrize("mode", MODES)
def test_a_target_that_stalls(mode):
    with Target(stall) as address:
        status, result = visit(mode, address, "--deadline-s", "2", "--stall-s", "0.3")
    # Connections were made, so a half-close has been measured: all answers are lost.
    assert status == (1 if mode == "halfclose" else 3)
    if mode == "rr-rate":
        assert result["unanswered"] + result["failures"] > 0
    else:
        assert result["failures_by_reason"].get("stalled", 0) > 0


@pytest.mark.parametrize("mode", ["bulk-up", "rr", "rr-rate", "crr", "idle", "halfclose", "soak"])
@pytest.mark.parametrize("treat", [cut, reset])
def test_a_target_that_ends_connections(mode, treat):
    with Target(treat) as address:
        status, result = visit(mode, address, "--deadline-s", "3", "--stall-s", "0.5")
    assert status == (1 if mode == "halfclose" else 3)
    # Closing with unread bytes is a reset, too.
    assert result["failures"] > 0
    assert set(result["failures_by_reason"]) <= {"cut", "reset"}


@pytest.mark.parametrize(
    "mode, more, direction, offset",
    [
        ("bulk", ["--bytes", "300000"], "down", 123_456),
        ("bulk", ["--bytes", "300000", "--direction", "up"], "up", 123_456),
        ("soak", ["--seconds", "0.5", "--streams", "1", "--bytes", "300000"], "down", 99_000),
    ],
)
def test_an_altered_byte_is_counted_at_its_offset(mode, more, direction, offset):
    # The opening travels ahead of the bytes of an upload.
    at = offset + (16 if direction == "up" else 0)
    with Load("serve") as serve:
        port = serve.line()["port"]
        with Target(proxy_to(f"127.0.0.1:{port}", flip(direction, at))) as address:
            verify = ["--verify"] if mode == "bulk" else []
            status, result = run(mode, "--to", address, *more, *verify)
        _, served = serve.stop()
    assert status == 1
    assert result["corrupt_streams"] >= 1 and result["failures_by_reason"]["corrupt"] >= 1
    assert result["first_corrupt_offset"] == offset
    if direction == "up":
        assert served["corrupt"] == 1


@pytest.mark.parametrize("mode", ["rr", "crr"])
def test_an_altered_response_is_corrupt(mode, service):
    with Target(proxy_to(service, flip("down", 10))) as address:
        status, result = visit(mode, address)
    assert status in (1, 3) and result["failures_by_reason"]["corrupt"] > 0


def test_an_old_response_is_not_a_right_one(service):
    """What follows the first response is the first one again."""
    first = {}

    def again(direction, offset, piece):
        if direction == "down" and len(piece) == 64:
            return first.setdefault("piece", piece)
        return piece

    with Target(proxy_to(service, again)) as address:
        _, result = run("rr", "--to", address, "--seconds", "0.2", "--warmup-s", "0")
    assert result["failures_by_reason"]["corrupt"] > 0


def test_a_relay_that_closes_both_directions_at_fin_loses_answers(service):
    host, port = service.split(":")

    def treat(connection):
        with socket.create_connection((host, int(port))) as upstream:
            while piece := connection.recv(65536):
                upstream.sendall(piece)
        connection.shutdown(socket.SHUT_RDWR)

    with Target(treat) as address:
        status, result = run("halfclose", "--to", address, "--count", "5")
    assert status == 1
    assert (result["tries"], result["answered"], result["lost"]) == (5, 0, 5)
    assert set(result["failures_by_reason"]) <= {"cut", "reset"}


def test_a_lost_end_of_an_upload_is_counted(service):
    host, port = service.split(":")

    def treat(connection):
        with socket.create_connection((host, int(port))) as upstream:
            left = 16 + 50_000
            while left and (piece := connection.recv(min(left, 65536))):
                upstream.sendall(piece)
                left -= len(piece)
            upstream.shutdown(socket.SHUT_WR)
            connection.sendall(upstream.recv(16, socket.MSG_WAITALL))
            connection.recv(1 << 20)

    with Target(treat) as address:
        status, result = run("bulk", "--to", address, "--direction", "up", "--bytes", "60000")
    assert (status, result["failures_by_reason"]) == (1, {"cut": 1})
    assert (result["bytes_up"], result["lost_bytes"]) == (50_000, 10_000)


def test_latency_counts_from_the_intended_time(service):
    """The target stands still for 0.5 s; requests that were due meanwhile show it."""
    held = threading.Event()

    def hold(direction, offset, piece):
        if direction == "up" and offset > 64 * 100 and not held.is_set():
            held.set()
            threading.Event().wait(0.5)
        return piece

    with Target(proxy_to(service, hold)) as address:
        status, result = run(
            "rr", "--to", address, "--rate", "500", "--seconds", "1", "--warmup-s", "0"
        )
    assert status == 0 and held.is_set()
    assert result["requests"] == 500 and result["unanswered"] == 0
    # A quarter of the second was spent behind the pause; one request alone waited in it.
    assert result["p90_us"] > 100_000
    assert result["service_p50_us"] < result["p90_us"]
    assert sum(count for _, count in result["buckets_ns"]) == 500


def test_a_stop_signal_leaves_a_valid_result(service):
    for number in (signal.SIGTERM, signal.SIGINT):
        with Load("bulk", "--to", service, "--seconds", "60", "--progress",
                  "--interval-s", "0.1") as load:  # fmt: skip
            load.process.stderr.readline()  # some load
            status, result = load.stop(number)
        assert (status, result["interrupted"], result["failures"]) == (0, True, 0)
        assert result["bytes_down"] > 0 and result["seconds"] < 30


def test_idle_holds_until_a_signal_and_counts_what_was_lost(service):
    with Load("idle", "--to", service, "--connections", "300", "--prove") as idle:
        ready = idle.line()
        assert (ready["event"], ready["up"], ready["failures"]) == ("ready", 300, 0)
        status, result = idle.stop()
    assert (status, result["interrupted"]) == (0, False)
    assert (result["held"], result["lost"]) == (300, 0)

    with Load("serve") as serve:
        port = serve.line()["port"]
        with Load("idle", "--to", f"127.0.0.1:{port}", "--connections", "50") as idle:
            assert idle.line()["up"] == 50
            serve.stop()
            status, result = idle.result()  # nothing is left to hold
    assert (status, result["held"], result["lost"]) == (1, 0, 50)


def test_threads_share_the_work(service):
    status, result = run("rr", "--to", service, "--rate", "300", "--connections", "3",
                         "--threads", "3", "--seconds", "0.5", "--warmup-s", "0")  # fmt: skip
    assert (status, result["threads"], result["requests"]) == (0, 3, 150)
    status, result = run("bulk", "--to", service, "--direction", "both", "--streams", "3",
                         "--threads", "2", "--bytes", "1MB", "--verify")  # fmt: skip
    assert (status, result["bytes_down"], result["bytes_up"]) == (0, 3_000_000, 3_000_000)
    status, result = run("crr", "--to", service, "--count", "11", "--threads", "3")
    assert (status, result["connections"]) == (0, 11)


def test_ipv6_and_several_threads_of_the_service():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on the loopback: {error}")
    with Load("serve", "--listen", "[::1]:0", "--threads", "2") as serve:
        port = serve.line()["port"]
        status, result = run("crr", "--to", f"[::1]:{port}", "--count", "40", "--source", "::1")
        assert (status, result["connections"]) == (0, 40)
        status, served = serve.stop()
    assert (status, served["connections"], served["requests"]) == (0, 40, 40)


def test_a_visitor_that_says_nothing_is_closed():
    with Load("serve", "--opening-timeout-s", "0.1") as serve:
        port = serve.line()["port"]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as visitor:
            assert visitor.recv(1) == b""


class FakeRelay:
    """Enough of a bore relay for tunnels: two are granted, then the ports are gone."""

    def __init__(self):
        self.granted = 0
        self.lock = threading.Lock()

    def __call__(self, connection):
        frame = b""
        while not frame.endswith(b"\0"):
            frame += connection.recv(256)
        assert frame.startswith(b'{"Hello":')
        with self.lock:
            self.granted += 1
            granted = self.granted
        if granted > 2:
            connection.sendall(b'{"Error":"port already in use"}\0')
            return
        connection.sendall(b'{"Hello":%d}\0"Heartbeat"\0' % (10_000 + granted))
        if granted == 2:
            connection.recv(1)  # kept until the client leaves
        connection.shutdown(socket.SHUT_RDWR)


def test_tunnels_counts_what_is_refused_and_lost():
    with Target(FakeRelay()) as address:
        status, result = run("tunnels", "--to", address, "--count", "5", "--hold-s", "0.5",
                             "--concurrency", "1")  # fmt: skip
    assert status == 1
    assert (result["wanted"], result["registered"]) == (5, 2)
    assert result["rejected_by_text"] == {"server error: port already in use": 3}
    assert (result["held"], result["lost"]) == (1, 1)
    assert result["failures_by_reason"] == {"rejected": 3, "cut": 1}
    assert result["heartbeats"] == 2


def test_plain_says_why_it_has_no_tunnel():
    def refuse(connection):
        connection.recv(256)
        connection.sendall(b'{"Error":"no"}\0')

    with Target(refuse) as address:
        status, result = run("plain", "--to", address)
    assert (status, result["failures_by_reason"]) == (3, {"rejected": 1})
    assert result["first_failure"] == "rejected: server error: no"


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["bulk"], "--to"),
        (["bulk", "--to", "127.0.0.1"], "'127.0.0.1' is not HOST:PORT"),
        (["bulk", "--to", "127.0.0.1:65536"], "from 0 to 65535"),
        (["bulk", "--to", "127.0.0.1:1", "--source", "nowhere"], "cannot resolve 'nowhere'"),
        (["bulk", "--to", "127.0.0.1:1", "--source", "::1"], "not of one family"),
        (["bulk", "--to", "127.0.0.1:1", "--bytes", "1", "--seconds", "1"], "excludes"),
        (["rr", "--to", "127.0.0.1:1", "--rate", "-1"], "--rate"),
        (["rr", "--to", "127.0.0.1:1", "--seconds", "nan"], "'nan' is not a number from"),
        (["rr", "--to", "127.0.0.1:1", "--seconds", "1e30"], "'1e30' is not a number from"),
        (["chaos", "--to", "127.0.0.1:1", "--kinds", "rain"], "rain"),
        (["tunnels", "--secret-file", "/nowhere"], "/nowhere"),
        ([], "subcommand"),
    ],
)
def test_a_wrong_command_line(arguments, text):
    with Load(*arguments) as load:
        status, result = load.result()
    assert (status, result) == (2, None)
    assert text in load.errors
