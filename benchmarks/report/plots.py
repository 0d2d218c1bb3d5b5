"""Bar charts as SVG, without a library; legible on light and on dark pages (they bring their own background)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from benchmarks.report.numbers import Measurement, Measurements, counted, names, title

_STYLE = """\
svg { font: 12px system-ui, sans-serif; }
.page { fill: #ffffff; } .text { fill: #1f2328; } .faint { fill: #59636e; }
.ours { fill: #0e8a6d; } .theirs { fill: #8c9bb0; } .range { stroke: #1f2328; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } .text { fill: #e6edf3; } .faint { fill: #9198a1; }
  .ours { fill: #2fbf9b; } .theirs { fill: #5c6b80; } .range { stroke: #e6edf3; }
}"""
_PANEL_WIDTH, _LABEL_WIDTH, _VALUE_WIDTH, _ROW, _HEAD, _GAP = 540, 282, 70, 22, 40, 16


@dataclass(frozen=True)
class Bar:
    """One bar: the median, and the smallest and the largest that was measured."""

    label: str
    value: float
    low: float
    high: float
    ours: bool


@dataclass(frozen=True)
class Panel:
    """One chart. ``log``: each step to the right is a factor, for values that differ by orders of magnitude."""

    title: str
    bars: Sequence[Bar]
    form: Callable[[float], str]
    log: bool = False


def bars_of(measurements: Measurements, field: Callable[[Measurement], float]) -> list[Bar]:
    """A bar for every contender of which something counted."""
    found = []
    for name in names(measurements):
        values = [field(m) for m in counted([m for m in measurements if m["contender"] == name])]
        if values:
            found.append(bar(title(name), values))
    return found


def bar(label: str, values: Sequence[float]) -> Bar:
    """One bar for what was measured in several rounds."""
    label = label.replace("`", "")
    return Bar(label, median(values), min(values), max(values), "tidewire" in label.lower())


def draw(panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels beside and below one another, as one file."""
    panels = [panel for panel in panels if panel.bars]
    columns = min(columns, max(1, len(panels)))
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    width = columns * _PANEL_WIDTH + (columns + 1) * _GAP
    parts, top = [], _GAP
    for row in rows:
        for column, panel in enumerate(row):
            parts.append(_draw_panel(panel, _GAP + column * (_PANEL_WIDTH + _GAP), top))
        top += _HEAD + max(len(panel.bars) for panel in row) * _ROW + _GAP
    size = f'viewBox="0 0 {width} {top}" width="{width}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    page = f'<rect class="page" width="{width}" height="{top}" rx="6"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", page, *parts, "</svg>"]) + "\n"


def _draw_panel(panel: Panel, left: float, top: float) -> str:
    lines = [f'<text class="text" x="{left}" y="{top + 18}" font-weight="600">{escape(panel.title)}</text>']
    reach = _PANEL_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    scale = _scale(panel, reach)
    for number, bar in enumerate(panel.bars):
        y = top + _HEAD + number * _ROW - 8
        x, kind = left + _LABEL_WIDTH, "ours" if bar.ours else "theirs"
        label = bar.label if len(bar.label) <= 47 else bar.label[:46] + "…"
        lines += [
            f'<text class="text" x="{x - 8}" y="{y + 12}" text-anchor="end" font-size="11">{escape(label)}</text>',
            f'<rect class="{kind}" x="{x}" y="{y}" width="{scale(bar.value):.1f}" height="15" rx="2"/>',
            f'<line class="range" x1="{x + scale(bar.low):.1f}" x2="{x + scale(bar.high):.1f}" y1="{y + 7.5}" '
            f'y2="{y + 7.5}" stroke-opacity="0.6"/>',
            f'<text class="faint" x="{x + scale(bar.high) + 5:.1f}" y="{y + 12}" font-size="11">'
            f"{escape(panel.form(bar.value))}</text>",
        ]
    return "\n".join(lines)


def _scale(panel: Panel, reach: float) -> Callable[[float], float]:
    high = max(bar.high for bar in panel.bars) or 1
    if not panel.log:
        return lambda value: reach * value / high
    low = min((bar.low for bar in panel.bars if bar.low > 0), default=high) / 2
    span = math.log(high / low) or 1
    return lambda value: reach * max(0.01, math.log(max(value, low) / low) / span)
