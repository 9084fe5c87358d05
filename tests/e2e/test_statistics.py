"""Statistics in shared memory: bytes exact at every moment, rows of tunnels, and what a reader finds when
the relay dies, comes back, has no room or is told to keep them to itself."""
import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from harness import programs, site, traffic

MIB = 1 << 20
LIVE, FINISHING, ENDED = 1, 2, 3  # TunnelState
MISSING, VERSION = 0, 4  # SegmentError::Kind


# Bytes

def first_bytes(snapshot):
    """Pairs whose first byte was measured, by either engine."""
    return sum(snapshot["histograms"].get(name, {"count": 0})["count"] for name in ("first_byte_ns", "flow_first_byte_ns"))


@pytest.mark.alone
@pytest.mark.limit(120)
def test_every_sum_agrees_to_the_byte(start_relay, open_tunnel, watch, keep):
    """300 pairs on three tunnels, sums of all sizes both ways, and a reader that looks all the while."""
    relay = start_relay()
    watcher = watch(relay)
    tunnels = [open_tunnel(relay) for _ in range(3)]
    pairs = [(tunnel, *keep(*tunnel.pair())) for tunnel in tunnels for _ in range(100)]
    up_sizes = [1 + index * 977 % 30_000 for index in range(len(pairs))]
    down_sizes = [1 + index * 7_919 % 200_000 for index in range(len(pairs))]
    # What was given to the sockets so far. Counted before each send, so that it is never behind.
    offered = {"client": 0, "visitor": 0}
    lock = threading.Lock()
    looks = {"count": 0}
    done = threading.Event()

    def send_counted(sock, size, way):
        for start in range(0, size, 8192):
            piece = bytes(min(8192, size - start))
            with lock:
                offered[way] += len(piece)
            sock.sendall(piece)

    def look():
        last = {"client": 0, "visitor": 0}
        while not done.is_set():
            snapshot = watcher()
            with lock:
                most = dict(offered)
            assert snapshot["torn"] == 0
            for way in last:
                now = sum(tunnel["total"][f"to_{way}_bytes_total"] for tunnel in snapshot["tunnels"])
                assert last[way] <= now <= most[way], f"to {way}: {last[way]} before, {now} now, {most[way]} sent"
                last[way] = now
            looks["count"] += 1

    def serve(part):
        for index in part:
            _, visitor, service = pairs[index]
            send_counted(visitor, up_sizes[index], "client")
            traffic.receive_exactly(service, up_sizes[index])
            send_counted(service, down_sizes[index], "visitor")
            traffic.receive_exactly(visitor, down_sizes[index])

    looker = traffic.Background(look)
    parts = [traffic.Background(serve, range(start, len(pairs), 8)) for start in range(8)]
    for part in parts:
        part.result(90)
    expected = {}
    for (tunnel, _, _), up_size, down_size in zip(pairs, up_sizes, down_sizes):
        sums = expected.setdefault(tunnel.port, [0, 0])
        sums[0] += up_size
        sums[1] += down_size

    def agree(snapshot):
        return {tunnel["port"]: [tunnel["total"]["to_client_bytes_total"], tunnel["total"]["to_visitor_bytes_total"]]
                for tunnel in snapshot["tunnels"]} == expected

    traffic.eventually(lambda: looks["count"] >= 3)
    done.set()
    looker.result()
    snapshot = watcher.eventually(agree)
    for tunnel in snapshot["tunnels"]:
        assert tunnel["total"]["tunnel_pairs_opened_total"] == tunnel["total"]["tunnel_pairs_live"] == 100
        assert tunnel["visitors_live"] == 100 and tunnel["visitors_pending"] == 0
    moved = sum(up_sizes) + sum(down_sizes)
    if snapshot["engine"].startswith("stream"):
        assert sum(worker["copied_bytes_total"] + worker["spliced_bytes_total"] for worker in snapshot["workers"]) == moved
    # The packet engine is in no hurry to measure it.
    watcher.eventually(lambda snapshot: first_bytes(snapshot) == len(pairs))
    assert snapshot["histograms"]["pairing_ns"]["count"] == len(pairs)
    assert snapshot["histograms"]["handshake_ns"]["count"] == len(pairs) + len(tunnels)


