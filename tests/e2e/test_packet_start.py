"""The packet engine from outside its traffic: what it says when it cannot start, what it falls back
to, what it leaves behind, in order and after kill -9."""
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from harness import frames, netns, programs, protocol, site, traffic
from harness.splicing import await_spliced

pytestmark = [pytest.mark.packet(engine=True)]

NOBODY = 65534


@pytest.fixture
def place(cleanup, network):  # pylint: disable=unused-argument
    """A namespace with an interface nic0 that is up, as a relay finds it."""
    namespace, far = netns.Namespace(), netns.Namespace()
    netns.cable(far, "wire0", namespace, "nic0")
    cleanup.callback(namespace.close)
    cleanup.callback(far.close)
    return namespace


@pytest.fixture
def refuse(server_program, place, driver, cleanup):  # pylint: disable=unused-argument
    """refuse(arguments...): status and the lines of a relay that cannot start."""

    def start(*arguments, **keywords):
        relay = programs.Process([server_program, *programs.own_id(), *arguments], prepare=place.enter, **keywords)
        cleanup.callback(relay.kill)
        status = relay.wait(15)
        return status, relay.log()

    return start


def error_lines(log):
    return [line for line in log.splitlines() if " error " in line or line.startswith("bore-server:") or "rror" in line]


# Errors at start: one sentence, its value in it, and a remedy

ADDRESS = ",address=10.99.9.1/16"


@pytest.mark.parametrize("arguments, words", [
    (("--packet-port", f"0000:99:00.0{ADDRESS}"), ("0000:99:00.0",)),
    (("--packet-port", f"af_packet:nosuch0{ADDRESS}"), ("nosuch0",)),
    (("--packet-port", f"af_packet:nic0{ADDRESS}", "--packet-memory-mib", "60000"), ("hugepage", "60000")),
    (("--packet-port", f"af_packet:nic0{ADDRESS}", "--packet-eal", "--no-such-argument"), ("--no-such-argument",))],
    ids=["pci_address", "interface", "hugepages", "eal"])
@pytest.mark.packet_smoke
def test_what_is_missing_is_said_in_one_sentence(refuse, place, arguments, words):
    status, log = refuse("--engine", "packet", *arguments)
    assert status == 1, log
    lines = error_lines(log)
    assert len(lines) == 1, log
    # A machine without VFIO at all says that instead of naming the NIC.
    no_vfio = "0000:99:00.0" in words and not os.path.exists("/dev/vfio/vfio")
    for word in ("vfio",) if no_vfio else words:
        assert word.lower() in lines[0].lower(), lines[0]
    assert is_clean(place), remains(place)


@pytest.mark.parametrize("arguments, word", [
    ((), "packet-port"),
    (("--packet-port", "af_packet:nic0,address=300.1.1.1/24"), "300.1.1.1/24"),
    (("--packet-port", "af_packet:nic0"), "address"),
    (("--packet-port", f"af_packet:nic0{ADDRESS},colour=red"), "colour"),
    (("--packet-port", f"af_packet:nic0{ADDRESS},interface=a-name-that-is-far-too-long"), "a-name-that-is-far-too-long"),
    (("--packet-port", f"af_packet:nic0{ADDRESS}", "--packet-idle", "doze"), "doze"),
    (("--packet-port", f"af_packet:nic0{ADDRESS}", "--packet-path", "tunnel"), "tunnel"),
    (("--packet-port", f"af_packet:nic0{ADDRESS}", "--packet-path-rules", "20000-19999=stream"), "20000-19999"),
    (("--packet-port", f"af_packet:nic0{ADDRESS}", "--packet-max-flows", "0"), "packet-max-flows")])
@pytest.mark.packet_smoke
def test_usage_errors_end_with_2(refuse, arguments, word):
    status, log = refuse("--engine", "packet", *arguments)
    assert status == 2 and word in log, (status, log)


