"""The terms of terms.toml with their values: low, middle, high, read from where they were measured.
No arithmetic of hosts in here; scale_model.py has that. Used by publish; tested by test_scale.py."""

import fnmatch
import json
import pathlib
import re
import statistics
import tomllib
from dataclasses import dataclass

TOP = pathlib.Path(__file__).resolve().parents[2]
CASES = ("low", "middle", "high")
PLACES = ("cell", "comparison", "micro", "first_of", "once")
NUMBER = r"(-?[\d,]*\.?\d+)"


class BadTerm(Exception):
    """A term that cannot be had; the text names it, the place and the remedy."""


@dataclass(frozen=True)
class Term:
    name: str
    unit: str
    source: str
    values: dict  # by case
    places: tuple  # where measured values came from


def table_rows(text):
    """Every row of every table as a dictionary by column; the first column is under ""."""
    header = None
    for line in text.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]
        if header is None:
            header = cells
        elif not set("".join(cells)) <= set("-: "):
            yield {**dict(zip(header[1:], cells[1:])), "": cells[0]}


def spread_of(text):
    """"41.5 [40.8, 83.0]" or one number, **bold** or not, as low, middle, high; None if neither."""
    plain = text.replace("*", "").replace(",", "") if "[" not in text else text.replace("*", "")
    found = re.match(NUMBER + r"(?: \[" + NUMBER + ", " + NUMBER + r"\])?", plain)
    if found is None:
        return None
    middle, low, high = (None if one is None else float(one.replace(",", "")) for one in found.groups())
    return (middle, middle, middle) if low is None else (low, middle, high)


class Reader:
    """Looks places up below `top`; raises LookupError with the reason."""

    def __init__(self, top=TOP):
        self.top = top

    def text(self, name):
        path = self.top / name
        if not path.is_file():
            raise LookupError(f"{name} is not there")
        return path.read_text(encoding="utf-8")

    def read(self, kind, place):
        """(low, middle, high), and the place in words."""
        return getattr(self, f"_{kind}")(place)

    def _cells(self, place):
        name, row, column = place
        return [found[column] for found in table_rows(self.text(name))
                if found[""] == row and column in found]

    def _cell(self, place):
        for cell in self._cells(place):
            if (spread := spread_of(cell)) is not None:
                return spread, f"{place[0]}: {place[1]}, {place[2]}"
        raise LookupError(f"{place[0]} has no number in row \"{place[1]}\", column \"{place[2]}\"")

    def _comparison(self, place):
        name = "bench/published/comparison.json"
        work, target, metric = place
        values = [sample["metrics"][metric] for sample in json.loads(self.text(name))["samples"]
                  if fnmatch.fnmatch(sample["work"], work) and sample["target"] == target
                  and not sample["failed"] and metric in sample["metrics"]]
        if not values:
            raise LookupError(f"{name} has no {metric} of {target} in {work}")
        return (min(values), statistics.median(values), max(values)), f"{name}: {work}, {target}, {metric}"

    def _micro(self, row):
        name = "bench/micro/published.json"
        values = [1e9 / entry["items_per_second"] for entry in json.loads(self.text(name))["benchmarks"]
                  if entry["run_name"] == row]
        if not values:
            raise LookupError(f"{name} has no row {row}")
        return (min(values), statistics.median(values), max(values)), f"{name}: {row}"

    def _once(self, place):
        figure, where = place
        return (float(figure),) * 3, where

    def _first_of(self, places):
        reasons = []
        for place in places:
            try:
                return self.read(*next(iter(place.items())))
            except LookupError as error:
                reasons.append(str(error))
        raise LookupError("; ".join(reasons))


def load(text, reader):
    """All terms by name, in the order of the file."""
    return {name: make(name, table, reader) for name, table in tomllib.loads(text).items()}


def make(name, table, reader):
    known = {"unit", "source", *CASES, *PLACES}
    if set(table) - known or not {"unit", "source"} <= set(table):
        raise BadTerm(f"[{name}] must have unit, source and values, and nothing but"
                      f" {', '.join(sorted(known))}")
    places = []

    def values_at(entry, cases):
        if isinstance(entry, dict):
            kind, place = next(iter(entry.items()))
            try:
                spread, words = reader.read(kind, place)
            except (LookupError, AttributeError, TypeError, ValueError) as error:
                raise BadTerm(f"[{name}]: {error}; change its place in bench/scale/terms.toml") from error
            places.append(words)
            return dict(zip(CASES, spread)) if len(cases) == 3 else {cases[0]: spread[1]}
        return {case: float(entry) for case in cases}

    whole = [kind for kind in PLACES if kind in table]
    if whole:
        values = values_at({whole[0]: table[whole[0]]}, CASES)
    else:
        if "middle" not in table:
            raise BadTerm(f"[{name}] has neither a place nor a value `middle`")
        values = {}
        for case in CASES:
            values |= values_at(table.get(case, table["middle"]), (case,))
        if places:  # what is measured is a cost, and another day another one is the least
            values = dict(zip(CASES, sorted(values.values())))
    return Term(name, table["unit"], table["source"], values, tuple(dict.fromkeys(places)))
