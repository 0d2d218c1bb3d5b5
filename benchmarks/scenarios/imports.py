"""What ``import tidewire`` costs, beside ``import fastapi``: fresh interpreters, alternating."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from benchmarks.scenarios.common import Bench, say

STATEMENTS = (
    "import tidewire",
    "import fastapi",
    "from tidewire import Live, Log, Latest, Signal",
    "from fastapi import FastAPI",
)
_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def run(bench: Bench) -> dict[str, Any]:
    """Seconds that each statement took, in each of 15 fresh interpreters (bytecode is compiled before)."""
    rounds = 3 if bench.quick else 15
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for round_ in range(rounds + 1):
        for statement in STATEMENTS:
            took = _time(statement, bench.server_place.core)
            if round_:
                seconds[statement].append(took)
    for statement, values in seconds.items():
        say(f"{statement}: {sorted(values)[len(values) // 2] * 1000:.0f} ms")
    return {"rounds": rounds, "seconds": seconds}


def _time(statement: str, core: int) -> float:
    """In an interpreter pinned to ``core`` from its start."""
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); {_TIMED.format(statement)}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)
