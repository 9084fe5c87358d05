"""The result of a run: one JSON document that is valid at any time. bench/README.md describes it.

It is written anew after every sample, beside itself and then renamed, so that a run which is
stopped, or killed, leaves what it has measured, marked as unfinished.
"""

import contextlib
import dataclasses
import json
import os

FORMAT = "bore-bench"
VERSION = 1
STATUSES = ("running", "complete", "interrupted")


class NoDocument(ValueError):
    """The file is not a result that this version can read; the text says why."""


def new(machine, works, options, targets):
    return {
        "format": FORMAT,
        "version": VERSION,
        "status": "running",
        "machine": machine,
        "options": options,
        "works": [dataclasses.asdict(work) for work in works],
        "targets": targets,
        "rounds_done": 0,
        "samples": [],
        "external": {},
        "skipped": [],
    }


def save(document, path):
    def text(value):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    # A line for the head and one for each sample, so that versions of a kept one can be compared.
    head = text({name: value for name, value in document.items() if name != "samples"})
    samples = ",\n".join(map(text, document["samples"]))
    beside = f"{path}.part"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(f'{head[:-1]},"samples":[\n{samples}\n]}}\n')
    os.replace(beside, path)


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise NoDocument(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise NoDocument(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise NoDocument(f'{path} is no result of bore-bench (its "format" is not "{FORMAT}")')
    if document.get("version") != VERSION:
        raise NoDocument(
            f"{path} has version {document.get('version')}, this program reads "
            f"{VERSION}; measure again, or use the program that wrote it"
        )
    missing = [
        name
        for name in ("status", "machine", "works", "targets", "samples")
        if name not in document
    ]
    if missing or document["status"] not in STATUSES:
        raise NoDocument(f"{path} lacks {', '.join(missing) or 'a known status'}")
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        for sample in document["samples"]:
            sample["metrics"].get(""), sample["work"], sample["target"], sample["round"]
        return document
    raise NoDocument(f"{path} has a sample without work, target, round or metrics")


def work(document, name):
    return next((one for one in document["works"] if one["name"] == name), None)


def samples(document, work_name, target):
    return [
        one for one in document["samples"] if one["work"] == work_name and one["target"] == target
    ]


def targets_of(document, work_name):
    """In the order of the plan, those that have a sample."""
    seen = {one["target"] for one in document["samples"] if one["work"] == work_name}
    planned = work(document, work_name)["targets"]
    return [name for name in planned if name in seen] + sorted(seen - set(planned))


def by_round(document, work_name, target, metric):
    """{round: value} of the samples that did not fail."""
    return {
        one["round"]: one["metrics"][metric]
        for one in samples(document, work_name, target)
        if metric in one["metrics"] and not one.get("failed")
    }


def values(document, work_name, target, metric):
    return list(by_round(document, work_name, target, metric).values())


def pairs(document, work_name, ours, theirs, metric):
    """Two series of the rounds that both have."""
    left = by_round(document, work_name, ours, metric)
    right = by_round(document, work_name, theirs, metric)
    both = sorted(left.keys() & right.keys())
    return [left[number] for number in both], [right[number] for number in both]


def failures(document):
    return [one for one in document["samples"] if one.get("failed")]


def plain(path):
    """The JSON that another program of the tree has written."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
