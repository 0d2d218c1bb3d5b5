"""Words and tables: turns what the scenarios measured into Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.contenders import CONTENDERS
BASELINE='connection_manager'

Measurement = dict[str, Any]

METHOD = """\
How to read it:

- Every number is a median over the rounds, followed by the smallest and the largest one measured. Two numbers
  whose ranges overlap are equal as far as this run can tell.
- A round measures each contender once, one after the other, each round beginning with another one. Every
  measurement has a fresh server process, pinned to one core; the load client (C, epoll) is pinned to another. It
  polls without sleeping, so that no send of a server pays for waking it up, as none does for a client elsewhere.
- "CPU second" is the CPU time of the server process, user and system. {softirq}
- A ratio compares within one round and is then taken as the median over the rounds.
- A measurement counts only if every client saw every sequence number once, in order, and no connection was closed
  (a reader that is stalled on purpose apart). What did not count is named under its table.
- All of it is loopback on one machine, one server process, no TLS, no compression, and the {loop} event loop for all.
"""

SOFTIRQ_APART = (
    "This kernel keeps the work of loopback delivery (softirq) out of it: the softirq time of the server's core is "
    "added (checked at the start of the run)."
)
SOFTIRQ_WITHIN = (
    "This kernel counts the work of loopback delivery (softirq, done within `send()`) in it already, so nothing is "
    "added (checked at the start of the run)."
)


def write(result: dict[str, Any]) -> str:
    """The whole report."""
    softirq = SOFTIRQ_APART if result["softirq_apart"] else SOFTIRQ_WITHIN
    parts = [
        "# Benchmarks",
        f"Written by `{result['command']}` on {result['date']}; do not edit by hand, run it again.",
        _quick_warning(result),
        "## Machine",
        _table(("what", "which"), result["machine"].items()),
        METHOD.format(softirq=softirq, loop=result["loop"]),
    ]
    writers = {"fanout": _fanout, "memory": _memory, "fixed-rate": _fixed_rate, "import": _imports}
    for name, writer in writers.items():
        if name in result["scenarios"]:
            parts += writer(result["scenarios"][name])
    parts += [CLOSING]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


CLOSING = """\
## Adding a contender

