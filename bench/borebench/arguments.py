"""The command line of bore-bench: what may be asked for, and the help that teaches it. Every value
is checked here; an error names it, the rule and what would do. The commands are in cli.py."""

import argparse
import os
import pathlib

from borebench import compare, plan, relays

TOP = pathlib.Path(__file__).resolve().parents[2]
PUBLISHED = TOP / "build" / "bench" / "published"
DEFAULT_OUTPUT = TOP / "build" / "bench" / "last"

EPILOG = """\
Examples:
  bore-bench run --quick                          a smoke of everything usual, about two minutes
  bore-bench run --scenarios bulk,rr --rounds 5   our relay beside the others, on this machine
  bore-bench run --targets ours+bore,nginx --streams 1,64 --directions both
  bore-bench run --scenarios soak --duration 8h --targets ours+bore,rust+rust

A real installation, from another machine:
  far$   bore-bench serve --listen 0.0.0.0:9000   behind the tunnel client
  far$   bore local 9000 --to relay.example.com --port 10001
  near$  bore-bench run --target relay.example.com:10001 --verify

What a change did:
  bore-bench run --output /tmp/before; ...; bore-bench run --output /tmp/after
  bore-bench compare /tmp/before/result.json /tmp/after/result.json
"""
RUN_EPILOG = """\
Writes DIR/result.json (after every sample) and DIR/report.html. Relays are started by bore-bench,
each in a network namespace of its own, so it needs root or unprivileged user namespaces. What is
not installed is said and left out; tools/peers installs it. A stop key ends the run in order: what
was measured is kept and marked as interrupted.

Exit status: 0 measured; 1 some sample failed (the table says which, how often and why); 2 wrong
arguments; 3 nothing was measured; 130, 143 stopped.
"""
COMPARE_EPILOG = f"""\
Exit status, for CI: {compare.SAME_OR_BETTER} the same or better, {compare.WORSE} something is
worse, {compare.CANNOT} they cannot be compared.
"""


def words(text):
    return tuple(word for word in text.split(",") if word)


def numbers(text):
    try:
        found = tuple(int(word) for word in words(text))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers from 1 on, such as 1,16")
    return found


def positive(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return value


def count(text):
    return numbers(text)[0] if "," not in text else numbers("")


def duration(text):
    """Seconds of 90, 90s, 15m, 8h."""
    scale = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], None)
    try:
        return positive(text[:-1] if scale else text) * (scale or 1)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no duration, such as 90s, 15m or 8h"
        ) from None


