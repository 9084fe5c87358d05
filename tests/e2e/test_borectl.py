"""borectl on real relays with real traffic: what it reads, what it commands, and its live view on a
pseudo-terminal. A relay here has a server id and a control socket of its own, because segments and
sockets are the machine's and tests run side by side."""
import contextlib
import itertools
import os
import signal
import socket
import stat
import termios
import threading
import time

import pytest

from harness import programs, protocol, site, traffic
from harness.ctl import Ctl
from harness.protocol import EndOfStream, RelayError

MIB = 1 << 20
NUMBERS = itertools.count(1)


@pytest.fixture(autouse=True)
def one_driver(driver):
    if driver == "epoll":
        pytest.skip("one stream driver is enough for an operator's program")


@pytest.fixture
def start(start_relay, ctl_program, tmp_path):
    """start("--secret", ...): (relay, its borectl)."""

    def started(*arguments, **keywords):
        name = f"ctl-{os.getpid()}-{next(NUMBERS)}"
        relay = start_relay("--server-id", name, "--control-socket", tmp_path / f"{name}.sock", *arguments, **keywords)
        relay.socket = tmp_path / f"{name}.sock"
        return relay, Ctl(ctl_program, name)

    return started


class Trickle(threading.Thread):
    """Sends blocks from `sender` to `receiver` until stopped; counts what arrived."""

    def __init__(self, sender, receiver, block=64 * 1024, pause_s=0.005):
        super().__init__(daemon=True)
        self._sender, self._receiver, self._block, self._pause_s = sender, receiver, block, pause_s
        self._stopping = threading.Event()
        self.count = 0
        self.start()

    def run(self):
        data = bytes(self._block)
        while not self._stopping.is_set():
            self._sender.sendall(data)
            self.count += len(traffic.receive_exactly(self._receiver, len(data)))
            self._stopping.wait(self._pause_s)

    def stop(self):
        self._stopping.set()
        self.join(10)
        return self.count


@pytest.fixture
def trickle(cleanup):
    def begin(*arguments, **keywords):
        flow = Trickle(*arguments, **keywords)
        cleanup.callback(flow.stop)
        return flow

    return begin


# The socket

def test_the_socket_has_its_mode_and_goes_with_the_relay(start):
    relay, _ = start(check_stop=False)
    mode = os.lstat(relay.socket).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    relay.stop()
    assert not relay.socket.exists()


def test_a_killed_relays_socket_is_replaced_and_a_live_ones_is_not(start, start_relay, server_program, cleanup):
    relay, _ = start(check_stop=False)
    again = [*programs.own_id(), "--control-socket", relay.socket, "--control-port", "7836"]
    refused = programs.Process([server_program, *again])
    cleanup.callback(refused.kill)
    assert refused.wait(10) == 1
    assert "a running relay answers there" in refused.log() and "server-id" in refused.log()
    relay.signal(signal.SIGKILL)
    relay.wait()
    assert relay.socket.exists()
    start_relay(*again)
    with socket.socket(socket.AF_UNIX) as person:
        person.connect(str(relay.socket))


def test_off_is_off(start_relay, ctl_program):
    start_relay("--server-id", f"off-{os.getpid()}", "--control-socket", "off")
    done = Ctl(ctl_program, f"off-{os.getpid()}").run("reload")
    assert done.returncode == 3 and "control socket" in done.stderr


# What it reads

