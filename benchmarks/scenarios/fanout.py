"""Fan-out: as many messages as it can, to 200 and 1,000 subscribers, one and 20 messages a tick.

Equal batching: all contenders hand over once a tick what was published in it, or at once; Tidewire's flush window is
0 here. What the window does is a scenario of its own.
"""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Contender
from benchmarks.load import LoadClient
from benchmarks.machine import BenchmarkError, CpuMeter
from benchmarks.processes import Server
from benchmarks.scenarios.common import MESSAGE_BYTES, SETTLE_S, Bench, complaints, costs, say

SUBSCRIBERS = (200, 1000)
BURSTS = (1, 20)


def run_sessions(bench: Bench) -> dict[str, Any]:
    """The same through sessions, beside the plain dialect."""
    return run(bench, "sessions")


def run(bench: Bench, scenario: str = "fanout") -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    subscribers = (50,) if bench.quick else SUBSCRIBERS
    measurements = []
    for round_, contender in bench.alternating(scenario):
        for count in subscribers:
            for result in _session(bench, contender, count):
                measurements.append({"round": round_, "contender": contender.name, "subscribers": count, **result})
                say(f"fan-out round {round_ + 1}, {contender.name}, {count} subscribers: {_summary(result)}")
    return {"subscribers": list(subscribers), "bursts": list(BURSTS), "measurements": measurements}


def _summary(result: dict[str, Any]) -> str:
    if result["complaints"]:
        return f"burst {result['burst']} does not count: {'; '.join(result['complaints'])}"
    return f"burst {result['burst']}: {result['per_cpu_s'] / 1000:,.0f} k deliveries per CPU second"


def _session(bench: Bench, contender: Contender, count: int) -> list[dict[str, Any]]:
    seconds = 0.3 if bench.quick else 2.0
    results: list[dict[str, Any]] = []
    try:
        options = {"connections": count, "spin": bench.spin}
        with (
            bench.server(contender, window_ms=0) as (server, meter),
            bench.client(contender, server, **options) as client,
        ):
            flood = Flood(server, client, meter)
            flood.measure(SETTLE_S, burst=1)  # warm-up; also gives a subscription made late its time
            results.extend(flood.measure(seconds, burst) for burst in BURSTS)
    except (BenchmarkError, TimeoutError) as error:
        measured = {result["burst"] for result in results}
        results += [{"burst": burst, "complaints": [str(error)]} for burst in BURSTS if burst not in measured]
    return results


class Flood:
    """Floods of one server with one set of subscribers, one after the other."""

    def __init__(self, server: Server, client: LoadClient, meter: CpuMeter) -> None:
        self._server = server
        self._client = client
        self._meter = meter
        self._last = 0

    def measure(self, seconds: float, burst: int) -> dict[str, Any]:
        """Publish flat out for ``seconds``; what arrived and what it cost."""
        before = self._meter.read()
        answer = self._server.command(seconds + 60, do="flood", seconds=seconds, burst=burst, size=MESSAGE_BYTES)
        phase = self._client.until(answer["last"], timeout_s=60)
        cpu = self._meter.read() - before
        found = complaints(phase, self._last + 1, answer["last"])
        self._last = answer["last"]
        return {
            "burst": burst,
            "complaints": found,
            "deliveries": phase["messages"],
            "per_cpu_s": phase["messages"] / max(cpu.total_s, 0.01),
            "per_wall_s": phase["messages"] / phase["arrival_s"] if phase["arrival_s"] else 0.0,
            **costs(cpu),
            "client_share": phase["client_busy_s"] / phase["wall_s"],
            "messages_per_read": phase["messages"] / max(1, phase["reads"]),
        }
