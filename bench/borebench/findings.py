"""What a result says: statements about pairs of targets, warnings about noise, bottlenecks. Pure.

Used by the terminal's tables, the report and the published tables, so that all say the same.
"""

import dataclasses

from borebench import document, machine, plan, stats
from borebench.metrics import METRICS, number

# An interval wider than this (highest over lowest) says nothing about the size of a difference.
TELLING_WIDTH = 1.5


@dataclasses.dataclass(frozen=True)
class Statement:
    work: str
    metric: str
    target: str
    reference: str
    ratio: stats.Ratio | None
    verdict: str  # better, worse, same, noisy, unknown

    @property
    def words(self):
        if self.ratio is None:
            return "not measured"
        times = f"{number(self.ratio.value)} ×"
        if self.verdict == "unknown":
            return (
                f"{times} {self.reference} (fewer than {stats.LEAST_ROUNDS} rounds: no statement)"
            )
        span = f"[{number(self.ratio.low)}, {number(self.ratio.high)}]"
        return f"{times} {self.reference} {span}: {MEANINGS[self.verdict]}"


MEANINGS = {
    "better": "better, beyond noise",
    "worse": "WORSE, beyond noise",
    "same": "within noise",
    "noisy": "too noisy to tell",
}


def state(result, work, metric, target, reference):
    ours, theirs = document.pairs(result, work, target, reference, metric)
    ratio = stats.paired_ratio(ours, theirs)
    verdict = stats.verdict(ratio, METRICS[metric].better)
    if verdict == "same" and not (ratio.low > 0 and ratio.high / ratio.low < TELLING_WIDTH):
        verdict = "noisy"
    return Statement(work, metric, target, reference, ratio, verdict)


def references(result, work):
    """What the targets of a work are compared with: the usual ones, else the first not ours."""
    measured = document.targets_of(result, work)
    usual = [name for name in plan.REFERENCES if name in measured]
    others = [name for name in measured if not name.startswith("ours")]
    return usual or others[:1] or measured[:1]


def statements(result, work, metric):
    """Every target of a work against every reference."""
    return [
        state(result, work, metric, target, reference)
        for reference in references(result, work)
        for target in document.targets_of(result, work)
        if target != reference
    ]


def measured_metrics(result, work):
    """Those of a work that at least one sample has, in the order of the plan."""
    got = {name for one in result["samples"] if one["work"] == work for name in one["metrics"]}
    return [name for name in document.work(result, work)["metrics"] if name in got]


def measured_works(result):
    return [
        one["name"]
        for one in result["works"]
        if any(sample["work"] == one["name"] for sample in result["samples"])
    ]


def warnings(result):
    """Sentences about what makes the figures doubtful."""
    found = []
    if result["status"] != "complete":
        found.append(
            f"The run is {result['status']}: these are {result['rounds_done']} whole rounds "
            "and what else was measured."
        )
    samples = [one for one in result["samples"] if "noise" in one]
    disturbed = [one for one in samples if machine.disturbed(one["noise"])]
    if len(disturbed) * 10 > len(samples):
        worst = max(samples, key=lambda one: one["noise"]["foreign_cores"])["noise"]
        found.append(
            f"The machine was noisy: {len(disturbed)} of {len(samples)} samples had others "
            f"on more than {machine.FOREIGN_CORES:g} cores or more than {machine.STEAL_SHARE:.0%} "
            f"stolen by the hypervisor (at most {worst['foreign_cores']:.1f} foreign cores)."
        )
    for work in measured_works(result):
        lead = measured_metrics(result, work)[:1]
        noisy = [
            one
            for metric in lead
            for one in statements(result, work, metric)
            if one.verdict == "noisy"
        ]
        if noisy:
            pairs = ", ".join(f"{one.target} from {one.reference}" for one in noisy)
            found.append(
                f"{work}: too noisy to tell {pairs} by {METRICS[lead[0]].unit}; more rounds "
                "or a quiet machine would."
            )
    found += _bottlenecks(result)
    return found


def _bottlenecks(result):
    found = []
    for work in measured_works(result):
        for who, meaning in (("generator", "the load generator"), ("service", "the local service")):
            hit = {
                one["target"]
                for one in result["samples"]
                if one["work"] == work and who in one.get("bottlenecks", ())
            }
            if hit:
                found.append(
                    f"{work}: {meaning} was busy all the time for {', '.join(sorted(hit))}; "
                    "rate and latency there may be its own, processor time is the relay's."
                )
    return found


def lost_answers(result):
    """{target: (lost, tries)} of the scenario halfclose, over all rounds."""
    found = {}
    for sample in result["samples"]:
        for load in sample["loads"]:
            if load.get("mode") == "halfclose":
                lost, tries = found.get(sample["target"], (0, 0))
                found[sample["target"]] = (lost + load["lost"], tries + load["tries"])
    return found