def test_status_tunnels_and_bytes_agree_with_the_traffic(start, open_tunnel, keep):
    relay, ctl = start()
    first, second = open_tunnel(relay), open_tunnel(relay)
    visitor, data = keep(*first.pair())
    keep(*second.pair())
    traffic.transfer(visitor, data, 3 * MIB)
    visitor_bytes = b"x" * 777
    data.sendall(visitor_bytes)
    assert traffic.receive_exactly(visitor, 777) == visitor_bytes

    def settled():
        tunnels = {tunnel["port"]: tunnel for tunnel in ctl.json("tunnels")["tunnels"]}
        assert set(tunnels) == {first.port, second.port}
        counters = tunnels[first.port]["counters"]
        assert counters["to_client_bytes_total"] == 3 * MIB
        assert counters["to_visitor_bytes_total"] == 777
        assert tunnels[first.port]["visitors_live"] == 1
        assert tunnels[second.port]["counters"]["to_client_bytes_total"] == 0
        return True

    traffic.eventually(settled)
    text = ctl("tunnels")
    assert str(first.port) in text and "777 B" in text and "3.15 MB" in text and site.source() in text
    status = ctl.json("status")
    assert status["alive"] and status["state"] == "serving" and status["tunnels_live"] == 2
    assert status["pairs_live"] == 2 and status["stale_for_s"] is None
    assert "2 live" in ctl("status")


def test_workers_ports_histograms_and_drops(start, driver, open_tunnel, keep):
    relay, ctl = start("--max-tunnels-per-source", "1")
    keep(*open_tunnel(relay).pair())
    with pytest.raises(RelayError):
        open_tunnel(relay)
    # The worker counts a pair when it has taken it over, which may be behind its first byte.
    counted = "handoffs_total" if site.packets() else "pairs_opened_total"
    traffic.eventually(lambda: sum(loop["counters"].get(counted, 0) for loop in ctl.json("workers")["loops"]) == 1)
    assert all(loop["heartbeat_age_s"] < 30 for loop in ctl.json("workers")["loops"])
    shares = [loop["busy_share"] for loop in ctl.json("workers")["loops"] if "busy_share" in loop]  # workers alone have one
    assert shares and all(0 <= share <= 1 for share in shares)
    assert "stream 0" in ctl("workers") and "BUSY" in ctl("workers")
    if site.packets():
        assert [port["name"] for port in ctl.json("ports")["ports"]] == [f"{site.PACKET_PORTS[driver]}:nic0"] and "nic0" in ctl("ports")
    else:
        assert ctl.json("ports")["ports"] == [] and "kernel" in ctl("ports")
    pairing = {known["histogram"]: known for known in ctl.json("histograms")["histograms"]}["pairing_ns"]
    assert pairing["count"] == 1 == sum(bucket["count"] for bucket in pairing["buckets"])
    assert "pairing_ns" in ctl("histograms")
    drops = {reason["reason"]: reason["count"] for reason in ctl.json("drops")["drops"]}
    assert drops["tunnels_refused_limit_total"] == 1
    assert "Tunnels refused by a cap" in ctl("drops")


@pytest.mark.stream_only("flows of the packet engine are in test_packet.py")
def test_flows_of_the_stream_engine_are_none_and_it_says_so(start):
    _, ctl = start()
    answer = ctl.json("flows")
    assert answer["flows"] == [] and "stream engine" in answer["note"]
    assert "packet engine" in ctl("flows")


def test_a_killed_relay_is_read_on_as_stale(start, open_tunnel, keep):
    relay, ctl = start(check_stop=False)
    tunnel = open_tunnel(relay)
    visitor, data = keep(*tunnel.pair())
    visitor.sendall(b"x" * 100)
    traffic.receive_exactly(data, 100)
    traffic.eventually(lambda: ctl.json("tunnels")["tunnels"][0]["counters"]["to_client_bytes_total"] == 100)
    relay.signal(signal.SIGKILL)
    relay.wait()
    after = ctl.json("tunnels", status=4)
    assert not after["alive"] and after["stale_for_s"] >= 0
    assert after["tunnels"][0]["counters"]["to_client_bytes_total"] == 100
    assert "stale since" in ctl("status", status=4)
    assert "cannot connect" in ctl("reload", status=3) or "no control socket" in ctl("reload", status=3)


def test_an_unknown_relay_and_an_unreadable_file(ctl_program, tmp_path):
    done = Ctl(ctl_program, "nowhere-at-all").run("status")
    assert done.returncode == 3 and "nowhere-at-all" in done.stderr
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(100_000))
    done = Ctl(ctl_program, noise).run("status")
    assert done.returncode == 3 and "noise" in done.stderr
    done = Ctl(ctl_program, "x").run("frobnicate")
    assert done.returncode == 2 and "--help" in done.stderr


