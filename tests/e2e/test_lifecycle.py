"""From start to end: readiness, watchdog, reload, drain, restart, and where io_uring is forbidden."""
import json
import os
import re
import signal
import socket
import time

import pytest

from harness import programs, protocol, seccomp, site, traffic
from harness.protocol import EndOfStream, RelayError, hello

MIB = 1 << 20


# sd_notify

def test_ready_means_that_a_tunnel_opens_at_once(start_relay, open_tunnel):
    for number in range(5):
        open_tunnel(start_relay("--control-port", str(7900 + number)))


def test_notify_socket_in_the_abstract_namespace(start_relay):
    with site.beside_relay():
        notify = programs.NotifySocket(abstract=True)
    start_relay(notify=notify)


def test_no_notify_socket_no_notices(server_program, slot, cleanup):
    relay = programs.Process([server_program, *programs.own_id(), *slot.arguments], prepare=slot.namespace and slot.namespace.enter)
    cleanup.callback(relay.kill)
    traffic.eventually(lambda: answers((slot.host, 7835)))
    relay.signal(signal.SIGTERM)
    assert relay.wait(3) == 0


def answers(address):
    try:
        protocol.connect(address).close()
        return True
    except OSError:  # refused, or behind a cable nobody there yet
        return False


def test_stopping_is_announced(start_relay):
    relay = start_relay(check_stop=False)
    relay.stop()
    assert "STOPPING=1" in relay.notify.poll(0.2)


def test_watchdog_is_fed_when_systemd_asks_for_it(start_relay):
    relay = start_relay(environment={"WATCHDOG_USEC": "400000"})
    time.sleep(0.1)
    relay.notify.poll()
    relay.notify.lines.clear()
    time.sleep(2)
    assert relay.notify.poll().count("WATCHDOG=1") >= 5
    silent = start_relay("--control-port", "7836", environment={"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"})
    time.sleep(1)
    assert "WATCHDOG=1" not in silent.notify.poll(), "the watchdog was meant for another process"


# Drain

def is_closed_to_visitors(port):
    try:
        with protocol.connect((site.relay(), port), timeout=2) as visitor:
            return visitor.recv(1) == b""
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    except TimeoutError:
        return False


@pytest.mark.smoke
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_lets_a_live_transfer_finish(start_relay, open_tunnel, cleanup, number):
    relay = start_relay("--drain-timeout-s", "20", check_stop=False)
    tunnel = open_tunnel(relay)
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    sending = traffic.Background(traffic.send, data, 64 * MIB)
    start = time.monotonic()
    relay.signal(number)
    time.sleep(0.3)
    assert relay.running()
    assert is_closed_to_visitors(tunnel.port)
    with pytest.raises((ConnectionError, EndOfStream)):
        framed = protocol.Framed(protocol.connect(relay.address))
        cleanup.callback(framed.close)
        framed.send(hello(0))
        framed.expect("Hello", 2)
    assert "STOPPING=1" in relay.notify.poll()
    # Until here the visitor has not read: the transfer was held up by it, not by the relay.
    assert traffic.receive_digest(visitor) == (64 * MIB, traffic.digest(64 * MIB))
    sending.result()
    visitor.close()
    data.close()
    assert relay.wait(3) == 0 and time.monotonic() - start < 10
    relay.assert_no_sanitizer_report()


def test_drain_cuts_what_is_left_at_its_deadline(start_relay, open_tunnel, cleanup):
    relay = start_relay("--drain-timeout-s", "1", check_stop=False)
    pairs = [open_tunnel(relay).pair() for _ in range(3)]
    for sock in sum(pairs, ()):
        cleanup.callback(sock.close)
    start = time.monotonic()
    relay.signal(signal.SIGTERM)
    assert relay.wait(4) == 0
    assert 0.9 < time.monotonic() - start < 2.5
    for sock in sum(pairs, ()):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    relay.assert_no_sanitizer_report()


def test_second_signal_ends_the_drain(start_relay, open_tunnel, cleanup):
    relay = start_relay("--drain-timeout-s", "30", check_stop=False)
    for sock in open_tunnel(relay).pair():
        cleanup.callback(sock.close)
    relay.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert relay.running()
    start = time.monotonic()
    relay.signal(signal.SIGTERM)
    assert relay.wait(3) == 0
    assert time.monotonic() - start < 1


