"""Scale on paper: the published tables are what terms and formulas give now, the arithmetic is right for
cases that one can do by hand, and a term that cannot be had is named. Run: pytest bench/scale"""

import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import scale_model as model
import scale_terms as terms

LINKS = (10e9, 25e9, 100e9)


@pytest.fixture(scope="module", name="known")
def published_terms():
    return terms.load((HERE / "terms.toml").read_text(encoding="utf-8"), terms.Reader())


def line(name, group=None):
    (found,) = [one for one in model.LINES if one.name == name and group in (None, one.group)]
    return found


def fixed(known, **changes):
    """All terms in the middle, but for these."""
    t = model.of_case(known, "middle")
    for name, value in changes.items():
        assert hasattr(t, name), name
        setattr(t, name, value)
    return t


def test_the_readme_is_what_the_terms_give_now():
    done = subprocess.run([HERE / "publish", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_line_has_an_order_and_grows_with_the_link(known):
    for one in model.LINES:
        before = None
        for link in LINKS:
            low, middle, high = model.values(one, known, link)
            assert 0 <= low <= middle <= high, one.name
            assert before is None or middle >= before, one.name
            before = middle


def test_low_terms_ask_for_least(known):
    for one in model.LINES:
        if one.name in ("connections", "tunnels registered") or one.group == model.TRAFFIC:
            continue  # more of these is better, or the terms have one value
        by_case = [one.value(model.of_case(known, case), 100e9) for case in terms.CASES]
        if "queue" not in one.name:  # rounded up: more queues of fewer descriptors
            assert by_case == sorted(by_case), one.name


def test_ten_gigabit_of_the_smallest_frames_are_14_88_million(known):
    assert line("frames to forward, small").value(fixed(known), 10e9) == pytest.approx(14.88, abs=0.005)


def test_without_acknowledgements_a_segment_takes_1538_bytes_of_the_wire(known):
    t = fixed(known, acks=0)
    assert line("full segments").value(t, 1538 * 8 * 1e6) == pytest.approx(1)
    assert line("payload relayed").value(t, 1538 * 8 * 1e6) == pytest.approx(1448 * 8 / 1e3)


def test_worker_cores_by_hand(known):
    t = fixed(known, acks=1, our_cycles_full=100, our_cycles_small=50, port_cycles=50, clock=2, load=0.5)
    link = (1538 + 84) * 8 * 1e6  # a million segments and a million acknowledgements a second
    assert line("worker cores, bulk").value(t, link) == pytest.approx(250e6 / 1e9)
    assert line("frames to forward, bulk").value(t, link) == pytest.approx(2)


def test_stream_cores_by_hand(known):
    t = fixed(known, acks=0, stream_cost=0.1, nic_cost=0.1, load=0.5)
    link = 1538 / 1448 * 8e9  # a gigabyte of payload a second
    assert line("cores, bulk").value(t, link) == pytest.approx(0.4)
    assert line("memory in socket queues").value(fixed(known, acks=0, round_trip=50), link) == \
        pytest.approx(50)


def test_the_control_thread_by_hand(known):
    t = fixed(known, connection_cost=100, control_share=0.5, load=1)
    assert line("connections").value(t, 10e9) == pytest.approx(20_000)


def test_pcie_by_hand(known):
    t = fixed(known, acks=0, mtu=498, tlp_payload=256, tlp_overhead=24, descriptor=16, link_packets=0)
    link = (498 + 38) * 8 * 1e6
    # 512 bytes of frame in two packets, 16 of descriptor in one.
    assert line("PCIe, each way, bulk").value(t, link) == pytest.approx((512 + 2 * 24 + 16 + 24) * 8e-3)


@pytest.mark.parametrize("number, power", [(0.1, 1), (1, 1), (1.1, 2), (8, 8), (9, 16)])
def test_lanes_come_in_powers_of_two(number, power):
    assert model.power_of_two(number) == power


def test_every_term_is_used_and_every_used_one_is_there(known):
    used = set()

    class Watched:
        def __getattr__(self, name):
            used.add(name)
            return known[name].values["middle"]

    for one in model.LINES:
        one.value(Watched(), 10e9)
    assert used == set(known)


def test_every_term_says_where_it_comes_from(known):
    for term in known.values():
        assert len(term.source) > 5 and term.unit, term.name
        assert term.places or any(word in term.source for word in (
            "assumption", "IEEE", "RFC", "Specification", "JEDEC", "Intel", "README", "slabinfo",
            "specification", "caches", "cache")), f"{term.name}: {term.source}"


def test_what_moves_a_line_is_named_with_its_factor(known):
    moved = dict(model.swings(line("worker cores, bulk"), known, 100e9))
    assert moved["load"] == pytest.approx(0.9 / 0.5) and "round_trip" not in moved


@pytest.mark.parametrize("cell, spread", [
    ("41.5 [40.8, 83.0]", (40.8, 41.5, 83.0)),
    ("216", (216, 216, 216)),
    ("**281**", (281, 281, 281)),
    ("91,989", (91989, 91989, 91989)),
    ("0.083 (0.100)", (0.083, 0.083, 0.083)),
    ("–", None),
    ("(0.99)", None),
])
def test_cells_of_tables(cell, spread):
    assert terms.spread_of(cell) == spread


TABLE = """# Title

| work | must | measured |
|---|---|---|
| a row | ≥ 1 | 2 [1, 3] |
| other | ≥ 1 | – |

| | x | |
| --- | --- | --- |
| a row | 7 (8.5) | miss |
"""


@pytest.fixture(name="reader")
def reader_of_a_small_tree(tmp_path):
    (tmp_path / "README.md").write_text(TABLE, encoding="utf-8")
    published = tmp_path / "bench" / "published"
    published.mkdir(parents=True)
    samples = [{"work": "idle-2000", "target": "ours", "failed": None, "metrics": {"m": value}}
               for value in (3, 1, 2)]
    samples.append({"work": "idle-2000", "target": "ours", "failed": "died", "metrics": {"m": 99}})
    (published / "comparison.json").write_text(json.dumps({"samples": samples}), encoding="utf-8")
    return terms.Reader(tmp_path)


def one_term(toml, reader):
    return terms.load(f'[t]\nunit = "u"\nsource = "s"\n{toml}', reader)["t"]


@pytest.mark.parametrize("toml, values", [
    ("middle = 3", (3, 3, 3)),
    ("low = 1\nmiddle = 3\nhigh = 9", (1, 3, 9)),
    ('cell = ["README.md", "a row", "measured"]', (1, 2, 3)),
    ('low = 0\nmiddle = {cell = ["README.md", "a row", "x"]}', (0, 7, 7)),
    ('low = {once = [5, "x"]}\nmiddle = {once = [3, "x"]}\nhigh = 4', (3, 4, 5)),
    ('first_of = [{micro = "none"}, {once = [4, "a run"]}]', (4, 4, 4)),
    ('comparison = ["idle-*", "ours", "m"]', (1, 2, 3)),
    ('first_of = [{micro = "none"}, {cell = ["README.md", "a row", "measured"]}]', (1, 2, 3)),
])
def test_places_of_terms(reader, toml, values):
    assert tuple(one_term(toml, reader).values[case] for case in terms.CASES) == values


@pytest.mark.parametrize("toml, complaint", [
    ('cell = ["README.md", "no such row", "measured"]', "no number in row"),
    ('cell = ["README.md", "other", "measured"]', "no number in row"),
    ('cell = ["gone.md", "a row", "measured"]', "gone.md is not there"),
    ('comparison = ["bulk", "ours", "m"]', "has no m of ours in bulk"),
    ('micro = "a/b"', "published.json is not there"),
    ('first_of = [{micro = "a"}, {cell = ["gone.md", "a", "b"]}]', "; gone.md is not there"),
    ("low = 3", "neither a place nor a value"),
    ("middle = 3\nmiddel = 4", "must have unit, source and values"),
    ('cell = "README.md"', "change its place"),
])
def test_a_term_that_cannot_be_had_is_named_with_the_reason(reader, toml, complaint):
    with pytest.raises(terms.BadTerm, match=complaint) as caught:
        one_term(toml, reader)
    assert "[t]" in str(caught.value)
