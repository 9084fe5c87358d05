"""Tables of the READMEs from a result: made, put in, checked. Also checks those of this tree."""

import json
import pathlib
import shutil

import pytest
from borebench import document, publish
from conftest import make_result, sample

TOP = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "bench").mkdir()
    for path, names in publish.PLACES.items():
        blocks = [
            f"{publish.BEGIN.format(name=name)}\nold\n{publish.END.format(name=name)}"
            for name in names
        ]
        (tmp_path / path).write_text("before\n" + "\nbetween\n".join(blocks) + "\nafter\n")
    return tmp_path


def test_tables_are_written_between_their_markers_and_agree_then(tree, bulk_result):
    publish.write(bulk_result, tree)
    text = (tree / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "1 bulk stream down, CPU s/GB" in text
    assert publish.check(tree) == []


def test_a_figure_changed_by_hand_is_found(tree, bulk_result):
    publish.write(bulk_result, tree)
    path = tree / "README.md"
    path.write_text(path.read_text().replace("0.110", "0.010"))
    assert publish.check(tree) == ["README.md"]


def test_a_changed_result_is_found(tree, bulk_result):
    publish.write(bulk_result, tree)
    kept = json.loads((tree / publish.KEPT).read_text())
    kept["samples"][0]["metrics"]["cpu_s_per_gb"] = 77
    kept["samples"][1]["metrics"]["cpu_s_per_gb"] = 78
    (tree / publish.KEPT).write_text(json.dumps(kept))
    assert set(publish.check(tree)) == {"README.md", "bench/README.md"}


def test_losing_rows_are_marked_and_stand_first():
    result = make_result(
        {
            ("bulk-down-1", "ours+bore"): {"cpu_s_per_gb": [1, 1.01, 1]},
            ("bulk-down-1", "rust+rust"): {"cpu_s_per_gb": [2, 2.01, 2]},
            ("bulk-up-1", "ours+bore"): {"cpu_s_per_gb": [3, 3.01, 3]},
            ("bulk-up-1", "rust+rust"): {"cpu_s_per_gb": [2, 2.01, 2]},
            ("bulk-up-1", "frp"): {"cpu_s_per_gb": [1, 1.01, 1]},
        },
        published=True,
    )
    text = publish.figures(result)
    rows = [line for line in text.splitlines() if line.startswith("| 1 bulk")]
    assert "**1.50 loses**" in rows[0] and "**frp**" in rows[0] and "up" in rows[0]
    assert "0.501 wins" in rows[1]
    assert "**worse in 1**, within" in text
    assert "**worse in 1** (bulk-up-1 CPU s/GB)" in publish.comparison(result)


def test_lost_answers_are_said():
    result = make_result(
        {("bulk-down-1", "ours+bore"): {"cpu_s_per_gb": [1, 1, 1]}}, published=True
    )
    for target, lost in (("ours+bore", 0), ("frp", 10)):
        result["samples"].append(
            sample(
                "halfclose",
                target,
                0,
                {"answers_lost_percent": lost * 10.0},
                loads=[{"mode": "halfclose", "tries": 10, "lost": lost}],
            )
        )
    text = publish.figures(result)
    assert "lost by frp 10 of 10; none lost by ours+bore." in text


@pytest.mark.parametrize("change", [{"status": "interrupted"}, {"rounds_done": 2}, {"options": {}}])
def test_what_is_not_fit_for_publication_is_refused_and_nothing_written(tree, bulk_result, change):
    with pytest.raises(publish.CannotPublish):
        publish.write(bulk_result | change, tree)
    assert not (tree / publish.KEPT).exists()


def test_missing_markers_are_named_and_nothing_written(tree, bulk_result):
    (tree / "bench/README.md").write_text("no markers")
    with pytest.raises(publish.CannotPublish, match="bench/README.md must have the lines"):
        publish.write(bulk_result, tree)
    assert not (tree / publish.KEPT).exists()


def test_the_tables_of_this_tree_agree_with_the_kept_result():
    if not (TOP / publish.KEPT).exists():
        pytest.skip(f"{publish.KEPT} is not there: nothing was published yet")
    assert publish.check(TOP) == [], "mend it with bench/bore-bench publish " + publish.KEPT
    assert document.load(TOP / publish.KEPT)["status"] == "complete"


def test_the_readmes_of_this_tree_have_the_markers(tmp_path, bulk_result):
    for path in publish.PLACES:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(TOP / path, tmp_path / path)
    assert publish.rendered(bulk_result, tmp_path)


def test_what_is_kept_names_no_place_of_the_machine():
    told = {"commands": ["/src/tree/build/bore-server --open", f"{publish.pathlib.Path.home()}/peers/frps"]}
    assert publish.placeless(told, "/src/tree") == {
        "commands": ["build/bore-server --open", "~/peers/frps"]
    }
