"""The arithmetic and the tables of the packet bench."""

import pathlib
import xml.etree.ElementTree

import pytest

import chart
import packet_report as report

HERE = pathlib.Path(__file__).resolve().parent

ROUND = {"io": 40.0, "parse": 50.0, "look-up": 58.0, "splice": 80.0, "testpmd io": 30.0,
         "testpmd 5tswap": 48.0, "ghz": 2.5}
MEMORY = {"flows": 1000, "ipv6": False, "bytes_per_flow": 200.0, "most_bytes_per_flow": 220.0,
          "worst_flows": 600}


def test_metrics_are_taken_within_a_round():
    slow = {name: value * 2 if name != "ghz" else value for name, value in ROUND.items()}
    found = report.derived([ROUND, slow, ROUND])
    assert found["ratio"] == report.Spread(0.6, 0.6, 0.6)
    assert found["beyond"] == report.Spread(50, 50, 100)
    assert found["beyond_own_io"].median == 40
    assert found["mpps"].median == 31.25
    assert [found[name].median for name, _, _ in report.STAGES] == [10, 8, 22]


def test_stages_add_up_to_the_whole():
    found = report.derived([ROUND])
    stages = sum(found[name].median for name, _, _ in report.STAGES)
    assert stages == ROUND["splice"] - ROUND["io"]


def test_requirements_pass_miss_or_say_that_nothing_was_measured():
    memory = [MEMORY | {"most_bytes_per_flow": 256.0},
              MEMORY | {"ipv6": True, "most_bytes_per_flow": 256.4}]
    text = report.requirement_table({report.CASES[0]: [ROUND]}, memory)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines()}
    assert "MISS" in lines["1 k flows, × 5tswap"]
    assert "pass" in lines["1 k flows, cycles beyond the port"]
    assert "not measured" in lines["1460 B, × 5tswap"]
    assert "pass" in lines["bytes per flow, 1,000 of IPv4"]
    assert "MISS" in lines["bytes per flow, 1,000 of IPv6"]


def test_a_requirement_at_its_limit_is_met():
    for wanted in report.REQUIREMENTS:
        assert wanted.met(report.Spread(wanted.limit, 0, 0))
        worse = wanted.limit * (0.99 if wanted.at_least else 1.01)
        assert not wanted.met(report.Spread(worse, 0, 0))


def test_tables_have_a_row_for_each_case():
    results = {case: [ROUND, ROUND] for case in report.CASES}
    for text in (report.cycles_table(results), report.summary_table(results)):
        lines = text.splitlines()
        assert len(lines) == 2 + len(report.CASES)
        assert len({line.count("|") for line in lines}) == 1


def test_the_largest_case_fits_the_hugepages_that_the_readme_asks_for():
    assert max(case.hugepage_bytes for case in report.CASES) < 1_536 * (2 << 20)


def test_the_chart_is_well_formed_and_has_a_curve_for_each_line():
    lines = {"ours <1>": [(1000, 70, 69, 75), (1_000_000, 190, 180, 200)],
             "testpmd io": [(1000, 30, 29, 31), (1_000_000, 68, 66, 70)]}
    root = xml.etree.ElementTree.fromstring(chart.svg(lines))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ours <1>", "testpmd io", "1,000", "1,000,000", "0"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4


def test_grid_lines_are_round_and_few():
    for most in (7, 31, 64, 99, 190, 1200):
        step = chart.step_of(most)
        assert most / step <= 8.0001
        assert f"{step:g}".lstrip("0.").rstrip("0") in ("1", "2", "5")


def test_figures_stand_between_their_markers_and_nothing_else_changes():
    begin = "<!-- figures: written by bench/packet/run --publish -->"
    text = f"before\n{begin}\nold\n<!-- end of figures -->\nbehind\n"
    assert report.marked(text, "figures", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="figures"):
        report.marked("no markers", "figures", "new")
    with pytest.raises(ValueError, match="figures"):
        report.marked(begin, "figures", "new")


def test_the_readmes_have_the_markers():
    for name, path in (("figures", HERE / "README.md"),
                       ("packet figures", HERE.parents[1] / "README.md")):
        text = path.read_text(encoding="utf-8")
        assert "new" in report.marked(text, name, "new")


def test_the_front_page_says_in_bold_what_is_missed():
    results = {case: [ROUND] for case in report.CASES}
    lines = report.front_page_table(results, [MEMORY, MEMORY | {"ipv6": True, "most_bytes_per_flow": 300}])
    assert "50; **0.60**" in lines  # ROUND: 80 - 30 and 48 / 80
    assert "50; 0.60" in lines
    assert "220; **300**" in lines
