"""What `handoffs` makes of the relay's counters: figures of a round, the table, the README's part.
Pure: no relay, no process."""

from packet_report import Spread, table

AT_ONCE = (1, 64)
MUST_US = 20.0
# Upper ends of the relay's counters of frozen times, in microseconds.
FROZEN_US = (8, 16, 32, 64, 128, 256, 1024)
CALLS = ("snapshots", "closes")
BEGIN = "<!-- handoffs: written by bench/packet/handoffs --publish -->"
END = "<!-- end of handoffs -->"


def frozen_counts(counters):
    names = [*(f"handoff_frozen_under_{bound}us_total" for bound in FROZEN_US),
             "handoff_frozen_over_1024us_total"]
    return [counters[name] for name in names]


def quantile_us(counts, part):
    """The upper end of the bucket in which so large a part of the hand-offs lies or ends."""
    if sum(counts) == 0:
        raise ValueError("no hand-off was counted")
    seen = 0
    for count, bound in zip(counts, (*FROZEN_US, float("inf"))):
        seen += count
        if seen >= part * sum(counts):
            break
    return bound


def figures(counters, thread_ns):
    """Of one kind in one round; `counters`: what the relay counted meanwhile."""
    done, measured = counters["handoffs_total"], counters["handoffs_measured_total"]
    return {
        "handoffs": done,
        "measured": measured,
        "cpu_us": counters["handoff_ns_total"] / measured / 1e3,
        "thread_us": thread_ns / done / 1e3,
        "frozen_mean_us": counters["handoff_frozen_ns_total"] / done / 1e3,
        "frozen": frozen_counts(counters),
    }


def line(at_once, one):
    return (f"{at_once} at once {one['cpu_us']:.1f} us of processor time, "
            f"system calls {one['calls']['total_us']:.1f}")


def _bound(value):
    return "> 1,024" if value == float("inf") else f"< {value:,}"


def cells(at_once, rounds):
    """A row of the table."""
    ones = [one[at_once] for one in rounds]

    def spread(function):
        return Spread.of([function(one) for one in ones])

    cpu = spread(lambda one: one["cpu_us"])
    counts = [sum(column) for column in zip(*(one["frozen"] for one in ones))]
    return [
        str(at_once),
        cpu.text(),
        "pass" if cpu.median <= MUST_US else "MISS",
        spread(lambda one: one["calls"]["total_us"]).text(),
        spread(lambda one: one["cpu_us"] / one["calls"]["total_us"]).text(2),
        spread(lambda one: one["thread_us"]).text(),
        spread(lambda one: one["frozen_mean_us"]).text(),
        _bound(quantile_us(counts, 0.5)),
        _bound(quantile_us(counts, 0.99)),
        f"{sum(one['measured'] for one in ones):,} of {sum(one['handoffs'] for one in ones):,}",
    ]


def call_cells(at_once, rounds):
    ones = [one[at_once]["calls"] for one in rounds]
    return [str(at_once), *(Spread.of([one[f"{name}_us"] for one in ones]).text()
                            for name in (*CALLS, "total"))]


def text(about, options, rounds):
    return "\n\n".join([
        f"{about['date'][:10]}, {about['cpu']}, Linux {about['kernel']}, load average "
        f"{about['load_average_before']:.1f}, {options.rounds} rounds of {options.pairs} "
        f"hand-offs of each kind, `--packet-idle {options.idle}`; µs per pair, median "
        "[lowest, highest]:",
        table([["at once", "processor time", f"must: ≤ {MUST_US:g}", "its system calls in a loop",
                "ratio", "whole thread", "frozen, mean", "p50", "p99", "measured"],
               *(cells(at_once, rounds) for at_once in AT_ONCE)]),
        table([["the system calls alone, at once", *CALLS, "all"],
               *(call_cells(at_once, rounds) for at_once in AT_ONCE)]),
    ])


def published(readme, new):
    """The README with this text between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no part between '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def publish(name, new):
    with open(name, encoding="utf-8") as file:
        readme = file.read()
    with open(name, "w", encoding="utf-8") as file:
        file.write(published(readme, new))
