"""The micro benchmarks' bookkeeping, and that no row vanishes: the program, published.json and the
README's table name the same ones. Run: pytest bench"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(HERE))

import micro_results as results


def entry(name, per_second, **more):
    return {"name": name, "run_name": name, "run_type": "iteration", "items_per_second": per_second,
            "label": "thing", **more}


def file_of(*entries, **more):
    return {"machine": {"date": "2026-11-29", "cpu": "2 × CPU"}, "benchmarks": list(entries), **more}


def programs():
    built = [TOP / "build" / kind / "bench" / "micro" / "bore-micro-bench"
             for kind in ("release", "debug", "asan")]
    return [path for path in built if path.is_file()]


def published_text():
    return (HERE / "README.md").read_text(encoding="utf-8")


def test_a_sample_is_nanoseconds_per_item():
    (row,), errors = results.rows_of(file_of(entry("a/b", 1e6), entry("a/b", 0.5e6)))
    assert (row.name, row.samples, row.item, errors) == ("a/b", (1000, 2000), "thing", [])
    assert row.median == 1500 and round(row.variation, 3) == round(707.107 / 1500, 3)


def test_aggregates_are_left_aside_and_errors_reported():
    rows, errors = results.rows_of(file_of(
        entry("a", 1e9), entry("a_median", 1, run_type="aggregate"),
        {"name": "b", "run_name": "b", "error_occurred": True, "error_message": "wrong"}))
    assert [row.name for row in rows] == ["a"] and errors == [("b", "wrong")]


def test_how_a_row_was_timed_is_no_part_of_its_name():
    assert results.clean("ring/two_threads/real_time/threads:2") == "ring/two_threads"
    assert results.clean("look_up/burst/1000") == "look_up/burst/1000"


@pytest.mark.parametrize("text, complaint", [
    ("nonsense", "is no JSON"),
    ("[]", 'has no list "benchmarks"'),
    ('{"benchmarks": 3}', 'has no list "benchmarks"'),
])
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path, text, complaint):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(results.BadInput, match=complaint) as caught:
        results.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("broken", [
    {"name": "a"}, entry("a", 0), entry("a", -1), entry("a", "fast"), entry("a", None), 3, None])
def test_a_row_that_cannot_be_read_is_refused(broken):
    with pytest.raises(results.BadInput, match="cannot be read"):
        results.rows_of(file_of(broken))


def test_a_file_that_is_not_there_is_refused_with_the_reason():
    with pytest.raises(results.BadInput, match="No such file"):
        results.load("/nowhere/at/all.json")


def test_the_compact_file_says_the_same():
    whole = file_of(entry("a", 1e6, threads=1), entry("a", 2e6), entry("b/1", 3e6),
                    entry("a_cv", 1, run_type="aggregate"), context={"host_name": "secret"})
    text = results.compact(whole)
    assert results.rows_of(json.loads(text)) == results.rows_of(whole)
    assert json.loads(text)["machine"] == whole["machine"] and "secret" not in text


def test_the_section_is_replaced_and_nothing_else():
    text = f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n"
    section = results.published_section(file_of(entry("a/1", 1e6), entry("a/1", 1e6)))
    new = results.with_section(text, section)
    assert new.startswith("before\n") and new.endswith("\nafter\n") and "old" not in new
    assert results.documented_names(new) == ["a/1"]
    assert results.with_section(new, section) == new


def test_a_readme_without_markers_is_refused():
    with pytest.raises(results.BadInput, match="needs the lines"):
        results.with_section("text", "section", "README.md")


def test_the_readme_shows_what_was_published():
    whole = results.load(HERE / "published.json")
    assert results.between_markers(published_text()) == results.published_section(whole)
    assert whole["machine"]["build"] == "optimized"


def test_every_row_of_the_program_is_in_the_table_and_none_has_vanished():
    if not programs():
        pytest.skip("bore-micro-bench is not built: tools/build release bench/micro/bore-micro-bench")
    listed = subprocess.run([programs()[0], "--benchmark_list_tests"], capture_output=True, text=True,
                            check=True).stdout.split()
    assert sorted(map(results.clean, listed)) == sorted(results.documented_names(published_text())), \
        "publish the figures again: bench/micro/run --publish"


def run(*words):
    return subprocess.run([HERE / "run", *map(str, words)], capture_output=True, text=True, check=False)


def test_run_refuses_what_cannot_work(tmp_path):
    nothing = run("--program", tmp_path / "none")
    assert nothing.returncode == 2 and "no such program" in nothing.stderr
    partly = run("--publish", "--quick")
    assert partly.returncode == 2 and "--publish needs all rows" in partly.stderr


def test_run_measures_and_writes_what_compare_reads(tmp_path):
    if not programs():
        pytest.skip("bore-micro-bench is not built: tools/build release bench/micro/bore-micro-bench")
    chosen = ["--program", programs()[0], "--quick", "--filter", "checksum/incremental"]
    path = tmp_path / "out.json"
    done = run(*chosen, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows, errors = results.rows_of(results.load(path))
    assert [len(row.samples) for row in rows] == [2, 2] and not errors
    assert "`checksum/incremental/1460`" in done.stdout
    same = subprocess.run([HERE / "compare", path, path], capture_output=True, text=True, check=False)
    assert same.returncode == 0 and "2 same" in same.stdout, same.stdout + same.stderr
    none = run(*chosen[:3], "--filter", "no such row")
    assert none.returncode == 2 and "no row" in none.stderr
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.md"]
