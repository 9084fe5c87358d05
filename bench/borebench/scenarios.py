"""How each scenario measures one target: its loads, and the figures of the relay around them.

Each function takes a running target and returns {"metrics", "loads"}; measure() adds what all have
in common: failures, who was the bottleneck, noise. Pure arithmetic is in metrics.py.
"""

import time

from borebench import metrics, processes, stats
from borebench.machine import Noise
from borebench.targets import TargetFailed, why

WARM_UP_S = 0.2
SECOND_WARM_UP_S = 3
# Closing the connections of a load belongs to its price.
SETTLE_S = 0.2
SYSCALL_PASS_S = 0.4
# From here on one thread of the load is busy nearly all the time, and the figures may be its own.
BUSY = 0.9
# These count failures as their result; for all others a failure spoils the sample.
COUNTS_FAILURES = ("halfclose", "chaos", "soak")


def measure(work, target, syscalls):
    """One sample. `syscalls`: whether to count system calls in a pass of its own."""
    noise = Noise([*target.relay_pids(), *target.others().values()])
    sample = _SCENARIOS[work.scenario](work, target, syscalls)
    loads = sample["loads"]
    failed = [load for load in loads if load.get("failures")]
    spoils = work.scenario not in COUNTS_FAILURES
    sample["failures"] = sum(load["failures"] for load in failed)
    sample["failed"] = "; ".join(why(load) for load in failed) if failed and spoils else None
    if not sample["metrics"] and not sample["failed"]:
        sample["failed"] = "nothing was transferred"
    shares = sample.setdefault("shares", {})
    shares["generator"] = max(
        (load.get("generator_busy_share", 0.0) for load in loads), default=0.0
    )
    sample["bottlenecks"] = [who for who in ("generator", "service") if shares.get(who, 0) >= BUSY]
    sample["noise"] = noise.seen()
    sample["loads"] = [metrics.condensed(load) for load in loads]
    return sample


class _Shares:
    """Processors that each part keeps busy between two moments; service and generator have one
    thread, so theirs are at most 1."""

    def __init__(self, target):
        self._costs = {name: processes.Cost([pid]) for name, pid in target.others().items()}
        if target.relay_pids():
            self._costs["relay"] = processes.Cost(target.relay_pids())
        self._began = time.monotonic()

    def seen(self):
        wall_s = time.monotonic() - self._began
        return {name: cost.spent()["cpu_s"] / wall_s for name, cost in self._costs.items()}


def _arguments(work, target):
    """Where FIN ends both directions, uploads are counted at the sender."""
    abrupt = work.load[0] == "bulk" and not target.half_closes
    return [*work.load, *(["--abrupt"] if abrupt else [])]


def _load(work, target, syscalls):
    arguments = _arguments(work, target)
    # Fills allocator, caches and pools, so that a fresh relay is not charged for its start.
    warm_up = target.load([*arguments, "--seconds", WARM_UP_S], WARM_UP_S)
    if work.scenario == "bulk" and warm_up.get("failures"):
        # On a busy machine a stream may have had no byte yet, which counts as a stall.
        warm_up = target.load([*arguments, "--seconds", SECOND_WARM_UP_S], SECOND_WARM_UP_S)
    if warm_up.get("failures"):  # it would only fail, or stall, once more
        return {"metrics": {}, "loads": [warm_up]}
    pids = target.relay_pids()
    cost, shares = processes.Cost(pids), _Shares(target)
    result = target.load([*arguments, "--seconds", work.seconds], work.seconds)
    seen = shares.seen()
    time.sleep(SETTLE_S)
    found = metrics.of_load(result, cost.spent() if pids else None)
    if syscalls and pids and not result.get("failures"):
        counts = []
        with processes.counted_syscalls(pids, counts):
            counted = target.load([*arguments, "--seconds", SYSCALL_PASS_S], SYSCALL_PASS_S)
        found |= metrics.syscalls(counted, counts[0]) if counts else {}
    return {"metrics": found, "loads": [result], "shares": seen}


def _idle(work, target, _syscalls):
    pids, wanted = target.relay_pids(), work.load[2]
    before = processes.memory_bytes(pids)
    holder = target.start_load(work.load)
    try:
        up = holder.ready(90)["up"]
        time.sleep(work.seconds)
        memory = processes.memory_bytes(pids)
        result = holder.stop()
    finally:
        holder.kill()
    found = {"lost": result["lost"]}
    if pids and up == wanted:
        found["rss_bytes_per_pair"] = (memory[0] - before[0]) / wanted
        found["pss_bytes_per_pair"] = (memory[1] - before[1]) / wanted
    return {"metrics": found, "loads": [result]}


