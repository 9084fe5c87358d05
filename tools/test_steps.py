#!/usr/bin/env python3
"""The steps of tools/test: each runs one command, counts what passed, failed and was skipped, and
keeps the whole output in build/test-logs/STEP.log. A table at the end tells all.

How it goes:
  1. the chosen steps run one after another (the machine's cores are used within a step)
  2. a step that cannot run, because its build failed, counts as failed
  3. the table, each failure and each reason for skipping are printed; the last line counts tests
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "test-logs"
FUZZ_SECONDS = 12
# End-to-end tests at a time: they mostly wait for deadlines, so more than there are cores.
E2E_JOBS = 4
# A step that takes longer than this hangs.
STEP_TIMEOUT_S = 45 * 60

# For the relays of the packet engine that run at a time, in pages of 2 MiB; tests that find none skip and say so.
HUGEPAGES = 1024
HUGEPAGES_FILE = pathlib.Path("/proc/sys/vm/nr_hugepages")

SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


class Result:
    """What a step found: counts, and a sentence for each failure and each reason to skip."""

    def __init__(self):
        self.passed = 0
        self.failures = []
        self.skips = collections.Counter()
        self.seconds = 0.0

    def add(self, name, failure=None, skip=None):
        if failure is not None:
            self.failures.append(f"{name}: {failure}" if failure else name)
        elif skip is not None:
            self.skips[skip] += 1
        else:
            self.passed += 1


class Runner:
    def __init__(self, options):
        self.options = options
        self.log = None
        self.built = {}

    def run(self, command, **environment):
        """Runs a command of the tree with its output in the step's log; its exit code."""
        command = [str(word) for word in command]
        print("$", *command, file=self.log, flush=True)
        # A session of its own, so that a hanging step ends with everything that it started.
        process = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, env=os.environ | environment,
                                   start_new_session=True)
        try:
            return process.wait(timeout=STEP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"took more than {STEP_TIMEOUT_S} s, ended", file=self.log)
            return 124
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)

    def one(self, result, name, command):
        """A command that is one test."""
        code = self.run(command)
        result.add(name, failure=None if code == 0 else f"exit code {code}")
        return code == 0

    def build(self, result, kind):
        """Builds a kind once in a run; later steps only ask whether it is there."""
        if kind not in self.built:
            self.built[kind] = self.one(result, f"build {kind}", [ROOT / "tools/build", kind])
        elif not self.built[kind]:
            result.add(f"build {kind}", failure="did not build, see the step before")
        return self.built[kind]

    def unit(self, result, kind):
        """meson test; GoogleTest writes down the single cases, others count as one each."""
        folder = ROOT / "build" / kind
        cases = LOGS / f"cases-{kind}"
        shutil.rmtree(cases, ignore_errors=True)
        cases.mkdir(parents=True)
        code = self.run([*calm(kind), "meson", "test", "-C", folder, "--no-rebuild", "--print-errorlogs",
                         "--timeout-multiplier", "1" if kind == "release" else "5"],
                        GTEST_OUTPUT=f"xml:{cases}/", **SANITIZER_OPTIONS)
        failed_before = len(result.failures)
        for file in sorted(cases.glob("*.xml")):
            read_junit(result, file)
        counted = {file.stem for file in cases.glob("*.xml")}
        for line in (folder / "meson-logs/testlog.json").read_text(encoding="utf-8").splitlines():
            test = json.loads(line)
            program = pathlib.Path(test["command"][0]).name
            if test["result"] == "SKIP":
                result.add(test["name"], skip=f"{test['name']} says so")
            elif test["result"] not in ("OK", "EXPECTEDFAIL"):
                result.add(f"{kind}/{test['name']}", failure=f"{test['result'].lower()},"
                           f" exit code {test['returncode']}")
            elif program not in counted:
                result.add(test["name"])
        if code != 0 and len(result.failures) == failed_before:
            result.add(f"meson test of {kind}", failure=f"exit code {code}")

    def pytest(self, result, arguments, name, command=("/usr/bin/python3", "-B", "-m", "pytest")):
        """pytest, or what runs it, with each case counted from its report."""
        report = LOGS / f"{name}.xml"
        report.unlink(missing_ok=True)
        failed_before = len(result.failures)
        code = self.run([*command, *arguments, f"--junitxml={report}"], **SANITIZER_OPTIONS)
        if report.exists():
            read_junit(result, report)
        if code != 0 and len(result.failures) == failed_before:
            result.add(f"pytest of {name}", failure=f"exit code {code}")

    def end_to_end(self, result, kind, quick, driver="both", only=""):
        """First what mostly waits, side by side; then, one by one, what needs the machine alone."""
        only = f" and {only}" if only else ""
        programs = ROOT / "build" / kind / "controlplane"
        common = ["--server", programs / "relay/bore-server", "--client", programs / "client/bore",
                  "--driver", driver, *(["--quick"] if quick else [])]
        # Only root is sure to get a network namespace for each test when they run side by side.
        beside = ["-n", E2E_JOBS] if os.geteuid() == 0 else []
        for name, chosen in (("together", ["-m", f"not alone{only}", *beside]),
                             ("alone", ["-m", f"alone{only}"])):
            self.pytest(result, [*common, *chosen], f"e2e-{kind}-{driver}-{name}",
                        command=[*calm(kind), ROOT / "tests/e2e/run"])


