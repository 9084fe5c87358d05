"""What a run of bore-micro-bench says: samples by benchmark, medians and spread, the table. Pure but
for reading the file. Used by run, publish and compare; tested by test_micro.py.

A sample is nanoseconds of CPU time per item of one repetition (wall time for rows that Google
Benchmark calls real_time). The file is Google Benchmark's own JSON, with the object "machine" added.
"""

import json
import pathlib
import statistics
from dataclasses import dataclass

HERE = pathlib.Path(__file__).resolve().parent

MACHINE_SUBJECT = "machine"  # rows that have nothing of ours in them
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


class BadInput(Exception):
    """A file or a word of the user that cannot be used; the text says which, why and what to do."""


@dataclass(frozen=True)
class Row:
    name: str
    item: str
    samples: tuple  # nanoseconds per item

    @property
    def median(self):
        return statistics.median(self.samples)

    @property
    def variation(self):
        """Coefficient of variation over the repetitions; nothing where there is one."""
        if len(self.samples) < 2:
            return None
        return statistics.stdev(self.samples) / statistics.fmean(self.samples)

    @property
    def of_machine(self):
        return self.name.split("/")[0] == MACHINE_SUBJECT


def clean(name):
    """Without what Google Benchmark appends: how the row was timed."""
    parts = [part for part in name.split("/")
             if part != "real_time" and not part.startswith("threads:")]
    return "/".join(parts)


def load(path):
    try:
        whole = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give a file that bench/micro/run has written") \
            from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path}: is no JSON ({error}); give a file that bench/micro/run has written") \
            from error
    if not isinstance(whole, dict) or not isinstance(whole.get("benchmarks"), list):
        raise BadInput(f"{path}: has no list \"benchmarks\"; give a file that bench/micro/run has"
                       " written")
    return whole


def rows_of(whole, path="the file"):
    """Rows in the order of the file; the errors that benchmarks have reported as (name, text)."""
    samples, items, errors = {}, {}, []
    for entry in whole["benchmarks"]:
        try:
            if entry.get("run_type", "iteration") != "iteration":
                continue
            name = clean(entry.get("run_name") or entry["name"])
            if entry.get("error_occurred"):
                errors.append((name, entry.get("error_message", "no message")))
                continue
            per_second = float(entry["items_per_second"])
            if not per_second > 0:
                raise ValueError("items_per_second must be above zero")
            samples.setdefault(name, []).append(1e9 / per_second)
            items[name] = entry.get("label", "")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path}: the row {str(entry)[:80]} cannot be read ({error}); measure again"
                           " with bench/micro/run") from error
    return [Row(name, items[name], tuple(values)) for name, values in samples.items()], errors


def compact(whole):
    """The same file with only what rows_of() and machine_line() read, one row a line."""
    kept = ("run_name", "run_type", "label", "items_per_second")
    rows = [{key: entry[key] for key in kept if key in entry} for entry in whole["benchmarks"]
            if entry.get("run_type", "iteration") == "iteration"]
    head = json.dumps({"machine": whole.get("machine", {})}, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    return head[:-2] + ",\n \"benchmarks\": [\n" + lines + "\n ]\n}\n"


def machine_line(whole):
    machine = whole.get("machine", {})
    words = [machine.get(key) for key in ("date", "cpu", "kernel", "compiler", "build")]
    load_average = machine.get("load_average_before")
    words += [f"load average {load_average:.1f}"] if load_average is not None else []
    return ", ".join(word for word in words if word)


def number(nanoseconds):
    """Three digits that mean something."""
    for limit, digits in ((10, 2), (100, 1)):
        if nanoseconds < limit:
            return f"{nanoseconds:.{digits}f}"
    return f"{nanoseconds:,.0f}"


def percent(share):
    return "–" if share is None else f"{share * 100:.1f} %"


def table(header, lines):
    rule = [":--" if column == 0 or header[column] == "One item is" else "--:"
            for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *lines])


def published_table(rows):
    return table(["Benchmark", "ns per item", "cv", "One item is"],
                 [[f"`{row.name}`", number(row.median), percent(row.variation), row.item]
                  for row in sorted(rows, key=lambda row: row.name)])


def published_section(whole):
    rows, _ = rows_of(whole)
    repetitions = max((len(row.samples) for row in rows), default=0)
    return (f"{machine_line(whole)}; medians of {repetitions} interleaved repetitions.\n\n"
            f"{published_table(rows)}")


def between_markers(text, path="the README"):
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BadInput(f"{path}: needs the lines {BEGIN} and {END}, once each and in this order")
    return text[text.index(BEGIN) + len(BEGIN):text.index(END)].strip()


def with_section(text, section, path="the README"):
    between_markers(text, path)
    return f"{text[:text.index(BEGIN)]}{BEGIN}\n{section}\n{text[text.index(END):]}"


def documented_names(text):
    """The names in the table between the markers."""
    return [line.split("`")[1] for line in between_markers(text).splitlines()
            if line.startswith("| `")]
