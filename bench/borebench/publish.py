"""The published comparison: from a complete result to the JSON that is kept in the tree, and from
that to the tables of README.md and bench/README.md. No figure in them is typed by hand; check()
makes them again and says where a README differs.

Rows are sorted by how we compare with the reference, worst first, and what is worse beyond noise is
marked: a reader who looks at the top sees where this relay loses.
"""

import os
import pathlib

from borebench import document, findings, plan, stats, table
from borebench.metrics import METRICS, number

BEGIN = "<!-- bore-bench publish: {name} -->"
END = "<!-- end of {name} -->"
# Which tables stand in which file.
PLACES = {"README.md": ("figures",), "bench/README.md": ("comparison", "targets")}
KEPT = os.path.join("bench", "published", "comparison.json")
# What a row is about: the first of these that its work has.
OURS = ("ours+bore", "ours+plain")
WITH_RUST_CLIENT = "ours+rust"
COLUMNS = ("rust+rust", "nginx", "haproxy", "rathole", "frp", "direct")
# (work begins with, metric, targets): the rows of README.md; bench/README.md has every figure.
FIGURES = (
    ("bulk-down-1", "cpu_s_per_gb", OURS),
    ("bulk-up-1", "cpu_s_per_gb", OURS),
    ("bulk-down-16", "cpu_s_per_gb", OURS),
    ("bulk-up-16", "cpu_s_per_gb", OURS),
    ("bulk-down-1", "gbit_per_s", OURS),
    ("bulk-up-1", "gbit_per_s", OURS),
    ("rr-64-1", "p50_us", OURS),
    ("rr-64-1", "p50_us", ("ours:busy+rust",)),
    ("rr-64-64", "cpu_us_per_request", OURS),
    ("rr-64-64", "p99_us", OURS),
    ("rr-rate-", "p99_us", OURS),
    ("rr-20000-", "p99_us", OURS),
    ("crr-", "cpu_us_per_connection", OURS),
    ("idle-", "rss_bytes_per_pair", OURS),
    ("mixed-", "p99_us_beside", OURS),
    ("limits-", "limit_error_percent", OURS),
    ("tunnels-", "rss_bytes_per_tunnel", OURS),
)


class CannotPublish(ValueError):
    """The text says what is missing."""


def kept(result):
    """What is kept of a result: all figures, without the loads' own output."""
    if result["status"] != "complete":
        raise CannotPublish(f"the run is {result['status']}; only a complete one is published")
    if result["rounds_done"] < stats.LEAST_ROUNDS:
        raise CannotPublish(
            f"{result['rounds_done']} rounds; {stats.LEAST_ROUNDS} are the least of which "
            "a statement can be made"
        )
    if not result["options"].get("published") or result["options"].get("quick"):
        raise CannotPublish("not a run of the published plan (bore-bench run --published)")
    samples = []
    for one in result["samples"]:
        few = {name: value for name, value in one.items() if name not in ("loads", "timeline")}
        # Enough for the half-close table.
        few["loads"] = [
            {name: load[name] for name in ("mode", "lost", "tries")}
            for load in one["loads"]
            if load.get("mode") == "halfclose"
        ]
        few["metrics"] = {name: float(f"{value:.5g}") for name, value in one["metrics"].items()}
        for part in ("shares", "noise"):
            if part in few:
                few[part] = {name: float(f"{value:.3g}") for name, value in few[part].items()}
        samples.append(few)
    return result | {"samples": samples}


def tables(result):
    """{name: Markdown} of every table."""
    return {
        "figures": figures(result),
        "comparison": comparison(result),
        "targets": targets(result),
    }


def about(result):
    machine = result["machine"]
    noisy = findings.warnings(result)
    return (
        f"{machine['date'][:10]}, revision {machine['revision']}, {machine['cpu_count']} × "
        f"{machine['cpu']}, Linux {machine['kernel']}, {machine['congestion_control']}, loopback; "
        f"{result['rounds_done']} rounds interleaved, medians; load average before "
        f"{machine['load_average_before']:.1f}."
        + (f" {len(noisy)} warnings, in `bench/README.md`." if noisy else "")
    )