def calm(kind):
    """GCC 12's ThreadSanitizer cannot run where the kernel spreads addresses over more than 28 bits;
    setarch -R switches that off, where it is permitted."""
    without = ["setarch", "-R"]
    if kind != "tsan":
        return []
    usable = subprocess.run([*without, "true"], capture_output=True, check=False).returncode == 0
    return without if usable else []


def read_junit(result, file):
    for case in xml.etree.ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        wrong = case.find("failure")
        wrong = case.find("error") if wrong is None else wrong
        skipped = case.find("skipped")
        if wrong is not None:
            text = (wrong.get("message") or wrong.text or "").strip().splitlines()
            result.add(name, failure=text[0][:200] if text else "no message")
        elif skipped is not None or case.get("status") == "notrun":
            message = skipped.get("message") if skipped is not None else "disabled"
            result.add(name, skip=(message or "no reason given").strip())
        else:
            result.add(name)


def step_style(runner, result):
    """clang-format and shellcheck"""
    runner.one(result, "clang-format (mend it with tools/format)", [ROOT / "tools/format", "--check"])
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    scripts = [name for name in listed if is_shell(ROOT / name)]
    for script in scripts:
        runner.one(result, f"shellcheck {script}", ["shellcheck", "-S", "warning", script])


def is_shell(path):
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return re.match(rb"#!.*\b(ba)?sh\b", file.readline(80)) is not None


def step_build(runner, result):
    """release build"""
    runner.build(result, "release")


def step_unit(runner, result):
    """unit and architecture tests, release build"""
    if runner.build(result, "release"):
        runner.unit(result, "release")
    runner.pytest(result, ["-q", "bench"], "bench")


def step_install(runner, result):
    """meson install into an empty folder: programs, units, man pages; alerts and dashboards"""
    if runner.build(result, "release"):
        runner.run([ROOT / "tests/deploy/check_install.sh", ROOT / "build/release"])
        count_lines(result, runner.log.name, r"^ok: (.*)", r"^FAILED: (.*)")
    runner.pytest(result, ["-q", "-p", "no:cacheprovider", "tests/deploy"], "deploy")


def step_e2e(runner, result):
    """end-to-end tests on both drivers, release build"""
    # The original clients; what cannot be had here is skipped by the tests, with its reason.
    runner.run([ROOT / "tools/peers", "--only", "bore-0.6.0,bore-0.5.2"])
    if runner.build(result, "release"):
        runner.end_to_end(result, "release", quick=runner.options.quick, only="not packet")


def step_packet(runner, result):
    """packet engine end to end over af_packet: what stands for the rest, with --full everything"""
    if not runner.build(result, "release"):
        return
    if os.geteuid() != 0:
        result.add("packet engine", skip="needs root: namespaces, TAP devices, packet sockets")
    else:
        runner.end_to_end(result, "release", quick=True, driver="packet",
                          only="" if runner.options.full else "(smoke or packet_smoke)")


