"""Runs a plan: rounds over all works and targets, one sample after another, the document saved
after each. Prints progress; knows what to do when a target is missing, fails, or the user stops it.

Every work is measured on all its targets before the next; the order of the targets is by chance (of
the seed), and the other way round in every second round, so that a drift of the machine hits both
ends.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from borebench import document, plan, processes, relays, scenarios, table
from borebench.targets import LocalTarget, RemoteTarget, TargetFailed


class Interrupted(BaseException):
    """A stop signal. Not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def say(text, end="\n"):
    print(text, file=sys.stderr, end=end, flush=True)


class Clock:
    """When to stop: after so many rounds, or, with a budget, before one that no longer fits."""

    def __init__(self, rounds, budget_s):
        self.rounds, self.budget_s = rounds, budget_s
        self.began = time.monotonic()

    def spent(self):
        return time.monotonic() - self.began

    def goes_on(self, done):
        if done < self.rounds:
            return True
        return bool(self.budget_s) and self.spent() * (done + 1) / done <= self.budget_s


class Runner:
    def __init__(
        self, works, programs, path, result, seed, clock, remote=(), relay_pid=None, syscalls=True
    ):
        self.works = [work for work in works if work.scenario not in plan.EXTERNAL]
        self.external = [work for work in works if work.scenario in plan.EXTERNAL]
        self.programs = programs
        self.path = path
        self.result = result
        self.clock = clock
        self.remote = dict(remote)  # name: (host, port)
        self.relay_pid = relay_pid
        self.syscalls = syscalls
        # Set by a stop signal, besides raising Interrupted: Python swallows what is raised while it
        # forks a child (hooks of other modules run then), so it is looked at between samples.
        self.stopping = None
        self._random = random.Random(seed)
        self._skipped = set()

    def run(self):
        """Raises Interrupted; the document is saved as interrupted then."""
        try:
            with tempfile.TemporaryDirectory(prefix="bore-bench-") as folder:
                self._rounds(folder)
            for work in self.external:
                self._run_external(work)
        except Interrupted:
            self.result["status"] = "interrupted"
            raise
        else:
            self.result["status"] = "complete"
        finally:
            document.save(self.result, self.path)

    def _rounds(self, folder):
        jobs = [(work, self._order(work)) for work in self.works]
        count = sum(len(targets) for _, targets in jobs)
        done = 0
        while count and self.clock.goes_on(done):
            number = 0
            for work, targets in jobs:
                for target in targets if done % 2 == 0 else reversed(targets):
                    number += 1
                    say(
                        f"[round {done + 1}, {number}/{count}, {clock_text(self.clock.spent())}] "
                        f"{work.name} {target}: ",
                        end="",
                    )
                    self._sample(work, target, done, os.path.join(folder, f"{done}-{number}"))
            done += 1
            self.result["rounds_done"] = done
        document.save(self.result, self.path)

    def _order(self, work):
        """The targets of a work that can be measured, by chance; the others count as skipped."""
        fit = []
        for name in work.targets:
            reason = self._unfit(name, work)
            if reason:
                self._skip(name, work, reason)
            else:
                fit.append(name)
        self._random.shuffle(fit)
        return fit

    def _unfit(self, name, work):
        """Why a target cannot be measured here, in a sentence; "" when it can."""
        if name in self.remote:
            return plan.unfit(None, work.scenario)
        spec = relays.Spec.parse(name)
        if reason := plan.unfit(spec, work.scenario):
            return reason
        if missing := self.programs.missing(spec.needs):
            return f"missing {', '.join(missing)}; tools/peers and tools/build make them"
        there = free_hugepages_mib()
        if spec.cabled and there < 256:
            return f"needs 256 MiB of free hugepages, has {there} (sysctl vm.nr_hugepages=512)"
        limit, wanted = processes.descriptor_limit(), plan.descriptors(work)
        if wanted > limit:
            return f"a relay needs {wanted:,} descriptors, the limit is {limit:,} (ulimit -Hn)"
        return ""

    def _skip(self, name, work, reason):
        self.result["skipped"].append({"target": name, "work": work.name, "reason": reason})
        if (name, reason) not in self._skipped:
            self._skipped.add((name, reason))
            say(f"not measured: {name} ({work.name}): {reason}")

    def _target(self, name, work, folder):
        if name in self.remote:
            return RemoteTarget(*self.remote[name], self.programs, folder, self.relay_pid)
        return LocalTarget(
            relays.Spec.parse(name), self.programs, folder, work.numbers.get("limit_mbit", 0)
        )

    def _sample(self, work, name, number, folder):
        if self.stopping:
            raise Interrupted(self.stopping)
        began = time.time()
        sample = {"work": work.name, "target": name, "round": number, "started": round(began, 3)}
        try:
            with self._target(name, work, folder) as target:
                self.result["targets"][name]["commands"] = target.commands
                sample |= scenarios.measure(work, target, self.syscalls and number == 0)
        except TargetFailed as error:
            sample |= {"metrics": {}, "failed": str(error), "failures": 1, "loads": []}
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            # A relay that ends under way takes its /proc entries along.
            sample |= {
                "metrics": {},
                "failures": 1,
                "loads": [],
                "failed": f"{type(error).__name__}: {error}",
            }
        sample["seconds"] = round(time.time() - began, 3)
        self.result["samples"].append(sample)
        document.save(self.result, self.path)
        say(f"FAILED: {sample['failed']}" if sample["failed"] else table.one_line(work, sample))

    def _run_external(self, work):
        """packet and micro have a program of their own; its JSON becomes part of the document."""
        top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        program = os.path.join(top, "bench", work.scenario, "run")
        if not os.path.exists(program):
            self._skip(work.scenario, work, f"{program} is not there")
            return
        output = os.path.join(os.path.dirname(os.path.abspath(self.path)), work.scenario)
        command = [program, "--output", output]
        if self.result["options"].get("quick"):
            command.append("--quick")
        say(f"{work.name}: {' '.join(command)}")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=processes.in_child
        )
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                # As from a terminal, so that what it has started ends, too.
                os.killpg(process.pid, signal.SIGINT)
                process.wait()
        found = {"command": " ".join(command), "exit_status": status}
        with contextlib.suppress(OSError, ValueError):
            found["result"] = document.plain(f"{output}.json")
        with contextlib.suppress(OSError, ValueError), open(
            f"{output}.md", encoding="utf-8"
        ) as file:
            found["text"] = file.read()
        if status != 0:
            self._skip(work.scenario, work, f"{program} ended with exit status {status}")
        self.result["external"][work.name] = found
        document.save(self.result, self.path)


def free_hugepages_mib():
    with open("/proc/meminfo", encoding="ascii") as lines:
        values = dict(line.split(":", 1) for line in lines)
    return int(values["HugePages_Free"]) * int(values["Hugepagesize"].split()[0]) // 1024


def clock_text(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