def test_the_first_byte_is_measured_once_for_each_pair_that_moved_one(start_relay, open_tunnel, watch, keep):
    relay = start_relay()
    watcher = watch(relay)
    tunnel = open_tunnel(relay)
    up, down, silent = ([keep(*tunnel.pair()) for _ in range(4)] for _ in range(3))
    for visitor, data in up:
        for _ in range(3):
            visitor.sendall(b"there")
            traffic.receive_exactly(data, 5)
    for visitor, data in down:
        data.sendall(b"and back")
        traffic.receive_exactly(visitor, 8)
        visitor.sendall(b"again")
        traffic.receive_exactly(data, 5)
    for visitor, data in (*up, *silent):
        for sock in (visitor, data):
            sock.shutdown(socket.SHUT_WR)
    ended = ("pairs_ended_fin_total", "flows_ended_fin_total")
    seen = watcher.eventually(lambda snapshot: sum(
        part.get(name, 0) for part in (*snapshot["workers"], snapshot.get("slow_path", {})) for name in ended) == 8)
    watcher.eventually(lambda snapshot: first_bytes(snapshot) == 8)
    time.sleep(0.3)  # nothing comes late
    assert first_bytes(watcher()) == 8
    if not seen["engine"].startswith("stream"):
        assert 0 < watcher()["histograms"]["flow_first_byte_ns"]["count"] <= seen["slow_path"]["handoffs_total"]


# Tunnels

def test_a_tunnel_is_described_while_it_lives_and_after(start_relay, open_tunnel, watch):
    relay = start_relay("--tunnel-bandwidth-mbit", "80")
    watcher = watch(relay)
    tunnel = open_tunnel(relay)
    waiting = tunnel.visit()
    seen = watcher.eventually(lambda snapshot: snapshot["tunnels"] and snapshot["tunnels"][0]["visitors_pending"] == 1)
    row = seen["tunnels"][0]
    assert (row["state"], row["generation"], row["port"], row["client"]) == (LIVE, 1, tunnel.port, site.source())
    assert row["bound"] and row["to_client_limit"] == 10_000_000
    with waiting, tunnel.claim(tunnel.connection()) as data:
        data.sendall(b"to the visitor")
        assert traffic.receive_exactly(waiting, 14) == b"to the visitor"
        tunnel.close()
        assert watcher.eventually(lambda snapshot: snapshot["tunnels"][0]["state"] != LIVE)["tunnels"][0]["state"] == FINISHING
    row = watcher.eventually(lambda snapshot: snapshot["tunnels"][0]["state"] == ENDED)["tunnels"][0]
    assert row["port"] == tunnel.port and row["total"]["to_visitor_bytes_total"] == 14
    # The next tunnel takes the row, and nothing of the last one's sums.
    successor = open_tunnel(relay)
    row = watcher.eventually(lambda snapshot: snapshot["tunnels"][0]["state"] == LIVE)["tunnels"][0]
    assert (row["generation"], row["port"]) == (2, successor.port)
    assert row["total"]["to_visitor_bytes_total"] == row["total"]["tunnel_pairs_opened_total"] == 0


def test_idle_loops_have_a_heartbeat(start_relay, watch):
    watcher = watch(start_relay())
    first = watcher()
    seen = watcher.eventually(lambda snapshot: all(
        now["loops_total"] > before["loops_total"] for now, before in zip(snapshot["workers"], first["workers"])))
    assert not seen["stale"] and seen["alive"]


# The life of the relay

