"""Memory: what one idle connection adds to the resident size of the server, with 5,000 of them."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.load import LoadClient
from benchmarks.machine import BenchmarkError, rss_bytes
from benchmarks.processes import Server
from benchmarks.scenarios.common import MESSAGE_BYTES, Bench, complaints, say

WARM_UP = 5


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    subscribers = 100 if bench.quick else 5000
    measurements = []
    for round_, contender in bench.alternating("memory"):
        result = _measure(bench, contender, subscribers)
        measurements.append({"round": round_, "contender": contender.name, **result})
        found = "; ".join(result["complaints"]) or f"{result['bytes_each'] / 1000:.1f} kB a connection"
        say(f"memory round {round_ + 1}, {contender.name}: {found}")
    return {"subscribers": subscribers, "measurements": measurements}


def _measure(bench: Bench, contender: Contender, subscribers: int) -> dict[str, Any]:
    """The first few connections load code and fill caches: they come before the first look."""
    try:
        with bench.server(contender) as (server, _), bench.client(contender, server, connections=WARM_UP):
            time.sleep(0.5)
            before = rss_bytes(server.pid)
            with bench.client(contender, server, connections=subscribers, sources=2) as client:
                time.sleep(1.0)
                after = rss_bytes(server.pid)
                found = still_there(contender, server, client)
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}
    return {
        "complaints": found,
        "bytes_each": (after - before) / subscribers,
        "server_bytes": before,
        "opened_per_s": subscribers / client.ready["connect_s"],
    }


def still_there(contender: Contender, server: Server, client: LoadClient) -> list[str]:
    """What is wrong with the connections: a message must reach all, or, without a publisher, none may be closed."""
    if "fanout" not in contender.scenarios:
        phase = client.now()
        return [f"{phase['closed_total']} connections were closed"] if phase["closed_total"] else []
    answer = server.command(60, do="pace", lead_in_s=0, seconds=1, rate=1, size=MESSAGE_BYTES)
    return complaints(client.until(answer["last"], 30), 1, answer["last"])
