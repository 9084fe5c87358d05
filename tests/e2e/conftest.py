"""Options and fixtures of the end-to-end suite. Every test gets a private network namespace, a time
limit, and relays which are checked when they stop: exit status, sanitizer reports, descriptors."""
import contextlib
import os
import pathlib
import signal

import pytest

from harness import netns, peers, programs, protocol, sides, site, statistics

DRIVERS = ("io_uring", "epoll")
ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20


def pytest_addoption(parser):
    group = parser.getgroup("bore")
    group.addoption("--server", help="bore-server (default: the newest under build/)")
    group.addoption("--client", help="bore (default: the newest under build/)")
    group.addoption("--driver", choices=(*DRIVERS, "both", *site.CABLED_DRIVERS), default="both",
                    help="stream driver of relay and client (both: one after the other); packet, packet-xdp: the packet engine over "
                         "af_packet or af_xdp; veth: io_uring where the packet engine would stand")
    group.addoption("--quick", action="store_true", help="64 MiB instead of 1 GiB, 1,000 visitors instead of 5,000")
    group.addoption("--bulk-mib", type=int, help="size of a bulk transfer (default 1024, quick 64)")
    group.addoption("--dump", help="segment_dump (default: the newest under build/)")
    group.addoption("--wire", help="bore-wire (default: the newest under build/)")
    group.addoption("--ctl", help="borectl (default: the newest under build/)")
    group.addoption("--peers", default=str(peers.default_directory()), help="folder with bore-0.6.0 and bore-0.5.2")