def test_a_killed_relay_is_read_on_and_its_successor_too(start_relay, open_tunnel, watch):
    identity = ("--server-id", programs.own_id()[1])
    relay = start_relay(*identity, check_stop=False)
    watcher = watch(relay)
    visitor, data = open_tunnel(relay).pair()
    with visitor, data:
        data.sendall(b"last words")
        assert traffic.receive_exactly(visitor, 10) == b"last words"
        last = watcher.eventually(lambda snapshot: snapshot["tunnels"][0]["total"]["to_visitor_bytes_total"] == 10)
        assert last["alive"] and not last["stale"] and last["pid"] == relay.pid
        relay.signal(signal.SIGKILL)
        relay.wait()
    dead = watcher()
    assert not dead["alive"] and dead["stale"] and dead["instance"] == last["instance"]
    assert dead["tunnels"][0]["total"]["to_visitor_bytes_total"] == 10
    successor = start_relay(*identity)
    seen = watcher()
    assert seen["alive"] and not seen["stale"] and seen["tunnels"] == []
    assert seen["pid"] == successor.pid and seen["instance"] != dead["instance"]


def test_a_stopped_relay_is_stale_and_alive(start_relay, watch):
    relay = start_relay()
    watcher = watch(relay)
    relay.signal(signal.SIGSTOP)
    try:
        seen = watcher.eventually(lambda snapshot: snapshot["stale"])
        assert seen["alive"]
    finally:
        relay.signal(signal.SIGCONT)
    watcher.eventually(lambda snapshot: not snapshot["stale"])


def test_an_orderly_end_leaves_nothing(start_relay, watch):
    relay = start_relay(check_stop=False)
    watcher = watch(relay)
    relay.stop()
    gone = watcher()
    assert gone["error_kind"] == MISSING and str(relay.segment) in gone["error"]


def test_a_reload_shows_in_the_configuration(start_relay, watch, tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text('max_tunnels = 10\nsecret = "do not tell"\n')
    relay = start_relay("--config", str(file))
    watcher = watch(relay)
    first = watcher()
    assert "max_tunnels = 10 " in first["configuration"] and first["control"]["tunnels_allowed"] == 10
    assert "do not tell" not in relay.segment.read_bytes().decode("latin-1")
    file.write_text('max_tunnels = 20\nsecret = "do not tell"\n')
    relay.signal(signal.SIGHUP)
    watcher.eventually(lambda snapshot: "max_tunnels = 20 " in snapshot["configuration"] and snapshot["control"]["tunnels_allowed"] == 20)


# The file

def test_mode_and_group(start_relay, tmp_path):
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, os.getegid()))
    try:
        os.chown(tmp_path, -1, group.gr_gid)  # the root of a user namespace may not, either
        permitted = True
    except OSError:
        permitted = False
    relay = start_relay(*(("--stats-group", group.gr_name) if permitted else ()))
    status = relay.segment.stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    if permitted:
        assert status.st_gid == group.gr_gid


@pytest.mark.packet(engine=True)
def test_a_relay_that_becomes_another_user_gives_it_the_segment(start_relay, watch):
    """Made while the relay may still give it to a user and a group, removed when it may no more."""
    user = pwd.getpwnam("nobody")
    relay = start_relay("--packet-user", user.pw_name, "--stats-group", "daemon", check_stop=False)
    status = relay.segment.stat()
    assert (status.st_uid, status.st_gid) == (user.pw_uid, grp.getgrnam("daemon").gr_gid)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert watch(relay.segment)()["alive"], "named by its path"
    relay.stop()
    assert not relay.segment.exists()


def test_a_second_relay_of_the_same_name_is_refused(start_relay, server_program):
    relay = start_relay()
    done = ended(server_program, "--server-id", relay.server_id, "--control-port", "7900")
    assert "server-id" in done and str(relay.segment) in done and "--stats off" in done
    assert relay.segment.exists()


STRANGER, OTHER = 64001, 64002