# What it commands

def test_kill_ends_a_tunnel_and_its_pairs_and_nothing_else(start, open_tunnel, keep):
    relay, ctl = start()
    victim, other = open_tunnel(relay), open_tunnel(relay)
    visitors = [keep(*victim.pair()) for _ in range(20)]
    kept_visitor, kept_data = keep(*other.pair())
    assert f"port {victim.port}" in ctl("kill", victim.port)
    for pair in visitors:
        for sock in pair:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    with pytest.raises((EndOfStream, ConnectionResetError)):
        victim.framed.receive_past_heartbeats(5)
    kept_visitor.sendall(b"undisturbed")
    assert traffic.receive_exactly(kept_data, 11) == b"undisturbed"
    assert str(victim.port) in ctl("kill", victim.port, status=1)
    tunnel = ctl.json("tunnels")["tunnels"][0]
    assert tunnel["port"] == other.port
    ctl("kill", tunnel["id"])
    # Its row stays until its pairs are reported as ended: a second kill would cut what was left.
    traffic.eventually(lambda: "no live tunnel" in ctl("kill", tunnel["id"], status=1), 10, "the row is given up")


def test_drain_holds_what_is_new_and_undrain_lets_it_in(start, open_tunnel, keep):
    relay, ctl = start()
    tunnel = open_tunnel(relay)
    visitor, data = keep(*tunnel.pair())
    traffic.eventually(lambda: ctl.json("status")["pairs_live"] == 1)
    assert "1 pairs" in ctl("drain")
    with pytest.raises(ConnectionRefusedError):
        tunnel.visit()
    with pytest.raises(RelayError, match="no new tunnels at present"):
        open_tunnel(relay)
    traffic.transfer(visitor, data, MIB)
    assert ctl.json("status")["state"] == "drained"
    time.sleep(0.5)
    assert relay.running(), "a drain by command does not end the relay"
    assert "serving" in ctl("undrain")
    keep(*tunnel.pair())
    keep(*open_tunnel(relay).pair())
    assert ctl.json("status")["state"] == "serving"


def test_drain_with_a_deadline_cuts_pairs_and_stays(start, open_tunnel, keep):
    relay, ctl = start()
    tunnel = open_tunnel(relay)
    visitor, data = keep(*tunnel.pair())
    ctl("drain", "--deadline", "5")
    visitor.sendall(b"until then it goes on")
    traffic.receive_exactly(data, 21)
    for sock in (visitor, data):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert relay.running()
    ctl("undrain")
    keep(*tunnel.pair())


def test_a_client_program_outlives_a_drain(start, start_client, keep):
    relay, ctl = start()
    with traffic.LocalService(traffic.echo) as service:
        client = start_client("local", service.port, "--to", site.relay())
        port = client.public_port()
        ctl("drain")
        ctl("undrain")
        (visitor,) = keep(protocol.connect((relay.address[0], port)))
        visitor.sendall(b"still here")
        assert traffic.receive_exactly(visitor, 10) == b"still here"
        assert client.running()


def test_sigterm_ends_a_drained_relay(start, open_tunnel):
    relay, ctl = start(check_stop=False)
    open_tunnel(relay)
    ctl("drain", "--deadline", "3600")
    relay.stop()


def test_reload_tells_what_changed_and_what_is_wrong(start_relay, ctl_program, tmp_path, open_tunnel):
    file = tmp_path / "bore.toml"
    name = f"reload-{os.getpid()}"
    file.write_text(f'max_tunnels_per_source = 1\ncontrol_socket = "{tmp_path}/relay.sock"\n')
    relay, ctl = start_relay("--config", file, "--server-id", name), Ctl(ctl_program, name)
    assert "nothing changed" in ctl("reload")
    common = f'control_socket = "{tmp_path}/relay.sock"\n'
    file.write_text(common + "max_tunnels_per_source = 2\ncontrol_port = 7999\n")
    answer = ctl.json("reload")
    assert answer["changed"] == ["max-tunnels-per-source"] and answer["needs_restart"] == ["control-port"]
    open_tunnel(relay)
    open_tunnel(relay)
    file.write_text(common + "max_port = 70000\nfrobnicate = 1\n")
    errors = ctl("reload", status=1)
    assert "2 errors" in errors and "70000" in errors and "frobnicate" in errors