def step_kernel(runner, result):
    """Debian 12's own kernel 6.1, in QEMU: smoke test, packet engine on network cards under VFIO"""
    if runner.build(result, "release"):
        smoke_on_kernel(runner, result)
        packets_on_kernel(runner, result)


def smoke_on_kernel(runner, result):
    programs = ROOT / "build/release/controlplane"
    code = runner.run([ROOT / "tests/e2e/qemu/run", "--server", programs / "relay/bore-server",
                       "--client", programs / "client/bore"])
    log = pathlib.Path(runner.log.name).read_text(encoding="utf-8", errors="replace")
    # The guest's pytest closes with "== 12 passed, 1 skipped in 40.1s ==".
    closing = [line for line in log.splitlines() if re.search(r"\d+ (passed|failed).* in [\d.]+", line)]
    counts = collections.Counter({word: int(count) for count, word in re.findall(
        r"(\d+) (passed|failed|errors?|skipped)", closing[-1])}) if closing else {}
    if code == 77:
        result.add("kernel 6.1", skip=why_skipped(log))
    elif code != 0 or not counts.get("passed"):
        result.add("smoke test on kernel 6.1", failure=f"exit code {code}")
    else:
        result.passed += counts["passed"]
        if counts["skipped"]:
            result.skips["in the guest; the log has the reasons"] += counts["skipped"]


def packets_on_kernel(runner, result):
    failed_before = len(result.failures)
    began = pathlib.Path(runner.log.name).stat().st_size
    code = runner.run([ROOT / "tests/e2e/qemu/vfio", "--server",
                       ROOT / "build/release/controlplane/relay/bore-server"])
    log = pathlib.Path(runner.log.name).read_bytes()[began:].decode(errors="replace")
    if code == 77:
        result.add("packet engine on VFIO", skip=why_skipped(log))
        return
    for line in log.splitlines():
        if match := re.match(r"PASS (.*) \(", line):
            result.add(match.group(1))
        elif match := re.match(r"FAIL (.*?): (.*)", line):
            result.add(match.group(1), failure=match.group(2))
    if code != 0 and len(result.failures) == failed_before:
        result.add("packet engine on VFIO", failure=f"exit code {code}")


def why_skipped(log):
    reasons = re.findall(r"^SKIPPED: (.*)", log, re.MULTILINE)
    return reasons[-1] if reasons else "the packages cannot be had"


def step_tidy(runner, result):
    """clang-tidy on the product, with --full on the tests, too; and thereby clang as second compiler"""
    if runner.build(result, "release"):
        only = [] if runner.options.full else ["--product"]
        runner.one(result, "clang-tidy", [ROOT / "tools/tidy", *only])


def step_asan(runner, result):
    """address and undefined-behaviour sanitizers: unit and short end-to-end tests"""
    if runner.build(result, "asan"):
        runner.unit(result, "asan")
        # Everything before a release; else what stands for the rest.
        runner.end_to_end(result, "asan", quick=True, driver="both" if runner.options.full else "io_uring",
                          only="" if runner.options.full else "smoke")


def step_tsan(runner, result):
    """thread sanitizer: unit tests on both drivers, short end-to-end tests on io_uring"""
    if runner.build(result, "tsan"):
        runner.unit(result, "tsan")
        runner.end_to_end(result, "tsan", quick=True, driver="io_uring",
                          only="" if runner.options.full else "smoke")


def step_fuzz(runner, result):
    """every fuzz target for a short while"""
    length = ["--runs", "10000000"] if runner.options.full else ["--seconds", FUZZ_SECONDS]
    code = runner.run([ROOT / "tools/fuzz", *length])
    counted = count_lines(result, runner.log.name, r"^fuzz: (\w+): ok", r"^fuzz: (\w+): FAILED")
    if code != 0 and not result.failures or not counted:
        result.add("fuzz targets", failure=f"exit code {code}")


def count_lines(result, log, passed, failed):
    counted = 0
    for line in pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines():
        if match := re.match(passed, line):
            result.add(match.group(1))
        elif match := re.match(failed, line):
            result.add(match.group(1), failure="")
        else:
            continue
        counted += 1
    return counted


