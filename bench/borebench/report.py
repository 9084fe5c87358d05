"""The report as one HTML page that opens without network: verdicts, plots, tables, the machine."""

import html
import json
import statistics

from borebench import charts, document, findings, metrics, stats, table
from borebench.metrics import METRICS

# Plots of a work: the leading figure and, where there is one, the rate or the tail.
PLOTTED = 2
CSS = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.worse { background: #fbe3dd; } .better { background: #e3f1e6; }
.warning { border-left: .3rem solid #c8553d; padding-left: .6rem; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; }
"""


def escape(text):
    return html.escape(str(text))


def page(result):
    machine = result["machine"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>bore-bench, {escape(machine['date'])}</title><style>{CSS}</style></head><body>",
        "<h1>Comparison of relays</h1>",
        f"<p>{escape(summary(result))}</p>",
        *(f'<p class="warning">{escape(one)}</p>' for one in findings.warnings(result)),
        *_half_close(result),
        *(part for work in findings.measured_works(result) for part in _work(result, work)),
        *_external(result),
        *_not_measured(result),
        *_machine(result),
        "</body></html>",
    ]
    return "\n".join(parts)


def summary(result):
    machine = result["machine"]
    return (
        f"{machine['date']}, {machine['cpu_count']} × {machine['cpu']}, Linux {machine['kernel']}, "
        f"{machine['congestion_control']}, load average before "
        f"{machine['load_average_before']:.1f}; {result['rounds_done']} whole rounds; median "
        f"(lowest–highest). Ratios are taken within a round; a statement holds with "
        f"{stats.CONFIDENCE:.0%} confidence."
    )


def _half_close(result):
    lost = findings.lost_answers(result)
    if not lost:
        return
    yield "<h2>Half-close: answers that follow the visitor's FIN</h2>"
    rows = [["target", "answers lost", "of"]]
    rows += [
        [target, str(few), str(all_)]
        for target, (few, all_) in sorted(lost.items(), key=lambda item: -item[1][0])
    ]
    yield _table(
        rows,
        {index: "worse" for index, row in enumerate(rows) if row[1] not in ("0", "answers lost")},
    )


def _work(result, work):
    planned = document.work(result, work)
    chosen = findings.measured_metrics(result, work)
    yield f"<h2 id=\"{escape(work)}\">{escape(planned['text'])}</h2>"
    yield f"<p><code>bore-load {escape(' '.join(map(str, planned['load'])))}</code></p>"
    references = findings.references(result, work)
    for name in chosen[:PLOTTED]:
        spreads = _spreads(result, work, name)
        if spreads:
            yield "<figure>" + charts.bars(
                METRICS[name].text, METRICS[name].unit, spreads, references
            ) + "</figure>"
    curves = _curves(result, work)
    if curves:
        yield "<figure>" + charts.latency_curves("Latency", curves, metrics.QUANTILES) + "</figure>"
    for column, title, unit, scale in (
        (1, "Resident memory", "MiB", 1 << 20),
        (2, "Descriptors", "open", 1),
    ):
        series = _timelines(result, work, column, scale)
        if series:
            yield "<figure>" + charts.timeline(title, unit, series) + "</figure>"
    yield _table(table.rows(result, work))
    said = [
        one
        for name in chosen[:PLOTTED]
        for one in findings.statements(result, work, name)
        if one.ratio
    ]
    if said:
        yield "<details><summary>Statements</summary><ul>"
        yield from (
            f'<li class="{one.verdict}">{escape(one.target)}: {METRICS[one.metric].unit} '
            f"{escape(one.words)}</li>"
            for one in said
        )
        yield "</ul></details>"
    yield _shares(result, work)


def _spreads(result, work, name):
    series = {
        target: document.values(result, work, target, name)
        for target in document.targets_of(result, work)
    }
    spreads = {target: stats.Spread.of(values) for target, values in series.items() if values}
    good = METRICS[name].better == "low"
    return dict(sorted(spreads.items(), key=lambda item: item[1].median, reverse=not good))


def _curves(result, work):
    """The median curve of each target's rounds."""
    found = {}
    for target in document.targets_of(result, work):
        got = [
            load["curve_us"]
            for one in document.samples(result, work, target)
            for load in one["loads"][-1:]
            if load.get("curve_us") and not one.get("failed")
        ]
        if got:
            found[target] = [statistics.median(column) for column in zip(*got)]
    return found


def _timelines(result, work, column, scale):
    return {
        f"{one['target']}, round {one['round'] + 1}": [
            (point[0], point[column] / scale) for point in one["timeline"]
        ]
        for one in result["samples"]
        if one["work"] == work and one.get("timeline")
    }


def _shares(result, work):
    """Who kept how many processors busy: whether the generator was the limit."""
    rows = [["processors kept busy", "generator", "service", "tunnel client", "relay"]]
    for target in document.targets_of(result, work):
        shares = [
            one["shares"] for one in document.samples(result, work, target) if "shares" in one
        ]
        cells = [
            table.spread([one[name] for one in shares if name in one])
            for name in ("generator", "service", "client", "relay")
        ]
        rows.append([target, *cells])
    return f"<details><summary>Who was busy</summary>{_table(rows)}</details>"


def _external(result):
    """What packet and micro say of themselves; their figures are in the JSON."""
    for name, outcome in result["external"].items():
        yield f"<h2>{escape(name)}</h2><p><code>{escape(outcome['command'])}</code></p>"
        if outcome.get("text"):
            yield f"<pre>{escape(outcome['text'])}</pre>"
        elif "result" in outcome:
            yield f"<pre>{escape(json.dumps(outcome['result'], indent=1))}</pre>"


def _not_measured(result):
    missing = table.skipped(result)
    failed = document.failures(result)
    if missing:
        yield "<h2>Not measured</h2><ul>" + "".join(
            f"<li>{escape(one)}</li>" for one in missing
        ) + "</ul>"
    if failed:
        yield "<h2>Failed</h2><ul>" + "".join(
            f"<li>{escape(one['work'])}, {escape(one['target'])}, round {one['round'] + 1}: "
            f"{escape(one['failed'])}</li>"
            for one in failed
        ) + "</ul>"


def _machine(result):
    machine = result["machine"]
    yield "<h2>Machine</h2>"
    yield _table(
        [
            ["", ""],
            *(
                [name.replace("_", " "), str(value)]
                for name, value in machine.items()
                if name not in ("versions", "command")
            ),
            *([f"version of {name}", text] for name, text in machine["versions"].items()),
        ]
    )
    yield f"<h2>Commands</h2><pre>{escape(machine['command'])}</pre><dl>"
    for name, target in result["targets"].items():
        if target.get("commands"):
            yield f"<dt>{escape(name)}: {escape(target['text'])}</dt><dd><pre>"
            yield escape("\n".join(target["commands"])) + "</pre></dd>"
    yield "</dl>"


def _table(rows, classes=None):
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    lines = [f"<table><tr>{head}</tr>"]
    for index, row in enumerate(rows[1:], 1):
        kind = (classes or {}).get(index, "")
        cells = "".join(f"<td{_mark(cell)}>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table>"])


def _mark(cell):
    kind = "worse" if cell.endswith(" WORSE") else "better" if cell.endswith(" better") else ""
    return f' class="{kind}"' if kind else ""
