"""Publishers that wait for each of their appends: ``python -m benchmarks.load.appends --broker URL ...``.

Prints one JSON object: how many a second, and how long they waited. The file of a broker is where ``TMPDIR`` says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from tidewire.brokers.base import Retention
from tidewire.brokers.open import open_broker
from tidewire.protocol.message import Draft, Kind


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Flat out for ``--seconds``."""
    with tempfile.TemporaryDirectory() as folder:
        broker = open_broker("memory://" if options.broker == "memory" else f"sqlite:///{Path(folder) / 'live.db'}")
        await broker.start(lambda topic, event: None)
        retention = Retention(keep=1000, durable=options.broker == "durable")
        draft = Draft(b"x" * options.size, Kind.JSON)
        waited_ms: list[float] = []
        started = time.perf_counter()
        ends = started + options.seconds

        async def publish(topic: str) -> None:
            while (now := time.perf_counter()) < ends:
                await broker.publish(topic, draft, retention)
                waited_ms.append((time.perf_counter() - now) * 1000)
                if options.broker == "memory":
                    # it answers at once, and the others want to publish too
                    await asyncio.sleep(0)

        await asyncio.gather(*(publish(f"topic/{n % options.topics}") for n in range(options.publishers)))
        seconds = time.perf_counter() - started
        await broker.close()
    waited_ms.sort()
    return {
        "per_s": len(waited_ms) / seconds,
        "p50_ms": waited_ms[len(waited_ms) // 2],
        "p99_ms": waited_ms[int(len(waited_ms) * 0.99)],
    }


def main() -> None:
    """Read the options, print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", choices=("memory", "durable", "lasting"), required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    for name in ("publishers", "topics", "size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        print(json.dumps(asyncio.run(measure(options))))
    else:
        print(json.dumps(uvloop.run(measure(options))))


if __name__ == "__main__":
    main()
