"""Tables as text and as Markdown, from rows of strings. Pure."""

from borebench import document, findings, stats
from borebench.metrics import METRICS, number

# More would not fit a terminal; the report has all.
TERMINAL_METRICS = 4


def spread(values):
    """Median and range; a lone value stands for itself."""
    if not values:
        return "–"
    found = stats.Spread.of(values)
    if found.count == 1 or found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def one_line(work, sample):
    """The leading figures of a sample, while the run goes on."""
    shown = [
        f"{number(sample['metrics'][name])} {METRICS[name].unit}"
        for name in work.metrics
        if name in sample["metrics"]
    ][:TERMINAL_METRICS]
    return ", ".join(shown) or "no figures"


def rows(result, work, metrics=None):
    """Head and one row for each target of a work: figures, then statements on the leading one."""
    chosen = metrics or findings.measured_metrics(result, work)
    references = findings.references(result, work)
    head = ["target", *(METRICS[name].unit for name in chosen)]
    head += [f"÷ {name}" for name in references]
    lines = [head]
    for target in document.targets_of(result, work):
        cells = [spread(document.values(result, work, target, name)) for name in chosen]
        failed = [one for one in document.samples(result, work, target) if one.get("failed")]
        if failed:
            total = len(document.samples(result, work, target))
            cells[:1] = [f"{cells[0] if cells else ''} FAILED {len(failed)} of {total}".strip()]
        cells += [_against(result, work, chosen[:1], target, name) for name in references]
        lines.append([target, *cells])
    return lines


def _against(result, work, lead, target, reference):
    if target == reference or not lead:
        return ""
    said = findings.state(result, work, lead[0], target, reference)
    if said.ratio is None:
        return "–"
    mark = {"better": " better", "worse": " WORSE", "same": " same", "noisy": " ?"}
    return f"{number(said.ratio.value)}{mark.get(said.verdict, '')}"


def text(lines):
    """Aligned columns; the first one to the left, figures to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def markdown(lines):
    body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([body[0], "|" + "---|" * len(lines[0]), *body[1:]])


def terminal(result):
    """The whole result for a terminal."""
    parts = []
    for work in findings.measured_works(result):
        chosen = findings.measured_metrics(result, work)[:TERMINAL_METRICS]
        parts += [
            f"{work}: {document.work(result, work)['text']}",
            text(rows(result, work, chosen)),
            "",
        ]
    lost = {target: counts for target, counts in findings.lost_answers(result).items() if counts[0]}
    if lost:
        parts.append(
            "Answers that follow the visitor's FIN are lost by "
            + ", ".join(f"{target} ({few} of {all_})" for target, (few, all_) in lost.items())
            + "."
        )
    parts += [f"WARNING: {one}" for one in findings.warnings(result)]
    parts += [f"NOT MEASURED: {one}" for one in skipped(result)]
    parts += [
        f"FAILED: {one['work']} {one['target']} round {one['round'] + 1}: {one['failed']}"
        for one in document.failures(result)
    ]
    for name, outcome in result["external"].items():
        parts.append(f"{name}: `{outcome['command']}` ended with {outcome['exit_status']}")
    return "\n".join(parts)


def skipped(result):
    """One sentence for each target and reason."""
    found = {}
    for one in result["skipped"]:
        found.setdefault((one["target"], one["reason"]), []).append(one["work"])
    return [f"{target} ({', '.join(works)}): {reason}" for (target, reason), works in found.items()]
