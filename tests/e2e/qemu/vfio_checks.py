"""What qemu/vfio checks, from the host's side: Python's sockets are the visitors and the service.

    visitors ──wire(TAP)── e1000e ┐                  ┌ virtio-net ──wire(TAP)── Rust client ── service
    namespace 1                   └ bore-server ─────┘                          namespace 2
                                    in the guest

Called by `vfio` with the packed initramfs and QEMU's command; prints PASS or FAIL for each check. The
order is that of run_checks(): start, bytes, ends, ways to the kernel, cables, end of the relay.
"""
import argparse
import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import netns, peers, programs, protocol, traffic  # pylint: disable=wrong-import-position
import vfio_guest  # pylint: disable=wrong-import-position

MIB = 1 << 20
BULK = 16 * MIB
SHORT_CONNECTIONS, AT_ONCE = 100, 4
VISITORS, CLIENT = ("10.71.1.2", "fd71:1::2"), ("10.71.2.2", "fd71:2::2")
# The relay's addresses as seen from there: by network and IP version.
RELAY_VISITORS, RELAY_CLIENT = {4: "10.71.1.1", 6: "fd71:1::1"}, {4: "10.71.2.1", 6: "fd71:2::1"}
# The same for visitors behind a VLAN tag, which the relay's cable carries beside untagged frames.
VLAN_ID, VLAN_VISITORS, VLAN_RELAY = 100, "10.71.3.2", "10.71.3.1"
# Tunnels by public port. The service is a socket of this process, but for ECHO.
SPLICE, SPLICE6, AUTO, STREAM, ECHO = range(20000, 20005)
RELAY_COMMAND = (
    "bore-server --bind-addr 0.0.0.0 --bind-addr :: --engine packet --workers 1 --packet-idle sleep "
    "--packet-memory-mib 128 --packet-max-flows 4096 "
    f"--packet-port 0000:00:04.0,address={RELAY_VISITORS[4]}/24,address={RELAY_VISITORS[6]}/64 "
    f"--packet-port 0000:00:05.0,address={RELAY_CLIENT[4]}/24,address={RELAY_CLIENT[6]}/64 "
    f"--packet-path splice --packet-path-rules {STREAM}=stream,{AUTO}=auto --drain-timeout-s 20")
WAIT_S = 15


class TimeLimit(BaseException):
    """No failure of one check: nothing goes on after it."""


class GiveUp(Exception):
    """What follows makes no sense."""


