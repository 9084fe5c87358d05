"""The comparison of two runs: the exact test against hand-counted cases and brute force, the
correction, the verdicts, and the exit status of bench/micro/compare."""

import itertools
import json
import pathlib
import random
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import micro_verdicts as verdicts
from micro_results import Row


def by_brute_force(left, right):
    pooled = [*left, *right]
    ranks = verdicts.doubled_ranks(pooled)
    middle = len(left) * (len(pooled) + 1)
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(left))]
    seen = abs(sum(ranks[:len(left)]) - middle)
    return sum(abs(one - middle) >= seen for one in sums) / len(sums)


def test_sides_that_do_not_overlap_have_the_probability_of_two_orders():
    assert verdicts.mann_whitney([1, 2, 3], [4, 5, 6]) == 2 / 20
    assert verdicts.mann_whitney([1, 2, 3, 4], [9, 8, 7, 6]) == 2 / 70


def test_equal_sides_differ_by_chance_for_sure():
    assert verdicts.mann_whitney([5, 5, 5], [5, 5, 5]) == 1


@pytest.mark.parametrize("seed", range(20))
def test_as_many_ways_as_brute_force_counts(seed):
    chance = random.Random(seed)
    left = [chance.randrange(8) for _ in range(chance.randrange(1, 6))]
    right = [chance.randrange(8) for _ in range(chance.randrange(1, 6))]
    assert verdicts.mann_whitney(left, right) == pytest.approx(by_brute_force(left, right))


def test_holm_asks_more_of_the_first_than_of_the_last():
    assert verdicts.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert verdicts.holm([0.9, 0.8]) == [1.0, 1.0]
    assert verdicts.holm([]) == []


def row(name, *samples):
    return Row(name, "thing", samples)


def test_verdicts():
    steady = tuple(100 + place for place in range(9))
    before = [row("slower", *steady), row("faster", *steady), row("same", *steady),
              row("noisy", 50, 60, 70, 80, 100, 120, 140, 160, 180), row("gone", *steady)]
    after = [row("slower", *(value * 1.2 for value in steady)),
             row("faster", *(value * 0.8 for value in steady)),
             row("same", *(value * 1.01 for value in steady)),
             row("noisy", 55, 66, 77, 90, 112, 130, 150, 170, 190), row("new", *steady)]
    judged = verdicts.judge(before, after, 0.05)
    assert [(one.name, one.verdict) for one in judged] == [
        ("slower", "worse"), ("faster", "better"), ("same", "same"), ("noisy", "unsure")]


def compare(tmp_path, before, after, *words):
    paths = []
    for side, rows in (("before", before), ("after", after)):
        entries = [{"run_name": name, "run_type": "iteration", "label": "thing",
                    "items_per_second": 1e9 / sample}
                   for name, samples in rows.items() for sample in samples]
        path = tmp_path / f"{side}.json"
        path.write_text(json.dumps({"benchmarks": entries}), encoding="utf-8")
        paths.append(path)
    return subprocess.run([HERE / "compare", *paths, *words], capture_output=True, text=True,
                          check=False)


STEADY = [100 + place for place in range(9)]
SLOW = [value * 1.3 for value in STEADY]


@pytest.mark.parametrize("before, after, status, text", [
    ({"a": STEADY}, {"a": STEADY}, 0, "1 same"),
    ({"a": SLOW}, {"a": STEADY}, 0, "1 better"),
    ({"a": STEADY}, {"a": SLOW}, 1, "1 worse"),
    ({"a": STEADY, "b": STEADY}, {"a": STEADY}, 1, "not measured any more: b"),
    ({"a": STEADY, "machine/m": STEADY}, {"a": SLOW, "machine/m": SLOW}, 3, "machine itself"),
    ({"a": STEADY}, {"b": STEADY}, 2, "no row in common"),
    ({"a": STEADY[:2]}, {"a": SLOW[:2]}, 0, "so few repetitions"),
])
def test_exit_status(tmp_path, before, after, status, text):
    done = compare(tmp_path, before, after)
    assert done.returncode == status, done.stdout + done.stderr
    assert text in done.stdout + done.stderr


def test_the_least_change_that_counts_is_the_callers(tmp_path):
    assert compare(tmp_path, {"a": STEADY}, {"a": SLOW}, "--least", "50").returncode == 0
    refused = compare(tmp_path, {"a": STEADY}, {"a": SLOW}, "--least", "0")
    assert refused.returncode == 2 and "above zero" in refused.stderr


def test_a_row_that_failed_when_it_was_measured_is_not_compared(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"benchmarks": [{"run_name": "a", "error_occurred": True}]}),
                    encoding="utf-8")
    done = subprocess.run([HERE / "compare", path, path], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "failed when they were measured: a" in done.stderr
