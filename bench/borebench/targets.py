"""Targets that run: a relay with its tunnel client and service in a namespace of their own, or an
installation that somebody else has started.

Steps of a local target: namespace (two with a cable for the packet engine) → service → relay, until
it listens → tunnel client → one exchange must pass → the caller measures → all is stopped, in
reverse. Both kinds have the same methods, so scenarios.py does not know which it has.
"""

import atexit
import json
import os
import pathlib
import select
import signal
import subprocess
import time

from borebench import processes, relays

START_PATIENCE_S = 20
# What a bore-load process may take beyond its own deadline before it is killed.
GRACE_S = 15
# The packet engine's cable: visitors, service and tunnel client on one end, the relay on the other.
VISITORS_ADDRESS, RELAY_ADDRESS = "10.99.0.1", "10.99.9.1"


@atexit.register
def remove_what_killed_relays_left():
    """Statistics and control socket; while we run, the next relay of ours takes their place."""
    for left in (f"/dev/shm/bore-{relays.SERVER_ID}", f"/run/bore/{relays.SERVER_ID}.sock"):
        pathlib.Path(left).unlink(missing_ok=True)


class TargetFailed(RuntimeError):
    """The target does not do what was asked: it refuses, stalls, or has ended. Counts as a failure
    of the target, never of the tool."""


