"""Figures out of results of bore-load and costs of a relay."""

import pytest
from borebench import metrics

COST = {"cpu_s": 0.5, "context_switches": 1000}
LATENCY = {"p50_us": 1, "p90_us": 2, "p99_us": 3, "p999_us": 4, "max_us": 5}


def test_bulk():
    found = metrics.of_load({"mode": "bulk", "bytes": 2_000_000_000, "gbit_per_s": 8.0}, COST)
    assert found == {"gbit_per_s": 8.0, "cpu_s_per_gb": 0.25, "switches_per_gb": 500}


def test_requests_count_with_the_warm_up_for_cost():
    found = metrics.of_load(
        {
            "mode": "rr",
            "requests": 900,
            "requests_total": 1000,
            "rate": 0,
            "requests_per_s": 9.0,
            **LATENCY,
        },
        COST,
    )
    assert found["cpu_us_per_request"] == pytest.approx(500)
    assert found["switches_per_request"] == 1
    assert (found["p50_us"], found["max_us"]) == (1, 5)
    assert "unanswered" not in found


def test_an_open_loop_says_what_was_never_answered():
    found = metrics.of_load(
        {
            "mode": "rr",
            "requests_total": 10,
            "rate": 5,
            "unanswered": 3,
            "requests_per_s": 1.0,
            **LATENCY,
        },
        None,
    )
    assert found["unanswered"] == 3
    assert not any(name.startswith("cpu") for name in found)


def test_nothing_transferred_has_no_figures():
    assert metrics.of_load({"mode": "crr", "connections": 0}, COST) == {}
    assert metrics.of_limit({"bytes": 0}, 100) == {}


def test_limit():
    assert metrics.of_limit({"bytes": 1, "gbit_per_s": 0.19}, 200)[
        "limit_error_percent"
    ] == pytest.approx(5)


def test_system_calls_per_unit():
    assert metrics.syscalls({"mode": "crr", "connections": 50}, 500) == {
        "syscalls_per_connection": 10
    }


def test_condensed_keeps_a_curve_for_a_histogram():
    kept = metrics.condensed(
        {"mode": "chaos", "exchange": {"buckets_ns": [[1000, 5]], "p50_us": 1}}
    )
    assert kept["exchange"]["p50_us"] == 1
    assert set(kept["exchange"]["curve_us"]) == {1.0}


def test_numbers_keep_three_digits():
    shown = [metrics.number(value) for value in (0, 0.0944, 1.234, 42.26, 123.4, 91989.4)]
    assert shown == ["0", "0.094", "1.23", "42.3", "123", "91,989"]


def test_every_metric_says_what_is_good():
    for metric in metrics.METRICS.values():
        assert metric.better in ("low", "high") and metric.unit and metric.text
