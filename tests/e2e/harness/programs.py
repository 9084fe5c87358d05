"""The processes under test: the relay, the client, and the Rust programs they are compared with.

A relay counts as started when it said READY=1 to a notify socket, and as stopped in order when it
left with status 0, without a sanitizer's report and without a descriptor more than it had at start.
"""
import atexit
import collections
import contextlib
import functools
import itertools
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from harness import traffic

SANITIZER_REPORT = re.compile(r"(ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:).*")
REPORT_LINE = re.compile(r" info (counters|tunnel port=|packet port port_index=)")  # of SIGUSR1
START_TIMEOUT_S = 15.0
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS")


def clean_environment(extra=None):
    """No BORE_* and no NOTIFY_SOCKET of the caller; what a test wants is in `extra`."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment.update(extra or {})
    return environment


def is_sanitized(path):
    with open(path, "rb") as handle:
        contents = handle.read()
    return b"__asan_init" in contents or b"__tsan_init" in contents


class NotifySocket:
    """The other end of sd_notify: collects what a service says to its manager."""

    def __init__(self, abstract=False):
        self._directory = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if abstract:
            self.name = f"@bore-e2e-{os.getpid()}-{id(self)}"
            self.socket.bind("\0" + self.name[1:])
        else:
            self._directory = tempfile.mkdtemp(prefix="bore-notify-")
            os.chmod(self._directory, 0o755)
            self.name = f"{self._directory}/notify"
            self.socket.bind(self.name)
            os.chmod(self.name, 0o777)
        self.lines = []

    def poll(self, timeout=0.0):
        """Reads what has come; waits up to `timeout` for the first datagram."""
        self.socket.settimeout(timeout or 1e-6)
        while True:
            try:
                self.lines += self.socket.recv(4096).decode().splitlines()
            except (TimeoutError, BlockingIOError):
                return self.lines
            self.socket.settimeout(1e-6)

    def close(self):
        self.socket.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


class Process:
    """A child with its output in files, so that no pipe ever blocks it."""

    def __init__(self, command, environment=None, nofile=None, prepare=None, **keywords):
        """`nofile`: (soft, hard) descriptor limits; `prepare`: called in the child before it becomes the program."""
        self.command = [str(word) for word in command]
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="bore-e2e-"))

        def before_exec():
            if nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, nofile)
            if prepare:
                prepare()

        with open(self._directory / "out", "wb") as out, open(self._directory / "err", "wb") as err:
            self.child = subprocess.Popen(  # pylint: disable=consider-using-with
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=clean_environment(environment), preexec_fn=before_exec, **keywords)
        self.pid = self.child.pid

    def output(self):
        return (self._directory / "out").read_text(errors="replace")

    def errors(self):
        return (self._directory / "err").read_text(errors="replace")

    def log(self):
        return self.output() + self.errors()

    def running(self):
        return self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, timeout=15.0):
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command[0]} still runs after {timeout} s\n{self.tail()}") from None

    def wait_for_log(self, pattern, timeout=10.0):
        """The first match of a regular expression in what the process printed."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.log())
            if match:
                return match
            if time.monotonic() > deadline:
                raise AssertionError(f"/{pattern}/ did not appear within {timeout} s\n{self.tail()}")
            if not self.running() and not re.search(pattern, self.log()):
                raise AssertionError(f"ended with {self.child.returncode} before /{pattern}/\n{self.tail()}")
            time.sleep(0.01)

    def tail(self, lines=40):
        text = [line for line in self.log().splitlines() if not REPORT_LINE.search(line)][-lines:]
        return "\n".join([" ".join(self.command), *text])

    def descriptors(self):
        """How many descriptors of each kind are open: socket, pipe, anon_inode:[io_uring], ..."""
        kinds = collections.Counter()
        for entry in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{entry}")
            except FileNotFoundError:
                continue
            kinds[target if target.startswith("anon_inode:") else target.split(":")[0]] += 1
        return kinds

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def assert_no_sanitizer_report(self):
        found = SANITIZER_REPORT.search(self.log())
        assert not found, f"sanitizer report: {found.group(0)}\n{self.tail(120)}"

    def kill(self):
        if self.running():
            self.child.kill()
        self.child.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def fields_of(line):
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)(?= |$)", line)}


def ended(counters, reason):
    """Pairs that ended for this reason, whichever engine had them."""
    return counters[f"pairs_ended_{reason}_total"] + counters[f"flows_ended_{reason}_total"]


def enter_and(namespace, prepare):
    namespace.enter()
    if prepare:
        prepare()


SEGMENTS = pathlib.Path("/dev/shm")
CONTROL_SOCKETS = pathlib.Path("/run/bore")
relay_numbers = itertools.count()


def own_id():
    """Relays share /dev/shm, whatever namespaces they run in: each needs a name of its own there."""
    return ["--server-id", f"e2e-{os.getpid()}-{next(relay_numbers)}"]


@atexit.register
def remove_what_killed_relays_left(name=f"e2e-{os.getpid()}-*"):
    """Segments, of some 10 MB each, and control sockets of relays by this server id."""
    for left in (*SEGMENTS.glob(f"bore-{name}"), *CONTROL_SOCKETS.glob(f"{name}.sock")):
        left.unlink(missing_ok=True)


def go_first():
    """For a child before it becomes its program: it runs before all others of a busy machine, if this user may say so."""
    with contextlib.suppress(PermissionError):
        os.nice(-15)