def figures(result):
    """The table of README.md, what we are worst at first."""
    seen = {one["target"] for one in result["samples"]}
    columns = [name for name in (WITH_RUST_CLIENT, *COLUMNS) if name in seen]
    head = ["Work", "ours", *(NAMES.get(name, name) for name in columns)]
    head += [*(f"ours ÷ {NAMES.get(name, name)}" for name in plan.REFERENCES), "best relay"]
    rows = []
    for begin, metric, ours in FIGURES:
        for work in findings.measured_works(result):
            if work == begin or (begin.endswith("-") and work.startswith(begin)):
                rows += _row(result, work, metric, ours, columns)
    rows.sort(key=lambda row: row[0], reverse=True)
    parts = [about(result), table.markdown([head, *(cells for _, cells in rows)])]
    parts += [*balance(result, named=False), half_close_sentence(result)]
    return "\n\n".join(part for part in parts if part)


NAMES = {WITH_RUST_CLIENT: "ours, Rust client", "rust+rust": "Rust relay", "haproxy": "HAProxy"}


def _row(result, work, metric, ours, columns):
    """[(how bad, cells)]; empty when the work has nothing of ours."""
    us = next((name for name in ours if document.values(result, work, name, metric)), None)
    if us is None:
        return []
    said = [findings.state(result, work, metric, us, name) for name in plan.REFERENCES]
    cells = [
        f"{document.work(result, work)['text']}, {METRICS[metric].unit}",
        _median(result, work, us, metric) + ("" if us == OURS[0] else f" ({us})"),
        *(_median(result, work, one, metric) for one in columns),
    ]
    for one in said:
        other = findings.state(result, work, metric, WITH_RUST_CLIENT, one.reference)
        cells.append(_verdict(one) + (f" ({_verdict(other)})" if other.ratio else ""))
    return [(_badness(said, metric), [*cells, _best(result, work, metric, (us, *columns))])]


def _median(result, work, target, metric):
    values = document.values(result, work, target, metric)
    return number(stats.Spread.of(values).median) if values else "–"


def _verdict(said):
    if said.ratio is None:
        return "–"
    value = number(said.ratio.value)
    words = {"worse": f"**{value} loses**", "better": f"{value} wins", "same": f"{value} same"}
    return words.get(said.verdict, f"{value} ?")


def _badness(said, metric):
    """For sorting: how many times worse than the reference that beats us most."""
    ratios = [one.ratio.value for one in said if one.ratio]
    if not ratios:
        return 0.0
    return max(ratios) if METRICS[metric].better == "low" else 1 / min(ratios)


def _best(result, work, metric, targets_):
    """Which relay is best by the medians; the direct connection is no relay."""
    medians = {
        name: stats.Spread.of(values).median
        for name in targets_
        if name != "direct" and (values := document.values(result, work, name, metric))
    }
    best = (min if METRICS[metric].better == "low" else max)(medians, key=medians.get)
    return "ours" if best.startswith("ours") else f"**{NAMES.get(best, best)}**"


def balance(result, named=True):
    """How often we win, lose, and cannot tell, over all figures of all works; by name if wished."""
    for us in (OURS[0], WITH_RUST_CLIENT):
        for reference in plan.REFERENCES:
            by = {}
            for work in findings.measured_works(result):
                for metric in findings.measured_metrics(result, work):
                    said = findings.state(result, work, metric, us, reference)
                    # Counts that were 0 have no ratio; system calls are counted in one round.
                    if said.ratio and said.verdict != "unknown":
                        by.setdefault(said.verdict, []).append(f"{work} {METRICS[metric].unit}")
            if by:
                yield _balance_sentence(us, reference, by, named)