STEPS = {name.removeprefix("step_"): function for name, function in dict(globals()).items()
         if name.startswith("step_")}
# What half an hour on two cores without a compiler cache has no room for.
ONLY_FULL = ["tidy", "tsan"]
QUICK = ["style", "build", "unit", "install", "e2e"]


def parse():
    steps = "\n".join(f"  {name:8} {function.__doc__}" for name, function in STEPS.items())
    parser = argparse.ArgumentParser(
        prog="tools/test", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Runs the tests and prints a table; ends non-zero when one failed.",
        epilog=f"Steps; without --full all but {', '.join(ONLY_FULL)}, unless some are named:\n{steps}\n\n"
               "The output of a step is in build/test-logs/STEP.log.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true",
                        help=f"a few minutes: only {', '.join(QUICK)}, short end-to-end tests")
    length.add_argument("--full", action="store_true",
                        help="before a release: 10 million runs of each fuzz target and every end-to-end"
                             " test under the sanitizers (hours)")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    options = parser.parse_args()
    unknown = [name for name in options.steps if name not in STEPS]
    if unknown:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    usual = [name for name in STEPS if options.full or name not in ONLY_FULL]
    options.steps = options.steps or (QUICK if options.quick else usual)
    return options


@contextlib.contextmanager
def hugepages():
    """Reserves what is missing of HUGEPAGES, where that is permitted, and gives it back at the end."""
    before = int(HUGEPAGES_FILE.read_text(encoding="ascii")) if HUGEPAGES_FILE.exists() else HUGEPAGES
    short = before < HUGEPAGES and os.access(HUGEPAGES_FILE, os.W_OK)
    if short:
        with contextlib.suppress(OSError):
            HUGEPAGES_FILE.write_text(str(HUGEPAGES), encoding="ascii")
    try:
        yield
    finally:
        if short:
            with contextlib.suppress(OSError):
                HUGEPAGES_FILE.write_text(str(before), encoding="ascii")


def print_table(results):
    print(f"\n{'step':10}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>9}")
    for name, result in results.items():
        print(f"{name:10}{result.passed:8}{len(result.failures):8}"
              f"{sum(result.skips.values()):9}{clock(result.seconds):>9}")
    for title, lines in (
            ("Skipped", [f"{name}: {count} x {reason}" for name, result in results.items()
                         for reason, count in result.skips.items()]),
            ("Failed", [f"{name}: {failure}" for name, result in results.items()
                        for failure in result.failures])):
        if lines:
            print(f"\n{title}:")
            print("\n".join(f"  {line}" for line in lines))


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def main():
    options = parse()
    # As with Ctrl-C: what a step has started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    LOGS.mkdir(parents=True, exist_ok=True)
    with hugepages():
        return run_steps(options)


def run_steps(options):
    runner, results = Runner(options), {}
    started = time.monotonic()
    for number, name in enumerate(options.steps, start=1):
        result = results[name] = Result()
        print(f"[{number}/{len(options.steps)}] {name}: {STEPS[name].__doc__} ...", flush=True)
        began = time.monotonic()
        with open(LOGS / f"{name}.log", "w", encoding="utf-8") as runner.log:
            try:
                STEPS[name](runner, result)
            except Exception as error:  # pylint: disable=broad-except
                result.add("the step itself", failure=f"{type(error).__name__}: {error}")
        result.seconds = time.monotonic() - began
        print(f"      {'FAILED' if result.failures else 'ok'}: {result.passed} passed,"
              f" {len(result.failures)} failed, {sum(result.skips.values())} skipped,"
              f" {clock(result.seconds)}", flush=True)
        if result.failures:
            print("\n".join(f"      failed: {failure}" for failure in result.failures))
            print(f"      the end of build/test-logs/{name}.log:")
            text = (LOGS / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            print("\n".join(f"      | {line}" for line in text.splitlines()[-40:]), flush=True)
    print_table(results)
    passed = sum(result.passed for result in results.values())
    failed = sum(len(result.failures) for result in results.values())
    skipped = sum(sum(result.skips.values()) for result in results.values())
    print(f"\nAll took {clock(time.monotonic() - started)}.")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
