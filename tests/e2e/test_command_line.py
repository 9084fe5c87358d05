"""What an operator writes: command line, environment, file; and what an operator who is wrong reads."""
import pathlib
import re
import socket
import subprocess
import tomllib

import pytest

from harness import programs

pytestmark = pytest.mark.driverless


@pytest.fixture
def run(server_program):
    """run("--check-config", ..., environment={...}): the finished process."""

    def start(*arguments, environment=None, program=None):
        return subprocess.run([program or server_program, *(str(word) for word in arguments)], capture_output=True, text=True,
                              env=programs.clean_environment(environment), timeout=20, check=False)

    return start


@pytest.fixture
def printed(run):
    """The configuration the relay would run with, as it prints it."""

    def load(*arguments, environment=None):
        done = run(*arguments, "--print-config", environment=environment)
        assert done.returncode == 0, done.stderr
        return tomllib.loads(done.stdout)

    return load


# Spellings

@pytest.mark.parametrize("arguments", [
    ("server", "--min-port", "10000", "--max-port", "20000", "--secret", "abc"),
    ("--min-port", "10000", "--max-port", "20000", "-s", "abc"),
    ("--port-range", "10000:20000", "--secret", "abc"),
    ("--port-range=10000:20000", "--min-port=10000", "--secret=abc"),
    ("server", "--port-range", "10000:20000", "--bind-addr", "0.0.0.0", "--bind-tunnels", "127.0.0.1", "--server-id", "default"),
], ids=["upstream", "fork", "guide", "agreeing", "mixture"])
def test_every_spelling_starts_a_relay(start_relay, open_tunnel, arguments):
    relay = start_relay(*arguments)
    secret = "abc" if "abc" in " ".join(arguments) else None
    assert 10000 <= open_tunnel(relay, secret=secret).port <= 20000


@pytest.mark.parametrize("environment", [
    {"BORE_MIN_PORT": "10000", "BORE_MAX_PORT": "10010", "BORE_SECRET": "abc"},
    {"MIN_PORT": "10000", "MAX_PORT": "10010", "BORE_SECRET": "abc", "BIND_ADDR": "127.0.0.1", "BIND_TUNNELS": "0.0.0.0", "SERVER_ID": "x"}])
def test_environment(start_relay, open_tunnel, environment):
    relay = start_relay(environment=environment)
    assert 10000 <= open_tunnel(relay, secret="abc").port <= 10010


def test_flags_win_over_environment_and_that_over_the_file(printed, tmp_path):
    file = tmp_path / "bore.toml"
    file.write_text("min_port = 3001\nmax_port = 4001\nheartbeat_interval_ms = 700\n")
    config = printed("--config", file, "--min-port", "3003", environment={"BORE_MIN_PORT": "3002", "BORE_MAX_PORT": "4002"})
    assert (config["min_port"], config["max_port"], config["heartbeat_interval_ms"]) == (3003, 4002, 700)


def test_secret_file(start_relay, open_tunnel, tmp_path):
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    open_tunnel(start_relay("--secret-file", file), secret="from a file")


def test_printed_configuration_can_be_fed_back(run, printed, tmp_path):
    first = run("--port-range", "10000:20000", "--deny-clients", "10.0.0.0/8", "--secret", "not for the eye", "--print-config")
    assert first.returncode == 0 and "not for the eye" not in first.stdout
    file = tmp_path / "again.toml"
    file.write_text(first.stdout)
    again = printed("--config", file)
    assert again["min_port"] == 10000 and again["max_port"] == 20000 and again["deny_clients"] == ["10.0.0.0/8"]


def test_defaults_are_the_documented_ones(printed):
    config = printed()
    documented = {
        "min_port": 1024, "max_port": 65535, "control_port": 7835, "auth_dialect": "auto", "challenge_grace_ms": 100,
        "first_byte_timeout_ms": 3000, "handshake_timeout_ms": 10000, "heartbeat_interval_ms": 500,
        "client_dead_timeout_ms": 12000, "visitor_claim_timeout_ms": 10000, "max_tunnels": 16384,
        "max_tunnels_per_source": 1024, "max_unauthenticated": 4096, "max_unauthenticated_per_source": 128,
        "handshake_rate_per_source": 200, "max_pending_visitors": 1024, "max_visitors_per_tunnel": 50000,
        "tunnel_bandwidth_mbit": 0, "idle_timeout_s": 0, "half_closed_timeout_s": 3600, "drain_timeout_s": 30}
    assert {name: config.get(name) for name in documented} == documented


def test_help_teaches_and_version_tells(run):
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    for name in ("--min-port", "--port-range", "--secret", "--auth-dialect", "--max-tunnels", "--config", "--check-config",
                 "BORE_SECRET", "7835", "10000:20000"):
        assert name in done.stdout, f"{name} is missing from --help"
    assert max(map(len, done.stdout.splitlines())) <= 100
    done = run("--version")
    assert done.returncode == 0 and re.match(r"bore-server \d+\.\d+", done.stdout)


# Errors

