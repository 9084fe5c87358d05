"""What is measured, what is required of it, and the tables. Pure: no process is touched here.

A work is one load on several set-ups (peers.py). A requirement compares one metric of ours with a
rival's in the same round, or with a number. Used by run; tested by test_figures.py.
"""

import dataclasses
import statistics

BULK_SETUPS = [
    "nginx",
    "haproxy",
    "rust+rust",
    "rust+plain",
    "rathole",
    "frp",
    "ours+rust",
    "ours+bore",
    "ours+plain",
]

# name: (metric name, unit)
UNITS = {
    "cpu_s_per_gb": "CPU s/GB",
    "gbit_per_s": "Gbit/s",
    "p50_us": "µs p50",
    "p99_us": "µs p99",
    "cpu_us_per_request": "CPU µs/request",
    "cpu_us_per_connection": "CPU µs/connection",
    "rss_per_pair": "bytes RSS/pair",
    "pss_per_pair": "bytes PSS/pair",
}


@dataclasses.dataclass(frozen=True)
class Work:
    name: str
    kind: str  # bulk, rr, short or idle
    arguments: tuple
    setups: list
    metrics: tuple  # in the order of the tables


@dataclasses.dataclass(frozen=True)
class Requirement:
    text: str
    work: str
    metric: str
    ours: str
    rival: str | None  # None: the limit is a number in the metric's unit
    limit: float | None  # None: reported only
    at_least: bool = False


@dataclasses.dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values))


def works(seconds, idle_pairs):
    bulk = ("cpu_s_per_gb", "gbit_per_s")
    requests = ("p50_us", "p99_us", "cpu_us_per_request")
    timed = ("--seconds", str(seconds))
    found = []
    for direction in ("down", "up"):
        arguments = ("bulk", "--direction", direction, *timed)
        found.append(Work(f"bulk1-{direction}", "bulk", arguments, BULK_SETUPS, bulk))
    for direction in ("down", "up"):
        arguments = ("bulk", "--direction", direction, "--streams", "16", *timed)
        few = ["nginx", "haproxy", "rust+rust", "ours+rust", "ours+bore", "ours+plain"]
        found.append(Work(f"bulk16-{direction}", "bulk", arguments, few, bulk))
    one = ["nginx", "haproxy", "rust+rust", "rathole", "frp", "ours+rust", "ours:busy+rust"]
    found.append(Work("rr1", "rr", ("rr", "--size", "64", *timed), [*one, "ours+plain"], requests))
    arguments = ("rr", "--size", "64", "--connections", "64", *timed)
    many = ["nginx", "haproxy", "rust+rust", "rathole", "ours+rust", "ours+bore"]
    found.append(Work("rr64", "rr", arguments, many, requests))
    large = ["nginx", "rust+rust", "rathole", "ours+rust", "ours+bore"]
    for name, sizes in (
        ("rr20k", ("--size", "20000", "--service-quickack")),
        ("rr20k-down", ("--size", "64", "--response-size", "20000")),
        ("rr20k-nagle", ("--size", "20000")),
    ):
        arguments = ("rr", *sizes, "--connections", "4", *timed)
        found.append(Work(name, "rr", arguments, large, requests))
    short = ["nginx", "haproxy", "rust+rust", "rathole", "frp", "ours+rust", "ours+bore", "ours+plain"]
    arguments = ("short", *timed)
    found.append(Work("short", "short", arguments, short, ("cpu_us_per_connection", "p50_us")))
    arguments = ("idle", "--connections", str(idle_pairs))
    idle = ["nginx", "haproxy", "rust+rust", "rathole", "frp", "ours+rust", "ours+bore"]
    found.append(Work("idle", "idle", arguments, idle, ("rss_per_pair", "pss_per_pair")))
    return found