def test_stop_without_pairs_is_immediate(start_relay, open_tunnel):
    relay = start_relay("--drain-timeout-s", "30", check_stop=False)
    tunnel = open_tunnel(relay)
    start = time.monotonic()
    relay.stop()
    assert time.monotonic() - start < 1
    with pytest.raises(EndOfStream):  # an orderly end: the Rust client leaves with status 0
        tunnel.framed.receive_past_heartbeats(1)


def test_restart_while_old_connections_linger(start_relay, open_tunnel, cleanup):
    relay = start_relay(check_stop=False)
    tunnel = open_tunnel(relay)
    for sock in tunnel.pair():
        cleanup.callback(sock.close)
    relay.signal(signal.SIGKILL)
    relay.wait()
    again = start_relay()
    assert open_tunnel(again, port=tunnel.port).port == tunnel.port


# Reload

@pytest.fixture
def reloadable(start_relay, tmp_path):
    """A relay with a file, and reload(text) which rewrites it and waits for what the relay says."""
    file = tmp_path / "bore.toml"
    file.write_text("max_tunnels_per_source = 1\n")
    relay = start_relay("--config", file)

    def reload(text, expected=r"(?i)reload"):
        file.write_text(text)
        before = len(relay.log())
        relay.signal(signal.SIGHUP)
        traffic.eventually(lambda: re.search(expected, relay.log()[before:]), 5, f"/{expected}/ in the log\n{relay.tail()}")
        return relay.log()[before:]

    return relay, reload


def test_reload_changes_limits_and_disturbs_nobody(reloadable, open_tunnel, cleanup):
    relay, reload = reloadable
    tunnel = open_tunnel(relay)
    visitor, data = tunnel.pair()
    cleanup.callback(visitor.close)
    cleanup.callback(data.close)
    with pytest.raises(RelayError):
        open_tunnel(relay)
    log = reload("max_tunnels_per_source = 2\nheartbeat_interval_ms = 200\n")
    assert "max-tunnels-per-source" in log or "max_tunnels_per_source" in log
    open_tunnel(relay)
    visitor.sendall(b"undisturbed")
    assert traffic.receive_exactly(data, 11) == b"undisturbed"
    for sock in tunnel.pair():
        cleanup.callback(sock.close)


@pytest.mark.smoke
def test_reload_of_the_secret(reloadable, open_tunnel):
    relay, reload = reloadable
    old = open_tunnel(relay)
    reload('secret = "new"\nmax_tunnels_per_source = 9\n')
    with pytest.raises(RelayError):
        open_tunnel(relay, secret="old")
    open_tunnel(relay, secret="new")
    visitor, data = old.pair(extra=b"as before")
    with visitor, data:
        assert traffic.receive_exactly(visitor, 9) == b"as before"


def test_reload_of_a_bad_file_changes_nothing(reloadable, open_tunnel):
    relay, reload = reloadable
    log = reload("max_tunnels_per_source = 50\nmin_port = 70000\nfrobnicate = 1\n", "70000")
    assert "frobnicate" in log, "all errors are reported, not the first one only"
    open_tunnel(relay)
    with pytest.raises(RelayError):
        open_tunnel(relay)
    reload("max_tunnels_per_source = 2\n")
    open_tunnel(relay)


def test_reload_says_what_needs_a_restart(reloadable, open_tunnel):
    relay, reload = reloadable
    log = reload("max_tunnels_per_source = 7\ncontrol_port = 7999\n", "(?i)restart")
    assert "control-port" in log or "control_port" in log
    open_tunnel(relay)


def test_reload_of_the_visitors_networks(reloadable, open_tunnel, cleanup):
    relay, reload = reloadable
    tunnel = open_tunnel(relay)
    reload(f'deny_visitors = ["{site.source(2)}/32"]\n')
    denied = tunnel.visit(source=site.source(2))
    cleanup.callback(denied.close)
    denied.settimeout(2)
    try:
        assert denied.recv(1) == b""
    except ConnectionResetError:
        pass
    for sock in tunnel.pair():
        cleanup.callback(sock.close)


@pytest.mark.alone
def test_reload_of_the_bandwidth_is_for_new_tunnels(reloadable, open_tunnel):
    relay, reload = reloadable
    reload("tunnel_bandwidth_mbit = 8\n")
    visitor, data = open_tunnel(relay).pair()
    start = time.monotonic()
    sending = traffic.Background(traffic.send, data, 2 * MIB)
    with visitor, data:
        assert traffic.receive_digest(visitor)[0] == 2 * MIB
        sending.result()
    assert 1.8 < time.monotonic() - start < 2.5


