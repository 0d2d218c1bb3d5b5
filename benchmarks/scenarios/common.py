"""What the scenarios share: the bench (machine, loop, sizes), its sessions, and when a run counts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import Contender, Launch, Tls
from benchmarks.load import LoadClient, Talker
from benchmarks.machine import Cpu, CpuMeter, Place
from benchmarks.processes import Server, free_port

MESSAGE_BYTES = 128
SETTLE_S = 0.3


# above it, the load client may have been what limited a measurement
CLIENT_SHARE_MAX = 0.9


@dataclass(frozen=True)
class Bench:
    """One run of the suite. ``quick`` shows that it works; its numbers mean little."""

    server_place: Place
    client_place: Place
    softirq_apart: bool
    loop: str
    rounds: int
    quick: bool
    contenders: tuple[Contender, ...]

    def taking_part(self, scenario: str) -> tuple[Contender, ...]:
        """Those of the chosen contenders that take part in ``scenario``."""
        return tuple(contender for contender in self.contenders if scenario in contender.scenarios)

    def alternating(self, scenario: str) -> Iterator[tuple[int, Contender]]:
        """Every contender of ``scenario`` in every round, each round starting with another one."""
        contenders = self.taking_part(scenario)
        for round_ in range(self.rounds):
            start = round_ % max(1, len(contenders))
            for contender in contenders[start:] + contenders[:start]:
                yield round_, contender

    @contextmanager
    def server(
        self, contender: Contender, *, window_ms: float | None = None, tls: Tls | None = None
    ) -> Iterator[tuple[Server, CpuMeter]]:
        """A fresh server process, listening, and the meter of its CPU time."""
        launch = Launch(free_port(), self.loop, window_ms, tls)
        with Server(contender.name, contender.command(launch), launch.port, self.server_place) as server:
            yield server, CpuMeter(server.pid, self.server_place.core, self.softirq_apart)

    @property
    def spin(self) -> bool:
        """Whether the load client may poll without sleeping: where it has a core of its own."""
        return self.server_place.core != self.client_place.core

    def client(self, contender: Contender, server: Server, **options: Any) -> LoadClient:
        """A load client for ``server``; the options are those of ``LoadClient``."""
        return LoadClient(
            port=server.port, path=contender.path, dialect=contender.dialect, place=self.client_place, **options
        )

    def talker(self, contender: Contender, server: Server, **options: Any) -> Talker:
        """A load client that sends; the options are those of ``Talker``."""
        return Talker(port=server.port, path=contender.path, place=self.client_place, spin=self.spin, **options)


def costs(cpu: Cpu) -> dict[str, float]:
    """What a measurement says about the processor, beside the result itself."""
    return {
        "user_s": cpu.user_s,
        "system_s": cpu.system_s,
        "softirq_s": cpu.softirq_s,
        "others_share": cpu.others_share,
    }


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def complaints(phase: dict[str, Any], first: int, last: int) -> list[str]:
    """Why a phase does not count; empty when every client saw every number from ``first`` to ``last`` once."""
    wanted = (last - first + 1) * phase["connections"]
    found = {
        f"{phase['messages']:,} of {wanted:,} messages arrived": phase["messages"] != wanted or not phase["complete"],
        f"{phase['closed_total']} connections were closed": phase["closed_total"],
        f"{phase['missing']:,} sequence numbers were missing": phase["gaps"],
        f"{phase['told_gaps']:,} gaps were told": phase["told_gaps"],
        "sequence numbers came twice": phase["repeated"],
        "messages were malformed": phase["malformed"],
    }
    if phase["messages"] == wanted and (phase["first_min"], phase["first_max"], phase["last_min"]) != (
        first,
        first,
        last,
    ):
        found["the first or the last message was not the expected one"] = True
    return [text for text, is_so in found.items() if is_so]
