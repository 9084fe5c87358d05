"""Where the tests of bore-bench find its modules, and results made by hand."""

import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from borebench import document, plan

MACHINE = {
    "date": "2026-01-02T03:04:05+00:00",
    "host": "h",
    "cpu": "Some CPU",
    "cpu_count": 2,
    "memory_mib": 1024,
    "kernel": "6.1",
    "governor": "none",
    "congestion_control": "bbr",
    "load_average_before": 0.1,
    "revision": "abc",
    "versions": {"nginx": "nginx/1.0.0"},
    "command": "bore-bench run",
}
QUIET = {"foreign_cores": 0.0, "steal_share": 0.0, "load_average": 0.1}


def sample(work, target, number, metrics, **more):
    return {
        "work": work,
        "target": target,
        "round": number,
        "started": 0.0,
        "metrics": metrics,
        "failed": None,
        "failures": 0,
        "loads": [],
        "bottlenecks": [],
        "noise": dict(QUIET),
        "shares": {"generator": 0.3},
    } | more


def make_result(series, works=None, rounds=3, **options):
    """`series`: {(work, target): {metric: [a value each round]}}."""
    works = works or plan.works(plan.Options(scenarios=plan.USUAL))
    names = {target for _, target in series}
    result = document.new(
        dict(MACHINE),
        works,
        options,
        {
            name: {"text": f"the target {name}", "commands": [f"start {name}"]}
            for name in sorted(names)
        },
    )
    for (work, target), metrics in series.items():
        for number in range(rounds):
            result["samples"].append(
                sample(
                    work,
                    target,
                    number,
                    {
                        name: values[number]
                        for name, values in metrics.items()
                        if values[number] is not None
                    },
                )
            )
    result |= {"rounds_done": rounds, "status": "complete"}
    # As it comes back from a file: lists instead of tuples.
    return json.loads(json.dumps(result))


@pytest.fixture
def bulk_result():
    """Ours is twice as cheap as the Rust relay, surely; and as nginx, within noise."""
    return make_result(
        {
            ("bulk-down-1", "ours+bore"): {
                "cpu_s_per_gb": [0.1, 0.2, 0.11],
                "gbit_per_s": [16, 8, 15],
            },
            ("bulk-down-1", "rust+rust"): {
                "cpu_s_per_gb": [0.2, 0.41, 0.22],
                "gbit_per_s": [9, 5, 9],
            },
            ("bulk-down-1", "nginx"): {
                "cpu_s_per_gb": [0.11, 0.19, 0.11],
                "gbit_per_s": [18, 9, 17],
            },
        },
        published=True,
    )
