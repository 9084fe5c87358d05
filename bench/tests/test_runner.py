"""Order of rounds, budget, failures, interruption: the runner with made-up measurements."""

import json

import pytest
from borebench import document, plan, relays, runner
from borebench.targets import TargetFailed
from conftest import MACHINE


class MadeUp:
    """Stands for a target that runs."""

    def __init__(self, name):
        self.name, self.commands = name, [f"start {name}"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Bench:
    """A runner whose samples come from `measure(work name, target name)`."""

    def __init__(
        self,
        tmp_path,
        monkeypatch,
        measure,
        clock,
        targets=("direct", "nginx", "haproxy"),
        seed=1,
        missing=(),
    ):
        options = plan.Options(scenarios=("bulk",), directions=("down",), targets=targets)
        self.works = plan.works(options)
        self.path = tmp_path / "result.json"
        self.seen = []
        programs = relays.Programs("s", "c", "l", "p")
        monkeypatch.setattr(
            programs, "missing", lambda needs: [name for name in needs if name in missing]
        )
        about = {name: {"text": name} for name in targets}
        self.result = document.new(dict(MACHINE), self.works, {"seed": seed}, about)
        self.runner = runner.Runner(self.works, programs, str(self.path), self.result, seed, clock)
        monkeypatch.setattr(self.runner, "_target", lambda name, work, folder: MadeUp(name))

        def made_up(work, target, _syscalls):
            self.seen.append((work.name, target.name))
            found = {"failed": None, "failures": 0, "loads": [], "metrics": {}}
            return found | measure(work.name, target.name)

        monkeypatch.setattr(runner.scenarios, "measure", made_up)

    def kept(self):
        return document.load(self.path)


def quick(work, target):
    return {"metrics": {"cpu_s_per_gb": 1.0}}


def test_every_second_round_goes_backwards(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, quick, runner.Clock(3, None))
    bench.runner.run()
    names = [
        [target for work, target in bench.seen[start : start + 3] if work == "bulk-down-1"]
        for start in range(0, len(bench.seen), 3)
    ]
    first = [one for one in names if one]
    assert len(first) == 3 and sorted(first[0]) == ["direct", "haproxy", "nginx"]
    assert first[1] == first[0][::-1] and first[2] == first[0]
    assert bench.kept()["status"] == "complete" and bench.kept()["rounds_done"] == 3


def test_the_seed_decides_the_order(tmp_path, monkeypatch):
    orders = set()
    for seed in (1, 1, 2, 3, 4, 5, 6):
        bench = Bench(tmp_path, monkeypatch, quick, runner.Clock(1, None), seed=seed)
        bench.runner.run()
        orders.add((seed, tuple(bench.seen)))
    assert len(orders) == 6 and len({order for _, order in orders}) > 1


def test_a_budget_adds_rounds_while_another_fits(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    clock = runner.Clock(2, 100)
    done = 0
    while clock.goes_on(done):
        now[0] += 30
        done += 1
    assert done == 3
    now[0] = 0
    slow = runner.Clock(2, 100)
    assert slow.goes_on(0)
    now[0] = 500
    assert slow.goes_on(1) and not slow.goes_on(2)  # never fewer than asked for


@pytest.mark.parametrize(
    "error", [TargetFailed("refuses: 5 refused"), OSError(2, "gone"), KeyError("p50_us")]
)
def test_a_target_that_fails_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch, error):
    def measure(_work, target):
        if target == "nginx":
            raise error
        return {"metrics": {"cpu_s_per_gb": 1.0}}

    bench = Bench(tmp_path, monkeypatch, measure, runner.Clock(1, None))
    bench.runner.run()
    kept = bench.kept()
    assert {one["target"] for one in document.failures(kept)} == {"nginx"}
    assert document.values(kept, "bulk-down-1", "haproxy", "cpu_s_per_gb") == [1.0]
    assert len(kept["samples"]) == 6


def test_what_is_missing_is_said_once_and_left_out(tmp_path, monkeypatch, capsys):
    bench = Bench(tmp_path, monkeypatch, quick, runner.Clock(2, None), missing=("haproxy",))
    bench.runner.run()
    assert {target for _, target in bench.seen} == {"direct", "nginx"}
    assert [one["work"] for one in bench.kept()["skipped"]] == ["bulk-down-1", "bulk-down-16"]
    assert capsys.readouterr().err.count("not measured: haproxy") == 1


def test_an_interruption_keeps_what_was_measured(tmp_path, monkeypatch):
    def measure(_work, _target):
        if len(bench.seen) == 5:
            raise runner.Interrupted(2)
        return {"metrics": {"cpu_s_per_gb": 1.0}}

    bench = Bench(tmp_path, monkeypatch, measure, runner.Clock(3, None))
    with pytest.raises(runner.Interrupted):
        bench.runner.run()
    kept = bench.kept()
    assert (kept["status"], kept["rounds_done"], len(kept["samples"])) == ("interrupted", 0, 4)


def test_a_killed_run_leaves_a_document_that_says_running(tmp_path, monkeypatch):
    def measure(_work, _target):
        if len(bench.seen) == 3:
            on_disk.append(json.loads(bench.path.read_text()))
        return {"metrics": {"cpu_s_per_gb": 1.0}}

    on_disk = []
    bench = Bench(tmp_path, monkeypatch, measure, runner.Clock(1, None))
    bench.runner.run()
    assert on_disk[0]["status"] == "running" and len(on_disk[0]["samples"]) == 2