A contender is a server process in any language: it takes a port, reads commands from standard input
(`benchmarks/contenders/harness.py` says which) and is named in `benchmarks/contenders/__init__.py`. The load client
reads WebSocket and SSE and needs only `"seq"` and `"t"` in each message.
"""


def _quick_warning(result: dict[str, Any]) -> str:
    if not result["quick"]:
        return ""
    return "**A quick run: it shows that the benchmarks work. Its numbers mean little.**"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


# ------------------------------------------------------------------ numbers


def _spread(
    values: Sequence[float], scale: float = 1, form: str = ",.0f", unit: str = "", none: str = "none counted"
) -> str:
    """Median, smallest, largest; ``none`` where there is no value."""
    if not values:
        return none
    middle, low, high = (format(value / scale, form) for value in (median(values), min(values), max(values)))
    return f"{middle}{unit} ({low} to {high})"


def _pick(measurements: Iterable[Measurement], **wanted: object) -> list[Measurement]:
    return [m for m in measurements if all(m[name] == value for name, value in wanted.items())]


def _counted(measurements: Iterable[Measurement]) -> list[Measurement]:
    return [m for m in measurements if not m["complaints"]]


def _ratio(measurements: Sequence[Measurement], baseline: Sequence[Measurement], field: str) -> str:
    by_round = {m["round"]: m[field] for m in _counted(baseline)}
    ratios = [m[field] / by_round[m["round"]] for m in _counted(measurements) if by_round.get(m["round"])]
    return _spread(ratios, form=".2f", unit="x")


def _names(measurements: Iterable[Measurement]) -> list[str]:
    found = {m["contender"] for m in measurements}
    return [name for name in CONTENDERS if name in found]


def _complaints(measurements: Sequence[Measurement], *fields: str) -> str:
    """What did not count, and why; empty when everything did."""
    lines: dict[str, int] = {}
    for m in measurements:
        for text in m["complaints"]:
            where = ", ".join(f"{field} {m[field]}" for field in fields if field in m)
            line = f"{CONTENDERS[m['contender']].title}{' (' + where + ')' if where else ''}: {text.splitlines()[0]}"
            lines[line] = lines.get(line, 0) + 1
    if not lines:
        return "Every measurement counted."
    return "Did not count:\n\n" + "\n".join(f"- {line} ({times} of the measurements)" for line, times in lines.items())


def _company(measurements: Sequence[Measurement]) -> str:
    """Whether the load client or somebody else got in the way."""
    client = [m["client_share"] for m in measurements if "client_share" in m]
    others = [m["others_share"] for m in measurements if "others_share" in m]
    if not client:
        return ""
    return (
        f"The load client was busy {median(client):.0%} of the time (at most {max(client):.0%}). Other processes used "
        f"{median(others):.0%} of the server's core (at most {max(others):.0%})."
    )


# ---------------------------------------------------------------- scenarios


def _fanout(data: dict[str, Any]) -> list[str]:
    measurements = data["measurements"]
    parts = [
        "## Fan-out",
        "A publisher inside the server publishes new 128-byte JSON messages to one topic, as fast as its subscribers "
        "take them: one or 20 messages, then it waits until they are handed to the sockets and yields to the loop. "
        "Counted are deliveries (messages x subscribers) per CPU second of the server.",
    ]
    for subscribers in data["subscribers"]:
        parts += [f"### {subscribers:,} subscribers", _fanout_table(data, _pick(measurements, subscribers=subscribers))]
    parts.append(_complaints(measurements, "subscribers", "burst"))
    parts.append(_company(measurements))
    return parts


def _fanout_table(data: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    head = ["contender"]
    for burst in data["bursts"]:
        head += [f"{burst} a tick: k deliveries per CPU s", "ratio", "k per second"]
    rows = []
    for name in _names(measurements):
        row = [CONTENDERS[name].title]
        for burst in data["bursts"]:
            mine = _pick(measurements, contender=name, burst=burst)
            base = _pick(measurements, contender=BASELINE, burst=burst)
            row.append(_spread([m["per_cpu_s"] for m in _counted(mine)], 1000))
            row.append(_ratio(mine, base, "per_cpu_s"))
            row.append(_spread([m["per_wall_s"] for m in _counted(mine)], 1000))
        rows.append(row)
    return _table(head, rows)


def _memory(data: dict[str, Any]) -> list[str]:
    measurements = data["measurements"]
    rows = []
    for name in _names(measurements):
        mine = _counted(_pick(measurements, contender=name))
        rows.append(
            (
                CONTENDERS[name].title,
                _spread([m["bytes_each"] for m in mine], 1000, ".1f"),
                _ratio(mine, _pick(measurements, contender=BASELINE), "bytes_each"),
                _spread([m["server_bytes"] for m in mine], 1e6, ".0f"),
                _spread([m["opened_per_s"] for m in mine]),
            )
        )
    return [
        "## Memory of an idle subscriber",
        f"Growth of the server's resident memory with {data['subscribers']:,} subscribers that listen to a topic on "
        "which nothing happens, divided by their number. Memory of the kernel's sockets is not in it. Each is then "
        "sent messages, to show that it listened.",
        _table(
            ("contender", "kB a subscriber", "ratio", "MB of the server before", "connections opened per second"), rows
        ),
        _complaints(measurements),
    ]


def _fixed_rate(data: dict[str, Any]) -> list[str]:
    measurements = data["measurements"]
    text = (
        f"{data['subscribers']:,} subscribers, {data['rate']} messages a second of 128 bytes, {data['seconds']:.0f} s. "
        "Latency runs from the time a message was due at the publisher to its arrival at the client, for every "
        "subscriber, in milliseconds. Lateness of the publisher itself is in it (free of coordinated omission). "
        "A stalled reader stopped reading before, its buffers were full when the measurement began, and it stays so."
    )
    parts = ["## Fixed rate: what users see", text]
    for stalled, title in ((0, "All readers read"), (1, "One more reader never reads")):
        parts += [f"### {title}", _rate_table(_pick(measurements, stalled=stalled))]
    parts += [_complaints(measurements, "stalled"), _company(measurements)]
    return parts


def _rate_table(measurements: Sequence[Measurement]) -> str:
    """Also of what did not count: there the numbers of what did arrive, and how much that was."""
    rows = []
    for name in _names(measurements):
        mine = [m for m in _pick(measurements, contender=name) if "latency_ns" in m]
        arrived = [m for m in mine if m["latency_ns"]["count"]]
        row = [CONTENDERS[name].title]
        for quantile in ("p50", "p99", "p999", "max"):
            values = [m["latency_ns"][quantile] for m in arrived]
            row.append(_spread(values, 1e6, ",.1f", none="nothing arrived"))
        row.append(_spread([m["silence_max_s"] for m in mine], form=".2f", unit=" s"))
        row.append(_spread([m["delivered_share"] * 100 for m in mine], form=".1f", unit=" %"))
        row.append(_spread([m["core_share"] * 100 for m in mine], form=".0f", unit=" %"))
        stayed = [m["stalled_still_connected"] for m in mine if "stalled_still_connected" in m]
        rows.append([*row, f"connected in {sum(stayed)} of {len(stayed)}"] if stayed else row)
    head = ["contender", "p50", "p99", "p99.9", "longest", "longest silence", "delivered", "of one core"]
    if any("stalled_still_connected" in m for m in measurements):
        head.append("stalled reader at the end")
    return _table(head, rows)


def _imports(data: dict[str, Any]) -> list[str]:
    rows = [(f"`{statement}`", _spread(seconds, 1e-3)) for statement, seconds in data["seconds"].items()]
    return [
        "## Import",
        f"Milliseconds within a fresh interpreter, {data['rounds']} of them for each statement, alternating; the start "
        "of the interpreter itself is not in it. `import tidewire` loads its public names on first use.",
        _table(("statement", "ms"), rows),
    ]
