"""Appends to brokers, each waited for by its publisher: in memory, in a file, in a file and on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.scenarios.common import MESSAGE_BYTES, Bench, say

BROKERS = ("memory", "lasting", "durable")
# publishers that wait at once, and on how many topics
CROWDS = ((1, 1), (64, 1), (64, 64), (1000, 10))


def run(bench: Bench) -> dict[str, Any]:
    """All brokers, alternating; a fresh process and a fresh file for each measurement."""
    measurements = []
    for round_ in range(bench.rounds):
        for publishers, topics in CROWDS:
            for broker in BROKERS[round_ % 3 :] + BROKERS[: round_ % 3]:
                found = _measure(broker, publishers, topics, 0.3 if bench.quick else 2.0)
                measurements.append(
                    {"round": round_, "broker": broker, "publishers": publishers, "topics": topics} | found
                )
                say(f"appends round {round_ + 1}, {broker}, {publishers} on {topics}: {found['per_s']:,.0f} a second")
    return {"size": MESSAGE_BYTES, "measurements": measurements}


def _measure(broker: str, publishers: int, topics: int, seconds: float) -> dict[str, Any]:
    options = {"broker": broker, "publishers": publishers, "topics": topics, "size": MESSAGE_BYTES, "seconds": seconds}
    command = [sys.executable, "-m", "benchmarks.load.appends"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
