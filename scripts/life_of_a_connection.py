#!/usr/bin/env python3
"""Draw docs/life-of-a-connection.svg from the table in tidewire.protocol.states.

Run it after a change to the table: python scripts/life_of_a_connection.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from tidewire.protocol.states import TABLE, Code, State, Transition

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "life-of-a-connection.svg"
WIDTH, HEIGHT = 1000, 440
BOX_WIDTH, BOX_HEIGHT, BOX_TOP = 130, 56, 145
LINE = 19
LEFT = {State.CONNECTING: 30, State.OPEN: 300, State.CLOSING: 560, State.CLOSED: 840}
BELOW = {State.CONNECTING: 410, State.OPEN: 316}
STYLE = """
  .ground { fill: #ffffff } .box { fill: #eef6f8; stroke: #14708c } .name { fill: #0b3b4b; font-weight: 600 }
  .way { stroke: #5b6b73; fill: none } .tip { fill: #5b6b73 } .event { fill: #22313a } .code { fill: #14708c }
  text { font: 14px system-ui, sans-serif; text-anchor: middle } .name { font-size: 17px }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0f171b } .box { fill: #12303a; stroke: #4fb3d0 } .name { fill: #e2f4f9 }
    .way { stroke: #93a4ac } .tip { fill: #93a4ac } .event { fill: #dbe6ea } .code { fill: #6cc6e0 }
  }
"""


def draw() -> str:
    """The whole figure."""
    parts = [_box(state) for state in State]
    for (state, to), ways in _ways().items():
        if state is to:
            parts.append(_loop(state, ways))
        elif LEFT[to] - LEFT[state] < 300:
            parts.append(_step(state, to, ways))
        else:
            parts.append(_detour(state, to, ways))
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t">
<title id="t">The life of a connection: connecting, open, closing, closed, and what leads from one to the next</title>
<style>{STYLE}</style>
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">
<path class="tip" d="M0 0L10 5L0 10z"/></marker></defs>
<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="12"/>
{body}
</svg>
"""


def _ways() -> dict[tuple[State, State], list[Transition]]:
    """The transitions by where they begin and end."""
    ways: dict[tuple[State, State], list[Transition]] = {}
    for one in TABLE:
        ways.setdefault((one.state, one.to), []).append(one)
    return ways


def _box(state: State) -> str:
    return (
        f'<rect class="box" x="{LEFT[state]}" y="{BOX_TOP}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="10"/>\n'
        f'<text class="name" x="{LEFT[state] + BOX_WIDTH // 2}" y="{BOX_TOP + 34}">{state.value}</text>'
    )


def _step(state: State, to: State, ways: list[Transition]) -> str:
    """A straight arrow to the next box, what leads along it below."""
    start, end, height = LEFT[state] + BOX_WIDTH, LEFT[to], BOX_TOP + BOX_HEIGHT // 2
    arrow = f'<path class="way" marker-end="url(#tip)" d="M{start} {height}H{end}"/>'
    return arrow + _words((start + end) // 2, BOX_TOP + BOX_HEIGHT + 22, ways)


def _loop(state: State, ways: list[Transition]) -> str:
    """An arrow from a box back to itself, over it."""
    middle = LEFT[state] + BOX_WIDTH // 2
    way = f"M{middle - 30} {BOX_TOP}C{middle - 50} {BOX_TOP - 60} {middle + 50} {BOX_TOP - 60} {middle + 30} {BOX_TOP}"
    lines = sum(1 + bool(one.code.value) for one in ways)
    words = _words(middle, BOX_TOP - 58 - (lines - 1) * LINE, ways)
    return f'<path class="way" marker-end="url(#tip)" d="{way}"/>' + words


def _detour(state: State, to: State, ways: list[Transition]) -> str:
    """An arrow past the boxes between, under them."""
    start, end, low = LEFT[state] + BOX_WIDTH // 2, LEFT[to] + BOX_WIDTH // 2, BELOW[state]
    end += 20 if state is State.CONNECTING else -20
    bottom = BOX_TOP + BOX_HEIGHT
    way = f"M{start} {bottom}V{low - 12}q0 12 12 12H{end - 12}q12 0 12 -12V{bottom}"
    words = _words((start + end) // 2, low - 8 - (len(ways) - 1) * LINE, ways, in_one_line=True)
    return f'<path class="way" marker-end="url(#tip)" d="{way}"/>' + words


def _words(middle: int, top: int, ways: list[Transition], *, in_one_line: bool = False) -> str:
    """What leads along an arrow: each event, and the close code that is seen then."""
    said: list[tuple[str, str]] = []
    for one in ways:
        if in_one_line and one.code is not Code.NONE:
            said.append(("event", f"{one.event.value} ({one.code.value})"))
            continue
        said.append(("event", one.event.value))
        if one.code is not Code.NONE:
            said.append(("code", one.code.value))
    return "".join(
        f'\n<text class="{kind}" x="{middle}" y="{top + number * LINE}">{escape(text)}</text>'
        for number, (kind, text) in enumerate(said)
    )


if __name__ == "__main__":
    FIGURE.write_text(draw(), encoding="utf-8")