# Logs

def test_json_logs_are_one_object_per_line(start_relay, open_tunnel):
    relay = start_relay("--log-format", "json", "--secret", 'quo"ted\n')
    tunnel = open_tunnel(relay, secret='quo"ted\n')
    tunnel.close()
    with pytest.raises(RelayError):
        open_tunnel(relay, secret="wrong")
    relay.wait_for_log(str(tunnel.port))
    lines = [json.loads(line) for line in relay.log().splitlines()]
    assert len(lines) >= 2 and all(isinstance(line, dict) for line in lines)


def test_visitors_do_not_flood_the_log(start_relay, open_tunnel):
    relay = start_relay("--visitor-log-rate", "5")
    tunnel = open_tunnel(relay)
    before = len(relay.log().splitlines())
    for _ in range(200):
        visitor, data = tunnel.pair()
        visitor.close()
        data.close()
    time.sleep(0.3)
    assert len(relay.log().splitlines()) - before < 60


def test_secrets_never_reach_the_log(start_relay, open_tunnel):
    relay = start_relay("--secret", "hunter2hunter2", "--log-level", "trace")
    open_tunnel(relay, secret="hunter2hunter2")
    with pytest.raises(RelayError):
        open_tunnel(relay, "fork", token="tk_hunter3hunter3", source=site.source(2))
    assert "hunter2" not in relay.log() and "hunter3" not in relay.log()


@pytest.mark.stream_only("which stream driver runs")
@pytest.mark.smoke
def test_the_log_names_the_driver(start_relay, driver):
    start_relay().wait_for_log(driver)


# Where io_uring is forbidden

@pytest.mark.driverless
def test_without_io_uring_the_relay_says_so_and_serves(start_relay, open_tunnel):
    relay = start_relay(prepare=seccomp.forbid_io_uring)
    relay.wait_for_log(r"(?i)io_uring.*epoll|epoll.*io_uring")
    visitor, data = open_tunnel(relay).pair()
    with visitor, data:
        traffic.transfer(data, visitor, 8 * MIB)
    assert not any("io_uring" in kind for kind in relay.descriptors())


@pytest.mark.driverless
def test_io_uring_asked_for_but_forbidden_is_an_error(server_program, cleanup):
    relay = programs.Process([server_program, *programs.own_id(), "--stream-driver", "io_uring"], prepare=seccomp.forbid_io_uring)
    cleanup.callback(relay.kill)
    assert relay.wait(5) == 1
    assert "io_uring" in relay.log() and "epoll" in relay.log(), "the error names the remedy"


@pytest.mark.stream_only("which stream driver runs")
def test_the_driver_asked_for_is_the_one_that_runs(start_relay, driver):
    relay = start_relay()
    uses_io_uring = any("io_uring" in kind for kind in relay.descriptors()) or registered_ring(relay)
    assert uses_io_uring == (driver == "io_uring")


def registered_ring(relay):
    """A ring whose descriptor was closed after its registration still shows in the process's maps."""
    with open(f"/proc/{relay.pid}/maps", encoding="utf-8") as maps:
        return "io_uring" in maps.read()


def test_the_relay_runs_as_an_ordinary_user(start_relay, open_tunnel, server_program):
    if os.geteuid() != 0 or not os.access(server_program, os.X_OK):
        pytest.skip("only root can become somebody else")
    if site.packets():  # its ports take privileges, which it gives up
        relay = start_relay("--packet-user", "nobody")
    else:
        relay = start_relay(user=65534, group=65534, extra_groups=[])
    with open(f"/proc/{relay.pid}/status", encoding="ascii") as status:
        assert "Uid:\t65534\t65534\t65534\t65534\n" in status.read()
    visitor, data = open_tunnel(relay).pair()
    with visitor, data:
        traffic.transfer(data, visitor, 32 * MIB)


def test_the_environment_of_a_service(start_relay, open_tunnel):
    """No HOME, no terminal, closed standard streams, an odd working directory."""
    relay = start_relay(environment={"HOME": ""}, cwd="/", umask=0o777)
    with socket.socket() as probe:
        probe.settimeout(2)
        probe.connect(relay.address)
    open_tunnel(relay)