class Site:
    """Everything there is: both sides, the guest, the relay in it, tunnels, and the list of checks."""

    def __init__(self, options, kept):
        self.kept = kept
        self.failed = self.passed = 0
        self.visitors, self.clients = (
            kept.enter_context(contextlib.closing(vfio_guest.Side(f"{four}/24", f"{six}/64 nodad")))
            for four, six in (VISITORS, CLIENT))
        self.options = options
        self.guest = None
        with self.clients.namespace.inside():
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.echo = kept.enter_context(traffic.LocalService(traffic.echo))
        self.listener.settimeout(WAIT_S)

    @contextlib.contextmanager
    def check(self, name, essential=False):
        """One line for what happens inside; the list it gives takes remarks for this line."""
        remarks, began = [], time.monotonic()
        try:
            yield remarks
        except (AssertionError, OSError, KeyError, ValueError) as error:
            self.failed += 1
            first = (str(error) or type(error).__name__).splitlines()[0]
            print(f"FAIL {name}: {first}", flush=True)
            traceback.print_exc(limit=-4, file=sys.stdout)
            if essential:
                raise GiveUp("so nothing else was tried") from error
        else:
            self.passed += 1
            print(f"PASS {name} ({'; '.join([*remarks, f'{time.monotonic() - began:.1f} s'])})", flush=True)

    # The relay

    def boot(self):
        options = self.options
        self.guest = vfio_guest.Guest(options.qemu, options.work, options.append, (self.visitors, self.clients),
                                      self.kept)

    def start_relay(self):
        self.guest.run(f"{RELAY_COMMAND} > /tmp/relay.log 2>&1 < /dev/null & relay=$!")

        def listens():
            status, text = self.guest.run("kill -0 $relay && cat /tmp/relay.log")
            if status != 0:
                raise ValueError("the relay ended: " + self.relay_log().strip().splitlines()[-1])
            return " listening " in text

        traffic.eventually(listens, 30, "the relay listens")

    def relay_log(self, lines="''"):
        """`lines`: for grep."""
        return self.guest.run(f"grep {lines} /tmp/relay.log | tail -60", 5)[1]

    def counters(self):
        """What it logs on SIGUSR1; those of the ports as NAME0 and NAME1."""
        status, text = self.guest.run("counters")
        if status != 0:
            raise GiveUp(f"the relay ended with status {self.guest.run('wait $relay')[0]}")
        found = collections.Counter()
        for line in text.splitlines():
            port = re.search(r" port_index=(\d)", line)
            found.update({name + (port.group(1) if port else ""): int(value)
                          for name, value in re.findall(r" ([a-z_]+)=(\d+)", line)})
        return found

    def fallbacks(self, counters):
        """Pairs on the stream engine, by reason."""
        reasons = re.findall(r"stream_\w+_total", " ".join(counters))
        return {name: counters[name] for name in reasons if counters[name]}

    def counters_when(self, condition, what):
        """Counters for which condition(counters) is true, after a while."""
        latest = None

        def asked():
            nonlocal latest
            time.sleep(0.1)
            latest = self.counters()
            return condition(latest)

        traffic.eventually(asked, WAIT_S, what)
        return latest

    def show_logs(self):
        """What helps to find the cause."""
        console = self.options.work / "console"
        if console.exists():
            print("---- the guest's console\n" + console.read_text(errors="replace"))
        if self.guest is not None and self.guest.qemu.poll() is None:
            with contextlib.suppress(AssertionError, OSError):
                print("---- the guest's kernel\n" + self.guest.run("dmesg | tail -30", 5)[1])
                print("---- the relay's log, last lines\n" + self.relay_log(r"-v 'counters\|port_index=\|tunnel port='"))
                counters = self.guest.run("counters", 5)[1]
                print("---- its counters that are not 0\n" + re.sub(r" \w+=0\b", "", counters))

    # Connections

    def open_tunnel(self, port, version=4):
        service = self.echo.port if port == ECHO else self.listener.getsockname()[1]
        with self.clients.namespace.inside():
            client = programs.Client(
                self.options.client, ["local", str(service), "--to", RELAY_CLIENT[version], "--port", str(port)],
                prepare=vfio_guest.end_with_parent)
        self.kept.callback(client.kill)
        assert client.public_port(20) == port

    def visit(self, port=SPLICE, version=4, relay=None):
        """`relay`: another address of it than the version's."""
        with self.visitors.namespace.inside():
            return protocol.connect((relay or RELAY_VISITORS[version], port), timeout=WAIT_S)

    @contextlib.contextmanager
    def pair(self, port=SPLICE, version=4, sack=1, relay=None):
        """A visitor's socket and the service's end of the same connection; both are closed behind the block."""
        self.visitors.namespace.sysctl("ipv4.tcp_sack", sack)
        try:
            visitor = self.visit(port, version, relay)
        finally:
            self.visitors.namespace.sysctl("ipv4.tcp_sack", 1)
        with visitor, self.listener.accept()[0] as service:
            service.settimeout(WAIT_S)
            service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield visitor, service


def exchange(one, other, size=10_000, seed=0):
    """Some bytes both ways, without an end."""
    for number, (sender, receiver) in enumerate(((one, other), (other, one))):
        data = traffic.payload(size, 2 * seed + number)
        sender.sendall(data)
        assert traffic.receive_exactly(receiver, size) == data, "other bytes arrived than were sent"


def mbit(size, seconds):
    return f"{size / MIB:.0f} MiB, {size * 8e-6 / seconds:.0f} Mbit/s"