def test_an_unknown_kind_of_device_is_named_with_those_there_are(refuse):
    status, log = refuse("--engine", "packet", "--packet-port", f"token_ring:nic0{ADDRESS}")
    assert status in (1, 2) and "token_ring" in log and "af_packet:" in log, (status, log)


def test_an_interface_that_is_down_is_named(refuse, place):
    """Not fatal for a NIC whose cable is out, but an operator must be told."""
    place.ip("link add idle0 type veth peer name idle1")
    relay_log = None
    try:
        status, relay_log = refuse("--engine", "packet", "--packet-port", f"af_packet:idle0{ADDRESS}", *site.PACKET_FRUGAL)
        assert status == 1 and "idle0" in relay_log
    except AssertionError as error:
        assert "still runs" in str(error), error  # it started: then the log says which link is down
        assert "idle0" in str(error)


def test_the_exception_interface_exists_already(refuse, place):
    place.ip("link add bore0 type veth peer name other0")
    status, log = refuse("--engine", "packet", "--packet-port", f"af_packet:nic0{ADDRESS}", *site.PACKET_FRUGAL)
    assert status == 1 and "bore0" in log
    place.ip("link del bore0")


# Without privileges

def hugepage_group(mib, cleanup):
    """A control group that may have so much of hugepages; the file that processes join it by."""
    with open("/proc/mounts", encoding="ascii") as mounts:
        tops = [words[1] for words in map(str.split, mounts) if words[2] == "cgroup2"]
    for top in tops:
        try:
            with open(f"{top}/cgroup.subtree_control", "w", encoding="ascii") as control:
                control.write("+hugetlb")
            group = f"{top}/bore-e2e-{os.getpid()}"
            os.mkdir(group)
            cleanup.callback(os.rmdir, group)
            with open(f"{group}/hugetlb.2MB.max", "w", encoding="ascii") as most:
                most.write(str(mib << 20))
            return f"{group}/cgroup.procs"
        except OSError:
            continue
    return None


@pytest.mark.packet_smoke
@pytest.mark.parametrize("who", ["nobody", "no_hugepages", "none_for_the_flow_table"])
def test_auto_falls_back_to_the_stream_engine_and_says_why(server_program, place, cleanup, who):
    group = None
    if who == "none_for_the_flow_table":  # DPDK takes all that the relay may have
        group = hugepage_group(128, cleanup)
        if group is None:
            pytest.skip("no cgroup2 with the hugetlb controller here")

    def become():
        place.enter()
        if group:
            with open(group, "w", encoding="ascii") as processes:
                processes.write(str(os.getpid()))
        if who == "nobody":
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    notify = programs.NotifySocket()
    cleanup.callback(notify.close)
    memory = {"nobody": (), "no_hugepages": ("--packet-memory-mib", "60000"),
              "none_for_the_flow_table": site.PACKET_FRUGAL}[who]
    relay = programs.Process([server_program, *programs.own_id(), "--engine", "auto", "--packet-port", f"af_packet:nic0{ADDRESS}",
                              *memory], {"NOTIFY_SOCKET": notify.name}, prepare=become)
    cleanup.callback(relay.kill)
    traffic.eventually(lambda: "READY=1" in notify.poll(0.05), 15, relay.tail())
    line = relay.wait_for_log(r".*(?i:warning).*packet engine.*").group(0)
    assert "stream" in line
    assert ("packet-max-flows" in line) == (who == "none_for_the_flow_table"), line
    with place.inside():
        tunnel = protocol.open_upstream(("127.0.0.1", 7835))
        cleanup.callback(tunnel.close)
        visitor, data = tunnel.pair(extra=b"served")
        with visitor, data:
            assert traffic.receive_exactly(visitor, 6) == b"served"
    relay.signal(signal.SIGTERM)
    assert relay.wait(10) == 0


