"""The result document: valid at any time, and what is refused when it is read."""

import json

import pytest
from borebench import document
from conftest import make_result, sample


def test_it_reads_back_what_was_saved(tmp_path, bulk_result):
    path = tmp_path / "result.json"
    document.save(bulk_result, path)
    assert document.load(path) == bulk_result
    assert [one.name for one in tmp_path.iterdir()] == ["result.json"]


def test_numbers_that_json_does_not_have_are_refused_and_the_file_stays(tmp_path, bulk_result):
    path = tmp_path / "result.json"
    document.save(bulk_result, path)
    before = path.read_bytes()
    bulk_result["samples"][0]["metrics"]["gbit_per_s"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        document.save(bulk_result, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "no result of bore-bench"),
        ('{"format": "other"}', "no result"),
        ('{"format": "bore-bench", "version": 99}', "version 99"),
        ('{"format": "bore-bench", "version": 1}', "lacks status"),
        (
            json.dumps(
                {
                    "format": "bore-bench",
                    "version": 1,
                    "status": "complete",
                    "machine": {},
                    "works": [],
                    "targets": {},
                    "samples": [{"work": "x"}],
                }
            ),
            "a sample without",
        ),
        (
            json.dumps(
                {
                    "format": "bore-bench",
                    "version": 1,
                    "status": "eaten",
                    "machine": {},
                    "works": [],
                    "targets": {},
                    "samples": [],
                }
            ),
            "status",
        ),
    ],
)
def test_what_is_no_result_is_refused_with_the_reason(tmp_path, text, said):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(document.NoDocument, match=said):
        document.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(document.NoDocument, match="No such file"):
        document.load(tmp_path / "none.json")


def test_failed_samples_have_no_values_and_pairs_are_of_the_same_round():
    result = make_result(
        {
            ("bulk-down-1", "a"): {"gbit_per_s": [1, None, 3]},
            ("bulk-down-1", "b"): {"gbit_per_s": [10, 20, 30]},
        }
    )
    result["samples"].append(sample("bulk-down-1", "a", 5, {"gbit_per_s": 9}, failed="cut"))
    assert document.values(result, "bulk-down-1", "a", "gbit_per_s") == [1, 3]
    assert document.pairs(result, "bulk-down-1", "a", "b", "gbit_per_s") == ([1, 3], [10, 30])
    assert [one["round"] for one in document.failures(result)] == [5]
