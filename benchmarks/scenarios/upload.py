"""Upload: one client sends binary messages of 1 MiB to a server that counts them and keeps nothing."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Contender
from benchmarks.machine import BenchmarkError, peak_rss_bytes
from benchmarks.scenarios.common import Bench, costs, say

MESSAGE_BYTES = 1 << 20
MESSAGES = 512
WARM_UP_MESSAGES = 16
# one after the other on the same connection: one alone lasts less than a quarter of a second
UPLOADS = 4


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    messages = 64 if bench.quick else MESSAGES
    measurements = []
    for round_, contender in bench.alternating("upload"):
        result = _measure(bench, contender, messages)
        measurements.append({"round": round_, "contender": contender.name, **result})
        found = "; ".join(result["complaints"]) or f"{result['per_cpu_s'] / 1e6:,.0f} MB per CPU second"
        say(f"upload round {round_ + 1}, {contender.name}: {found}")
    return {"messages": messages, "uploads": UPLOADS, "message_bytes": MESSAGE_BYTES, "measurements": measurements}


def _measure(bench: Bench, contender: Contender, messages: int) -> dict[str, Any]:
    """It counts when the server has told the right number of bytes."""
    options = {"size": MESSAGE_BYTES, "idle_timeout_s": 30}
    try:
        with bench.server(contender) as (server, meter), bench.talker(contender, server, **options) as talker:
            talker.upload(WARM_UP_MESSAGES, 60)
            before = meter.read()
            phases = [talker.upload(messages, 120) for _ in range(UPLOADS)]
            cpu = meter.read() - before
            peak = peak_rss_bytes(server.pid)
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}
    wall_s = sum(phase["wall_s"] for phase in phases)
    return {
        "complaints": [],
        "per_cpu_s": sum(phase["bytes"] for phase in phases) / max(cpu.total_s, 0.01),
        "per_wall_s": sum(phase["bytes"] for phase in phases) / wall_s,
        "peak_bytes": peak,
        "client_share": sum(phase["client_busy_s"] for phase in phases) / wall_s,
        **costs(cpu),
    }
