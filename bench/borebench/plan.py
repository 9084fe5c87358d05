"""What a run measures: scenarios, the works they consist of, and on which targets. Pure.

A work is one load with one set of numbers (`bulk-down-16`), a scenario makes several of them from
the options. The published plan is a fixed list, so that two published results can be compared.
"""

import dataclasses

from borebench import relays

# Scenario: what it shows. In the order of the tables.
SCENARIOS = {
    "bulk": "streams of bytes: rate, and what a gigabyte costs the relay",
    "rr": "requests and responses, the next when the last is answered: latency, cost of a request",
    "rr-rate": "requests at a given rate, late ones counted from when they were due",
    "crr": "connect, one request, close: cost of a connection",
    "idle": "memory of silent pairs",
    "tunnels": "registers many tunnels and keeps them: rate, memory, losses (bore relays)",
    "limits": "how exactly a bandwidth limit is kept (relays that have one)",
    "mixed": "requests beside bulk: what the small flow suffers",
    "halfclose": "answers that follow the visitor's FIN: how many are lost",
    "chaos": "peers that vanish, reset, read slowly; whether the others notice, what stays behind",
    "soak": "mixed load for --duration: growth of memory, descriptors, lost bytes",
    "packet": "cycles per packet of the splice beside testpmd (bench/packet/run)",
    "micro": "functions of the fast path (bench/micro/run)",
}
# What `run` does when no scenario is named: what compares relays and takes seconds.
USUAL = ("bulk", "rr", "rr-rate", "crr", "idle", "tunnels", "limits", "mixed", "halfclose")
# Run other programs of the tree, which choose what they compare with.
EXTERNAL = ("packet", "micro")
# The reference of every statement, in this order: the first that was measured, and the second.
REFERENCES = ("rust+rust", "nginx")

USUAL_TARGETS = (
    "ours+bore",
    "ours+rust",
    "rust+rust",
    "nginx",
    "haproxy",
    "rathole",
    "frp",
    "direct",
)

BULK = ("cpu_s_per_gb", "gbit_per_s", "switches_per_gb", "syscalls_per_gb")
LATENCY = ("p50_us", "p90_us", "p99_us", "p999_us", "max_us")
REQUESTS = (
    "cpu_us_per_request",
    *LATENCY,
    "requests_per_s",
    "switches_per_request",
    "syscalls_per_request",
)
AT_A_RATE = (
    *LATENCY,
    "unanswered",
    "cpu_us_per_request",
    "switches_per_request",
    "syscalls_per_request",
)
CONNECTIONS = (
    "cpu_us_per_connection",
    "p50_us",
    "p99_us",
    "connections_per_s",
    "switches_per_connection",
    "syscalls_per_connection",
)


@dataclasses.dataclass(frozen=True)
class Work:
    name: str
    scenario: str
    text: str
    load: tuple  # arguments of bore-load, without target and time
    seconds: float
    metrics: tuple  # in the order of the tables, the first one leads
    targets: tuple
    numbers: dict = dataclasses.field(default_factory=dict)  # what else the scenario needs to know


@dataclasses.dataclass
class Options:
    """The numbers of a run; the command line fills them, QUICK and the published plan replace."""

    scenarios: tuple = USUAL
    targets: tuple = ()  # () = each work's own
    directions: tuple = ("down", "up")
    streams: tuple = (1, 16)
    sizes: tuple = ("64", "20000")
    connections: tuple = (1, 64)
    rates: tuple = (5_000,)
    concurrency: int = 16
    seconds: float = 2.0
    duration_s: float = 3600.0
    pairs: int = 5_000
    tunnels: int = 1_000
    limit_mbit: int = 200
    verify: bool = False
    service_quickack: bool = False


QUICK = {
    "streams": (1,),
    "sizes": ("64",),
    "seconds": 0.3,
    "duration_s": 3.0,
    "pairs": 200,
    "tunnels": 50,
    "rates": (1_000,),
}


def usual_targets(scenario):
    """Those that a scenario is for when none are named."""
    return {
        "tunnels": ("ours+plain", "rust+plain"),
        "limits": ("ours+bore", "nginx", "frp"),
        "halfclose": (
            "ours+bore",
            "ours+rust",
            "rust+rust",
            "nginx",
            "nginx:default",
            "haproxy",
            "rathole",
            "frp",
            "frp:nomux",
        ),
        "chaos": tuple(name for name in USUAL_TARGETS if name != "direct"),
        "soak": ("ours+bore",),
    }.get(scenario, USUAL_TARGETS)


