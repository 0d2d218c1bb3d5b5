"""The scenarios: each module runs one or two and returns plain data; benchmarks/report words it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.scenarios import (
    appends,
    connect,
    echo,
    fanout,
    fixed_rate,
    imports,
    latest,
    memory,
    storm,
    upload,
    window,
)
from benchmarks.scenarios.common import Bench

SCENARIOS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "fanout": fanout.run,
    "window": window.run,
    "fixed-rate": fixed_rate.run,
    "stalled": fixed_rate.run_stalled,
    "latest": latest.run,
    "echo": echo.run,
    "upload": upload.run,
    "memory": memory.run,
    "connect": connect.run,
    "wss": connect.run_tls,
    "sessions": fanout.run_sessions,
    "storm": storm.run,
    "appends": appends.run,
    "import": imports.run,
}