class Relay(Process):
    """A running bore-server."""

    def __init__(self, program, slot, arguments=(), environment=None, nofile=None, notify=None, **keywords):
        """`slot`: where it stands and what its engine needs (site.Slot)."""
        arguments = [str(word) for word in arguments]
        self.control_port = 7835
        if "--control-port" in arguments:
            self.control_port = int(arguments[arguments.index("--control-port") + 1])
        self.address = (slot.host, self.control_port)
        slot.relay = self
        self.notify = notify or NotifySocket()
        environment = {"NOTIFY_SOCKET": self.notify.name, **(environment or {})}
        command = [program, *arguments, *slot.arguments]
        if slot.namespace:
            keywords["prepare"] = functools.partial(enter_and, slot.namespace, keywords.get("prepare"))
        if "--drain-timeout-s" not in arguments:
            command += ["--drain-timeout-s", "1"]  # what a test leaves open must not hold the suite up
        if "--server-id" not in arguments:
            command += own_id()
        self.server_id = command[command.index("--server-id") + 1]
        super().__init__(command, environment, nofile, **keywords)
        self._await_ready()
        self.start_descriptors = self.descriptors()

    def _await_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while "READY=1" not in self.notify.poll(0.05):
            if not self.running():
                raise AssertionError(f"the relay ended with {self.child.returncode} instead of READY=1\n{self.tail()}")
            if time.monotonic() > deadline:
                text = self.tail()
                self.kill()
                raise AssertionError(f"no READY=1 within {START_TIMEOUT_S} s\n{text}")

    @property
    def segment(self):
        """The file of its statistics."""
        return SEGMENTS / f"bore-{self.server_id}"

    def counters(self):
        """The counters the relay logs on SIGUSR1, by name."""
        lines = self._report()
        return collections.Counter(fields_of(next(line for line in lines if " counters" in line)))

    def tunnels(self):
        """The live tunnels by public port: their counters to_client, to_visitor, pairs, ..."""
        found = [fields_of(line) for line in self._report() if " tunnel " in line]
        return {fields["port"]: fields for fields in found}

    def ports(self):
        """The counters of the packet engine's ports, in their order."""
        return [fields_of(line) for line in self._report() if "port_index=" in line]

    def _report(self):
        """The lines of one SIGUSR1: the counters and what follows them."""
        before = len(self.log())
        self.signal(signal.SIGUSR1)
        traffic.eventually(lambda: re.search(r" counters\b.*\n", self.log()[before:]), 5, f"counters after SIGUSR1\n{self.tail()}")
        time.sleep(0.05)  # the lines of ports and tunnels are written right behind
        return self.log()[before:].splitlines()

    def assert_descriptors_returned(self, timeout=5.0, tunnels=1):
        """Nothing opened since the start is left, but for the sockets of tunnels that are still open
        (control connection and listener) and for pipes, which workers keep for reuse."""

        def returned():
            left = self.descriptors() - self.start_descriptors
            pipes = left.pop("pipe", 0)
            left["socket"] -= 2 * tunnels
            assert not +left, f"descriptors not given back: {dict(+left)}\n{self.tail()}"
            assert pipes <= PIPE_POOL_DESCRIPTORS, f"{pipes} descriptors of pipes are left"
            return True

        traffic.eventually(returned, timeout)

    def stop(self, timeout=15.0):
        """SIGTERM, and everything that an orderly end promises."""
        if self.running():
            self.signal(signal.SIGTERM)
        status = self.wait(timeout)
        self.assert_no_sanitizer_report()
        assert status == 0, f"exit status {status}\n{self.tail()}"

    def close(self):
        self.kill()
        remove_what_killed_relays_left(self.server_id)
        self.notify.close()


# Two descriptors per idle pipe, and a worker keeps at most 512 (dataplane/abi/limits.hpp); tests here
# never use more than a few dozen bulk directions at once.
PIPE_POOL_DESCRIPTORS = 2 * 512


class Client(Process):
    """A tunnel client program, ours or Rust's, which says `listening at HOST:PORT`."""

    def __init__(self, program, arguments, environment=None, **keywords):
        super().__init__([program, *arguments], environment, **keywords)

    def public_ports(self, count=1, timeout=10.0):
        deadline = time.monotonic() + timeout
        while True:
            # The Rust client colours its log even when it does not write to a terminal.
            text = re.sub(r"\x1b\[[0-9;]*m", "", self.log())
            ports = [int(port) for port in re.findall(r"listening at \S+:(\d+)", text)]
            if len(ports) >= count:
                return ports
            if not self.running():
                raise AssertionError(f"the client ended with {self.child.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no public address within {timeout} s\n{self.tail()}")
            time.sleep(0.01)

    def public_port(self, timeout=10.0):
        return self.public_ports(1, timeout)[0]

    def stop(self, number=signal.SIGTERM, timeout=10.0):
        if self.running():
            self.signal(number)
        status = self.wait(timeout)
        self.assert_no_sanitizer_report()
        return status


class RustRelay(Process):
    """The original relay. It has no readiness notice, so its port is asked."""

    control_port = 7835
    address = ("127.0.0.1", 7835)

    def __init__(self, program, arguments=()):
        super().__init__([program, "server", *arguments])
        traffic.eventually(self._answers, 10, "the Rust relay listens")

    def _answers(self):
        try:
            with socket.create_connection(self.address, 1):
                return True
        except ConnectionRefusedError:
            return False


def raise_descriptor_limit(wanted):
    """Raises this process's limit; returns what it got."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for value in (max(wanted, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (value, value))
            break
        except (ValueError, PermissionError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