def address(text):
    """HOST:PORT or [HOST]:PORT."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no address, such as relay.example.com:10001 or [2001:db8::1]:10001"
        )
    return host, int(port)


def sizes(text):
    found = words(text)
    for one in found:
        parts = one.split("/")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise argparse.ArgumentTypeError(
                f"'{one}' is no size: bytes of request and response (64), or of both (64/20000)"
            )
    return found


def directions(text):
    found = words(text)
    if not found or set(found) - {"up", "down", "both"}:
        raise argparse.ArgumentTypeError(f"'{text}': directions are up, down and both")
    return found


def targets(text):
    try:
        return tuple(str(relays.Spec.parse(name)) for name in words(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def scenarios(text):
    found = tuple(plan.SCENARIOS) if text == "all" else words(text)
    unknown = [name for name in found if name not in plan.SCENARIOS]
    if unknown or not found:
        raise argparse.ArgumentTypeError(
            f"no scenario '{', '.join(unknown)}'; there are {', '.join(plan.SCENARIOS)} and all"
        )
    return found


def _programs(command):
    build = TOP / "build" / "release"
    group = command.add_argument_group("programs")
    group.add_argument("--server", default=build / "controlplane/relay/bore-server", metavar="FILE")
    group.add_argument("--client", default=build / "controlplane/client/bore", metavar="FILE")
    group.add_argument("--load", default=build / "bench/load/bore-load", metavar="FILE")
    group.add_argument(
        "--peers",
        metavar="DIR",
        help="where tools/peers has installed (BORE_PEERS)",
        default=os.environ.get("BORE_PEERS", os.path.expanduser("~/.local/share/bore-peers")),
    )


def _run_options(command):
    usual = plan.Options()
    what = command.add_argument_group("what is measured")
    what.add_argument(
        "--scenarios",
        type=scenarios,
        metavar="LIST",
        help=f"{', '.join(plan.SCENARIOS)}, or all (default: {', '.join(plan.USUAL)})",
    )
    what.add_argument(
        "--targets",
        type=targets,
        metavar="LIST",
        help="such as ours+bore,rust+rust,nginx; bore-bench list shows all",
    )
    what.add_argument(
        "--target",
        type=address,
        action="append",
        metavar="HOST:PORT",
        help="an installation that runs already, with bore-bench serve behind it; "
        "repeatable; others only with --targets",
    )
    what.add_argument(
        "--relay-pid",
        type=int,
        metavar="PID",
        help="process of the relay behind --target, if on this machine: adds its cost",
    )
    what.add_argument("--quick", action="store_true", help="a smoke; its figures mean nothing")
    what.add_argument(
        "--published",
        action="store_true",
        help="the fixed plan of the published comparison, at most 15 minutes; with --quick a "
        "rehearsal of it",
    )
    size = command.add_argument_group("how much (with their defaults)")
    for name, kind, text in (
        ("directions", directions, "bulk, limits: up, down, both"),
        ("streams", numbers, "bulk: streams at a time"),
        ("sizes", sizes, "rr: bytes of request and response; 64/20000 where they differ"),
        ("connections", numbers, "rr: at a time"),
        ("rates", numbers, "rr-rate: requests a second"),
        ("concurrency", count, "crr: connections at a time"),
        ("seconds", positive, "of each load"),
        ("pairs", count, "idle: silent pairs"),
        ("tunnels", count, "tunnels: how many"),
        ("limit-mbit", count, "limits: Mbit/s"),
        ("duration", duration, "soak: 90s, 15m, 8h"),
    ):
        default = getattr(usual, {"duration": "duration_s"}.get(name, name.replace("-", "_")))
        several = isinstance(default, tuple)
        shown = ",".join(map(str, default)) if several else f"{default:g}"
        size.add_argument(
            f"--{name}", type=kind, metavar="LIST" if several else "N", help=f"{text} ({shown})"
        )
    size.add_argument("--verify", action="store_true", help="bulk: compare every byte")
    size.add_argument(
        "--service-quickack",
        action="store_true",
        help="rr: the service acknowledges every piece at once",
    )
    how = command.add_argument_group("how")
    how.add_argument("--rounds", type=count, metavar="N", help="of every target (3; quick: 1)")
    how.add_argument(
        "--time-budget", type=duration, metavar="TIME", help="more rounds while another one fits in"
    )
    how.add_argument("--seed", type=int, default=1, help="order of the targets (1)")
    how.add_argument(
        "--no-syscalls",
        action="store_true",
        help="do not count system calls (a pass of its own in the first round)",
    )
    how.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help=f"folder of the results ({DEFAULT_OUTPUT.relative_to(TOP)} of the tree; "
        f"published: {PUBLISHED.relative_to(TOP)})",
    )


def parser():
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="bore-bench",
        formatter_class=raw,
        epilog=EPILOG,
        description="Compares relays, or validates one: throughput, " "latency, cost, memory.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("list", help="scenarios and targets, and what is installed")
    _programs(one)
    one = commands.add_parser(
        "run", help="measures; writes JSON and a report", formatter_class=raw, epilog=RUN_EPILOG
    )
    _run_options(one)
    _programs(one)
    one = commands.add_parser("serve", help="the service behind the relay of --target")
    one.add_argument("--listen", default="127.0.0.1:9000", metavar="HOST:PORT")
    _programs(one)
    one = commands.add_parser(
        "compare",
        help="better, worse or the same: two results",
        formatter_class=raw,
        epilog=COMPARE_EPILOG,
    )
    one.add_argument("old", metavar="A.json")
    one.add_argument("new", metavar="B.json")
    one.add_argument(
        "--relative-to",
        metavar="TARGET",
        help="compare ratios to this target's figures of the same round",
    )
    one.add_argument(
        "--least",
        type=float,
        default=100 * compare.LEAST_CHANGE,
        metavar="PERCENT",
        help="smaller changes count as the same (%(default)s)",
    )
    one.add_argument("--all", action="store_true", help="show what stayed the same, too")
    one = commands.add_parser("report", help="table and HTML page of a result")
    one.add_argument("result", metavar="X.json")
    one.add_argument("--html", type=pathlib.Path, metavar="FILE", help="(report.html beside it)")
    one = commands.add_parser("publish", help="the tables of the READMEs from a published run")
    one.add_argument(
        "--check",
        action="store_true",
        help="only say whether the READMEs agree with the kept result",
    )
    one.add_argument(
        "result",
        nargs="?",
        default=PUBLISHED / "result.json",
        metavar="X.json",
        help="(%(default)s)",
    )
    return top
