"""Network namespaces, processes inside them, and what processes have cost.

Knows nothing of relays. Everything started here dies with bore-bench. Used by targets.py.
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
            with contextlib.suppress(OSError), open(
                f"/proc/{entry}/stat", encoding="utf-8", errors="replace"
            ) as stat:
                # The name may hold spaces; the parent is the second field behind it.
                parent = int(stat.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def _fields(path, *names):
    """Numbers of the lines `name: number ...` of a file of /proc."""
    with open(path, encoding="ascii", errors="replace") as lines:
        pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    return [int(pairs[name].split()[0]) for name in names]


def memory_bytes(pids):
    """Resident and proportional memory of processes together: (RSS, PSS)."""
    rss = sum(_fields(f"/proc/{pid}/status", "VmRSS")[0] for pid in pids)
    pss = sum(_fields(f"/proc/{pid}/smaps_rollup", "Pss")[0] for pid in pids)
    return rss * 1024, pss * 1024


def context_switches(pids):
    """Of all threads that live: voluntary and involuntary ones."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                total += sum(
                    _fields(
                        f"/proc/{pid}/task/{task}/status",
                        "voluntary_ctxt_switches",
                        "nonvoluntary_ctxt_switches",
                    )
                )
    return total


def descriptor_count(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


class Cost:
    """What processes spend between two moments."""

    def __init__(self, pids):
        self.pids = pids
        self._cpu_s = sum(map(cpu_seconds, pids))
        self._switches = context_switches(pids)

    def spent(self):
        return {
            "cpu_s": sum(map(cpu_seconds, self.pids)) - self._cpu_s,
            "context_switches": context_switches(self.pids) - self._switches,
        }


@contextlib.contextmanager
def counted_syscalls(pids, found):
    """perf counts the system calls of processes while the block runs; the number is appended to
    `found`, unless perf or the kernel does not permit it. Costs some percent, so nothing else is
    measured meanwhile."""
    command = [
        "perf",
        "stat",
        "-x,",
        "-e",
        "raw_syscalls:sys_enter",
        "-p",
        ",".join(map(str, pids)),
    ]
    try:
        perf = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=in_child,
        )
    except OSError:
        yield
        return
    try:
        time.sleep(0.2)  # attaching
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        text = perf.communicate(timeout=20)[1]
        for line in text.splitlines():
            count = line.split(",")[0]
            if "sys_enter" in line and count.isdigit():
                found.append(int(count))


def descriptor_limit():
    """Descriptors that a child may open: DESCRIPTORS where that is allowed, else the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard >= DESCRIPTORS or hard == resource.RLIM_INFINITY:
        return DESCRIPTORS
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, DESCRIPTORS))
    except (ValueError, OSError):
        return hard
    return DESCRIPTORS


def in_child():
    """A child never outlives the runner and may open as many descriptors as allowed. Stop keys of
    the terminal reach the runner only, which then ends the rest in order."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgid(0, 0)
    limit = descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def stop(process, patience_s=3):
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Here:
    """Processes where bore-bench itself runs: for targets that others have started."""

    def __init__(self):
        self.processes = []

    def command(self, arguments):
        return arguments

    def start(self, arguments, log, **options):
        """Starts a process; its output goes to the file `log` unless options say otherwise."""
        with open(log, "ab") as output:
            options = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL} | options
            process = subprocess.Popen(self.command(arguments), preexec_fn=in_child, **options)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            stop(process)
        self.processes.clear()


class Namespace(Here):
    """A network namespace of its own with the loopback up, so that every relay can use port 7835.

    Ports 1024 to 20000 are kept free for listeners; connections take theirs from above.
    """

    SETUP = (
        "ip link set lo up && echo 20001 65000 > /proc/sys/net/ipv4/ip_local_port_range"
        " && echo up && exec sleep infinity"
    )

    def __init__(self):
        super().__init__()
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self.holder = subprocess.Popen(
            ["unshare", "--net", *as_root, "sh", "-c", self.SETUP],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=in_child,
        )
        if self.holder.stdout.readline().strip() != "up":
            self.holder.kill()
            self.holder.wait()
            raise RuntimeError(
                "no network namespace: needs root or unprivileged user namespaces, " "and iproute2"
            )

    def command(self, arguments):
        # nsenter executes the command in place, so the process id is the command's own.
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.holder.pid}", *user, "--net", "--", *arguments]

    def run(self, *arguments):
        """A short command that must succeed."""
        done = subprocess.run(
            self.command(arguments), capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")

    def wait_listening(self, port, process, seconds=15):
        """Until somebody listens on the port; False when the process ended or the time is over."""
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            for table in ("tcp", "tcp6"):
                with open(f"/proc/{self.holder.pid}/net/{table}", encoding="ascii") as lines:
                    fields = [line.split() for line in lines]
                # The local address ends in the port; 0A is the state of a listener.
                if any(f[3] == "0A" and f[1].endswith(f":{port:04X}") for f in fields):
                    return True
            time.sleep(0.02)
        return False

    def cable(self, other, here, there):
        """A veth pair to another namespace, up, without the offloads that a packet socket cannot
        carry: checksums left to a NIC that is not there, and superframes."""
        self.run(
            "ip",
            "link",
            "add",
            here,
            "type",
            "veth",
            "peer",
            "name",
            there,
            "netns",
            str(other.holder.pid),
        )
        for place, name in ((self, here), (other, there)):
            place.run("ip", "link", "set", name, "addrgenmode", "none")
            offloads = ("tx", "rx", "tso", "gso", "gro", "sg")
            place.run("ethtool", "-K", name, *(word for one in offloads for word in (one, "off")))
            place.run("ip", "link", "set", name, "up")

    def stop(self):
        super().stop()
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