def ends(sock):
    """Whether the stream ends, in order or by a reset, with nothing before it."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


# The checks

def check_start(site):
    with site.check("the guest boots", essential=True) as remarks:
        site.boot()
        remarks += re.findall(r"^guest: (Linux .*)", site.guest.console(), re.MULTILINE)
    with site.check("both cards belong to vfio-pci, each alone in its IOMMU group", essential=True):
        cards = re.findall(r"^guest: nic (.*)", site.guest.console(), re.MULTILINE)
        assert len(cards) == 2, site.guest.console()
        for card in cards:
            assert re.search(r"driver=vfio-pci group=\d+ members=1 domain=DMA", card), card
    with site.check("the relay opens both ports and listens", essential=True) as remarks:
        site.start_relay()
        drivers = re.findall(r" driver=(\S+)", site.relay_log())
        assert drivers == ["net_e1000_em", "net_virtio"], drivers
        remarks += drivers
    with site.check("the Rust client opens tunnels through NIC 2", essential=True):
        for port in (SPLICE, AUTO, STREAM, ECHO):
            site.open_tunnel(port)
        site.open_tunnel(SPLICE6, version=6)
    with site.check("a visitor through NIC 1 reaches the service", essential=True):
        with site.pair() as (visitor, service):
            exchange(visitor, service)
            visitor.close()
            assert ends(service)


def both_ways(visitor, service, size):
    """What a line says about it."""
    began = time.monotonic()
    upwards = traffic.Background(traffic.transfer, visitor, service, size, 1, WAIT_S)
    traffic.transfer(service, visitor, size, 2, WAIT_S)
    upwards.result(WAIT_S)
    return mbit(2 * size, time.monotonic() - began)


def check_bytes(site):
    before = site.counters()
    with site.check("bulk to the service, sha-256") as remarks, site.pair() as (visitor, service):
        began = time.monotonic()
        traffic.transfer(visitor, service, BULK, 3, WAIT_S)
        remarks.append(mbit(BULK, time.monotonic() - began))
    with site.check("bulk to the visitor, sha-256") as remarks, site.pair() as (visitor, service):
        began = time.monotonic()
        traffic.transfer(service, visitor, BULK, 4, WAIT_S)
        remarks.append(mbit(BULK, time.monotonic() - began))
    with site.check("bulk both ways at once, sha-256") as remarks, site.pair() as both:
        remarks.append(both_ways(*both, BULK))
    with site.check("bulk both ways at once over IPv6, sha-256") as remarks, site.pair(SPLICE6, 6) as both:
        remarks.append(both_ways(*both, BULK // 2))
    with site.check("these went from card to card, past the kernel") as remarks:
        after = site.counters() - before
        spliced, diverted = after["packet_spliced_total"], after["frames_to_kernel_total"]
        remarks.append(f"{spliced} frames spliced, {diverted} to the kernel")
        assert after["handoffs_total"] == 4, f"{after['handoffs_total']} hand-offs; {site.fallbacks(after)}"
        assert spliced >= 5 * BULK // 1448, remarks
        assert diverted < 2000, remarks


def check_ends(site):
    with site.check("half-close: the visitor's end first, then the answer"), site.pair() as (visitor, service):
        visitor.sendall(b"request")
        visitor.shutdown(socket.SHUT_WR)
        assert traffic.receive_all(service) == b"request"
        traffic.transfer(service, visitor, MIB)
    with site.check("half-close: the service's end first, then an upload"), site.pair() as (visitor, service):
        service.shutdown(socket.SHUT_WR)
        assert visitor.recv(1) == b""
        traffic.transfer(visitor, service, MIB)
    for name, first in (("visitor", 0), ("service", 1)):
        with site.check(f"reset by the {name} reaches the other end"), site.pair() as both:
            exchange(*both)
            protocol.reset(both[first])
            assert ends(both[1 - first]), "bytes from nowhere"
    with site.check("no flow is left"):
        site.counters_when(lambda now: now["flows_live"] == 0, "flows_live = 0")


def check_short_connections(site):
    before = site.counters()
    seconds = []

    def visit(number):
        for turn in range(number, SHORT_CONNECTIONS, AT_ONCE):
            began = time.monotonic()
            with site.visit(ECHO) as visitor:
                question = traffic.payload(1000 + 7 * turn, turn)
                visitor.sendall(question)
                assert traffic.receive_exactly(visitor, len(question)) == question, f"visit {turn}"
                visitor.shutdown(socket.SHUT_WR)
                assert visitor.recv(1) == b"", f"visit {turn}"
            seconds.append(time.monotonic() - began)

    with site.check(f"{SHORT_CONNECTIONS} short connections, {AT_ONCE} at once, every byte echoed") as remarks:
        for running in [traffic.Background(visit, number) for number in range(AT_ONCE)]:
            running.result(40)
        remarks.append(f"median {sorted(seconds)[len(seconds) // 2] * 1e3:.0f} ms, longest {max(seconds) * 1e3:.0f} ms")
    with site.check("each was handed off, or its reason not to be is counted") as remarks:
        after = site.counters() - before
        remarks.append(f"{after['handoffs_total']} hand-offs; {site.fallbacks(after) or 'no fall-back'}")
        assert after["handoffs_total"] + sum(site.fallbacks(after).values()) == SHORT_CONNECTIONS, remarks
        assert after["handoffs_total"] >= SHORT_CONNECTIONS * 9 // 10, remarks


def check_stream(site):
    """Pairs that are not spliced go on by the kernel's TCP and say why."""
    before = site.counters()
    for name, port, version, sack, reasons in (
            ("by the tunnel's policy", STREAM, 4, 1, {"stream_policy_total"}),
            ("from an IPv6 visitor to an IPv4 client", SPLICE, 6, 1, {"stream_families_differ_total"}),
            # On a machine that is busy with other things the paths may seem long.
            ("without SACK on one leg", AUTO, 4, 0, {"stream_sack_differs_total", "stream_long_path_total"})):
        with site.check(f"fall-back {name}: both ways, sha-256, counted") as remarks:
            with site.pair(port, version, sack) as both:
                remarks.append(both_ways(*both, MIB))
            now = site.counters()
            counted = site.fallbacks(now - before)
            assert sum(counted.values()) == 1 and counted.keys() <= reasons, counted
            before = now
    with site.check("without SACK on one leg, spliced where the operator says so") as remarks:
        with site.pair(sack=0) as both:
            remarks.append(both_ways(*both, MIB))
        after = site.counters() - before
        assert after["handoffs_total"] == 1, site.fallbacks(after)


