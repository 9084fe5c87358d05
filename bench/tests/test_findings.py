"""Statements, warnings, and the tables that show them."""

from borebench import findings, table
from conftest import make_result, sample


def test_statements_of_the_leading_figure(bulk_result):
    said = {
        (one.target, one.reference): one.verdict
        for one in findings.statements(bulk_result, "bulk-down-1", "cpu_s_per_gb")
    }
    assert said == {
        ("ours+bore", "rust+rust"): "better",
        ("ours+bore", "nginx"): "same",
        ("nginx", "rust+rust"): "better",
        ("rust+rust", "nginx"): "worse",
    }


def test_a_wide_interval_is_called_noise_and_not_sameness():
    result = make_result(
        {
            ("bulk-down-1", "ours+bore"): {"gbit_per_s": [1, 9, 3]},
            ("bulk-down-1", "nginx"): {"gbit_per_s": [4, 2, 5]},
        }
    )
    said = findings.state(result, "bulk-down-1", "gbit_per_s", "ours+bore", "nginx")
    assert said.verdict == "noisy" and "too noisy to tell" in said.words
    assert any("too noisy to tell ours+bore from nginx" in one for one in findings.warnings(result))


def test_too_few_rounds_make_no_statement():
    result = make_result(
        {
            ("bulk-down-1", "ours+bore"): {"gbit_per_s": [1, 1]},
            ("bulk-down-1", "nginx"): {"gbit_per_s": [9, 9]},
        },
        rounds=2,
    )
    said = findings.state(result, "bulk-down-1", "gbit_per_s", "ours+bore", "nginx")
    assert said.verdict == "unknown" and "no statement" in said.words


def test_without_the_usual_references_the_first_other_target_is_one():
    result = make_result(
        {
            ("bulk-down-1", "ours+bore"): {"gbit_per_s": [1, 1, 1]},
            ("bulk-down-1", "frp"): {"gbit_per_s": [2, 2, 2]},
        }
    )
    assert findings.references(result, "bulk-down-1") == ["frp"]


def test_a_noisy_machine_a_busy_generator_and_an_interrupted_run_are_said(bulk_result):
    assert findings.warnings(bulk_result) == []
    for one in bulk_result["samples"][:4]:
        one["noise"]["foreign_cores"] = 1.5
    bulk_result["samples"][0]["bottlenecks"] = ["generator"]
    bulk_result["status"] = "interrupted"
    said = " ".join(findings.warnings(bulk_result))
    assert "interrupted" in said and "4 of 9 samples" in said and "1.5 foreign" in said
    assert "load generator was busy all the time for ours+bore" in said


def test_the_terminal_table_marks_better_and_worse(bulk_result):
    text = table.terminal(bulk_result)
    ours = next(line for line in text.splitlines() if line.startswith("ours+bore"))
    assert "0.110 (0.100–0.200)" in ours and "0.496 better" in ours


def test_failures_and_what_is_missing_are_said_with_counts(bulk_result):
    bulk_result["samples"].append(
        sample("bulk-down-1", "nginx", 3, {}, failed="3 failures (3 reset)")
    )
    bulk_result["skipped"] = [
        {"target": "frp", "work": work, "reason": "missing frps"}
        for work in ("bulk-down-1", "crr-16")
    ]
    text = table.terminal(bulk_result)
    assert "FAILED 1 of 4" in text and "3 failures (3 reset)" in text
    assert "NOT MEASURED: frp (bulk-down-1, crr-16): missing frps" in text


def test_lost_answers_are_added_up_over_rounds():
    result = make_result({})
    for number in range(3):
        result["samples"].append(
            sample(
                "halfclose",
                "frp",
                number,
                {"answers_lost_percent": 50.0},
                loads=[{"mode": "halfclose", "tries": 10, "lost": 5}],
            )
        )
    assert findings.lost_answers(result) == {"frp": (15, 30)}
    assert "lost by frp (15 of 30)" in table.terminal(result)


def test_columns_are_aligned_and_markdown_rows_are_equal(bulk_result):
    rows = table.rows(bulk_result, "bulk-down-1")
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len({line.count("|") for line in table.markdown(rows).splitlines()}) == 1