def requirements():
    found = []

    def must(text, work, metric, ours, rival, limit, at_least=False):
        found.append(Requirement(text, work, metric, ours, rival, limit, at_least))

    for direction in ("down", "up"):
        work, cpu, rate = f"bulk1-{direction}", "cpu_s_per_gb", "gbit_per_s"
        text = f"one bulk stream {direction}, plain socket client"
        must(text, work, cpu, "ours+plain", "nginx", 0.35)
        must(text, work, cpu, "ours+plain", "rust+plain", 0.25)
        must(text, work, cpu, "ours+plain", "rust+rust", 0.25)
        text = f"one bulk stream {direction}, own client"
        must(text, work, cpu, "ours+bore", "nginx", 0.35)
        must(text, work, cpu, "ours+bore", "rust+rust", 0.25)
        text = f"one bulk stream {direction}, Rust client"
        must(text, work, cpu, "ours+rust", "rust+rust", 0.4)
    for direction in ("down", "up"):
        text = f"16 bulk streams {direction}"
        for ours in ("ours+plain", "ours+bore"):
            must(text, f"bulk16-{direction}", "cpu_s_per_gb", ours, "nginx", 0.5)
    for direction in ("down", "up"):
        work = f"bulk1-{direction}"
        text = f"Gbit/s, one stream {direction}"
        must(text, work, rate, "ours+rust", "rust+rust", 1.1, at_least=True)
        must(text, work, rate, "ours+bore", "rust+rust", 1.5, at_least=True)
    must("64-byte round trip, 1 connection", "rr1", "p50_us", "ours+rust", "rust+rust", 1.0)
    must("the same, busy polling", "rr1", "p50_us", "ours:busy+rust", "rust+rust", None)
    text = "64 connections, 64 bytes"
    must(text, "rr64", "cpu_us_per_request", "ours+rust", "rust+rust", 0.75)
    text = "20 kB round trip, 4 connections"
    must(text, "rr20k", "p99_us", "ours+rust", None, 1000)
    must("64 bytes there, 20 kB back", "rr20k-down", "p99_us", "ours+rust", None, 1000)
    # The client's Nagle and the service's delayed acknowledgement meet on their own leg.
    must(f"{text}, service delays its acknowledgements", "rr20k-nagle", "p50_us", "ours+rust", "rust+rust", None)
    text = "short connections"
    must(text, "short", "cpu_us_per_connection", "ours+rust", "rust+rust", 0.55)
    must(text, "short", "cpu_us_per_connection", "ours+rust", "rathole", 1.0)
    must("memory per idle pair", "idle", "rss_per_pair", "ours+rust", None, 2048)
    return found


def metrics(kind, result, cpu_seconds):
    """The metrics of one run, from the result of bore-load and the relay's CPU seconds."""
    if kind == "bulk":
        gigabytes = result["bytes"] / 1e9
        return {"cpu_s_per_gb": cpu_seconds / gigabytes, "gbit_per_s": result["gbit_per_s"]}
    if kind == "rr":
        if result["requests"] == 0:
            raise RuntimeError("no request was answered within the measured time")
        return {
            "p50_us": result["p50_us"],
            "p99_us": result["p99_us"],
            "cpu_us_per_request": cpu_seconds * 1e6 / result["requests_total"],
        }
    return {
        "cpu_us_per_connection": cpu_seconds * 1e6 / result["connections"],
        "p50_us": result["p50_us"],
    }


def values(samples, work, setup, metric):
    """One value per round; None where the round failed."""
    return [one and one[metric] for one in samples.get(work, {}).get(setup, [])]


def judge(requirement, samples):
    """(ours, rival, ratio, verdict); the spreads are None where nothing was measured."""
    ours = values(samples, requirement.work, requirement.ours, requirement.metric)
    if requirement.rival is None:
        got = [one for one in ours if one is not None]
        if not got:
            return None, None, None, "not measured"
        return Spread.of(got), None, None, verdict(requirement, Spread.of(got).median)
    rival = values(samples, requirement.work, requirement.rival, requirement.metric)
    pairs = [(a, b) for a, b in zip(ours, rival) if a is not None and b is not None]
    if not pairs:
        return None, None, None, "not measured"
    # The ratio is taken within each round, so that a busy minute of the machine hits both.
    ratio = Spread.of([a / b for a, b in pairs])
    return (
        Spread.of([a for a, _ in pairs]),
        Spread.of([b for _, b in pairs]),
        ratio,
        verdict(requirement, ratio.median),
    )


def verdict(requirement, value):
    if requirement.limit is None:
        return "reported"
    met = value >= requirement.limit if requirement.at_least else value <= requirement.limit
    return "pass" if met else "MISS"


def number(value):
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def with_spread(spread):
    if spread is None:
        return "–"
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def requirement_table(samples):
    lines = [
        "| Work | metric | ours | rival | ratio | must | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in requirements():
        if one.work not in samples:
            continue
        ours, rival, ratio, result = judge(one, samples)
        sign = "≥" if one.at_least else "≤"
        must = "–" if one.limit is None else f"{sign} {one.limit:g}"
        lines.append(
            f"| {one.text} | {UNITS[one.metric]} | {one.ours} {with_spread(ours)} "
            f"| {f'{one.rival} {with_spread(rival)}' if one.rival else '–'} "
            f"| {with_spread(ratio)} | {must}{'' if one.rival else ' absolute'} | {result} |"
        )
    return "\n".join(lines)


def raw_tables(all_works, samples):
    parts = []
    for work in all_works:
        if work.name not in samples:
            continue
        head = " | ".join(UNITS[metric] for metric in work.metrics)
        parts.append(f"**{work.name}**: `bore-load {' '.join(work.arguments)}`\n")
        parts.append(f"| set-up | {head} |\n|---|{'---|' * len(work.metrics)}")
        for setup in samples[work.name]:
            cells = []
            for metric in work.metrics:
                got = [v for v in values(samples, work.name, setup, metric) if v is not None]
                cells.append(with_spread(Spread.of(got)) if got else "failed")
            parts.append(f"| {setup} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)
