"""This machine's vital signs, read with psutil. Plain blocking code: the app calls it in a thread."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import psutil

CORE_WINDOW = 5
"""Samples a core's load is averaged over: the kernel counts 10 ms ticks, one sample would jump in steps of 10 %."""
RATE_WINDOW = 10
"""Samples a disk or network rate is averaged over."""
BUSIEST = 4


@dataclass(frozen=True, slots=True)
class Counters:
    """The kernel's running totals at one moment; every rate is the difference of two of these."""

    at_s: float
    cores: tuple[tuple[float, float], ...]
    """Per core: seconds busy, seconds altogether."""
    disk: tuple[int, int] | None
    """Bytes read and written since boot; None where the system does not tell (some containers)."""
    network: tuple[int, int]
    """Bytes received and sent since boot."""


def read_counters() -> Counters:
    """Reads the totals now. Takes about a millisecond."""
    cores = []
    for core in psutil.cpu_times(percpu=True):
        idle = core.idle + getattr(core, "iowait", 0.0)
        # guest time is already inside user time: counting it again would shrink the share of the rest
        total = sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0)
        cores.append((total - idle, total))
    disk = psutil.disk_io_counters()
    network = psutil.net_io_counters()
    return Counters(
        at_s=time.monotonic(),
        cores=tuple(cores),
        disk=(disk.read_bytes, disk.write_bytes) if disk else None,
        network=(network.bytes_recv, network.bytes_sent),
    )


def core_loads(old: Counters, new: Counters) -> list[float]:
    """Percent busy per core between two readings; 0 for a core that told nothing new."""
    loads = []
    for (busy_0, total_0), (busy_1, total_1) in zip(old.cores, new.cores, strict=False):
        elapsed = total_1 - total_0
        loads.append(round(min(100.0, max(0.0, 100 * (busy_1 - busy_0) / elapsed)), 1) if elapsed > 0 else 0.0)
    return loads


def rates(old: tuple[int, int] | None, new: tuple[int, int] | None, elapsed_s: float) -> list[int] | None:
    """Bytes per second of a pair of totals; None where the system does not tell."""
    if old is None or new is None or elapsed_s <= 0:
        return None
    return [max(0, round((b - a) / elapsed_s)) for a, b in zip(old, new, strict=True)]


class Meter:
    """Turns running totals into a pulse: call `read` at a steady beat."""

    def __init__(self) -> None:
        self._past: deque[Counters] = deque([read_counters()], maxlen=RATE_WINDOW + 1)  # oldest first

    def read(self) -> dict[str, Any]:
        """One pulse, ready to publish: load per core, memory, rates of disk and network."""
        now = read_counters()
        before = self._past[-min(CORE_WINDOW, len(self._past))]
        oldest = self._past[0]
        self._past.append(now)
        cores = core_loads(before, now)
        memory = psutil.virtual_memory()
        return {
            "at": round(time.time(), 3),
            "cpu": round(sum(cores) / max(1, len(cores)), 1),
            "cores": cores,
            "memory": {"used": memory.total - memory.available, "total": memory.total},
            "disk": rates(oldest.disk, now.disk, now.at_s - oldest.at_s),
            "network": rates(oldest.network, now.network, now.at_s - oldest.at_s),
            "load": round(psutil.getloadavg()[0], 2),
        }


class Busiest:
    """The processes that used the processor most since the last look. A scan costs far more than a pulse."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}  # (pid, birth) -> processor seconds used so far
        self._at_s = time.monotonic()

    def scan(self) -> list[dict[str, Any]]:
        """The top processes by processor use in percent of one core; empty on the first call."""
        now_s = time.monotonic()
        elapsed_s, self._at_s = now_s - self._at_s, now_s
        seen: dict[tuple[int, float], float] = {}
        found = []
        for process in psutil.process_iter(["name", "cpu_times", "memory_info", "create_time"]):
            info = process.info
            if info["cpu_times"] is None:
                continue
            key = (process.pid, info["create_time"])
            seen[key] = info["cpu_times"].user + info["cpu_times"].system
            used_s = seen[key] - self._seen.get(key, seen[key])
            resident = info["memory_info"].rss if info["memory_info"] else 0
            found.append((used_s, resident, process.pid, str(info["name"])))
        self._seen = seen
        found.sort(reverse=True)
        return [
            {"pid": pid, "name": name, "cpu": round(100 * used_s / max(elapsed_s, 0.01), 1), "memory": resident}
            for used_s, resident, pid, name in found[:BUSIEST]
        ]
