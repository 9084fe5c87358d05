"""The arithmetic and the tables of the hand-offs' bench."""

import collections

import pytest

import handoff_report as report

COUNTERS = collections.Counter({
    "handoffs_total": 100, "handoffs_measured_total": 80, "handoff_ns_total": 1_600_000,
    "handoff_frozen_ns_total": 1_000_000, "handoff_frozen_under_8us_total": 60,
    "handoff_frozen_under_16us_total": 39, "handoff_frozen_over_1024us_total": 1})
CALLS = {**{f"{name}_us": 2.0 for name in report.CALLS}, "total_us": 10.0}


def one_round(counters=COUNTERS):
    return {at_once: report.figures(counters, 5_000_000) | {"calls": CALLS}
            for at_once in report.AT_ONCE}


def test_figures_are_per_hand_off_and_processor_time_per_measured_one():
    found = report.figures(COUNTERS, 5_000_000)
    assert (found["cpu_us"], found["thread_us"], found["frozen_mean_us"]) == (20.0, 50.0, 10.0)
    assert found["frozen"] == [60, 39, 0, 0, 0, 0, 0, 1]


def test_quantiles_are_the_upper_ends_of_buckets():
    counts = report.frozen_counts(COUNTERS)
    assert report.quantile_us(counts, 0.5) == 8
    assert report.quantile_us(counts, 0.99) == 16
    assert report.quantile_us(counts, 0.995) == float("inf")
    with pytest.raises(ValueError):
        report.quantile_us([0] * 8, 0.5)


def test_the_requirement_is_met_at_its_limit_and_missed_beyond():
    assert "pass" in report.cells(1, [one_round()])
    slower = COUNTERS + collections.Counter(handoff_ns_total=1_000)
    assert "MISS" in report.cells(1, [one_round(slower)])


def test_publishing_replaces_what_is_between_the_markers_and_nothing_else():
    readme = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.published(readme, "new")
    assert once == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.published(once, "new") == once
    with pytest.raises(ValueError):
        report.published("no markers", "new")
