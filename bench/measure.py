"""Network namespaces, processes inside them, and what a process has cost.

Used by peers.py and run. Knows nothing of relays. Everything started here dies with the runner.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time

DESCRIPTORS = 400_000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def cpu_seconds(pid):
    """CPU time of a process, all threads, ended ones too: utime + stime in nanosecond precision.

    /proc/PID/stat says the same in steps of 10 ms; this is the clock of clock_getcpuclockid(3).
    """
    return time.clock_gettime(((~pid) << 3) | 2)


def family(pid):
    """The process and all its descendants (nginx works in children)."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                # The name may hold spaces; the parent is the second field behind it.
                parent = int(stat.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def _kib_field(path, name):
    with open(path) as lines:
        for line in lines:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise RuntimeError(f"{path} has no {name}")


def memory_bytes(pids):
    """Resident and proportional memory of processes together: (RSS, PSS)."""
    rss = sum(_kib_field(f"/proc/{pid}/status", "VmRSS") for pid in pids)
    pss = sum(_kib_field(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)
    return rss * 1024, pss * 1024


def descriptor_limit():
    """Descriptors that a child may open: DESCRIPTORS where that is allowed, else the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard >= DESCRIPTORS or hard == resource.RLIM_INFINITY:
        return DESCRIPTORS
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], DESCRIPTORS))
    except (ValueError, OSError):
        return hard
    return DESCRIPTORS


def _in_child():
    """A child never outlives the runner and may open as many descriptors as allowed."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    limit = descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


class Namespace:
    """A network namespace of its own with the loopback up, so that every relay can use port 7835.

    Ports 1024 to 20000 are kept free for listeners; connections take theirs from above.
    """

    SETUP = (
        "ip link set lo up && echo 20001 65000 > /proc/sys/net/ipv4/ip_local_port_range"
        " && echo up && exec sleep infinity"
    )

    def __init__(self):
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.processes = []
        self.holder = subprocess.Popen(
            ["unshare", "--net", *as_root, "sh", "-c", self.SETUP],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_in_child,
        )
        if self.holder.stdout.readline().strip() != "up":
            raise RuntimeError(
                "no network namespace: needs root or unprivileged user namespaces, and iproute2"
            )

    def command(self, arguments):
        # nsenter executes the command in place, so the process id is the command's own.
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.holder.pid}", *user, "--net", "--", *arguments]

    def start(self, arguments, log, **options):
        """Starts a process; its output goes to the file `log` unless options say otherwise."""
        with open(log, "ab") as output:
            options = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL} | options
            process = subprocess.Popen(self.command(arguments), preexec_fn=_in_child, **options)
        self.processes.append(process)
        return process

    def run(self, arguments, timeout):
        """Runs a command to its end; returns the finished process with its output as text."""
        return subprocess.run(
            self.command(arguments),
            capture_output=True,
            text=True,
            timeout=timeout,
            preexec_fn=_in_child,
        )

    def wait_listening(self, port, process, seconds=15):
        """Until somebody listens on the port; False when the process ended or the time is over."""
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            for table in ("tcp", "tcp6"):
                with open(f"/proc/{self.holder.pid}/net/{table}") as lines:
                    fields = [line.split() for line in lines]
                # The local address ends in the port; 0A is the state of a listener.
                if any(f[3] == "0A" and f[1].endswith(f":{port:04X}") for f in fields):
                    return True
            time.sleep(0.02)
        return False

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