def _balance_sentence(us, reference, by, named):
    subject = "Ours" if us == OURS[0] else "Ours with the Rust client"
    losses = by.get("worse", [])
    which = f" ({'; '.join(losses)})" if losses and named else ""
    return (
        f"{subject} against {NAMES.get(reference, reference)}, over all figures"
        f"{'' if named else ' of `bench/README.md`'}: better in {len(by.get('better', []))}, "
        f"**worse in {len(losses)}**{which}, within noise in {len(by.get('same', []))}, "
        f"too noisy to tell in {len(by.get('noisy', []))}."
    )


def half_close_sentence(result):
    lost = findings.lost_answers(result)
    bad = [f"{name} {few} of {all_}" for name, (few, all_) in lost.items() if few]
    good = [name for name, (few, _) in lost.items() if not few]
    if not lost:
        return ""
    return (
        "Answers that follow the visitor's FIN: "
        + (f"lost by {', '.join(bad)}" if bad else "lost by nobody")
        + (f"; none lost by {', '.join(good)}." if good else ".")
    )


def comparison(result):
    """The tables of bench/README.md: every work, every target, every figure."""
    parts = [about(result), *balance(result), half_close_sentence(result)]
    for work in findings.measured_works(result):
        planned = document.work(result, work)
        words = " ".join(map(str, planned["load"]))
        parts.append(f"**{planned['text']}**: `bore-load {words}`")
        parts.append(table.markdown(_sorted(result, work, table.rows(result, work))))
    parts += [f"Warning: {one}" for one in findings.warnings(result)]
    parts += [f"Not measured: {one}" for one in table.skipped(result)]
    failed = {}
    for one in document.failures(result):
        failed.setdefault((one["work"], one["target"]), []).append(one["failed"])
    parts += [
        f"Failed: {work}, {target}, {len(said)} times: {said[0]}"
        for (work, target), said in failed.items()
    ]
    return "\n\n".join(part for part in parts if part)


def _sorted(result, work, rows):
    """Best target first by the leading figure."""
    lead = (findings.measured_metrics(result, work) or [None])[0]
    if lead is None:
        return rows
    sign = 1 if METRICS[lead].better == "low" else -1

    def key(row):
        values = document.values(result, work, row[0], lead)
        return sign * stats.Spread.of(values).median if values else float("inf")

    return [rows[0], *sorted(rows[1:], key=key)]


def targets(result):
    lines = [["Target", "What it is"]]
    seen = {one["target"] for one in result["samples"]}
    lines += [[f"`{name}`", one["text"]] for name, one in result["targets"].items() if name in seen]
    versions = "; ".join(f"{name}: {text}" for name, text in result["machine"]["versions"].items())
    return table.markdown(lines) + f"\n\nVersions: {versions}."


def replace(text, name, content, path):
    """The text of a README with one table replaced, between its markers."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise CannotPublish(
            f"{path} must have the lines {begin} and {end} once each, in this order"
        )
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def rendered(result, top):
    """{path: text} of the READMEs as they should be."""
    made, found = tables(result), {}
    for path, names in PLACES.items():
        text = pathlib.Path(top, path).read_text("utf-8")
        for name in names:
            text = replace(text, name, made[name], path)
        found[path] = text
    return found


def placeless(value, top):
    """The same without the places that the tree, its peers and its user had on that machine."""
    if isinstance(value, dict):
        return {key: placeless(one, top) for key, one in value.items()}
    if isinstance(value, list):
        return [placeless(one, top) for one in value]
    if isinstance(value, str):
        return value.replace(f"{pathlib.Path(top)}/", "").replace(f"{pathlib.Path.home()}/", "~/")
    return value


def write(result, top):
    """Returns the paths written."""
    few = placeless(kept(result), top)
    texts = rendered(few, top)  # before anything is written
    target = pathlib.Path(top, KEPT)
    target.parent.mkdir(exist_ok=True)
    document.save(few, target)
    for path, text in texts.items():
        pathlib.Path(top, path).write_text(text, "utf-8")
    return [KEPT, *texts]


def check(top):
    """Paths of the READMEs whose tables are not those of the kept JSON."""
    result = document.load(pathlib.Path(top, KEPT))
    return [
        path
        for path, text in rendered(result, top).items()
        if pathlib.Path(top, path).read_text("utf-8") != text
    ]
