"""What was asked of the wire, and what this run reached: one line each, in numbers and in a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks.report.numbers import Measurements, counted, names, pick, ratios, spread, table, title

Scenarios = dict[str, dict[str, Any]]
# What was asked, what was reached, whether that is enough (None: nothing counted)
Line = tuple[str, str, bool | None]

# The limit is no contender: nobody would serve with it
LIMIT = "c_send"


def write(scenarios: Scenarios) -> str:
    """The table; empty when nothing of what was asked was measured."""
    checks: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
        "fanout": _fanout,
        "window": _window,
        "fixed-rate": _fixed_rate,
        "latest": _latest,
        "echo": _echo,
        "upload": _upload,
        "memory": _memory,
        "connect": _connect,
        "wss": _wss,
        "sessions": _sessions,
        "storm": _storm,
        "appends": _appends,
    }
    lines = [line for name, check in checks.items() if name in scenarios for line in check(scenarios[name])]
    words = {True: "yes", False: "**no**", None: "not measured"}
    return (
        table(("asked", "reached", "enough"), ((asked, found, words[ok]) for asked, found, ok in lines))
        if lines
        else ""
    )


def _storm(data: dict[str, Any]) -> Iterator[Line]:
    worst = [float(one["max_ms"]) for one in counted(data["measurements"])]
    asked = "a storm of returning sessions: others hear their ticks at most 250 ms late"
    yield asked, spread(worst, form=",.0f", unit=" ms"), median(worst) < 250 if worst else None


def _appends(data: dict[str, Any]) -> Iterator[Line]:
    mine = pick(data["measurements"], broker="durable", publishers=64, topics=1)
    found = [float(one["per_s"]) for one in mine]
    asked = "durable appends to sqlite, 64 publishers waiting: 20,000 a second"
    yield asked, spread(found), median(found) >= 20_000 if found else None


def _sessions(data: dict[str, Any]) -> Iterator[Line]:
    for burst in sorted(data["bursts"], reverse=True):
        for subscribers in data["subscribers"]:
            where = {"burst": burst, "subscribers": subscribers}
            mine = _of(data, "tidewire_session", **where)
            for name, least in (("tidewire_log", 0.8), ("connection_manager", 10)):
                if burst == 1 and name == "connection_manager":
                    continue
                found = ratios(mine, _of(data, name, **where), "per_cpu_s")
                yield _at_least(
                    f"sessions, {subscribers:,} subscribers, {burst} a tick: {least:g}x {title(name)}", found, least
                )


def _at_least(asked: str, values: list[float], least: float) -> Line:
    return asked, spread(values, form=",.2f", unit="x"), median(values) >= least if values else None


def _of(data: dict[str, Any], name: str, **where: object) -> Measurements:
    return pick(data["measurements"], contender=name, **where)


def _fanout(data: dict[str, Any]) -> Iterator[Line]:
    asked = {
        20: (("node_uws", 0.9), ("connection_manager", 25), ("socketio", 80)),
        1: (("node_uws", 0.75), ("connection_manager", 1.5)),
    }
    for burst in sorted(data["bursts"], reverse=True):
        for subscribers in data["subscribers"]:
            where = {"burst": burst, "subscribers": subscribers}
            for name, least in asked[burst]:
                found = ratios(_of(data, "tidewire_log", **where), _of(data, name, **where), "per_cpu_s")
                text = f"fan-out, {subscribers:,} subscribers, {burst} a tick: {least:g}x {title(name)}"
                yield _at_least(text, found, least)


def _differences_ms(data: dict[str, Any], load: str, quantile: str) -> list[float]:
    """Latency with a window of 1 ms less that without one, round by round."""
    without = {
        m["round"]: m["latency_ns"][quantile] for m in counted(_of(data, "tidewire_log", load=load, window_ms=0.0))
    }
    measured = counted(_of(data, "tidewire_log", load=load, window_ms=1.0))
    return [(m["latency_ns"][quantile] - without[m["round"]]) / 1e6 for m in measured if m["round"] in without]


def _window(data: dict[str, Any]) -> Iterator[Line]:
    ours = _of(data, "tidewire_log", load="flood", window_ms=1.0)
    found = ratios(ours, _of(data, "connection_manager", load="flood"), "per_cpu_s")
    yield _at_least("window of 1 ms, flooded: 60x ConnectionManager", found, 60)
    for load in ("flood", f"{data['rates'][-1]}/s"):
        for quantile, most in (("p50", 1.5), ("p99", 4.0)):
            added = _differences_ms(data, load, quantile)
            text = f"latency that a window of 1 ms adds, {load}, {quantile}: under {most} ms"
            yield text, spread(added, form=".2f", unit=" ms"), median(added) < most if added else None
    idle = _differences_ms(data, f"{data['rates'][0]}/s", "p50")
    text = f"the same when idle ({data['rates'][0]} messages a second), p50: none"
    yield text, spread(idle, form=".2f", unit=" ms"), min(idle) < 0.1 if idle else None


def _fixed_rate(data: dict[str, Any]) -> Iterator[Line]:
    for subscribers, rate in data["loads"]:
        here = counted(pick(data["measurements"], subscribers=subscribers, rate=rate))
        what = f"{subscribers:,} x {rate} messages a second"
        ours = pick(here, contender="tidewire_log")
        cpu = {
            name: median(m["core_share"] for m in pick(here, contender=name)) for name in names(here) if name != LIMIT
        }
        if not ours:
            yield f"{what}: best CPU of all", "did not count", None
            continue
        rivals = {name: share for name, share in cpu.items() if "tidewire" not in name}
        best = min(rivals, key=rivals.__getitem__, default=None)
        beside = f"; next: {title(best)} {rivals[best]:.0%}" if best else "; nobody else kept up"
        yield (
            f"{what}: best CPU of all",
            f"{cpu['tidewire_log']:.0%} of a core{beside}",
            best is None or cpu["tidewire_log"] <= rivals[best],
        )
        theirs = {m["round"]: m["latency_ns"]["p99"] for m in pick(here, contender="node_uws")}
        more = [(m["latency_ns"]["p99"] - theirs[m["round"]]) / 1e6 for m in ours if m["round"] in theirs]
        text = f"{what}: p99 not above uWebSockets.js + 2 ms"
        yield text, spread(more, form="+.2f", unit=" ms"), median(more) <= 2 if more else None


def _latest(data: dict[str, Any]) -> Iterator[Line]:
    ours = counted(_of(data, "tidewire_keys"))
    what = f"`Latest`: {data['keys']:,} keys x {data['per_s']} a second, {data['subscribers']} subscribers"
    yield f"{what}: all current", "every client, every key" if ours else "did not count", bool(ours)
    # from the middle of the run on it must not grow any more
    growth = [m["rss_bytes"][-1] / m["rss_bytes"][len(m["rss_bytes"]) // 2] for m in ours]
    yield (
        f"{what}: bounded memory",
        f"{spread(growth, form='.3f', unit='x')} from the middle to the end",
        max(growth) < 1.05 if growth else None,
    )


def _echo(data: dict[str, Any]) -> Iterator[Line]:
    base = _of(data, "endpoint_uvicorn", size=32)
    for name, least in (("tidewire_handler", 12), ("endpoint_tidewire", 3)):
        found = ratios(_of(data, name, size=32), base, "per_cpu_s")
        yield _at_least(f"echo of 32 bytes, {title(name)}: {least}x FastAPI on stock uvicorn", found, least)


def _upload(data: dict[str, Any]) -> Iterator[Line]:
    ours = _of(data, "upload_streaming")
    found = ratios(ours, _of(data, "upload_uvicorn"), "per_cpu_s")
    yield _at_least("upload, streamed to a handler: 2.5x FastAPI on stock uvicorn", found, 2.5)
    yield _at_least(
        "upload, streamed to a handler: not below uWebSockets.js",
        ratios(ours, _of(data, "node_uws_upload"), "per_cpu_s"),
        1,
    )


def _memory(data: dict[str, Any]) -> Iterator[Line]:
    kilobytes = [m["bytes_each"] / 1000 for m in counted(_of(data, "tidewire_log"))]
    base = [m["bytes_each"] / 1000 for m in counted(_of(data, "endpoint_uvicorn"))]
    beside = f", beside {spread(base, form='.1f', unit=' kB')}"
    text = f"memory of an idle subscriber, {data['subscribers']:,} of them: 5 kB or less"
    yield text, spread(kilobytes, form=".1f", unit=" kB") + beside, median(kilobytes) <= 5 if kilobytes else None


def _connect(data: dict[str, Any]) -> Iterator[Line]:
    base = _of(data, "connection_manager", phase="parallel")
    found = ratios(_of(data, "tidewire_log", phase="parallel"), base, "per_cpu_s")
    yield _at_least("accepted connections per CPU second: beside ConnectionManager on uvicorn", found, 1)
    yield _all_open(data, "many", "open at once, and a message to all")


def _wss(data: dict[str, Any]) -> Iterator[Line]:
    yield _all_open(data, "parallel", "over TLS, and a message to all")


def _all_open(data: dict[str, Any], phase: str, what: str) -> Line:
    ours = _of(data, "tidewire_log", phase=phase)
    failed = len(ours) - len(counted(ours))
    asked = f"{data['phases'][phase][0]:,} connections {what}: 0 failures"
    return asked, f"{failed} of {len(ours)} runs failed", not failed if ours else None