class Load:
    """One bore-load process. Ends by itself, or by stop()."""

    def __init__(self, place, command, log):
        self.command = command
        self.log = log
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                place.command(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                preexec_fn=processes.in_child,
            )
        self._text = b""

    def ready(self, timeout_s):
        """The first line, which idle, tunnels and serve print when they are up."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._text:
            left = deadline - time.monotonic()
            seen = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            piece = os.read(self.process.stdout.fileno(), 65536) if seen else b""
            if not piece:
                raise TargetFailed(
                    f"{self._words()}: nothing came up within {timeout_s:g} s"
                    if not seen
                    else f"{self._words()} ended: {self._last_words()}"
                )
            self._text += piece
        line, self._text = self._text.split(b"\n", 1)
        found = json.loads(line)
        if found.get("event") == "result":  # ended before it was up
            raise TargetFailed(f"{self._words()}: {why(found)}")
        return found

    def result(self, timeout_s):
        """Waits for the end; the last line. TargetFailed when there is none."""
        try:
            self._text += self.process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired:
            raise TargetFailed(f"{self._words()} did not end within {timeout_s:g} s") from None
        finally:
            self.kill()
        lines = self._text.decode(errors="replace").strip().splitlines()
        if self.process.returncode not in (0, 1, 3) or not lines:
            raise TargetFailed(
                f"{self._words()}: exit status {self.process.returncode}, " f"{self._last_words()}"
            )
        return json.loads(lines[-1])

    def stop(self, timeout_s=60):
        self.process.send_signal(signal.SIGTERM)
        return self.result(timeout_s)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _words(self):
        return f"bore-load {' '.join(self.command[1:])}"

    def _last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-500:].strip() or "it said nothing"


def why(result):
    """What went wrong in a load, in a sentence with counts."""
    reasons = ", ".join(
        f"{count} {name}" for name, count in sorted(result.get("failures_by_reason", {}).items())
    )
    first = result.get("first_failure", "")
    return f"{result.get('failures', 0)} failures ({reasons or 'no reason given'})" + (
        f"; first: {first}" if first else ""
    )


class Target:
    """What scenarios.py needs of a target."""

    spec = None
    name = text = ""
    host, port = "", 0
    half_closes = True

    def __init__(self, programs, folder):
        self.programs = programs
        self.folder = folder
        self.commands = []
        self.place = None  # where loads run
        os.makedirs(folder, exist_ok=True)

    @property
    def to(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def control(self):
        """Where a bore relay takes registrations."""
        return f"{self.host}:{relays.CONTROL_PORT}"

    def relay_pids(self):
        """Processes of the relay; none when there is no relay or it is elsewhere."""
        return []

    def others(self):
        """{"service": pid, "client": pid}, as far as they run here."""
        return {}

    def start_load(self, arguments, to=None):
        command = [self.programs["load"], *map(str, arguments), "--to", to or self.to]
        return Load(self.place, command, os.path.join(self.folder, "load.log"))

    def load(self, arguments, seconds):
        """Runs bore-load to its end; its deadline is `seconds` and some for what is in flight."""
        deadline = seconds + 30
        running = self.start_load([*arguments, "--deadline-s", deadline])
        try:
            return running.result(deadline + GRACE_S)
        finally:
            running.kill()


class LocalTarget(Target):
    """Use as a context manager."""

    def __init__(self, spec, programs, folder, limit_mbit=0):
        super().__init__(programs, folder)
        self.spec = spec
        self.name = str(spec)
        self.text = spec.text
        self.half_closes = spec.half_closes
        self.limit_mbit = limit_mbit
        self.relay = None
        self._namespaces = []
        self._others = {}
        self._log = os.path.join(folder, "log")

    def __enter__(self):
        try:
            self._start()
        except (OSError, RuntimeError) as error:
            self._stop()
            if isinstance(error, TargetFailed):
                raise
            raise TargetFailed(f"{self.name} does not start: {error}") from error
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_):
        self._stop()

    def relay_pids(self):
        return processes.family(self.relay.pid) if self.relay else []

    def others(self):
        return {name: process.pid for name, process in self._others.items()}

    def _start(self):
        self.place = self._namespace()
        relay_place, self.host, packet_port = self.place, "127.0.0.1", ""
        if self.spec.cabled:
            relay_place, self.host = self._namespace(), RELAY_ADDRESS
            self.place.cable(relay_place, "wire0", "nic0")
            self.place.run("ip", "addr", "add", f"{VISITORS_ADDRESS}/16", "dev", "wire0")
            packet_port = f"af_packet:nic0,address={RELAY_ADDRESS}/16"
        # HAProxy reserves 2.5 descriptors for each connection and refuses to start without.
        connections = min(50_000, processes.descriptor_limit() * 2 // 5 - 100)
        launch = relays.launch(
            self.spec,
            self.programs,
            relays.Place(self.folder, self.host, connections, self.limit_mbit, packet_port),
        )
        for path, text in launch.files.items():
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        self.port = launch.visitor_port
        if launch.own_service:
            self._others["service"] = self._run(
                self.place,
                [self.programs["load"], "serve", "--listen", f"127.0.0.1:{relays.SERVICE_PORT}"],
            )
        if launch.relay:
            self.relay = self._run(relay_place, launch.relay)
            # What ended or never listened shows below, with its log.
            relay_place.wait_listening(relays.RELAYS[self.spec.relay].control_port, self.relay)
        if launch.client:
            # A plain client is the service at the same time, and as much a bottleneck.
            role = "client" if launch.own_service else "service"
            self._others[role] = self._run(self.place, launch.client)
        self._wait_until_it_relays()

    def _namespace(self):
        self._namespaces.append(processes.Namespace())
        return self._namespaces[-1]

    def _run(self, place, command):
        self.commands.append(" ".join(command))
        return place.start(command, self._log, env=os.environ | {"RUST_LOG": "error"})

    def _wait_until_it_relays(self):
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            probe = self.start_load(["crr", "--count", 1, "--concurrency", 1, "--deadline-s", 5])
            try:
                if probe.result(5 + GRACE_S).get("failures", 1) == 0:
                    return
            except TargetFailed:
                pass
            ended = [
                one.args[-1]
                for place in self._namespaces
                for one in place.processes
                if one.poll() is not None
            ]
            if ended or time.monotonic() > deadline:
                with open(self._log, encoding="utf-8", errors="replace") as log:
                    said = log.read()[-1500:].strip()
                raise TargetFailed(
                    f"{self.name} does not relay; ended: {ended or 'nothing'}; "
                    f"its log: {said or 'empty'}"
                )
            time.sleep(0.05)

    def _stop(self):
        for place in reversed(self._namespaces):
            place.stop()
        self._namespaces.clear()


class RemoteTarget(Target):
    """HOST:PORT where somebody else's relay leads to `bore-bench serve`. With `relay_pid`, a relay
    on this machine, its cost is measured, too."""

    def __init__(self, host, port, programs, folder, relay_pid=None):
        super().__init__(programs, folder)
        self.host, self.port = host, port
        self.name = self.to
        self.text = f"installation at {self.to}, not started by bore-bench"
        self.relay_pid = relay_pid
        self.place = processes.Here()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.place.stop()

    def relay_pids(self):
        return processes.family(self.relay_pid) if self.relay_pid else []
