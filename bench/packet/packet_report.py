"""What is measured of the packet path, what is required of it, and the tables. Pure arithmetic: no
process is touched here. Used by run; tested by test_packet_report.py.

A case is one kind of frame and one number of flows. In a case every program is run once a round;
ratios and differences are taken within a round, the tables show their median and range.
"""

import dataclasses
import statistics

LARGE_TABLE_FLOWS = 50_000  # from here on frames of 64 bytes get small buffers


@dataclasses.dataclass(frozen=True)
class Case:
    payload_bytes: int
    flows: int

    @property
    def name(self):
        size = "64 B" if self.payload_bytes == 0 else f"{self.payload_bytes} B of payload"
        return f"{size}, {self.flows:,} flows"

    @property
    def buffer_bytes(self):
        small = self.payload_bytes == 0 and self.flows >= LARGE_TABLE_FLOWS
        return 128 if small else 2048

    @property
    def mbuf_count(self):
        """Of testpmd: the packets that both ports repeat, and some to work with."""
        return 2 * self.flows + 8192

    @property
    def hugepage_bytes(self):
        per_mbuf = self.buffer_bytes + 128 + 128 + 64  # headroom, mbuf, header of the pool
        # A large pool is laid out with gaps: up to twice as much was seen.
        return 2 * self.mbuf_count * per_mbuf + 300 * self.flows + (64 << 20)


CASES = (
    Case(0, 1_000),
    Case(0, 10_000),
    Case(0, 100_000),
    Case(0, 1_000_000),
    Case(1_460, 1_000),
)
OURS = ("io", "parse", "look-up", "splice")
TESTPMD = ("io", "5tswap")
STAGES = (  # name, mode with it, mode without it
    ("parse, hash", "parse", "io"),
    ("look-up", "look-up", "parse"),
    ("translate, emit", "splice", "look-up"),
)


@dataclasses.dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values))

    def text(self, digits=1):
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclasses.dataclass(frozen=True)
class Requirement:
    text: str
    case: Case
    metric: str
    limit: float
    at_least: bool

    def met(self, spread):
        return spread.median >= self.limit if self.at_least else spread.median <= self.limit


REQUIREMENTS = (
    Requirement("1 k flows, × 5tswap", CASES[0], "ratio", 0.75, True),
    Requirement("1 k flows, cycles beyond the port", CASES[0], "beyond", 80, False),
    Requirement("1 M flows, × 5tswap", CASES[3], "ratio", 0.45, True),
    Requirement("1 M flows, cycles beyond the port", CASES[3], "beyond", 180, False),
    Requirement("10 k flows, Mpps on one core", CASES[1], "mpps", 14.88, True),
    Requirement("1460 B, × 5tswap", CASES[4], "ratio", 0.9, True),
)
MOST_BYTES_PER_FLOW = 256


def derived(rounds):
    """Metrics of a case from its rounds, each a dictionary of cycles per packet by program."""
    def over(function):
        return Spread.of([function(one) for one in rounds])

    found = {
        "ratio": over(lambda one: one["testpmd 5tswap"] / one["splice"]),
        # The port is whatever is cheaper at it; taking ours would hide what our frames cost.
        "beyond": over(lambda one: one["splice"] - one["testpmd io"]),
        "beyond_own_io": over(lambda one: one["splice"] - one["io"]),
        "mpps": over(lambda one: one["ghz"] * 1e3 / one["splice"]),
    }
    for name, with_it, without in STAGES:
        found[name] = over(lambda one, a=with_it, b=without: one[a] - one[b])
    return found


def programs():
    return [*OURS, *(f"testpmd {mode}" for mode in TESTPMD)]


def table(lines):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def row(cells):
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"

    rule = ["-" * width for width in widths]
    return "\n".join([row(lines[0]), row(rule), *(row(line) for line in lines[1:])])


def cycles_table(results):
    """Cycles per packet of every program, one core serving both ports."""
    lines = [["cycles per packet", *(name for name in programs())]]
    for case, rounds in results.items():
        cells = [Spread.of([one[name] for one in rounds]).text() for name in programs()]
        lines.append([case.name, *cells])
    return table(lines)


