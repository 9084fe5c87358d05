"""Medians with spread, and whether a difference is beyond noise. Pure arithmetic.

Rates, times and costs are compared as ratios, so everything happens on logarithms: a ratio of 2 and
one of 1/2 are equally far from 1, and the noise of a machine multiplies. A difference counts as
beyond noise when the confidence interval of the ratio, by Student's t, leaves out 1.

Within one run values come in pairs (the same round), which cancels what a busy minute did to both;
between two runs they do not, and Welch's interval takes both spreads as they are.
"""

import dataclasses
import math
import statistics

CONFIDENCE = 0.95
# With two rounds the interval is so wide (t = 12.7) that its verdict would only ever be noise.
LEAST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values), len(values))

    @property
    def relative(self):
        """Half the range, as a share of the median: what a single sample is worth."""
        return (self.high - self.low) / (2 * abs(self.median)) if self.median else 0.0


def t_probability(t, degrees):
    """P(|T| <= t) for a whole number of degrees of freedom: the finite sums of Abramowitz and
    Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even)."""
    if degrees < 1 or degrees != int(degrees):
        raise ValueError(f"{degrees} degrees of freedom; a whole number from 1 on is needed")
    if math.isinf(t):
        return 1.0
    angle = math.atan2(abs(t), math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    even = degrees % 2 == 0
    term = 1.0 if even else cosine
    total = 0.0
    # Each term is the one before times (k-1)/k cos^2, k being even or odd as the degrees are not.
    for k in range(2 if even else 3, int(degrees) + 1, 2):
        total += term
        term *= (k - 1) / k * cosine * cosine
    if even:
        return sine * total
    return 2 / math.pi * (angle + sine * total)


def t_quantile(confidence, degrees):
    """The t that |T| stays below with this probability."""
    low, high = 0.0, 2.0
    while t_probability(high, degrees) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if t_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return high


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio with its interval; `probability`: how sure it is that the ratio is not 1."""

    value: float
    low: float
    high: float
    probability: float
    rounds: int

    @property
    def beyond_noise(self):
        return self.rounds >= LEAST_ROUNDS and not self.low <= 1 <= self.high


def paired_ratio(ours, theirs, confidence=CONFIDENCE):
    """Ratio of two series of one run, round by round; None entries leave their round out. None
    when no round has both. Values that are not positive have no ratio and are left out, too."""
    logs = [math.log(a) - math.log(b) for a, b in zip(ours, theirs) if a and b and a > 0 and b > 0]
    if not logs:
        return None
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return _interval(statistics.fmean(logs), error, len(logs) - 1, confidence, len(logs))


def welch_ratio(new, old, confidence=CONFIDENCE):
    """Ratio of two series that are not paired: those of two runs."""
    new = [math.log(value) for value in new if value and value > 0]
    old = [math.log(value) for value in old if value and value > 0]
    if not new or not old:
        return None
    centre, rounds = statistics.fmean(new) - statistics.fmean(old), min(len(new), len(old))
    if rounds < 2:
        return _interval(centre, math.inf, 0, confidence, rounds)
    parts = [statistics.variance(one) / len(one) for one in (new, old)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return _interval(centre, 0.0, len(new) + len(old) - 2, confidence, rounds)
    # Welch and Satterthwaite; rounded down, which widens the interval.
    degrees = sum(parts) ** 2 / sum(p * p / (len(one) - 1) for p, one in zip(parts, (new, old)))
    return _interval(centre, error, max(1, math.floor(degrees)), confidence, rounds)


def _interval(centre, error, degrees, confidence, rounds):
    if degrees < 1:
        return Ratio(math.exp(centre), 0.0, math.inf, 0.0, rounds)
    if error == 0:  # counts that came out alike every time
        probability = 0.0 if centre == 0 else 1.0
        return Ratio(math.exp(centre), math.exp(centre), math.exp(centre), probability, rounds)
    reach = t_quantile(confidence, degrees) * error
    # exp() of more than 700 overflows; so unsure a ratio is unbounded.
    bounds = [
        math.exp(edge) if edge < 700 else math.inf for edge in (centre - reach, centre + reach)
    ]
    return Ratio(math.exp(centre), *bounds, t_probability(centre / error, degrees), rounds)


def verdict(ratio, better, least=0.0):
    """'better', 'worse', 'same' (within noise, or less than `least`) or 'unknown' (too few rounds).

    `better`: 'low' or 'high', the side that is good."""
    if ratio is None or ratio.rounds < LEAST_ROUNDS:
        return "unknown"
    if not ratio.beyond_noise or abs(math.log(ratio.value)) <= math.log1p(least):
        return "same"
    return "better" if (ratio.value < 1) == (better == "low") else "worse"


def slope(points):
    """Least squares through (x, y): y gained per x; 0 with fewer than two different x."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    xs, ys = zip(*points)
    return statistics.linear_regression(xs, ys).slope


def curve(buckets_ns, quantiles):
    """Latency in µs at each quantile (0…1) of a histogram: [[highest value of a bucket in ns,
    count], …], ascending."""
    total = sum(count for _, count in buckets_ns)
    found, seen, rest = [], 0, iter(buckets_ns)
    value = 0
    for quantile in quantiles:
        # The rank of HdrHistogram: the smallest value that this share of all does not exceed.
        rank = max(1, math.ceil(quantile * total - 1e-9))
        while seen < rank:
            value, count = next(rest, (value, rank))
            seen += count
        found.append(value / 1000)
    return found if total else []
