"""What the flush window does: one message a tick, flat out, and what it costs in latency.

The publisher awaits ``publish`` and yields to the loop, and does not wait for the sockets: what the window gathers is
its own choice. Beside Tidewire with windows of 0, 1 and 5 ms stands the ConnectionManager, which has none.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.load import LoadClient
from benchmarks.machine import BenchmarkError, CpuMeter
from benchmarks.processes import Server
from benchmarks.scenarios.common import MESSAGE_BYTES, SETTLE_S, Bench, complaints, costs, say

SUBSCRIBERS = 200
WINDOWS_MS = (0.0, 1.0, 5.0)
# Waiting now and then keeps a flood from meeting the limit of an outbox (1,000 messages)
DRAIN_EVERY = 400
# Messages a second: idle (always further apart than a window), and rather many (every 4 ms)
RATES = (20, 250)
LEAD_IN_S = 0.5


def run(bench: Bench) -> dict[str, Any]:
    """Every variant, alternating; every measurement as it was."""
    variants: list[tuple[Contender, float | None]] = []
    for contender in bench.taking_part("window"):
        windows = WINDOWS_MS if contender.name.startswith("tidewire") else (None,)
        variants += [(contender, window_ms) for window_ms in windows]
    measurements = []
    for round_ in range(bench.rounds):
        start = round_ % max(1, len(variants))
        for contender, window_ms in variants[start:] + variants[:start]:
            for result in _session(bench, contender, window_ms):
                result |= {"round": round_, "contender": contender.name, "window_ms": window_ms}
                measurements.append(result)
                say(f"window round {round_ + 1}, {contender.name}, {window_ms} ms: {_summary(result)}")
    return {
        "subscribers": SUBSCRIBERS,
        "windows_ms": list(WINDOWS_MS),
        "rates": list(RATES),
        "measurements": measurements,
    }


def _summary(result: dict[str, Any]) -> str:
    if result["complaints"]:
        return f"{result['load']} does not count: {'; '.join(result['complaints'])}"
    p50, p99 = (result["latency_ns"][name] / 1e6 for name in ("p50", "p99"))
    return f"{result['load']}: {result['per_cpu_s'] / 1000:,.0f} k per CPU second, p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def _session(bench: Bench, contender: Contender, window_ms: float | None) -> list[dict[str, Any]]:
    seconds = 0.5 if bench.quick else 2.0
    loads: dict[str, dict[str, Any]] = {"flood": {"do": "stream", "seconds": seconds, "drain_every": DRAIN_EVERY}}
    for rate in RATES:
        loads[f"{rate}/s"] = {"do": "pace", "seconds": 2 * seconds, "rate": rate, "lead_in_s": LEAD_IN_S}
    results = []
    options = {"connections": SUBSCRIBERS, "latency": True, "spin": bench.spin}
    try:
        with (
            bench.server(contender, window_ms=window_ms) as (server, meter),
            bench.client(contender, server, **options) as client,
        ):
            time.sleep(SETTLE_S)
            last = _measure(server, client, meter, {"do": "stream", "seconds": 0.2, "drain_every": 50}, 0)["last"]
            for load, command in loads.items():
                result = _measure(server, client, meter, command, last)
                last = result["last"]
                results.append({"load": load, **result})
    except (BenchmarkError, TimeoutError) as error:
        results += [{"load": load, "complaints": [str(error)]} for load in list(loads)[len(results) :]]
    return results


def _measure(server: Server, client: LoadClient, meter: CpuMeter, command: dict[str, Any], last: int) -> dict[str, Any]:
    before = meter.read()
    answer = server.command(command["seconds"] + 60, size=MESSAGE_BYTES, **command)
    phase = client.until(answer["last"], timeout_s=60)
    cpu = meter.read() - before
    return {
        "complaints": complaints(phase, last + 1, answer["last"]),
        "last": answer["last"],
        "per_cpu_s": phase["messages"] / max(cpu.total_s, 0.01),
        "latency_ns": phase["latency_ns"],
        "client_share": phase["client_busy_s"] / phase["wall_s"],
        "messages_per_read": phase["messages"] / max(1, phase["reads"]),
        **costs(cpu),
    }