def summary_table(results):
    lines = [["", "Mpps both ports", "Mpps per port", "beyond testpmd's io", "beyond our io",
              "× 5tswap", *(name for name, _, _ in STAGES)]]
    for case, rounds in results.items():
        found = derived(rounds)
        lines.append([
            case.name,
            found["mpps"].text(),
            f"{found['mpps'].median / 2:.1f}",
            found["beyond"].text(),
            found["beyond_own_io"].text(),
            found["ratio"].text(2),
            *(f"{found[name].median:.1f}" for name, _, _ in STAGES),
        ])
    return table(lines)


def requirement_table(results, memory):
    lines = [["requirement", "must", "measured", ""]]
    for wanted in REQUIREMENTS:
        sign = "≥" if wanted.at_least else "≤"
        if wanted.case not in results:
            lines.append([wanted.text, f"{sign} {wanted.limit}", "not measured", ""])
            continue
        spread = derived(results[wanted.case])[wanted.metric]
        verdict = "pass" if wanted.met(spread) else "MISS"
        lines.append([wanted.text, f"{sign} {wanted.limit}", spread.text(2), verdict])
    for sample in memory:
        kind = "IPv6" if sample["ipv6"] else "IPv4"
        most = sample["most_bytes_per_flow"]
        verdict = "pass" if most <= MOST_BYTES_PER_FLOW else "MISS"
        lines.append([f"bytes per flow, {sample['flows']:,} of {kind}", f"≤ {MOST_BYTES_PER_FLOW}",
                      f"{sample['bytes_per_flow']:.0f}, at worst {most:.0f} with "
                      f"{sample['worst_flows']:,}", verdict])
    return table(lines)


# ---- Figures in READMEs, between markers, so that nobody types them.

def marked(text, name, figures):
    """`text` with what stands between the markers of `name` replaced."""
    begin, end = f"<!-- {name}: written by bench/packet/run --publish -->", f"<!-- end of {name} -->"
    head, found_begin, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"there is no '{begin}' with its '{end}' behind it")
    return f"{head}{begin}\n{figures}\n{end}{tail}"


def front_page_table(results, memory):
    """The requirements in one small table, what is missed in bold."""
    found = {case: derived(rounds) for case, rounds in results.items()}

    def cell(metric, case, digits=2):
        wanted = next((one for one in REQUIREMENTS if (one.metric, one.case) == (metric, case)), None)
        if case not in found:
            return "not measured"
        spread = found[case][metric]
        value = f"{spread.median:.{digits}f}"
        return value if wanted is None or wanted.met(spread) else f"**{value}**"

    def bytes_cell(ipv6):
        values = [sample["most_bytes_per_flow"] for sample in memory if sample["ipv6"] == ipv6]
        text = f"{max(values):.0f}" if values else "not measured"
        return f"**{text}**" if values and max(values) > MOST_BYTES_PER_FLOW else text

    few, some, _, many, large = CASES
    return table([
        ["Work", "Must", "Measured"],
        ["64 bytes, 1,000 flows: cycles beyond the port's own; × `5tswap`", "≤ 80; ≥ 0.75",
         f"{cell('beyond', few, 0)}; {cell('ratio', few)}"],
        ["64 bytes, 10,000 flows: Mpps on one core, both directions together", "≥ 14.88",
         cell("mpps", some, 1)],
        ["64 bytes, 1,000,000 flows in random order: cycles; × `5tswap`", "≤ 180; ≥ 0.45",
         f"{cell('beyond', many, 0)}; {cell('ratio', many)}"],
        ["1,460 bytes: × `5tswap`", "≥ 0.9", cell("ratio", large)],
        ["bytes per flow, both directions, at worst from 500,000 flows on: IPv4; IPv6", "≤ 256",
         f"{bytes_cell(False)}; {bytes_cell(True)}"],
    ])
