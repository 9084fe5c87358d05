"""The arithmetic and the tables of the comparison, without a process. Run: pytest bench"""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import figures
import measure
import peers


def requirement(**changes):
    base = {"text": "t", "work": "w", "metric": "cpu_s_per_gb", "ours": "o", "rival": "r", "limit": 0.5}
    return figures.Requirement(**(base | changes))


def rounds(*values):
    return [None if value is None else {"cpu_s_per_gb": value} for value in values]


def test_the_ratio_is_the_median_of_the_ratios_within_each_round():
    # Busy second round: both cost four times as much, the ratio does not notice.
    samples = {"w": {"o": rounds(1, 4, 1), "r": rounds(2, 8, 4)}}
    ours, rival, ratio, verdict = figures.judge(requirement(), samples)
    assert (ours.median, rival.median) == (1, 4)
    assert (ratio.low, ratio.median, ratio.high) == (0.25, 0.5, 0.5)
    assert verdict == "pass"


def test_a_failed_round_leaves_its_pair_out():
    samples = {"w": {"o": rounds(1, None, 9), "r": rounds(1, 1, None)}}
    ratio = figures.judge(requirement(), samples)[2]
    assert (ratio.low, ratio.high) == (1, 1)


@pytest.mark.parametrize(
    ("ours", "limit", "at_least", "verdict"),
    [
        (5, 0.5, False, "pass"),
        (5.1, 0.5, False, "MISS"),
        (15, 1.5, True, "pass"),
        (14.9, 1.5, True, "MISS"),
        (99, None, False, "reported"),
    ],
)
def test_verdicts(ours, limit, at_least, verdict):
    samples = {"w": {"o": rounds(ours), "r": rounds(10)}}
    assert figures.judge(requirement(limit=limit, at_least=at_least), samples)[3] == verdict


def test_a_limit_without_a_rival_is_absolute():
    samples = {"w": {"o": rounds(3, 1, 2)}}
    ours, rival, ratio, verdict = figures.judge(requirement(rival=None, limit=2), samples)
    assert (ours.median, rival, ratio, verdict) == (2, None, None, "pass")


def test_nothing_measured_is_said_and_never_passes():
    assert figures.judge(requirement(), {"w": {}})[3] == "not measured"
    assert figures.judge(requirement(rival=None), {"w": {"o": [None]}})[3] == "not measured"


def test_metrics_from_a_result():
    bulk = figures.metrics("bulk", {"bytes": 4_000_000_000, "gbit_per_s": 16.0}, 2.0)
    assert bulk == {"cpu_s_per_gb": 0.5, "gbit_per_s": 16.0}
    result = {"requests": 900, "requests_total": 1000, "p50_us": 40.0, "p99_us": 60.0}
    assert figures.metrics("rr", result, 0.02)["cpu_us_per_request"] == pytest.approx(20)
    short = figures.metrics("short", {"connections": 100, "p50_us": 1.0}, 0.01)
    assert short["cpu_us_per_connection"] == pytest.approx(100)


def test_every_requirement_names_what_is_measured():
    works = {work.name: work for work in figures.works(1, 10)}
    for one in figures.requirements():
        work = works[one.work]
        assert one.metric in work.metrics
        assert one.ours in work.setups
        assert one.rival is None or one.rival in work.setups
    for work in works.values():
        for setup in work.setups:
            assert peers.needs(setup)
            assert peers.parts(setup)[1] in peers.VARIANTS


def test_tables_have_equal_columns_in_every_row():
    works = figures.works(1, 10)
    full = dict.fromkeys(figures.UNITS, 1.5)
    samples = {work.name: {setup: [full, full] for setup in work.setups} for work in works}
    table = figures.requirement_table(samples).splitlines()
    assert len(table) == 2 + len(figures.requirements())
    assert {line.count("|") for line in table} == {8}
    assert "failed" not in figures.raw_tables(works, samples)


def test_numbers_keep_three_digits():
    shown = [figures.number(value) for value in (0, 0.0944, 1.234, 42.26, 1234.5)]
    assert shown == ["0", "0.094", "1.23", "42.3", "1234"]


def test_the_process_clock_agrees_with_the_own_clock():
    import time

    before = measure.cpu_seconds(os.getpid()) - time.process_time()
    sum(range(1_000_000))
    assert measure.cpu_seconds(os.getpid()) - time.process_time() == pytest.approx(before, abs=0.01)


def test_memory_of_this_process_is_plausible():
    rss, pss = measure.memory_bytes([os.getpid()])
    assert 1 << 20 < pss <= rss < 1 << 32
