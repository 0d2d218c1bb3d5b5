"""``Latest(key="id", max_per_s=2)``: 2,000 keys, each updated five times a second, 200 subscribers.

Then the largest load: the rate of updates grows until the core is full, the publisher falls behind, or a
client misses the newest value of a key.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.load import LoadClient
from benchmarks.machine import BenchmarkError, Cpu, CpuMeter, rss_bytes
from benchmarks.processes import Server
from benchmarks.scenarios.common import MESSAGE_BYTES, SETTLE_S, Bench, costs, say

SUBSCRIBERS = 200
KEYS = 2000
PER_S = 5
# Updates of each key a second; the search ends with the first that is too much
STEPS = (5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200)
CORE_SHARE_MAX = 0.95
LATE_S_MAX = 0.5
# A value is at most 1 / max_per_s old, and then on its way
NEWEST_WITHIN_S = 3.0


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    subscribers, keys, seconds = (20, 200, 2.0) if bench.quick else (SUBSCRIBERS, KEYS, 20.0)
    measurements = []
    for round_, contender in bench.alternating("latest"):
        result = _session(bench, contender, subscribers, keys, seconds)
        measurements.append({"round": round_, "contender": contender.name, **result})
        say(f"latest round {round_ + 1}, {contender.name}: {_summary(result)}")
    return {"subscribers": subscribers, "keys": keys, "per_s": PER_S, "seconds": seconds, "measurements": measurements}


def _summary(result: dict[str, Any]) -> str:
    if result["complaints"]:
        return "; ".join(result["complaints"])
    return (
        f"{result['core_share']:.0%} of a core, {result['rss_bytes'][-1] / 1e6:.0f} MB at the end, "
        f"at most {result['sustained_per_s']:,} updates a second"
    )


def _session(bench: Bench, contender: Contender, subscribers: int, keys: int, seconds: float) -> dict[str, Any]:
    options = {"connections": subscribers, "keys": keys, "spin": bench.spin, "idle_timeout_s": NEWEST_WITHIN_S}
    try:
        with bench.server(contender) as (server, meter), bench.client(contender, server, **options) as client:
            time.sleep(SETTLE_S)
            result = _load(server, client, meter, keys, keys * PER_S, seconds)
            result["steps"] = []
            for per_s in STEPS[: 2 if bench.quick else len(STEPS)]:
                step = _load(server, client, meter, keys, keys * per_s, min(seconds, 4.0))
                step["updates_per_s"] = keys * per_s
                result["steps"].append(step)
                if step["complaints"] or step["core_share"] > CORE_SHARE_MAX:
                    break
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}
    kept_up = [step["updates_per_s"] for step in result["steps"] if not step["complaints"]]
    result["sustained_per_s"] = max(kept_up, default=0)
    return result


def _load(
    server: Server, client: LoadClient, meter: CpuMeter, keys: int, rate: float, seconds: float
) -> dict[str, Any]:
    before = meter.read()
    server.begin(do="keys", keys=keys, rate=rate, seconds=seconds, size=MESSAGE_BYTES)
    memory = _watch_memory(server, seconds)
    answer = server.answer(30)
    cpu = meter.read() - before
    phase = client.until(answer["last"], timeout_s=30)
    return {
        "complaints": _complaints(phase, answer),
        "rss_bytes": memory,
        "core_share": cpu.total_s / cpu.at_s,
        "deliveries": phase["messages"],
        "per_cpu_s": _per_cpu_s(phase, cpu),
        "late_s": answer["late_s"],
        "client_share": phase["client_busy_s"] / phase["wall_s"],
        **costs(cpu),
    }


def _per_cpu_s(phase: dict[str, Any], cpu: Cpu) -> float:
    return float(phase["messages"]) / max(cpu.total_s, 0.01)


def _watch_memory(server: Server, seconds: float) -> list[int]:
    """The server's resident memory, once a second."""
    found = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        found.append(rss_bytes(server.pid))
    return found


def _complaints(phase: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """It counts when every client ended with the newest value of every key."""
    found = {
        f"{phase['connections'] - phase['done']} clients lacked the newest value of a key": not phase["complete"],
        f"{phase['closed_total']} connections were closed": phase["closed_total"],
        "numbers of a key went back": phase["repeated"],
        "messages were malformed": phase["malformed"],
        f"the publisher was {answer['late_s']:.1f} s late": answer["late_s"] > LATE_S_MAX,
    }
    return [text for text, is_so in found.items() if is_so]
