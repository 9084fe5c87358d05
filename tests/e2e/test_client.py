"""`bore`, the tunnel client: against our relay and against the Rust one, 0.6.0."""
import re
import signal
import socket
import subprocess
import time

import pytest

from harness import programs, protocol, site, traffic
from harness.programs import RustRelay

SECRET = "abc"
MIB = 1 << 20


@pytest.fixture
def service(cleanup):
    return cleanup.enter_context(traffic.LocalService(traffic.echo))


def named_service(cleanup, name, **keywords):
    """A local service which says its name and closes."""
    return cleanup.enter_context(traffic.LocalService(lambda sock: sock.sendall(name), **keywords))


def check_echo(port, size=200_000, host=None):
    with protocol.connect((host or site.relay(), port)) as visitor:
        sending = traffic.Background(traffic.send, visitor, size)
        assert traffic.receive_digest(visitor) == (size, traffic.digest(size))
        sending.result()


def visit(port, host=None):
    with protocol.connect((host or site.relay(), port)) as visitor:
        return traffic.receive_all(visitor)


def serves(port, seconds=15, host=None):
    """Waits until the public port is there again. Its address was printed once and has not changed."""
    def answers():
        try:
            check_echo(port, 1000, host)
            return True
        except (OSError, AssertionError):
            return False

    traffic.eventually(answers, seconds, f"public port {port} serves again")


# Ways to start it

def test_stdout_has_the_address_and_nothing_else(relay, start_client, service):
    client = start_client("local", service.port, "--to", site.relay())
    port = client.public_port()
    assert re.fullmatch(rf"listening at {re.escape(site.relay())}:{port}\n", client.output())
    check_echo(port)


@pytest.mark.parametrize("words, environment", [
    (["local", "{port}", "--to", "{relay}"], {}), (["{port}", "--to", "{relay}"], {}),
    (["{port}", "-t", "{relay}", "-p", "23456", "-l", "127.0.0.1"], {}), (["local", "{port}"], {"BORE_SERVER": "{relay}"}),
    (["local", "--to", "{relay}"], {"BORE_LOCAL_PORT": "{port}"}), (["{port}", "--to={name}"], {})])
def test_every_spelling(relay, start_client, service, words, environment):
    def fill(text):
        name = site.relay() if site.current.cabled else "localhost"
        return text.format(port=service.port, relay=site.relay(), name=name)

    client = start_client(*map(fill, words), environment={name: fill(text) for name, text in environment.items()})
    port = client.public_port()
    assert port == 23456 or "-p" not in words
    check_echo(port)


@pytest.mark.parametrize("where", [("--secret", SECRET), ("-s", SECRET), {"BORE_SECRET": SECRET}], ids=["long", "short", "env"])
def test_secret_from_everywhere(start_relay, start_client, service, where):
    start_relay("--secret", SECRET)
    words, environment = ((), where) if isinstance(where, dict) else (where, {})
    check_echo(start_client(service.port, "--to", site.relay(), *words, environment=environment).public_port())


@pytest.mark.parametrize("secret", ["", SECRET], ids=["empty", "abc"])
@pytest.mark.parametrize("relay_dialect", ["auto", "upstream", "fork"])
@pytest.mark.parametrize("client_dialect", ["auto", "upstream", "fork"])
def test_dialects_with_a_secret(start_relay, start_client, service, relay_dialect, client_dialect, secret):
    start_relay("--secret", secret, "--auth-dialect", relay_dialect)
    if {relay_dialect, client_dialect} == {"upstream", "fork"}:
        # Each was told to speak the other's language: the client fails and says which word to leave out.
        client = start_client("3000", "--to", site.relay(), "--secret", secret, "--auth-dialect", client_dialect, "--no-reconnect")
        assert "--auth-dialect" in failure(client, 15)
        return
    client = start_client(service.port, "--to", site.relay(), "--secret", secret, "--auth-dialect", client_dialect)
    for _ in range(3):
        check_echo(client.public_port())


@pytest.mark.parametrize("client_dialect", ["auto", "upstream", "fork"])
def test_dialects_on_an_open_relay(relay, start_client, service, client_dialect):
    check_echo(start_client(service.port, "--to", site.relay(), "--auth-dialect", client_dialect).public_port())


def test_token_on_an_open_relay(relay, start_client, service):
    check_echo(start_client(service.port, "--to", site.relay(), "--secret", "tk_" + "1" * 64, "--auth-dialect", "fork").public_port())


