"""A line chart as SVG, drawn by hand: cycles per packet over the number of flows. So the bench needs
no plotting library. Pure; used by run, tested by test_packet_report.py."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 60, 170, 20, 50
COLOURS = ("#1b6ca8", "#4f9d69", "#c98a1b", "#a8321b", "#888888", "#333333")


def step_of(most):
    """A round distance of grid lines, at most eight of them."""
    raw = most / 8
    power = 10 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)


def svg(lines):
    """`lines`: name → [(flows, median, low, high)]. Flows on a logarithmic scale."""
    points = [point for line in lines.values() for point in line]
    flows = sorted({point[0] for point in points})
    step = step_of(max(point[3] for point in points))
    most = step * math.ceil(max(point[3] for point in points) / step)
    low, high = math.log10(flows[0]), math.log10(max(flows[-1], flows[0] * 10))

    def x(value):
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for count in range(round(most / step) + 1):
        at = y(count * step)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">'
                     f'{count * step:g}</text>')
    for count in flows:
        parts.append(f'<path d="M{x(count):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
                     f'<text x="{x(count):.1f}" y="{HEIGHT - BOTTOM + 18}" '
                     f'text-anchor="middle">{count:,}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        dashes = ' stroke-dasharray="5 4"' if name.startswith("testpmd") else ""
        path = "L".join(f"{x(point[0]):.1f} {y(point[1]):.1f}" for point in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        for count, median, least, greatest in line:
            parts.append(f'<path d="M{x(count):.1f} {y(least):.1f}V{y(greatest):.1f}" '
                         f'stroke="{colour}"/><circle cx="{x(count):.1f}" cy="{y(median):.1f}" '
                         f'r="3" fill="{colour}"/>')
        at = TOP + 20 + 20 * number
        parts.append(f'<path d="M{WIDTH - RIGHT + 15} {at}h25" stroke="{colour}" '
                     f'stroke-width="2"{dashes}/><text x="{WIDTH - RIGHT + 46}" y="{at + 4}">'
                     f"{escape(name)}</text>")
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" '
                 'text-anchor="middle">flows</text>'
                 f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" '
                 'text-anchor="middle">cycles per packet</text></svg>')
    return "\n".join(parts) + "\n"