def test_loglevel_holds_until_the_next_reload(start, open_tunnel):
    relay, ctl = start()
    assert "was info" in ctl("loglevel", "error")
    before = len(relay.log())
    tunnel = open_tunnel(relay)
    ctl("status")
    assert f"port={tunnel.port}" not in relay.log()[before:]
    ctl("reload")
    after = open_tunnel(relay)
    relay.wait_for_log(f"port={after.port}")


def test_commands_name_their_user_in_the_log(start):
    relay, ctl = start()
    ctl("undrain")
    relay.wait_for_log(rf"command=undrain user={os.geteuid()}")


# The live view

@pytest.fixture
def top(cleanup):
    """top(ctl, "--interval", "0.1", lines=24, columns=80): a screen with `borectl top` on it."""
    screen = pytest.importorskip("harness.screen", reason="needs python3-pyte")

    def started(ctl, *words, **keywords):
        shown = screen.Screen(ctl.command("top", *words), **keywords)
        cleanup.callback(shown.close)
        return shown

    return started


def test_top_shows_rates_and_bars_at_80x24(start, open_tunnel, keep, top, trickle):
    relay, ctl = start()
    busy, idle = open_tunnel(relay), open_tunnel(relay)
    visitor, data = keep(*busy.pair())
    trickle(data, visitor)
    shown = top(ctl, "--interval", "0.1")

    def the_busiest_is_on_top(text):
        """All on one screen: between two looks a busy machine may have moved nothing."""
        lines = text.splitlines()
        rows = [line for line in lines if line.split()[:1] == [str(busy.port)]]
        return lines[4:5] == rows and all(part in rows[0] for part in (site.source(), "B/s", "█"))

    text = shown.expect(the_busiest_is_on_top)
    assert "2 tunnels" in text and str(idle.port) in text and "busy" in text.splitlines()[1]
    assert len(text.splitlines()) == 24 and "q quit" in text.splitlines()[23]


def test_top_sorts_filters_pauses_and_helps(start, open_tunnel, top):
    relay, ctl = start()
    ports = sorted(open_tunnel(relay).port for _ in range(3))
    shown = top(ctl, "--interval", "0.1", "--sort", "port")
    shown.expect(str(ports[2]))
    shown.type("r")
    shown.expect(lambda text: text.splitlines()[4].split()[:1] == [str(ports[2])])
    shown.type("s")
    shown.expect("sort: client")
    shown.type(f"/{ports[1]}\r")
    text = shown.expect(f"filter: {ports[1]}")
    text = shown.expect(lambda text: str(ports[0]) not in text)
    assert str(ports[1]) in text
    shown.type("/\x1b")
    shown.expect(str(ports[0]))
    shown.type("p")
    shown.expect("paused")
    shown.type("ph")
    shown.expect("Ctrl-C   quit")
    shown.type("h")
    shown.expect(str(ports[0]))


def test_top_follows_the_size_of_its_terminal(start, open_tunnel, top):
    relay, ctl = start()
    port = open_tunnel(relay).port
    shown = top(ctl, "--interval", "0.1")
    shown.expect("TO VISITOR")
    for lines, columns in ((50, 160), (5, 20), (1, 1), (24, 80), (8, 40)):
        shown.resize(lines, columns)
        if lines >= 5:
            shown.expect(lambda text: str(port) in text)
            shown.expect(lambda text, last=lines - 1: text.splitlines()[last].startswith("q quit"))
        else:
            time.sleep(0.3)
            assert shown.running()
    shown.resize(24, 80)
    shown.expect("TO VISITOR")
    shown.type("q")
    assert shown.wait() == 0