def test_packet_without_privileges_refuses_with_the_remedy(server_program, place, cleanup):
    def become():
        place.enter()
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    relay = programs.Process([server_program, "--engine", "packet", "--packet-port", f"af_packet:nic0{ADDRESS}"], prepare=become)
    cleanup.callback(relay.kill)
    assert relay.wait(10) == 1
    assert "CAP_" in relay.log()


@pytest.mark.packet_smoke
def test_privileges_are_given_up(start_sides):
    _, relay = start_sides()
    with open(f"/proc/{relay.pid}/status", encoding="ascii") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff"))
    assert int(effective, 16) == 1 << 12, "CAP_NET_ADMIN and nothing else"
    for thread in os.listdir(f"/proc/{relay.pid}/task"):
        with open(f"/proc/{relay.pid}/task/{thread}/status", encoding="ascii") as status:
            effective = next(line for line in status if line.startswith("CapEff"))
        assert int(effective.split()[1], 16) & ~(1 << 12) == 0, f"thread {thread}: {effective}"


def test_the_log_names_engine_ports_and_driver(start_sides, driver):
    _, relay = start_sides()
    relay.wait_for_log("packet engine")
    for nic in ("nic0", "nic1"):
        relay.wait_for_log(nic)
    relay.wait_for_log(f"net_{site.PACKET_PORTS[driver]}")


# What is left behind

def remains(namespace):
    """Everything of a relay that somebody could find in the kernel afterwards."""
    links = {link["ifname"] for link in json.loads(namespace.run("ip", "-j", "link"))}
    rules = namespace.run("ip", "rule") + namespace.run("ip", "-6", "rule")
    return {"interfaces": sorted(name for name in links if name != "lo" and not name.startswith("nic")),
            "nft": namespace.run("nft", "list", "ruleset"),
            "rules": [line for line in rules.splitlines() if "from all" not in line],
            "routes": namespace.run("ip", "route", "show", "table", "all").count("bore"),
            "qdiscs": [line for line in namespace.run("tc", "qdisc").splitlines() if "clsact" in line or "ingress" in line],
            "xdp": "xdp" in namespace.run("ip", "link")}


NOTHING = {"interfaces": [], "nft": "", "rules": [], "routes": 0, "qdiscs": [], "xdp": False}


def is_clean(namespace):
    return remains(namespace) == NOTHING


def features(namespace, interface):
    return {line for line in namespace.run("ethtool", "-k", interface).splitlines() if "[fixed]" not in line}


@pytest.mark.packet_smoke
def test_nothing_is_left_in_the_kernel(start_sides, open_sided, keep):
    sides, relay = start_sides(check_stop=False)
    visitor, service = keep(*open_sided(sides, relay).pair())
    await_spliced(sides, relay, 1)
    assert not is_clean(sides.relay_namespace), "the relay holds nothing in the kernel: this test looks at the wrong place"
    visitor.close()
    service.close()
    relay.stop()
    assert remains(sides.relay_namespace) == NOTHING


def test_features_of_the_nic_are_put_back(start_sides):
    """Offloads that the relay switches off while the NIC is its own."""
    sides, relay = start_sides(check_stop=False)
    relay.stop()
    nic = sides.visitor_side.nic
    sides.relay_namespace.run("ethtool", "-K", nic, "gro", "on", "gso", "on")
    before = features(sides.relay_namespace, nic)
    again = programs.Relay(relay.command[0], sides.slot)
    try:
        assert features(sides.relay_namespace, nic) != before
    finally:
        again.stop()
        again.close()
    assert features(sides.relay_namespace, nic) == before


