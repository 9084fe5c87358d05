#!/usr/bin/env python3
"""What deploy/monitoring ships, without a relay: promtool takes rules and configuration, every alert
has a case that fires, one that does not and a runbook, dashboards are what their tables say.

Whether the metrics that they name exist, tests/e2e/test_exporter.py asks a live relay.
Use: pytest tests/deploy (Debian's python3-pytest, and promtool of Debian's prometheus)
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
MONITORING = TOP / "deploy/monitoring"
ALERTS = MONITORING / "bore-alerts.yml"
CASES = MONITORING / "tests/bore-alerts-test.yml"
# Where `meson install` puts the folder; links begin with it.
INSTALLED = "file:///usr/local/share/doc/bore/monitoring/"


def promtool(*words, input_text=None):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: tools/setup --only test")
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True,
                          input=input_text, cwd=MONITORING, check=False)


def alerts():
    """{name: its lines}; the file's layout is ours, so no YAML parser is needed."""
    found = {}
    name = None
    for line in ALERTS.read_text(encoding="utf-8").splitlines():
        if begin := re.match(r"\s*- alert: (\w+)$", line):
            name = begin.group(1)
            found[name] = []
        elif re.match(r"\s*- name: ", line):
            name = None
        elif name:
            found[name].append(line)
    return found


def test_promtool_takes_the_configuration_and_the_rules():
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bore-alerts.yml" in done.stdout
    done = promtool("check", "rules", ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then():
    done = promtool("test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cases_can_fail(tmp_path):
    """With every threshold out of reach, no case of an alert that fires may pass."""
    never = re.sub(r"> (0\.1|0|1|10|80|85)$", "> 1e18", ALERTS.read_text(encoding="utf-8"),
                   flags=re.MULTILINE)
    (tmp_path / "bore-alerts.yml").write_text(never, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    shutil.copy(CASES, tmp_path / "tests")
    done = promtool("test", "rules", tmp_path / "tests" / CASES.name)
    assert done.returncode != 0
    for alert in ("BoreCapacityHigh", "BoreRelayStale", "BoreAcceptErrors", "BoreVisitorsRefused"):
        assert f"alertname: {alert}," in done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    text = CASES.read_text(encoding="utf-8")
    fires = set(re.findall(r"alertname: (\w+)\n\s+eval_time: \S+\n\s+exp_alerts:\n\s+- exp_labels", text))
    silent = set(re.findall(r"\{alertname: (\w+), eval_time: \w+, exp_alerts: \[\]\}", text))
    assert fires == set(alerts())
    assert silent == set(alerts())


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_has_its_runbook(alert):
    lines = "\n".join(alerts()[alert])
    link = re.search(r"runbook_url: (\S+)", lines)
    assert link, f"{alert} has no runbook_url"
    assert link.group(1) == f"{INSTALLED}runbooks/{alert}.md"
    page = MONITORING / link.group(1).removeprefix(INSTALLED)
    assert page.read_text(encoding="utf-8").startswith(f"# {alert}\n")
    assert re.search(r"severity: (critical|warning)\n", lines + "\n")
    assert "summary:" in lines and "description:" in lines


@pytest.mark.parametrize("page", sorted(path.name for path in (MONITORING / "runbooks").glob("*.md")))
def test_runbooks_belong_to_an_alert_and_their_links_lead_somewhere(page):
    assert page.removesuffix(".md") in alerts()
    text = (MONITORING / "runbooks" / page).read_text(encoding="utf-8")
    assert "**What it says.**" in text and "**Look" in text and "**Do" in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (MONITORING / "runbooks" / target).is_file(), target


def test_dashboards_are_what_their_tables_say():
    done = subprocess.run([sys.executable, "-B", MONITORING / "grafana/make_dashboards", "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((MONITORING / "grafana/dashboards").glob("*.json")),
                         ids=lambda path: path.stem)
def test_dashboards_can_be_provisioned(path):
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"] == path.stem and board["title"]
    assert "id" not in board, "Grafana gives numbers of its own"
    variables = {variable["name"] for variable in board["templating"]["list"]}
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in board["panels"]:
        assert panel["title"] and panel["targets"]
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        for target in panel["targets"]:
            used = set(re.findall(r"\$\{?(\w+)", target["expr"] + json.dumps(target["datasource"])))
            assert used <= variables | {"__rate_interval"}, panel["title"]


def test_expressions_of_the_dashboards_are_promql(tmp_path):
    """As recording rules, for promtool parses those."""
    rules = []
    for path in sorted((MONITORING / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", "1m")
                rules.append({"record": f"bore:test:{len(rules)}", "expr": expr})
    assert len(rules) > 60
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "test", "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_provisioning_points_to_what_is_installed():
    text = (MONITORING / "grafana/provisioning/dashboards/bore.yaml").read_text(encoding="utf-8")
    path = re.search(r"path: (\S+)", text).group(1)
    assert f"file://{path}" == INSTALLED + "grafana/dashboards"
