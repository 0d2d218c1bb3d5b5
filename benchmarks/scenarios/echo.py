"""Echo: 50 connections, 16 messages under way on each, of 32 bytes and of 1 KiB: round trips per CPU second."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Contender
from benchmarks.machine import BenchmarkError
from benchmarks.scenarios.common import Bench, costs, say

CONNECTIONS = 50
DEPTH = 16
SIZES = (32, 1024)


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    measurements = []
    for round_, contender in bench.alternating("echo"):
        for size in SIZES:
            result = _measure(bench, contender, size)
            measurements.append({"round": round_, "contender": contender.name, "size": size, **result})
            found = "; ".join(result["complaints"]) or f"{result['per_cpu_s'] / 1000:,.0f} k round trips per CPU second"
            say(f"echo round {round_ + 1}, {contender.name}, {size} bytes: {found}")
    return {"connections": CONNECTIONS, "depth": DEPTH, "sizes": list(SIZES), "measurements": measurements}


def _measure(bench: Bench, contender: Contender, size: int) -> dict[str, Any]:
    """The client compares every byte that comes back: a difference is an error, and the measurement does not count."""
    seconds = 0.3 if bench.quick else 2.0
    options = {"connections": CONNECTIONS, "depth": DEPTH, "size": size}
    try:
        with bench.server(contender) as (server, meter), bench.talker(contender, server, **options) as talker:
            talker.echo(seconds / 4)  # warm-up
            before = meter.read()
            phase = talker.echo(seconds)
            cpu = meter.read() - before
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}
    return {
        "complaints": [],
        "round_trips": phase["messages"],
        "per_cpu_s": phase["messages"] / max(cpu.total_s, 0.01),
        "per_wall_s": phase["messages"] / phase["wall_s"],
        "client_share": phase["client_busy_s"] / phase["wall_s"],
        **costs(cpu),
    }