def unfit(spec, scenario):
    """Why a target cannot serve a scenario; "" when it can. `spec` is None for a remote target."""
    if scenario == "tunnels" and (spec is None or not spec.is_bore):
        return "tunnels are registered by the bore protocol"
    if scenario == "limits" and (spec is None or not relays.RELAYS[spec.relay].limits_bandwidth):
        return "has no bandwidth limit that bore-bench can set"
    if scenario == "idle" and spec is not None and spec.relay == "direct":
        return "has no relay whose memory could be measured"
    return ""


def descriptors(work):
    """What a relay has open at most in a work that is about many; 0 where that does not matter."""
    return 2 * work.load[2] + 200 if work.scenario in ("idle", "tunnels") else 0


def works(options):
    """The works of a run. Raises ValueError that names what is wrong."""
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        raise ValueError(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    found = []
    for scenario in SCENARIOS:
        if scenario in options.scenarios:
            targets = options.targets or usual_targets(scenario)
            for work in _MAKERS[scenario](options):
                found.append(dataclasses.replace(work, targets=tuple(targets)))
    return found


def _streams(count):
    return f"{count} bulk stream{'s' if count > 1 else ''}"


def _bulk(options):
    verify = ("--verify",) if options.verify else ()
    for direction in options.directions:
        for streams in options.streams:
            yield Work(
                f"bulk-{direction}-{streams}",
                "bulk",
                f"{_streams(streams)} {direction}",
                ("bulk", "--direction", direction, "--streams", streams, *verify),
                options.seconds,
                BULK,
                (),
            )


def _rr_load(size, connections, quickack):
    request, _, response = size.partition("/")
    load = ["rr", "--size", int(request), "--connections", connections]
    load += ["--response-size", int(response)] if response else []
    return (*load, *(("--service-quickack",) if quickack else ()))


def _there_and_back(size):
    request, _, response = size.partition("/")
    return (
        f"{request} bytes there, {response} back" if response else f"{request} bytes there and back"
    )


def _rr(options):
    for size in options.sizes:
        for connections in options.connections:
            yield Work(
                f"rr-{size.replace('/', '+')}-{connections}",
                "rr",
                f"{_there_and_back(size)}, {connections} at a time",
                _rr_load(size, connections, options.service_quickack),
                options.seconds,
                REQUESTS,
                (),
            )


def _rr_rate(options):
    size, connections = options.sizes[0], options.connections[-1]
    for rate in options.rates:
        yield Work(
            f"rr-rate-{rate}",
            "rr-rate",
            f"{_there_and_back(size)}, {rate:,} a second on {connections} connections",
            (*_rr_load(size, connections, options.service_quickack), "--rate", rate),
            options.seconds,
            AT_A_RATE,
            (),
        )


def _crr(options):
    yield Work(
        f"crr-{options.concurrency}",
        "crr",
        f"connect, one request, close; {options.concurrency} at a time",
        ("crr", "--concurrency", options.concurrency),
        options.seconds,
        CONNECTIONS,
        (),
    )


def _idle(options):
    yield Work(
        f"idle-{options.pairs}",
        "idle",
        f"{options.pairs:,} silent pairs",
        ("idle", "--connections", options.pairs, "--prove"),
        0.5,
        ("rss_bytes_per_pair", "pss_bytes_per_pair", "lost"),
        (),
    )


def _tunnels(options):
    yield Work(
        f"tunnels-{options.tunnels}",
        "tunnels",
        f"{options.tunnels:,} tunnels",
        ("tunnels", "--count", options.tunnels),
        options.seconds,
        ("rss_bytes_per_tunnel", "cpu_us_per_tunnel", "tunnels_per_s", "lost"),
        (),
    )


def _limits(options):
    for direction in options.directions:
        if direction != "both":
            yield Work(
                f"limits-{direction}-{options.limit_mbit}",
                "limits",
                f"limit of {options.limit_mbit} Mbit/s, one stream {direction}",
                ("bulk", "--direction", direction),
                max(options.seconds, 2.0),
                ("limit_error_percent", "gbit_per_s"),
                (),
                {"limit_mbit": options.limit_mbit},
            )


def _mixed(options):
    size, streams = options.sizes[0], options.streams[-1]
    yield Work(
        f"mixed-{streams}",
        "mixed",
        f"{_there_and_back(size)}, one connection, beside {_streams(streams)} down",
        _rr_load(size, 1, options.service_quickack),
        options.seconds,
        ("p99_us_beside", "p50_us_beside", "p99_us_alone", "gbit_per_s_beside"),
        (),
        {"streams": streams},
    )


def _halfclose(_options):
    yield Work(
        "halfclose",
        "halfclose",
        "answers of 20 kB, 10 ms after the visitor's FIN",
        ("halfclose", "--count", 100, "--concurrency", 16),
        5.0,
        ("answers_lost_percent",),
        (),
    )


def _chaos(options):
    yield Work(
        "chaos",
        "chaos",
        "visitors that misbehave, beside one that does not",
        ("chaos",),
        max(options.seconds, 1.0),
        ("exchanges_failed", "recovery_ms", "descriptors_gained"),
        (),
    )


def _soak(options):
    yield Work(
        "soak",
        "soak",
        f"mixed load for {options.duration_s:,.0f} s, every byte compared",
        ("soak",),
        options.duration_s,
        ("rss_bytes_per_hour", "descriptors_gained", "lost_bytes", "corrupt_streams"),
        (),
    )


def _packet(_options):
    yield Work("packet", "packet", SCENARIOS["packet"], (), 0, (), ())


def _micro(_options):
    yield Work("micro", "micro", SCENARIOS["micro"], (), 0, (), ())


_MAKERS = {
    "bulk": _bulk,
    "rr": _rr,
    "rr-rate": _rr_rate,
    "crr": _crr,
    "idle": _idle,
    "tunnels": _tunnels,
    "limits": _limits,
    "mixed": _mixed,
    "halfclose": _halfclose,
    "chaos": _chaos,
    "soak": _soak,
    "packet": _packet,
    "micro": _micro,
}

# The published plan: seconds of each load, and what stands behind the README's tables.
PUBLISHED_SECONDS = 1.0
PUBLISHED_BUDGET_S = 13 * 60


def published(quick=False):
    """About a hundred samples of two seconds a round. `quick`: the same, too short to publish."""
    seconds = QUICK["seconds"] if quick else PUBLISHED_SECONDS

    def made(targets, scenario, **numbers):
        chosen = Options(
            scenarios=(scenario,),
            targets=tuple(targets.split()),
            **({"seconds": seconds} | numbers),
        )
        return works(chosen)

    short = "ours+bore ours+rust ours+plain rust+rust nginx haproxy rathole frp direct"
    one = f"{short} frp:nomux frp:tls"
    many = "ours+bore ours+rust rust+rust nginx haproxy rathole direct"
    alone = "ours+bore ours+rust ours:busy+rust rust+rust nginx haproxy rathole frp direct"
    busy = "ours+bore ours+rust ours:epoll+rust rust+rust nginx haproxy rathole frp direct"
    tunnels = "ours+bore ours+rust rust+rust nginx haproxy rathole frp"
    found = made(one, "bulk", streams=(1,)) + made(many, "bulk", streams=(16,))
    found += made(alone, "rr", sizes=("64",), connections=(1,))
    found += made(busy, "rr", sizes=("64",), connections=(64,))
    # The service acknowledges at once: else a client that leaves Nagle on waits 40 ms for it,
    # through every relay, and nothing else is seen (bench/README.md).
    found += made(
        "ours+bore ours+rust rust+rust nginx rathole",
        "rr",
        sizes=("20000",),
        connections=(4,),
        service_quickack=True,
    )
    found += made(tunnels, "rr-rate", sizes=("64",), connections=(64,), rates=(5_000,))
    found += made(short, "crr")
    found += made(tunnels, "idle", pairs=2_000)
    found += made("ours+plain rust+plain", "tunnels", tunnels=1_000)
    found += made("ours+bore nginx frp", "limits", directions=("down",))
    found += made(
        "ours+bore rust+rust nginx haproxy rathole frp", "mixed", streams=(4,), sizes=("64",)
    )
    return found + works(Options(scenarios=("halfclose",)))
