"""A storm: 5,000 sessions of five topics each are dropped at once, miss 100 messages a topic, and come back.

What is asked: how long until the last one has everything, what that costs, and how late 100 connections that were not
dropped hear their ticks meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.machine import BenchmarkError
from benchmarks.processes import LineProcess, Server
from benchmarks.scenarios.common import MESSAGE_BYTES, Bench, say

TOPICS_EACH = 5
MISSED = 100
STAY = 100
PATIENCE_S = 300.0


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    sessions = 200 if bench.quick else 5000
    measurements = []
    for round_, contender in bench.alternating("storm"):
        result = _measure(bench, contender, sessions)
        measurements.append({"round": round_, "contender": contender.name, **result})
        said = "; ".join(result["complaints"]) or (
            f"{result['seconds']:.1f} s to the last, {result['cpu_s']:.1f} s of CPU, "
            f"{result['rss_bytes'] / 1e6:.0f} MB, ticks at most {result['max_ms']:.0f} ms late"
        )
        say(f"storm round {round_ + 1}, {contender.name}: {said}")
    return {"sessions": sessions, "topics_each": TOPICS_EACH, "missed": MISSED, "measurements": measurements}


def _measure(bench: Bench, contender: Contender, sessions: int) -> dict[str, Any]:
    try:
        with bench.server(contender) as (server, _):
            return _storm(bench, server, sessions)
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}


def _storm(bench: Bench, server: Server, sessions: int) -> dict[str, Any]:
    options = {"port": server.port, "sessions": sessions, "topics": TOPICS_EACH, "stay": STAY}
    argv = [sys.executable, "-m", "benchmarks.load.storm"]
    argv += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    crowd = LineProcess("storm", argv, bench.client_place)
    try:
        crowd.read(PATIENCE_S)
        crowd.send("quiet 1.5")
        quiet = crowd.read(30)
        crowd.send("drop")
        crowd.read(30)
        server.command(PATIENCE_S, do="miss", messages=MISSED, size=MESSAGE_BYTES)
        before = server.command(30, do="usage")
        crowd.send(f"storm {MISSED}")
        storm = crowd.read(PATIENCE_S)
        after = server.command(30, do="usage")
    finally:
        crowd.kill()
    return {
        "complaints": [],
        **storm,
        "cpu_s": after["cpu_s"] - before["cpu_s"],
        "rss_bytes": after["rss_bytes"],
        "quiet": quiet,
    }
