"""The sections on connections: what clients send, what connections cost, and imports."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import BASELINES
from benchmarks.report.numbers import (
    Measurements,
    cell,
    company,
    complaints,
    counted,
    names,
    pick,
    ratio,
    spread,
    table,
    title,
)
from benchmarks.report.plots import Panel, bars_of, draw
from benchmarks.report.sections import Section, thousands


def echo(data: dict[str, Any]) -> Section:
    """Round trips."""
    measurements = data["measurements"]
    text = (
        f"{data['connections']} connections, on each {data['depth']} text messages under way, sent again as they come "
        "back. The client compares every byte. Counted are round trips per CPU second of the server."
    )
    panels, rows = [], []
    for size in data["sizes"]:
        bars = bars_of(pick(measurements, size=size), lambda m: float(m["per_cpu_s"]))
        panels.append(Panel(f"{size:,} bytes: round trips per CPU s", bars, thousands))
    for name in names(measurements):
        row = [title(name)]
        for size in data["sizes"]:
            mine, base = (pick(measurements, contender=one, size=size) for one in (name, BASELINES["echo"]))
            row += [cell(mine, "per_cpu_s", 1000), ratio(mine, base, "per_cpu_s"), cell(mine, "per_wall_s", 1000)]
        rows.append(row)
    head = ["contender"]
    for size in data["sizes"]:
        head += [f"{size:,} bytes: k per CPU s", "ratio", "k per second"]
    parts = ["## Echo", text, "![Round trips per CPU second](benchmarks/echo.svg)", table(head, rows)]
    return [*parts, complaints(measurements, "size"), company(measurements)], {"benchmarks/echo.svg": draw(panels)}


def upload(data: dict[str, Any]) -> Section:
    """Megabytes."""
    measurements = data["measurements"]
    text = (
        f"One client sends {data['messages']} binary messages of 1 MiB, one after the other, {data['uploads']} times; "
        "the server counts them, keeps nothing, and says each time how many bytes it got."
    )
    rows = []
    for name in names(measurements):
        mine, base = (pick(measurements, contender=one) for one in (name, BASELINES["upload"]))
        row = [title(name), cell(mine, "per_cpu_s", 1e6), ratio(mine, base, "per_cpu_s")]
        rows.append([*row, cell(mine, "per_wall_s", 1e6), cell(mine, "peak_bytes", 1e6)])
    panels = [
        Panel("MB per CPU s", bars_of(measurements, lambda m: float(m["per_cpu_s"]) / 1e6), lambda v: f"{v:,.0f}"),
        Panel("peak memory, MB", bars_of(measurements, lambda m: float(m["peak_bytes"]) / 1e6), lambda v: f"{v:,.0f}"),
    ]
    head = ["contender", "MB per CPU s", "ratio", "MB per second", "peak memory, MB"]
    parts = ["## Upload", text, "![Megabytes per CPU second](benchmarks/upload.svg)", table(head, rows)]
    return [*parts, complaints(measurements), company(measurements)], {"benchmarks/upload.svg": draw(panels)}


def memory(data: dict[str, Any]) -> Section:
    """Kilobytes."""
    measurements = data["measurements"]
    rows = []
    for name in names(measurements):
        mine, base = (pick(measurements, contender=one) for one in (name, BASELINES["memory"]))
        row = [title(name), cell(mine, "bytes_each", 1000, ".1f"), ratio(mine, base, "bytes_each")]
        rows.append([*row, cell(mine, "server_bytes", 1e6)])
    text = (
        f"Growth of the server's resident memory with {data['subscribers']:,} connections on which nothing happens, "
        "divided by their number. Memory of the kernel's sockets is not in it. Where there is a publisher, a message "
        "must then reach each of them."
    )
    bars = bars_of(measurements, lambda m: float(m["bytes_each"]) / 1000)
    plot = draw([Panel("kB a connection", bars, lambda value: f"{value:.1f}")])
    head = ["contender", "kB a connection", "ratio", "MB of the server before"]
    parts = ["## Memory of an idle connection", text, "![Kilobytes a connection](benchmarks/memory.svg)"]
    return [*parts, table(head, rows), complaints(measurements)], {"benchmarks/memory.svg": plot}


def connect(data: dict[str, Any]) -> Section:
    """Handshakes."""
    many = data["phases"]["many"][0]
    text = (
        "Connections accepted per second, and per CPU second of the server: one handshake after the other, and 64 "
        f"under way at a time. Then {many:,} are open at once, and where there is a publisher a message must "
        "reach each."
    )
    bars = bars_of(pick(data["measurements"], phase="parallel"), lambda m: float(m["per_cpu_s"]))
    plot = draw([Panel("connections per CPU s, 64 at a time", bars, lambda value: f"{value:,.0f}")])
    parts = ["## Connecting", text, "![Connections per CPU second](benchmarks/connect.svg)", _connect_table(data)]
    return [*parts, complaints(data["measurements"], "phase")], {"benchmarks/connect.svg": plot}


def wss(data: dict[str, Any]) -> Section:
    """Handshakes over TLS."""
    text = (
        "The same over TLS: a certificate of an elliptic curve made for the run, not checked by the load client, which "
        "uses OpenSSL here."
    )
    return ["## Connecting over TLS (wss)", text, _connect_table(data), complaints(data["measurements"], "phase")], {}


_PHASES = {"sequential": "one after the other", "parallel": "64 at a time", "many": "{} at once"}


def _connect_table(data: dict[str, Any]) -> str:
    rows = []
    for name in names(data["measurements"]):
        row = [title(name)]
        for phase in data["phases"]:
            mine: Measurements = pick(data["measurements"], contender=name, phase=phase)
            base = pick(data["measurements"], contender=BASELINES["connect"], phase=phase)
            row += [cell(mine, "per_wall_s"), cell(mine, "per_cpu_s"), ratio(mine, base, "per_cpu_s")]
        rows.append(row)
    head = ["contender"]
    for phase, (connections, _) in data["phases"].items():
        head += [f"{_PHASES[phase].format(f'{connections:,}')}: per second", "per CPU s", "ratio"]
    return table(head, rows)


def storm(data: dict[str, Any]) -> Section:
    """Sessions that come back all at once."""
    rows = []
    for name in names(data["measurements"]):
        mine = pick(data["measurements"], contender=name)
        quiet = [{**one, **one["quiet"], "complaints": one["complaints"]} for one in counted(mine)]
        row = [title(name), cell(mine, "seconds", form=",.1f"), cell(mine, "cpu_s", form=",.1f")]
        row += [cell(mine, "rss_bytes", 1e6), cell(quiet, "max_ms", form=",.1f")]
        rows.append([*row, *(cell(mine, field, form=",.1f") for field in ("p50_ms", "p99_ms", "max_ms"))])
    text = (
        f"{data['sessions']:,} sessions (JSON) of {data['topics_each']} topics each are cut at once, miss "
        f"{data['missed']} messages a topic, and come back within a second of one another: handshake, connect, "
        "subscribe with their positions, the topic function asked for each. A hundred others follow a topic that "
        "ticks a hundred times a second: how late they hear it."
    )
    head = ["contender", "s to the last", "CPU s", "peak MB", "ticks before, worst ms", "p50 ms", "p99 ms", "worst ms"]
    return ["## A storm of returning sessions", text, table(head, rows), complaints(data["measurements"])], {}


_BROKERS = {
    "memory": "`memory://`",
    "lasting": "`sqlite:///`, `durable=False`",
    "durable": "`sqlite:///`, on the disk when it is answered",
}


def appends(data: dict[str, Any]) -> Section:
    """What brokers take."""
    rows = []
    for crowd in dict.fromkeys((one["publishers"], one["topics"]) for one in data["measurements"]):
        for broker, name in _BROKERS.items():
            mine = pick(data["measurements"], broker=broker, publishers=crowd[0], topics=crowd[1])
            found = [spread([one[field] for one in mine], form=form) for field, form in _APPENDS]
            rows.append((f"{crowd[0]:,} on {crowd[1]:,}", name, *found))
    text = (
        f"Messages of {data['size']} bytes, each waited for by its publisher before it publishes the next; a fresh "
        "process and a fresh file for every measurement. What is on the disk when it is answered depends on that disk."
    )
    head = ("publishers on topics", "broker", "appends a second", "p50 ms", "p99 ms")
    return ["## Appends", text, table(head, rows)], {}


_APPENDS = (("per_s", ",.0f"), ("p50_ms", ",.2f"), ("p99_ms", ",.2f"))


def imports(data: dict[str, Any]) -> Section:
    """What ``import tidewire`` costs."""
    rows = [(f"`{statement}`", spread(seconds, 1e-3)) for statement, seconds in data["seconds"].items()]
    text = (
        f"Milliseconds within a fresh interpreter, {data['rounds']} of them for each statement, alternating; the start "
        "of the interpreter itself is not in it. `import tidewire` loads its public names on first use."
    )
    return ["## Import", text, table(("statement", "ms"), rows)], {}
