"""The HTML page: what stands in it, and whether a browser without network draws its plots."""

import os
import re
import shutil
import subprocess

import pytest
from conftest import make_result, sample

report = pytest.importorskip(
    "borebench.report", reason="python3-pygal is not installed (tools/setup)"
)


@pytest.fixture
def full(bulk_result):
    """A result with every kind of plot."""
    curve = [1.0 * number for number in range(1, 13)]
    bulk_result["samples"].append(
        sample(
            "rr-64-1", "ours+bore", 0, {"p50_us": 40.0}, loads=[{"mode": "rr", "curve_us": curve}]
        )
    )
    bulk_result["samples"].append(
        sample(
            "bulk-up-1",
            "ours+bore",
            0,
            {"gbit_per_s": 1.0},
            timeline=[[0, 1 << 20, 9], [1, 2 << 20, 9], [2, 3 << 20, 9]],
        )
    )
    bulk_result["samples"].append(
        sample(
            "halfclose",
            "frp",
            0,
            {"answers_lost_percent": 100.0},
            loads=[{"mode": "halfclose", "tries": 7, "lost": 7}],
        )
    )
    return bulk_result


def test_the_page_asks_the_network_for_nothing(full):
    text = report.page(full)
    assert "<script" not in text and "<link" not in text and "@import" not in text
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", text)


def test_what_comes_from_outside_is_escaped(full):
    full["machine"]["cpu"] = "<b>&"
    full["samples"].append(sample("bulk-up-1", "nginx", 0, {}, failed="<script>alert(1)</script>"))
    text = report.page(full)
    assert "<script" not in text and "<b>&" not in text and "&lt;b&gt;&amp;" in text


def test_an_empty_and_a_failed_result_have_a_page():
    result = make_result({})
    result["samples"].append(sample("bulk-up-1", "nginx", 0, {}, failed="refused"))
    text = report.page(result)
    assert "refused" in text and text.endswith("</html>")


def test_a_browser_draws_the_marks(full, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed (tools/setup)")
    # User namespaces are for those who need one: a chroot and many containers forbid them to root.
    apart = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no network namespace: needs root or unprivileged user namespaces")
    page = tmp_path / "report.html"
    page.write_text(report.page(full), "utf-8")
    done = subprocess.run(
        [
            *apart,
            browser,
            "--no-sandbox",
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",  # containers have 64 MiB of it, or none
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Bars of three targets in two plots of one work, and of the one target of others; their
    # whiskers; the dots of the latency curve and of the timeline.
    bars = re.findall(r"<rect[^>]*class=\"rect reactive[^\"]*\"[^>]*>", done.stdout)
    widths = [float(re.search(r"width=\"([\d.]+)\"", bar).group(1)) for bar in bars]
    heights = [float(re.search(r"height=\"([\d.]+)\"", bar).group(1)) for bar in bars]
    assert len(bars) >= 8 and min(widths) > 1 and max(heights) > 50
    assert done.stdout.count('class="ci"') >= 6
    assert len(re.findall(r"<circle", done.stdout)) >= 12 + 3
    assert "Half-close" in done.stdout and "Some CPU" in done.stdout