def _tunnels(work, target, _syscalls):
    pids, wanted = target.relay_pids(), work.load[2]
    before, cost = processes.memory_bytes(pids), processes.Cost(pids)
    holder = target.start_load(work.load, to=target.control)
    try:
        ready = holder.ready(120)
        spent = cost.spent()["cpu_s"]
        time.sleep(work.seconds)
        rss = processes.memory_bytes(pids)[0]
        result = holder.stop()
    finally:
        holder.kill()
    found = {"lost": result["lost"]}
    if ready["registered"] == wanted:
        found["tunnels_per_s"] = wanted / ready["seconds"]
        found["rss_bytes_per_tunnel"] = (rss - before[0]) / wanted
        found["cpu_us_per_tunnel"] = spent * 1e6 / wanted
    return {"metrics": found, "loads": [result]}


def _limits(work, target, _syscalls):
    arguments = _arguments(work, target)
    # Spends the burst that a fresh limit allows.
    target.load([*arguments, "--seconds", 0.5], 0.5)
    result = target.load([*arguments, "--seconds", work.seconds], work.seconds)
    return {"metrics": metrics.of_limit(result, work.numbers["limit_mbit"]), "loads": [result]}


def _mixed(work, target, _syscalls):
    alone = target.load([*work.load, "--seconds", work.seconds / 2], work.seconds / 2)
    bulk_s = work.seconds + 1
    bulk = target.start_load(
        [
            "bulk",
            "--streams",
            work.numbers["streams"],
            "--seconds",
            bulk_s,
            "--deadline-s",
            bulk_s + 30,
            *([] if target.half_closes else ["--abrupt"]),
        ]
    )
    try:
        time.sleep(0.3)
        beside = target.load([*work.load, "--seconds", work.seconds], work.seconds)
        large = bulk.result(bulk_s + 45)
    finally:
        bulk.kill()
    found = {}
    if alone.get("requests") and beside.get("requests") and large.get("bytes"):
        found = {
            "p99_us_alone": alone["p99_us"],
            "p99_us_beside": beside["p99_us"],
            "p50_us_beside": beside["p50_us"],
            "gbit_per_s_beside": large["gbit_per_s"],
        }
    return {"metrics": found, "loads": [alone, beside, large]}


def _halfclose(work, target, _syscalls):
    result = target.load(work.load, 60)
    if not result["tries"]:
        return {"metrics": {}, "loads": [result]}
    return {
        "metrics": {"answers_lost_percent": 100 * result["lost"] / result["tries"]},
        "loads": [result],
    }


def _chaos(work, target, _syscalls):
    pids = target.relay_pids()
    before = _descriptors_in_use(work, target)
    result = target.load([*work.load, "--seconds", work.seconds], work.seconds)
    found = {"exchanges_failed": result["exchanges_failed"]}
    if result["recovered"]:
        found["recovery_ms"] = result["recovery_s"] * 1000
    if pids:
        found["descriptors_gained"] = _settled_descriptors(pids, before) - before
    return {"metrics": found, "loads": [result]}


def _descriptors_in_use(work, target):
    """What a relay keeps open for later (pipes, idle connections to the other side) it should have
    open before the load that is measured."""
    target.load([*work.load, "--seconds", 1], 1)
    time.sleep(1)
    return processes.descriptor_count(target.relay_pids())


def _settled_descriptors(pids, before, patience_s=15):
    """What is still open once everything that ends has had time to."""
    deadline = time.monotonic() + patience_s
    while (count := processes.descriptor_count(pids)) > before and time.monotonic() < deadline:
        time.sleep(0.2)
    return count


def _soak(work, target, _syscalls):
    pids, descriptors = target.relay_pids(), _descriptors_in_use(work, target)
    began = time.monotonic()
    running = target.start_load(
        [*work.load, "--seconds", work.seconds, "--deadline-s", work.seconds + 120]
    )
    timeline = []
    try:
        while running.process.poll() is None:
            if time.monotonic() - began > work.seconds + 150:
                raise TargetFailed("soak did not end 150 s after its time")
            if pids:
                timeline.append(
                    [
                        round(time.monotonic() - began, 2),
                        processes.memory_bytes(pids)[0],
                        processes.descriptor_count(pids),
                    ]
                )
            time.sleep(min(10.0, max(0.2, work.seconds / 500)))
        result = running.result(10)
    finally:
        running.kill()
    found = {"lost_bytes": result["lost_bytes"], "corrupt_streams": result["corrupt_streams"]}
    if pids:
        # The first tenth fills pools and caches; what grows after that is what would go on growing.
        late = [(at, rss) for at, rss, _ in timeline if at > work.seconds / 10]
        found["rss_bytes_per_hour"] = stats.slope(late) * 3600
        found["descriptors_gained"] = _settled_descriptors(pids, descriptors) - descriptors
    return {"metrics": found, "loads": [result], "timeline": timeline}


_SCENARIOS = {
    "bulk": _load,
    "rr": _load,
    "rr-rate": _load,
    "crr": _load,
    "idle": _idle,
    "tunnels": _tunnels,
    "limits": _limits,
    "mixed": _mixed,
    "halfclose": _halfclose,
    "chaos": _chaos,
    "soak": _soak,
}