def test_other_control_port(start_relay, start_client, service):
    start_relay("--control-port", "17835")
    check_echo(start_client(service.port, "--to", site.relay(), "--control-port", "17835").public_port())
    check_echo(start_client(service.port, "--to", site.relay(), environment={"BORE_CONTROL_PORT": "17835"}).public_port())


def test_ipv6(start_relay, start_client, cleanup):
    start_relay("--bind-addr", site.relay6())
    service = named_service(cleanup, b"six", host="127.0.0.9")
    client = start_client(service.port, "--to", site.relay6(), "--local-host", "127.0.0.9")
    port = client.public_port()
    assert client.output() == f"listening at [{site.relay6()}]:{port}\n"
    assert visit(port, site.relay6()) == b"six"


@pytest.mark.smoke
def test_several_local_ports(relay, start_client, cleanup):
    services = [named_service(cleanup, b"service %d" % number) for number in range(3)]
    client = start_client(*(service.port for service in services), "--to", site.relay())
    ports = client.public_ports(3)
    assert len(set(ports)) == 3
    assert {visit(port) for port in ports} == {b"service 0", b"service 1", b"service 2"}


def test_fixed_public_port(relay, start_client, service):
    assert start_client(service.port, "--to", site.relay(), "--port", "23456").public_port() == 23456


# What is wrong, in plain words

def failure(client, seconds=8):
    status = client.wait(seconds)
    assert status == 1, f"status {status}\n{client.tail()}"
    assert "listening at" not in client.output()
    return client.errors()


def test_relay_not_reachable(start_client):
    text = failure(start_client("3000", "--to", site.relay(), "--no-reconnect"))
    assert f"{site.relay()}:7835" in text and "refused" in text.lower()


def test_relay_name_unknown(start_client):
    text = failure(start_client("3000", "--to", "no-such-host.invalid", "--no-reconnect"), 20)
    assert "no-such-host.invalid" in text


@pytest.mark.parametrize("dialect", ["auto", "upstream", "fork"])
def test_wrong_secret(start_relay, start_client, dialect):
    start_relay("--secret", SECRET)
    text = failure(start_client("3000", "--to", site.relay(), "--secret", "wrong", "--no-reconnect", "--auth-dialect", dialect))
    assert "invalid secret" in text and "--secret" in text


def test_missing_secret(start_relay, start_client):
    start_relay("--secret", SECRET)
    assert "--secret" in failure(start_client("3000", "--to", site.relay(), "--no-reconnect"))


def test_needless_secret(relay, start_client):
    text = failure(start_client("3000", "--to", site.relay(), "--secret", SECRET, "--no-reconnect"))
    assert "secret" in text


def test_port_taken(relay, start_client, open_tunnel):
    taken = open_tunnel(relay).port
    text = failure(start_client("3000", "--to", site.relay(), "--port", taken, "--no-reconnect"))
    assert str(taken) in text and "port already in use" in text


def test_port_not_allowed(start_relay, start_client):
    start_relay("--min-port", "20000")
    text = failure(start_client("3000", "--to", site.relay(), "--port", "1500", "--no-reconnect"))
    assert "1500" in text and "client port number not in allowed range" in text


def test_not_a_bore_relay(start_client, cleanup):
    impostor = cleanup.enter_context(traffic.LocalService(lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), port=7835))
    text = failure(start_client("3000", "--to", site.relay(), "--no-reconnect"))
    assert "127.0.0.1:7835" in text and not impostor.errors


def test_local_service_down(relay, start_client, cleanup):
    with socket.create_server(("127.0.0.1", 0)) as free:
        local_port = free.getsockname()[1]
    client = start_client(local_port, "--to", site.relay())
    port = client.public_port()
    with protocol.connect((site.relay(), port)) as visitor:
        assert visitor.recv(1) == b""
    client.wait_for_log(rf"{local_port}.*(?i:refused)")
    # As soon as the service is there, visitors reach it.
    named_service(cleanup, b"up", port=local_port)
    assert visit(port) == b"up"


# Reconnecting

@pytest.mark.smoke
def test_reconnects_and_gets_its_port_back(start_relay, start_client, service):
    first = start_relay(check_stop=False)
    client = start_client(service.port, "--to", site.relay())
    port = client.public_port()
    first.signal(signal.SIGKILL)
    first.wait()
    time.sleep(1.5)
    assert client.running()
    start_relay()
    serves(port)
    assert client.output() == f"listening at {site.relay()}:{port}\n"


def test_reconnects_after_an_orderly_stop(start_relay, start_client, service):
    first = start_relay(check_stop=False)
    client = start_client(service.port, "--to", site.relay())
    port = client.public_port()
    first.stop()
    start_relay()
    serves(port)
    assert client.output() == f"listening at {site.relay()}:{port}\n"


