"""bore-exporter from outside: a relay, its exporter, a real Prometheus with the configuration that is
shipped; alerts and dashboards against a live scrape; relays that die, several relays, bad segments."""
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess

import pytest

from harness import metrics, programs, site, traffic

MONITORING = pathlib.Path(__file__).resolve().parents[2] / "deploy/monitoring"
MIB = 1 << 20

pytestmark = [pytest.mark.driverless(cabled=True)]


@pytest.fixture
def server_id():
    """A segment of the test's own: /dev/shm is the whole machine's."""
    return programs.own_id()[1]


@pytest.fixture
def start_exporter(exporter_program, cleanup):
    def start(*arguments, **keywords):
        exporter = metrics.Exporter(exporter_program, *arguments, **keywords)
        cleanup.callback(exporter.kill)
        return exporter

    return start


@pytest.fixture
def start_filler(filler_program, cleanup, tmp_path):
    """A segment without a relay, with what the arguments say in it; gives the folder that it is in."""

    def start(*arguments, server_id="filled"):
        filler = subprocess.Popen([filler_program, "--directory", tmp_path, "--server-id", server_id,
                                   *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        cleanup.callback(filler.wait)
        cleanup.callback(filler.kill)
        assert b"path" in filler.stdout.readline()
        return tmp_path

    return start


def move(tunnel, to_client, to_visitor):
    """One visitor of a tunnel made of bytes: so many bytes each way, and an orderly end."""
    visitor, client = tunnel.pair()
    with visitor, client:
        sending = traffic.Background(traffic.send, visitor, to_client, seed=1)
        assert traffic.receive_digest(client)[0] == to_client
        sending.result()
        sending = traffic.Background(traffic.send, client, to_visitor, seed=2)
        assert traffic.receive_digest(visitor)[0] == to_visitor
        sending.result()


# A relay, its exporter and Prometheus

@pytest.mark.limit(120)
@pytest.mark.needs_namespace
def test_a_prometheus_with_the_shipped_configuration_sees_known_traffic(
        start_relay, start_exporter, open_tunnel, server_id, tmp_path, cleanup):
    if reason := metrics.missing("prometheus"):
        pytest.skip(reason)
    relay = start_relay("--server-id", server_id, check_stop=False)
    start_exporter("--relay", server_id, listen=("127.0.0.1:7836",))
    tunnel = open_tunnel(relay)
    move(tunnel, 3 * MIB + 1, 5 * MIB + 7)
    move(tunnel, 11, 0)

    prometheus = metrics.Prometheus(MONITORING / "prometheus.yml", tmp_path)
    cleanup.callback(prometheus.kill)
    # The first scrape comes within one interval of 15 s.
    prometheus.wait_for('up{job="bore-exporter"}', 1, 40)
    prometheus.wait_for(f'bore_up{{relay="{server_id}"}}', 1, 5)
    port = tunnel.port
    for to, sent in (("client", 3 * MIB + 12), ("visitor", 5 * MIB + 7)):
        assert prometheus.value(f'sum(bore_tunnel_bytes_total{{relay="{server_id}",port="{port}",to="{to}"}})') == sent
        assert prometheus.value(f'sum(bore_tunnel_bytes_total{{relay="{server_id}",to="{to}"}})') == sent
    if site.packets():
        by_packets = f'bore_tunnel_bytes_total{{relay="{server_id}",path="packet"}}'
        assert prometheus.value(f'sum({by_packets})') == 8 * MIB + 19
        assert prometheus.value(f'bore_handoffs_total{{relay="{server_id}"}}') == 2
    else:
        moved = f'sum(bore_copied_bytes_total{{relay="{server_id}"}} + bore_spliced_bytes_total)'
        assert prometheus.value(moved) == 8 * MIB + 19
    assert prometheus.value(f'sum(bore_tunnel_pairs_opened_total{{relay="{server_id}",port="{port}"}})') == 2
    ended = "flows" if site.packets() else "pairs"
    assert prometheus.value(f'sum by (relay) (bore_{ended}_ended_total{{relay="{server_id}",reason="fin"}})') == 2
    assert prometheus.value(f'bore_tunnels_live{{relay="{server_id}"}}') == 1

    # It took every rule, and found nothing to complain of in what it scraped.
    groups = prometheus.rules()
    assert {group["name"] for group in groups} == {"bore-relay", "bore-exporter"}
    assert all(rule["health"] in ("ok", "unknown") for group in groups for rule in group["rules"])
    assert [target["lastError"] for target in prometheus.targets()] == [""]
    assert "Error on ingesting" not in prometheus.log()

    relay.signal(signal.SIGKILL)
    relay.wait()
    prometheus.wait_for(f'bore_up{{relay="{server_id}"}}', 0, 40)


@pytest.mark.limit(60)
def test_promtool_finds_nothing_to_complain_of(start_relay, start_exporter, start_filler, open_tunnel, server_id):
    if reason := metrics.missing("promtool"):
        pytest.skip(reason)
    relay = start_relay("--server-id", server_id)
    move(open_tunnel(relay), 1000, 1000)
    packets = start_filler("--tunnels", 3, "--workers", 2, "--packet-workers", 2, "--nics", 1)
    for exporter in (start_exporter("--relay", server_id, "--tunnel-series", "all"),
                     start_exporter("--segment-directory", packets, "--tunnel-series", "top:1")):
        done = metrics.promtool("check", "metrics", text=exporter.scrape().text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What alerts and dashboards name

def expressions():
    """(where, expression) of every alert and every panel."""
    rules = (MONITORING / "bore-alerts.yml").read_text(encoding="utf-8")
    for block in rules.split("- alert: ")[1:]:
        expression = re.search(r"expr: (.*?)\n\s+for:", block, re.DOTALL).group(1)
        yield f"alert {block.split()[0]}", expression
    for path in sorted((MONITORING / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
            for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]:
                if variable["type"] == "query":
                    yield f"{path.stem}: variable {variable['name']}", variable["definition"]


def test_every_metric_of_alerts_and_dashboards_is_in_a_live_scrape(
        start_relay, start_exporter, start_filler, open_tunnel, server_id):
    relay = start_relay("--server-id", server_id)
    move(open_tunnel(relay), 1000, 1000)
    live = start_exporter("--relay", server_id).scrape().families
    # What only a packet engine has comes from a segment of its shape, written by the relay's code.
    packets = start_filler("--tunnels", 1, "--workers", 1, "--packet-workers", 1, "--nics", 1)
    with_packets = start_exporter("--segment-directory", packets).scrape().families
    found = list(expressions())
    assert len(found) > 80
    named = set()
    for where, expression in found:
        names = metrics.names_in(expression)
        named |= names
        known = live | with_packets if "Packet engine" in where else live
        assert names <= known, f"{where} names {sorted(names - known)}, which no scrape has"
    assert len(named) > 50


def test_labels_that_expressions_select_exist(start_relay, start_exporter, server_id):
    """A misspelt reason would select nothing for ever, and no alert would say so."""
    start_relay("--server-id", server_id)
    scrape = start_exporter("--relay", server_id).scrape()
    for where, expression in expressions():
        for name, value in re.findall(r'(bore_\w+)\{[^}]*reason="(\w+)"', expression):
            assert scrape.values(name, reason=value), f"{where}: {name} has no reason {value}"
        for name, values in re.findall(r'(bore_\w+)\{[^}]*reason=~"([\w|]+)"', expression):
            for value in values.split("|"):
                assert scrape.values(name, reason=value), f"{where}: {name} has no reason {value}"


# Relays that come, go and die

@pytest.mark.limit(60)
def test_health_follows_a_relay_through_death_and_return(start_relay, start_exporter, open_tunnel, server_id):
    exporter = start_exporter("--relay", server_id)
    status, health = exporter.health()
    assert status == 503 and health["status"] == "failing"
    assert "does not exist" in health["relays"][0]["reason"]
    assert exporter.scrape().one("bore_up", relay=server_id) == 0

    relay = start_relay("--server-id", server_id, check_stop=False)
    assert exporter.health() == (200, {"status": "ok", "relays": [{"relay": server_id, "up": True}]})
    move(open_tunnel(relay), 4000, 0)
    before = exporter.scrape()
    assert before.one("bore_up", relay=server_id) == 1
    assert before.total("bore_tunnel_bytes_total", to="client") == 4000

    relay.signal(signal.SIGKILL)
    relay.wait()
    status, health = exporter.health()
    assert status == 503 and "has ended" in health["relays"][0]["reason"]
    dead = exporter.scrape()
    assert dead.one("bore_up", relay=server_id) == 0
    assert dead.one("bore_stale_seconds", relay=server_id) > 0
    assert not dead.values("bore_tunnels_live")

    start_relay("--server-id", server_id)
    assert exporter.health()[0] == 200
    after = exporter.scrape()
    assert after.one("bore_up", relay=server_id) == 1
    assert after.total("bore_copied_bytes_total") == 0
    assert after.one("bore_relay_start_time_seconds") > before.one("bore_relay_start_time_seconds")
    exporter.stop()


@pytest.mark.limit(60)
def test_a_relay_that_stands_still_is_stale(start_relay, start_exporter, server_id):
    relay = start_relay("--server-id", server_id)
    exporter = start_exporter("--relay", server_id)
    relay.signal(signal.SIGSTOP)
    try:
        traffic.eventually(lambda: exporter.health()[0] == 503, 20)
        assert "stands still" in exporter.health()[1]["relays"][0]["reason"]
        scrape = exporter.scrape()
        assert scrape.one("bore_stale_seconds") > 2
        assert scrape.one("bore_loop_age_seconds", loop="control") > 2
        assert scrape.values("bore_tunnels_live")  # it lives
    finally:
        relay.signal(signal.SIGCONT)
    traffic.eventually(lambda: exporter.health()[0] == 200, 20)


def test_several_relays_in_one_exporter(start_relay, start_exporter, open_tunnel, server_id):
    one, two = f"{server_id}-1", f"{server_id}-2"
    first = start_relay("--server-id", one)
    second = start_relay("--server-id", two, "--control-port", 7999)
    move(open_tunnel(first), 100, 0)
    move(open_tunnel(second), 2000, 0)
    exporter = start_exporter("--relay", one, "--relay", f"/dev/shm/bore-{two}")
    scrape = exporter.scrape()
    assert scrape.total("bore_tunnel_bytes_total", relay=one) == 100
    assert scrape.total("bore_tunnel_bytes_total", relay=two) == 2000
    assert scrape.one("bore_relay_info", relay=two, control_port="7999") == 1
    assert scrape.one("bore_exporter_relays") == 2
    assert exporter.health()[0] == 200


def test_all_segments_of_a_folder_are_followed(start_exporter, start_filler):
    folder = start_filler("--tunnels", 1, "--workers", 1, server_id="a")
    exporter = start_exporter("--segment-directory", folder)
    assert {dict(labels)["relay"] for name, labels in exporter.scrape().samples if name == "bore_up"} == {"a"}
    start_filler("--tunnels", 1, "--workers", 1, server_id="b")
    assert {dict(labels)["relay"] for name, labels in exporter.scrape().samples if name == "bore_up"} == {"a", "b"}
    (folder / "bore-a").unlink()
    scrape = exporter.scrape()
    assert {dict(labels)["relay"] for name, labels in scrape.samples if name == "bore_up"} == {"b"}
    (folder / "bore-b").unlink()
    status, health = exporter.health()
    assert status == 503 and str(folder) in health["reason"]


def left_out(scrape):
    return {reason: scrape.one("bore_exporter_segments_left_out", reason=reason) for reason in ("limit", "owner")}


def followed(scrape):
    return {dict(labels)["relay"] for name, labels in scrape.samples if name == "bore_up"}


def test_more_relays_than_are_followed(start_exporter, start_filler):
    folder = start_filler("--tunnels", 1, "--workers", 1, server_id="good")
    for number in range(200):
        (folder / f"bore-more{number:03}").write_bytes(b"no segment, and in the way")
    exporter = start_exporter("--segment-directory", folder, "--max-relays", "4")
    scrape = exporter.scrape()
    assert followed(scrape) == {"good", "more000", "more001", "more002"}
    assert left_out(scrape) == {"limit": 197, "owner": 0}
    start_filler("--tunnels", 1, "--workers", 1, server_id="a-new-one")
    assert "good" in followed(exporter.scrape()), "those that are followed stay"
    (folder / "bore-more001").unlink()
    assert followed(exporter.scrape()) == {"a-new-one", "good", "more000", "more002"}
    assert exporter.log().count("are left out: max-relays = 4") == 1, "once, not at every scrape"
    exporter.stop()


def test_files_of_strangers_are_no_relays(start_exporter, start_filler):
    if os.geteuid() != 0:
        pytest.skip("a second user needs root")
    folder = start_filler("--tunnels", 1, "--workers", 1, server_id="good")
    stranger = start_filler("--tunnels", 1, "--workers", 1, server_id="stranger") / "bore-stranger"
    os.chown(stranger, 64001, 64001)
    exporter = start_exporter("--segment-directory", folder)
    scrape = exporter.scrape()
    assert followed(scrape) == {"good"} and left_out(scrape) == {"limit": 0, "owner": 1}
    assert exporter.health()[0] == 200, "it is nobody's relay that is down"
    assert exporter.log().count("named like segments and belong neither to root") == 1
    # By its name it is looked at and not believed, by its path it is.
    named = start_exporter("--segment-directory", folder, "--relay", "stranger")
    assert named.scrape().one("bore_up", relay="stranger") == 0
    assert "belongs to uid 64001" in named.health()[1]["relays"][0]["reason"]
    by_path = start_exporter("--relay", stranger).scrape()
    assert by_path.one("bore_up", relay="stranger") == 1
    assert by_path.one("bore_relay_info", relay="stranger", user="64001") == 1


# Tunnels' series

def test_tunnel_series(start_relay, start_exporter, open_tunnel, server_id):
    relay = start_relay("--server-id", server_id)
    everything = start_exporter("--relay", server_id, "--tunnel-series", "all")
    busiest = start_exporter("--relay", server_id, "--tunnel-series", "top:1")
    nobody = start_exporter("--relay", server_id, "--tunnel-series", "none")
    tunnels = [open_tunnel(relay) for _ in range(3)]
    for exporter in (everything, busiest, nobody):
        exporter.scrape()  # from here on the others are counted
    for number, tunnel in enumerate(tunnels):
        move(tunnel, 1000 * (number + 1), 0)
    ports = {str(tunnel.port) for tunnel in tunnels}

    def by_port(exporter):
        scrape = exporter.scrape()
        return {dict(labels)["port"]: value for (name, labels), value in scrape.samples.items()
                if name == "bore_tunnel_bytes_total" and ("to", "client") in labels}

    assert set(by_port(everything)) == ports | {"other"}
    assert by_port(everything)["other"] == 0
    assert set(by_port(nobody)) == {"other"}
    assert by_port(nobody)["other"] == 6000
    by_port(busiest)  # the third takes the place of the first
    shown = by_port(busiest)
    assert shown[str(tunnels[2].port)] == 3000 and len(shown) == 2
    assert busiest.scrape().one("bore_tunnels_in_other") == 2


# Segments that are none

@pytest.mark.parametrize("damage, words", [
    (lambda whole: whole[:100], "is"),
    (lambda whole: whole[:len(whole) // 2], "cut short"),
    (lambda whole: os.urandom(len(whole)), "not a relay's statistics"),
    (lambda whole: b"", "is"),
    (lambda whole: whole[:12] + struct.pack("<I", 77) + whole[16:], "version 77"),
    (lambda whole: whole[:8] + whole[8:12][::-1] + whole[12:], "byte order"),
], ids=["header cut", "half", "noise", "empty", "version", "byte order"])
def test_a_damaged_segment_is_a_sentence(start_exporter, start_filler, damage, words):
    folder = start_filler("--tunnels", 2, "--workers", 1, server_id="good")
    (folder / "bore-bad").write_bytes(damage((folder / "bore-good").read_bytes()))
    exporter = start_exporter("--segment-directory", folder)
    scrape = exporter.scrape()
    assert scrape.one("bore_up", relay="bad") == 0
    assert scrape.one("bore_up", relay="good") == 1
    assert scrape.one("bore_segment_errors_total", relay="bad") >= 1
    status, health = exporter.health()
    reasons = {relay["relay"]: relay.get("reason", "") for relay in health["relays"]}
    assert status == 503 and words in reasons["bad"] and reasons["good"] == ""
    assert len(re.findall("warn.*relay bad", exporter.log())) == 1, "once, not at every scrape"
    exporter.stop()


def test_noise_in_the_blocks_leaves_a_scrape_that_prometheus_takes(start_exporter, start_filler):
    folder = start_filler("--tunnels", 2, "--workers", 1, server_id="good")
    whole = (folder / "bore-good").read_bytes()
    for number in range(8):
        (folder / f"bore-noise{number}").write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    exporter = start_exporter("--segment-directory", folder)
    text = exporter.scrape().text
    if not metrics.missing("promtool"):
        done = metrics.promtool("check", "metrics", text=text)
        assert (done.returncode, done.stderr) == (0, "")
    exporter.stop()


# HTTP

def test_http(start_exporter, start_filler):
    folder = start_filler("--tunnels", 1, "--workers", 1)
    exporter = start_exporter("--segment-directory", folder, listen=("127.0.0.1:0", "[::1]:0"))
    for address in (0, 1):
        status, headers, text = exporter.ask("/metrics?x=1", address=address)
        assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert int(headers["Content-Length"]) == len(text.encode())
        assert "bore_up" in text
    status, headers, text = exporter.ask("/metrics", "HEAD")
    assert status == 200 and text == "" and int(headers["Content-Length"]) > 1000
    assert exporter.ask("/nothing")[0] == 404
    status, headers, _ = exporter.ask("/metrics", "DELETE")
    assert status == 405 and headers["Allow"] == "GET, HEAD"
    assert exporter.ask("/")[0] == 200
    assert exporter.ask("/health")[1]["Content-Type"] == "application/json"
    exporter.stop()


@pytest.mark.parametrize("request_bytes", [
    b"\x00\xff\x16\x03\x01 no HTTP at all\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000,
    b"GET /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 1000,
], ids=["junk", "long header", "body"])
def test_junk_ends_the_connection_and_nothing_else(start_exporter, start_filler, request_bytes):
    folder = start_filler("--tunnels", 1, "--workers", 1)
    exporter = start_exporter("--segment-directory", folder)
    with socket.create_connection(exporter.addresses[0], 10) as sock:
        try:
            sock.sendall(request_bytes)
            while sock.recv(65_536):
                pass
        except ConnectionError:
            pass
    assert exporter.health()[0] == 200
    exporter.stop()


def test_too_many_connections_do_not_stop_it(start_exporter, start_filler, keep):
    folder = start_filler("--tunnels", 1, "--workers", 1)
    exporter = start_exporter("--segment-directory", folder)
    idle = keep(*(socket.create_connection(exporter.addresses[0], 10) for _ in range(40)))
    # The 33rd and later ones are closed at once.
    assert [sock.recv(1) for sock in idle[35:]] == [b""] * 5
    for sock in idle:
        sock.close()

    def serves_again():
        try:
            return exporter.health()[0] == 200
        except ConnectionError:  # it has not yet seen that the others left
            return False

    traffic.eventually(serves_again, 10)


# Starting

def test_everything_wrong_is_said_at_once(exporter_program):
    done = subprocess.run([exporter_program, "--listen", "localhost:1", "--listen", "::1:7836", "--tunnel-series", "top:0",
                           "--link-mbit", "0", "--relay", "a", "--relay", "/x/bore-a"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert "5 errors, nothing was started" in done.stderr
    for words in ("listen=localhost:1: must be an IP address", "listen=::1:7836", "in brackets",
                  "tunnel-series=top:0: must be all, none or top:N", "link-mbit", "relay=/x/bore-a: has the name"):
        assert words in done.stderr


def test_a_port_in_use_is_a_sentence(exporter_program, start_exporter, tmp_path):
    exporter = start_exporter("--segment-directory", tmp_path)
    host, port = exporter.addresses[0]
    done = subprocess.run([exporter_program, "--listen", f"{host}:{port}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"listen={host}:{port}: cannot listen there (Address already in use)" in done.stderr


def test_help_and_version(exporter_program):
    shown = subprocess.run([exporter_program, "--help"], capture_output=True, text=True, check=True)
    for option in ("--listen", "--relay", "--max-relays", "--segment-directory", "--link-mbit", "--tunnel-series", "--log-level"):
        assert option in shown.stdout
    assert re.fullmatch(r"bore-exporter \d+\.\d+\.\d+\n",
                        subprocess.run([exporter_program, "--version"], capture_output=True, text=True, check=True).stdout)