def check_vlan(site):
    """The tag of the visitors' leg goes off and on again on the way to a client that has none."""
    with site.check(f"visitors in VLAN {VLAN_ID}, client in none: both ways, sha-256, spliced") as remarks:
        vfio_guest.Vlan(site.visitors, VLAN_ID, f"{VLAN_VISITORS}/24")
        status, text = site.guest.run(
            f"modprobe 8021q && ip link add link bore0 name bore0.{VLAN_ID} type vlan id {VLAN_ID} && "
            f"ip addr add {VLAN_RELAY}/24 dev bore0.{VLAN_ID} && ip link set bore0.{VLAN_ID} up")
        assert status == 0, text
        before = site.counters()
        with site.pair(relay=VLAN_RELAY) as both:
            remarks.append(both_ways(*both, 4 * MIB))
        after = site.counters() - before
        assert after["handoffs_total"] == 1, site.fallbacks(after)
        assert after["packet_spliced_total"] >= 2 * 4 * MIB // 1448, after["packet_spliced_total"]
        remarks.append(f"{after['packet_spliced_total']} frames spliced")


def check_cables(site):
    for number, name in ((1, "NIC 1 (e1000e, visitors)"), (2, "NIC 2 (virtio, client)")):
        up, changes = f"port_link_up{number - 1}", f"port_link_changes_total{number - 1}"
        with site.check(f"{name}: link down and up, the flow goes on, changes counted"), site.pair() as both:
            visitor, service = both
            exchange(visitor, service, seed=number)
            before = site.counters()
            assert before[up] == 1, f"{up} was {before[up]}"
            site.guest.set_link(number, False)
            try:
                site.counters_when(lambda now, name=up: now[name] == 0, f"{up} = 0")
                sending = traffic.Background(traffic.send, visitor, MIB, 5)
                service.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    raise AssertionError(f"{len(service.recv(1))} bytes came without a cable")
            finally:
                site.guest.set_link(number, True)
            after = site.counters_when(lambda now, name=up: now[name] == 1, f"{up} = 1")
            assert after[changes] - before[changes] == 2, f"{after[changes] - before[changes]} changes"
            service.settimeout(WAIT_S)
            assert traffic.receive_digest(service) == (MIB, traffic.digest(MIB, 5))
            sending.result(WAIT_S)
            traffic.transfer(service, visitor, MIB, 6, WAIT_S)


