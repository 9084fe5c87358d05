"""Plots as SVG, drawn by pygal and embedded in the page: no script, nothing from the network. The
only module that knows pygal."""

import re

import pygal
from pygal.style import Style

STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#222",
    foreground_strong="#000",
    foreground_subtle="#666",
    opacity=".9",
    colors=(
        "#1f6f8b",
        "#c8553d",
        "#588157",
        "#8d6a9f",
        "#e09f3e",
        "#335c67",
        "#9e2a2b",
        "#6c757d",
        "#2a9d8f",
        "#b5838d",
        "#577590",
        "#bc6c25",
    ),
)
OURS, REFERENCE, OTHER = "#1f6f8b", "#c8553d", "#9aa5ad"
COMMON = {
    "js": [],
    "style": STYLE,
    "height": 380,
    "width": 760,
    "margin": 8,
    "disable_xml_declaration": True,
    "pretty_print": False,
    "no_prefix": False,
}


def _svg(chart):
    # Its script only hands the configuration to tooltips, which would come from the network.
    return re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL)


def bars(title, unit, spreads, references):
    """One bar for each target: the median, with the range of the rounds as whisker. `spreads`:
    {target: stats.Spread}."""
    high = max(one.high for one in spreads.values())
    chart = pygal.Bar(
        title=f"{title}: {unit}",
        show_legend=False,
        x_label_rotation=30,
        range=(0, high * 1.05 or 1),
        **COMMON,
    )
    chart.x_labels = list(spreads)
    chart.add(
        unit,
        [
            {
                "value": one.median,
                "color": colour(target, references),
                # A whisker of no length is drawn wrongly.
                **({"ci": {"low": one.low, "high": one.high}} if one.high > one.low else {}),
            }
            for target, one in spreads.items()
        ],
    )
    return _svg(chart)


def colour(target, references):
    return OURS if target.startswith("ours") else REFERENCE if target in references else OTHER


def latency_curves(title, curves, quantiles):
    """Latency in µs over the share of requests that were faster. `curves`: {target: values}."""
    # Percentiles are ever further apart, each step a tenth of what was left.
    labels = [f"{100 * one:g}" for one in quantiles]
    chart = pygal.Line(
        title=f"{title}: µs at percentile",
        logarithmic=True,
        show_minor_y_labels=False,
        show_dots=True,
        dots_size=2,
        legend_at_bottom=True,
        legend_at_bottom_columns=4,
        truncate_legend=-1,
        **(COMMON | {"height": 460}),
    )
    chart.x_labels = labels
    for target, values in curves.items():
        chart.add(target, values)
    return _svg(chart)


def timeline(title, unit, series):
    """`series`: {target: [(seconds, value)]}."""
    chart = pygal.XY(
        title=f"{title}: {unit} over seconds",
        dots_size=1.5,
        legend_at_bottom=True,
        truncate_legend=-1,
        **COMMON,
    )
    for target, points in series.items():
        chart.add(target, points)
    return _svg(chart)