def test_all_errors_at_once_each_with_value_rule_and_remedy(run):
    done = run("--min-port", "70000", "--challenge-grace-ms", "5000", "--bind-addr", "nonsense", "--auth-dialect", "both",
               "--deny-clients", "10.0.0.1/8", "--idle-timeout-s=-1", "--frobnicate",
               environment={"BORE_MAX_PORT": "many", "BORE_SECRET": "s"})
    assert done.returncode == 2 and not done.stdout
    for value in ("70000", "5000", "nonsense", "both", "10.0.0.1/8", "-1", "--frobnicate", "many"):
        assert value in done.stderr, f"{value} is not reported\n{done.stderr}"
    assert done.stderr.count("\n") < 20


@pytest.mark.parametrize("arguments, words", [
    (("--min-port", "3000", "--max-port", "2000"), "port range is empty"),
    (("--port-range", "10000:20000", "--min-port", "9000"), "disagree"),
    (("--min-port", "0"), "min-port"), (("--port-range", "10000"), "port-range"),
    (("--backend-url", "http://backend"), "backend"), (("--backend-api-key", "k"), "backend"),
    (("--require-auth",), "secret"), (("--challenge-grace-ms", "1001"), "1000"),
    (("--client-dead-timeout-ms", "15001"), "15000"), (("--config", "/nonexistent.toml"), "/nonexistent.toml"),
    (("--secret-file", "/nonexistent"), "/nonexistent"), (("--stream-driver", "magic"), "magic"), (("local", "3000"), "local"),
    (("--max-tunnels",), "max-tunnels")])
def test_usage_errors_end_with_2(run, arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and not done.stdout, done
    assert done.stderr == run("--check-config", *arguments).stderr


def test_secrets_are_not_shown_in_errors(run):
    done = run("--secret", "hunter2hunter2", "--min-port", "0")
    assert done.returncode == 2 and "hunter2" not in done.stderr


def test_file_errors_name_file_and_line(run, tmp_path):
    file = tmp_path / "bore.toml"
    file.write_text('min_port = 1500\nmax_prot = 1600\nidle_timeout_s = "soon"\nmax_tunnels = 0\n')
    done = run("--config", file)
    assert done.returncode == 2
    for words in ("bore.toml:2", "max_prot", "bore.toml:3", "soon", "bore.toml:4", "max_tunnels"):
        assert words in done.stderr, done.stderr
    file.write_text("min_port = = 3\n")
    done = run("--config", file)
    assert done.returncode == 2 and "bore.toml:1" in done.stderr


def test_check_config_starts_nothing(run, tmp_path):
    file = tmp_path / "bore.toml"
    file.write_text("min_port = 2000\n")
    with socket.create_server(("0.0.0.0", 0)) as taken:
        done = run("--check-config", "--config", file, "--control-port", taken.getsockname()[1])
    assert done.returncode == 0, done.stderr
    assert run("--check-config", "--min-port", "0").returncode == 2


@pytest.mark.parametrize("name", ["REDIS_HOST", "INTERNAL_API_KEY", "BACKEND_URL"])
def test_an_open_relay_beside_backend_variables_must_be_meant(run, start_relay, open_tunnel, name):
    done = run("--check-config", environment={name: "value"})
    assert done.returncode == 2 and name in done.stderr
    open_tunnel(start_relay("--open", environment={name: "value"}))


def test_control_port_in_use_ends_with_1(run, cleanup):
    taken = socket.create_server(("0.0.0.0", 0))
    cleanup.callback(taken.close)
    port = taken.getsockname()[1]
    done = run("--control-port", port)
    assert done.returncode == 1 and str(port) in done.stderr + done.stdout and "in use" in (done.stderr + done.stdout).lower()


def test_address_of_another_machine_ends_with_1(run):
    done = run("--bind-addr", "192.0.2.1")
    assert done.returncode == 1 and "192.0.2.1" in done.stderr + done.stdout


def test_nothing_is_written_where_it_was_started(run, tmp_path):
    before = set(pathlib.Path(".").iterdir())
    run("--check-config")
    assert set(pathlib.Path(".").iterdir()) == before and not list(tmp_path.iterdir())


# The client's command line

@pytest.mark.parametrize("arguments, words", [
    ((), "port"), (("local",), "port"), (("3000",), "to"), (("local", "70000", "--to", "x"), "70000"),
    (("3000", "--to", "x", "--port", "70000"), "70000"), (("3000", "--to", "x", "--frobnicate"), "--frobnicate"),
    (("3000", "--to", "x", "--auth-dialect", "both"), "both")])
def test_client_usage_errors_end_with_2(run, client_program, arguments, words):
    done = run(*arguments, program=client_program)
    assert done.returncode == 2 and words in done.stderr and not done.stdout, done


def test_client_help_and_version(run, client_program):
    done = run("--help", program=client_program)
    assert done.returncode == 0
    for name in ("--to", "--port", "--secret", "--local-host", "--no-reconnect", "BORE_SERVER", "BORE_SECRET"):
        assert name in done.stdout, f"{name} is missing from --help"
    done = run("--version", program=client_program)
    assert done.returncode == 0 and re.match(r"bore \d+\.\d+", done.stdout)
