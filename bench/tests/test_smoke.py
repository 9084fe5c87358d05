"""The whole of bore-bench with bore-load: direct, nginx and our relay on a short plan, targets that
refuse, stall and corrupt, a stop signal. No figure is expected to have a certain value."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest
from borebench import document, processes, relays

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BORE_BUILD", TOP / "build" / "release"))
COMMAND = [str(TOP / "bench" / "bore-bench")]
FILES = [
    "--server",
    str(BUILD / "controlplane/relay/bore-server"),
    "--client",
    str(BUILD / "controlplane/client/bore"),
    "--load",
    str(BUILD / "bench/load/bore-load"),
]
PROGRAMS = relays.Programs(FILES[1], FILES[3], FILES[5], "/nonexistent")


@pytest.fixture(scope="module", autouse=True)
def possible():
    missing = PROGRAMS.missing(["load", "server", "client"])
    if missing:
        pytest.skip(f"not built: {', '.join(missing)} (tools/build)")
    try:
        processes.Namespace().stop()
    except (OSError, RuntimeError) as error:
        pytest.skip(str(error))


def run(*words, timeout=300):
    done = subprocess.run(
        [*COMMAND, "run", *map(str, words), *FILES],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done


def test_a_short_plan_has_figures_of_every_target(tmp_path):
    targets = ["direct", "ours+bore", "ours+plain"]
    if not PROGRAMS.missing(["nginx", "nginx-stream"]):
        targets += ["nginx", "nginx:default"]
    done = run(
        "--quick",
        "--seconds",
        1,
        "--scenarios",
        "bulk,rr,idle,halfclose",
        "--directions",
        "down",
        "--connections",
        2,
        "--pairs",
        20,
        "--verify",
        "--targets",
        ",".join(targets),
        "--output",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = document.load(tmp_path / "result.json")
    assert result["status"] == "complete" and not document.failures(result)
    for target in targets:
        (bulk,) = document.samples(result, "bulk-down-1", target)
        assert bulk["metrics"]["gbit_per_s"] > 0 and bulk["loads"][0]["verified"]
        assert ("cpu_s_per_gb" in bulk["metrics"]) == (target != "direct")
        (requests,) = document.samples(result, "rr-64-2", target)
        assert 0 < requests["metrics"]["p50_us"] <= requests["metrics"]["max_us"]
        assert len(requests["loads"][0]["curve_us"]) > 1
    ours = {
        name: document.values(result, "halfclose", name, "answers_lost_percent") for name in targets
    }
    assert ours["direct"] == ours["ours+bore"] == ours["ours+plain"] == [0]
    if "nginx:default" in ours:
        assert ours["nginx:default"][0] > 0 and ours["nginx"] == [0]
    assert document.values(result, "idle-20", "ours+bore", "rss_bytes_per_pair")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<svg") >= 3 and "ours+plain" in page
    assert "direct" in done.stdout and "Gbit/s" in done.stdout
    if "nginx" not in targets:
        pytest.skip("all but nginx passed: it is not installed (tools/peers --only debian)")


class Server:
    """Something else than the service: `answer(connection)` in a thread for each connection."""

    def __init__(self, answer):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.answer = answer
        self.kept = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.kept.append(connection)
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def close(self):
        self.socket.close()
        for connection in self.kept:
            connection.close()


def rubbish(connection):
    """Answers with the bytes that nobody asked for."""
    try:
        connection.recv(4096)
        connection.sendall(b"\xee" * 65536)
    except OSError:
        pass


def test_a_target_that_corrupts_is_reported_with_counts(tmp_path):
    server = Server(rubbish)
    try:
        done = run(
            "--quick",
            "--target",
            server.address,
            "--scenarios",
            "rr",
            "--connections",
            2,
            "--output",
            tmp_path,
        )
    finally:
        server.close()
    assert done.returncode in (1, 3)
    (one,) = document.load(tmp_path / "result.json")["samples"]
    assert one["failures"] >= 1 and one["target"] == server.address
    assert "corrupt" in one["failed"], one["failed"]


def test_a_target_that_refuses(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = unused.getsockname()[1]
        done = run(
            "--quick",
            "--target",
            f"127.0.0.1:{port}",
            "--scenarios",
            "rr",
            "--connections",
            1,
            "--output",
            tmp_path,
        )
    assert done.returncode == 3
    (one,) = document.load(tmp_path / "result.json")["samples"]
    assert "refused" in one["failed"] and "refused" in done.stdout


def test_a_target_that_stalls_is_given_up(tmp_path):
    server = Server(lambda connection: None)
    try:
        done = run(
            "--quick",
            "--target",
            server.address,
            "--scenarios",
            "rr",
            "--connections",
            1,
            "--output",
            tmp_path,
            timeout=120,
        )
    finally:
        server.close()
    assert done.returncode == 3
    (one,) = document.load(tmp_path / "result.json")["samples"]
    assert "stalled" in one["failed"], one["failed"]


def test_a_stop_signal_leaves_a_valid_document_and_no_process(tmp_path):
    process = subprocess.Popen(
        [
            *COMMAND,
            "run",
            "--scenarios",
            "rr",
            "--sizes",
            "64",
            "--connections",
            "1",
            "--rounds",
            "1000",
            "--seconds",
            "0.2",
            "--targets",
            "direct,ours+plain",
            "--output",
            str(tmp_path),
            *FILES,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        path = tmp_path / "result.json"
        deadline = time.monotonic() + 120
        while not (path.exists() and len(json.loads(path.read_text())["samples"]) >= 3):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        children = processes.family(process.pid)[1:]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, err[-2000:]
    result = document.load(path)
    assert result["status"] == "interrupted" and len(result["samples"]) >= 3
    assert "interrupted" in out and (tmp_path / "report.html").exists()
    # What was just being started ends by the death signal, which takes a moment.
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in children):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--targets", "squid"], "is no target"),
        (["--scenarios", "bulky"], "no scenario 'bulky'"),
        (["--streams", "0"], "no list of numbers"),
        (["--seconds", "nan"], "no number above 0"),
        (["--duration", "8x"], "no duration"),
        (["--target", "here"], "no address"),
        (["--sizes", "64/"], "no size"),
        (["--directions", "left"], "directions are"),
        (["--load", "/nonexistent/bore-load"], "build it"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_runs(tmp_path, words, said):
    done = subprocess.run(
        [*COMMAND, "run", *FILES, "--output", str(tmp_path / "o"), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0 and said in done.stderr
    assert not (tmp_path / "o").exists()


def test_help_teaches_by_examples():
    done = subprocess.run(
        [*COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    for word in ("bore-bench serve", "compare", "--quick", "soak"):
        assert word in done.stdout
