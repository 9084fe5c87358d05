"""Student's t against printed tables, intervals, verdicts, percentiles of histograms."""

import math
import random
import statistics

import pytest
from borebench import stats


@pytest.mark.parametrize(
    ("confidence", "degrees", "value"),
    [
        # Two-sided, from the usual tables (e.g. NIST/SEMATECH e-Handbook, 1.3.6.7.2).
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.95, 5, 2.571),
        (0.95, 9, 2.262),
        (0.95, 10, 2.228),
        (0.95, 30, 2.042),
        (0.95, 100, 1.984),
        (0.99, 1, 63.657),
        (0.99, 2, 9.925),
        (0.99, 7, 3.499),
        (0.99, 20, 2.845),
        (0.90, 6, 1.943),
        (0.999, 3, 12.924),
        (0.50, 1, 1.000),
    ],
)
def test_quantiles_of_student_t_are_those_of_the_tables(confidence, degrees, value):
    assert stats.t_quantile(confidence, degrees) == pytest.approx(value, abs=6e-4)


def test_student_t_with_many_degrees_is_the_normal_distribution():
    for t in (0.5, 1.0, 1.96, 3.0):
        assert stats.t_probability(t, 5000) == pytest.approx(math.erf(t / math.sqrt(2)), abs=2e-4)


@pytest.mark.parametrize("degrees", [0, -1, 1.5])
def test_degrees_of_freedom_that_are_none_are_refused(degrees):
    with pytest.raises(ValueError, match="degrees of freedom"):
        stats.t_probability(1.0, degrees)


def test_a_paired_ratio_does_not_notice_a_busy_round():
    ratio = stats.paired_ratio([1, 4, 1, 1], [2, 8, 2, 2.1])
    assert ratio.value == pytest.approx(0.494, abs=0.001)
    assert ratio.beyond_noise and ratio.rounds == 4
    # The same numbers, not paired: the busy round hides it.
    assert not stats.welch_ratio([1, 4, 1, 1], [2, 8, 2, 2.1]).beyond_noise


def test_a_round_that_one_side_lacks_is_left_out():
    assert stats.paired_ratio([1, None, 3], [2, 5, None]).rounds == 1
    assert stats.paired_ratio([None], [1]) is None
    assert stats.paired_ratio([0, 1, 2], [1, 1, 2]).rounds == 2


@pytest.mark.parametrize(("better", "expected"), [("low", "better"), ("high", "worse")])
def test_verdict_follows_the_side_that_is_good(better, expected):
    assert stats.verdict(stats.paired_ratio([1, 1.01, 1], [2, 2, 2.01]), better) == expected


def test_verdict_needs_rounds_and_size():
    assert stats.verdict(None, "low") == "unknown"
    assert stats.verdict(stats.paired_ratio([1, 1], [2, 2]), "low") == "unknown"
    assert stats.verdict(stats.paired_ratio([1, 3, 1], [2, 1, 2]), "low") == "same"
    small = stats.paired_ratio([1.010, 1.011, 1.010], [1, 1, 1])
    assert stats.verdict(small, "low") == "worse"
    assert stats.verdict(small, "low", least=0.02) == "same"


def test_equal_counts_are_surely_the_same():
    ratio = stats.paired_ratio([5, 5, 5], [5, 5, 5])
    assert (ratio.low, ratio.high, stats.verdict(ratio, "low")) == (1, 1, "same")


def test_intervals_hold_as_often_as_they_say():
    # Of 400 intervals of 95 %, between 350 and 399 hold the truth with a probability of 1 - 1e-6.
    chance = random.Random(7)
    held = {"paired": 0, "welch": 0}
    for _ in range(400):
        ours = [math.exp(chance.gauss(math.log(2), 0.2)) for _ in range(4)]
        theirs = [math.exp(chance.gauss(0, 0.1)) for _ in range(4)]
        for name, ratio in (
            ("paired", stats.paired_ratio(ours, theirs)),
            ("welch", stats.welch_ratio(ours, theirs)),
        ):
            held[name] += ratio.low <= 2 <= ratio.high
    assert 350 <= held["paired"] <= 399
    assert 350 <= held["welch"] <= 399


def test_a_wild_interval_is_unbounded_and_no_overflow():
    assert stats.paired_ratio([1e-200, 1e200], [1e200, 1e-200]).high == math.inf


def test_spread():
    spread = stats.Spread.of([3, 1, 2])
    assert (spread.median, spread.low, spread.high, spread.relative) == (2, 1, 3, 0.5)


def test_slope():
    assert stats.slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert stats.slope([(1, 5), (1, 7)]) == 0
    assert stats.slope([]) == 0


def test_curve_agrees_with_sorted_samples():
    chance = random.Random(3)
    samples = sorted(chance.choice((1000, 2000, 5000, 9000)) for _ in range(1001))
    buckets = [[value, samples.count(value)] for value in sorted(set(samples))]
    quantiles = (0.001, 0.25, 0.5, 0.9, 0.999, 1.0)
    expected = [samples[max(1, math.ceil(q * 1001)) - 1] / 1000 for q in quantiles]
    assert stats.curve(buckets, quantiles) == expected
    assert stats.curve(buckets, (0.5,))[0] == statistics.median(samples) / 1000
    assert stats.curve([], quantiles) == []