def newest(name):
    found = sorted((ROOT / "build").glob(f"*/*/*/{name}"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else None


def pytest_configure(config):
    config.namespaces = True
    try:
        netns.enter_fresh()
    except PermissionError:
        try:
            netns.become_namespace_root()
            netns.enter_fresh()
        except OSError:
            config.namespaces = False
    config.descriptor_limit = programs.raise_descriptor_limit(131072)


def pytest_report_header(config):
    return [f"relay: {config.getoption('--server') or newest('bore-server')}",
            f"client: {config.getoption('--client') or newest('bore')}",
            f"namespaces: {'one per test' if config.namespaces else 'not permitted, tests share this machine'}; "
            f"descriptors: {config.descriptor_limit}; cores: {len(os.sched_getaffinity(0))}; kernel: {os.uname().release}"]


def pytest_generate_tests(metafunc):
    if "driver" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--driver")
        driverless = metafunc.definition.get_closest_marker("driverless")
        if driverless and not (driverless.kwargs.get("cabled") and chosen in site.CABLED_DRIVERS):
            names = ("auto",)
        else:
            names = DRIVERS if chosen == "both" else (chosen,)
        metafunc.parametrize("driver", names)


def pytest_collection_modifyitems(config, items):
    """What makes no sense under the chosen driver is skipped with its reason, and so counted."""
    chosen = config.getoption("--driver")
    for item in items:
        reason = None
        stream_only = item.get_closest_marker("stream_only")
        if item.get_closest_marker("driverless"):
            continue
        if item.get_closest_marker("packet"):
            dry = chosen == "veth" and not item.get_closest_marker("packet").kwargs.get("engine")
            if chosen not in site.PACKET_PORTS and not dry:
                reason = "for the packet engine: --driver packet"
        elif chosen in site.CABLED_DRIVERS and stream_only:
            reason = f"stream engine only: {stream_only.args[0]}"
        elif chosen in site.CABLED_DRIVERS and not {"start_relay", "slot"} & set(item.fixturenames):
            reason = "runs no relay of ours by the suite's driver"
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def time_limit(request):
    """SIGALRM interrupts whatever a test waits for; threads of a test are daemons and die with it."""
    marker = request.node.get_closest_marker("limit")
    seconds = marker.args[0] if marker else 30

    def expired(_number, _frame):
        pytest.fail(f"took longer than its limit of {seconds} s", pytrace=True)

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def network(request):
    driver = getattr(request.node, "callspec", None) and request.node.callspec.params.get("driver")
    cabled = driver in site.CABLED_DRIVERS
    if request.config.namespaces:
        netns.enter_fresh()
    elif cabled or request.node.get_closest_marker("needs_namespace"):
        pytest.skip("needs a network namespace of its own: run as root or permit user namespaces")
    if cabled and os.geteuid() != 0:
        pytest.skip("the packet engine's tests need root")
    site.current = site.make(driver)
    yield
    site.current.close()


@pytest.fixture(scope="session")
def quick(request):
    return request.config.getoption("--quick")


@pytest.fixture(scope="session")
def bulk_size(request, quick):
    return (request.config.getoption("--bulk-mib") or (64 if quick else 1024)) * MIB


@pytest.fixture(scope="session")
def server_program(request):
    path = request.config.getoption("--server") or newest("bore-server")
    assert path and os.access(path, os.X_OK), f"no bore-server at {path}: build it or name it by --server"
    return os.path.abspath(path)


@pytest.fixture(scope="session")
def client_program(request):
    path = request.config.getoption("--client") or newest("bore")
    assert path and os.access(path, os.X_OK), f"no bore at {path}: build it or name it by --client"
    return os.path.abspath(path)


@pytest.fixture(scope="session")
def exporter_program(server_program):
    """Of the same build as the relay: their tables of counters must be the same."""
    path = pathlib.Path(server_program).parents[1] / "exporter/bore-exporter"
    assert os.access(path, os.X_OK), f"no bore-exporter at {path}: build it beside bore-server"
    return str(path)


@pytest.fixture(scope="session")
def filler_program(server_program):
    path = pathlib.Path(server_program).parents[2] / "bench/exporter/bore-segment-filler"
    assert os.access(path, os.X_OK), f"no bore-segment-filler at {path}: build it beside bore-server"
    return str(path)


@pytest.fixture(scope="session")
def wire_program(request):
    path = request.config.getoption("--wire") or newest("bore-wire")
    assert path and os.access(path, os.X_OK), f"no bore-wire at {path}: build it or name it by --wire"
    return os.path.abspath(path)


@pytest.fixture(scope="session")
def ctl_program(request):
    path = request.config.getoption("--ctl") or newest("borectl")
    assert path and os.access(path, os.X_OK), f"no borectl at {path}: build it or name it by --ctl"
    return os.path.abspath(path)


@pytest.fixture(scope="session")
def dump_program(request):
    path = request.config.getoption("--dump") or newest("segment_dump")
    assert path and os.access(path, os.X_OK), f"no segment_dump at {path}: build it or name it by --dump"
    return os.path.abspath(path)


@pytest.fixture
def watch(dump_program, cleanup):
    """watch(relay or name): a reader of its statistics."""

    def start(relay):
        return cleanup.enter_context(statistics.Watcher(dump_program, getattr(relay, "server_id", relay)))

    return start


@pytest.fixture(scope="session", params=peers.VERSIONS)
def rust_client(request):
    path, missing = peers.find_or_install(request.config.getoption("--peers"), request.param)
    if missing:
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def rust_060(request):
    path, missing = peers.find_or_install(request.config.getoption("--peers"), "0.6.0")
    if missing:
        pytest.skip(missing)
    return path


@pytest.fixture
def relays():
    """Every relay of the test; stopped in order, after all sockets and clients of the test are closed."""
    started = []
    yield started
    try:
        for relay in reversed(started):
            if relay.check_stop:
                relay.stop()
    finally:
        for relay in started:
            relay.close()


@pytest.fixture
def cleanup(relays):  # pylint: disable=unused-argument
    """Closes what a test registers, last first, and before the relays stop."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def slot(driver, network):  # pylint: disable=unused-argument
    """Where a relay of the suite's driver may stand and what its engine needs, for a test that starts it by itself."""
    return site.current.free_slot()


@pytest.fixture
def start_relay(server_program, driver, relays, network):  # pylint: disable=unused-argument
    """start_relay("--secret", "abc", ...): a ready relay; check_stop=False where the test ends it itself."""

    def start(*arguments, check_stop=True, **keywords):
        # A busy machine's round trips may look long and unlike; tests of that rule name the path.
        if site.packets() and "--packet-path" not in arguments:
            arguments += ("--packet-path", "splice")
        relay = programs.Relay(server_program, site.current.free_slot(), arguments, **keywords)
        relay.check_stop = check_stop
        relays.append(relay)
        return relay

    return start


@pytest.fixture
def start_sides(request, driver, server_program, relays, network):  # pylint: disable=unused-argument
    """start_sides("--secret", ..., visitor_wire=("--loss", 1)): (sides, relay), a relay with two ports."""

    def start(*arguments, check_stop=True, visitor_wire=None, client_wire=None, mtus=(1500, 1500), **keywords):
        wired = visitor_wire is not None or client_wire is not None
        program = request.getfixturevalue("wire_program") if wired else None
        between = site.current.keep(sides.Sides(driver, program, visitor_wire, client_wire, mtus))
        if between.packets and "--packet-path" not in arguments:
            arguments += ("--packet-path", "splice")
        if "--bind-addr" not in arguments:
            arguments += ("--bind-addr", "0.0.0.0", "--bind-addr", "::")
        relay = programs.Relay(server_program, between.slot, arguments, **keywords)
        relay.check_stop = check_stop
        relays.append(relay)
        return between, relay

    return start


@pytest.fixture
def relay(start_relay):
    return start_relay()


@pytest.fixture
def start_client(request, driver, cleanup):
    """start_client("8080", "--to", "127.0.0.1"): our client, ended at the test's end."""

    def start(*arguments, program=None, **keywords):
        ours = program is None
        words = [str(word) for word in arguments]
        if ours:
            words = words + ["--stream-driver", site.stream_driver(driver)]
        client = programs.Client(program or request.getfixturevalue("client_program"), words, **keywords)
        cleanup.callback(client.kill)
        return client

    return start


@pytest.fixture
def open_tunnel(cleanup):
    """open_tunnel(relay, dialect="upstream", secret=None, token=None, port=0)."""

    def start(relay, dialect="upstream", **keywords):
        opener = {"upstream": protocol.open_upstream, "fork": protocol.open_fork}[dialect]
        tunnel = opener(relay.address, **keywords)
        cleanup.callback(tunnel.close)
        return tunnel

    return start


@pytest.fixture
def dial(cleanup):
    """dial(relay): a raw framed connection to the control port."""

    def start(relay, **keywords):
        framed = protocol.Framed(protocol.connect(relay.address, **keywords))
        cleanup.callback(framed.close)
        return framed

    return start


@pytest.fixture
def keep(cleanup):
    """keep(a, b): the same sockets, closed at the test's end at the latest."""

    def register(*sockets):
        for sock in sockets:
            sock.settimeout(60)
            cleanup.callback(sock.close)
        return sockets

    return register


@pytest.fixture
def open_sided(cleanup):
    """open_sided(sides, relay, family=4): a tunnel made of bytes, its client on the clients' side."""

    def start(sides, relay, family=4, **keywords):
        tunnel = sides.tunnel(relay, family, **keywords)
        cleanup.callback(tunnel.close)
        return tunnel

    return start


@pytest.fixture
def open_rust(cleanup, rust_060):
    """The same with the unmodified Rust client in front of a service."""

    def start(sides, relay, family=4):
        tunnel = sides.program_tunnel([rust_060], relay, family)
        cleanup.callback(tunnel.close)
        return tunnel

    return start