@pytest.mark.parametrize("way", ["q", "\x03", "SIGTERM", "SIGHUP"])
def test_top_leaves_the_terminal_as_it_was(start, top, way):
    _, ctl = start()
    shown = top(ctl, "--interval", "0.1")
    shown.expect("q quit")
    assert not shown.modes()[3] & termios.ECHO, "while it runs, keys are not echoed"
    if way.startswith("SIG"):
        os.kill(shown.pid, getattr(signal, way))
    else:
        shown.type(way)
    assert shown.wait() == 0
    assert b"\x1b[?1049l" in shown.raw(), "back from the alternate screen"
    assert shown.raw().rfind(b"\x1b[?25h") > shown.raw().rfind(b"\x1b[?25l"), "the cursor is there again"
    assert shown.modes()[3] & termios.ECHO and shown.modes()[3] & termios.ICANON, "keys are echoed, lines edited"


@pytest.fixture
def top_in_a_shell(start, cleanup):
    """(shell, pid): `borectl top` as a job of an interactive shell, which alone can stop a program and fetch it back."""
    screen = pytest.importorskip("harness.screen", reason="needs python3-pyte")
    _, ctl = start()
    shell = screen.Screen(["bash", "--norc", "--noprofile", "-i"], environment={"PS1": "ready> ", "HISTFILE": ""})
    cleanup.callback(shell.close)
    shell.expect("ready> ")
    shell.type(" ".join(map(str, ctl.command("top", "--interval", "0.1"))) + "\r")
    shell.expect("q quit")
    (pid,) = children(shell.pid)
    cleanup.callback(kill_if_there, pid)
    return shell, pid


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as listed:
        return [int(word) for word in listed.read().split()]


def kill_if_there(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_top_stops_and_is_fetched_back(top_in_a_shell):
    shell, _ = top_in_a_shell
    for _ in range(2):
        shell.type("\x1a")
        shell.expect(lambda _: shell.raw().endswith(b"ready> "))
        assert b"\x1b[?1049l" in shell.raw(), "the terminal is the shell's again"
        shell.type("fg\r")
        shell.expect(lambda text: "q quit" in text.splitlines()[23])
    shell.type("q")
    shell.expect(lambda _: shell.raw().endswith(b"ready> "))


@pytest.mark.parametrize("way", ["by Ctrl-Z", "by SIGSTOP"])
def test_top_that_is_stopped_can_be_ended(top_in_a_shell, way):
    """By whoever ends a service or a session: SIGTERM, and SIGCONT so that it is heard. Nobody fetches it back."""
    shell, pid = top_in_a_shell
    if way == "by Ctrl-Z":
        shell.type("\x1a")
    else:
        os.kill(pid, signal.SIGSTOP)
    shell.expect("Stopped")
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    traffic.eventually(lambda: pid not in children(shell.pid), 10, "it ends")


def test_top_outlives_its_relay(start, top):
    relay, ctl = start(check_stop=False)
    shown = top(ctl, "--interval", "0.1")
    shown.expect("up ")
    relay.signal(signal.SIGKILL)
    relay.wait()
    shown.expect("stale since")
    shown.type("q")
    assert shown.wait() == 0


def test_top_on_an_unknown_terminal_says_so(start, top):
    _, ctl = start()
    shown = top(ctl, environment={"TERM": "no-such-terminal"})
    assert shown.wait() == 3
    assert "TERM=no-such-terminal" in shown.text().replace("\n", "")


def test_top_into_a_pipe_prints_once(start, open_tunnel, keep, trickle):
    relay, ctl = start()
    tunnel = open_tunnel(relay)
    visitor, data = keep(*tunnel.pair())
    trickle(visitor, data)
    text = ctl("top", "--interval", "0.3")
    assert str(tunnel.port) in text and "B/s" in text and "\x1b" not in text
    assert "q quit" not in text
