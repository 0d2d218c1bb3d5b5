"""Memory: what one idle subscriber adds to the resident size of the server."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.machine import BenchmarkError, rss_bytes
from benchmarks.scenarios.common import MESSAGE_BYTES, Bench, complaints, say

WARM_UP = 5


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    subscribers = 100 if bench.quick else 1000
    measurements = []
    for round_, contender in bench.alternating():
        result = _measure(bench, contender, subscribers)
        measurements.append({"round": round_, "contender": contender.name, **result})
        say(f"memory round {round_ + 1}, {contender.name}: {result.get('bytes_each', 0) / 1000:.1f} kB a subscriber")
    return {"subscribers": subscribers, "measurements": measurements}


def _measure(bench: Bench, contender: Contender, subscribers: int) -> dict[str, Any]:
    """The first few connections load code and fill caches: they come before the first look."""
    try:
        with bench.server(contender) as (server, _), bench.client(contender, server, connections=WARM_UP):
            time.sleep(0.5)
            before = rss_bytes(server.pid)
            with bench.client(contender, server, connections=subscribers) as client:
                time.sleep(1.0)
                after = rss_bytes(server.pid)
                answer = server.command(30, do="flood", seconds=0.05, burst=1, size=MESSAGE_BYTES)
                found = complaints(client.until(answer["last"], 30), 1, answer["last"])
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}
    return {
        "complaints": found,
        "bytes_each": (after - before) / subscribers,
        "server_bytes": before,
        "opened_per_s": subscribers / client.ready["connect_s"],
    }