def test_waits_for_a_relay_that_comes_later(start_relay, start_client, service):
    client = start_client(service.port, "--to", site.relay())
    client.wait_for_log(f"{site.relay()}:7835")
    start_relay()
    check_echo(client.public_port(15))


@pytest.mark.parametrize("stop", ["kill", "term"])
def test_no_reconnect_ends_with_the_relay(start_relay, start_client, stop):
    relay = start_relay(check_stop=False)
    client = start_client("3000", "--to", site.relay(), "--no-reconnect")
    client.public_port()
    relay.signal(signal.SIGKILL if stop == "kill" else signal.SIGTERM)
    relay.wait()
    if stop == "kill" and site.packets():  # its addresses are gone with it: nobody sends a FIN, silence has to do
        assert client.wait(15) == 1
    else:
        assert client.wait(3) == 0  # as the Rust client


@pytest.mark.needs_namespace
@pytest.mark.limit(90)
def test_a_dead_relay_is_noticed_and_the_tunnel_comes_back(start_relay, start_client, cleanup):
    """The cable is out for a while: neither side gets a FIN. The port is free in time for its owner."""
    start_relay("--client-dead-timeout-ms", "4000")
    other = site.other_namespace()
    cleanup.callback(other.close)
    with other.inside():
        service = cleanup.enter_context(traffic.LocalService(traffic.echo))
        client = start_client(service.port, "--to", other.HERE)
    port = client.public_port()
    check_echo(port)
    time.sleep(3)
    other.pull_cable()
    time.sleep(12)
    other.plug_cable()
    serves(port, 40)


# Endings

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_client_and_frees_the_port(relay, start_client, open_tunnel, number):
    client = start_client("3000", "--to", site.relay())
    port = client.public_port()
    start = time.monotonic()
    assert client.stop(number, 3) == 0
    assert time.monotonic() - start < 1
    open_tunnel(relay, port=port)


def test_descriptors_of_the_client_come_back(relay, start_client, service):
    client = start_client(service.port, "--to", site.relay())
    port = client.public_port()
    before = client.descriptors()
    for _ in range(5):
        visits = [traffic.Background(check_echo, port, 300_000) for _ in range(20)]
        for one in visits:
            one.result()

    def returned():
        left = client.descriptors() - before
        left.pop("pipe", None)
        assert not left, f"not given back: {dict(left)}"
        return True

    traffic.eventually(returned)


def test_a_client_without_a_reader_of_its_stdout_lives_on(relay, driver, client_program, service, cleanup):
    """A script takes the first line and goes away."""
    with subprocess.Popen([client_program, str(service.port), "--to", site.relay(), "--stream-driver", site.stream_driver(driver)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=programs.clean_environment()) as child:
        cleanup.callback(child.kill)
        port = int(child.stdout.readline().decode().rpartition(":")[2])
        child.stdout.close()
        check_echo(port)
        assert child.poll() is None
        child.terminate()
        assert child.wait(5) == 0


# The Rust relay

@pytest.fixture
def rust_relay(rust_060, cleanup):
    def start(*arguments):
        relay = RustRelay(rust_060, arguments)
        cleanup.callback(relay.kill)
        return relay

    return start


@pytest.mark.parametrize("secret", [None, SECRET, ""], ids=["open", "secret", "empty"])
@pytest.mark.parametrize("dialect", ["auto", "upstream"])
def test_on_the_rust_relay(rust_relay, start_client, service, secret, dialect):
    words = [] if secret is None else ["--secret", secret]
    rust_relay(*words)
    client = start_client(service.port, "--to", "127.0.0.1", "--auth-dialect", dialect, *words)
    port = client.public_port()
    for _ in range(5):
        check_echo(port)
    check_echo(port, 8 * MIB)


@pytest.mark.parametrize("words", [["--secret", "wrong"], []], ids=["wrong", "missing"])
def test_wrong_secret_on_the_rust_relay(rust_relay, start_client, words):
    rust_relay("--secret", SECRET)
    assert "secret" in failure(start_client("3000", "--to", "127.0.0.1", "--no-reconnect", *words), 15)


def test_reconnects_to_the_rust_relay(rust_relay, start_client, service):
    first = rust_relay()
    client = start_client(service.port, "--to", "127.0.0.1")
    port = client.public_port()
    first.kill()
    time.sleep(0.5)
    rust_relay()
    serves(port)
    assert client.output() == f"listening at 127.0.0.1:{port}\n"
