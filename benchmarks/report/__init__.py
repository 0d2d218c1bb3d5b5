"""Words, tables and plots: turns what the scenarios measured into Markdown and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import reached, sections, talking
from benchmarks.report.numbers import table

METHOD = """\
How to read it:

- Every number is a median over the rounds, followed by the smallest and the largest one measured. Two numbers
  whose ranges overlap are equal as far as this run can tell.
- A round measures each contender once, one after the other, each round beginning with another one. Every
  measurement has a fresh server process, pinned to one core; the load client (C, epoll) is pinned to another. It
  polls without sleeping, so that no send of a server pays for waking it up, as none does for a client elsewhere.
- "CPU second" is the CPU time of the server process, all of its threads. {softirq}
- The load client acknowledges what it reads by itself (TCP_QUICKACK). Left alone, the kernel takes a client that asks
  over its connection (sessions, Socket.IO) for an interactive one, whose acknowledgments wait for the next message and
  are made within the server's `send()`, at the server's cost, which no client elsewhere would add.
- A ratio compares within one round and is then taken as the median over the rounds.
- A measurement counts only if every client saw every sequence number once, in order (`Latest`: the newest value of
  every key; echoes: every byte), and no connection was closed (a reader that is stalled on purpose apart). What did
  not count is named under its table.
- Contenders are as their documentation has them, compression off everywhere. Where one drops messages or lets its
  buffers grow when it publishes faster than its clients read, its buffers are looked at now and then and waited for.
- All of it is loopback on one machine, one server process, no TLS but where it says so, and the {loop} event loop for
  all that are written in Python (uvloop is what uvicorn takes by itself with `fastapi[standard]` and with Tidewire;
  `--loop asyncio` measures the other). Timers fire up to a millisecond early or late: that is in their latencies.
- Not measured: `Live(takeover=True)` on stock uvicorn.
"""

SOFTIRQ_APART = (
    "This kernel keeps the work of loopback delivery (softirq) out of it: the softirq time of the server's core is "
    "added (checked at the start of the run)."
)
SOFTIRQ_WITHIN = (
    "This kernel counts the work of loopback delivery (softirq, done within `send()`) in it already, so nothing is "
    "added (checked at the start of the run)."
)

CLOSING = """\
## Making it again, and adding a contender

`make bench` runs everything and writes this page, which `python -m benchmarks.report benchmarks/results/all.json`
writes again from its results. `python -m benchmarks.run echo --rounds 5 --contender node_ws` runs one scenario with one
contender and what it is compared with; `--without NAME` leaves one out whose tool cannot be had.

A contender is a server process in any language: it takes a port, reads commands from standard input
(`benchmarks/contenders/harness.py` says which) and is named in `benchmarks/contenders/__init__.py`. The load client
reads WebSocket, SSE, Socket.IO and JSON sessions, and needs only `"seq"`, `"t"` and, for keys, `"id"` in each message.
"""

Section = tuple[list[str], dict[str, str]]

SECTIONS: dict[str, Callable[[dict[str, Any]], Section]] = {
    "fanout": sections.fanout,
    "window": sections.window,
    "fixed-rate": sections.fixed_rate,
    "stalled": sections.stalled,
    "latest": sections.latest,
    "echo": talking.echo,
    "upload": talking.upload,
    "memory": talking.memory,
    "connect": talking.connect,
    "wss": talking.wss,
    "sessions": sections.sessions,
    "storm": talking.storm,
    "appends": talking.appends,
    "import": talking.imports,
}


def write(result: dict[str, Any], others: Sequence[dict[str, Any]] = ()) -> tuple[str, dict[str, str]]:
    """The whole report, and its plots by their paths beside it. ``others``: the same on other event loops."""
    softirq = SOFTIRQ_APART if result["softirq_apart"] else SOFTIRQ_WITHIN
    parts = [
        "# Benchmarks",
        f"Written by `{result['command']}` on {result['date']}; do not edit by hand, run it again.",
        _quick_warning(result),
    ]
    asked = reached.write(result["scenarios"])
    if asked:
        parts += ["## Asked and reached", asked]
    for other in others:
        parts += [
            f"### The same on {other['loop']}",
            f"Written by `{other['command']}` on {other['date']}.",
            reached.write(other["scenarios"]),
        ]
    parts += [
        "## Machine and method",
        table(("what", "which"), result["machine"].items()),
        METHOD.format(softirq=softirq, loop=result["loop"]),
    ]
    plots: dict[str, str] = {}
    for name, section in SECTIONS.items():
        if name in result["scenarios"]:
            words, drawn = section(result["scenarios"][name])
            parts += words
            plots |= drawn
    parts += [CLOSING]
    return "\n\n".join(part.strip() for part in parts if part) + "\n", plots


def publish(text: str, plots: dict[str, str], folder: Path, name: str = "benchmarks.md") -> None:
    """Write the report and its plots."""
    (folder / name).write_text(text)
    for plot, svg in plots.items():
        (folder / plot).parent.mkdir(exist_ok=True)
        (folder / plot).write_text(svg)


def _quick_warning(result: dict[str, Any]) -> str:
    if not result["quick"]:
        return ""
    return "**A quick run: it shows that the benchmarks work. Its numbers mean little.**"
