"""What a figure is called, its unit, which side of it is good, and how figures come out of a result
of bore-load and the cost of the relay. Pure. The names are those of the JSON (bench/README.md)."""

import dataclasses

from borebench import stats


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    text: str
    better: str  # low or high


METRICS = {
    one.name: one
    for one in (
        Metric("gbit_per_s", "Gbit/s", "rate", "high"),
        Metric("cpu_s_per_gb", "CPU s/GB", "relay's processor time per gigabyte", "low"),
        Metric("switches_per_gb", "switches/GB", "context switches per gigabyte", "low"),
        Metric("syscalls_per_gb", "syscalls/GB", "system calls per gigabyte", "low"),
        Metric("p50_us", "µs p50", "median latency", "low"),
        Metric("p90_us", "µs p90", "90th percentile of latency", "low"),
        Metric("p99_us", "µs p99", "99th percentile of latency", "low"),
        Metric("p999_us", "µs p99.9", "99.9th percentile of latency", "low"),
        Metric("max_us", "µs max", "highest latency", "low"),
        Metric("requests_per_s", "requests/s", "requests per second", "high"),
        Metric("unanswered", "unanswered", "requests of the schedule that got no answer", "low"),
        Metric("cpu_us_per_request", "CPU µs/request", "relay's processor time per request", "low"),
        Metric("switches_per_request", "switches/request", "context switches per request", "low"),
        Metric("syscalls_per_request", "syscalls/request", "system calls per request", "low"),
        Metric("connections_per_s", "connections/s", "connections per second", "high"),
        Metric(
            "cpu_us_per_connection",
            "CPU µs/connection",
            "relay's processor time per connection",
            "low",
        ),
        Metric(
            "switches_per_connection",
            "switches/connection",
            "context switches per connection",
            "low",
        ),
        Metric(
            "syscalls_per_connection", "syscalls/connection", "system calls per connection", "low"
        ),
        Metric("rss_bytes_per_pair", "bytes RSS/pair", "resident memory per idle pair", "low"),
        Metric("pss_bytes_per_pair", "bytes PSS/pair", "proportional memory per idle pair", "low"),
        Metric("rss_bytes_per_tunnel", "bytes RSS/tunnel", "resident memory per tunnel", "low"),
        Metric("tunnels_per_s", "tunnels/s", "registrations per second", "high"),
        Metric("cpu_us_per_tunnel", "CPU µs/tunnel", "relay's processor time per tunnel", "low"),
        Metric("lost", "lost", "tunnels or pairs lost while held", "low"),
        Metric(
            "limit_error_percent",
            "% off the limit",
            "distance of the rate from the bandwidth limit",
            "low",
        ),
        Metric("p99_us_alone", "µs p99 alone", "99th percentile without bulk beside it", "low"),
        Metric("p50_us_beside", "µs p50 beside bulk", "median latency beside bulk", "low"),
        Metric("p99_us_beside", "µs p99 beside bulk", "99th percentile beside bulk", "low"),
        Metric("gbit_per_s_beside", "Gbit/s beside requests", "bulk beside requests", "high"),
        Metric(
            "answers_lost_percent",
            "% of answers lost",
            "answers lost that follow the visitor's FIN",
            "low",
        ),
        Metric("rss_bytes_per_hour", "bytes RSS/h", "growth of resident memory per hour", "low"),
        Metric("descriptors_gained", "descriptors", "descriptors more at the end", "low"),
        Metric("lost_bytes", "bytes lost", "bytes sent that did not arrive", "low"),
        Metric("corrupt_streams", "corrupt streams", "streams with a byte that differs", "low"),
        Metric(
            "exchanges_failed", "failed", "exchanges of the well-behaved visitor that failed", "low"
        ),
        Metric("recovery_ms", "ms to recover", "time until an exchange works afterwards", "low"),
    )
}

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0)
LATENCIES = ("p50_us", "p90_us", "p99_us", "p999_us", "max_us")
# Mode of bore-load: what one unit of its work is called, the field that counts it, and the divisor.
UNITS = {
    "bulk": ("gb", "bytes", 1e9),
    "rr": ("request", "requests_total", 1),
    "crr": ("connection", "connections", 1),
}


def units_done(result):
    """How many units a load was: gigabytes, requests or connections."""
    _, field, divisor = UNITS[result["mode"]]
    return result.get(field, 0) / divisor


def of_load(result, cost):
    """Figures of one bulk, rr or crr load. `cost`: of the relay, with cpu_s and context_switches;
    None where there is no relay, or it runs elsewhere."""
    mode = result["mode"]
    unit, done = UNITS[mode][0], units_done(result)
    found = {}
    if done == 0:
        return found
    if mode == "bulk":
        found["gbit_per_s"] = result["gbit_per_s"]
    else:
        rate = "requests_per_s" if mode == "rr" else "connections_per_s"
        found |= {name: result[name] for name in (*LATENCIES, rate)}
    if mode == "rr" and result.get("rate"):
        found["unanswered"] = result.get("unanswered", 0)
    if cost is not None:
        name, scale = ("cpu_s_per_gb", 1) if unit == "gb" else (f"cpu_us_per_{unit}", 1e6)
        found[name] = cost["cpu_s"] * scale / done
        found[f"switches_per_{unit}"] = cost["context_switches"] / done
    return found


def syscalls(result, count):
    """System calls per unit of a load that ran under perf."""
    done = units_done(result)
    return {f"syscalls_per_{UNITS[result['mode']][0]}": count / done} if done else {}


def of_limit(result, limit_mbit):
    """How far the rate is from the limit, in per cent; the direction is in the result."""
    if result.get("bytes", 0) == 0:
        return {}
    megabit_per_s = result["gbit_per_s"] * 1000
    return {
        "gbit_per_s": result["gbit_per_s"],
        "limit_error_percent": abs(megabit_per_s / limit_mbit - 1) * 100,
    }


def condensed(result):
    """The result as it is kept: the histogram, which has hundreds of buckets, becomes a curve."""
    kept = {}
    for name, value in result.items():
        if name == "buckets_ns":
            kept["curve_us"] = stats.curve(value, QUANTILES)
        else:
            kept[name] = condensed(value) if isinstance(value, dict) else value
    return kept


def number(value):
    """Three significant digits, without an exponent; thousands with commas."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
