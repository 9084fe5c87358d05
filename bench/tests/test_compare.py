"""What became better, worse or stayed; the exit codes of the command."""

import pytest
from borebench import cli, compare, document, plan
from conftest import make_result

WORK = "bulk-down-1"


def run_of(cpu, rate=(10, 11, 10.5), reference=(1.0, 1.1, 1.05), **more):
    return make_result(
        {
            (WORK, "ours+bore"): {"cpu_s_per_gb": list(cpu), "gbit_per_s": list(rate)},
            (WORK, "nginx"): {"cpu_s_per_gb": list(reference)},
        },
        rounds=len(cpu),
        **more,
    )


def verdicts(old, new, **options):
    return {(one.target, one.metric): one.verdict for one in compare.changes(old, new, **options)}


def test_better_worse_and_the_same():
    old = run_of((0.10, 0.11, 0.105))
    assert verdicts(old, run_of((0.05, 0.052, 0.055)))["ours+bore", "cpu_s_per_gb"] == "better"
    slower = verdicts(old, run_of((0.10, 0.11, 0.105), rate=(5, 5.5, 5.2)))
    assert slower["ours+bore", "gbit_per_s"] == "worse"
    assert slower["ours+bore", "cpu_s_per_gb"] == "same"


def test_a_change_within_noise_is_none():
    assert (
        verdicts(run_of((0.1, 0.2, 0.15)), run_of((0.12, 0.21, 0.17)))["ours+bore", "cpu_s_per_gb"]
        == "same"
    )


def test_relative_to_takes_the_machine_out():
    old = run_of((0.10, 0.11, 0.105))
    slow_day = run_of((0.20, 0.22, 0.21), reference=(2.0, 2.2, 2.1))
    assert verdicts(old, slow_day)["ours+bore", "cpu_s_per_gb"] == "worse"
    found = verdicts(old, slow_day, relative_to="nginx")
    assert found == {("ours+bore", "cpu_s_per_gb"): "same"}


def test_counts_that_were_zero_and_are_not():
    old = make_result(
        {("idle-5000", "ours+bore"): {"lost": [0, 0, 0], "rss_bytes_per_pair": [5, 5, 5]}}
    )
    new = make_result(
        {("idle-5000", "ours+bore"): {"lost": [2, 1, 2], "rss_bytes_per_pair": [5, 5, 5]}}
    )
    assert verdicts(old, new)["ours+bore", "lost"] == "worse"
    assert verdicts(new, old)["ours+bore", "lost"] == "better"


def test_growth_of_one_soak_is_no_change():
    works = plan.works(plan.Options(scenarios=("soak",)))

    def soak(*growth):
        series = {("soak", "ours+bore"): {"rss_bytes_per_hour": growth, "lost_bytes": [0] * 3}}
        return make_result(series, works, rounds=len(growth))

    key = "ours+bore", "rss_bytes_per_hour"
    assert verdicts(soak(1000), soak(1001))[key] == "unknown"
    assert verdicts(soak(1000, -5, 0), soak(9e6, 8e6, 9e6))[key] == "worse"


@pytest.mark.parametrize("change", ["empty", "other_target", "other_load", "too_few"])
def test_what_cannot_be_compared(change):
    old, new = run_of((1, 1, 1)), run_of((1, 1, 1))
    if change == "empty":
        new["samples"] = []
    elif change == "other_target":
        for one in new["samples"]:
            one["target"] = "frp"
    elif change == "other_load":
        document.work(new, WORK)["load"] = ["bulk", "--streams", "99"]
    else:
        old, new = run_of((1,), rate=(1,), reference=(1,)), run_of((1,), rate=(1,), reference=(1,))
    with pytest.raises(compare.CannotCompare):
        compare.check(old, new)
        compare.changes(old, new)


def test_differing_machines_and_unfinished_runs_are_noted():
    old, new = run_of((1, 1, 1)), run_of((1, 1, 1))
    new["machine"]["kernel"], new["status"] = "7.0", "interrupted"
    said = " ".join(compare.check(old, new))
    assert "kernel differs" in said and "interrupted" in said


def test_exit_codes_of_the_command(tmp_path, capsys):
    paths = {}
    for name, cpu in (("old", (0.10, 0.11, 0.105)), ("bad", (0.20, 0.21, 0.205)), ("few", (0.1,))):
        paths[name] = str(tmp_path / f"{name}.json")
        document.save(run_of(cpu, rate=(9,) * len(cpu), reference=(1,) * len(cpu)), paths[name])

    def status(*words):
        return cli.main(["bore-bench", "compare", *words])

    assert status(paths["old"], paths["old"]) == 0
    assert status(paths["old"], paths["bad"]) == 1
    assert "worse" in capsys.readouterr().out
    assert status(paths["bad"], paths["old"]) == 0
    assert status(paths["few"], paths["few"]) == 2
    assert status(paths["old"], str(tmp_path / "none.json")) == 2
    assert "none.json: No such file" in capsys.readouterr().err
