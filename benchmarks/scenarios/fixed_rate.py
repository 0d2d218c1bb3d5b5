"""Users' time: 1,000 subscribers x 100 messages a second, 10,000 x 10; and 1,000 x 20 beside a reader that never reads.

Every message carries the time it was due, so that a publisher that is held up shows as late messages and
not as fewer ones (no coordinated omission).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.load import LoadClient
from benchmarks.machine import BenchmarkError, CpuMeter, rss_bytes
from benchmarks.processes import Server
from benchmarks.scenarios.common import MESSAGE_BYTES, SETTLE_S, Bench, complaints, say

# (subscribers, messages a second)
LOADS = ((1000, 100), (10_000, 10))
QUICK_LOADS = ((50, 100), (100, 10))
STALLED_LOAD = (1000, 20)
# What the stalled reader already waits for when the clock starts, beyond what the kernel buffers took: so near
# to the 1,000 messages of an outbox that a server with such a limit meets it, and acts, within the run.
STALLED_BACKLOG = 900
# The first messages run cold code: they are delivered and checked, their latency is not recorded.
LEAD_IN_S = 1.0


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    loads, seconds = (QUICK_LOADS, 2.0) if bench.quick else (LOADS, 10.0)
    measurements = []
    for round_, contender in bench.alternating("fixed-rate"):
        for subscribers, rate in loads:
            result = _session(bench, contender, subscribers, rate, seconds, stalled=0)
            about = {"round": round_, "contender": contender.name, "subscribers": subscribers, "rate": rate}
            measurements.append(about | result)
            say(f"fixed rate round {round_ + 1}, {contender.name}, {subscribers} x {rate}/s: {_summary(result)}")
    return {"loads": [list(load) for load in loads], "seconds": seconds, "measurements": measurements}


def run_stalled(bench: Bench) -> dict[str, Any]:
    """The same beside one more reader, which has stopped reading."""
    subscribers, rate = (50, 20) if bench.quick else STALLED_LOAD
    seconds = 2.0 if bench.quick else 10.0
    measurements = []
    for round_, contender in bench.alternating("stalled"):
        result = _session(bench, contender, subscribers, rate, seconds, stalled=1)
        measurements.append({"round": round_, "contender": contender.name, **result})
        say(f"stalled round {round_ + 1}, {contender.name}: {_summary(result)}")
    return {"subscribers": subscribers, "rate": rate, "seconds": seconds, "measurements": measurements}


def _summary(result: dict[str, Any]) -> str:
    if "latency_ns" not in result:
        return "; ".join(result["complaints"])
    latency = {name: value / 1e6 for name, value in result["latency_ns"].items()}
    text = f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, longest silence {result['silence_max_s']:.1f} s"
    return "; ".join([text, *result["complaints"]])


def _session(
    bench: Bench, contender: Contender, subscribers: int, rate: int, seconds: float, *, stalled: int
) -> dict[str, Any]:
    # Longer than the 40 s after which uvicorn gives up a WebSocket that answers no ping.
    grace_s = (3.0 if bench.quick else 45.0) if stalled else 5.0
    try:
        with bench.server(contender) as (server, meter), _stalled(bench, contender, server, stalled) as holder:
            options = {"connections": subscribers, "latency": True, "spin": bench.spin, "idle_timeout_s": grace_s}
            with bench.client(contender, server, sources=2, **options) as client:
                time.sleep(SETTLE_S)
                result = _paced(server, client, meter, rate, seconds, grace_s)
                if holder:
                    result["stalled_still_connected"] = holder.now()["stalled_established"]
                return result
    except (BenchmarkError, TimeoutError) as error:
        return {"complaints": [str(error)]}


@contextlib.contextmanager
def _stalled(bench: Bench, contender: Contender, server: Server, count: int) -> Iterator[LoadClient | None]:
    """A reader that has stopped reading, and buffers already full when the healthy ones come."""
    if not count:
        yield None
        return
    with bench.client(contender, server, stalled=count) as holder:
        fill = server.command(60, do="fill", size=16384, patience_s=0.5, bytes_max=64_000_000, backlog=STALLED_BACKLOG)
        if not fill["held_up"]:
            raise BenchmarkError(f"{fill['sent_bytes']} bytes did not fill the buffers of a reader that does not read")
        yield holder


def _paced(
    server: Server, client: LoadClient, meter: CpuMeter, rate: int, seconds: float, grace_s: float
) -> dict[str, Any]:
    before = meter.read()
    pace = {"seconds": seconds, "lead_in_s": LEAD_IN_S, "rate": rate, "size": MESSAGE_BYTES}
    wanted = int((LEAD_IN_S + seconds) * rate)
    frozen = False
    try:
        answer = server.command(LEAD_IN_S + seconds + grace_s, do="pace", **pace)
        phase = client.until(answer["last"], timeout_s=30)
    except TimeoutError:
        frozen = True
        phase = client.now()
    cpu = meter.read() - before
    found = complaints(phase, 1, wanted)
    if frozen:
        found.insert(0, f"the publisher was still held up {grace_s:.0f} s after the end")
    return {
        "complaints": found,
        "delivered_share": phase["messages"] / (wanted * phase["connections"]),
        "latency_ns": phase["latency_ns"],
        "histogram_ns": phase["histogram_ns"],
        "silence_max_s": phase["wall_s"] if not phase["messages"] else phase["silence_max_s"],
        "rss_bytes": rss_bytes(server.pid),
        "core_share": cpu.total_s / phase["wall_s"],
        "others_share": cpu.others_share,
        "client_share": phase["client_busy_s"] / phase["wall_s"],
    }