def check_sums(site):
    with site.check("no frame was dropped as malformed, no hand-off failed") as remarks:
        now = site.counters()
        # Resets of ended connections lie outside the window; a full queue is a slow wire.
        remarks += [f"{name} {now[f'packet_{name}_total']}" for name in ("out_of_window", "transmit_full")]
        wrong = [f"packet_{reason}_total" for reason in ("truncated", "bad_header", "bad_options", "bad_checksum",
                                                         "bad_flags", "too_big", "no_buffer", "slow_path_full")]
        wrong += ["stream_repair_failed_total", "stream_drain_timeout_total", "kernel_write_errors_total"]
        assert not any(now[name] for name in wrong), {name: now[name] for name in wrong if now[name]}
    with site.check("both cards' own counts agree that all bytes passed") as remarks:
        received, sent = now["port_received_bytes_total0"], now["port_sent_bytes_total1"]
        remarks.append(f"{received / MIB:.0f} MiB in at NIC 1, {sent / MIB:.0f} MiB out at NIC 2")
        assert received > 2 * BULK and sent > 2 * BULK, remarks


def check_restart(site):
    with site.check("killed without a warning, it starts again on the same cards", essential=True) as remarks:
        site.guest.run("kill -KILL $relay")
        status = site.guest.run("wait $relay")[0]
        assert status == 128 + signal.SIGKILL, f"exit status {status}"
        site.start_relay()
        site.open_tunnel(SPLICE)
        with site.pair() as both:
            remarks.append(both_ways(*both, MIB))


def check_end(site):
    with site.pair() as (visitor, service):
        with site.check("SIGTERM: a live flow goes on, no new one comes in"):
            exchange(visitor, service)
            site.guest.run("kill -TERM $relay")
            traffic.eventually(lambda: "draining" in site.relay_log(), WAIT_S, "draining")
            with contextlib.suppress(ConnectionRefusedError):
                site.visit().close()
                raise AssertionError("a new visitor was let in")
            exchange(visitor, service, MIB, seed=3)
        with site.check("it leaves with 0 when the flow has ended, and leaves nothing behind"):
            visitor.close()
            assert ends(service)
            service.close()
            status, text = site.guest.run("wait $relay", timeout=WAIT_S)
            assert status == 0, f"exit status {status} {text}"
            left = site.guest.run("ls /sys/class/net")[1].split()
            assert left == ["lo"], f"interfaces left: {left}"
    with site.check("no fault in the IOMMU"):
        status, text = site.guest.run("dmesg | grep -i 'DMAR.*fault'")
        assert status == 1, text
    with site.check("the guest powers off"):
        assert site.guest.power_off() == 0


def run_checks(options):
    with contextlib.ExitStack() as kept:
        site = Site(options, kept)
        try:
            for checks in (check_start, check_bytes, check_short_connections, check_ends, check_stream, check_vlan,
                           check_cables, check_sums, check_restart, check_end):
                checks(site)
        except GiveUp as error:
            site.failed += 1
            print(f"FAIL the other checks: {error}", flush=True)
        except BaseException:
            site.failed += 1
            raise
        finally:
            if site.failed:
                site.show_logs()
        print(f"{site.passed} passed, {site.failed} failed in {time.monotonic() - options.began:.1f} s", flush=True)
        return 1 if site.failed else 0


def skip(reason):
    print(f"SKIPPED: the packet engine on VFIO did not run: {reason}", file=sys.stderr)
    sys.exit(77)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder with the initramfs; taken away")
    parser.add_argument("--limit-s", type=int, required=True)
    parser.add_argument("--append", required=True, help="the kernel's command line")
    parser.add_argument("--client", type=pathlib.Path, help="the Rust client; default: as the suite finds it")
    parser.add_argument("qemu", nargs="+")
    options = parser.parse_args()
    options.began = time.monotonic()
    return options


def prepare(options):
    """Namespaces and the client, or a reason to skip."""
    if options.client is None:
        options.client, missing = peers.find_or_install(peers.default_directory(), "0.6.0")
        if missing:
            skip(missing)
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        skip("there is no /dev/net/tun to be had")
    if shutil.which("ethtool") is None:
        skip("there is no ethtool")
    try:
        netns.enter_fresh()
    except PermissionError:
        try:
            netns.become_namespace_root()
            netns.enter_fresh()
        except OSError as error:
            skip(f"network namespaces are not permitted: {error}")


def on_alarm(*_):
    raise TimeLimit


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, on_alarm)
    try:
        prepare(options)
        signal.alarm(options.limit_s)
        return run_checks(options)
    except TimeLimit:
        print(f"qemu/vfio: took longer than {options.limit_s} s", flush=True)
        return 124
    finally:
        signal.alarm(0)
        shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