@pytest.fixture
def squatted(server_program):
    """A server id whose segment's place a stranger has taken."""
    if os.geteuid() != 0 or not os.access(server_program, os.X_OK):
        pytest.skip("only root can become somebody else")
    server_id = programs.own_id()[1]
    place = programs.SEGMENTS / f"bore-{server_id}"
    place.write_bytes(b"here first")
    try:
        os.chown(place, STRANGER, STRANGER)
        yield server_id
    finally:
        place.unlink(missing_ok=True)


def test_a_stranger_in_the_place_makes_way_for_root(squatted, start_relay, watch):
    """Also where the relay gives up the right to remove it, behind the start of the packet engine."""
    relay = start_relay("--server-id", squatted)
    assert relay.segment.stat().st_uid == 0
    assert watch(relay)()["alive"]


@pytest.mark.stream_only("the packet engine needs privileges")
def test_a_stranger_in_the_place_does_not_keep_a_relay_from_running(squatted, start_relay, open_tunnel, watch):
    relay = start_relay("--server-id", squatted, user=OTHER, group=OTHER, extra_groups=[])
    relay.wait_for_log(f"nobody can read this relay's statistics: {relay.segment} belongs to uid {STRANGER} and cannot be "
                       "opened .* as root, remove it")
    visitor, data = open_tunnel(relay).pair()
    with visitor, data:
        traffic.transfer(visitor, data, MIB)
    refused = watch(relay)()
    assert f"belongs to uid {STRANGER}" in refused["error"] and "not believed" in refused["error"]
    relay.stop()
    assert relay.segment.read_bytes() == b"here first"


def test_no_statistics_where_none_are_wanted(start_relay, watch):
    relay = start_relay("--stats", "off")
    assert not relay.segment.exists()
    assert watch(relay)()["error_kind"] == MISSING


@pytest.mark.driverless
def test_what_is_no_whole_segment_is_refused_by_name(start_relay, watch, tmp_path):
    whole = start_relay().segment.read_bytes()
    copy = tmp_path / "copy"
    for contents, word in ((b"", "not a relay's"), (whole[:200_000], "cut short"), (os.urandom(70_000), "not a relay's"),
                           (whole[:8] + whole[11:7:-1] + whole[12:], "byte order"), (whole[:12] + b"\2\0\0\0" + whole[16:], "version 2"),
                           (whole[:16] + bytes(8) + whole[24:], "other tables")):
        copy.write_bytes(contents)
        seen = watch(copy)()
        assert word in seen["error"] and str(copy) in seen["error"], seen
    copy.write_bytes(whole)  # whole, but nobody holds it
    assert not watch(copy)()["alive"]


def ended(program, *arguments, prefix=()):
    """The one error line of a relay that does not start."""
    identity = () if "--server-id" in arguments else programs.own_id()
    done = subprocess.run([*prefix, program, *identity, *arguments], capture_output=True, text=True, timeout=20, check=False,
                          env=programs.clean_environment())
    lines = [line for line in done.stderr.splitlines() if " error " in line]
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.driverless
@pytest.mark.parametrize("mount, says", (("mount -t tmpfs -o size=1m tmpfs /dev/shm", "No space left"),
                                         ("mount -t proc proc /dev/shm", "cannot|can be made")))
def test_no_room_is_one_sentence_at_the_start(server_program, mount, says):
    """In a mount namespace of its own, where /dev/shm is what the test makes of it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    shell = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    tried = subprocess.run([*shell, "true"], capture_output=True, text=True, timeout=20, check=False)
    if tried.returncode != 0:
        pytest.skip(f"mounting over /dev/shm is not permitted: {tried.stderr.strip()}")
    line = ended(server_program, prefix=shell)
    assert any(word in line for word in says.split("|")) and "/dev/shm" in line and "--stats off" in line
    quiet = subprocess.run([*shell, server_program, "--stats", "off", "--check-config"], capture_output=True, timeout=20, check=False)
    assert quiet.returncode == 0
