"""The sections on topics: many subscribers, one publisher inside the server."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.contenders import BASELINES
from benchmarks.report.numbers import (
    Measurement,
    Measurements,
    cell,
    company,
    complaints,
    counted,
    marks,
    names,
    pick,
    ratio,
    spread,
    table,
    title,
)
from benchmarks.report.plots import Bar, Panel, bar, bars_of, draw

Section = tuple[list[str], dict[str, str]]


def thousands(value: float) -> str:
    """For the bars."""
    return f"{value / 1e6:,.2f} M" if value >= 1e6 else f"{value / 1e3:,.0f} k"


def fanout(data: dict[str, Any]) -> Section:
    """As many messages as it can."""
    measurements = data["measurements"]
    parts = [
        "## Fan-out",
        "A publisher inside the server publishes new 128-byte JSON messages to one topic, as fast as its subscribers "
        "take them: one or 20 messages, then it waits until they are handed to the sockets and yields to the loop. "
        "Counted are deliveries (messages x subscribers) per CPU second of the server. This is equal batching: whoever "
        "can joins the messages of one tick and none across ticks (Tidewire's flush window is 0; what it does comes "
        "below). The unchanged ConnectionManager on `tidewire.run` returns from `send_text` before the bytes are sent, "
        "as on any server whose buffers have room, so its messages may be joined over several ticks. The last column "
        "says how many messages the load client found with one `recv`: more than were published in a tick where it "
        "came late.",
        "![Deliveries per CPU second](benchmarks/fanout.svg)",
    ]
    panels = []
    for subscribers in data["subscribers"]:
        here = pick(measurements, subscribers=subscribers)
        parts += [f"### {subscribers:,} subscribers"]
        for burst in data["bursts"]:
            parts += [f"{burst} a tick:", _fanout_table(pick(here, burst=burst))]
            bars = bars_of(pick(here, burst=burst), lambda m: float(m["per_cpu_s"]))
            panels.append(Panel(f"{subscribers:,} subscribers, {burst} a tick: deliveries per CPU s", bars, thousands))
    parts += [complaints(measurements, "subscribers", "burst"), company(measurements)]
    return parts, {"benchmarks/fanout.svg": draw(panels)}


def sessions(data: dict[str, Any]) -> Section:
    """The same through sessions."""
    measurements = data["measurements"]
    parts = [
        "## Fan-out through sessions",
        "The same to one topic of JSON sessions (Centrifuge client protocol v2), beside the plain dialect: each "
        "message has an envelope of about fifty bytes more, and those of one flush share a frame.",
    ]
    rivals = {"connection_manager": "of ConnectionManager", "tidewire_log": "of the plain dialect"}
    for subscribers in data["subscribers"]:
        for burst in data["bursts"]:
            here = pick(measurements, subscribers=subscribers, burst=burst)
            parts += [f"{subscribers:,} subscribers, {burst} a tick:", _fanout_table(here, rivals)]
    return [*parts, complaints(measurements, "subscribers", "burst"), company(measurements)], {}


_RIVALS = {
    "connection_manager": "of ConnectionManager",
    "node_uws": "of uWebSockets.js",
    "socketio": "of python-socketio",
}


def _fanout_table(measurements: Measurements, rivals: Mapping[str, str] = _RIVALS) -> str:
    head = ["contender", "k deliveries per CPU s", *rivals.values()]
    rows = []
    for name in names(measurements):
        mine = pick(measurements, contender=name)
        against = [ratio(mine, pick(measurements, contender=rival), "per_cpu_s") for rival in rivals]
        row = [title(name), cell(mine, "per_cpu_s", 1000), *against, cell(mine, "per_wall_s", 1000)]
        rows.append([*row, cell(mine, "messages_per_read", 1, ".1f")])
    return table([*head, "k per second", "messages a read"], rows)


def window(data: dict[str, Any]) -> Section:
    """What the flush window does."""
    measurements = data["measurements"]
    text = (
        f"{data['subscribers']} subscribers; the publisher awaits `publish` and yields to the loop after each message "
        "of 128 bytes, and does not wait for the sockets. What is published within the window after a flush is written "
        "together; a message that comes later goes out at once. Latency runs from `publish` (flood) or from the time "
        "the message was due (fixed rates) to its arrival, in milliseconds."
    )
    variants = list(dict.fromkeys((m["contender"], m["window_ms"]) for m in measurements))
    variants.sort(key=lambda variant: (variant[1] is not None, variant[1] or 0))
    rows = []
    idle = f"{data['rates'][0]}/s"
    panels_of = (("flood", "per_cpu_s", 1), ("flood", "p50", 1e6), ("flood", "p99", 1e6), (idle, "p50", 1e6))
    bars: list[list[Bar]] = [[] for _ in panels_of]
    for name, window_ms in variants:
        mine = pick(measurements, contender=name, window_ms=window_ms)
        flood = pick(mine, load="flood")
        base = pick(measurements, contender=BASELINES["window"], load="flood")
        row = [_variant(name, window_ms), cell(flood, "per_cpu_s", 1000), ratio(flood, base, "per_cpu_s")]
        row.append(cell(flood, "messages_per_read", 1, ",.1f"))
        for load in ("flood", *(f"{rate}/s" for rate in reversed(data["rates"]))):
            latencies = [m["latency_ns"] for m in counted(pick(mine, load=load))]
            row += [spread([one[quantile] for one in latencies], 1e6, ".2f") for quantile in ("p50", "p99")]
        rows.append(row)
        for number, (load, field, scale) in enumerate(panels_of):
            values = [_value(m, field) / scale for m in counted(pick(mine, load=load))]
            if values:
                bars[number].append(bar(_variant(name, window_ms), values))
    head = ["variant", "flood: k deliveries per CPU s", "ratio", "messages a read", "flood p50", "flood p99"]
    head += [f"{rate}/s {quantile}" for rate in reversed(data["rates"]) for quantile in ("p50", "p99")]
    forms = (thousands, lambda value: f"{value:.2f}", lambda value: f"{value:.2f}", lambda value: f"{value:.2f}")
    titles = ("flood: deliveries per CPU s", "flood: p50 in ms", "flood: p99 in ms", f"{panels_of[3][0]}: p50 in ms")
    plot = draw([Panel(*panel) for panel in zip(titles, bars, forms, strict=True)])
    parts = ["## What the flush window does", text, "![Deliveries, latency](benchmarks/window.svg)"]
    parts += [table(head, rows), complaints(measurements, "window_ms", "load"), company(measurements)]
    return parts, {"benchmarks/window.svg": plot}


def _value(measurement: Measurement, field: str) -> float:
    """A field, or a quantile of the latency."""
    return float(measurement[field] if field in measurement else measurement["latency_ns"][field])


def _variant(name: str, window_ms: float | None) -> str:
    return title(name) if window_ms is None else f"{title(name)}, window {window_ms:g} ms"


def fixed_rate(data: dict[str, Any]) -> Section:
    """What users see."""
    measurements = data["measurements"]
    text = (
        f"Messages of 128 bytes by the clock, {data['seconds']:.0f} s. Latency runs from the time a message was due at "
        "the publisher to its arrival at the client, for every subscriber, in milliseconds. Lateness of the publisher "
        "itself is in it (free of coordinated omission). A contender that cannot keep up does not count; what is shown "
        "for it is what did arrive until it was stopped."
    )
    parts = ["## Fixed rate: what users see", text, "![Latency and CPU](benchmarks/fixed-rate.svg)"]
    panels = []
    for subscribers, rate in data["loads"]:
        here = pick(measurements, subscribers=subscribers, rate=rate)
        what = f"{subscribers:,} x {rate}/s"
        parts += [f"### {subscribers:,} subscribers, {rate} messages a second", rate_table(here)]
        p99 = bars_of(here, lambda m: float(m["latency_ns"]["p99"]) / 1e6)
        panels.append(Panel(f"{what}: p99 in ms (logarithmic)", p99, lambda value: f"{value:,.1f}", log=True))
        panels.append(
            Panel(f"{what}: share of a core", bars_of(here, lambda m: float(m["core_share"])), lambda v: f"{v:.0%}")
        )
    parts += [complaints(measurements, "subscribers", "rate"), company(measurements)]
    return parts, {"benchmarks/fixed-rate.svg": draw(panels)}


def stalled(data: dict[str, Any]) -> Section:
    """The same beside a reader that never reads."""
    measurements = data["measurements"]
    text = (
        f"{data['subscribers']:,} subscribers, {data['rate']} messages a second, and one more reader that stopped "
        "reading before: its buffers were full when the measurement began, and it stays so."
    )
    parts = ["## One reader that never reads", text, rate_table(measurements), complaints(measurements)]
    return [*parts, company(measurements)], {}


def rate_table(measurements: Measurements) -> str:
    """Also of what did not count: there the numbers of what did arrive, and how much that was."""
    rows = []
    for name in names(measurements):
        mine = [m for m in pick(measurements, contender=name) if "latency_ns" in m]
        arrived = [m for m in mine if m["latency_ns"]["count"]]
        row = [title(name) + marks(mine)]
        for quantile in ("p50", "p99", "p999", "max"):
            values = [m["latency_ns"][quantile] for m in arrived]
            row.append(spread(values, 1e6, ",.1f", none="nothing arrived"))
        row.append(spread([m["silence_max_s"] for m in mine], form=".2f", unit=" s"))
        row.append(spread([100 * m["delivered_share"] for m in mine], form=".1f", unit=" %"))
        row.append(spread([100 * m["core_share"] for m in mine], form=".0f", unit=" %"))
        row.append(spread([m["rss_bytes"] for m in mine], 1e6))
        stayed = [m["stalled_still_connected"] for m in mine if "stalled_still_connected" in m]
        rows.append([*row, f"connected in {sum(stayed)} of {len(stayed)}"] if stayed else row)
    head = ["contender", "p50", "p99", "p99.9", "longest", "longest silence", "delivered", "of one core", "MB"]
    if any("stalled_still_connected" in m for m in measurements):
        head.append("stalled reader at the end")
    return table(head, rows)


def latest(data: dict[str, Any]) -> Section:
    """The newest value of each key, twice a second."""
    measurements = data["measurements"]
    text = (
        f'`Latest(key="id", max_per_s=2)`: {data["keys"]:,} keys, each updated {data["per_s"]} times a second for '
        f"{data['seconds']:.0f} s, {data['subscribers']} subscribers. Each must end with the newest value of every "
        "key. Then the largest load: updates grow in steps until the core is more than 95 % busy, the publisher falls "
        "behind by half a second, or a client lacks a newest value."
    )
    rows = []
    for name in names(measurements):
        mine = counted(pick(measurements, contender=name))
        rows.append(
            [
                title(name),
                spread([100 * m["core_share"] for m in mine], form=".0f", unit=" %"),
                spread([m["deliveries"] / data["seconds"] for m in mine], 1000),
                cell(mine, "per_cpu_s", 1000),
                *(spread([at(m["rss_bytes"]) for m in mine], 1e6) for at in (lambda r: r[0], max, lambda r: r[-1])),
                spread([m["sustained_per_s"] for m in mine]),
            ]
        )
    head = ["contender", "of one core", "k values a second", "k values per CPU s", "MB after 1 s", "MB at most"]
    head += ["MB at the end", "updates a second, at most"]
    steps = [_steps_table(counted(measurements))] if counted(measurements) else []
    parts = ["## The newest value of each key", text, table(head, rows), *steps, complaints(measurements)]
    return [*parts, company(measurements)], {}


def _steps_table(measurements: Measurements) -> str:
    found: dict[int, list[dict[str, Any]]] = {}
    for m in measurements:
        for step in m["steps"]:
            found.setdefault(step["updates_per_s"], []).append(step)
    rows = []
    for rate, steps in sorted(found.items()):
        share = spread([100 * step["core_share"] for step in steps], form=".0f", unit=" %")
        late = f"{1000 * median(step['late_s'] for step in steps):.0f} ms"
        kept = sum(not step["complaints"] for step in steps)
        rows.append([f"{rate:,}", share, late, f"{kept} of {len(steps)}"])
    return table(["updates a second", "of one core", "publisher late, at most", "all current"], rows)