@pytest.mark.limit(60)
def test_after_kill_9_the_next_start_finds_its_way(start_sides, open_sided, keep, server_program, relays):
    sides, relay = start_sides(check_stop=False)
    tunnel = open_sided(sides, relay)
    visitor, service = keep(*tunnel.pair())
    await_spliced(sides, relay, 1)
    relay.signal(signal.SIGKILL)
    relay.wait()
    assert remains(sides.relay_namespace)["interfaces"] == []
    again = programs.Relay(server_program, sides.slot)
    again.check_stop = False
    relays.append(again)
    # What was spliced is gone with the process; its ends are told as soon as they ask.
    for sock in (visitor, service):
        sock.settimeout(10)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sock.sendall(b"anybody?")
            sock.recv(1)
    fresh = keep(*open_sided(sides, again, port=tunnel.port).pair(extra=b"fresh"))
    assert traffic.receive_exactly(fresh[0], 5) == b"fresh"
    await_spliced(sides, again, 1)
    for sock in fresh:
        sock.close()
    again.stop()
    assert remains(sides.relay_namespace) == NOTHING


def test_hugepages_come_back(start_sides, server_program, cleanup):
    def free():
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("HugePages_Free"))

    sides, relay = start_sides(check_stop=False)
    relay.stop()
    before = free()
    for number in (signal.SIGTERM, signal.SIGKILL):
        relay = programs.Relay(server_program, sides.slot)
        cleanup.callback(relay.close)
        assert free() < before, "no hugepages in use: this test looks at the wrong place"
        relay.signal(number)
        relay.wait()
        traffic.eventually(lambda: free() >= before, 3, f"hugepages after {number}")


def test_a_link_that_was_up_before_has_not_changed(start_sides, server_program, cleanup):
    sides, first = start_sides(check_stop=False)
    traffic.eventually(lambda: all(port["port_link_up"] for port in first.ports()), 5, "a kernel may take a second to say it")
    first.stop()
    relay = programs.Relay(server_program, sides.slot)
    cleanup.callback(relay.close)
    time.sleep(0.3)
    assert [(port["port_link_up"], port["port_link_changes_total"]) for port in relay.ports()] == [(1, 0), (1, 0)]


def test_start_and_stop_are_quick(start_sides):
    start = time.monotonic()
    _, relay = start_sides(check_stop=False)
    started = time.monotonic() - start
    start = time.monotonic()
    relay.stop()
    print(f"start {started:.2f} s, stop {time.monotonic() - start:.2f} s")
    assert started < 5 and time.monotonic() - start < 3


@pytest.mark.limit(60)
def test_two_relays_beside_each_other(start_sides, open_sided, keep):
    """Two processes with DPDK on one machine, each in its own namespace, do not disturb each other."""
    first, one = start_sides()
    with netns.Namespace().inside():
        second, two = start_sides()
    for sides, relay in ((first, one), (second, two)):
        with sides.visitors.inside():
            tunnel = open_sided(sides, relay)
            legs = keep(*tunnel.pair())
        await_spliced(sides, relay, 1)
        traffic.transfer(legs[0], legs[1], 4 << 20)


def test_ping_and_neighbours_are_the_kernels(start_sides):
    sides, relay = start_sides()
    for side in sides.both:
        for family in (4, 6):
            assert frames.ping(side, family, 3) == [1, 2, 3], f"IPv{family}"
    if sides.packets:
        assert relay.counters()["packet_not_tcp_total"] > 0


def test_a_closed_port_is_refused_once(start_sides):
    """The NIC's frames must reach the kernel by one way: a second one would answer twice."""
    sides, relay = start_sides()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listener:
        listener.bind((sides.visitor_side.interface, 3))
        with pytest.raises(ConnectionRefusedError):
            protocol.connect((sides.visitor_side.host(), 4))
        time.sleep(0.2)
        resets = 0
        listener.setblocking(False)
        try:
            while True:
                frame = listener.recv(2048)
                resets += frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[47] & 4 != 0
        except BlockingIOError:
            pass
    assert resets == 1
    assert relay.running()


def test_check_config_opens_nothing(server_program, place):
    with place.inside():
        done = subprocess.run([server_program, "--engine", "packet", "--packet-port", f"af_packet:nic0{ADDRESS}", "--check-config"],
                              capture_output=True, text=True, timeout=10, check=False, env=programs.clean_environment())
    assert done.returncode == 0, done.stderr
    assert is_clean(place)
