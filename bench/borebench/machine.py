"""What the machine is, and how noisy it was during a sample.

Noise has two measures that need no second run: time that the hypervisor gave to others (steal), and
processors that worked for processes which are not ours.
"""

import datetime
import os
import pathlib
import platform
import re
import resource
import subprocess

from borebench import processes

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# From here on a sample counts as disturbed: shares of one processor.
FOREIGN_CORES = 0.2
STEAL_SHARE = 0.02


def _read(path, default="unknown"):
    try:
        return pathlib.Path(path).read_text("utf-8").strip()
    except OSError:
        return default


def describe(programs, command):
    text = _read("/proc/cpuinfo", "")
    models = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    top = pathlib.Path(__file__).resolve().parents[2]
    revision = subprocess.run(
        ["git", "-C", str(top), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    memory_kib = int(
        re.search(r"MemTotal:\s+(\d+)", _read("/proc/meminfo", "MemTotal: 0")).group(1)
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "host": platform.node(),
        "cpu": models[0] if models else platform.machine(),
        "cpu_count": os.cpu_count(),
        "memory_mib": memory_kib // 1024,
        "kernel": platform.release(),
        "governor": _read(governor, "none (the hypervisor or firmware decides)"),
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "load_average_before": os.getloadavg()[0],
        "revision": revision or "unknown",
        "versions": programs.versions(),
        "command": command,
    }


class Noise:
    """What else the machine did between two moments. `pids`: processes of ours that live through
    it; ended children are counted by themselves."""

    def __init__(self, pids):
        self._pids = pids
        self._before = self._now()

    def _now(self):
        with open("/proc/stat", encoding="ascii") as lines:
            ticks = [int(word) for word in lines.readline().split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = ticks
        ours = sum(map(processes.cpu_seconds, self._pids)) + sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )
        busy = (user + nice + system + irq + softirq) / TICKS_PER_S
        return {
            "busy": busy,
            "steal": steal / TICKS_PER_S,
            "ours": ours,
            "all": busy + (idle + iowait + steal) / TICKS_PER_S,
        }

    def seen(self):
        gone = {name: now - self._before[name] for name, now in self._now().items()}
        wall_s = gone["all"] / os.cpu_count()
        if wall_s <= 0:
            return {"foreign_cores": 0.0, "steal_share": 0.0, "load_average": os.getloadavg()[0]}
        return {
            "foreign_cores": max(0.0, gone["busy"] - gone["ours"]) / wall_s,
            "steal_share": gone["steal"] / gone["all"],
            "load_average": os.getloadavg()[0],
        }


def disturbed(noise):
    return noise["foreign_cores"] > FOREIGN_CORES or noise["steal_share"] > STEAL_SHARE
