"""The commands of bore-bench, each a function from the parsed command line to an exit status."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

from borebench import arguments, compare, document, machine, plan, publish, relays, report
from borebench import runner, table
from borebench.arguments import DEFAULT_OUTPUT, PUBLISHED, TOP


def options_of(chosen):
    """plan.Options of a command line; --quick changes what was not given."""
    found = plan.Options()
    given = {"limit_mbit": chosen.limit_mbit, "duration_s": chosen.duration}
    for field in dataclasses.fields(plan.Options):
        value = given.get(field.name, getattr(chosen, field.name, None))
        if not value and chosen.quick:
            value = plan.QUICK.get(field.name)
        if value:
            setattr(found, field.name, value)
    return found


def _make_programs(chosen):
    return relays.Programs(str(chosen.server), str(chosen.client), str(chosen.load), chosen.peers)


def command_list(chosen):
    programs = _make_programs(chosen)
    print("Scenarios (* = usual):")
    for name, text in plan.SCENARIOS.items():
        print(f" {'*' if name in plan.USUAL else ' '} {name:10} {text}")
    print("\nTargets:")
    lacking = set()
    for name in relays.names():
        spec = relays.Spec.parse(name)
        missing = programs.missing(spec.needs)
        print(f"   {name:17} {spec.text}")
        lacking |= set(missing)
    for one in sorted(lacking):
        print(f"MISSING: {one}; tools/build and tools/peers make what is missing")
    print("\nVersions:")
    for name, text in programs.versions().items():
        print(f"   {name:10} {text}")
    return 0


def command_run(chosen):
    programs = _make_programs(chosen)
    if programs.missing(["load"]):
        raise ValueError(f"{programs['load']} is not there; build it (tools/build) or give --load")
    if chosen.relay_pid and not os.path.exists(f"/proc/{chosen.relay_pid}"):
        raise ValueError(f"no process {chosen.relay_pid} on this machine for --relay-pid")
    remote = {f"[{h}]:{p}" if ":" in h else f"{h}:{p}": (h, p) for h, p in chosen.target or ()}
    options = options_of(chosen)
    if remote:
        options.targets = (*remote, *(chosen.targets or ()))
        fit = [name for name in plan.USUAL if not plan.unfit(None, name)]
        options.scenarios = chosen.scenarios or tuple(fit)
    works = plan.published(chosen.quick) if chosen.published else plan.works(options)
    default = PUBLISHED if chosen.published else DEFAULT_OUTPUT
    output = chosen.output or default
    output.mkdir(parents=True, exist_ok=True)
    rounds = chosen.rounds or (1 if chosen.quick else 3)
    usual = plan.PUBLISHED_BUDGET_S if chosen.published and not chosen.quick else None
    budget = chosen.time_budget or usual
    names = list(dict.fromkeys(name for work in works for name in work.targets))
    about = {
        name: {
            "text": (
                relays.Spec.parse(name).text
                if name not in remote
                else f"installation at {name}, not started by bore-bench"
            )
        }
        for name in names
    }
    result = document.new(
        machine.describe(programs, " ".join(sys.argv)),
        works,
        {
            "seed": chosen.seed,
            "rounds": rounds,
            "time_budget_s": budget,
            "quick": chosen.quick,
            "published": chosen.published,
        },
        about,
    )
    path = output / "result.json"
    status = _measure(
        runner.Runner(
            works,
            programs,
            str(path),
            result,
            chosen.seed,
            runner.Clock(rounds, budget),
            remote,
            chosen.relay_pid,
            not chosen.no_syscalls,
        )
    )
    print(table.terminal(result))
    _write_report(result, output / "report.html")
    runner.say(f"written: {path}, {output / 'report.html'}")
    if status:
        return status
    if not any(one["metrics"] for one in result["samples"]) and not result["external"]:
        return 3
    broken = any(one["exit_status"] for one in result["external"].values())
    return 1 if broken or document.failures(result) else 0


def _measure(work):
    """Runs it; 0, or the exit status of the signal that stopped it."""

    def stop(number, _frame):
        work.stopping = number
        raise runner.Interrupted(number)

    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, stop)
    try:
        work.run()
    except runner.Interrupted as interrupted:
        # Once is enough: table and report are still to be written.
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        runner.say("\nstopped: what was measured is kept and marked as interrupted")
        return 128 + interrupted.number
    return 0


def _write_report(result, path):
    try:
        path.write_text(report.page(result), "utf-8")
    except ModuleNotFoundError as error:
        sys.exit(f"bore-bench: no report: {error}; tools/setup installs python3-pygal")


def command_serve(chosen):
    load = str(chosen.load)
    try:
        os.execv(load, [load, "serve", "--listen", chosen.listen])
    except OSError as error:
        sys.exit(f"bore-bench: {load}: {error.strerror}; build it (tools/build) or give --load")


def command_compare(chosen):
    try:
        old, new = document.load(chosen.old), document.load(chosen.new)
        notes = compare.check(old, new, chosen.relative_to)
        found = compare.changes(old, new, chosen.relative_to, chosen.least / 100)
    except (document.NoDocument, compare.CannotCompare) as error:
        print(f"bore-bench: cannot compare: {error}", file=sys.stderr)
        return compare.CANNOT
    shown = [one for one in found if chosen.all or one.verdict != "same"]
    if shown:
        print(table.text([compare.HEAD, *(one.cells() for one in shown)]))
    counts = {
        name: sum(one.verdict == name for one in found)
        for name in ("worse", "better", "same", "unknown")
    }
    print(
        ", ".join(f"{number} {name}" for name, number in counts.items() if number)
        + f"; a change counts with 95 % confidence and from {chosen.least:g} % on"
    )
    for note in notes:
        print(f"NOTE: {note}")
    return compare.exit_status(found)


def command_report(chosen):
    result = document.load(chosen.result)
    print(table.terminal(result))
    path = chosen.html or pathlib.Path(chosen.result).with_name("report.html")
    _write_report(result, path)
    runner.say(f"written: {path}")
    return 0


def command_publish(chosen):
    if chosen.check:
        differing = publish.check(TOP)
        for path in differing:
            print(
                f"{path}: its tables are not those of {publish.KEPT}; mend it with bore-bench "
                f"publish {publish.KEPT}"
            )
        if not differing:
            print(f"the tables agree with {publish.KEPT}")
        return 1 if differing else 0
    for path in publish.write(document.load(chosen.result), TOP):
        print(f"written: {path}")
    # Its terms are read from what was just written.
    return subprocess.run([pathlib.Path(TOP, "bench", "scale", "publish")], check=False).returncode


def main(words):
    chosen = arguments.parser().parse_args(words[1:])
    command = {
        "list": command_list,
        "run": command_run,
        "serve": command_serve,
        "compare": command_compare,
        "report": command_report,
        "publish": command_publish,
    }
    try:
        return command[chosen.command](chosen)
    except (document.NoDocument, publish.CannotPublish, ValueError) as error:
        print(f"bore-bench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 141
