"""Whether two sets of samples differ: the Mann-Whitney test in its exact form, corrected for the
number of rows that are asked at once. Pure. Used by compare; tested by test_verdicts.py.

Exact: all ways of dealing the pooled ranks to the two sides are counted, ties included, instead of
trusting a normal curve with nine samples. Holm's correction keeps the chance of even one false alarm
among all rows below the level, without asking each row for more than it must.
"""

import statistics
from dataclasses import dataclass

LEVEL = 0.05


def doubled_ranks(samples):
    """Twice the rank of each sample, ties sharing their mean rank: whole numbers."""
    order = sorted(samples)
    first = {}
    last = {}
    for place, value in enumerate(order, start=1):
        first.setdefault(value, place)
        last[value] = place
    return [first[value] + last[value] for value in samples]


def mann_whitney(left, right):
    """The two-sided probability of ranks as uneven as these when both sides are alike."""
    ranks = doubled_ranks([*left, *right])
    count, total = len(left), len(left) + len(right)
    # ways[k][s]: choices of k ranks with the sum s.
    ways = [{} for _ in range(count + 1)]
    ways[0][0] = 1
    for rank in ranks:
        for size in range(count - 1, -1, -1):
            for rank_sum, number in ways[size].items():
                larger = rank_sum + rank
                ways[size + 1][larger] = ways[size + 1].get(larger, 0) + number
    middle = count * (total + 1)  # the doubled sum that is expected
    distance = abs(sum(ranks[:count]) - middle)
    as_far = sum(number for rank_sum, number in ways[count].items()
                 if abs(rank_sum - middle) >= distance)
    return as_far / sum(ways[count].values())


def holm(probabilities):
    """Each probability as it counts among all of them."""
    adjusted = [0.0] * len(probabilities)
    so_far = 0.0
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    for place, index in enumerate(order):
        so_far = max(so_far, min(1.0, (len(probabilities) - place) * probabilities[index]))
        adjusted[index] = so_far
    return adjusted


@dataclass(frozen=True)
class Judged:
    name: str
    before: float  # medians
    after: float
    probability: float  # adjusted
    verdict: str  # worse, better, same: less than `least`; unsure: more, but within noise

    @property
    def ratio(self):
        return self.after / self.before


def judge(before, after, least):
    """Rows that both sides have, in the order of the second. `least` is the smallest change that
    matters, as a share: 0.05 is five percent."""
    older = {row.name: row for row in before}
    pairs = [(older[row.name], row) for row in after if row.name in older]
    probabilities = holm([mann_whitney(old.samples, new.samples) for old, new in pairs])
    judged = []
    for (old, new), probability in zip(pairs, probabilities):
        medians = statistics.median(old.samples), statistics.median(new.samples)
        ratio = medians[1] / medians[0]
        if 1 / (1 + least) < ratio < 1 + least:
            verdict = "same"
        elif probability > LEVEL:
            verdict = "unsure"
        else:
            verdict = "worse" if ratio > 1 else "better"
        judged.append(Judged(new.name, *medians, probability, verdict))
    return judged
