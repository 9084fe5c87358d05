"""What became better, worse or stayed the same between two results. Pure; the command is in cli.py.

The rounds of two runs are not pairs, so the interval is Welch's. Two runs are never of one moment:
with `relative_to`, every value is first divided by that target's of the same round, which takes the
machine's day out of the comparison.
"""

import dataclasses

from borebench import document, findings, stats
from borebench.metrics import METRICS, number

SAME_OR_BETTER, WORSE, CANNOT = 0, 1, 2
# Less than this is not reported as a change, however sure it is.
LEAST_CHANGE = 0.02
# Counts, most often 0, have no ratio: compared by their worst value.
COUNTS = (
    "lost",
    "unanswered",
    "answers_lost_percent",
    "lost_bytes",
    "corrupt_streams",
    "exchanges_failed",
    "descriptors_gained",
    "rss_bytes_per_hour",
)


@dataclasses.dataclass(frozen=True)
class Change:
    work: str
    target: str
    metric: str
    old: stats.Spread
    new: stats.Spread
    ratio: stats.Ratio | None
    verdict: str  # better, worse, same, unknown

    def cells(self):
        interval = confidence = ""
        if self.ratio:
            interval = (
                f"{number(self.ratio.value)} [{number(self.ratio.low)}, {number(self.ratio.high)}]"
            )
            confidence = f"{self.ratio.probability:.1%}"
        return [
            self.verdict,
            self.work,
            self.target,
            METRICS[self.metric].unit,
            number(self.old.median),
            number(self.new.median),
            interval,
            confidence,
        ]


HEAD = ["", "work", "target", "figure", "before", "after", "ratio", "surely different"]


class CannotCompare(ValueError):
    """The text says why."""


def check(old, new, relative_to=None):
    """Raises CannotCompare, or returns sentences about what limits the comparison."""
    found = []
    for name, result in (("the first", old), ("the second", new)):
        if not result["samples"]:
            raise CannotCompare(f"{name} result has no samples")
        if result["status"] != "complete":
            found.append(f"{name} run is {result['status']}")
    for field in ("cpu", "cpu_count", "kernel", "congestion_control"):
        if old["machine"].get(field) != new["machine"].get(field):
            found.append(
                f"{field} differs: {old['machine'].get(field)}, then {new['machine'].get(field)}"
                + ("" if relative_to else "; --relative-to TARGET takes most of that out")
            )
    return found


def changes(old, new, relative_to=None, least=LEAST_CHANGE):
    """Every figure that both have, what is worse first."""
    planned = {one["name"]: one for one in old["works"]}
    found = []
    for work in findings.measured_works(new):
        if work not in planned:
            continue
        if planned[work]["load"] != document.work(new, work)["load"]:
            raise CannotCompare(
                f"{work} is another load in each: {planned[work]['load']} and "
                f"{document.work(new, work)['load']}"
            )
        for target in document.targets_of(new, work):
            if target != relative_to:
                found += _of_target(old, new, work, target, relative_to, least)
    if not found:
        raise CannotCompare(
            "no work was measured on the same target in both"
            + (f", with {relative_to} beside it" if relative_to else "")
        )
    if all(one.verdict == "unknown" for one in found):
        raise CannotCompare(
            f"neither has {stats.LEAST_ROUNDS} rounds: no difference can be told from noise"
        )
    order = ("worse", "better", "unknown", "same")
    return sorted(found, key=lambda one: order.index(one.verdict))


def _of_target(old, new, work, target, relative_to, least):
    for metric in document.work(new, work)["metrics"]:
        before, after = (_values(one, work, target, metric, relative_to) for one in (old, new))
        if not before or not after:
            continue
        spreads = stats.Spread.of(before), stats.Spread.of(after)
        if metric in COUNTS:
            yield Change(work, target, metric, *spreads, None, _count_verdict(metric, *spreads))
            continue
        ratio = stats.welch_ratio(after, before)
        verdict = stats.verdict(ratio, METRICS[metric].better, least)
        yield Change(work, target, metric, *spreads, ratio, verdict)


def _count_verdict(metric, before, after):
    """Worse when every round after is worse than the worst before, as with a count that was 0."""
    # Growth is measured, not counted, and never twice the same.
    if metric == "rss_bytes_per_hour" and min(before.count, after.count) < stats.LEAST_ROUNDS:
        return "unknown"
    if after.low > before.high:
        return "worse"
    return "better" if after.high < before.low else "same"


def _values(result, work, target, metric, relative_to):
    if relative_to is None or metric in COUNTS:
        return document.values(result, work, target, metric)
    ours, theirs = document.pairs(result, work, target, relative_to, metric)
    return [a / b for a, b in zip(ours, theirs) if b]


def exit_status(found):
    return WORSE if any(one.verdict == "worse" for one in found) else SAME_OR_BETTER
